"""The direct map by itself: exact costs, how it starts, and the compiled one against the slow one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.direct_map_driver import COLLAPSE, COUNT, FLUSH, MAP, UNMAP, Both, picture_of_map, run_compiled
from tests.reference.machine_driver import counters_of, differences
from tracereplay.errors import ParameterError
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig, default_zones
from tracereplay.machine.directmap_start import DirectMap, direct_map_kib
from tracereplay.machine.options import machine_options

GIB = 1 << 18


def machine_of(pages: int = 1 << 14, **more: object) -> MachineConfig:
    """One zone, all free, no watermarks."""
    zone = ZoneConfig("Normal", 0, pages, watermarks=Watermarks())
    return replace(MachineConfig(zones=(zone,), cpus=2, occupancy=0.0, pcp_batch=1), **more)  # type: ignore[arg-type]


def ops(*rows: tuple[int, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Operations (what, page, pages) of CPU 0."""
    return np.array([(what, 0, page, pages) for what, page, pages in rows], np.int64)


def costs(machine: at.Machine) -> dict[str, int]:
    """Counters of the direct map that are not 0."""
    return {k: v for k, v in counters_of(machine.c).items() if k.startswith(("direct_map", "tlb"))}


# ---------------------------------------------------------------- what unmapping costs
def test_a_whole_2_mib_block_is_one_split() -> None:
    machine = build_machine(machine_of())
    assert run_compiled(machine, ops((UNMAP, 1024, 512), (FLUSH, 0, 512), (COUNT, 1024, 512))) == [512, 0, 512]
    assert costs(machine) == {
        "direct_map_splits": 1,
        "direct_map_tables": 1,
        "direct_map_unmaps": 512,
        "tlb_flushes": 1,
        "tlb_full_flushes": 1,
    }
    assert counters_of(machine.c)["pages_allocated[0]"] == machine.w[at.DM_TABLES] == 1


def test_scattered_pages_split_every_unit() -> None:
    machine = build_machine(machine_of(1 << 19))
    rows = [row for i in range(512) for row in ((UNMAP, i * 512 + 7, 1), (FLUSH, 0, 1))]
    run_compiled(machine, ops(*rows))
    assert costs(machine) == {
        "direct_map_splits": 512,
        "direct_map_tables": 512,
        "direct_map_unmaps": 512,
        "tlb_flushes": 512,
    }


def test_under_a_gib_entry_the_first_page_splits_twice() -> None:
    machine = build_machine(machine_of(2 * GIB, direct_map=DirectMap(share_1g=1.0)))
    assert direct_map_kib(machine) == {"DirectMap4k": 0, "DirectMap2M": 0, "DirectMap1G": 2 << 20}
    seen = []
    for page in (GIB + 5, GIB + 6, GIB + 512, 3):
        run_compiled(machine, ops((UNMAP, page, 1)))
        seen.append(costs(machine)["direct_map_splits"])
    assert seen == [2, 2, 3, 5]
    assert direct_map_kib(machine) == {"DirectMap4k": 3 * 2048, "DirectMap2M": (2 << 20) - 3 * 2048, "DirectMap1G": 0}


@pytest.mark.parametrize(("pages", "full"), [(33, 0), (34, 1)])
def test_large_ranges_flush_all(pages: int, full: int) -> None:
    machine = build_machine(machine_of())
    run_compiled(machine, ops((FLUSH, 0, pages)))
    assert costs(machine).get("tlb_full_flushes", 0) == full


def test_mapping_again_needs_no_flush_and_keeps_the_split() -> None:
    machine = build_machine(machine_of())
    assert run_compiled(machine, ops((UNMAP, 0, 10), (MAP, 5, 100), (MAP, 5, 100), (COUNT, 0, 512))) == [10, 5, 0, 5]
    assert costs(machine)["direct_map_remaps"] == 5
    assert "tlb_flushes" not in costs(machine)
    assert direct_map_kib(machine)["DirectMap4k"] == 2048


def test_collapse_wants_every_page_back_and_returns_the_table() -> None:
    machine = build_machine(machine_of())
    rows = ((UNMAP, 0, 2), (MAP, 0, 1), (COLLAPSE, 0, 0), (MAP, 1, 1), (COLLAPSE, 511, 0), (COLLAPSE, 0, 0))
    assert run_compiled(machine, ops(*rows)) == [2, 1, 0, 1, 1, 0]
    assert machine.w[at.DM_TABLES] == 0
    assert counters_of(machine.c)["pages_freed"] == 1
    assert costs(machine)["tlb_flushes"] == costs(machine)["direct_map_collapses"] == 1
    assert direct_map_kib(machine)["DirectMap4k"] == 0


