"""From raw ring records to columns: merge of the CPUs by time, gaps by sequence number. No loop over events.

A ring of one CPU is in time order by itself, but for records that an interrupt made while another program was
about to take its time. A flush takes, from every CPU, what is older than the watermark
(nothing older can come any more), sorts it by (time, CPU), and keeps the rest for the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.errors import CollectorError
from tracereplay.trace.frames import Bytes

RING_HEADER = 8
BUSY_BIT = 0x80000000
DISCARD_BIT = 0x40000000

FLAG_LOST = {0x20: "unknown", 0x40: "ring_full", 0x80: "ring_lock"}
"""Bits of a record's ``flags`` -> why the records just before it were lost. 0x20: the CPU had no ring."""
_LOST_MASK = 0xE0
COUNTER_CLASSES = {"full": "ring_full", "lock": "ring_lock", "no_ring": "unknown"}
"""Counters of the closing frame -> loss classes."""

_TYPES = {"u8": "u1", "u16": "u2", "u32": "u4", "s32": "i4", "u64": "u8"}
Array = npt.NDArray[Any]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Loss:
    """A row of the ``loss`` table. Times None: nothing was seen before (after) the gap."""

    table: str
    cpu: int | None
    t0_ns: int | None
    t1_ns: int | None
    n: int
    cls: str


@dataclass(frozen=True, slots=True)
class RingLayout:
    """Record layout of a ring, from hello."""

    name: str
    table: str
    stride: int
    record_bytes: int
    offsets: Mapping[str, int]
    dtype: np.dtype[Any]
    """Named fields at their places, the kernel's record header (``header``) included."""

    @classmethod
    def from_hello(cls, ring: Mapping[str, Any]) -> RingLayout:
        """Raises CollectorError for a layout that does not hold together."""
        try:
            stride, size = int(ring["stride"]), int(ring["record_bytes"])
            names: list[str] = ["header"]
            formats: list[Any] = ["<u4"]
            offsets = [0]
            for item in ring["fields"]:
                kind = item["type"]
                names.append(item["name"])
                formats.append(_numpy_type(kind))
                offsets.append(RING_HEADER + int(item["offset"]))
            dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": stride})
            missing = [n for n in ("ts", "seq", "kind", "flags") if n not in names]
            if missing or stride < size + RING_HEADER or stride % 8:
                raise ValueError(f"stride {stride}, size {size}, without {missing}")
            at = dict(zip(names, offsets, strict=True))
            return cls(str(ring["name"]), str(ring["table"]), stride, size, at, dtype)
        except (KeyError, TypeError, ValueError) as error:
            raise CollectorError(f"the collector's hello has a record layout that is damaged: {error!r}") from None


def _numpy_type(kind: str) -> Any:
    """NumPy's name of a field's type: ``u32``, ``char16``, or ``u64x32`` for an array."""
    if kind.startswith("char"):
        return "S" + kind[4:]
    element, _, count = kind.partition("x")
    return (_TYPES[element], int(count)) if count else _TYPES[element]


@dataclass(slots=True)
class _Lane:
    """What is known of one program on one CPU: it numbers its records."""

    next_seq: int = 0
    """Records counted by the kernel up to the last one seen: seen and lost."""
    seen: int = 0
    last_ns: int | None = None
    lost_by_class: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Stream:
    """What is known of one CPU's ring."""

    waiting: list[Array] = field(default_factory=list)
    """Records that wait for the watermark, in ring order."""
    lanes: dict[int, _Lane] = field(default_factory=dict)


class Records:
    """Records of one flush, sorted by time: columns are gathered when asked for."""

    def __init__(self, parts: Sequence[tuple[int, Array]], ts: I64, order: I64 | None) -> None:
        self._parts = parts
        self.ts = ts
        self._order = order

    def __len__(self) -> int:
        return len(self.ts)

    def column(self, name: str) -> Array:
        """A field of all records, in time order."""
        first = self._parts[0][1]
        kind, offset = first.dtype.fields[name][:2]  # type: ignore[index]
        return self.gather(kind, offset)

    def has(self, name: str) -> bool:
        """Whether the records have such a field."""
        return name in (self._parts[0][1].dtype.names or ())

    def gather(self, dtype: np.dtype[Any], offset: int) -> Array:
        """Bytes at an offset of every record, as ``dtype``, in time order: neighbouring fields in one
        pass."""
        out: Array = np.empty(len(self.ts), dtype)
        at = 0
        for _, part in self._parts:
            step = part.dtype.itemsize
            view = np.ndarray(len(part), dtype, part, offset, (step,))
            out[at : at + len(part)] = view
            at += len(part)
        return out if self._order is None else out.take(self._order, axis=0)

    def cpus(self) -> npt.NDArray[np.uint16]:
        """The CPU of every record, in time order."""
        lengths = [len(part) for _, part in self._parts]
        out = np.repeat(np.array([cpu for cpu, _ in self._parts], np.uint16), lengths)
        return out if self._order is None else out.take(self._order)


