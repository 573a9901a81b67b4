"""Derived figures of a machine against those read on real hosts, and what ``--machine`` takes."""

from __future__ import annotations

import pytest

from tests.machine_samples import marks
from tests.reference.machine_driver import word
from tracereplay.errors import ParameterError
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import (
    MachineConfig,
    Watermarks,
    ZoneConfig,
    default_machine,
    derived_watermarks,
    machine_options,
    parse_size,
    pcp_batch,
)


def zone(name: str, start: int, managed: int, **more: object) -> ZoneConfig:
    return ZoneConfig(name, start, start + managed + 1023 & ~1023, managed=managed, **more)  # type: ignore[arg-type]


def live_zones() -> tuple[ZoneConfig, ...]:
    """Zones of a 16 GiB guest, kernel 6.18, as its /proc/zoneinfo shows them."""
    return (zone("DMA", 1, 3840), zone("DMA32", 0x1000, 772915), zone("Normal", 0x100000, 3538944))


def test_watermarks_and_reserves_of_a_real_host() -> None:
    found = derived_watermarks(MachineConfig(zones=live_zones(), cpus=2, generation="6.18"))
    assert [(m.min, m.low, m.high) for m in found] == [(15, 18, 21), (3025, 3797, 4569), (13854, 17392, 20930)]
    assert [m.low_reserve for m in found] == [(0, 3019, 16843, 16843), (0, 0, 13824, 13824), (0, 0, 0, 0)]


def test_per_cpu_lists_of_a_real_host() -> None:
    machine = build_machine(MachineConfig(zones=live_zones(), cpus=2, generation="6.18"))
    limits = [
        tuple(word(machine, 2 * z, at.P_WORDS, name) for name in (at.P_BATCH, at.P_HIGH_MIN, at.P_HIGH_MAX))
        for z in range(3)
    ]
    assert limits == [(1, 9, 240), (63, 1898, 48307), (63, 8696, 221184)]


def test_thp_floor_counts_the_zones_of_every_node() -> None:
    nodes = (
        zone("DMA", 1, 3840),
        zone("DMA32", 0x1000, 772915),
        zone("Normal", 0x100000, 3538944),
        zone("Normal", 0x500000, 3538944, node=1),
    )
    found = derived_watermarks(MachineConfig(zones=nodes, cpus=2, nodes=2))
    assert sum(m.min for m in found) == pytest.approx(512 * 4 * 11, abs=4)


@pytest.mark.parametrize(
    ("managed", "batch"),
    [
        (176128, 63),
        (176127, 31),
        (90112, 31),
        (90111, 15),
        (45056, 15),
        (45055, 7),
        (24576, 7),
        (24575, 3),
        (12288, 3),
        (12287, 1),
        (3840, 1),
        (1 << 26, 63),
    ],
)
def test_batch(managed: int, batch: int) -> None:
    assert pcp_batch(managed) == batch


@pytest.mark.parametrize(("generation", "high"), [("5.10", 378), ("5.14", 1000), ("6.1", 1000)])
def test_high_of_older_generations(generation: str, high: int) -> None:
    config = MachineConfig(zones=(zone("Normal", 0, 1 << 18, watermarks=marks(4000)),), cpus=4, generation=generation)
    machine = build_machine(config)
    assert word(machine, 0, at.P_WORDS, at.P_HIGH) == high
    assert word(machine, 0, at.P_WORDS, at.P_HIGH_MAX) == high


def test_high_is_never_below_four_batches() -> None:
    config = MachineConfig(zones=(zone("Normal", 0, 1 << 18, watermarks=Watermarks()),), cpus=64, generation="6.1")
    assert word(build_machine(config), 0, at.P_WORDS, at.P_HIGH) == 4 * 63


@pytest.mark.parametrize(
    ("generation", "orders", "lists"),
    [
        ("5.10", {0}, 3),
        ("5.14", {0, 1, 2, 3, 9}, 15),
        ("6.1", {0, 1, 2, 3, 9}, 13),
        ("6.12", {0, 1, 2, 3, 9}, 14),
    ],
)
def test_orders_on_per_cpu_lists(generation: str, orders: set[int], lists: int) -> None:
    machine = build_machine(MachineConfig(zones=(zone("Normal", 0, 1 << 14),), cpus=1, generation=generation))
    thp = int(machine.w[at.CFG_THP_LISTS])
    found = set(range(int(machine.w[at.CFG_PCP_ORDERS]))) | ({9} if thp else set())
    assert (found, 3 * int(machine.w[at.CFG_PCP_ORDERS]) + thp) == (orders, lists)


# ---------------------------------------------------------------- --machine
def test_options_in_any_order() -> None:
    options = {"cpus": "3", "pcp.batch": "31", "memory": "8GiB", "nodes": "2", "generation": "6.18", "seed": "5"}
    config = machine_options(default_machine(), options)
    assert config == machine_options(default_machine(), dict(reversed(options.items())))
    assert (config.cpus, config.nodes, config.generation, config.pcp_batch, config.seed) == (3, 2, "6.18", 31, 5)
    assert config.memory_bytes == pytest.approx(8 << 30, rel=0.001)
    assert {z.node for z in config.zones} == {0, 1}


def test_occupancy_replaces_a_snapshot() -> None:
    known = MachineConfig(zones=(ZoneConfig("Normal", 0, 4096, free_blocks=(4,) * 11),), cpus=1)
    config = machine_options(known, {"occupancy": "0.25"})
    machine = build_machine(config)
    assert word(machine, 0, at.Z_WORDS, at.Z_FREE) == 3072


@pytest.mark.parametrize(
    ("text", "size"), [("16GiB", 16 << 30), ("512mib", 512 << 20), ("1.5G", 3 << 29), ("4096", 4096)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("memory", "lots", "memory"),
        ("memory", "1MiB", "memory"),
        ("cpus", "0", "cpus"),
        ("cpus", "1025", "cpus"),
        ("nodes", "9", "nodes"),
        ("generation", "2.6", "generation"),
        ("occupancy", "1", "occupancy"),
        ("fragmentation", "-0.1", "fragmentation"),
        ("pcp.batch", "none", "pcp.batch"),
        ("pcp.scale_max", "7", "scale_max"),
        ("pcp_lock", "spinlock", "trylock_irqsave"),
        ("init_on_alloc", "maybe", "init_on_alloc"),
        ("pcp.bach", "3", "did you mean 'pcp.batch'"),
        ("colour", "red", "machine keys: memory"),
    ],
)
def test_bad_options_name_key_and_range(key: str, value: str, says: str) -> None:
    with pytest.raises(ParameterError) as caught:
        machine_options(default_machine(), {key: value})
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.exit_code == 5
