"""The mempool, its quota and the forms of a bulk call: facts of strategies.md 1.4, 3.2, 3.3, 4.6 and 5; a slow twin."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine_samples import GFPS, MACHINES, marks
from tests.reference.machine_driver import counters_of, word
from tests.reference.pool_driver import (
    ADD,
    AGAIN,
    ALLOC,
    ALLOWS,
    BULK,
    FORGET,
    FREE,
    FREE_BULK,
    NR_OPS,
    TAKE,
    TAKE_ALL,
    CompiledPool,
    PoolPair,
)
from tests.reference.slow_crypt import Quota
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, ZoneConfig, percpu_batch

NOWAIT, NOIO, KERNEL = 0x802, 0xC02, 0xCC0
"""dm-crypt's gfp in its first and second pass, and GFP_KERNEL."""


def pool(pages: int = 4, memory: int = 1 << 12, **more: int) -> CompiledPool:
    """One CPU, one page a refill, so that the lists hold nothing back, and no watermarks."""
    zone = ZoneConfig("Normal", 0, memory, watermarks=marks(0))
    config = MachineConfig(zones=(zone,), cpus=1, occupancy=0.0, pcp_batch=1, pcp_scale_max=0)
    return CompiledPool(build_machine(config, pool_pages=pages, **more))


def used_up(pages: int = 4) -> CompiledPool:
    """A pool whose allocator has nothing left."""
    runner = pool(pages, 1 << 10)
    runner.run((BULK, 0, NOWAIT, (1 << 10) - pages, at.LOW_ONLY))
    assert runner.run((BULK, 0, NOWAIT, 2)) == [0]
    return runner


def counts(runner: CompiledPool, *names: str) -> tuple[int, ...]:
    found = counters_of(runner.machine.c)
    return tuple(found.get(name, 0) for name in names)


# ---------------------------------------------------------------- the reserve
def test_the_callback_comes_first_and_takes_no_lock() -> None:
    runner = pool()
    before = runner.reserve
    frames = runner.run(*[(ALLOC, 0, NOIO)] * 100)
    assert -1 not in frames
    assert runner.reserve == before
    assert counts(runner, "mempool_calls", "mempool_takes", "mempool_lock_acquisitions") == (100, 0, 0)


def test_the_reserve_is_a_stack() -> None:
    runner = used_up(4)
    before = runner.reserve
    assert runner.run((ALLOC, 0, NOWAIT), (ALLOC, 0, NOWAIT)) == before[:1:-1]
    runner.run((FREE, 0, 0, 7))  # any page, not one that came from here
    assert runner.reserve[:2] == before[:2]
    assert len(runner.reserve) == 3
    top = runner.reserve[-1]
    assert runner.run((ALLOC, 0, NOWAIT)) == [top]


def test_only_frees_refill_it_and_they_do_so_first() -> None:
    runner = used_up(2)
    runner.run((TAKE,), (TAKE,))
    free = word(runner.machine, 0, at.Z_WORDS, at.Z_FREE)
    runner.machine.w[at.CFG_WOKEN] = 0
    runner.run((FREE,), (FREE,))
    assert len(runner.reserve) == 2
    assert runner.machine.w[at.CFG_WOKEN] == at.WOKEN_POOL
    assert counts(runner, "mempool_puts", "free_calls", "callbacks") == (2, 0, 2 + 0)  # the fill's callbacks
    runner.machine.w[at.CFG_WOKEN] = 0
    runner.run((FREE,))
    assert runner.machine.w[at.CFG_WOKEN] == 0
    assert counts(runner, "mempool_puts", "free_calls", "callbacks") == (2, 1, 3)
    assert word(runner.machine, 0, at.Z_WORDS, at.Z_FREE) + word(runner.machine, 0, at.P_WORDS, at.P_COUNT) > free


def test_sleepable_allocations_try_all_twice_and_sleepers_once() -> None:
    runner = used_up(0)
    assert runner.run((ALLOC, 0, NOWAIT)) == [-1]
    assert counts(runner, "callbacks", "mempool_lock_acquisitions", "mempool_waits") == (1, 1, 0)
    assert runner.run((ALLOC, 0, NOIO)) == [-1]
    assert counts(runner, "callbacks", "mempool_lock_acquisitions", "mempool_waits") == (3, 3, 1)
    assert runner.run((AGAIN, 0, NOIO)) == [-1]
    assert counts(runner, "callbacks", "mempool_lock_acquisitions", "mempool_waits") == (4, 4, 2)
    assert counts(runner, "mempool_calls") == (2,)


