"""Derived figures of a machine against those read on real hosts, and what ``--machine`` takes."""

from __future__ import annotations

import re
from dataclasses import replace

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
    pcp_batch,
)
from tracereplay.machine.marks import derived_watermarks, watermarks_of
from tracereplay.machine.options import KEYS, machine_options, parse_size


def zone(name: str, start: int, managed: int, **more: object) -> ZoneConfig:
    return ZoneConfig(name, start, start + managed + 1023 & ~1023, managed=managed, **more)  # type: ignore[arg-type]


def live_zones() -> tuple[ZoneConfig, ...]:
    """Zones of a 16 GiB guest, kernel 6.18, as its /proc/zoneinfo shows them."""
    return (zone("DMA", 1, 3840), zone("DMA32", 0x1000, 772915), zone("Normal", 0x100000, 3538944))


def test_watermarks_and_reserves_of_a_real_host() -> None:
    found = derived_watermarks(MachineConfig(zones=live_zones(), cpus=2, generation="6.18"))
    assert [(m.min, m.low, m.high) for m in found] == [(15, 18, 21), (3025, 3797, 4569), (13854, 17392, 20930)]
    assert [m.low_reserve for m in found] == [(0, 3019, 16843, 16843), (0, 0, 13824, 13824), (0, 0, 0, 0)]


def test_sysctls_make_watermarks_anew() -> None:
    host = MachineConfig(zones=live_zones(), cpus=2, generation="6.18")
    derived = derived_watermarks(host)
    recorded = replace(host, zones=tuple(replace(z, watermarks=m) for z, m in zip(host.zones, derived, strict=True)))
    for config in (host, recorded):
        # what khugepaged had set there: 11 pageblocks for each of three zones
        same = watermarks_of(machine_options(config, {"min_free_kbytes": "67584"}))
        assert [(m.min, m.low, m.high) for m in same] == [(m.min, m.low, m.high) for m in derived]
        assert [m.low_reserve for m in same] == [m.low_reserve for m in derived]
        wide = watermarks_of(machine_options(config, {"watermark_scale_factor": "1000"}))
        assert [m.min for m in wide] == [m.min for m in derived]
        assert [m.low - m.min for m in wide] == [z.pages // 10 for z in config.zones]
        assert [m.high - m.low for m in wide] == [z.pages // 10 for z in config.zones]
        both = watermarks_of(machine_options(config, {"min_free_kbytes": "4096", "watermark_scale_factor": "20"}))
        assert [m.min for m in both] == [z.pages * 1024 // sum(z.pages for z in config.zones) for z in config.zones]
        assert both[2].low - both[2].min == config.zones[2].pages * 20 // 10000


def test_a_recorded_scale_factor_stays_with_another_min_free_kbytes() -> None:
    zones = (zone("Normal", 0, 1 << 18, watermarks=Watermarks(min=1000, low=9000, high=17000)),)
    config = machine_options(MachineConfig(zones=zones, cpus=1), {"min_free_kbytes": "8192"})
    assert [(m.min, m.low, m.high) for m in watermarks_of(config)] == [(2048, 10048, 18048)]
    assert word(build_machine(config), 0, at.Z_WORDS, at.Z_HIGH) == 18048


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


def test_a_fixed_high_is_tuned_by_no_generation() -> None:
    config = machine_options(MachineConfig(zones=live_zones(), cpus=2, generation="6.18"), {"pcp.high": "300"})
    machine = build_machine(config)
    limits = {word(machine, 4, at.P_WORDS, name) for name in (at.P_HIGH, at.P_HIGH_MIN, at.P_HIGH_MAX)}
    assert limits == {300}


def test_other_zones_than_the_host_had_are_said() -> None:
    host = MachineConfig(zones=(zone("Normal", 0, 1 << 18),), cpus=1, source="snapshot")
    config = machine_options(host, {"memory": "1GiB"})
    assert (config.source, len(config.notes)) == ("options", 1)
    assert "makes all zones anew" in config.notes[0]


def test_every_key_is_refused_by_name() -> None:
    for key in KEYS:
        with pytest.raises(ParameterError, match=re.escape(repr(key))):
            machine_options(default_machine(), {key: "?"})


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
        ("largest_free_order", "11", "0 to 10"),
        ("min_free_kbytes", "0", "vm.min_free_kbytes"),
        ("min_free_kbytes", "999999999", "all of the memory"),
        ("watermark_scale_factor", "3001", "1 to 3000"),
        ("llc_pages_per_cpu", "-1", "last-level"),
        ("pcp.high", "62", "below the batch of zone DMA32, 63"),
        ("memory", "infGiB", "size"),
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
