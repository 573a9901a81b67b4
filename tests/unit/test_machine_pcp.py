"""Sizes of drains and what gives per-CPU pages back, by arithmetic from the rules (page-allocator.md 3.6 and 3.8)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.reference.machine_driver import ALLOC, DRAIN_ALL, FREE, RECLAIM, TICK, Compiled, counters_of, word
from tracereplay.compiled import kernel
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.vmstat import next_tick_after

TUNED = [name for name, g in GENERATIONS.items() if g.pcp_rule == 2]
FIXED = [name for name, g in GENERATIONS.items() if g.pcp_rule < 2]
MOVABLE = 0x100CCA
SECOND = 1_000_000_000


@kernel
def next_tick(now: int, interval: int, cpu: int) -> int:
    """``next_tick_after`` for Python callers."""
    return next_tick_after(now, interval, cpu)


def machine(generation: str, **more: object) -> Compiled:
    """2 GiB of one zone, all free, on one CPU: batch 63."""
    zone = ZoneConfig("Normal", 0, 1 << 19)
    config = MachineConfig(zones=(zone,), cpus=1, generation=generation, occupancy=0.0, llc_pages_per_cpu=0)
    return Compiled(build_machine(replace(config, **more)))  # type: ignore[arg-type]


def with_pages(runner: Compiled, pages: int, p: int = 0) -> Compiled:
    """The machine with just so many order-0 pages on list set ``p`` and nothing learnt of the load."""
    runner.run(np.array([(ALLOC, 0, 0, MOVABLE, 0, 0)] * pages, np.int64))
    runner.run(np.array([(DRAIN_ALL, 0, 0, 0, 0, 0)], np.int64))
    set_words(runner, high=1 << 20, high_min=1 << 20, high_max=1 << 20)
    runner.run(np.array([(FREE, 0, 0, 0, -1, 0)] * pages, np.int64))
    set_words(runner, free_count=0, free_factor=0, alloc_factor=0, longest=0)
    runner.machine.c[:] = 0
    assert held(runner, p) == pages
    return runner


def set_words(runner: Compiled, p: int = 0, **words: int) -> None:
    for name, value in words.items():
        runner.machine.w[p * at.P_WORDS + getattr(at, f"P_{name.upper()}")] = value


def held(runner: Compiled, p: int = 0) -> int:
    return word(runner.machine, p, at.P_WORDS, at.P_COUNT)


def high(runner: Compiled) -> int:
    return word(runner.machine, 0, at.P_WORDS, at.P_HIGH)


def one(runner: Compiled, *row: int) -> int:
    return runner.run(np.array([row], np.int64))[0]


def tick(runner: Compiled, cpu: int = 0) -> int:
    """Pages that one run of the vmstat worker gives back."""
    return one(runner, TICK, cpu, 0, 0, 0, 0)


# ---------------------------------------------------------------- the vmstat worker
@pytest.mark.parametrize("generation", TUNED)
def test_high_decays_by_an_eighth_and_what_exceeds_it_goes(generation: str) -> None:
    runner = with_pages(machine(generation), 1985)
    set_words(runner, high=1600, high_min=1100, high_max=9000)
    assert [(tick(runner), high(runner)) for _ in range(5)] == [
        (585, 1400),
        (175, 1225),
        (125, 1100),  # 1225 - 153 is below high_min
        (0, 1100),
        (0, 1100),
    ]


@pytest.mark.parametrize("generation", TUNED)
def test_high_falls_no_further_than_one_large_drain_reaches(generation: str) -> None:
    runner = with_pages(machine(generation), 5000)
    set_words(runner, high=2500, high_min=100, high_max=9000)
    assert (tick(runner), high(runner)) == (2016, 5000 - (63 << 5))


@pytest.mark.parametrize(("generation", "holds"), [("6.7", 1), ("6.12", 1), ("6.18", 10), ("6.19", 10)])
def test_decay_lets_go_of_the_locks_every_batch_since_6_18(generation: str, holds: int) -> None:
    runner = with_pages(machine(generation), 1985)
    set_words(runner, high=1600, high_min=1100, high_max=9000)
    assert tick(runner) == 585
    found = counters_of(runner.machine.c)
    assert (found["pcp_drains"], found["pcp_drain_pages"]) == (1, 585)
    assert (found["pcp_lock_acquisitions"], found["zone_lock_acquisitions"]) == (holds, holds)
    assert word(runner.machine, 0, at.P_WORDS, at.P_LONGEST) == (585 if holds == 1 else 63)


@pytest.mark.parametrize("generation", FIXED)
def test_nothing_decays_where_high_is_fixed(generation: str) -> None:
    runner = with_pages(machine(generation), 300)
    assert [tick(runner) for _ in range(5)] == [0] * 5
    assert counters_of(runner.machine.c) == {}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_lists_of_another_node_are_drained_after_three_idle_ticks(generation: str) -> None:
    zones = (ZoneConfig("Normal", 0, 1 << 17, 0), ZoneConfig("Normal", 1 << 17, 1 << 18, 1))
    config = MachineConfig(zones=zones, cpus=2, nodes=2, generation=generation, occupancy=0.0, pcp_batch=15)
    runner = Compiled(build_machine(config))
    runner.run(np.array([(ALLOC, 1, 0, MOVABLE, 0, 0)] * 40 + [(FREE, 0, 0, 0, -1, 0)] * 40, np.int64))
    remote, local = 1 * 2 + 0, 0
    assert (held(runner, remote), held(runner, local)) == (40, 0)
    assert [tick(runner) for _ in range(10)] == [0, 0, 15, 0, 0, 15, 0, 0, 10, 0]
    runner.run(np.array([(ALLOC, 1, 0, MOVABLE, 0, 0)] * 40 + [(FREE, 0, 0, 0, -1, 0)] * 20, np.int64))
    assert [tick(runner), tick(runner)] == [0, 0]
    one(runner, FREE, 0, 0, 0, -1, 0)  # the list is used: the count starts anew
    assert [tick(runner) for _ in range(4)] == [0, 0, 15, 0]


@pytest.mark.parametrize(
    ("now", "interval", "cpu", "due"),
    [
        (0.1, 1, 0, 1.0),
        (1.0, 1, 0, 2.0),
        (1.2, 1, 0, 2.0),  # less than a quarter of a second late: the next whole second
        (1.3, 1, 0, 3.0),
        (1.0, 3, 0, 4.0),
        (1.0, 1, 1, 1.988),  # 3 jiffies before CPU 0
        (1.988, 1, 1, 2.988),
        (5.0, 1, 10, 5.88),
        (1.0, 0.1, 0, 1.1),  # whole seconds would be no time at all
        (0.0, 0.5, 0, 1.0),
    ],
)
def test_the_worker_runs_near_whole_seconds(now: float, interval: float, cpu: int, due: float) -> None:
    assert next_tick(round(now * SECOND), round(interval * SECOND), cpu) == round(due * SECOND)


# ---------------------------------------------------------------- drains after frees
def drains(runner: Compiled, frees: int) -> dict[int, int]:
    """Number of the free that drained, from 1, and how many pages went."""
    found = {}
    for i in range(1, frees + 1):
        before = counters_of(runner.machine.c).get("pcp_drain_pages", 0)
        one(runner, FREE, 0, 0, 0, -1, 0)
        if (after := counters_of(runner.machine.c).get("pcp_drain_pages", 0)) > before:
            found[i] = after - before
    return found


def ready_to_free(generation: str, n: int, order: int = 0, **words: int) -> Compiled:
    """A machine with ``n`` blocks of an order live, empty lists, and the words given."""
    runner = machine(generation)
    runner.run(np.array([(ALLOC, 0, order, MOVABLE, 0, 0)] * n + [(DRAIN_ALL, 0, 0, 0, 0, 0)], np.int64))
    runner.machine.c[:] = 0
    set_words(runner, free_count=0, free_factor=0, **words)
    return runner


@pytest.mark.parametrize("generation", ["5.14", "6.1"])
def test_reclaim_keeps_four_batches(generation: str) -> None:
    runner = ready_to_free(generation, 400, high=1000)
    one(runner, RECLAIM, 0, 0, 0, 0, 1)
    # 63, then 126 as free_factor has grown, then 189 = 252 - 63 at most
    assert drains(runner, 252) == {252: 63}
    assert drains(runner, 63) == {63: 126}
    one(runner, RECLAIM, 0, 0, 0, 0, 0)
    assert drains(runner, 80) == {}


@pytest.mark.parametrize("generation", TUNED)
def test_reclaim_lowers_the_tuned_high_too(generation: str) -> None:
    runner = ready_to_free(generation, 700, high=1000, high_min=100, high_max=9000)
    one(runner, RECLAIM, 0, 0, 0, 0, 1)
    # each free takes free_count off high, but a batch at least: 1000, 937, ... until it is less than 4 batches
    assert drains(runner, 10) == {}
    assert high(runner) == 1000 - 10 * 63
    assert drains(runner, 3) == {}
    assert high(runner) == 1000 - 13 * 63
    # 181 - 63 = 118, then high_min = 100; of 100 pages a batch stays, though that leaves less than one to drain
    assert drains(runner, 87) == {87: 37}
    assert high(runner) == 100


@pytest.mark.parametrize("generation", FIXED)
def test_5_10_does_not_look_at_reclaim(generation: str) -> None:
    runner = ready_to_free(generation, 320, high=1000)
    one(runner, RECLAIM, 0, 0, 0, 0, 1)
    assert bool(drains(runner, 300)) == (generation != "5.10")


@pytest.mark.parametrize(("generation", "at_free"), [("6.7", 33), ("6.12", 33), ("6.18", 283), ("6.19", 283)])
def test_a_burst_of_higher_orders_drains_all(generation: str, at_free: int) -> None:
    """free_count reaches a batch (63) at the 33rd block of two pages; since 6.18 half of high_min more is asked."""
    runner = ready_to_free(generation, 300, 1, high=1000, high_min=1000, high_max=9000)
    assert drains(runner, at_free) == {at_free: 2 * at_free}


def test_6_1_drains_all_after_a_drain() -> None:
    runner = ready_to_free("6.1", 300, 1, high=200)
    assert drains(runner, 102) == {100: 63 + 1, 101: 138, 102: 2}
    one(runner, ALLOC, 0, 0, MOVABLE, 0, 0)  # halves free_factor: 0 again
    assert drains(runner, 10) == {}


def test_5_14_has_no_such_rule() -> None:
    runner = ready_to_free("5.14", 300, 1, high=200)
    assert drains(runner, 102) == {100: 64}


@pytest.mark.parametrize("generation", [g for g in GENERATIONS if g != "5.10"])
def test_lists_switched_off_give_each_page_back(generation: str) -> None:
    runner = ready_to_free(generation, 5, high=0, high_min=0, high_max=0)
    assert drains(runner, 5) == dict.fromkeys(range(1, 6), 1)


# ---------------------------------------------------------------- drain_all_pages
@pytest.mark.parametrize("generation", GENERATIONS)
def test_drain_all_empties_every_list(generation: str) -> None:
    zones = (ZoneConfig("DMA32", 0, 1 << 15), ZoneConfig("Normal", 1 << 15, 1 << 16))
    runner = Compiled(build_machine(MachineConfig(zones=zones, cpus=3, generation=generation, occupancy=0.0)))
    rows = [(ALLOC, cpu, order, gfp, 0, 0) for cpu in (0, 2) for order in (0, 1, 9) for gfp in (MOVABLE, 0xCC4)]
    runner.run(np.array(rows, np.int64))
    pages = sum(held(runner, p) for p in range(6))
    assert pages > 0
    assert one(runner, DRAIN_ALL, 0, 0, 0, 0, 0) == pages
    assert [held(runner, p) for p in range(6)] == [0] * 6


@pytest.mark.parametrize(
    ("generation", "holds"), [("5.10", 1), ("5.14", 1), ("6.1", 1), ("6.7", 1), ("6.12", 3), ("6.18", 3), ("6.19", 3)]
)
def test_drain_all_lets_go_of_the_locks_since_6_12(generation: str, holds: int) -> None:
    runner = with_pages(machine(generation), 2 * 2016 + 1)
    one(runner, DRAIN_ALL, 0, 0, 0, 0, 0)
    found = counters_of(runner.machine.c)
    assert (found["pcp_drains"], found["pcp_drain_pages"]) == (1, 4033)
    assert (found["pcp_lock_acquisitions"], found["zone_lock_acquisitions"]) == (holds, holds)