@pytest.mark.parametrize(("tables", "splits", "out"), [(0, 0, 0), (1, 1, 0), (2, 2, 512), (3, 3, 600)])
def test_a_split_needs_a_page(tables: int, splits: int, out: int) -> None:
    """Of 600 pages under a 1 GiB entry, as many get out as page tables allow."""
    blocks = (tables, *(0,) * 10)
    zone = ZoneConfig("Normal", 0, GIB, watermarks=Watermarks(), free_blocks=blocks)
    start = DirectMap(share_1g=1.0)
    machine = build_machine(MachineConfig((zone,), cpus=1, pcp_batch=1, pcp_scale_max=0, direct_map=start))
    assert run_compiled(machine, ops((UNMAP, 0, 600))) == [out]
    assert costs(machine).get("direct_map_splits", 0) == splits
    assert counters_of(machine.c).get("failed_attempts", 0) == (tables < 3)


# ---------------------------------------------------------------- the start
def test_start_as_a_snapshot_has_it() -> None:
    """The recorded figures of a 24 GiB host: what is not whole memory here goes without."""
    wanted = DirectMap(recorded_kib=(28672, 24 << 20))
    machine = build_machine(MachineConfig(zones=default_zones(26 << 30), cpus=2, direct_map=wanted))
    assert direct_map_kib(machine) == {
        "DirectMap4k": 28672,
        "DirectMap2M": (2 << 20) - 28672,
        "DirectMap1G": 24 << 20,
    }
    small = build_machine(MachineConfig(zones=default_zones(1 << 30), cpus=2, direct_map=wanted))
    assert direct_map_kib(small) == {"DirectMap4k": 0, "DirectMap2M": 0, "DirectMap1G": 1 << 20}


def test_start_follows_the_seed_and_nothing_else_does() -> None:
    config = MachineConfig(zones=default_zones(8 << 30), cpus=1, direct_map=DirectMap(share_1g=0.5, share_4k=0.1))

    def maps(seed: int, wanted: DirectMap) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        found = build_machine(replace(config, seed=seed, direct_map=wanted)).pb.reshape(-1, at.B_WORDS)
        return found[:, at.B_MAP].copy()

    first = maps(1, config.direct_map)
    assert np.array_equal(first, maps(1, config.direct_map))
    assert not np.array_equal(first, maps(2, config.direct_map))
    free = [build_machine(replace(config, direct_map=wanted)).pg for wanted in (DirectMap(), DirectMap(share_4k=1.0))]
    assert np.array_equal(*free), "free blocks lie where they lay"


def test_ragged_ends_are_split_first() -> None:
    config = machine_of(512 * 20 + 8, direct_map=DirectMap(recorded_kib=(2048, 0)))
    for seed in range(5):
        assert set(picture_of_map(build_machine(replace(config, seed=seed)))["entries"]) == set(range(0, 512 * 20, 512))


@pytest.mark.parametrize("key", ["direct_map.1g", "direct_map.4k"])
def test_machine_keys(key: str) -> None:
    start = MachineConfig(zones=default_zones(4 << 30), cpus=1, direct_map=DirectMap(recorded_kib=(4096, 1 << 20)))
    kib = direct_map_kib(build_machine(machine_options(start, {key: "1"})))
    assert kib == {"DirectMap4k": 0, "DirectMap2M": 0, "DirectMap1G": 0} | {
        {"direct_map.1g": "DirectMap1G", "direct_map.4k": "DirectMap4k"}[key]: 4 << 20
    }
    for bad in ("-0.1", "1.5", "much"):
        with pytest.raises(ParameterError):
            machine_options(start, {key: bad})


# ---------------------------------------------------------------- against the slow one
ROW = st.tuples(
    st.sampled_from((UNMAP, UNMAP, UNMAP, MAP, MAP, FLUSH, COLLAPSE, COUNT)),
    st.integers(0, 1),
    st.sampled_from((0, 3, 511, 512, 700, 1500, 4090, GIB - 2, GIB, GIB + 600)),
    st.sampled_from((1, 2, 5, 33, 34, 512, 1000)),
)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=25),
    share=st.sampled_from((0.0, 0.5, 1.0)),
    split=st.sampled_from((0.0, 0.3, 1.0)),
    pages=st.sampled_from((3, 40)),
)
def test_any_operations(rows: list[tuple[int, int, int, int]], share: float, split: float, pages: int) -> None:
    zone = ZoneConfig("Normal", 0, 2 * GIB, watermarks=Watermarks(), free_blocks=(pages, *(0,) * 10))
    both = Both(MachineConfig(zones=(zone,), cpus=2, pcp_batch=1, direct_map=DirectMap(share, split)))
    compiled, slow = both.run(np.array(rows, np.int64))
    assert compiled == slow
    assert differences(*both.pictures()) == []
