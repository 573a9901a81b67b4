"""The initial state of a trace's host: what its page map, snapshots and events tell of the instant before the events.

With a page map, free bit by bit: a frame that no event named before it was read is as it was read, any other as its
first event tells. Without one, as many free blocks as the snapshot counts, where the events allow them.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.demand.columns import plain
from tracereplay.kernel.constants import MAX_PAGE_ORDER, MIGRATETYPE_NAMES, NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import initial_scan as scan
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.initial import BLOCK, PCP_ENTRY, PCP_PAGES, InitialState, Records
from tracereplay.machine.initial_free import (
    MAP_AGREES,
    MAP_FREE_USED,
    MAP_USED_FREE,
    apply_map,
    decompose,
    first_taken,
    keep_popped,
)
from tracereplay.machine.initial_types import (
    HELD_MOVABLE,
    KIND_CLASSES,
    NR_CLASSES,
    Types,
    count_kinds,
    settle_types,
)
from tracereplay.machine.layout import NR_TYPES, ZONE_NAMES
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.trace.snapshots import ZoneFacts, snapshot_times, zones

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

COLUMNS = ["ts_ns", "cpu", "kind", "pfn", "order", "migratetype", "gfp"]
EXTFRAG_COLUMNS = ["alloc_order", "fallback_order", "fallback_migratetype", "change_ownership"]
ROOM = 1 << 16
"""Entries that a log of the scan starts with."""


def initial_state(trace: Trace, config: MachineConfig) -> InitialState:
    """The state of a trace's host when its events began, for the machine that ``machine_of`` made of it.

    Frames outside the machine's zones are left out. Raises TraceError where tables cannot be read.
    """
    ordered = sorted(config.zones, key=lambda z: (z.node, ZONE_NAMES.index(z.name)))
    snapshot = _snapshot(trace)
    runs = _page_map(trace)
    tables = scan_trace(trace, config, ordered, runs, snapshot)
    rng = np.random.default_rng(config.seed)
    held = None
    if len(runs["pfn"]):
        held = np.zeros((len(tables.zone), NR_CLASSES), np.int16)
        count_kinds(runs["pfn"], runs["pages"], runs["class"], held)
    counted = _counted_blocks(trace, ordered)
    types = settle_types(tables.strong, tables.weak, tables.against, tables.zone, held, counted, rng)
    facts: dict[str, Any] = {"source": "page_map" if held is not None else "counts", "notes": []}
    if held is not None:
        facts["map"] = _settle_frames(tables, runs)
    blocks = _blocks(tables, types, ordered)
    pcp = _pcp(tables)
    movable = np.full(len(tables.zone), -1, np.int16) if held is None else held[:, HELD_MOVABLE].copy()
    pcp_pages = _pcp_pages(ordered, config.cpus, pcp, tables, snapshot)
    facts |= _facts(blocks, pcp_pages, types, tables, ordered, snapshot)
    return InitialState(blocks, types.types, types.evidence, movable, pcp, pcp_pages, facts)


# ---------------------------------------------------------------- what a trace says beside its events
def _snapshot(trace: Trace) -> dict[tuple[int, str], ZoneFacts]:
    """Zones in the snapshot nearest to the first event: the one before may be older than the events by as long as
    reading pagetypeinfo takes."""
    events = trace.sort_range("page_events") if trace.rows("page_events") else None
    timed = [(abs(ts - events[0]), ts) for ts, _ in snapshot_times(trace) if ts is not None] if events else []
    found = zones(trace, ts_ns=min(timed)[1]) if timed else []
    return {(z.node, z.zone): z for z in found or zones(trace)}


def _page_map(trace: Trace) -> dict[str, npt.NDArray[Any]]:
    """Columns ``pfn pages class ts`` of table page_map, ``class`` by KIND_CLASSES."""
    frame = trace.page_map.select(
        pl.col("pfn").cast(pl.Int64),
        pl.col("pages").cast(pl.Int64),
        pl.col("kind").cast(pl.String).replace_strict(KIND_CLASSES, default=KIND_CLASSES["other"]).cast(pl.Int64),
        pl.col("ts_ns").fill_null(np.iinfo(np.int64).min),
    ).collect()
    return dict(zip(("pfn", "pages", "class", "ts"), (c.to_numpy() for c in frame.get_columns()), strict=True))


def _counted_blocks(trace: Trace, ordered: list[ZoneConfig]) -> list[list[int] | None]:
    """Pageblocks by migratetype number for each zone, from the first pagetypeinfo; None: not recorded."""
    rows = (
        trace.snapshots.filter((pl.col("source") == "pagetypeinfo") & (pl.col("name") == "nr_blocks"))
        .select("ts_ns", "node", pl.col("zone").cast(pl.String), pl.col("migratetype").cast(pl.String), "value")
        .collect()
    )
    first = rows["ts_ns"].min()
    if first is not None:
        rows = rows.filter(pl.col("ts_ns") == first)
    cma = "CMA" in rows["migratetype"].to_list()
    found: dict[tuple[int, str], list[int]] = {}
    for _, node, zone, name, value in rows.iter_rows():
        if name in MIGRATETYPE_NAMES:
            number = MIGRATETYPE_NAMES.index(name) - (name == "Isolate" and not cma)
            found.setdefault((node, zone), [0] * NR_TYPES)[number] = value
    return [found.get((z.node, z.name)) for z in ordered]


# ---------------------------------------------------------------- the pass over the events
def scan_trace(
    trace: Trace,
    config: MachineConfig,
    ordered: list[ZoneConfig],
    runs: dict[str, npt.NDArray[Any]],
    snapshot: dict[tuple[int, str], ZoneFacts],
) -> scan.Tables:
    """Everything that the events tell of the time before them. ``ordered``: the zones by number."""
    tables = _tables(trace, config, ordered, runs, snapshot)
    if not trace.rows("page_events"):
        return tables
    kind = PAGE_KINDS.index("extfrag")
    zeros = np.zeros(0, np.uint8)
    step: Any = scan.scan
    for batch in trace.batches("page_events", [*COLUMNS, *EXTFRAG_COLUMNS]):
        ts, cpu, kinds, pfn, order, mt, gfp = (batch.column(i) for i in range(7))
        codes = plain(kinds.indices)
        if len(zeros) < len(codes):
            zeros = np.zeros(len(codes), np.uint8)
        extfrag = (codes == kind).any()
        more = [_small(batch.column(7 + i), 0) if extfrag else zeros[: len(codes)] for i in range(4)]
        columns: list[Any] = [
            plain(ts),
            plain(cpu),
            codes,
            plain(pfn).view(np.int64),
            plain(order),
            _small(mt, scan.NOT_RECORDED),
            plain(gfp),
            *more,
        ]
        at = 0
        while (at := step(tables, *columns, at)) < len(codes):
            tables = tables._replace(popped=_grown(tables.popped), taken=_grown(tables.taken))
    return tables


def _small(column: pa.Array, missing: int) -> npt.NDArray[np.uint8]:
    """A column of small numbers or truth values; nulls are ``missing``."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(missing, column.type))
    values: npt.NDArray[np.uint8] = column.to_numpy(zero_copy_only=False)
    return values


