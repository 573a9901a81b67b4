"""unmapped-cache: what its modes differ in, the shrinker, NUMA, and exact costs of a request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.reference.direct_map_driver import picture_of_map
from tests.reference.machine_check import check_machine
from tests.reference.machine_driver import counters_of, word
from tests.reference.strategy_driver import Driven
from tracereplay.demand.stream import REQUIRED
from tracereplay.machine import layout as at
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.directmap_start import DirectMap

SPLIT = DirectMap(share_4k=1.0)
"""A direct map that takes no more page tables."""


def machine(*blocks: int, **more: object) -> MachineConfig:
    """128 MiB with so many free unmovable blocks of orders 0, 1, ...; all free where none are given."""
    counts = blocks + (0,) * (11 - len(blocks)) if blocks else None
    by_type = (counts, (0,) * 11, (0,) * 11) if counts else None
    zone = ZoneConfig("Normal", 0, 1 << 15, watermarks=Watermarks(), free_blocks=counts, free_by_type=by_type)
    config = MachineConfig(zones=(zone,), cpus=2, occupancy=0.0, pcp_batch=1, pcp_scale_max=0)
    return replace(config, **more)  # type: ignore[arg-type]


class Cache(Driven):
    """The cache on a machine."""

    def __init__(self, config: MachineConfig | None = None, **params: str) -> None:
        super().__init__("unmapped-cache", config or machine(direct_map=SPLIT), **params)

    def since(self) -> dict[str, int]:
        """Counters since the last call that are not 0."""
        found = {k: v for k, v in counters_of(self.machine.c).items() if "[" not in k}
        self.machine.c[:] = 0
        return found

    def pages(self, n: int, **more: int) -> list[int]:
        """``n`` requests of one page: their frames."""
        found = []
        for _ in range(n):
            blocks = self.take(**more)
            assert blocks is not None
            found += [frame for frame, _ in blocks]
        return found

    @property
    def cached(self) -> int:
        """Idle pages."""
        return int(self.machine.w[at.CFG_RESERVE])

    @property
    def free(self) -> int:
        """Free pages of the zone, without those on per-CPU lists."""
        return word(self.machine, 0, at.Z_WORDS, at.Z_FREE)

    def absent(self) -> set[int]:
        """Pages out of the direct map."""
        return set(picture_of_map(self.machine)["absent"])


HIT = {"alloc_calls": 1, "cache_hits": 1, "cache_locks": 1}


@pytest.mark.parametrize("start", [DirectMap(), SPLIT])
def test_a_refill_serves_512_pages(start: DirectMap) -> None:
    """Self-check 15: one order-9 allocation and one flush, then 511 pages without either, then again."""
    cache = Cache(machine(direct_map=start))
    table = 1 if start is not SPLIT else 0
    for _ in range(2):
        cache.take()
        first = cache.since()
        assert first["cache_refills"] == first["tlb_flushes"] == first["tlb_full_flushes"] == 1
        assert first["pages_allocated"] == 512 + table
        assert first["alloc_calls"] == 2 + table  # the caller's, the refill's, the page table's
        assert first.get("direct_map_splits", 0) == first.get("direct_map_tables", 0) == table
        assert first["direct_map_unmaps"] == first["zeroed_pages"] == 512
        assert first["cache_locks"] == 3  # nothing there, the new block in, the page out
        for _ in range(511):
            cache.take()
            assert cache.since() == HIT


def test_only_the_shrinker_lowers_the_cache() -> None:
    """Self-check 16."""
    cache = Cache()
    frames = cache.pages(700)
    had = []
    for frame in frames:
        cache.give(frame, 0)
        had.append(cache.cached)
    assert had == list(range(1024 - 700 + 1, 1025))
    free = cache.free
    cache.since()
    cache.shrink(1)
    assert cache.cached == 0, "two blocks of 2 MiB became one of 4 MiB, the smallest there is"
    assert cache.free == free + 1024
    found = cache.since()
    assert found["shrunk_pages"] == found["direct_map_remaps"] == found["pages_freed"] == 1024
    assert "tlb_flushes" not in found
    assert check_machine(cache.machine)["cached"] == 0


@pytest.mark.parametrize(
    ("shrinker", "left"), [("ascending", [512]), ("descending", [1 << order for order in range(9)])]
)
def test_order_of_the_shrinker(shrinker: str, left: list[int]) -> None:
    """Ascending takes what is cut up already; descending gives back whole 2 MiB first."""
    cache = Cache(shrinker=shrinker)
    whole, other = cache.take(512, order=9, flags=REQUIRED), cache.pages(1)
    assert whole is not None
    third = cache.take(512, order=9, flags=REQUIRED)
    assert third is not None
    cache.give(*third[0] if third[0][0] // 1024 != other[0] // 1024 else whole[0])
    assert cache.cached == 511 + 512
    cache.shrink(500)
    blocks = [1 << order for order in range(11) for _ in cache_blocks(cache, order)]
    assert blocks == left


def cache_blocks(cache: Cache, order: int) -> list[int]:
    """Blocks of an order in the cache."""
    info = cache.machine.pg[3 * int(cache.machine.w[at.CFG_NODES]) + at.INFO :: 3]
    heads = (info & (at.INFO_STATE | at.INFO_ORDER)) == (at.CACHED | order)
    return [int(pfn) for pfn in heads.nonzero()[0]]


def test_collapse_on_release() -> None:
    for collapse, kib in (("false", 2048), ("true", 0)):
        cache = Cache(machine(), collapse_on_release=collapse)
        (frame,) = cache.pages(1)
        tables = int(cache.machine.w[at.DM_TABLES])
        cache.give(frame, 0)
        cache.since()
        cache.shrink(1)
        assert int(cache.machine.w[at.CFG_MAP_4K]) * 2048 == kib
        found = cache.since()
        assert (found.get("direct_map_collapses", 0), found.get("tlb_flushes", 0)) == (kib == 0, kib == 0)
        assert (tables, int(cache.machine.w[at.DM_TABLES])) == (1, kib != 0)
        assert cache.absent() == set()


@pytest.mark.parametrize(("zero", "at_refill", "at_hit"), [("refill", 512, 0), ("always", 513, 1), ("never", 0, 0)])
def test_zeroing_and_charging(zero: str, at_refill: int, at_hit: int) -> None:
    cache = Cache(zero=zero)
    cache.take(gfp=0x400DC0)  # accounted, zeroed
    found = cache.since()
    assert found.get("zeroed_pages", 0) == at_refill
    assert found["memcg_charges"] == 2, "the refill carries the caller's flags, and the caller pays again"
    cache.take(gfp=0x400DC0)
    assert cache.since().get("zeroed_pages", 0) == at_hit


# ---------------------------------------------------------------- where the posted patches differ
def test_posted_unmaps_as_many_pages_as_were_asked_for() -> None:
    for mode, out in (("described", 512), ("posted", 4)):
        cache = Cache(mode=mode)
        blocks = cache.take(4, order=2, flags=REQUIRED)
        assert blocks is not None
        assert len(cache.absent()) == out
        assert set(range(blocks[0][0], blocks[0][0] + 4)) <= cache.absent()
        found = cache.since()
        assert (found.get("cache_mapped_pages", 0), found.get("tlb_full_flushes", 0)) == (0, mode == "described")
        cache.pages(10)
        assert cache.since().get("cache_mapped_pages", 0) == (10 if mode == "posted" else 0)


def halves(mode: str) -> tuple[Cache, int, int]:
    """A pageblock of which somebody else has one half and a request of the cache the other: both first frames."""
    cache = Cache(machine(*(0,) * 9, 1, direct_map=SPLIT), mode=mode)
    other = cache.other(8)
    mine = cache.take(256, order=8, flags=REQUIRED)
    assert mine is not None
    assert mine[0][0] == other ^ 256
    return cache, other, mine[0][0]


def test_described_leaves_its_neighbours_alone() -> None:
    cache, other, mine = halves("described")
    cache.other_free(other, 8)
    assert (cache.free, cache.cached) == (256, 0)
    cache.give(mine, 8)
    assert (cache.free, cache.cached) == (256, 256)


def test_posted_captures_its_neighbours() -> None:
    """A refill below 2 MiB flags the whole pageblock: what others free there is the cache's, though still mapped."""
    cache, other, mine = halves("posted")
    cache.since()
    cache.other_free(other, 8)
    assert cache.since() == {"free_calls": 1, "cache_locks": 1}
    assert (cache.free, cache.cached) == (0, 256)
    assert cache.take(256, order=8, flags=REQUIRED) == [(other, 8)]
    assert cache.since()["cache_mapped_pages"] == 256
    cache.give(other, 8)
    cache.give(mine, 8)
    assert cache_blocks(cache, 9) == [other & mine]
    cache.shrink(1)
    assert (cache.free, cache.cached) == (512, 0)
    cache.other_free(cache.other(9), 9)
    assert cache.cached == 0, "a whole pageblock loses its flag"
    assert cache.absent() == set()


