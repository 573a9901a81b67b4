"""Pages that were allocated without an event: the bulk allocator's fast path fires none (page-allocator.md 5.3).

The kernel counts every page it hands out in vmstat's ``pgalloc_*`` (event counters: exact when read, nothing
is folded later). Between two readings, what the counters grew by, less the pages of ``mm_page_alloc`` events in
that time, less the pages that recorded bulk calls returned, less a share for lost events, was handed out unseen.

What limits it: an allocation is counted before its event fires, so blocks on their way at a reading fall on the
wrong side of it (a huge page being zeroed is 512 pages), and what a reading before the gate opened or after it
closed counted besides. ``noise_pages`` allows for one of the largest blocks and 0.2 ms of the rate at either
end, and for the larger of two measures of the time outside: the recorded rate, and the freed pages that vmstat
counted and no event showed (every free fires one).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.trace.schema import PAGE_KINDS

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

EVENT = "kmem:mm_page_alloc"
PAGE_FILTERS = ("pid", "tgid", "comm", "cgroup", "order", "gfp", "min_bytes")
"""Filters of a capture that leave page allocations out on purpose."""
NO_ALLOCATIONS = ("stack", "unnoticed")
"""Classes of losses that hide no allocation: stacks, and frees that the frames' own events prove."""
MOST_INTERVALS = 512
"""More are merged by neighbours, so that the manifest stays small however long a capture ran."""
_EDGE = 0.02
"""Share of the recording that may lie outside the readings within it, at either end ..."""
_EDGE_NS = 20_000_000
"""... or so much of it."""
_READ_NS = 200_000
"""How far a reading of vmstat may be from the time noted for it."""

_LOSS_NS = 50_000_000
"""Losses shorter than this are added up by the middle of their interval."""

_ALLOC, _FREE, _BULK = (PAGE_KINDS.index(k) for k in ("alloc", "free", "bulk"))
_COLUMNS = ("ts_ns", "kind", "order", "returned")

Counts = npt.NDArray[np.int64]


@dataclass(slots=True)
class _Seen:
    """Sums over page events so far."""

    allocated: int = 0
    """Pages of mm_page_alloc."""
    freed: int = 0
    bulk: int = 0
    """Pages that bulk calls returned."""
    events: int = 0
    largest: int = 0
    """Pages of the largest block allocated."""

    def add(self, codes: npt.NDArray[Any], orders: npt.NDArray[Any], returned: npt.NDArray[Any] | None) -> None:
        if not len(codes):
            return
        # One pass: the key is kind (8 of them) and order (32), a byte.
        both = np.left_shift(codes.view(np.uint8), 5) | np.minimum(orders, 31)
        table = np.bincount(both, minlength=256).reshape(8, 32)
        pages = np.int64(1) << np.arange(32, dtype=np.int64)
        self.allocated += int(table[_ALLOC] @ pages)
        self.freed += int(table[_FREE] @ pages)
        self.events += len(codes)
        held = np.flatnonzero(table[_ALLOC])
        if len(held):
            self.largest = max(self.largest, 1 << int(held[-1]))
        if returned is not None and table[_BULK].any():
            given = returned[codes == _BULK].astype(np.int64)
            # A call that returned one page took the ordinary road, which fires the event (5.2, "go single").
            self.bulk += int(given[given > 1].sum())


@dataclass(slots=True)
class _Reading:
    """vmstat at one time, and what events had shown until then."""

    ts_ns: int
    pgalloc: int
    pgfree: int | None
    seen: _Seen = field(default_factory=_Seen)


