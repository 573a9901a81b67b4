"""What a trace's snapshots count at the start of its events: free blocks, pageblocks by type, pages on CPU lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tracereplay.kernel.constants import (
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATETYPE_NAMES,
    NR_PAGE_ORDERS,
    PAGEBLOCK_ORDER,
)
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.layout import NR_KERNEL_TYPES
from tracereplay.trace.snapshots import ZoneFacts, snapshot_times, zones

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

SOON_NS = 100_000_000
"""A reading this soon after the first event is brought back to it by the events in between."""

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts by zone number; None where they were not recorded."""

    free: list[list[int] | None]
    """Free blocks by order, in the last snapshot before the events."""
    free_after: list[list[int] | None]
    """The same, in the first snapshot after the first event."""
    by_type: list[I64 | None]
    """Free blocks by (migratetype, order): pagetypeinfo's, brought to the sums of ``free``."""
    pageblocks: list[list[int] | None]
    """Pageblocks by migratetype."""
    pcp: I64
    """Pages on the lists of each (zone, CPU) when the events began; -1: not known."""


def counted(trace: Trace, config: MachineConfig, ordered: Sequence[ZoneConfig]) -> Counted:
    """What the snapshots of a trace count for the zones, ``ordered`` by their number."""
    before, after = _around(trace)
    keys = [(z.node, z.name) for z in ordered]
    free = [_orders(before.get(key)) for key in keys]
    types, pageblocks = _by_type(trace)
    return Counted(
        free=free,
        free_after=[_orders(after.get(key)) for key in keys],
        by_type=[_split_by_type(f, types.get(key)) for key, f in zip(keys, free, strict=True)],
        pageblocks=[pageblocks.get(key) for key in keys],
        pcp=_pcp(trace, config, ordered, before),
    )


def _around(trace: Trace) -> tuple[dict[tuple[int, str], ZoneFacts], dict[tuple[int, str], ZoneFacts]]:
    """Zones in the last snapshot before the first event (else the first of all), and in the first one after it."""
    events = trace.sort_range("page_events") if trace.rows("page_events") else None
    times = [ts for ts, _ in snapshot_times(trace) if ts is not None]
    before = [ts for ts in times if events and ts <= events[0]]
    after = [ts for ts in times if events and ts > events[0]]
    first = zones(trace, ts_ns=max(before)) if before else zones(trace)
    then = zones(trace, ts_ns=min(after)) if after else []
    return {(z.node, z.zone): z for z in first}, {(z.node, z.zone): z for z in then}


def _orders(facts: ZoneFacts | None) -> list[int] | None:
    return (facts.free_blocks + [0] * NR_PAGE_ORDERS)[:NR_PAGE_ORDERS] if facts and facts.free_blocks else None


def _by_type(trace: Trace) -> tuple[dict[tuple[int, str], I64], dict[tuple[int, str], list[int]]]:
    """Free blocks by (type, order), and pageblocks by type, per zone: the first pagetypeinfo."""
    rows = (
        trace.snapshots.filter((pl.col("source") == "pagetypeinfo") & pl.col("name").is_in(["nr_free", "nr_blocks"]))
        .select("ts_ns", "node", "zone", "order", "migratetype", "name", "value")
        .with_columns(pl.col("zone", "migratetype", "name").cast(pl.String))
        .collect()
    )
    first = rows["ts_ns"].min()
    if first is not None:
        rows = rows.filter(pl.col("ts_ns") == first)
    cma = "CMA" in rows["migratetype"].to_list()
    free: dict[tuple[int, str], I64] = {}
    blocks: dict[tuple[int, str], list[int]] = {}
    for _, node, zone, order, migratetype, name, value in rows.iter_rows():
        if migratetype not in MIGRATETYPE_NAMES:
            continue
        number = MIGRATETYPE_NAMES.index(migratetype) - (migratetype == "Isolate" and not cma)
        if name == "nr_blocks":
            blocks.setdefault((node, zone), [0] * NR_KERNEL_TYPES)[number] = value
        elif order is not None and order < NR_PAGE_ORDERS:
            free.setdefault((node, zone), np.zeros((NR_KERNEL_TYPES, NR_PAGE_ORDERS), np.int64))[number, order] = value
    return free, blocks


