"""What options make of the free memory that a machine starts with."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.machine_check import check_machine
from tests.reference.machine_driver import zone_lists
from tracereplay.errors import ParameterError
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.free_start import pages_in, recorded_blocks, starting_blocks
from tracereplay.machine.layout import CFG_UNPLACED
from tracereplay.machine.options import machine_options

ROOM = 1 << 16
ORDERS = 11


def recorded(rows: list[list[int]], **more: Any) -> MachineConfig:
    """A host of one zone with these free blocks by type and order."""
    by_order = tuple(map(sum, zip(*rows, strict=True)))
    zone = ZoneConfig("Normal", 0, ROOM, free_blocks=by_order, free_by_type=tuple(map(tuple, rows)))
    return MachineConfig((zone,), cpus=1, source="snapshot", **more)


ROWS = [
    [40, 20, 0, 5, 0, 0, 0, 0, 0, 0, 1],
    [900, 300, 80, 40, 20, 10, 6, 5, 4, 2, 9],
    [30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
]
"""A zone about a third full of small blocks."""
HOST = recorded(ROWS)


def blocks_of(config: MachineConfig) -> list[list[int]]:
    return starting_blocks(config.zones[0], config)


def free_of(rows: list[list[int]]) -> int:
    return sum(map(pages_in, rows))


def test_nothing_asked_is_what_was_counted() -> None:
    assert blocks_of(HOST) == ROWS
    assert machine_options(HOST, {"seed": "3"}).zones == HOST.zones
    said = HOST.describe()
    assert said["free_start"] == "as counted"
    assert said["occupancy"] == round(1 - free_of(ROWS) / ROOM, 6)
    assert said["fragmentation"] == round(970 / free_of(ROWS), 6)


def test_fragmentation_keeps_the_free_pages_of_each_type() -> None:
    config = machine_options(HOST, {"fragmentation": "0.25"})
    for before, after in zip(ROWS, blocks_of(config), strict=True):
        assert pages_in(after) == pages_in(before)
        assert after[0] - pages_in(before) // 4 in (0, 1)  # a page that is left over may lie alone as well
        assert after[10] == (pages_in(before) - pages_in(before) // 4) >> 10
    assert config.describe()["free_start"] == "recorded free pages; fragmentation"


def test_occupancy_alone_keeps_the_shares_by_order() -> None:
    rows = blocks_of(machine_options(HOST, {"occupancy": "0.9"}))
    free = ROOM - int(ROOM * 0.9)
    assert abs(free_of(rows) - free) <= 1
    share = free / free_of(ROWS)
    for before, after in zip(ROWS[1][:8], rows[1][:8], strict=True):
        assert abs(after - before * share) <= 1.01


def test_occupancy_that_leaves_no_room_for_the_shares_is_met_with_larger_blocks() -> None:
    dense = recorded([[0] * ORDERS, [20000, *[0] * 10], [0] * ORDERS])
    shares = []
    for occupancy in ("0.6", "0.4", "0.2", "0.05", "0"):
        config = machine_options(dense, {"occupancy": occupancy})
        assert free_of(blocks_of(config)) == int(ROOM * (1 - float(occupancy)))
        shares.append(config.describe()["fragmentation"])
    assert shares[0] > 0.999
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0


def test_too_little_in_use_beside_small_blocks_leaves_fewer_free() -> None:
    empty = recorded([[0] * ORDERS, [*[0] * 10, 60], [0] * ORDERS])
    config = machine_options(empty, {"fragmentation": "0.999"})
    assert ROOM / 2 - 50 <= free_of(blocks_of(config)) <= ROOM / 2 + 50
    assert "free pages are in use at the start" in config.notes[0]
    with pytest.raises(ParameterError, match="too few pages are in use") as caught:
        machine_options(empty, {"fragmentation": "0.999", "occupancy": "0.2"})
    assert "occupancy=0.500 or more" in (caught.value.hint or "")


def test_largest_free_order_cuts_what_lies_above() -> None:
    rows = blocks_of(machine_options(HOST, {"largest_free_order": "3"}))
    assert [sum(row[4:]) for row in rows] == [0, 0, 0]
    assert free_of(rows) == free_of(ROWS)
    assert rows[1][:3] == ROWS[1][:3]
    fragmented = blocks_of(machine_options(HOST, {"largest_free_order": "3", "fragmentation": "0.5"}))[1]
    half = pages_in(ROWS[1]) // 2
    assert (fragmented[0] - half in (0, 1), fragmented[3], sum(fragmented[4:])) == (True, half // 8, 0)


def test_a_cma_area_leaves_the_rest_as_full_as_it_was() -> None:
    config = machine_options(HOST, {"cma": "16MiB"})
    assert free_of(blocks_of(config)) == pytest.approx(free_of(ROWS) * (ROOM - 4096) / ROOM, abs=3)
    assert not config.starts_as_recorded


def test_without_a_snapshot_half_is_in_use_in_largest_blocks() -> None:
    bare = MachineConfig((ZoneConfig("Normal", 0, ROOM),), cpus=1)
    assert blocks_of(bare)[1] == [*[0] * 10, 32]
    config = machine_options(bare, {"fragmentation": "0.5"})
    assert blocks_of(config)[1] == [1 << 14, *[0] * 9, 16]
    assert config.describe()["free_start"] == "half in use; fragmentation"


OPTIONS = {
    "occupancy": "0.7", "fragmentation": "0.3", "largest_free_order": "6", "cma": "4MiB", "memory": "256MiB",
    "nodes": "1", "min_free_kbytes": "4096", "pcp.batch": "31", "pcp.high": "200",
}  # fmt: skip


@pytest.mark.parametrize("names", [*itertools.combinations(OPTIONS, 2), *itertools.combinations(OPTIONS, 3)])
def test_the_order_of_options_does_not_matter(names: tuple[str, ...]) -> None:
    found = [machine_options(HOST, {n: OPTIONS[n] for n in order}) for order in itertools.permutations(names)]
    assert all(config == found[0] for config in found)


counts = st.lists(st.integers(0, 9), min_size=ORDERS, max_size=ORDERS)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(counts, counts, counts),
    st.none() | st.floats(0, 0.99),
    st.none() | st.floats(0, 0.99),
    st.none() | st.integers(0, 10),
    st.integers(0, 3),
)
def test_what_is_counted_is_placed(
    rows: tuple[list[int], ...], occupancy: float | None, fragmentation: float | None, largest: int | None, seed: int
) -> None:
    host = recorded([*map(list, rows)], seed=seed)
    asked = {"occupancy": occupancy, "fragmentation": fragmentation, "largest_free_order": largest}
    options = {name: str(value) for name, value in asked.items() if value is not None}
    try:
        config = machine_options(host, options)
    except ParameterError:
        if occupancy is None or (fragmentation is None and largest is None):
            raise
        return
    wanted = blocks_of(config)
    free = free_of(recorded_blocks(host.zones[0]) or []) if occupancy is None else int(ROOM * (1 - occupancy))
    given_up = free - free_of(wanted)
    assert given_up >= 0
    assert (given_up > 0) == any("free pages are in use" in note for note in config.notes)
    for row in wanted:
        assert largest is None or not any(row[largest + 1 :])
    machine = build_machine(config)
    check_machine(machine)
    lists = zone_lists(machine, 0)
    placed = [[len(lists.get((order, mt), ())) for order in range(ORDERS)] for mt in range(3)]
    assert all(p <= w for got, want in zip(placed, wanted, strict=True) for p, w in zip(got, want, strict=True))
    assert free_of(wanted) - free_of(placed) == machine.w[CFG_UNPLACED]
    assert machine.w[CFG_UNPLACED] <= 3 << 10  # each type begins a region of the largest order of its own
