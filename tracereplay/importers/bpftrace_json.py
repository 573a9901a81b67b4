"""The text inside bpftrace's JSON records, one object a line (``JsonOutput``, bpftrace's src/output.cpp).

Nearly every record is a printed line without an escape but its newline; those are freed of what is around them a block
at a time. Only the others are decoded.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

BLOCK_BYTES = 1 << 20
_START = b'{"type": "printf", "data": "'
_END = b'\\n"}\n'
_TEXTS = ("printf", "cat", "time", "join", "syscall")
"""Records whose data is what a program printed."""
_ODD = re.compile(rb'^(?:\{"type".*|.*\\.*|.*"\}\r?)\n', re.MULTILINE)
"""What the removal of starts and ends leaves of a record that has to be decoded."""


class RecordedText:
    """The text of a source of records."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self._source = source
        self._others: dict[str, int] = {}

    @contextmanager
    def open(self, advance: Callable[[int], None]) -> Iterator[BinaryIO]:
        """The text's bytes."""
        with self._source.open(advance) as stream:
            yield cast(BinaryIO, _Text(stream, self._others))

    def facts(self) -> dict[str, Any]:
        """Those of the file; ``other_records`` counts maps, histograms and so on by type."""
        others = {"other_records": dict(self._others)} if self._others else {}
        return {**self._source.facts(), **others}


class _Text(io.RawIOBase):
    """Bytes of the text, from bytes of the records."""

    def __init__(self, stream: Any, others: dict[str, int]) -> None:
        self._stream = stream
        self._others = others
        self._rest = b""
        self._block = bytearray(BLOCK_BYTES)
        self._out = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill part of a buffer; 0 at the end."""
        view = memoryview(buffer).cast("B")
        while not self._out:
            n = self._stream.readinto(self._block) or 0
            if not n:
                self._out, self._rest = memoryview(self._rest), b""  # a cut line is for the parser to refuse
                break
            data = self._rest + self._block[:n]
            end = data.rfind(b"\n") + 1
            self._rest = data[end:]
            self._out = memoryview(self._text(data[:end]))
        n = min(len(view), len(self._out))
        view[:n] = self._out[:n]
        self._out = self._out[n:]
        return n

    def _text(self, records: bytes) -> bytes:
        text = records.replace(_START, b"").replace(_END, b"\n")
        if b"\\" in text or b'"}' in text or b'{"type"' in text:
            return _ODD.sub(self._decoded, text)
        return text

    def _decoded(self, match: re.Match[bytes]) -> bytes:
        line = match[0]
        bare = line.rstrip(b"\r\n")
        if line.startswith(b'{"type"'):
            record = _loaded(bare) or _loaded(bare + _END)
            return line if record is None else self._record(record)
        whole = _loaded(b'"' + bare + b'\\n"')  # its end was removed, else it ends with the quote and brace still there
        if whole is None and bare.endswith(b'"}'):
            whole = _loaded(b'"' + bare[:-1])
        return _bytes(whole) if isinstance(whole, str) else line

    def _record(self, record: Any) -> bytes:
        """Text of a record that is no plain printed line; empty when it has none."""
        kind, data = (record.get("type"), record.get("data")) if isinstance(record, dict) else (None, None)
        if kind in _TEXTS and isinstance(data, str):
            return _bytes(data)
        if kind == "lost_events" and isinstance(data, dict):
            return f"Lost {data.get('events')} events\n".encode()
        if kind != "attached_probes":
            name = str(kind)[:40]
            self._others[name] = self._others.get(name, 0) + 1
        return b""


def _loaded(text: bytes) -> Any:
    """The JSON value, or None when it is none. Task names may hold any bytes, and bpftrace passes them on."""
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that was written as an escape
        return text.encode("utf-8", "backslashreplace")
