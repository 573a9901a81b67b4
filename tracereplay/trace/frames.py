"""Reading the frames that a collector writes (docs/capture-stream.md has the protocol).

Works on a pipe and on a file alike. Batches are read straight into one growing buffer per ring and CPU, so
that what reaches the decoder is contiguous and copied once. Nothing that a stream says is trusted: bad
magic, a later version, a broken frame, a batch that does not fit its ring and a stream without its closing
frame are each a CollectorError.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tracereplay.errors import CollectorError
from tracereplay.trace.ahead import ahead

MAGIC = b"\x89TRC\r\n\x1a\n"
VERSION = 1
STREAM_HEADER = struct.Struct("<8sHHI")
FRAME_MARKER = 0x46435254
FRAME_HEADER = struct.Struct("<IHHIIQQ")

HELLO, BATCH, WATERMARK, SNAPSHOT, STATUS, CLOSING, ERROR, SYMBOLS, CGROUPS, PAGE_MAP, FTRACE = range(1, 12)
_JSON_FRAMES = (HELLO, SNAPSHOT, STATUS, CLOSING, ERROR, SYMBOLS, CGROUPS)
_BINARY_FRAMES = (PAGE_MAP, FTRACE)

MAX_JSON_BYTES = 256 << 20
MAX_BATCH_BYTES = 2 << 30
MAX_CPU = 65535

FLUSH_BYTES = 6 << 20
"""Batches are handed on when so much has gathered ..."""
FLUSH_NS = 200_000_000
"""... or when the oldest of them is so old, in ns of the collector's clock."""

ABANDON_S = 30.0
"""How long an abandoned stream may take to its end."""

Bytes = npt.NDArray[np.uint8]
SlabKey = tuple[int, int]
"""(ring, CPU)."""


@dataclass(frozen=True, slots=True)
class Message:
    """A frame with a JSON object."""

    type: int
    mono_ns: int
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batches:
    """Raw records of some rings, in ring order for each (ring, CPU)."""

    watermark_ns: int
    """Every record with a smaller time stamp is in this or an earlier packet."""
    slabs: dict[SlabKey, Bytes]
    pages: Sequence[Blob] = ()
    """FTRACE frames, which come instead of records where the host refuses eBPF."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A frame with bytes that are no records: PAGE_MAP, and within Batches FTRACE."""

    type: int
    cpu: int
    mono_ns: int
    position: int
    payload: bytearray


Packet = Message | Batches | Blob


class Readable(Protocol):
    """A stream of bytes that is no descriptor: decompressed, or hashed on the way."""

    def readinto(self, view: memoryview, /) -> int:
        """Fill part of a buffer; 0 at the end."""
        ...


class _Source:
    """Exact reads from a file descriptor or a stream."""

    def __init__(self, stream: int | Readable) -> None:
        self._stream = stream

    def fill(self, view: memoryview) -> int:
        """Read until ``view`` is full or the stream ends; the bytes read."""
        done = 0
        while done < len(view):
            rest = view[done:]
            count = os.readv(self._stream, [rest]) if isinstance(self._stream, int) else self._stream.readinto(rest)
            if count == 0:
                break
            done += count
        return done


@dataclass(slots=True)
class _Slab:
    """A growing buffer of one ring and CPU."""

    data: Bytes
    used: int = 0

    def room(self, more: int) -> memoryview:
        if self.used + more > len(self.data):
            grown = np.empty(max(self.used + more, 2 * len(self.data)), np.uint8)
            grown[: self.used] = self.data[: self.used]
            self.data = grown
        return self.data.data[self.used : self.used + more]


@dataclass(slots=True)
class _Gathering:
    """Batches that wait to be handed on."""

    slabs: dict[SlabKey, _Slab] = field(default_factory=dict)
    bytes: int = 0
    since_ns: int = 0
    watermark_ns: int = 0
    expected: dict[SlabKey, int] = field(default_factory=dict)
    """Size of the last packet's slab: the next one starts with that."""
    pages: list[Blob] = field(default_factory=list)

    def slab(self, key: SlabKey) -> _Slab:
        found = self.slabs.get(key)
        if found is None:
            size = self.expected.get(key, 0) * 5 // 4 + (64 << 10)
            found = self.slabs[key] = _Slab(np.empty(size, np.uint8))
        return found

    def add_page(self, blob: Blob) -> int:
        """Take an FTRACE frame; the bytes that wait now."""
        self.pages.append(blob)
        self.since_ns = self.since_ns if self.bytes else blob.mono_ns
        self.bytes += len(blob.payload)
        self.watermark_ns = max(self.watermark_ns, blob.mono_ns)
        return self.bytes

    def take(self) -> Batches:
        slabs = {key: slab.data[: slab.used] for key, slab in self.slabs.items() if slab.used}
        self.expected.update({key: len(data) for key, data in slabs.items()})
        pages, self.pages = self.pages, []
        self.slabs = {}
        self.bytes = 0
        return Batches(self.watermark_ns, slabs, pages)


def read_packets(
    stream: int | Readable, *, flush_bytes: int = FLUSH_BYTES, flush_ns: int = FLUSH_NS
) -> Iterator[Packet]:
    """Packets of a stream (a file descriptor, or an object that reads) until its closing or error frame, which
    comes last.

    Raises CollectorError for a stream that is none, is of a later version, is broken, or ends early;
    everything that came whole before that has been handed on.
    """
    gathering = _Gathering()
    try:
        yield from _packets(_Source(stream), gathering, flush_bytes, flush_ns)
    except CollectorError:
        if gathering.bytes:
            yield gathering.take()
        raise


