"""Output of ``bpftrace -f json`` of the program in docs/examples/bpftrace: its lines have the form of an ftrace text.

What the program prints without ``-f json`` is such a text itself, and the ftrace importer reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions
from tracereplay.importers.ftrace_vocabulary import BPFTRACE

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

_RECORD = re.compile(rb'\A\s*\{"type": ?"(?:attached_probes|printf|cat|time|lost_events|map|hist|stats)", ?"data": ?')


class BpftraceImporter:
    """Recognises the records of bpftrace and opens them."""

    name = BPFTRACE.format
    title = "output of bpftrace -f json of tracereplay.bt"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by the first record."""
        return Confidence.CERTAIN if _RECORD.search(head.data) else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import; loads the compiled parser."""
        from tracereplay.importers.bpftrace_json import RecordedText
        from tracereplay.importers.ftrace_text import FtraceConversion

        return FtraceConversion(RecordedText(source), options, advance, form=BPFTRACE)


IMPORTER = BpftraceImporter()
