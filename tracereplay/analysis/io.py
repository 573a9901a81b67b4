"""I/Os by layer, streamed: a row for each bio that was queued on a device, through splits, merges, requeues and remaps.

A trace tells one I/O several times. A bio is queued (``block_bio_queue``), may be split (``block_split``), is merged
with others into a request, which is inserted, issued, requeued, issued again and completed, perhaps in parts; or a
stacked device remaps it (``block_bio_remap``) and it is queued once more, one layer below. A row is one bio on one
layer:

- ``q_ns`` queued; ``i_ns`` first inserted; ``d_ns`` handed to the driver, or on a stacked device to the one below
  (first part, last attempt); ``c_ns`` complete (last part). So ``q2d`` is the time in software on this layer, ``d2c``
  the time of what is below.
- A partition is no layer: ``dev`` is the device as the bio names it, ``disk`` the whole one.
- A request that holds more than its bios (whose queue events were not recorded), and flush requests and commands, which
  have no bio, are rows without ``q_ns``.

Memory is that of the I/Os in flight, of which MOST_OPEN are followed at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.analysis.io_pass import close_all, follow
from tracereplay.analysis.io_state import (
    COUNTERS,
    ENDINGS,
    MOST_OPEN,
    NEVER,
    NOWHERE,
    S_OUT,
    Array,
    Events,
    State,
    new_state,
)
from tracereplay.demand.columns import plain
from tracereplay.demand.layers import disks_of
from tracereplay.demand.opening import losses
from tracereplay.demand.state import NO_STACK
from tracereplay.trace.hosts import one_host

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

_text = pa.dictionary(pa.int32(), pa.string())
IO = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),  # in the order in which I/Os were first seen
        pa.field("parent_id", pa.int64()),  # of the I/O above, on whose behalf this one is; null: none known
        pa.field("root_id", pa.int64(), nullable=False),  # of the uppermost one
        pa.field("layer", pa.uint8(), nullable=False),  # 0: uppermost
        pa.field("dev", pa.uint32(), nullable=False),  # as the bio names it, a partition perhaps
        pa.field("disk", pa.uint32(), nullable=False),  # the whole device
        pa.field("op", _text),
        pa.field("flags", _text),
        pa.field("sector", pa.uint64()),  # null: it has none (empty flush, flush request, command)
        pa.field("nr_sectors", pa.uint32(), nullable=False),
        pa.field("bytes", pa.uint64(), nullable=False),
        pa.field("q_ns", pa.int64()),
        pa.field("i_ns", pa.int64()),
        pa.field("d_ns", pa.int64()),
        pa.field("c_ns", pa.int64()),
        pa.field("below_c_ns", pa.int64()),  # last part complete on the layer below; null: nothing is below
        pa.field("q2d_ns", pa.int64()),
        pa.field("d2c_ns", pa.int64()),
        pa.field("q2c_ns", pa.int64()),
        pa.field("pid", pa.uint32()),  # task that queued it on this layer
        pa.field("root_pid", pa.uint32()),  # task that queued the uppermost one
        pa.field("cpu", pa.uint16(), nullable=False),  # on which it was queued
        pa.field("c_cpu", pa.uint16()),  # on which it completed
        pa.field("merged_into", pa.int64()),  # id of the I/O that its request begins with; null: it is that itself
        pa.field("merges", pa.uint32(), nullable=False),  # I/Os that joined its request
        pa.field("splits", pa.uint32(), nullable=False),
        pa.field("requeues", pa.uint32(), nullable=False),
        pa.field("error", pa.int32(), nullable=False),  # errno of the first part that failed; 0: none
        pa.field("stack_id", pa.uint32()),
        pa.field("class", _text, nullable=False),
    ]
)
COLUMNS = (
    "ts_ns", "cpu", "kind", "dev", "sector", "nr_sectors", "nr_bytes", "op", "flags", "pid", "error",
    "old_dev", "old_sector", "new_sector", "stack_id",
)  # fmt: skip
_ROWS = 1 << 17
"""Events that are worked on at a time."""
_LAST_SECTOR = 1 << 56
"""What lies further (32 EiB) is no place: -1 of a flush, or damage."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Devices that block events name."""

    numbers: Array
    """Ascending; 0 is among them."""
    disk: Array
    """int64: place in ``numbers`` of the whole device of each."""
    kinds: dict[int, set[str]]
    """Kinds of events by whole device."""
    remaps: set[tuple[int, int]]
    """Whole device, and one below it that its bios are remapped to."""

    @classmethod
    def of(cls, trace: Trace) -> Devices:
        """Read a trace's devices (a streaming pass over two columns, more where there are partitions)."""
        import polars as pl

        bios = trace.bio_events
        seen: dict[int, set[str]] = {}
        for dev, kind in (
            bios.select(pl.col("dev").fill_null(0), pl.col("kind").cast(pl.String)).unique().collect(engine="streaming")
        ).iter_rows():
            seen.setdefault(dev, set()).add(kind)
        pairs = (
            bios.filter(pl.col("old_dev").is_not_null())
            .select(pl.col("dev").fill_null(0), "old_dev")
            .unique()
            .collect(engine="streaming")
            .rows()
        )
        upper = {old for dev, old in pairs if dev != old}
        onto_themselves = {old for dev, old in pairs if dev == old}
        served = {"insert", "issue", "complete", "bio_complete"}
        unserved = {d for d, kinds in seen.items() if not kinds & served and d not in upper}
        queued = {d for d, kinds in seen.items() if "queue" in kinds}
        disk_of = disks_of(bios, (onto_themselves | unserved) & queued)
        # blktrace names a partition where a bio comes from it and nowhere else.
        disk_of |= {old: dev for dev, old in pairs if old not in seen and dev >> 20 == old >> 20}
        numbers = np.unique(np.array([0, *seen, *upper], np.uint32))
        whole = np.array([disk_of.get(n, n) for n in numbers.tolist()], np.uint32)
        kinds: dict[int, set[str]] = {}
        for dev, found in seen.items():
            kinds.setdefault(disk_of.get(dev, dev), set()).update(found)
        remaps = {(disk_of.get(old, old), disk_of.get(dev, dev)) for dev, old in pairs}
        remaps = {(upper, lower) for upper, lower in remaps if upper != lower and "queue" in kinds.get(upper, ())}
        return cls(numbers, np.searchsorted(numbers, whole).astype(np.int64), kinds, remaps)

    def beneath(self) -> dict[int, set[int]]:
        """Devices below a whole device, by it."""
        found: dict[int, set[int]] = {}
        for upper, lower in self.remaps:
            found.setdefault(upper, set()).add(lower)
        return found

    def knows(self) -> Array:
        """By place: ``State.knows``."""
        stacked = self.beneath()
        found = [(self.kinds.get(n, set()), n in stacked) for n in self.numbers.tolist()]
        return np.array([("queue" in k) | ("issue" in k) << 1 | upper << 2 for k, upper in found], np.uint8)


