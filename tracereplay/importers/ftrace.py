"""ftrace text: tracefs ``trace`` and ``trace_pipe``, and what ``trace-cmd report`` prints."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

_BLANK = rb"[\x00-\x09\x0b-\x20]"
_EVENT_LINE = re.compile(
    rb"^" + _BLANK + rb"*[^\n]{0,64}?-\d+" + _BLANK + rb"+(?:\(" + _BLANK + rb"*[\d-]+\)" + _BLANK + rb"*)?"
    rb"(?:\[\d+\]" + _BLANK + rb"+(?:[^\d\x00-\x20][^\x00-\x20]{2,5}" + _BLANK + rb"+)?"
    rb"|\d+[^\d\x00-\x20][^\x00-\x20]{3,5}" + _BLANK + rb"+)\d+(?:\.\d+)?:" + _BLANK + rb"+[^\x00-\x20]",
    re.MULTILINE,
)
_TRACER = re.compile(rb"\A(?:\xef\xbb\xbf)?# tracer: ")
_TRACE_CMD = re.compile(rb"\A(?:version = \d+\r?\n)?(?:CPU \d+ is empty\r?\n)*cpus=\d+\r?\n")


class FtraceImporter:
    """Recognises ftrace text and opens it."""

    name = "ftrace"
    title = "text of tracefs trace, trace_pipe or trace-cmd report"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by the header that tracefs and trace-cmd write, POSSIBLE by a line that is an event's."""
        if _TRACER.search(head.data) or _TRACE_CMD.search(head.data):
            return Confidence.CERTAIN
        return Confidence.POSSIBLE if _EVENT_LINE.search(head.data) else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import; loads the compiled parser."""
        from tracereplay.importers.ftrace_text import FtraceConversion

        return FtraceConversion(source, options, advance)


IMPORTER = FtraceImporter()