def test_all_or_none_under_one_lock() -> None:
    runner = used_up(4)
    before = runner.reserve
    assert runner.run((TAKE_ALL, 0, 0, 5)) == [0]
    assert runner.reserve == before
    assert runner.run((TAKE_ALL, 0, 0, 4)) == [1]
    assert runner.live[-4:] == before[::-1]
    assert counts(runner, "mempool_lock_acquisitions", "mempool_takes") == (2, 4)


def test_free_bulk_fills_the_reserve_from_the_front() -> None:
    runner = used_up(4)
    runner.run((TAKE,), (TAKE,), (TAKE,))
    newest = runner.live[-5:]
    locks, calls = counts(runner, "mempool_lock_acquisitions", "mempool_calls")
    runner.run((FREE_BULK, 0, 0, 5))
    assert runner.reserve[1:] == newest[:3]
    assert counts(runner, "mempool_lock_acquisitions", "mempool_calls", "mempool_puts") == (locks + 1, calls + 1, 3)
    assert counts(runner, "free_calls") == (2,)


# ---------------------------------------------------------------- the quota
def test_quota_reached_exactly() -> None:
    runner = pool(4, quota=10)
    assert runner.machine.w[at.POOL_ALLOCATED] == 4, "the fill counts"
    assert -1 not in runner.run(*[(ALLOC, 0, NOWAIT)] * 6)
    assert (counts(runner, "quota_refusals"), len(runner.reserve)) == ((0,), 4)
    assert -1 not in runner.run(*[(ALLOC, 0, NOWAIT)] * 4)
    assert (counts(runner, "quota_refusals"), runner.reserve) == ((4,), [])
    assert runner.run((ALLOC, 0, NOWAIT)) == [-1]
    assert runner.machine.w[at.POOL_ALLOCATED] == 10


def test_without_a_quota_nothing_is_counted() -> None:
    runner = pool(4)
    runner.run(*[(ALLOC, 0, NOWAIT)] * 6, *[(FREE,)] * 6, (ADD, 0, 0, 100))
    assert runner.run((ALLOWS, 0, 0, 1 << 40)) == [1]
    assert counts(runner, "percpu_counter_ops") == (0,)
    assert runner.machine.w[at.POOL_ALLOCATED] == 0


def test_a_cpu_keeps_its_part_to_itself_up_to_the_batch() -> None:
    runner = pool(0, quota=100, counter_batch=32)
    runner.run((ADD, 0, 0, 31), (ADD, 1, 0, 31), (ADD, 2, 0, -31))
    assert runner.machine.w[at.POOL_ALLOCATED] == 0
    assert runner.run((ALLOWS, 0, 0, 100)) == [1]
    runner.run((ADD, 1, 0, 1), (ADD, 2, 0, -1))
    assert runner.machine.w[at.POOL_ALLOCATED] == 0  # +32 and -32
    runner.run((ADD, 0, 0, 70))
    assert runner.machine.w[at.POOL_ALLOCATED] == 101
    assert runner.run((ALLOWS, 0, 0, 0)) == [0]
    runner.run((ADD, 0, 0, -200))
    assert runner.run((ALLOWS, 0, 0, 100), (ALLOWS, 0, 0, 101)) == [1, 0], "a reader sees no negative sum"
    runner.run((ADD, 0, 0, 5), (FORGET,))
    assert not runner.machine.w[at.PC]
    assert not runner.machine.w[at.POOL_ALLOCATED]


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(-300, 300)), max_size=60),
    st.sampled_from([0, 1, 32, 160]),
)
def test_the_counters_error_is_bounded(additions: list[tuple[int, int]], batch: int) -> None:
    """By (batch - 1) x CPUs, and what each CPU has not folded in stays below the batch."""
    runner = pool(0, quota=1 << 40, counter_batch=batch)
    slow = Quota(1 << 40, batch)
    for cpu, pages in additions:
        slow.add(cpu, pages)
        runner.run((ADD, cpu, 0, pages))
        seen = int(runner.machine.w[at.POOL_ALLOCATED])
        hidden = runner.machine.w[at.PC : at.PC + 8]
        assert seen == slow.visible
        assert seen + hidden.sum() == slow.exact
        assert abs(hidden).max() <= max(batch - 1, 0)
        assert abs(slow.exact - seen) <= max(batch - 1, 0) * 8
    assert slow.exact == sum(pages for _, pages in additions)


