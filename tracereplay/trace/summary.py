"""What a trace holds, as plain data for ``tracereplay info`` and reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tracereplay.trace.pagemap import pages_by_kind
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import EVENT_TABLES, SNAPSHOT_PHASES, TABLES
from tracereplay.trace.snapshots import ZoneFacts, directmap_kib, pageblock_order, snapshot_times, zones
from tracereplay.trace.unseen import unseen_of


@dataclass(slots=True)
class TableSummary:
    """One table on disk."""

    name: str
    rows: int
    files: int
    bytes: int
    bytes_per_row: float | None
    damaged: list[str]
    """Files that cannot be read, with the reason."""


@dataclass(slots=True)
class KindSummary:
    """One kind of event."""

    table: str
    kind: str
    events: int
    per_second: float | None
    """Over the duration of the trace; None when that is 0."""
    pages: int | None
    """Sum of 2^order, for bulk calls of what they returned; None for kinds without either."""


@dataclass(slots=True)
class BulkEstimate:
    """Pages allocated without an event, from vmstat (``tracereplay.trace.unseen``). Numbers are pages.

    They are pages of the bulk allocator, and ordinary ones allocated between a snapshot and the events.
    """

    unseen_pages: int | None
    """None: it cannot be told, see ``reason``."""
    pgalloc_delta: int = 0
    traced_pages: int = 0
    bulk_pages: int = 0
    """Returned by bulk calls that were recorded."""
    lost_pages: int = 0
    """What lost events may have allocated; not part of the unseen."""
    noise_pages: int = 0
    """What the method cannot tell from nothing."""
    outside_pages: int = 0
    """Of the unseen, how many the traced rate explains by the time between snapshots and events."""
    freed_difference: int | None = None
    """The kernel's count of freed pages less those seen: far from 0, events are missing."""
    intervals: dict[str, list[Any]] = field(default_factory=dict)
    """By interval between snapshots: ``t0_ns t1_ns pgalloc traced bulk lost unseen``."""
    reason: str = ""
    remarks: list[str] = field(default_factory=list)
    """Why the estimate is rough here."""


@dataclass(slots=True)
class TraceSummary:
    """Everything ``info`` shows."""

    identity: dict[str, Any]
    metadata: dict[str, Any]
    start_ns: int | None
    end_ns: int | None
    tables: list[TableSummary]
    kinds: list[KindSummary]
    tasks: int
    snapshots: list[str]
    """Phases recorded."""
    snapshot_counts: dict[str, int]
    """Snapshots of each phase."""
    zones: list[ZoneFacts]
    directmap_kib: dict[str, int]
    loss: dict[str, Any] | None
    """As ``Trace.loss_summary``; None when the loss table is damaged."""
    bulk: BulkEstimate | None
    page_map: dict[str, int]
    """Pages by kind when the capture began; empty: not recorded."""
    pageblock_order: int | None
    notes: list[str] = field(default_factory=list)
    """What the reader should know: incompleteness, damage, missing parts."""

    @property
    def duration_s(self) -> float:
        """Seconds from the first event to the last."""
        return 0.0 if self.start_ns is None or self.end_ns is None else (self.end_ns - self.start_ns) / 1e9

    @property
    def bytes(self) -> int:
        """Bytes of all tables."""
        return sum(t.bytes for t in self.tables)

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``schema`` is the version of this form."""
        return {"schema": 1, "duration_s": self.duration_s, "bytes": self.bytes, **asdict(self)}


def summarize(trace: Trace) -> TraceSummary:
    """Summary of a trace. Damaged files are left out and named; the rest is still summed."""
    ends = [r for t in EVENT_TABLES if (r := trace.sort_range(t)) is not None]
    start = min((r[0] for r in ends), default=None)
    end = max((r[1] for r in ends), default=None)
    tables = [_table(trace, name) for name in TABLES if trace.files.get(name)]
    duration = 0.0 if start is None or end is None else (end - start) / 1e9
    kinds = [k for t in EVENT_TABLES if trace.rows(t) for k in _kinds(trace, t, duration)]
    sound = {t.name for t in tables if not t.damaged}
    damaged = {t.name for t in tables if t.damaged}
    snapshots_sound = "snapshots" in sound
    memory = snapshots_sound and not trace.hosts  # of several hosts each has its own
    phases = [phase for _, phase in snapshot_times(trace)] if snapshots_sound else []
    summary = TraceSummary(
        identity=trace.identity(),
        metadata=trace.metadata.to_json(),
        start_ns=start,
        end_ns=end,
        tables=tables,
        kinds=kinds,
        tasks=trace.rows("tasks"),
        snapshots=[p for p in SNAPSHOT_PHASES if p in phases],
        snapshot_counts={p: phases.count(p) for p in SNAPSHOT_PHASES if p in phases},
        zones=zones(trace) if memory else [],
        directmap_kib=directmap_kib(trace) if memory else {},
        loss=None if "loss" in damaged else trace.loss_summary(),
        bulk=_bulk(trace) if {"snapshots", "page_events"} <= sound and not damaged & {"loss", "shed"} else None,
        page_map=pages_by_kind(trace) if "page_map" in sound and not trace.hosts else {},
        pageblock_order=pageblock_order(trace) if memory else None,
    )
    if not trace.complete:
        summary.notes.append("capture did not finish; events that were not yet on disk are lost")
    for table in tables:
        summary.notes += [f"damaged, left out of the counts: {d}" for d in table.damaged]
    return summary


def _table(trace: Trace, name: str) -> TableSummary:
    parts = trace.files[name]
    damaged = [f"{name}/{p.path.name}: {p.problem}" for p in trace.damaged(name)]
    size, rows = sum(p.bytes for p in parts), trace.rows(name)
    return TableSummary(name, rows, len(parts), size, size / rows if rows else None, damaged)


def _kinds(trace: Trace, table: str, duration: float) -> list[KindSummary]:
    frame = trace.table(table, skip_damaged=True)
    import polars as pl

    columns, sizes = ["kind"], [pl.len()]
    if table == "page_events":
        columns, sizes = ["kind", "order"], [pl.len(), pl.col("returned").sum()]
    counts = frame.group_by(columns).agg(sizes).collect(engine="streaming")
    events: dict[str, int] = {}
    sums: dict[str, int] = {}
    for row in counts.iter_rows(named=True):
        kind = str(row["kind"])
        events[kind] = events.get(kind, 0) + row["len"]
        if row.get("order") is not None:
            sums[kind] = sums.get(kind, 0) + (row["len"] << row["order"])
        elif kind == "bulk":
            sums[kind] = sums.get(kind, 0) + row["returned"]
    return [
        KindSummary(table, kind, n, n / duration if duration else None, sums.get(kind))
        for kind, n in sorted(events.items(), key=lambda item: -item[1])
    ]


def _bulk(trace: Trace) -> BulkEstimate | None:
    found = unseen_of(trace)
    if found is None:
        return None
    known = {f.name for f in fields(BulkEstimate)}
    return BulkEstimate(**{name: value for name, value in found.items() if name in known})
