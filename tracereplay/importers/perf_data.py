"""perf.data of ``perf record``, read through ``perf script``.

The file holds raw records and the kernel's event formats; perf knows them and prints the samples. Both byte orders and
the piped form (``perf record -o -``) are perf's own business. Its text is parsed as it arrives through a pipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions
from tracereplay.importers.ftrace_vocabulary import PERF_SCRIPT
from tracereplay.importers.tool_text import ToolText, program_named

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

MAGICS = (b"PERFILE2", b"2ELIFREP")
"""``PERF_MAGIC2`` as a host of either byte order writes it (tools/perf/util/header.c)."""
FIELDS = "comm,pid,tid,cpu,time,event,trace"
CHAIN_FIELDS = "ip,sym,symoff,dso"


class PerfDataImporter:
    """Recognises perf.data by its magic and opens it through perf."""

    name = "perf.data"
    title = "binary recording of perf record"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by the magic number."""
        return Confidence.CERTAIN if head.data.startswith(MAGICS) else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import. Raises ImporterToolMissingError, or ImportFormatError for another sort of file."""
        if not source.head().data.startswith(MAGICS):
            raise ImportFormatError(f"{source.name} is no perf.data", hint="leave --from out to have it recognised")
        program = program_named(
            "perf",
            source,
            "perf.data",
            "Debian: apt install linux-perf; Ubuntu: apt install linux-tools-common linux-tools-generic; Fedora: dnf "
            f"install perf; or import the text that perf script --ns --header --show-lost-events -F {FIELDS} prints "
            "where it is installed",
        )
        from tracereplay.importers.ftrace_text import FtraceConversion

        script = ToolText(
            source,
            [program, "script"],
            "copy the file again from where it was recorded, after perf had ended; a newer perf reads more files",
            chatter="'trace' not valid for",
        )
        chains = "CALLCHAIN" in script.ask(program, "evlist", "--force", "-v", "-i")
        fields = f"{FIELDS},{CHAIN_FIELDS}" if chains else FIELDS
        # --no-inline: else perf starts addr2line for every frame in user space.
        script.command += ["--force", "--ns", "--header", "--show-lost-events", "--no-inline", "-F", fields, "-i"]
        return FtraceConversion(script, options, advance, form=PERF_SCRIPT, format=self.name)


IMPORTER = PerfDataImporter()