@pytest.mark.parametrize(
    ("cpus", "generation", "given", "batch"),
    [(1, "6.1", None, 32), (16, "6.1", None, 32), (80, "6.12", None, 160), (80, "5.10", None, 0), (80, "6.1", 7, 7)],
)
def test_percpu_batch(cpus: int, generation: str, given: int | None, batch: int) -> None:
    zone = ZoneConfig("Normal", 0, 1 << 12)
    assert percpu_batch(MachineConfig((zone,), cpus=cpus, generation=generation, percpu_batch=given)) == batch


# ---------------------------------------------------------------- forms of a bulk call
@pytest.mark.parametrize("pages", [2, 64, 200])
def test_two_passes_prepare_outside_the_lock(pages: int) -> None:
    """The longest hold has one unit a page for unlinking, one for preparing, one for what refills move."""
    holds, prepared = [], []
    for how in (0, at.TWO_PASS):
        runner = pool(0)
        assert runner.run((BULK, 0, KERNEL, pages, how)) == [pages]
        holds.append(word(runner.machine, 0, at.P_WORDS, at.P_LONGEST))
        prepared.append(counts(runner, "pages_prepared_unlocked", "pages_allocated", "pcp_lock_acquisitions"))
    assert holds == [3 * pages, 2 * pages]
    assert prepared == [(0, pages, 1), (pages, pages, 1)]


@pytest.mark.parametrize("pages", [1, 2, 64])
def test_forms_hand_every_page_over(pages: int) -> None:
    for how, expected in ((0, (0, 0)), (at.AS_LIST, (pages, 0)), (at.AS_CALLBACK, (0, pages))):
        runner = pool(0)
        assert runner.run((BULK, 0, KERNEL, pages, how)) == [pages]
        assert counts(runner, "pages_listed", "callbacks") == expected


def test_marks_and_nodes_and_the_single_page_are_options() -> None:
    """A short node and a roomy one: 64 pages with LOW at the free pages less 20."""
    zones = (
        ZoneConfig("Normal", 0, 1024, 0, watermarks=marks(1004)),
        ZoneConfig("Normal", 1024, 4096, 1, watermarks=marks(100)),
    )
    config = MachineConfig(zones=zones, cpus=2, nodes=2, occupancy=0.0)

    def came(how: int) -> tuple[int, set[bool]]:
        runner = CompiledPool(build_machine(config))
        (n,) = runner.run((BULK, 0, KERNEL, 64, how))
        return n, {frame >= 1024 for frame in runner.live}

    assert came(0) == (1, {False})
    assert came(at.NO_SINGLE) == (0, set())
    assert came(at.LOW_ONLY) == (64, {False})
    assert came(at.ANY_NODE) == (64, {True})


# ---------------------------------------------------------------- the slow twin
def random_rows(rng: random.Random, n: int, cpus: int, has_bulk: bool) -> list[tuple[int, ...]]:
    rows = []
    while len(rows) < n:
        freeing = rng.choice((0.1, 0.5, 0.9))
        for _ in range(rng.randint(5, 60)):
            cpu = rng.randrange(cpus)
            gfp = rng.choice((NOWAIT, NOWAIT, NOIO, rng.choice(GFPS)))
            if rng.random() < freeing:
                what = rng.choice((FREE, FREE, FREE, FREE_BULK))
            else:
                what = rng.choice((ALLOC, ALLOC, ALLOC, AGAIN, TAKE, TAKE_ALL, ADD, ALLOWS, BULK))
            if rng.random() < 0.003:
                what = FORGET
            if what == BULK and not has_bulk:
                what = ALLOC
            few = rng.choice((1, 2, 5, 40))
            n_of = rng.randrange(1 << 20) if what == FREE else rng.randint(-few, few) if what == ADD else few
            rows.append((what, cpu, gfp, n_of, rng.choice((0, 0, rng.randrange(64) & ~(rng.randrange(2) + 1)))))
    return rows[:n]


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("pages", "quota", "batch"), [(16, 300, 0), (5, 60, 7), (0, None, 32), (40, 4000, 32)])
def test_random_operations(name: str, pages: int, quota: int | None, batch: int) -> None:
    rng = random.Random(f"{name} {pages}")
    config = replace(MACHINES[name], generation=rng.choice([*GENERATIONS]))
    pair = PoolPair(config, pool_pages=pages, quota=quota, counter_batch=batch)
    rows = random_rows(rng, 600, config.cpus, GENERATIONS[config.generation].has_bulk)
    for i in range(0, len(rows), 50):
        assert pair.run(*rows[i : i + 50]) == []


def test_random_operations_are_of_every_kind() -> None:
    assert {row[0] for row in random_rows(random.Random(1), 5000, 2, True)} == set(range(NR_OPS))
