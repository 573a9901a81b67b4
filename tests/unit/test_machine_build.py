"""The initial state: as many free blocks of each order and type as asked, and nothing that would merge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine_samples import ALL_TYPES, MACHINES, TYPED
from tests.reference.machine_check import check_machine
from tests.reference.machine_driver import counters_of, picture_of_compiled, word, zone_lists
from tracereplay.errors import ParameterError
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, ZoneConfig


def blocks(machine: at.Machine, z: int, mt: int | None = None) -> list[int]:
    """Free blocks of a zone by order."""
    lists = zone_lists(machine, z)
    return [sum(len(f) for (o, t), f in lists.items() if o == order and mt in (None, t)) for order in range(11)]


@pytest.mark.parametrize("name", MACHINES)
def test_nothing_overlaps_or_merges(name: str) -> None:
    machine = build_machine(MACHINES[name])
    check_machine(machine)
    assert counters_of(machine.c) == {}


def test_counts_by_order_and_type() -> None:
    machine = build_machine(MACHINES["mixed types, ragged end"])
    assert blocks(machine, 0) == list(ALL_TYPES)
    assert [blocks(machine, 0, mt) for mt in range(3)] == [list(row) for row in TYPED]


@given(
    st.lists(st.integers(0, 12), min_size=11, max_size=11),
    st.integers(0, 3),
    st.integers(0, 2000),
    st.integers(0, 7),
)
def test_counts_are_those_asked_for(counts: list[int], region: int, extra: int, seed: int) -> None:
    # what the blocks and one used half beside each can need, in whole regions of the largest order
    pages = sum(2 * n << order for order, n in enumerate(counts[:10])) + (counts[10] << 10)
    start = (region << 10) + extra
    zone = ZoneConfig("Normal", start, start + pages + 4096, free_blocks=tuple(counts))
    machine = build_machine(MachineConfig(zones=(zone,), cpus=1, seed=seed))
    assert blocks(machine, 0) == counts
    check_machine(machine)


def test_a_zone_that_is_all_free_has_no_page_in_use() -> None:
    machine = build_machine(MachineConfig(zones=(ZoneConfig("DMA", 1, 4096),), cpus=1, occupancy=0.0))
    assert word(machine, 0, at.Z_WORDS, at.Z_FREE) == 4095
    assert blocks(machine, 0) == [1] * 10 + [3]


def test_share_in_use_and_fragmentation() -> None:
    config = MachineConfig(zones=(ZoneConfig("Normal", 0, 1 << 16),), cpus=1, occupancy=0.75, fragmentation=0.5)
    machine = build_machine(config)
    assert word(machine, 0, at.Z_WORDS, at.Z_FREE) == 1 << 14
    assert blocks(machine, 0) == [1 << 13] + [0] * 9 + [8]


def test_seed_decides_the_places() -> None:
    first, again, other = (
        build_machine(MachineConfig(zones=(ZoneConfig("Normal", 0, 1 << 14),), cpus=1, seed=seed, fragmentation=0.3))
        for seed in (1, 1, 2)
    )
    assert picture_of_compiled(first) == picture_of_compiled(again)
    assert np.array_equal(first.pg, again.pg)
    assert picture_of_compiled(first) != picture_of_compiled(other)


def test_cpus_are_shared_out_to_nodes() -> None:
    machine = build_machine(MACHINES["two nodes"])
    assert machine.w[at.CN : at.CN + 4].tolist() == [0, 0, 1, 1]


def test_too_large_a_machine_is_refused() -> None:
    with pytest.raises(ParameterError, match="2 TiB"):
        build_machine(MachineConfig(zones=(ZoneConfig("Normal", 0, (1 << 29) + 1),), cpus=1))
