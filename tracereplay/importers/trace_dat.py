"""trace.dat of trace-cmd (format versions 6 and 7), read through ``trace-cmd report``.

The file holds the kernel's binary ring pages; trace-cmd knows every event's layout and prints it. Its text comes
through a pipe and is parsed as it arrives. ``-t`` gives full nanoseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions
from tracereplay.importers.tool_text import Told, ToolText, program_named

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

MAGIC = b"\x17\x08\x44tracing"
PROGRAM = "trace-cmd"
VERSIONS = (b"6", b"7")

_UNAME = re.compile(r"\[Option UNAME,[^\]]*\]\s*\n(\S+) (\S+) (\S+) (\S+)")
_CLOCK = re.compile(r'\[buffer "[^"]*", "([^"]+)" clock|^\s*"([\w-]+)" \[clock\]', re.MULTILINE)
_CLOCK_LIST = re.compile(r"^\s*(?:\[?[a-z][\w-]*\]? )*\[([a-z][\w-]*)\](?: [a-z][\w-]*)*\s*$", re.MULTILINE)
_BUFFERS = re.compile(r'^\s*"([^"\n]*)" \[name\]', re.MULTILINE)
_PAGE_SIZE = re.compile(r"^\s*(\d+)\s+\[Page size, bytes\]", re.MULTILINE)
_CPUS = re.compile(r"\[Option CPUCOUNT,[^\]]*\]\s*\n(\d+)")


class TraceDatImporter:
    """Recognises trace.dat by its magic and opens it through trace-cmd."""

    name = "trace.dat"
    title = "binary recording of trace-cmd, version 6 or 7"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by the magic number."""
        return Confidence.CERTAIN if head.data.startswith(MAGIC) else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import. Raises ImporterToolMissingError, or ImportFormatError for a version not known."""
        head = source.head().data
        if not head.startswith(MAGIC):
            raise ImportFormatError(f"{source.name} is no trace.dat", hint="leave --from out to have it recognised")
        version = head[len(MAGIC) :].split(b"\0", 1)[0][:20]
        if version not in VERSIONS:
            raise ImportFormatError(
                f"{source.name} has trace.dat version {version.decode('ascii', 'replace')}; known are 6 and 7",
                hint="convert it where it was recorded: trace-cmd report -t FILE > FILE.txt, and import the text",
            )
        program = program_named(
            PROGRAM,
            source,
            "trace.dat",
            "Debian, Ubuntu: apt install trace-cmd; Fedora: dnf install trace-cmd; or import the text that "
            "trace-cmd report -t prints where it is installed",
        )
        from tracereplay.importers.ftrace_text import FtraceConversion

        report = ToolText(
            source,
            [program, "report", "-t"],
            "copy the file again from where it was recorded, after trace-cmd had ended",
        )
        facts = told(report.ask(program, "dump", "--summary", "--options"))
        return FtraceConversion(report, options, advance, format=f"trace.dat v{version.decode()}", told=facts)


def told(text: str) -> Told:
    """Read what ``trace-cmd dump --summary --options`` prints."""
    host: dict[str, Any] = {}
    if match := _UNAME.search(text):
        host = {"hostname": match[2], "release": match[3], "arch": match[4]}
    if match := _CPUS.search(text):
        host["cpus"] = int(match[1])
    if match := _PAGE_SIZE.search(text):
        host["page_size"] = int(match[1])
    # The list is that of the instance which was recorded; for instances, "[buffer" names the clock of the top level.
    clock = None
    if match := _CLOCK_LIST.search(text):
        clock = match[1]
    elif match := _CLOCK.search(text):
        clock = match[1] or match[2]
    return Told(host, clock, tuple(sorted({name for name in _BUFFERS.findall(text) if name})))


IMPORTER = TraceDatImporter()
