"""trace.dat of trace-cmd (format versions 6 and 7), read through ``trace-cmd report``.

The file holds the kernel's binary ring pages; trace-cmd knows every event's layout and prints it. Its text comes
through a pipe and is parsed as it arrives. ``-t`` gives full nanoseconds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from tracereplay.errors import ImporterToolMissingError, ImportFormatError
from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

MAGIC = b"\x17\x08\x44tracing"
PROGRAM = "trace-cmd"
VERSIONS = (b"6", b"7")

_UNAME = re.compile(r"\[Option UNAME,[^\]]*\]\s*\n(\S+) (\S+) (\S+) (\S+)")
_CLOCK = re.compile(r'\[buffer "[^"]*", "([^"]+)" clock|^\s*"([\w-]+)" \[clock\]', re.MULTILINE)
_CLOCK_LIST = re.compile(r"^\s*(?:\[?[a-z][\w-]*\]? )*\[([a-z][\w-]*)\](?: [a-z][\w-]*)*\s*$", re.MULTILINE)
_PAGE_SIZE = re.compile(r"^\s*(\d+)\s+\[Page size, bytes\]", re.MULTILINE)
_CPUS = re.compile(r"\[Option CPUCOUNT,[^\]]*\]\s*\n(\d+)")
MESSAGE_BYTES = 400


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
        program = shutil.which(PROGRAM)
        if program is None:
            raise ImporterToolMissingError(
                f"reading {source.name} (trace.dat) needs trace-cmd, which is not installed",
                hint="Debian, Ubuntu: apt install trace-cmd; Fedora: dnf install trace-cmd; or import the text that "
                "trace-cmd report -t prints where it is installed",
            )
        from tracereplay.importers.ftrace_text import FtraceConversion

        report = Report(source, program)
        host, clock = report.header()
        return FtraceConversion(
            report, options, advance, format=f"trace.dat v{version.decode()}", host=host, clock=clock
        )


class Report:
    """The text of a trace.dat, from ``trace-cmd report``."""

    def __init__(self, source: Source, program: str) -> None:
        self.name = source.name
        self._source = source
        self._program = program
        self._kept = ExitStack()
        self._path: Path | None = None

    def _file(self) -> Path:
        """A plain file to give to trace-cmd, which must seek: the source itself, or its content unpacked."""
        if self._path is None:
            if self._source.is_stdin or self._source.compression:
                folder = self._kept.enter_context(tempfile.TemporaryDirectory())
                self._path = Path(folder) / "trace.dat"
                with self._source.open() as stream, self._path.open("wb") as unpacked:
                    shutil.copyfileobj(stream, unpacked)
            else:
                with self._source.open() as stream:  # hashes it
                    while stream.readinto(bytearray(1 << 20)):  # type: ignore[attr-defined]
                        pass
                self._path = self._source.path.absolute()
        return self._path

    def header(self) -> tuple[dict[str, Any], str | None]:
        """Host facts and the clock's name, as far as ``trace-cmd dump`` tells them."""
        done = subprocess.run(
            [self._program, "dump", "--summary", "--options", str(self._file())],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        text = done.stdout.decode("utf-8", "replace")
        host: dict[str, Any] = {}
        if match := _UNAME.search(text):
            host = {"hostname": match[2], "release": match[3], "arch": match[4]}
        if match := _CPUS.search(text):
            host["cpus"] = int(match[1])
        if match := _PAGE_SIZE.search(text):
            host["page_size"] = int(match[1])
        clock = None
        if match := _CLOCK.search(text):
            clock = match[1] or match[2]
        elif match := _CLOCK_LIST.search(text):
            clock = match[1]
        return host, clock

    @contextmanager
    def open(self, advance: Callable[[int], None]) -> Iterator[BinaryIO]:
        """The text. Leaving it normally raises ImportFormatError when trace-cmd failed or printed nothing."""
        with self._kept, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [self._program, "report", "-t", str(self._file())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
            assert process.stdout is not None
            stream = _Counted(process.stdout)
            try:
                yield cast(BinaryIO, stream)
                status = process.wait()
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
            advance(self._source.size or 0)
            errors.seek(0)
            said = " ".join(errors.read(MESSAGE_BYTES).decode("utf-8", "replace").split())
            if status != 0 or not stream.size:
                reason = said or "it printed nothing, as it does for a file that is cut short or damaged"
                raise ImportFormatError(
                    f"trace-cmd report failed on {self.name} (exit {status}): {reason}",
                    hint="copy the file again from where it was recorded, after trace-cmd had ended",
                )

    def facts(self) -> dict[str, Any]:
        """Those of the file."""
        return self._source.facts()


class _Counted:
    """A pipe that knows how much came out of it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe: Any = pipe
        self.size = 0

    def readinto(self, buffer: memoryview) -> int:
        n = self._pipe.readinto(buffer) or 0
        self.size += n
        return int(n)


IMPORTER = TraceDatImporter()