def test_posted_gets_back_what_its_shrinker_gave() -> None:
    cache, other, _ = halves("posted")
    cache.other_free(other, 8)
    cache.shrink(1)
    assert (cache.free, cache.cached) == (256, 0)
    again = cache.other(8)
    assert again == other
    cache.other_free(again, 8)
    assert (cache.free, cache.cached) == (0, 256), "the flag stayed"


def test_a_failed_split_fails_the_refill_or_is_ignored() -> None:
    """A machine of one 2 MiB block has no page for the page table."""
    described = Cache(machine(*(0,) * 9, 1), mode="described")
    assert described.take() is None
    assert described.free == 512
    assert described.absent() == set()
    posted = Cache(machine(*(0,) * 9, 1), mode="posted")
    assert posted.take() is not None
    assert posted.absent() == set()
    assert posted.since()["cache_mapped_pages"] == 1


# ---------------------------------------------------------------- NUMA
def two_nodes(*free: int) -> MachineConfig:
    """Two nodes with so many free blocks of 2 MiB each, and a CPU each."""
    zones = tuple(
        ZoneConfig(
            "Normal", node << 14, (node + 1) << 14, node, watermarks=Watermarks(), free_blocks=(0,) * 9 + (blocks, 0)
        )
        for node, blocks in enumerate(free)
    )
    return MachineConfig(zones=zones, cpus=2, nodes=2, pcp_batch=1, pcp_scale_max=0, direct_map=SPLIT)