def _split_by_type(total: list[int] | None, by_type: I64 | None) -> I64 | None:
    """Counts by type that add up to ``total``: pagetypeinfo is read at another time, and stops at 100,000."""
    if total is None:
        return None
    made = np.zeros((NR_KERNEL_TYPES, NR_PAGE_ORDERS), np.int64)
    left = np.array(total, np.int64)
    if by_type is not None:
        for mt in sorted(range(NR_KERNEL_TYPES), key=lambda t: t == MIGRATE_MOVABLE):
            made[mt] = np.minimum(by_type[mt], left)
            left -= made[mt]
    made[MIGRATE_MOVABLE] += left
    return made


# ---------------------------------------------------------------- pages on per-CPU lists
def _pcp(
    trace: Trace, config: MachineConfig, ordered: Sequence[ZoneConfig], before: dict[tuple[int, str], ZoneFacts]
) -> I64:
    """Pages on the lists when the events began: of a reading soon after, less what the events did until then; else of
    the snapshot before."""
    found = np.full((len(ordered), config.cpus), -1, np.int64)
    soon = _soon(trace)
    facts = before if soon is None else {(z.node, z.zone): z for z in zones(trace, ts_ns=soon[0])}
    for z, its in enumerate(ordered):
        if (its.node, its.name) in facts:
            for cpu, pages in facts[its.node, its.name].pcp_count.items():
                if cpu < config.cpus:
                    found[z, cpu] = pages
    if soon is not None:
        found = np.where(found < 0, -1, (found - _changes(trace, soon[1], config, ordered)).clip(min=0))
    return found


def _soon(trace: Trace) -> tuple[int, int] | None:
    """Time of the first snapshot within SOON_NS of the first event, and when its zoneinfo was read."""
    events = trace.sort_range("page_events") if trace.rows("page_events") else None
    if events is None or not any("zone_locked" in name for name in trace.metadata.events):
        return None
    found = (
        trace.snapshots.filter(
            (pl.col("source") == "read_ns")
            & (pl.col("name") == "zoneinfo")
            & pl.col("value").is_between(events[0], events[0] + SOON_NS)
        )
        .select("ts_ns", "value")
        .sort("value")
        .head(1)
        .collect()
    )
    return None if found.is_empty() else (found["ts_ns"][0], found["value"][0])


def _changes(trace: Trace, until: int, config: MachineConfig, ordered: Sequence[ZoneConfig]) -> I64:
    """Pages that events before ``until`` added to each (zone, CPU)'s lists."""
    generation = GENERATIONS[config.generation]
    sign = {"alloc": -1, "free": 1, "zone_locked": 1, "drain": -1}
    events: dict[str, Any] = {
        column.name: column.to_numpy()
        for column in trace.page_events.filter(pl.col("ts_ns") < until)
        .select(
            "cpu",
            pl.col("kind").cast(pl.String).replace_strict(sign, default=0).alias("sign"),
            pl.col("pfn").cast(pl.Int64).fill_null(-1),
            pl.col("order").fill_null(0).cast(pl.Int64),
            ((pl.col("kind") == "zone_locked") & (pl.col("migratetype") >= MIGRATE_PCPTYPES)).alias("past"),
        )
        .collect()
        .get_columns()
    }
    held = events["order"] < generation.pcp_orders
    held |= (events["order"] == PAGEBLOCK_ORDER) & (generation.pcp_thp_lists > 0)
    held &= ~events["past"].astype(bool) & (events["cpu"] < config.cpus)
    pages = np.where(held, events["sign"] * (1 << np.minimum(events["order"], NR_PAGE_ORDERS)), 0)
    changes = np.zeros((len(ordered), config.cpus), np.int64)
    for z, its in enumerate(ordered):
        inside = held & (events["pfn"] >= its.start) & (events["pfn"] < its.end)
        np.add.at(changes[z], events["cpu"][inside].astype(np.int64), pages[inside])
    return changes
