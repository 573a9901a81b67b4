"""What a trace holds, as plain data for ``tracereplay info`` and reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import EVENT_TABLES, TABLES
from tracereplay.trace.snapshots import ZoneFacts, directmap_kib, snapshot_span, vmstat, zones


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
    """Sum of 2^order; None for kinds without an order."""


@dataclass(slots=True)
class BulkEstimate:
    """Pages allocated without an event, from vmstat (page-allocator.md 8.2): pgalloc delta minus traced pages.

    They are pages of the bulk allocator, and ordinary ones allocated between a snapshot and the events.
    """

    pgalloc_delta: int
    traced_pages: int
    unseen_pages: int
    outside_pages: int
    """Of the unseen, how many the traced rate explains by the time between snapshots and events."""
    remarks: list[str]
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
    zones: list[ZoneFacts]
    directmap_kib: dict[str, int]
    loss: dict[str, Any] | None
    """As ``Trace.loss_summary``; None when the loss table is damaged."""
    bulk: BulkEstimate | None
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
    snapshots_sound = "snapshots" in sound
    summary = TraceSummary(
        identity=trace.identity(),
        metadata=trace.metadata.to_json(),
        start_ns=start,
        end_ns=end,
        tables=tables,
        kinds=kinds,
        tasks=trace.rows("tasks"),
        snapshots=_phases(trace) if snapshots_sound else [],
        zones=zones(trace) if snapshots_sound else [],
        directmap_kib=directmap_kib(trace) if snapshots_sound else {},
        loss=None if any(t.name == "loss" and t.damaged for t in tables) else trace.loss_summary(),
        bulk=_bulk(trace, kinds) if snapshots_sound and "page_events" in sound else None,
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
    columns = ["kind", "order"] if table == "page_events" else ["kind"]
    counts = frame.select(columns).group_by(columns).len().collect(engine="streaming")
    events: dict[str, int] = {}
    sums: dict[str, int] = {}
    for row in counts.iter_rows(named=True):
        kind = str(row["kind"])
        events[kind] = events.get(kind, 0) + row["len"]
        if row.get("order") is not None:
            sums[kind] = sums.get(kind, 0) + (row["len"] << row["order"])
    return [
        KindSummary(table, kind, n, n / duration if duration else None, sums.get(kind))
        for kind, n in sorted(events.items(), key=lambda item: -item[1])
    ]


def _phases(trace: Trace) -> list[str]:
    seen: set[str] = set()
    for batch in trace.batches("snapshots", ["phase"]):
        seen.update(batch.column("phase").unique().to_pylist())
    return [p for p in ("start", "tick", "end") if p in seen]


def _bulk(trace: Trace, kinds: list[KindSummary]) -> BulkEstimate | None:
    before, after = vmstat(trace, "start"), vmstat(trace, "end")
    names = [n for n in before if n.startswith("pgalloc_") and n in after]
    traced = next((k.pages or 0 for k in kinds if k.kind == "alloc"), 0)
    if not names or not traced:
        return None
    delta = sum(after[n] - before[n] for n in names)
    remarks = []
    release = str(trace.metadata.host.get("release") or "")
    if release.startswith(("5.10.", "5.11.", "5.12.", "5.13.", "5.14.", "5.15.")):
        remarks.append("kernels up to 5.15 count a page-list hit as one page whatever its order")
    lost = trace.loss_summary()["lost"]
    if lost is None or lost:
        remarks.append("lost events count as unseen")
    outside = 0
    events, snapshots = trace.sort_range("page_events"), snapshot_span(trace)
    if events and snapshots and events[1] > events[0]:
        excess = (snapshots[1] - snapshots[0]) / (events[1] - events[0]) - 1
        outside = round(traced * max(0.0, excess))
    elif snapshots is None:
        remarks.append("the snapshots carry no time")
    return BulkEstimate(delta, traced, delta - traced, outside, remarks)
