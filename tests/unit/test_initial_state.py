"""What single events tell of the state before them, and what is done with snapshots and odd page maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.initial_samples import END, EVENTS, START, Event, zoneinfo
from tests.initial_samples import write_trace as write
from tests.reference.machine_driver import chain, zone_lists
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.initial import (
    BLOCK,
    EVIDENCE_CONTRADICTED,
    EVIDENCE_KINDS,
    EVIDENCE_LISTED,
    EVIDENCE_NAMED,
    EVIDENCE_NONE,
    PCP_ENTRY,
    PCP_PAGES,
    InitialState,
)
from tracereplay.machine.initial_trace import initial_state
from tracereplay.trace.reader import Trace

BLOCK_0 = START >> 9
BUDDYINFO = f"Node 0, zone   Normal {' 0' * 10} 0 \n"


def event(kind: str, pfn: int, order: int = 0, mt: int | None = None, **more: Any) -> Event:
    made: Event = {"kind": kind, "pfn": START + pfn, "order": order, "cpu": 0, **more}
    return made if mt is None else made | {"migratetype": mt}


def state_of(
    tmp_path: Path,
    events: Sequence[Event] = (),
    page_map: Sequence[Event] = (),
    texts: Mapping[str, str] | None = None,
    generation: str = "6.12",
    names: Sequence[str] = EVENTS,
) -> InitialState:
    """State of a trace with these events, one every 10 ns from 100 on."""
    timed = [{"ts_ns": 100 + 10 * i, **e} for i, e in enumerate(events)]
    snapshots = [(50, "start", {"zoneinfo": zoneinfo(0, [3, 0]), "buddyinfo": BUDDYINFO, **(texts or {})})]
    config = MachineConfig(zones=(ZoneConfig("Normal", START, END),), cpus=2, generation=generation)
    return initial_state(Trace.open(write(tmp_path / "t", timed, page_map, snapshots, names=names)), config)


def whole_map(ts: int, *free: tuple[int, int], kind: str = "other") -> list[Event]:
    """A map of the zone, read at ``ts``: ``free`` runs (first frame, frames) and pages of one kind between them."""
    rows, pfn = [], START
    for first, pages in [*free, (END - START, 0)]:
        rows.append({"pfn": pfn, "pages": START + first - pfn, "kind": kind, "ts_ns": ts})
        rows.append({"pfn": START + first, "pages": pages, "kind": "buddy", "ts_ns": ts})
        pfn = START + first + pages
    return [row for row in rows if row["pages"]]


def blocks_of(state: InitialState) -> list[tuple[int, int, int]]:
    return [(int(p) - START, int(o), int(t)) for p, o, t in state.blocks.tolist()]


def pcp_of(state: InitialState) -> list[tuple[int, int, int, int]]:
    return [(int(p) - START, int(o), int(t), int(c)) for p, o, t, c in state.pcp.tolist()]


# ---------------------------------------------------------------- the first event decides
def test_what_is_freed_first_was_in_use(tmp_path: Path) -> None:
    state = state_of(tmp_path, [event("free", 8), event("zone_locked", 8, 0, 1)], whole_map(500, (8, 2)))
    assert blocks_of(state) == [(9, 0, 1)], "freed before it was read, so the map's word is of later"


def test_the_map_decides_for_frames_that_were_named_later(tmp_path: Path) -> None:
    state = state_of(tmp_path, [event("free", 8)], whole_map(50, (8, 2)))
    assert blocks_of(state) == [(8, 1, 1)]
    assert state.facts["map"]["free_by_map_used_by_event"] == 1


def test_an_allocation_without_a_refill_was_on_the_list(tmp_path: Path) -> None:
    events = [event("alloc", 5, 0, 1), event("alloc", 16, 3, 0), event("alloc", 9, 0, 1, cpu=1)]
    assert pcp_of(state_of(tmp_path, events)) == [(5, 0, 1, 0), (16, 3, 0, 0), (9, 0, 1, 1)]


def test_pages_drained_stood_behind_those_allocated_the_first_last(tmp_path: Path) -> None:
    events = [event("drain", 7, 0, 1), event("alloc", 5, 0, 1), event("drain", 6, 0, 1), event("alloc", 4, 0, 1)]
    assert [p for p, *_ in pcp_of(state_of(tmp_path, events))] == [5, 4, 6, 7]


def test_what_pcp_lists_do_not_hold_came_from_the_buddy_lists(tmp_path: Path) -> None:
    state = state_of(tmp_path, [event("alloc", 32, 5, 1)])
    assert blocks_of(state) == [(32, 5, 1)]
    assert state.facts["unexplained_allocations"] == 1


def test_without_recorded_refills_lists_hold_no_more_than_zoneinfo_counts(tmp_path: Path) -> None:
    events = [event("alloc", p, 0, 1) for p in (3, 9, 5, 20)]
    state = state_of(tmp_path, events, names=["kmem:mm_page_alloc", "kmem:mm_page_free"])
    assert pcp_of(state) == [(3, 0, 1, 0), (9, 0, 1, 0), (5, 0, 1, 0)]
    assert blocks_of(state) == [(20, 0, 1)]


def test_blocks_are_listed_in_the_order_in_which_they_are_taken(tmp_path: Path) -> None:
    events = [event("zone_locked", p, 0, 1) for p in (40, 8, 20)]
    state = state_of(tmp_path, events, whole_map(50, (4, 1), (8, 1), (20, 1), (40, 1)))
    assert [p for p, *_ in blocks_of(state)] == [40, 8, 20, 4]
    machine = build_machine(MachineConfig(zones=(ZoneConfig("Normal", START, END),), cpus=2), state)
    assert [p - START for p in zone_lists(machine, 0)[0, 1]] == [40, 8, 20, 4]


def test_a_run_of_refilled_frames_proves_the_block_it_was_cut_from(tmp_path: Path) -> None:
    run = [event("zone_locked", 64 + i, 0, 1) for i in range(9)]
    assert blocks_of(state_of(tmp_path, run)) == [(64, 4, 1)]
    # not aligned for a larger block, so each part is one
    run = [event("zone_locked", 63 + i, 0, 1) for i in range(3)]
    assert sorted(blocks_of(state_of(tmp_path / "b", run))) == [(63, 0, 1), (64, 1, 1)]


# ---------------------------------------------------------------- pageblock types
@pytest.mark.parametrize(("generation", "evidence"), [("6.12", EVIDENCE_NAMED), ("6.1", EVIDENCE_LISTED)])
def test_refills_name_the_type_since_6_10_else_the_list(tmp_path: Path, generation: str, evidence: int) -> None:
    state = state_of(tmp_path, [event("zone_locked", 8, 0, 2)], generation=generation)
    assert (state.block_types[BLOCK_0], state.evidence[BLOCK_0]) == (2, evidence)


def test_a_page_freed_and_popped_on_one_cpu_lay_on_the_list_of_its_type(tmp_path: Path) -> None:
    events = [event("zone_locked", 8, 0, 2), event("free", 8), event("alloc", 8, 0, 0)]
    state = state_of(tmp_path, events, generation="6.1")
    assert (state.block_types[BLOCK_0], state.evidence[BLOCK_0]) == (0, EVIDENCE_NAMED)
    other = [event("free", 8), event("alloc", 8, 0, 0, cpu=1)]
    assert state_of(tmp_path / "b", other).evidence[BLOCK_0] == EVIDENCE_NONE
    refilled = [event("free", 8), event("zone_locked", 8, 0, 2), event("alloc", 8, 0, 0)]
    assert state_of(tmp_path / "c", refilled).block_types[BLOCK_0] == 2


def test_events_after_a_change_of_ownership_tell_nothing_of_the_start(tmp_path: Path) -> None:
    fallback = {"fallback_order": 4, "fallback_migratetype": 1, "alloc_order": 0}
    events = [event("extfrag", 8, 0, 0, change_ownership=True, **fallback), event("zone_locked", 9, 0, 0)]
    state = state_of(tmp_path, events)
    assert (state.block_types[BLOCK_0], state.evidence[BLOCK_0]) == (1, EVIDENCE_NAMED)


def test_contradictions_are_counted(tmp_path: Path) -> None:
    events = [event("zone_locked", 8, 0, 0), event("zone_locked", 9, 0, 1), event("zone_locked", 10, 0, 1)]
    state = state_of(tmp_path, events)
    assert (state.block_types[BLOCK_0], state.evidence[BLOCK_0]) == (0, EVIDENCE_CONTRADICTED)
    assert state.facts["types"]["contradicting_events"] == 2


def test_kernel_pages_make_as_many_unmovable_blocks_as_are_counted(tmp_path: Path) -> None:
    held = [("slab", 300), ("anon", 212), ("pgtable", 40), ("other", 472), ("slab", 20), ("anon", 492)]
    page_map, pfn = [], START
    for kind, pages in [*held, ("anon", END - START - 1536)]:
        page_map.append({"pfn": pfn, "pages": pages, "kind": kind, "ts_ns": 50})
        pfn += pages
    counts = "Page block order: 9\nNumber of blocks type Unmovable Movable Reclaimable\nNode 0, zone   Normal 1 6 1\n"
    state = state_of(tmp_path, page_map=page_map, texts={"pagetypeinfo": counts})
    assert state.block_types[BLOCK_0 : BLOCK_0 + 4].tolist() == [2, 0, 1, 1]
    assert (state.evidence[BLOCK_0 : BLOCK_0 + 4] == EVIDENCE_KINDS).all()
    assert state.movable[BLOCK_0 : BLOCK_0 + 3].tolist() == [212, 0, 492]


# ---------------------------------------------------------------- snapshots, maps, machines
def test_pcp_counts_of_a_reading_soon_after_are_brought_back_to_the_start(tmp_path: Path) -> None:
    events = [event("alloc", 5, 0, 1), event("free", 70, 1), event("drain", 8, 0, 1), event("alloc", 30, 0, 1)]
    timed = [{"ts_ns": 100 + 10 * i, **e} for i, e in enumerate(events)]
    path = write(tmp_path / "t", timed, (), [(50, "start", {"zoneinfo": zoneinfo(0, [90, 0])})])
    config = MachineConfig(zones=(ZoneConfig("Normal", START, END),), cpus=2)
    assert initial_state(Trace.open(path), config).pcp_pages["counted"].tolist() == [90, 0]
    path = write(tmp_path / "u", timed, (), [(50, "start", {"zoneinfo": zoneinfo(0, [90, 0])})])
    from tests.trace_samples import rows_batch
    from tracereplay.trace.snapshots import snapshot_batch, snapshot_rows
    from tracereplay.trace.writer import TraceWriter

    with TraceWriter(tmp_path / "v", Trace.open(path).metadata) as writer:
        writer.write("page_events", rows_batch("page_events", timed))
        rows = snapshot_rows({"zoneinfo": zoneinfo(0, [40, 0])})
        rows.append({**rows[0], "source": "read_ns", "node": None, "zone": None, "name": "zoneinfo", "value": 125})
        writer.write("snapshots", snapshot_batch(rows, 126, "tick"))
    assert initial_state(Trace.open(tmp_path / "v"), config).pcp_pages["counted"].tolist() == [40, 0]  # +1 -2 +1


def test_a_map_of_heads_only_is_noticed_by_the_counts(tmp_path: Path) -> None:
    texts = {"buddyinfo": "Node 0, zone   Normal 1 0 0 1 0 0 0 0 0 0 0\n"}
    state = state_of(tmp_path, page_map=whole_map(50, (8, 1), (23, 1)), texts=texts)
    assert sorted(blocks_of(state)) == [(8, 3, 1), (23, 0, 1)]
    assert len(state.facts["notes"]) == 1


def test_a_map_that_ends_early_is_completed_by_counts(tmp_path: Path) -> None:
    texts = {"buddyinfo": "Node 0, zone   Normal 2 0 0 0 0 0 0 0 0 0 1\n"}
    rows = [r for r in whole_map(50, (8, 1)) if r["pfn"] < START + 1000]
    rows[-1]["pages"] = 1000
    state = state_of(tmp_path, page_map=rows, texts=texts)
    assert state.facts["source"] == "counts"
    placed = sorted(blocks_of(state), key=lambda b: b[1])
    assert (8, 0, 1) in placed
    assert [order for _, order, _ in placed] == [0, 0, 10]
    assert all(pfn == 8 or pfn >= 1000 + 9 for pfn, *_ in placed)


def test_a_trace_without_events_or_snapshots_has_an_empty_state(tmp_path: Path) -> None:
    config = MachineConfig(zones=(ZoneConfig("Normal", START, END),), cpus=2)
    state = initial_state(Trace.open(write(tmp_path / "t", ())), config)
    assert len(state.blocks) == len(state.pcp) == 0
    assert state.facts["l1"] is None
    assert state.pcp_pages["counted"].tolist() == [-1, -1]


def test_placing_leaves_out_what_the_machine_does_not_have() -> None:
    types = np.ones(END >> 9, np.int8)
    blocks = np.array([(START, 3, 1), (END + 1024, 0, 1)], BLOCK)
    pcp = np.array([(START + 64, 0, 1, 1), (START + 65, 0, 1, 9), (START + 80, 4, 1, 0)], PCP_ENTRY)
    nothing = np.zeros(0, PCP_PAGES)
    state = InitialState(blocks, types, np.zeros_like(types), np.full(len(types), -1, np.int16), pcp, nothing)
    machine = build_machine(MachineConfig(zones=(ZoneConfig("Normal", START, END),), cpus=2), state)
    assert zone_lists(machine, 0) == {(3, 1): [START]}
    heads = int(machine.w[at.CFG_PCP_BASE]) + at.PCP_LISTS
    assert chain(machine, heads + 1) == [START + 64]
    assert machine.w[at.P_WORDS + at.P_COUNT] == 1
    assert state.frames == END


def test_arrays_of_other_layouts_are_refused() -> None:
    types = np.ones(4, np.int8)
    good = (np.zeros(0, BLOCK), types, types, types.astype(np.int16), np.zeros(0, PCP_ENTRY), np.zeros(0, PCP_PAGES))
    with pytest.raises(ValueError, match="blocks are"):
        InitialState(np.zeros(0, PCP_ENTRY), *good[1:])
    with pytest.raises(ValueError, match="different lengths"):
        InitialState(*good[:2], types[:2], *good[3:])