def _packets(source: _Source, gathering: _Gathering, flush_bytes: int, flush_ns: int) -> Iterator[Packet]:
    first = bytearray(STREAM_HEADER.size)
    check_stream_header(bytes(first[: source.fill(memoryview(first))]))
    head = bytearray(FRAME_HEADER.size)
    strides: list[int] = []
    positions: dict[SlabKey, int] = {}
    at = STREAM_HEADER.size
    while True:
        count = source.fill(memoryview(head))
        if count < len(head):
            raise _early_end(at, "between frames" if count == 0 else "inside a frame header")
        marker, kind, ring, cpu, length, mono_ns, position = FRAME_HEADER.unpack(head)
        if marker != FRAME_MARKER:
            raise CollectorError(
                f"the collector's stream is broken at byte {at}: no frame marker",
                hint="something else wrote into the stream; keep the collector's stdout for frames only",
            )
        at += len(head)
        if kind == BATCH:
            _check_batch(at, strides, ring, cpu, length)
            key = (ring, cpu)
            if positions.setdefault(key, position) != position:
                raise CollectorError(
                    f"the collector's stream skips from {positions[key]} to {position} in ring {ring} of CPU {cpu}"
                )
            positions[key] = position + length
            slab = gathering.slab(key)
            if source.fill(slab.room(length)) < length:
                raise _early_end(at, "inside a batch")
            slab.used += length
            gathering.since_ns = gathering.since_ns if gathering.bytes else mono_ns
            gathering.bytes += length
        elif kind == WATERMARK and length == 0:
            gathering.watermark_ns = mono_ns
            full = gathering.bytes >= flush_bytes or mono_ns - gathering.since_ns >= flush_ns
            if gathering.bytes and full:
                yield gathering.take()
        else:
            if length > MAX_JSON_BYTES:
                raise CollectorError(f"frame of type {kind} at byte {at} claims {length} bytes")
            payload = bytearray(length)
            if source.fill(memoryview(payload)) < length:
                raise _early_end(at, f"inside a frame of type {kind}")
            if kind in _JSON_FRAMES:
                message = Message(kind, mono_ns, _json_object(payload, kind, at))
                if kind == HELLO:
                    strides = hello_strides(message.value)
                if kind in (STATUS, CLOSING, ERROR) and gathering.bytes:
                    yield gathering.take()
                yield message
                if kind in (CLOSING, ERROR):
                    return
            elif kind in _BINARY_FRAMES:
                blob = Blob(kind, cpu, mono_ns, position, payload)
                if kind != FTRACE:
                    yield blob
                elif gathering.add_page(blob) >= flush_bytes or mono_ns - gathering.since_ns >= flush_ns:
                    yield gathering.take()
        at += length


def read_ahead(packets: Iterator[Packet], depth: int = 8) -> Generator[Packet, None, None]:
    """The same packets, read on a thread of their own: a slow writer does not stop the pipe at once.

    At most ``depth`` packets wait (then the pipe fills, then the rings; what they cannot hold is counted as
    lost).
    """
    return ahead(packets, depth, "frames", drain_s=ABANDON_S)


def hello_strides(hello: dict[str, Any]) -> list[int]:
    """Bytes from record to record for each ring of a hello. Raises CollectorError for one that makes no
    sense."""
    try:
        if hello["byteorder"] != sys.byteorder:
            raise CollectorError(
                f"the stream comes from a {hello['byteorder']}-endian host", hint="convert it on a host of that order"
            )
        strides = [int(ring["stride"]) for ring in hello["rings"]]
        if not strides or any(s < 16 or s % 8 for s in strides):
            raise ValueError(f"strides {strides}")
    except (KeyError, TypeError, ValueError) as error:
        raise CollectorError(f"the collector's hello is damaged: {error!r}") from None
    return strides


def check_stream_header(head: bytes) -> None:
    """Raises CollectorError unless the 16 bytes (fewer: the stream ends there) open a stream of this protocol."""
    if not head:
        raise _early_end(0, "before it began")
    if head[:8] != MAGIC:
        raise CollectorError(
            f"not a collector's stream: it begins with {head!r}",
            hint="frames come from `tracereplay capture` or from the collectors directory, unchanged",
        )
    if len(head) < STREAM_HEADER.size:
        raise _early_end(len(head), "inside its header")
    version = STREAM_HEADER.unpack(head)[1]
    if version != VERSION:
        raise CollectorError(
            f"the collector speaks protocol {version}, this tracereplay {VERSION}",
            hint="use the collector that came with this tracereplay",
        )


def _check_batch(at: int, strides: list[int], ring: int, cpu: int, length: int) -> None:
    if ring >= len(strides):
        raise CollectorError(f"batch at byte {at} is of ring {ring}, hello named {len(strides)}")
    if cpu > MAX_CPU or length > MAX_BATCH_BYTES or length % strides[ring]:
        raise CollectorError(f"batch at byte {at}: {length} bytes of CPU {cpu} do not fit ring {ring}")


def _json_object(payload: bytearray, kind: int, at: int) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except ValueError as error:
        raise CollectorError(f"frame of type {kind} at byte {at} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CollectorError(f"frame of type {kind} at byte {at} is a {type(value).__name__}, not an object")
    return value


def _early_end(at: int, where: str) -> CollectorError:
    return CollectorError(
        f"the collector's stream ended {where}, at byte {at}, without its closing frame",
        hint="the collector died or its host went away; what was written before is kept",
    )
