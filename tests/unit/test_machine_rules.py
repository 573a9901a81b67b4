"""What was seen on running kernels, or follows by arithmetic, and needs neither machine to be believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.reference.machine_driver import ALLOC, BULK, FREE, HELD_FREE, Compiled, counters_of, word, zone_lists
from tracereplay.compiled import kernel
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.counters import slot
from tracereplay.machine.page_free import free_pages

TUNED = [g for g in GENERATIONS if g not in ("5.10", "5.14", "6.1")]


@kernel
def free_anyway(m: at.Machine, cpu: int, pfn: int, order: int) -> None:
    """Free a block whatever the machine holds."""
    free_pages(m, cpu, pfn, order)


def machine(generation: str = "6.12", **more: object) -> Compiled:
    """2 GiB of one zone, all free, on one CPU: batch 63."""
    zone = ZoneConfig("Normal", 0, 1 << 19)
    config = MachineConfig(zones=(zone,), cpus=1, generation=generation, occupancy=0.0)
    return Compiled(build_machine(replace(config, **more)))  # type: ignore[arg-type]


def refills(runner: Compiled, n: int, order: int = 0) -> list[int]:
    """Sizes of the refills that ``n`` allocations cause, in blocks."""
    place = slot("pcp_refill_pages")
    found = []
    for _ in range(n):
        before = runner.machine.c[place]
        runner.run(np.array([(ALLOC, 0, order, 0xCC0, 0, 0)], np.int64))
        if runner.machine.c[place] > before:
            found.append(int(runner.machine.c[place] - before) >> order)
    return found


@pytest.mark.parametrize("generation", TUNED)
def test_refills_of_a_burst_double(generation: str) -> None:
    """63, 126, 252, ... 2016, 2016: as page faults on 6.18 showed over 130,000 pages."""
    assert refills(machine(generation), 8000) == [63, 126, 252, 504, 1008, 2016, 2016, 2016]


@pytest.mark.parametrize("generation", ["5.10", "5.14", "6.1"])
def test_refills_of_older_kernels_are_a_batch(generation: str) -> None:
    assert refills(machine(generation), 300) == [63] * 5


@pytest.mark.parametrize("generation", [g for g in GENERATIONS if g != "5.10"])
@pytest.mark.parametrize(("order", "blocks"), [(1, 31), (2, 15), (3, 7), (9, 2)])
def test_refills_of_higher_orders(generation: str, order: int, blocks: int) -> None:
    assert refills(machine(generation), 2 * blocks, order) == [blocks, blocks]


def test_a_large_refill_comes_in_ascending_order() -> None:
    runner = machine()
    frames = runner.run(np.array([(ALLOC, 0, 0, 0xCC0, 0, 0)] * 63, np.int64))
    assert frames == list(range(frames[0], frames[0] + 63))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_was_freed_last_is_given_first(generation: str) -> None:
    runner = machine(generation)
    frames = runner.run(np.array([(ALLOC, 0, 0, 0x100CCA, 0, 0)] * 5, np.int64))
    runner.run(np.array([(FREE, 0, 0, 0, 0, 0), (FREE, 0, 0, 0, 2, 0)], np.int64))
    again = runner.run(np.array([(ALLOC, 0, 0, 0x100CCA, 0, 0)] * 2, np.int64))
    assert again == [frames[2], frames[0]]


def test_a_dm_crypt_buffer_meets_four_refills_of_a_cold_list() -> None:
    """256 / 63 = 4.06."""
    assert len(refills(machine("6.1"), 256)) == 5
    assert len(refills(machine("6.1"), 252)) == 4


@pytest.mark.parametrize(("generation", "drained"), [("5.10", [63] * 5), ("6.1", [63, 126, 252, 252])])
def test_drains_of_a_burst_of_frees(generation: str, drained: list[int]) -> None:
    """5.10 gives back a batch whenever high is reached; later kernels twice as much each time, down to a batch."""
    runner = machine(generation, pcp_high=315 if generation == "6.1" else None)
    pages = 315 + sum(drained) if generation == "6.1" else 378 + sum(drained)
    runner.run(np.array([(ALLOC, 0, 0, 0x100CCA, 0, 0)] * pages, np.int64))
    place, found = slot("pcp_drain_pages"), []
    for _ in range(pages):
        before = runner.machine.c[place]
        runner.run(np.array([(FREE, 0, 0, 0, -1, 0)], np.int64))
        if runner.machine.c[place] > before:
            found.append(int(runner.machine.c[place] - before))
    assert found[: len(drained)] == drained


def test_thp_on_the_lists_and_orders_between_on_the_buddy() -> None:
    runner = machine()
    runner.run(np.array([(ALLOC, 0, order, 0xCC0, 0, 0) for order in (9, 4, 8, 10)], np.int64))
    assert counters_of(runner.machine.c)["pcp_lock_acquisitions"] == 1
    assert counters_of(runner.machine.c)["zone_lock_acquisitions"] == 4


def test_pages_are_given_back_to_the_lists_of_the_cpu_that_frees() -> None:
    zone = ZoneConfig("Normal", 0, 1 << 15)
    runner = Compiled(build_machine(MachineConfig(zones=(zone,), cpus=2, occupancy=0.0)))
    runner.run(np.array([(ALLOC, 0, 0, 0x100CCA, 0, 0), (FREE, 1, 0, 0, 0, 0)], np.int64))
    assert word(runner.machine, 1, at.P_WORDS, at.P_COUNT) == 1
    assert counters_of(runner.machine.c)["remote_frees"] == 1


def test_split_keeps_the_lower_half() -> None:
    runner = machine("5.10", pcp_batch=1)
    (frame,) = runner.run(np.array([(ALLOC, 0, 4, 0x100CCA, 0, 0)], np.int64))
    lists = zone_lists(runner.machine, 0)
    halves = [lists[order, 1][0] - frame for order in range(4, 10)]
    assert halves == [16, 32, 64, 128, 256, 512]
    assert counters_of(runner.machine.c)["splits"] == 6


@pytest.mark.parametrize("generation", [g for g in GENERATIONS if g not in ("5.10", "5.14", "6.1", "6.7")])
def test_free_blocks_lie_on_the_lists_of_their_pageblock(generation: str) -> None:
    runner = machine(generation)
    ops = [(ALLOC, 0, order, gfp, 0, 0) for order in (0, 1, 4, 0) for gfp in (0xCC0, 0xC50, 0x100CCA)] * 40
    runner.run(np.array(ops, np.int64))
    runner.run(np.array([(FREE, 0, 0, 0, 7 * i, 0) for i in range(300)], np.int64))
    types = runner.machine.pb.reshape(-1, at.B_WORDS)[:, at.B_TYPE]
    assert len(set(types.tolist())) == 3
    for (order, mt), frames in zone_lists(runner.machine, 0).items():
        assert all(types[pfn >> 9] == mt for pfn in frames), order


@pytest.mark.parametrize(
    ("pfn", "order", "code"), [(5, 0, at.ERROR_BAD_FREE), (1 << 25, 0, at.ERROR_OUTSIDE), (-1, 0, at.ERROR_OUTSIDE)]
)
def test_a_wrong_free_is_reported_and_changes_nothing(pfn: int, order: int, code: int) -> None:
    runner = machine()
    before = runner.machine.pg.copy()
    free_anyway(runner.machine, 0, pfn, order)
    assert (runner.machine.w[at.CFG_ERROR], runner.machine.w[at.CFG_ERROR_FRAME]) == (code, pfn)
    assert np.array_equal(runner.machine.pg, before)
    assert counters_of(runner.machine.c) == {}


def test_held_pages_come_back_where_the_trace_says_and_else_nearby() -> None:
    zone = ZoneConfig("Normal", 0, 4096, watermarks=Watermarks(), free_blocks=(0,) * 10 + (1,))
    runner = Compiled(build_machine(MachineConfig(zones=(zone,), cpus=1)))
    (free,) = zone_lists(runner.machine, 0)[10, 1]
    held = (free + 1024) % 4096
    results = runner.run(np.array([(HELD_FREE, 0, 0, 0, pfn, 0) for pfn in (held, held, free)], np.int64))
    assert results[0] == held
    assert len({*results}) == 3
    assert all(not free <= pfn < free + 1024 for pfn in results)
    left = runner.run(np.array([(HELD_FREE, 0, 10, 0, 0, 0)] * 5, np.int64))
    assert [pfn for pfn in left if pfn >= 0] == sorted({0, 1024, 2048, 3072} - {free, *(p & -1024 for p in results)})


def test_bulk_holds_one_lock_and_refills_once_a_batch() -> None:
    runner = machine("6.1")
    runner.run(np.array([(BULK, 0, 0, 0xCC0, 256, 0)], np.int64))
    found = counters_of(runner.machine.c)
    assert (found["pcp_lock_acquisitions"], found["pcp_refills"], found["zone_lock_acquisitions"]) == (1, 5, 5)


@pytest.mark.parametrize(("generation", "halved"), [("6.1", at.P_FREE_FACTOR), ("6.12", at.P_FREE_COUNT)])
def test_bulk_leaves_the_scaling_of_frees_alone(generation: str, halved: int) -> None:
    for what, expected in ((ALLOC, 2), (BULK, 4)):
        runner = machine(generation)
        runner.machine.w[halved] = 4
        runner.run(np.array([(what, 0, 0, 0xCC0, 2 if what == BULK else 0, 0)], np.int64))
        assert runner.machine.w[halved] == expected