class RingDecoder:
    """Decodes one ring family over all CPUs."""

    def __init__(self, layout: RingLayout) -> None:
        self.layout = layout
        self.losses: list[Loss] = []
        """Gaps found since the caller last emptied the list."""
        self.late = 0
        """Records that came after their time had been written; moved to the watermark. Always 0 on a sound
        stream."""
        self._streams: dict[int, _Stream] = {}
        self._floor = 0

    def flush(self, slabs: Mapping[int, Bytes], watermark_ns: int | None) -> Records | None:
        """Take the raw bytes of each CPU, return what is older than the watermark (None: everything), sorted.

        Raises CollectorError for records whose header is not that of this ring.
        """
        for cpu, raw in slabs.items():
            fresh = self._records(cpu, raw)
            stream = self._streams.setdefault(cpu, _Stream())
            self._count(cpu, stream, fresh)
            stream.waiting.append(fresh)
        parts = self._due(watermark_ns)
        if not parts:
            return None
        ts, order = merge_order([np.ascontiguousarray(part["ts"]).view(np.int64) for _, part in parts])
        if ts[0] < self._floor:
            late = int(np.searchsorted(ts, self._floor))
            self.late += late
            ts[:late] = self._floor
        self._floor = int(ts[-1])
        return Records(parts, ts, order)

    def _due(self, watermark_ns: int | None) -> list[tuple[int, Array]]:
        """Cut what is older than the watermark off every stream."""
        parts = []
        for cpu in sorted(self._streams):
            stream = self._streams[cpu]
            waiting, stream.waiting = stream.waiting, []
            for records in waiting:
                if not len(records):
                    continue
                due, rest = _split(records, watermark_ns)
                if len(rest):
                    stream.waiting.append(rest.copy())
                if len(due):
                    parts.append((cpu, due))
        return parts

    def _records(self, cpu: int, raw: Bytes) -> Array:
        records: Array = raw.view(self.layout.dtype)
        header = records["header"]
        if (header != self.layout.record_bytes).any():
            kept = records[header & DISCARD_BIT == 0]
            if (kept["header"] != self.layout.record_bytes).any():
                raise CollectorError(
                    f"a batch of ring {self.layout.name} on CPU {cpu} holds records of another size or unfinished ones"
                )
            records = kept
        return records

    def _count(self, cpu: int, stream: _Stream, records: Array) -> None:
        """Advance the sequence numbers, lane by lane; every jump becomes a loss row."""
        kinds = np.ascontiguousarray(records["kind"])
        left = len(records)
        number = 0
        while left and number < 256:
            count = int(np.count_nonzero(kinds == number))
            if count:
                left -= count
                self._count_lane(cpu, stream.lanes.setdefault(number, _Lane()), records, kinds, (number, count))
            number += 1

    def _count_lane(self, cpu: int, lane: _Lane, records: Array, kinds: Array, which: tuple[int, int]) -> None:
        number, count = which
        last = records[_last(kinds, number)]
        expected = lane.next_seq & 0xFFFFFFFF
        jump = (int(last["seq"]) + 1 - expected) & 0xFFFFFFFF
        lost = 0 if jump == count else self._gaps(cpu, lane, records[kinds == number], expected)
        lane.next_seq += count + lost
        lane.seen += count
        lane.last_ns = int(last["ts"])

    def _gaps(self, cpu: int, lane: _Lane, records: Array, expected: int) -> int:
        """Book the gaps before and between a lane's records; how many are missing."""
        seq = np.ascontiguousarray(records["seq"])
        before = np.empty_like(seq)
        before[0] = (expected - 1) & 0xFFFFFFFF
        before[1:] = seq[:-1]
        missing = seq - before - np.uint32(1)
        for row in np.flatnonzero(missing):
            t0 = int(records["ts"][row - 1]) if row else lane.last_ns
            cls = FLAG_LOST.get(int(records["flags"][row]) & _LOST_MASK, "unknown")
            self._book(lane, Loss(self.layout.table, cpu, t0, int(records["ts"][row]), int(missing[row]), cls))
        return int(missing.sum(dtype=np.uint64))

    def _book(self, lane: _Lane, loss: Loss) -> None:
        lane.lost_by_class[loss.cls] = lane.lost_by_class.get(loss.cls, 0) + loss.n
        # A stack that got lost is no event, and is sent again when it is next taken.
        self.losses.append(replace(loss, cls="stack") if loss.table == "stacks" else loss)

    def close(self, counters: Mapping[str, Mapping[str, Mapping[str, int]]], stopped_ns: int) -> None:
        """Compare with what the kernel counted ({cpu: {lane: {seq, full, lock, no_ring}}}) and book the loss
        at the tail.

        Raises CollectorError when more records arrived than the kernel counted.
        """
        for text, of_cpu in counters.items():
            stream = self._streams.setdefault(int(text), _Stream())
            for number, counted in of_cpu.items():
                self._close_lane(int(text), stream.lanes.setdefault(int(number), _Lane()), counted, stopped_ns)

    def _close_lane(self, cpu: int, lane: _Lane, counted: Mapping[str, int], stopped_ns: int) -> None:
        tail = int(counted["seq"]) - lane.next_seq
        if tail < 0:
            raise CollectorError(
                f"ring {self.layout.name} of CPU {cpu}: record {lane.next_seq - 1} came, the kernel counted "
                f"{counted['seq']}"
            )
        for counter, cls in COUNTER_CLASSES.items():
            n = min(tail, max(0, int(counted.get(counter, 0)) - lane.lost_by_class.get(cls, 0)))
            if n:
                self._book(lane, Loss(self.layout.table, cpu, lane.last_ns, stopped_ns, n, cls))
                tail -= n
        if tail:
            # Counted and reserved, yet never arrived: the stream lost them on the way.
            self._book(lane, Loss(self.layout.table, cpu, lane.last_ns, stopped_ns, tail, "reader"))
        lane.next_seq = int(counted["seq"])

    def totals(self) -> dict[str, int]:
        """``seen`` and ``lost`` over all CPUs so far."""
        lanes = [lane for s in self._streams.values() for lane in s.lanes.values()]
        return {
            "seen": sum(lane.seen for lane in lanes),
            "lost": sum(sum(lane.lost_by_class.values()) for lane in lanes),
        }


