"""A binary recording read through the program that wrote it: its text, from a pipe, as it is printed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from tracereplay.errors import ImporterToolMissingError, ImportFormatError

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

STDERR_BYTES = 8192
MESSAGE_BYTES = 400


def program_named(name: str, source: Source, what: str, hint: str) -> str:
    """Path of an installed program. Raises ImporterToolMissingError with the packages that have it."""
    program = shutil.which(name)
    if program is None:
        raise ImporterToolMissingError(
            f"reading {source.name} ({what}) needs {name}, which is not installed", hint=hint
        )
    return program


class Told(NamedTuple):
    """What a program tells of a recording beside its text."""

    host: dict[str, Any]
    clock: str | None
    instances: tuple[str, ...]
    """Names of the ftrace instances in it (``trace-cmd record -B``), which stand before task names in the text."""


NOTHING_TOLD = Told({}, None, ())


class ToolText:
    """What ``command FILE`` prints about a source. Lines with ``chatter`` on standard error say nothing."""

    def __init__(self, source: Source, command: Sequence[str], hint: str, chatter: str = "\n") -> None:
        self.name = source.name
        self._source = source
        self.command = list(command)
        self._hint = hint
        self._chatter = chatter
        self._kept = ExitStack()
        self._path: Path | None = None

    def file(self) -> Path:
        """A plain file for the program, which must seek: the source itself, or its content unpacked."""
        if self._path is None:
            if self._source.is_stdin or self._source.compression:
                folder = self._kept.enter_context(tempfile.TemporaryDirectory())
                self._path = Path(folder) / "recording"
                with self._source.open() as stream, self._path.open("wb") as unpacked:
                    shutil.copyfileobj(stream, unpacked)
            else:
                with self._source.open() as stream:  # hashes it
                    while stream.readinto(bytearray(1 << 20)):  # type: ignore[attr-defined]
                        pass
                self._path = self._source.path.absolute()
        return self._path

    def ask(self, *command: str) -> str:
        """What another command prints about the file; "" when it fails."""
        done = subprocess.run([*command, str(self.file())], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        return done.stdout.decode("utf-8", "replace")

    @contextmanager
    def open(self, advance: Callable[[int], None]) -> Iterator[BinaryIO]:
        """The text. Leaving it normally raises ImportFormatError when the program failed or printed nothing."""
        with self._kept, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [*self.command, str(self.file())],
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
            lines = errors.read(STDERR_BYTES).decode("utf-8", "replace").splitlines()
            said = " ".join(" ".join(line for line in lines if self._chatter not in line).split())[:MESSAGE_BYTES]
            if status != 0 or not stream.size:
                reason = said or "it printed nothing, as it does for a file that is cut short or damaged"
                name = " ".join([Path(self.command[0]).name, self.command[1]])
                raise ImportFormatError(f"{name} failed on {self.name} (exit {status}): {reason}", hint=self._hint)

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
