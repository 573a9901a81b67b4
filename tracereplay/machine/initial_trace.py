"""The initial state of a trace's host: what its page map, snapshots and events tell of the instant before the events.

With a page map, free bit by bit: a frame that no event named before it was read is as it was read, any other as its
first event tells. Without one, the free blocks that events prove, and as many more as the snapshot counts.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tracereplay.kernel.constants import NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.machine import initial_scan as scan
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.initial import BLOCK, I8, PCP_ENTRY, PCP_PAGES, InitialState, Records
from tracereplay.machine.initial_events import scan_trace
from tracereplay.machine.initial_free import decompose, first_taken, keep_popped
from tracereplay.machine.initial_guess import FREE_BY_COUNT, FREE_BY_GROWTH, FREE_BY_RUN, complete_zone, fill_runs
from tracereplay.machine.initial_map import PageMap, marks_heads_only, page_map_of, whole_blocks
from tracereplay.machine.initial_snapshots import Counted, counted
from tracereplay.machine.initial_types import HELD_MOVABLE, deal_types, settle_types, type_facts
from tracereplay.machine.layout import ZONE_NAMES

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace


def initial_state(trace: Trace, config: MachineConfig) -> InitialState:
    """The state of a trace's host when its events began, for the machine that ``machine_of`` made of it.

    Frames outside the machine's zones are left out; ``config.seed`` decides what is placed at random. Raises
    TraceError where tables cannot be read.

    ``facts``: ``source`` (page_map, counts, or each zone's), ``free_pages`` and what tells that they are free
    (``free_pages_by``), ``free_blocks`` by order and zone beside buddyinfo's of the last snapshot before the events and
    of the first one after, ``l1`` (blocks of an order too many or too few, over the blocks counted before the events),
    ``l1_after``, ``types`` (``initial_types``), ``map`` (how many first events agree with it), ``pcp``, ``notes``.
    """
    ordered = sorted(config.zones, key=lambda z: (z.node, ZONE_NAMES.index(z.name)))
    counts = counted(trace, config, ordered)
    notes: list[str] = []
    page_map = _page_map(trace, ordered, counts, notes)
    tables = scan_trace(trace, config, ordered, page_map, counts)
    rng = np.random.default_rng(config.seed)
    held = page_map.classes(len(tables.zone)) if len(page_map) else None
    types, evidence = settle_types(tables.strong, tables.weak, tables.against, tables.zone, held, counts.pageblocks)
    facts: dict[str, Any] = {"map": page_map.settle(tables) if len(page_map) else None}
    sources, parts = [], []
    pages = np.zeros(3, np.int64)
    tables.need[:] *= tables.first & scan.EARLY == 0  # the map knows better
    for z, zone in enumerate(ordered):
        complete = len(page_map) > 0 and page_map.covered(zone.start, zone.end) >= zone.pages
        sources.append("page_map" if complete else "counts")
        parts.append(_zone_blocks(tables, types, evidence, zone, None if complete else (counts, z), rng, pages, notes))
    blocks = np.concatenate(parts)
    pcp = _pcp(tables)
    movable = np.full(len(tables.zone), -1, np.int16) if held is None else held[:, HELD_MOVABLE].copy()
    pcp_pages = _pcp_pages(ordered, config.cpus, pcp, tables, counts)
    facts["source"] = sources[0] if len(set(sources)) == 1 else sources
    facts["free_pages_by"] = _free_pages_by(blocks, pages, facts["map"])
    facts |= _facts(blocks, pcp_pages, tables, ordered, counts)
    facts["types"] = type_facts(types, evidence, tables.zone, tables.against, counts.pageblocks)
    facts["notes"] = notes
    return InitialState(blocks, types, evidence, movable, pcp, pcp_pages, facts)


def _page_map(trace: Trace, ordered: list[ZoneConfig], counts: Counted, notes: list[str]) -> PageMap:
    page_map = page_map_of(trace)
    known = [f for f in counts.free if f is not None]
    blocks = sum(sum(f) for f in known)
    pages = sum(n << order for f in known for order, n in enumerate(f))
    complete = all(page_map.covered(z.start, z.end) >= z.pages for z in ordered)
    if complete and blocks and marks_heads_only(page_map, pages, blocks):
        notes.append("the page map marks the first page of each free block only: its order is guessed")
        return whole_blocks(page_map)
    return page_map


# ---------------------------------------------------------------- from frames to lists
def _zone_blocks(
    tables: scan.Tables,
    types: I8,
    evidence: I8,
    zone: ZoneConfig,
    guess: tuple[Counted, int] | None,
    rng: np.random.Generator,
    pages: npt.NDArray[np.int64],
    notes: list[str],
) -> Records:
    """Free blocks of a zone in list order: those that events take first are first, in that order."""
    first = tables.first
    if guess is not None:
        pages[FREE_BY_RUN] += fill_runs(first, tables.need, zone.start, zone.end)
    found = np.zeros(decompose(first, types, zone.start, zone.end, np.zeros(0, BLOCK)), BLOCK)
    decompose(first, types, zone.start, zone.end, found)
    if guess is None:
        return _in_list_order(found, tables)
    counts, z = guess
    wanted, blocks = counts.by_type[z], counts.pageblocks[z]
    if wanted is None:
        notes.append(f"zone {zone.name} of node {zone.node}: no free blocks were counted, only proven ones are placed")
        return _in_list_order(found, tables)
    seen = zone.start + int(np.flatnonzero(first[zone.start : zone.end]).max(initial=-1)) + 1
    handed = min(max(zone.start + (sum(blocks) << PAGEBLOCK_ORDER), seen), zone.end) if blocks else zone.end
    tables.need[zone.start : zone.end] = 0  # from here on: heads of free blocks
    found = complete_zone(
        first,
        tables.need,
        types,
        evidence,
        _in_list_order(found, tables),
        wanted,
        (zone.start, zone.end, handed),
        rng,
        pages,
    )
    if blocks:
        has_free = np.zeros(len(types), np.bool_)
        has_free[found["pfn"] >> PAGEBLOCK_ORDER] = True
        has_free[(found["pfn"] + (1 << found["order"].astype(np.int64)) - 1) >> PAGEBLOCK_ORDER] = True
        deal_types(types, evidence, tables.zone == z, has_free, blocks, rng)
    return _in_list_order(found, tables, rng)


def _in_list_order(found: Records, tables: scan.Tables, rng: np.random.Generator | None = None) -> Records:
    """Blocks, given ascending by frame: those that events take in the order of their leaving, then the others by frame,
    or at random."""
    taken = tables.taken[: tables.scalar[scan.S_TAKEN]]
    when = np.full(len(found), len(taken), np.int64)
    first_taken(found, taken, when)
    shuffled = rng.permutation(len(found)) if rng else np.arange(len(found))
    return found[shuffled[np.argsort(when[shuffled], kind="stable")]]


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


def _pcp_pages(ordered: list[ZoneConfig], cpus: int, pcp: Records, tables: scan.Tables, counts: Counted) -> Records:
    made = np.zeros(len(ordered) * cpus, PCP_PAGES)
    zone = tables.zone[pcp["pfn"] >> PAGEBLOCK_ORDER].astype(np.int64)
    known = np.zeros(len(made), np.int64)
    np.add.at(known, zone * cpus + pcp["cpu"], 1 << pcp["order"].astype(np.int64))
    made["known"] = known
    made["counted"] = counts.pcp.reshape(-1)
    made["node"] = np.repeat([z.node for z in ordered], cpus)
    made["zone"] = np.repeat(np.arange(len(ordered)), cpus)
    made["cpu"] = np.tile(np.arange(cpus), len(ordered))
    return made


# ---------------------------------------------------------------- how sure it is
def _free_pages_by(blocks: Records, pages: npt.NDArray[np.int64], settled: dict[str, int] | None) -> dict[str, int]:
    """Free pages by what tells that they are free."""
    guessed = int(pages.sum())
    rest = int((1 << blocks["order"].astype(np.int64)).sum()) - guessed
    events = settled["free_by_events"] if settled else rest
    return {
        "map": rest - events,
        "events": events,
        "runs": int(pages[FREE_BY_RUN]),
        "growth": int(pages[FREE_BY_GROWTH]),
        "counts": int(pages[FREE_BY_COUNT]),
    }


def _facts(
    blocks: Records,
    pcp_pages: Records,
    tables: scan.Tables,
    ordered: list[ZoneConfig],
    counts: Counted,
) -> dict[str, Any]:
    zone = tables.zone[blocks["pfn"] >> PAGEBLOCK_ORDER]
    placed = [np.bincount(blocks["order"][zone == z], minlength=NR_PAGE_ORDERS) for z in range(len(ordered))]
    known = pcp_pages["counted"] >= 0
    return {
        "free_pages": int((1 << blocks["order"].astype(np.int64)).sum()),
        "free_blocks": [
            {
                "node": its.node,
                "zone": its.name,
                "placed": placed[z].tolist(),
                "before": counts.free[z],
                "after": counts.free_after[z],
            }
            for z, its in enumerate(ordered)
        ],
        "l1": _l1(placed, counts.free),
        "l1_after": _l1(placed, counts.free_after),
        "pcp": {
            "known_pages": int(pcp_pages["known"].sum()),
            "counted_pages": int(pcp_pages["counted"][known].sum()) if known.any() else None,
        },
        "unexplained_allocations": int(tables.scalar[scan.S_UNEXPLAINED]),
        "partly_named_blocks": int(tables.scalar[scan.S_SPLIT_PCP]),
        "malformed_events": int(tables.scalar[scan.S_MALFORMED]),
    }


def _l1(placed: list[npt.NDArray[np.int64]], wanted: list[list[int] | None]) -> float | None:
    """Blocks too many or too few of an order, over the blocks counted."""
    known = [(p, w) for p, w in zip(placed, wanted, strict=True) if w is not None]
    total = sum(sum(w) for _, w in known)
    return sum(int(np.abs(p - w).sum()) for p, w in known) / total if total else None