def _last(kinds: Array, number: int) -> int:
    """Row of the last record of a lane; it has one."""
    window = 4096
    while True:
        tail = kinds[-window:]
        found = np.flatnonzero(tail == number)
        if len(found):
            return len(kinds) - len(tail) + int(found[-1])
        window *= 16


def _split(records: Array, watermark_ns: int | None) -> tuple[Array, Array]:
    """Records before the watermark, and the others."""
    if watermark_ns is None:
        return records, records[:0]
    ts = records["ts"]
    end = int(np.searchsorted(ts, watermark_ns))
    # Times may be out of order around the cut by what one interrupt recorded.
    near = slice(max(0, end - 64), end + 64)
    if (ts[near][: end - near.start] < watermark_ns).all() and (ts[near][end - near.start :] >= watermark_ns).all():
        return records[:end], records[end:]
    late = ts >= watermark_ns
    return records[~late], records[late]


def merge_order(parts: Sequence[I64]) -> tuple[I64, I64 | None]:
    """Sorted times of several sorted runs, and the order that sorts their concatenation (None: already
    sorted).

    Equal times keep the order of the runs. Time and index are packed into one integer where they fit, since
    sorting integers is several times faster than sorting indices.
    """
    ts = parts[0].copy() if len(parts) == 1 else np.concatenate(parts)
    if len(parts) == 1 and not (ts[1:] < ts[:-1]).any():
        return ts, None
    base, bits = int(ts.min()), len(ts).bit_length()
    if (int(ts.max()) - base).bit_length() + bits <= 63:
        key = (ts - base) << bits
        key |= np.arange(len(ts))
        key.sort()
        order = key & ((1 << bits) - 1)
        key >>= bits
        key += base
        return key, order
    order = np.argsort(ts, kind="stable")
    return ts[order], order
