"""unmapped-per-use: pools by caller, what they give back and when, and secretmem page by page."""

from __future__ import annotations

import pytest

from tests.reference.direct_map_driver import picture_of_map
from tests.reference.machine_check import check_machine
from tests.reference.machine_driver import counters_of
from tests.reference.strategy_driver import Driven
from tracereplay.demand.stream import REQUIRED
from tracereplay.machine import layout as at
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.directmap_start import DirectMap

USER_GFP = 0x100CCA
"""Movable, so that page tables come from other pageblocks."""


def machine(singles: int = 0, blocks: int = 16, start: DirectMap | None = None) -> MachineConfig:
    """A zone with so many free unmovable pages and movable blocks of 2 MiB."""
    kinds = ((singles,) + (0,) * 10, (0,) * 9 + (blocks, 0), (0,) * 11)
    total = (singles,) + (0,) * 8 + (blocks, 0)
    zone = ZoneConfig("Normal", 0, 1 << 15, watermarks=Watermarks(), free_blocks=total, free_by_type=kinds)
    return MachineConfig(
        zones=(zone,), cpus=1, pcp_batch=1, pcp_scale_max=0, direct_map=start or DirectMap(share_4k=1.0)
    )


def since(driven: Driven) -> dict[str, int]:
    """Counters since the last call that are not 0, plain ones."""
    found = {k: v for k, v in counters_of(driven.machine.c).items() if "[" not in k}
    driven.machine.c[:] = 0
    return found


def one(driven: Driven, caller: int = 0) -> int:
    """A page for a caller."""
    blocks = driven.take(caller=caller, gfp=USER_GFP)
    assert blocks is not None
    return blocks[0][0]


# ---------------------------------------------------------------- page by page
def test_512_pages_of_one_pageblock_are_one_split_and_512_flushes() -> None:
    """Self-check 17, second part."""
    driven = Driven("unmapped-per-use", machine(1, 1, DirectMap()), mode="page")
    frames = [one(driven) for _ in range(512)]
    assert len({frame >> 9 for frame in frames}) == 1
    found = since(driven)
    assert (found["direct_map_splits"], found["tlb_flushes"], found["direct_map_unmaps"]) == (1, 512, 512)
    assert "tlb_full_flushes" not in found
    for frame in frames:
        driven.give(frame, 0)
    found = since(driven)
    assert found["direct_map_remaps"] == found["zeroed_pages"] == found["free_calls"] == 512
    assert "tlb_flushes" not in found
    assert picture_of_map(driven.machine)["absent"] == set()


def test_scattered_pages_split_each_pageblock() -> None:
    """Self-check 17, third part: without grouping every page may split another entry."""
    driven = Driven("unmapped-per-use", machine(64, 16, DirectMap()), mode="page")
    others = [driven.other(0, gfp=USER_GFP) for _ in range(16 * 512)]
    by_block = {frame >> 9: frame for frame in others}
    assert len(by_block) == 16
    for frame in by_block.values():
        driven.other_free(frame, 0)
    since(driven)
    assert {one(driven) for _ in range(16)} == set(by_block.values())
    found = since(driven)
    assert found["direct_map_splits"] == found["direct_map_tables"] == found["tlb_flushes"] == 16


def test_the_same_pages_in_a_pool_are_one_flush() -> None:
    driven = Driven("unmapped-per-use", machine(1, 1, DirectMap()))
    frames = {one(driven) for _ in range(512)}
    assert len(frames) == 512
    found = since(driven)
    assert found["direct_map_splits"] == found["tlb_flushes"] == found["cache_refills"] == found["cache_misses"] == 1


def test_a_failed_split_fails_the_request() -> None:
    for mode in ("page", "pool"):
        driven = Driven("unmapped-per-use", machine(0, 1, DirectMap()), mode=mode)
        order = 9 if mode == "page" else 0
        assert driven.take(1 << order, order=order, flags=REQUIRED if order else 0, gfp=USER_GFP) is None
        assert check_machine(driven.machine)["used"] == 0


# ---------------------------------------------------------------- pools
def test_each_user_has_a_pool_and_the_memory_for_it() -> None:
    """Four callers: one pool takes 2 MiB, four take 8, most of it idle."""
    for users, blocks in (("1", 1), ("2", 2), ("64", 4)):
        driven = Driven("unmapped-per-use", machine(), users=users)
        places = [one(driven, caller) >> 9 for caller in range(4)]
        assert len(set(places)) == blocks
        assert driven.machine.w[at.CFG_RESERVE] == blocks * 512 - 4
        assert since(driven)["cache_refills"] == blocks
        assert [one(driven, caller) >> 9 for caller in range(4)] == places
        assert since(driven)["cache_hits"] == 4


def test_a_page_returns_to_its_own_pool() -> None:
    driven = Driven("unmapped-per-use", machine(), users="2")
    first, second = one(driven, 0), one(driven, 1)
    keep = one(driven, 0)
    driven.give(first, 0)
    assert one(driven, 1) != first
    assert one(driven, 0) == first
    assert keep >> 9 != second >> 9


@pytest.mark.parametrize(
    ("give_back", "left"),
    [("last", [509, 510, 511, 0]), ("block", [509, 510, 511, 0]), ("never", [509, 510, 511, 512])],
)
def test_when_memory_goes_back(give_back: str, left: list[int]) -> None:
    driven = Driven("unmapped-per-use", machine(), give_back=give_back)
    frames = [one(driven) for _ in range(3)]
    had = [int(driven.machine.w[at.CFG_RESERVE])]
    since(driven)
    for frame in frames:
        driven.give(frame, 0)
        had.append(int(driven.machine.w[at.CFG_RESERVE]))
    assert had == left
    found = since(driven)
    assert found["cache_puts"] == 3
    assert found.get("zeroed_pages", 0) == found.get("direct_map_remaps", 0) == (0 if give_back == "never" else 512)
    assert len(picture_of_map(driven.machine)["absent"]) == (512 if give_back == "never" else 0)


@pytest.mark.parametrize(("give_back", "after_block"), [("last", 1023), ("block", 511)])
def test_a_whole_block_among_others(give_back: str, after_block: int) -> None:
    """Two blocks, of which one is free again: only give_back=block lets it go before the last page."""
    driven = Driven("unmapped-per-use", machine(), give_back=give_back)
    frames = [one(driven) for _ in range(513)]
    for frame in frames[:512]:
        driven.give(frame, 0)
    assert driven.machine.w[at.CFG_RESERVE] == after_block
    driven.give(frames[512], 0)
    assert driven.machine.w[at.CFG_RESERVE] == 0
    assert check_machine(driven.machine)["cached"] == 0


@pytest.mark.parametrize("order", [6, 7, 9])
def test_order_of_the_blocks(order: int) -> None:
    """Pools in smaller blocks take less; a request larger than a block fails."""
    driven = Driven("unmapped-per-use", machine(), block_order=str(order))
    one(driven)
    assert driven.machine.w[at.CFG_RESERVE] == (1 << order) - 1
    assert driven.take(1 << order, order=order, flags=REQUIRED, gfp=USER_GFP) is not None
    assert driven.take(2 << order, order=order + 1, flags=REQUIRED, gfp=USER_GFP) is None
    for caller in range(1, 8):
        one(driven, caller)
    check_machine(driven.machine)
