"""Text of ``perf script``: with or without call chains, header and lost records."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions
from tracereplay.importers.ftrace_vocabulary import PERF_SCRIPT

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

# A sample without its CPU is recognised as well, so that what is missing can be named.
_EVENT_LINE = re.compile(
    (
        r"^[^\n]{0,96}?(?:^|B)-?\d+(?:/-?\d+)?B+(?:\[\d+\]B+)?\d+\.\d+:B+(?:\d+B+)?"
        r"(?:[\w-]+:[\w-]+(?::\w+)?:|PERF_RECORD_)"
    )
    .replace("B", r"[\x00-\x09\x0b-\x20]")
    .encode(),
    re.MULTILINE,
)
_HEADER = re.compile(rb"\A(?:\xef\xbb\xbf)?# ========\r?\n# captured on")


class PerfScriptImporter:
    """Recognises the text of perf script and opens it."""

    name = PERF_SCRIPT.format
    title = "text of perf script"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by the header that ``--header`` writes, POSSIBLE by a line that is a sample's."""
        if _HEADER.search(head.data):
            return Confidence.CERTAIN
        return Confidence.POSSIBLE if _EVENT_LINE.search(head.data) else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import; loads the compiled parser."""
        from tracereplay.importers.ftrace_text import FtraceConversion

        return FtraceConversion(source, options, advance, form=PERF_SCRIPT)


IMPORTER = PerfScriptImporter()