def _grown(log: npt.NDArray[Any]) -> npt.NDArray[Any]:
    made = np.zeros(2 * len(log), log.dtype)
    made[: len(log)] = log
    return made


def _tables(
    trace: Trace,
    config: MachineConfig,
    ordered: list[ZoneConfig],
    runs: dict[str, npt.NDArray[Any]],
    snapshot: dict[tuple[int, str], ZoneFacts],
) -> scan.Tables:
    frames = max(z.end for z in config.zones) + 1023 & ~1023
    blocks = frames >> PAGEBLOCK_ORDER
    generation = GENERATIONS[config.generation]
    scalar = np.zeros(scan.SCALARS, np.int64)
    scalar[scan.S_KEEPS_TYPE] = generation.fallback_keeps_type
    scalar[scan.S_PCP_ORDERS] = generation.pcp_orders
    scalar[scan.S_THP_LISTS] = generation.pcp_thp_lists
    scalar[scan.S_REFILLS] = any("zone_locked" in name for name in trace.metadata.events)
    scalar[scan.S_CPUS] = config.cpus
    zone = np.full(blocks, -1, np.int8)
    budget = np.zeros((len(ordered), config.cpus), np.int64)
    for z, its in enumerate(ordered):
        zone[its.start >> PAGEBLOCK_ORDER : (its.end - 1 >> PAGEBLOCK_ORDER) + 1] = z
        facts = snapshot.get((its.node, its.name))
        for cpu, pages in (facts.pcp_count if facts else {}).items():
            if cpu < config.cpus:
                budget[z, cpu] = pages
    read_ns = np.full(blocks, np.iinfo(np.int64).min, np.int64)
    for pfn, pages, ts in zip(*(runs[name].tolist() for name in ("pfn", "pages", "ts")), strict=True):
        reached = read_ns[pfn >> PAGEBLOCK_ORDER : (pfn + pages - 1 >> PAGEBLOCK_ORDER) + 1]
        np.maximum(reached, ts, out=reached)
    return scan.Tables(
        scalar=scalar,
        first=np.zeros(frames, np.uint8),
        last=np.zeros(frames, np.uint16),
        need=np.zeros(frames, np.uint8),
        strong=np.full(blocks, -1, np.int8),
        weak=np.full(blocks, -1, np.int8),
        closed=np.zeros(blocks, np.uint8),
        against=np.zeros(blocks, np.int32),
        read_ns=read_ns,
        zone=zone,
        budget=budget.reshape(-1),
        runs=np.full(2 * scan.RUNS * len(ordered), -1, np.int64),
        popped=np.zeros(ROOM, scan.POPPED),
        taken=np.zeros(ROOM, np.int64),
    )