@dataclass(slots=True)
class UnseenTally:
    """Adds up as a trace is written or read; events and readings each in time order, in any mixture as long as
    no event is given before a reading that is older than it."""

    _readings: list[_Reading] = field(default_factory=list)
    _waiting: list[_Reading] = field(default_factory=list)
    _seen: _Seen = field(default_factory=_Seen)
    _first_ns: int | None = None
    _last_ns: int | None = None
    _late: int = 0
    _lost_at: dict[int, int] = field(default_factory=dict)
    """Lost events by time / _LOSS_NS."""
    _losses: list[tuple[int | None, int | None, int | None]] = field(default_factory=list)
    """Longer ones, and such without ends or number."""

    def lost(self, t0_ns: int | None, t1_ns: int | None, n: int | None) -> None:
        """``n`` page events that are missing between two times (None: not known); in any order."""
        if t0_ns is None or t1_ns is None or n is None or t1_ns - t0_ns > _LOSS_NS:
            self._losses.append((t0_ns, t1_ns, n))
        else:
            at = (t0_ns + t1_ns) // 2 // _LOSS_NS
            self._lost_at[at] = self._lost_at.get(at, 0) + n

    def reading(self, ts_ns: int | None, counters: Mapping[str, int]) -> None:
        """vmstat's counters by name, as read at ``ts_ns`` (trace clock)."""
        names = [n for n in counters if n.startswith("pgalloc_")]
        if ts_ns is None or not names:
            return
        if self._last_ns is not None and ts_ns < self._last_ns:
            self._late += 1
            return
        found = _Reading(ts_ns, sum(counters[n] for n in names), counters.get("pgfree"))
        self._readings.append(found)
        self._waiting.append(found)

    def forget(self, before_ns: int) -> None:
        """Drop what bears on the time before only; the last reading before it stays."""
        old = sum(r.ts_ns < before_ns for r in self._readings)
        del self._readings[: max(0, old - 1)]
        self._lost_at = {at: n for at, n in self._lost_at.items() if (at + 1) * _LOSS_NS >= before_ns}
        self._losses = [(t0, t1, n) for t0, t1, n in self._losses if t1 is None or t1 >= before_ns]

    def events(self, batch: pa.RecordBatch) -> None:
        """Page events in time order: columns ``ts_ns kind order``, and ``returned`` where bulk calls are."""
        if not batch.num_rows:
            return
        ts = column_values(batch.column("ts_ns"))
        codes = column_values(batch.column("kind").indices)
        orders = column_values(batch.column("order"))
        returned = column_values(batch.column("returned")) if "returned" in batch.schema.names else None
        at = 0
        while self._waiting and self._waiting[0].ts_ns <= ts[-1]:
            reading = self._waiting.pop(0)
            cut = int(np.searchsorted(ts, reading.ts_ns))
            self._add(codes, orders, returned, at, cut)
            reading.seen = _copy(self._seen)
            at = cut
        self._add(codes, orders, returned, at, len(ts))
        self._first_ns = int(ts[0]) if self._first_ns is None else self._first_ns
        self._last_ns = int(ts[-1])

    def _add(
        self,
        codes: npt.NDArray[Any],
        orders: npt.NDArray[Any],
        returned: npt.NDArray[Any] | None,
        begin: int,
        end: int,
    ) -> None:
        self._seen.add(codes[begin:end], orders[begin:end], None if returned is None else returned[begin:end])

    def result(
        self,
        *,
        started_ns: int | None = None,
        stopped_ns: int | None = None,
        shed: Iterable[tuple[int, int | None, int]] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The estimate, see :func:`unseen_estimate`. May be called again with more.

        ``started_ns``, ``stopped_ns``: when events were recorded, else from the first to the last event.
        ``shed``: (t0_ns, t1_ns, sample) as in table ``shed``.
        ``facts``: ``filters``, ``events``, ``release`` of the trace.
        """
        for reading in self._waiting:
            reading.seen = _copy(self._seen)
        self._waiting.clear()
        first = self._first_ns if started_ns is None else started_ns
        last = self._last_ns if stopped_ns is None else stopped_ns
        middles = [((2 * at + 1) * _LOSS_NS // 2, n) for at, n in sorted(self._lost_at.items())]
        losses = [*self._losses, *((at, at, n) for at, n in middles)]
        return unseen_estimate(self._readings, self._seen, (first, last), losses, shed, facts or {}, late=self._late)


def unseen_of(trace: Trace) -> dict[str, Any] | None:
    """The estimate of a trace: as its capture stored it, else reckoned from its tables (one pass over the
    page events). None when it has no page events or no two readings of vmstat.

    Raises TruncatedTraceError for damaged tables.
    """
    stored = trace.metadata.unseen
    if stored:
        return dict(stored)
    if not trace.rows("page_events") or not trace.rows("snapshots") or trace.metadata.hosts:
        return None  # of several hosts each has its own
    from tracereplay.trace.snapshots import vmstat_readings

    tally = UnseenTally()
    readings = vmstat_readings(trace)
    ends = trace.sort_range("page_events")
    timeless = ends is not None and all(ts_ns is None for ts_ns, _, _ in readings)
    for ts_ns, phase, counters in readings:
        if timeless and ends is not None and phase != "tick":
            ts_ns = ends[0] if phase == "start" else ends[1] + 1
        tally.reading(ts_ns, counters)
    if len(tally._readings) < 2:
        return None
    for batch in trace.batches("page_events", _COLUMNS):
        tally.events(batch)
    for batch in trace.batches("loss", ("table", "class", "t0_ns", "t1_ns", "n")):
        for table, cls, t0, t1, n in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            if table in ("page_events", "all") and cls not in NO_ALLOCATIONS:
                tally.lost(t0, t1, n)
    meta = trace.metadata
    found = tally.result(
        shed=[
            (t0, t1, sample)
            for batch in trace.batches("shed", ("t0_ns", "t1_ns", "sample"))
            for t0, t1, sample in zip(*(c.to_pylist() for c in batch.columns), strict=True)
        ],
        facts={
            "filters": meta.filters,
            "events": meta.events,
            "release": meta.host.get("release"),
        },
    )
    if timeless:
        found["remarks"].append(
            "the snapshots carry no time: what was allocated before and after the events counts too"
        )
    return found


def unseen_estimate(
    readings: Sequence[_Reading],
    total: _Seen,
    recorded: tuple[int | None, int | None],
    losses: Iterable[tuple[int | None, int | None, int | None]],
    shed: Iterable[tuple[int, int | None, int]],
    facts: Mapping[str, Any],
    *,
    late: int = 0,
) -> dict[str, Any]:
    """``unseen_pages`` (None with a ``reason`` when it cannot be told) and what it is made of, in pages:
    ``pgalloc_delta``, less ``traced_pages``, less ``bulk_pages``, less ``lost_pages`` (what lost events may have
    been); ``noise_pages``: what the method cannot tell apart; ``outside_pages``: of the unseen, what the traced
    rate explains by the time between readings and recording; ``t0_ns``, ``t1_ns``: the time it is about;
    ``freed_difference``: growth of pgfree less freed pages seen, which is about 0 when nothing is missing;
    ``intervals``: the same per interval, as columns; ``remarks``: why it is rough here.
    """
    if any(facts.get("filters", {}).get(name) for name in PAGE_FILTERS):
        return _unknown("filters left page events out on purpose")
    if facts.get("events") and EVENT not in facts["events"]:
        return _unknown(f"{EVENT} was not recorded")
    begin, end = recorded
    if begin is None or end is None:
        return _unknown("no page events")
    used = _within(readings, begin, end)
    if len(used) < 2:
        return _unknown("no two readings of vmstat around the events")
    remarks = [f"{late} readings came out of order and were left out"] if late else []
    edges = np.array([r.ts_ns for r in used], np.int64)
    columns = {
        "pgalloc": np.diff([r.pgalloc for r in used]),
        "traced": np.diff([r.seen.allocated for r in used]),
        "bulk": np.diff([r.seen.bulk for r in used]),
        "lost": _lost_pages(losses, edges, total, remarks),
    }
    kept = ~_shed_intervals(shed, edges)
    if not kept.any():
        return _unknown("events were sampled on purpose throughout")
    if not kept.all():
        remarks.append(f"{int((~kept).sum())} of {len(kept)} intervals left out: events were sampled on purpose")
    sums = {name: int(values[kept].sum()) for name, values in columns.items()}
    if sums["lost"]:
        remarks.append("lost events are taken for allocations in the share that they have of the recorded ones")
    if str(facts.get("release") or "").startswith(("5.13.", "5.14.", "5.15.")):
        remarks.append("kernels 5.13 to 5.15 count a page-list hit as one page whatever its order")
    outside_ns = max(0, begin - int(edges[0])) + max(0, int(edges[-1]) - end)
    rate = sums["traced"] / max(int((edges[1:] - edges[:-1])[kept].sum()) - outside_ns, 1)
    outside = round(rate * outside_ns)
    freed = _freed_difference(used[0], used[-1]) if kept.all() else None
    # Every free fires its event. So frees that vmstat counted and no event showed were outside, or lost.
    lost_frees = round(sums["lost"] * total.freed / max(total.allocated, 1))
    unmatched = 0 if freed is None else max(0, abs(freed) - lost_frees)
    return {
        "unseen_pages": sums["pgalloc"] - sums["traced"] - sums["bulk"] - sums["lost"],
        "pgalloc_delta": sums["pgalloc"],
        "traced_pages": sums["traced"],
        "bulk_pages": sums["bulk"],
        "lost_pages": sums["lost"],
        "noise_pages": max(outside, unmatched) + 2 * total.largest + round(2 * rate * _READ_NS),
        "outside_pages": outside,
        "t0_ns": int(edges[0]),
        "t1_ns": int(edges[-1]),
        "freed_difference": freed,
        "intervals": _merged(edges, columns, kept),
        "remarks": remarks,
    }


def _freed_difference(first: _Reading, last: _Reading) -> int | None:
    if first.pgfree is None or last.pgfree is None:
        return None
    return last.pgfree - first.pgfree - (last.seen.freed - first.seen.freed)


def _unknown(reason: str) -> dict[str, Any]:
    return {"unseen_pages": None, "reason": reason, "remarks": []}


def _within(readings: Sequence[_Reading], begin: int, end: int) -> list[_Reading]:
    """The readings to use: those inside the recording where they cover nearly all of it, else also the one just
    before and the one just after."""
    inside = [r for r in readings if begin <= r.ts_ns <= end]
    before = [r for r in readings if r.ts_ns < begin]
    after = [r for r in readings if r.ts_ns > end]
    slack = max(_EDGE * (end - begin), min(_EDGE_NS, (end - begin) / 4))
    if before and (len(inside) < 2 or inside[0].ts_ns - begin > slack):
        inside = [before[-1], *inside]
    if after and (len(inside) < 2 or end - inside[-1].ts_ns > slack):
        inside = [*inside, after[0]]
    return inside


def _lost_pages(
    losses: Iterable[tuple[int | None, int | None, int | None]], edges: Counts, total: _Seen, remarks: list[str]
) -> Counts:
    """Pages that lost events may have allocated, by interval: they are spread evenly over the time of a loss."""
    lost = np.zeros(len(edges) - 1)
    uncounted = False
    for t0, t1, n in losses:
        if n is None:
            uncounted = True
            continue
        begin = edges[0] if t0 is None else t0
        end = edges[-1] if t1 is None else t1
        overlap = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], begin), 0, None)
        if end > begin:
            lost += n * overlap / (end - begin)
        else:
            lost[np.clip(np.searchsorted(edges, begin, "right") - 1, 0, len(lost) - 1)] += n
    if uncounted:
        remarks.append("an unknown number of events was lost: they count as unseen")
    return np.rint(lost * (total.allocated / max(total.events, 1))).astype(np.int64)


def _shed_intervals(shed: Iterable[tuple[int, int | None, int]], edges: Counts) -> npt.NDArray[np.bool_]:
    hit = np.zeros(len(edges) - 1, np.bool_)
    for t0, t1, sample in shed:
        if sample > 1:
            hit |= (edges[1:] > t0) & (edges[:-1] < (edges[-1] if t1 is None else t1))
    return hit


def _merged(edges: Counts, columns: Mapping[str, Counts], kept: npt.NDArray[np.bool_]) -> dict[str, list[Any]]:
    """At most MOST_INTERVALS intervals as columns; ``unseen`` is null where events were sampled on purpose."""
    every = -(-len(kept) // MOST_INTERVALS)
    starts = np.arange(0, len(kept), every)
    sums = {name: np.add.reduceat(values, starts) for name, values in columns.items()}
    sound = np.logical_and.reduceat(kept, starts)
    unseen = sums["pgalloc"] - sums["traced"] - sums["bulk"] - sums["lost"]
    return {
        "t0_ns": edges[starts].tolist(),
        "t1_ns": edges[np.minimum(starts + every, len(edges) - 1)].tolist(),
        **{name: values.tolist() for name, values in sums.items()},
        "unseen": [n if ok else None for n, ok in zip(unseen.tolist(), sound.tolist(), strict=True)],
    }


def _copy(seen: _Seen) -> _Seen:
    return _Seen(seen.allocated, seen.freed, seen.bulk, seen.events, seen.largest)


def column_values(column: pa.Array) -> npt.NDArray[Any]:
    """The values as they lie in the buffer; what stands in a null's place is anything."""
    if column.null_count == len(column):
        return np.zeros(len(column), np.uint8)
    width: dict[pa.DataType, type[Any]] = {
        pa.int64(): np.int64,
        pa.int8(): np.int8,
        pa.uint8(): np.uint8,
        pa.uint32(): np.uint32,
        pa.uint64(): np.uint64,
    }
    found = np.frombuffer(column.buffers()[1] or b"", width[column.type])
    return found[column.offset : column.offset + len(column)]