@pytest.mark.parametrize(("per_node", "nodes", "idle"), [("false", [0, 0], 510), ("true", [0, 1], 1022)])
def test_a_cache_for_each_node(per_node: str, nodes: list[int], idle: int) -> None:
    """One cache serves both nodes from one block; two keep the memory local and twice as much of it idle."""
    cache = Cache(two_nodes(8, 8), per_node=per_node)
    assert [cache.pages(1, cpu=cpu)[0] >> 14 for cpu in (0, 1)] == nodes
    assert cache.cached == idle
    assert cache.machine.w[at.CFG_RESERVE_PEAK] == idle + (1 if per_node == "true" else 2)


def test_a_node_without_memory_turns_to_the_others() -> None:
    """First to what their caches hold; a request for this node only fails."""
    cache = Cache(two_nodes(0, 3), per_node="true")
    assert cache.take(gfp=0x200CC0) is None
    assert cache.pages(1, cpu=1)[0] >> 14 == 1
    cache.since()
    frames = cache.pages(3)
    assert {frame >> 14 for frame in frames} == {1}
    found = cache.since()
    assert (found["cache_misses"], found["alloc_calls"] > 3, "cache_refills" in found) == (3, True, False)
    cache.pages(508)
    cache.since()
    assert cache.pages(1)[0] >> 14 == 1
    assert cache.since()["cache_refills"] == 1


# ---------------------------------------------------------------- the lock
def test_the_longest_hold() -> None:
    """A page cut from 2 MiB: one block out, nine halves in. The block's own way in was one."""
    cache = Cache()
    cache.pages(1)
    assert cache.machine.w[at.CACHE_LONGEST] == 10


def test_refills_below_what_is_accepted() -> None:
    cache = Cache(machine(*(0,) * 8, 4, direct_map=SPLIT), min_refill="9")
    assert cache.take() is None
    assert Cache(machine(*(0,) * 8, 4, direct_map=SPLIT), min_refill="8").take() is not None