# ---------------------------------------------------------------- from frames to lists
def _settle_frames(tables: scan.Tables, runs: dict[str, npt.NDArray[Any]]) -> dict[str, int]:
    early = int(np.count_nonzero(tables.first & scan.EARLY))
    counts = np.zeros(3, np.int64)
    apply_map(tables.first, runs["pfn"], runs["pages"], runs["class"] == KIND_CLASSES["buddy"], counts)
    return {
        "frames": int(runs["pages"].sum()),
        "changed_before_it_was_read": early,
        "first_events_that_agree": int(counts[MAP_AGREES]),
        "free_by_map_used_by_event": int(counts[MAP_FREE_USED]),
        "used_by_map_free_by_event": int(counts[MAP_USED_FREE]),
    }


def _blocks(tables: scan.Tables, types: Types, ordered: list[ZoneConfig]) -> Records:
    """Free blocks in list order: those that events take first are first, in that order, then the others by frame."""
    parts = []
    taken = tables.taken[: tables.scalar[scan.S_TAKEN]]
    for zone in ordered:
        nothing = np.zeros(0, BLOCK)
        found = np.zeros(decompose(tables.first, types.types, zone.start, zone.end, nothing), BLOCK)
        decompose(tables.first, types.types, zone.start, zone.end, found)
        when = np.full(len(found), len(taken), np.int64)
        first_taken(found, taken, when)
        parts.append(found[np.argsort(when, kind="stable")])
    return np.concatenate(parts)


def _pcp(tables: scan.Tables) -> Records:
    """Blocks on per-CPU lists, the head first: allocations take the head, so they name it in order; drains take the
    tail."""
    popped = tables.popped[: tables.scalar[scan.S_POPPED]]
    kept = np.zeros(len(popped), np.bool_)
    keep_popped(tables.first, popped, kept)
    popped = popped[kept]
    drained = popped["drained"] != 0
    found = np.concatenate([popped[~drained], popped[drained][::-1]])
    made = np.zeros(len(found), PCP_ENTRY)
    for name in PCP_ENTRY.names or ():
        made[name] = found[name]
    return made


def _pcp_pages(
    ordered: list[ZoneConfig],
    cpus: int,
    pcp: Records,
    tables: scan.Tables,
    snapshot: dict[tuple[int, str], ZoneFacts],
) -> Records:
    made = np.zeros(len(ordered) * cpus, PCP_PAGES)
    zone = tables.zone[pcp["pfn"] >> PAGEBLOCK_ORDER].astype(np.int64)
    known = np.zeros(len(made), np.int64)
    np.add.at(known, zone * cpus + pcp["cpu"], 1 << pcp["order"].astype(np.int64))
    made["known"] = known
    made["zone"] = np.repeat(np.arange(len(ordered)), cpus)
    made["cpu"] = np.tile(np.arange(cpus), len(ordered))
    for z, its in enumerate(ordered):
        facts = snapshot.get((its.node, its.name))
        rows = made[z * cpus : (z + 1) * cpus]
        rows["node"] = its.node
        rows["counted"] = [facts.pcp_count.get(cpu, -1) if facts else -1 for cpu in range(cpus)]
    return made


def _facts(
    blocks: Records,
    pcp_pages: Records,
    types: Types,
    tables: scan.Tables,
    ordered: list[ZoneConfig],
    snapshot: dict[tuple[int, str], ZoneFacts],
) -> dict[str, Any]:
    zone = tables.zone[blocks["pfn"] >> PAGEBLOCK_ORDER]
    found, differences, total = [], 0, 0
    for z, its in enumerate(ordered):
        placed = np.bincount(blocks["order"][zone == z], minlength=NR_PAGE_ORDERS)
        row: dict[str, Any] = {"node": its.node, "zone": its.name, "placed": placed.tolist()}
        facts = snapshot.get((its.node, its.name))
        if facts and facts.free_blocks:
            wanted = (facts.free_blocks + [0] * NR_PAGE_ORDERS)[:NR_PAGE_ORDERS]
            row["counted"] = wanted
            differences += int(np.abs(placed - wanted).sum())
            total += sum(wanted)
        found.append(row)
    counted = pcp_pages["counted"] >= 0
    return {
        "free_pages": int((1 << blocks["order"].astype(np.int64)).sum()),
        "free_blocks": found,
        "l1": differences / total if total else None,
        "types": types.facts,
        "pcp": {
            "known_pages": int(pcp_pages["known"].sum()),
            "counted_pages": int(pcp_pages["counted"][counted].sum()) if counted.any() else None,
        },
        "unexplained_allocations": int(tables.scalar[scan.S_UNEXPLAINED]),
        "malformed_events": int(tables.scalar[scan.S_MALFORMED]),
        "largest_order": MAX_PAGE_ORDER,
    }
