"""What the machine does when memory is short, by arithmetic: boost, reserves, kswapd, reclaim, compaction, CMA."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.reference.machine_driver import ALLOC, FREE, TIME, Compiled, word, zone_lists
from tracereplay.errors import ParameterError
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine, notes_of
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig, default_machine
from tracereplay.machine.counters import slot
from tracereplay.machine.options import machine_options

KERNEL, MOVABLE, MAYFAIL = 0xCC0, 0x100CCA, 0x4CC0
ATOMIC = {g: 0xA20 if g in ("5.10", "5.14", "6.1") else 0x820 for g in GENERATIONS}
MEMALLOC, NOMEMALLOC = 0x20000, 0x80000
MILLISECOND = 1_000_000


def machine(*zones: ZoneConfig, **more: object) -> Compiled:
    """One CPU with lists of one page, so that free pages are where they are counted."""
    config = MachineConfig(zones=zones, cpus=1, pcp_batch=1, pcp_high=2, occupancy=0.0)
    return Compiled(build_machine(replace(config, **more)))  # type: ignore[arg-type]


def zone(pages: int, low: int, *, gap: int = 10, **more: object) -> ZoneConfig:
    marks = Watermarks((0, 0, 0, 0), low - gap, low, low + gap)
    return ZoneConfig("Normal", 0, pages, watermarks=marks, **more)  # type: ignore[arg-type]


def allocate(runner: Compiled, n: int, order: int, gfp: int) -> list[int]:
    return runner.run(np.array([(ALLOC, 0, order, gfp, 0, 0)] * n, np.int64))


def free_all(runner: Compiled) -> None:
    runner.run(np.array([(FREE, 0, 0, 0, 0, 0)] * len(runner.live), np.int64))


def wait(runner: Compiled, ns: int) -> None:
    runner.run(np.array([(TIME, 0, 0, 0, ns, 0)], np.int64))


def counter(runner: Compiled, name: str) -> int:
    return int(runner.machine.c[slot(name)])


def z(runner: Compiled, name: int) -> int:
    return word(runner.machine, 0, at.Z_WORDS, name)


# ---------------------------------------------------------------- boost (page-allocator.md 4.7)
SMALL_MOVABLE = (0, 0, 500) + (0,) * 8


@pytest.mark.parametrize(("high", "factor", "boosts"), [(700, 15000, [512, 1024, 1050]), (10, 15000, [512, 512, 512])])
def test_each_fallback_boosts_by_a_pageblock_up_to_a_share_of_high(high: int, factor: int, boosts: list[int]) -> None:
    """Movable requests of order 2 may not claim pageblocks for four pages: each takes one unmovable block."""
    marks = Watermarks((0, 0, 0, 0), 0, 0, high)
    types = (SMALL_MOVABLE, (0,) * 11, (0,) * 11)
    foreign = ZoneConfig("Normal", 0, 1 << 14, watermarks=marks, free_blocks=SMALL_MOVABLE, free_by_type=types)
    runner = machine(foreign, generation="6.12", watermark_boost_factor=factor)
    found = []
    for _ in boosts:
        allocate(runner, 1, 2, MOVABLE)
        found.append(z(runner, at.Z_BOOST))
    assert found == boosts
    assert counter(runner, "watermark_boosts") == 3


@pytest.mark.parametrize(("pages", "factor"), [(1 << 14, 0), (2047, 15000)])
def test_no_boost_where_it_is_off_or_the_zone_is_small(pages: int, factor: int) -> None:
    small = ZoneConfig("Normal", 0, pages, watermarks=Watermarks(high=700), free_blocks=(0, 0, 20) + (0,) * 8)
    runner = machine(small, watermark_boost_factor=factor)
    assert allocate(runner, 1, 2, KERNEL) != [-1]
    assert (z(runner, at.Z_BOOST), counter(runner, "kswapd_wakes")) == (0, 0)


@pytest.mark.parametrize("wakes", [True, False])
def test_kswapd_takes_the_boost_off(wakes: bool) -> None:
    """512 pages at 256 a ms; without ``__GFP_KSWAPD_RECLAIM`` nobody wakes it."""
    boosted = ZoneConfig("Normal", 0, 1 << 14, watermarks=Watermarks(), free_blocks=SMALL_MOVABLE)
    runner = machine(replace(boosted, watermarks=Watermarks((0, 0, 0, 0), 0, 1, 2)), generation="6.12")
    allocate(runner, 1, 2, KERNEL if wakes else KERNEL & ~0x800)
    assert (z(runner, at.Z_BOOST), counter(runner, "kswapd_wakes")) == (512, wakes)
    assert z(runner, at.Z_RECLAIM_ACTIVE) == wakes
    wait(runner, MILLISECOND)
    assert z(runner, at.Z_BOOST) == 512
    wait(runner, MILLISECOND)
    assert z(runner, at.Z_BOOST) == (0 if wakes else 512)
    assert z(runner, at.Z_RECLAIM_ACTIVE) == 0


# ---------------------------------------------------------------- reserves (4.5, 4.6)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_one_percent_of_a_zone_is_reserved_for_high_order_atomic_requests(generation: str) -> None:
    """2 GiB: 5242 pages. Up to 6.2 while less than that and a pageblock, since then while less than it rounded up."""
    runner = machine(zone(1 << 19, 600_000, gap=590_000), generation=generation)
    found = allocate(runner, 2000, 4, ATOMIC[generation])
    assert -1 not in found
    blocks = 12 if generation in ("5.10", "5.14", "6.1") else 11
    assert counter(runner, "highatomic_reserved") == blocks
    assert z(runner, at.Z_HIGHATOMIC) == 512 * blocks


@pytest.mark.parametrize("generation", [g for g in GENERATIONS if g not in ("5.10", "5.14", "6.1")])
def test_a_zone_with_less_than_a_pageblock_of_one_percent_reserves_nothing(generation: str) -> None:
    runner = machine(zone(51_199 & ~1023, 60_000, gap=59_000), generation=generation)
    assert -1 not in allocate(runner, 10, 4, ATOMIC[generation])
    assert counter(runner, "highatomic_reserved") == 0


@pytest.mark.parametrize(("gfp", "reserves"), [(0x820, True), (0x800, False)])
def test_since_6_18_only_high_priority_makes_reserves(gfp: int, reserves: bool) -> None:
    runner = machine(zone(1 << 19, 600_000, gap=590_000), generation="6.18")
    allocate(runner, 1, 4, gfp)
    assert counter(runner, "highatomic_reserved") == reserves


@pytest.mark.parametrize("generation", GENERATIONS)
def test_reserved_blocks_are_kept_from_others_until_reclaim_fails(generation: str) -> None:
    """The whole of memory is allocated; the last block goes to those who may wait only by giving it back."""
    runner = machine(zone(1 << 16, 2, gap=2), generation=generation)
    for mark in (at.Z_LOW, at.Z_HIGH):
        runner.machine.w[mark] = 1 << 17  # for one request
    assert allocate(runner, 1, 4, ATOMIC[generation]) != [-1]
    for mark in (at.Z_LOW, at.Z_HIGH):
        runner.machine.w[mark] = 0
    assert counter(runner, "highatomic_reserved") == 1
    blocks = (1 << 16 >> 4) - 32
    taken = sum(pfn >= 0 for pfn in allocate(runner, blocks + 1, 4, KERNEL | 0x10000))
    assert blocks - 2 <= taken <= blocks
    assert counter(runner, "highatomic_released") == 0
    for _ in range(2 * (blocks - taken)):
        allocate(runner, 1, 3, KERNEL)
    assert allocate(runner, 1, 3, KERNEL) != [-1]
    assert counter(runner, "highatomic_released") >= 1
    assert z(runner, at.Z_HIGHATOMIC) == 0


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("gfp", "left"), [(MEMALLOC, 0), (MEMALLOC | NOMEMALLOC, 1)])
def test_memalloc_takes_all_there_is(generation: str, gfp: int, left: int) -> None:
    runner = machine(zone(1024, 500), generation=generation)
    assert (-1 in allocate(runner, 1024, 0, 0x800 | gfp)) == left
    assert (z(runner, at.Z_FREE) > 0) == left


@pytest.mark.parametrize("generation", GENERATIONS)
def test_mempools_have_no_access_to_the_last_of_min(generation: str) -> None:
    """``__GFP_NOMEMALLOC`` leaves an atomic request half of MIN instead of three eighths."""
    for gfp, mark in ((ATOMIC[generation], 300), (ATOMIC[generation] | NOMEMALLOC, 400)):
        runner = machine(zone(4096, 800, gap=0), generation=generation)
        allocate(runner, 4096, 0, gfp)
        assert z(runner, at.Z_FREE) == mark


# ---------------------------------------------------------------- kswapd and reclaim (4.8)
def test_kswapd_frees_at_its_rate_until_high() -> None:
    runner = machine(zone(8192, 100, free_blocks=(80,) + (0,) * 10), kswapd_rate=10)
    allocate(runner, 1, 0, MOVABLE)
    assert counter(runner, "kswapd_wakes") == 1
    assert z(runner, at.Z_RECLAIM_ACTIVE) == 1
    wait(runner, 3 * MILLISECOND - 1)
    assert counter(runner, "reclaimed_pages") == 20
    wait(runner, 1)
    assert counter(runner, "reclaimed_pages") == 30
    wait(runner, 100 * MILLISECOND)
    assert z(runner, at.Z_RECLAIM_ACTIVE) == 0
    assert 110 < z(runner, at.Z_FREE) <= 110 + 32
    wait(runner, 100 * MILLISECOND)
    assert 110 < z(runner, at.Z_FREE) <= 110 + 32


def test_without_a_rate_kswapd_waits_for_the_frees_of_the_trace() -> None:
    runner = machine(zone(8192, 100, free_blocks=(200,) + (0,) * 10))
    allocate(runner, 105, 0, MOVABLE)
    assert z(runner, at.Z_RECLAIM_ACTIVE) == 1
    wait(runner, 1000 * MILLISECOND)
    assert z(runner, at.Z_RECLAIM_ACTIVE) == 1
    free_all(runner)
    wait(runner, MILLISECOND)
    assert z(runner, at.Z_RECLAIM_ACTIVE) == 0
    assert counter(runner, "reclaimed_pages") == 0


def test_kswapd_gives_up_when_nothing_is_left() -> None:
    runner = machine(zone(1024, 2000), kswapd_rate=1000)
    for _ in range(2):
        allocate(runner, 1, 0, KERNEL)
        wait(runner, 10 * MILLISECOND)
    assert counter(runner, "kswapd_wakes") == 1
    assert z(runner, at.Z_RECLAIM_ACTIVE) == 0


@pytest.mark.parametrize("generation", GENERATIONS)
def test_direct_reclaim_serves_those_who_may_wait(generation: str) -> None:
    for gfp, served in ((KERNEL, True), (0x800, False)):
        runner = machine(zone(4096, 60, free_blocks=(40,) + (0,) * 10), generation=generation, reclaim_pages=32)
        assert (allocate(runner, 1, 0, gfp) != [-1]) == served
        assert (counter(runner, "reclaimed_pages") > 0) == served


def test_a_costly_request_that_may_fail_tries_sixteen_rounds() -> None:
    """No block of order 10 comes from single pages before the movable half of memory is freed."""
    held = zone(1 << 16, 10, free_blocks=(40,) + (0,) * 10)
    for gfp, rounds in ((KERNEL, 1), (MAYFAIL, 17), (MAYFAIL | 0x10000, 0)):
        runner = machine(held, reclaim_pages=1)
        assert allocate(runner, 1, 10, gfp) == [-1]
        assert counter(runner, "reclaim_attempts") == rounds


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("order", [1, 3, 4, 9, 10])
def test_compaction_clears_a_block(generation: str, order: int) -> None:
    """4000 free pages lie alone among pages in use; moving those makes room."""
    runner = machine(zone(1 << 15, 10, free_blocks=(4000,) + (0,) * 10), generation=generation, compaction_success=1.0)
    free = z(runner, at.Z_FREE)
    assert allocate(runner, 1, order, MOVABLE) != [-1]
    assert counter(runner, "compaction_successes") == 1
    pcp = word(runner.machine, 0, at.P_WORDS, at.P_COUNT)
    assert z(runner, at.Z_FREE) + pcp == free - (1 << order)


def test_a_share_of_compactions_succeeds_in_turn() -> None:
    runner = machine(zone(1 << 15, 10, free_blocks=(4000,) + (0,) * 10), compaction_success=0.25)
    found = [allocate(runner, 1, 4, MOVABLE | 0x10000) != [-1] for _ in range(8)]
    assert sum(found) == counter(runner, "compaction_successes") > 0
    assert counter(runner, "compaction_attempts") // 4 == sum(found)


# ---------------------------------------------------------------- CMA (4.4)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_cma_pages_are_for_movable_requests(generation: str) -> None:
    runner = machine(zone(4096, 2, gap=0, cma_pages=2048), generation=generation)
    assert {mt for _, mt in zone_lists(runner.machine, 0)} == {1, 4}
    kernel = allocate(runner, 4096, 0, KERNEL)
    assert sum(pfn >= 0 for pfn in kernel) in (2045, 2046)
    assert max(kernel) < 2048
    movable = allocate(runner, 4096, 0, MOVABLE)
    assert {pfn >= 2048 for pfn in movable if pfn >= 0} == {True}
    assert sum(pfn >= 0 for pfn in movable) > 2000
    free_all(runner)
    assert (
        sum(1 << order for (order, mt), found in zone_lists(runner.machine, 0).items() for _ in found if mt == 4) > 2000
    )


@pytest.mark.parametrize("generation", GENERATIONS)
def test_cma_pages_come_first_while_they_are_most_of_what_is_free(generation: str) -> None:
    runner = machine(zone(4096, 2, gap=0, cma_pages=2048), generation=generation)
    assert allocate(runner, 1, 4, MOVABLE)[0] < 2048
    assert allocate(runner, 2, 4, MOVABLE)[0] >= 2048


# ---------------------------------------------------------------- what it is built from
def test_promo_is_kept_or_as_far_above_high_as_that_is_above_low() -> None:
    assert z(machine(zone(4096, 100)), at.Z_PROMO) == 120
    known = ZoneConfig("Normal", 0, 4096, watermarks=Watermarks((0, 0, 0, 0), 1, 2, 3, promo=77))
    assert z(machine(known), at.Z_PROMO) == 77


def test_zones_that_share_a_pageblock_are_refused() -> None:
    with pytest.raises(ParameterError, match="share the pageblock of frame 0xbb9"):
        machine(ZoneConfig("DMA", 1, 3000), ZoneConfig("DMA32", 3001, 8192))


def test_free_blocks_without_a_place_are_told() -> None:
    full = ZoneConfig("Normal", 0, 4096, watermarks=Watermarks(), free_blocks=(0,) * 9 + (7, 0))
    assert notes_of(machine(full).machine) == (
        f"{3 * 512} of the pages asked for as free blocks found no place beside pages in use, and are in use",
    )
    assert notes_of(machine(zone(4096, 2)).machine) == ()


@pytest.mark.parametrize(
    ("key", "value", "bad"),
    [
        ("watermark_boost_factor", "0", "-1"),
        ("kswapd_rate", "300", "fast"),
        ("reclaim_pages", "32", "-32"),
        ("compaction_success", "1", "1.5"),
        ("cma", "64MiB", "3MiB"),
    ],
)
def test_options(key: str, value: str, bad: str) -> None:
    before, after = default_machine(), machine_options(default_machine(), {key: value})
    assert before != after
    with pytest.raises(ParameterError) as caught:
        machine_options(before, {key: bad})
    assert key in caught.value.message
