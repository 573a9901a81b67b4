"""unmapped-migratetype: splits, flushes, whole pageblocks, and how other types fall back to it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference.machine_check import check_machine
from tests.reference.machine_driver import counters_of
from tests.reference.strategy_driver import Driven
from tracereplay.demand.stream import REQUIRED
from tracereplay.kernel.constants import MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMAPPED, MIGRATE_UNMOVABLE
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.directmap_start import DirectMap

MOVABLE_GFP = 0x100CCA


def machine(*by_type: tuple[int, ...], **more: object) -> MachineConfig:
    """128 MiB with free blocks by order of types 0, 1, 2; all free and movable where none are given."""
    rows = tuple(row + (0,) * (11 - len(row)) for row in by_type)
    zone = ZoneConfig(
        "Normal",
        0,
        1 << 15,
        watermarks=Watermarks(),
        free_blocks=tuple(map(sum, zip(*rows, strict=True))) if rows else None,
        free_by_type=rows or None,
    )
    return MachineConfig(zones=(zone,), cpus=1, occupancy=0.0, pcp_batch=1, pcp_scale_max=0, **more)  # type: ignore[arg-type]


def blocks_of(driven: Driven, mt: int) -> set[int]:
    """Pageblocks of a type."""
    return set(np.flatnonzero(driven.machine.pb.reshape(-1, at.B_WORDS)[:, at.B_TYPE] == mt).tolist())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_one_split_a_pageblock_and_one_flush_an_allocation(generation: str) -> None:
    """Self-check 17, first part; a page that comes back is flushed anew."""
    driven = Driven("unmapped-migratetype", machine(generation=generation))
    found = [driven.take() for _ in range(512)]
    frames = {blocks[0][0] for blocks in found if blocks}
    assert len(frames) == 512
    assert len({frame >> 9 for frame in frames}) == 1
    counters = counters_of(driven.machine.c)
    assert (counters["direct_map_splits"], counters["tlb_flushes"]) == (1, 512)
    assert counters["fallbacks"] == counters["fallback_block_moves"] == 2  # the pageblock, and one for the page table
    for frame in frames:
        driven.give(frame, 0)
    assert counters_of(driven.machine.c)["direct_map_remaps"] == 512
    driven.take()
    counters = counters_of(driven.machine.c)
    assert (counters["direct_map_splits"], counters["tlb_flushes"]) == (1, 513)
    assert driven.machine.w[at.DM_TABLES] == 1
    check_machine(driven.machine)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(
    ("free", "taken"),
    [
        (((0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 1)), MIGRATE_UNMOVABLE),
        (((), (0, 0, 0, 1), (0, 0, 0, 1)), MIGRATE_RECLAIMABLE),
        (((), (0, 0, 0, 1), ()), MIGRATE_MOVABLE),
        (((0, 0, 0, 1), (0, 0, 0, 0, 1), (0, 0, 0, 1)), MIGRATE_MOVABLE),
    ],
    ids=["unmovable first", "then reclaimable", "then movable", "but the largest block before all"],
)
def test_whole_pageblocks_are_taken(generation: str, free: tuple[tuple[int, ...], ...], taken: int) -> None:
    """A few free pages suffice: the pageblock changes its type, and all of its free pages move."""
    split = DirectMap(share_4k=1.0)
    driven = Driven("unmapped-migratetype", machine(*free, generation=generation, direct_map=split))
    before = {mt: blocks_of(driven, mt) for mt in range(3)}
    blocks = driven.take()
    assert blocks is not None
    assert blocks_of(driven, MIGRATE_UNMAPPED) == {blocks[0][0] >> 9}
    assert blocks[0][0] >> 9 in before[taken]
    check_machine(driven.machine)


def test_others_fall_back_to_it_last() -> None:
    """A machine whose only free pages are of the type still serves everybody; pages return to the type."""
    driven = Driven("unmapped-migratetype", machine((0,) * 9 + (1,), (0,) * 9, (0,) * 9, direct_map=DirectMap(0, 1.0)))
    mine = driven.take()
    assert mine is not None
    assert driven.other(0, gfp=MOVABLE_GFP) >= 0
    assert driven.other(3) >= 0
    assert check_machine(driven.machine)["buddy"] < 512


def test_what_others_free_in_its_pageblocks_is_its_own() -> None:
    driven = Driven("unmapped-migratetype", machine((0,) * 9 + (1,), (0,) * 9, (0,) * 9, direct_map=DirectMap(0, 1.0)))
    other = driven.other(0)
    blocks = driven.take()
    assert blocks is not None
    assert blocks[0][0] >> 9 == other >> 9
    driven.other_free(other, 0)
    again = driven.take()
    assert again == [(other, 0)], "freed to the type's per-CPU list, and taken from its head"
    assert driven.other(0) != other


def test_a_failed_split_puts_the_page_back() -> None:
    driven = Driven("unmapped-migratetype", machine((0,) * 9 + (1,), (0,) * 9, (0,) * 9))
    assert driven.take(512, order=9, flags=REQUIRED) is None
    counters = counters_of(driven.machine.c)
    assert (counters["pages_allocated"], counters["pages_freed"]) == (512, 512)
    assert "direct_map_unmaps" not in counters


def test_zeroing_and_charging_are_the_allocators() -> None:
    driven = Driven("unmapped-migratetype", machine(direct_map=DirectMap(share_4k=1.0)))
    driven.take(gfp=0x400DC0)
    counters = counters_of(driven.machine.c)
    assert (counters["zeroed_pages"], counters["memcg_charges"], counters["alloc_calls"]) == (1, 1, 1)


def test_only_this_strategy_has_the_type() -> None:
    for name, there in (("unmapped-cache", 0), ("unmapped-migratetype", 1)):
        assert Driven(name, machine()).machine.w[at.DM_UNMAPPED_TYPE] == there