@dataclass(slots=True)
class IoCounts:
    """What a pass over the events met; complete when the pass is."""

    account: dict[str, int] = field(default_factory=dict)
    """By COUNTERS of io_state, and rows by class."""


@dataclass(slots=True)
class _Texts:
    """Texts of a dictionary column, numbered over all batches. 0 is null."""

    values: list[str | None] = field(default_factory=lambda: [None])
    codes: dict[str | None, int] = field(default_factory=lambda: {None: 0})

    def of(self, column: pa.DictionaryArray) -> Array:
        own = []
        for text in [*column.dictionary.to_pylist(), None]:
            if text not in self.codes:
                self.codes[text] = len(self.values)
                self.values.append(text)
            own.append(self.codes[text])
        last = pa.scalar(len(own) - 1, column.indices.type)
        places = pc.fill_null(column.indices, last).to_numpy(zero_copy_only=False)
        codes: Array = np.array(own, np.int64)[places]
        return codes

    def column(self, codes: Array) -> pa.DictionaryArray:
        valid = codes > 0
        return pa.DictionaryArray.from_arrays(
            pa.array((codes - 1).astype(np.int32), mask=~valid), self.values[1:] or [""]
        )


def io_table(trace: Trace, counts: IoCounts | None = None, *, most_open: int = MOST_OPEN) -> Iterator[pa.RecordBatch]:
    """I/Os of a trace as record batches of IO, in the order in which they ended; those still open come last.

    ``counts`` is filled in by the end. Raises TraceError, TruncatedTraceError.
    """
    counts = counts if counts is not None else IoCounts()
    account = counts.account
    account.update(dict.fromkeys((*COUNTERS, *ENDINGS), 0))
    if not trace.rows("bio_events"):
        return
    devices = Devices.of(trace)
    ops, flags = _Texts(), _Texts()
    append = len(ops.values)
    ops.values.append("ZA")
    ops.codes["ZA"] = append
    one_host(trace, "table io")
    loss1 = np.sort(losses(trace, "bio_events")[1])
    state = new_state(len(devices.numbers), devices.knows(), loss1, append, most_open)
    for batch in trace.batches("bio_events", COLUMNS, _ROWS):
        events = _events(batch, devices, ops, flags)
        at = 0
        while True:
            at = follow(state, events, at)
            if at >= batch.num_rows:
                break
            yield _taken(state, devices, ops, flags, account)
    while True:
        more = close_all(state)
        if state.scalar[S_OUT]:
            yield _taken(state, devices, ops, flags, account)
        if not more:
            break
    account.update(zip(COUNTERS, state.counts.tolist(), strict=True))


