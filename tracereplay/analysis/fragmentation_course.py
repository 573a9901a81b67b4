"""Free blocks over time, from the twin that the events are fed to, and from snapshots of buddyinfo.

*Unusable share* of order k: the share of free pages that lies in blocks smaller than 2^k (Gorman and Whitcroft, "The
What, The Why and the Where To of Anti-Fragmentation", 2006; ``unusable_free_index`` of mm/vmstat.c).
*Mixed pageblocks*: into which a fallback has put a block of another migratetype without taking them over, counted once
each since the beginning (``mm_page_alloc_extfrag`` with ``change_ownership=0``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tracereplay.analysis.analysis import Answer
from tracereplay.errors import EmptyTraceError
from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.trace.snapshots import pageblock_order, snapshot_times, zones

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

SCHEMA: dict[str, Any] = {
    "t_ns": pl.Int64,
    "source": pl.String,
    "node": pl.Int64,
    "zone": pl.String,
    "order": pl.Int64,
    "blocks": pl.Int64,
    "free_pages": pl.Int64,
    "unusable_share": pl.Float64,
}
DEFAULT_PAGEBLOCK_ORDER = 9
ALL = "all"
"""Zone of the sums over all zones."""


def course(view: View, bins: int, source: str, zones_shown: str) -> Answer:
    """Rows of all zones together, or of each (``zones_shown``), by time and order.

    Raises EmptyTraceError when neither source is there, or the one asked for is not.
    """
    notes: list[str] = []
    rows: list[tuple[Any, ...]] = []
    if source != "buddyinfo":
        rows = _of_twin(view, bins, notes, needed=source == "twin")
    rows += _of_snapshots(view) if source != "twin" else []
    if not rows:
        raise EmptyTraceError(
            f"{view.trace.location} has neither buddy events nor snapshots of buddyinfo",
            hint="record both with: tracereplay capture --events page,buddy",
        )
    summed = pl.col("zone") == ALL
    frame = (
        pl.DataFrame(rows, schema=SCHEMA, orient="row")
        .filter(summed if zones_shown == "sum" else ~summed)
        .sort("t_ns", "source", "node", "zone", "order")
    )
    if view.selection.order:
        frame = frame.filter(pl.col("order").is_in(view.selection.order))
    frame = _with_fallbacks(view, frame)
    method = "buddyinfo: the kernel's own counts at snapshots; twin: the simulated allocator fed with every event"
    if source != "buddyinfo":
        notes.append("`tracereplay verify` says how exact the twin is on this trace")
    return Answer(frame, method, notes=tuple(notes))


def _of_twin(view: View, bins: int, notes: list[str], *, needed: bool) -> list[tuple[Any, ...]]:
    from tracereplay.verify.controls import ordered_zones
    from tracereplay.verify.ending import free_now
    from tracereplay.verify.result import require_events
    from tracereplay.verify.run import Twin

    try:
        require_events(view.trace)
    except EmptyTraceError as error:
        if needed:
            raise
        notes.append(f"no twin: {error.message}")
        return []
    twin = Twin(view.trace)
    named = [(z.node, z.name) for z in ordered_zones(twin.config)]
    rows: list[tuple[Any, ...]] = []

    def see(ts_ns: int) -> None:
        rows.extend(_rows(ts_ns - view.origin_ns, "twin", [(*zone, free_now(twin, k)) for k, zone in enumerate(named)]))

    twin.watch(np.linspace(view.start_ns, view.end_ns, max(bins, 2)).astype(np.int64), see)
    return rows


def _of_snapshots(view: View) -> list[tuple[Any, ...]]:
    """Those within the time, and the first and last ones. Foreign ones without a time stand where they were taken:
    before and after the events."""
    rows: list[tuple[Any, ...]] = []
    edges = {"start": view.origin_ns, "end": view.last_ns}
    for ts_ns, phase in snapshot_times(view.trace):
        at = edges.get(phase) if ts_ns is None else ts_ns
        if at is not None and (phase in edges or view.start_ns <= at < view.end_ns):
            found = [(z.node, z.zone, z.free_blocks) for z in zones(view.trace, phase, ts_ns) if z.free_blocks]
            rows += _rows(at - view.origin_ns, "buddyinfo", found)
    return rows


def _rows(t_ns: int, source: str, found: list[tuple[int, str, list[int]]]) -> list[tuple[Any, ...]]:
    """Of each zone, and of all of them together (node null)."""
    blocks = [(node, zone, (free + [0] * NR_PAGE_ORDERS)[:NR_PAGE_ORDERS]) for node, zone, free in found]
    if blocks:
        blocks.append((-1, ALL, [sum(column) for column in zip(*(b for _, _, b in blocks), strict=True)]))
    rows = []
    for node, zone, counts in blocks:
        free = sum(n << order for order, n in enumerate(counts))
        smaller = 0
        for order, n in enumerate(counts):
            share = smaller / free if free else None
            rows.append((t_ns, source, None if node < 0 else node, zone, order, n, n << order, share))
            smaller += n << order
    return rows


def _with_fallbacks(view: View, frame: pl.DataFrame) -> pl.DataFrame:
    """``fallbacks`` and ``mixed_pageblocks`` since the beginning, at each time."""
    order = pageblock_order(view.trace) or DEFAULT_PAGEBLOCK_ORDER
    events = (
        view.trace.page_events.filter(pl.col("kind").cast(pl.String) == "extfrag")
        .select("ts_ns", (pl.col("pfn") // (1 << order)).alias("block"), "change_ownership")
        .collect(engine="streaming")
    )
    mixed = events.filter(pl.col("change_ownership").not_()).unique("block", keep="first", maintain_order=True)
    times = frame["t_ns"].to_numpy() + view.origin_ns
    return frame.with_columns(
        fallbacks=pl.Series(np.searchsorted(events["ts_ns"].to_numpy(), times), dtype=pl.Int64),
        mixed_pageblocks=pl.Series(np.searchsorted(mixed["ts_ns"].to_numpy(), times), dtype=pl.Int64),
    )
