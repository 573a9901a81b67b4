"""Where an import reads from: a file or standard input, plain or compressed, hashed on the way."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import HEAD_BYTES, Head
from tracereplay.importers.percpu import percpu_files

STDIN = "-"
COMPRESSIONS = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\x00", "bzip2": b"BZh"}
_RAW_HEAD = 4 * HEAD_BYTES
_ZSTD_INPUT = 1 << 17


class _Hashed(io.RawIOBase):
    """The raw bytes of a source: hashed and counted as they are read, the bytes already looked at first."""

    def __init__(self, raw: BinaryIO, head: bytes, advance: Callable[[int], None]) -> None:
        self._raw = raw
        self._head = memoryview(head)
        self._advance = advance
        self.digest = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill part of a buffer; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._head:
            n = min(len(view), len(self._head))
            view[:n] = self._head[:n]
            self._head = self._head[n:]
        else:
            n = cast(Any, self._raw).readinto(view) or 0
        self.digest.update(view[:n])
        self.size += n
        self._advance(n)
        return n


class Source:
    """A file or standard input, or the first of several files that are one source. Use as a context manager.

    Raises ImportFormatError when it cannot be opened.
    """

    def __init__(self, path: str | Path, *, alone: bool = False) -> None:
        self.is_stdin = str(path) == STDIN
        self.path = Path(path)
        self.files: list[Path] = [] if self.is_stdin or alone else percpu_files(self.path)
        """All of them, where there are several; ``alone``: this file is meant and no other."""
        if self.files:
            self.path = next((f for f in self.files if f.stat().st_size), self.files[0])
        self.name = STDIN if self.is_stdin else self.path.name
        self._raw = cast(BinaryIO, sys.stdin.buffer) if self.is_stdin else self._open_file()
        self._head = _read_up_to(self._raw, _RAW_HEAD)
        self.compression = next((c for c, magic in COMPRESSIONS.items() if self._head.startswith(magic)), None)
        self._stream: _Hashed | None = None

    def _open_file(self) -> BinaryIO:
        hint = "check the path"
        try:
            return self.path.open("rb", buffering=0)
        except FileNotFoundError:
            reason = "it does not exist"
        except IsADirectoryError:
            reason = "it is a directory"
            bundle = (self.path / "manifest.json").is_file()
            hint = "it is a trace already: tracereplay info" if bundle else "name a file in it"
        except PermissionError:
            reason, hint = "no permission", "change its permissions, or run as its owner"
        except OSError as error:
            reason = str(error.strerror)
        raise ImportFormatError(f"cannot read {self.path}: {reason}", hint=hint)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_stdin:
            self._raw.close()

    @property
    def size(self) -> int | None:
        """Bytes of the file as it is stored; None for standard input."""
        return None if self.is_stdin else self.path.stat().st_size

    def head(self) -> Head:
        """The start of the source, decompressed as far as it goes."""
        data = self._head
        whole = len(self._head) < _RAW_HEAD
        if self.compression:
            with decompressed(io.BytesIO(self._head), self.compression) as stream:
                data, intact = _read_tolerantly(stream, HEAD_BYTES + 1)
            whole = whole and intact and len(data) <= HEAD_BYTES
        else:
            whole = whole and len(data) <= HEAD_BYTES
        return Head(self.name, data[:HEAD_BYTES], whole)

    @contextmanager
    def open(self, advance: Callable[[int], None] = lambda _n: None) -> Iterator[BinaryIO]:
        """The decompressed bytes, once. ``advance`` is told stored bytes as they are read, from any thread."""
        self._stream = _Hashed(self._raw, self._head, advance)
        if self.compression is None:
            yield cast(BinaryIO, self._stream)
        else:
            with decompressed(io.BufferedReader(self._stream, 1 << 20), self.compression) as stream:
                yield stream

    def facts(self) -> dict[str, Any]:
        """``path`` as given, ``sha256 bytes compression``; the hash covers what was read, all of it at the end."""
        facts: dict[str, Any] = {"path": str(self.path)}
        if self._stream is not None:
            facts |= {"sha256": self._stream.digest.hexdigest(), "bytes": self._stream.size}
        if self.compression:
            facts["compression"] = self.compression
        return facts


class _ZstdFrames(io.RawIOBase):
    """Decompressed zstd frames, one after another. Unlike the library's own reader it says when the last is cut short.

    Raises EOFError for that, zstandard.ZstdError for damage.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill part of a buffer; 0 at the end."""
        view = memoryview(buffer).cast("B")
        while not self._output:
            self._input = self._input or self._stream.read(_ZSTD_INPUT)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("the zstd frame ends early")
                return 0
            self._decompress()
        n = min(len(view), len(self._output))
        view[:n] = self._output[:n]
        self._output = self._output[n:]
        return n

    def _decompress(self) -> None:
        import zstandard

        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._output = memoryview(self._frame.decompress(self._input))
        self._input = b""
        if self._frame.eof:
            self._input, self._frame = self._frame.unused_data, None


def _read_up_to(raw: BinaryIO, n: int) -> bytes:
    parts = []
    while n > 0 and (part := raw.read(n)):
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def _read_tolerantly(stream: BinaryIO, n: int) -> tuple[bytes, bool]:
    """Up to ``n`` bytes, and whether the compressed data was intact so far: a head usually ends within a block."""
    parts: list[bytes] = []
    try:
        while n > 0 and (part := stream.read(min(n, 4096))):
            parts.append(part)
            n -= len(part)
    except DAMAGED:
        return b"".join(parts), False
    return b"".join(parts), True


def _damaged() -> tuple[type[Exception], ...]:
    import zstandard

    return (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


DAMAGED = _damaged()
"""What the decompressors raise on data that ends early or is not theirs."""


@contextmanager
def decompressed(stream: Any, compression: str) -> Iterator[BinaryIO]:
    """The decompressed form of a binary stream."""
    if compression == "gzip":
        with gzip.GzipFile(fileobj=stream) as opened:
            yield cast(BinaryIO, opened)
    elif compression == "zstd":
        yield cast(BinaryIO, io.BufferedReader(_ZstdFrames(stream), 1 << 20))
    elif compression == "xz":
        with lzma.LZMAFile(stream) as file:
            yield cast(BinaryIO, file)
    else:
        with bz2.BZ2File(stream) as zipped:
            yield cast(BinaryIO, zipped)