def _events(batch: pa.RecordBatch, devices: Devices, ops: _Texts, flags: _Texts) -> Events:
    ts, cpu, kind, dev, sector, sectors, size, op, flag, pid, error, old, old_sector, cut, stack = batch.columns
    device, old_device = plain(dev), plain(old)
    disk = devices.disk[np.searchsorted(devices.numbers, device)]
    if dev.null_count:
        disk = np.where(np.asarray(dev.is_null()), -1, disk)
    nr, byte = plain(sectors).astype(np.int64), plain(size).astype(np.int64)
    if sectors.null_count:
        nr = np.where(np.asarray(sectors.is_null()), byte >> 9, nr)
    at = plain(pc.fill_null(sector, 2**64 - 1) if sector.null_count else sector).view(np.int64)
    at = np.where((at < 0) | (at > _LAST_SECTOR), NOWHERE, at)
    return Events(
        ts=plain(ts),
        cpu=plain(cpu),
        kind=plain(kind.indices),
        dev=device,
        disk=disk,
        sector=at,
        sectors=np.where(at == NOWHERE, 0, nr),
        bytes=np.where(byte > 0, byte, nr << 9),
        op=ops.of(op),
        flags=flags.of(flag),
        pid=plain(pid),
        error=plain(error),
        old_dev=old_device,
        old_disk=devices.disk[np.searchsorted(devices.numbers, old_device)],
        old_sector=np.clip(plain(old_sector).view(np.int64), 0, _LAST_SECTOR),
        new_sector=np.clip(plain(cut).view(np.int64), 0, _LAST_SECTOR),
        stack=plain(pc.fill_null(stack, pa.scalar(NO_STACK, pa.uint32()))),
    )


def _taken(state: State, devices: Devices, ops: _Texts, flags: _Texts, account: dict[str, int]) -> pa.RecordBatch:
    """Rows that ended, as a batch of IO."""
    rows = state.out[: state.scalar[S_OUT]]
    state.scalar[S_OUT] = 0
    for ending, n in zip(ENDINGS, np.bincount(rows["ending"], minlength=len(ENDINGS)).tolist(), strict=True):
        account[ending] += n

    def column(name: str, none: int | None = None) -> pa.Array:
        values = np.ascontiguousarray(rows[name])
        return pa.array(values, mask=None if none is None else values == none)

    def between(start: str, end: str) -> pa.Array:
        a, b = rows[start], rows[end]
        return pa.array(b - a, mask=(a == NEVER) | (b == NEVER))

    sector = np.ascontiguousarray(rows["sector"])
    made: dict[str, Any] = {
        "id": column("id"),
        "parent_id": column("parent", -1),
        "root_id": column("root"),
        "layer": pa.array(rows["layer"].astype(np.uint8)),
        "dev": column("dev"),
        "disk": pa.array(devices.numbers[rows["disk"]]),
        "op": ops.column(np.ascontiguousarray(rows["op"])),
        "flags": flags.column(np.ascontiguousarray(rows["flags"])),
        "sector": pa.array(sector.view(np.uint64), mask=sector == NOWHERE),
        "nr_sectors": pa.array(rows["sectors"].astype(np.uint32)),
        "bytes": pa.array(rows["bytes"].astype(np.uint64)),
        **{f"{t}_ns": column(t, NEVER) for t in "qidc"},
        "below_c_ns": column("below", NEVER),
        "q2d_ns": between("q", "d"),
        "d2c_ns": between("d", "c"),
        "q2c_ns": between("q", "c"),
        "pid": column("pid"),
        "root_pid": column("root_pid"),
        "cpu": pa.array(rows["cpu"].astype(np.uint16)),
        "c_cpu": pa.array(rows["c_cpu"].astype(np.uint16), mask=rows["c_cpu"] < 0),
        "merged_into": column("merged", -1),
        "merges": column("merges"),
        "splits": column("splits"),
        "requeues": column("requeues"),
        "error": column("error"),
        "stack_id": column("stack", NO_STACK),
        "class": pa.DictionaryArray.from_arrays(pa.array(rows["ending"].astype(np.int8)), list(ENDINGS)),
    }
    return pa.RecordBatch.from_arrays([made[f.name].cast(f.type) for f in IO], schema=IO)
