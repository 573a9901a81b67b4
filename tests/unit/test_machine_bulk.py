"""``alloc_pages_bulk`` step by step, by generation (page-allocator.md 5.2 and 5.3)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.reference.machine_driver import ALLOC, BULK, Compiled, counters_of, word
from tests.replay_samples import ops_of, request, run_engine
from tracereplay.demand.stream import TARGETED, UNSEEN
from tracereplay.errors import StrategyError
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.counters import slot

WITH_BULK = [name for name, g in GENERATIONS.items() if g.has_bulk]
LATER = [name for name in WITH_BULK if name != "5.14"]
KERNEL, ACCOUNT, MOVABLE = 0xCC0, 0x400CC0, 0x100CCA


def marks(low: int) -> Watermarks:
    return Watermarks((0, 0, 0, 0), low // 2, low, 2 * low)


def machine(generation: str = "6.12", low: int = 100, pages: int = 1 << 14, **more: object) -> Compiled:
    """One zone, all free, one CPU, batch 15."""
    zone = ZoneConfig("Normal", 0, pages, watermarks=marks(low))
    config = MachineConfig(zones=(zone,), cpus=1, generation=generation, occupancy=0.0, pcp_batch=15)
    return Compiled(build_machine(replace(config, **more)))  # type: ignore[arg-type]


def bulk(runner: Compiled, slots: int, filled: int = 0, gfp: int = KERNEL, cpu: int = 0) -> int:
    return runner.run(np.array([(BULK, cpu, 0, gfp, slots, filled)], np.int64))[0]


def counts(runner: Compiled, *names: str) -> tuple[int, ...]:
    return tuple(counters_of(runner.machine.c).get(name, 0) for name in names)


@pytest.mark.parametrize("generation", WITH_BULK)
def test_one_lock_and_one_watermark_test_a_call(generation: str) -> None:
    runner = machine(generation)
    assert bulk(runner, 100) == 100
    assert counts(runner, "bulk_calls", "alloc_calls", "pcp_lock_acquisitions", "watermark_checks") == (1, 0, 1, 1)
    assert counts(runner, "pages_allocated", "memcg_charges", "failed_attempts") == (100, 0, 0)


@pytest.mark.parametrize("generation", WITH_BULK)
def test_filled_slots_stay_and_count(generation: str) -> None:
    runner = machine(generation)
    assert bulk(runner, 16, 0b0000_1111_0000_1111) == 16
    assert len(runner.live) == 8
    assert bulk(runner, 16, 0xFFFF) == 16
    assert len(runner.live) == 8
    assert counts(runner, "pcp_lock_acquisitions", "alloc_calls") == (1, 0)


@pytest.mark.parametrize("generation", WITH_BULK)
@pytest.mark.parametrize(
    ("slots", "filled", "singles"),
    [
        (1, 0, 1),
        (8, 0b0111_1111, 1),  # one is missing after the filled first ones
        (8, 0b1111_1110, 0),  # one is missing, but eight are to be looked at
        (8, 0b0011_1111, 0),
    ],
)
def test_a_single_slot_at_the_end_goes_the_ordinary_way(generation: str, slots: int, filled: int, singles: int) -> None:
    runner = machine(generation)
    assert bulk(runner, slots, filled) == slots
    assert counts(runner, "alloc_calls", "pcp_lock_acquisitions") == (singles, 1)


@pytest.mark.parametrize("generation", LATER)
def test_accounted_requests_get_one_charged_page(generation: str) -> None:
    runner = machine(generation)
    assert bulk(runner, 20, gfp=ACCOUNT) == 1
    assert bulk(runner, 20, 0b1, gfp=ACCOUNT) == 2  # the filled one and the next; slot 16, filled too, lies behind
    assert counts(runner, "alloc_calls", "memcg_charges", "pages_allocated") == (2, 2, 2)


def test_5_14_serves_accounted_requests_without_charge() -> None:
    runner = machine("5.14")
    assert bulk(runner, 20, gfp=ACCOUNT) == 20
    assert counts(runner, "alloc_calls", "memcg_charges", "pages_allocated") == (0, 0, 20)


@pytest.mark.parametrize("generation", WITH_BULK)
def test_the_mark_is_low_plus_all_slots(generation: str) -> None:
    """Of 1024 free pages with LOW at 100, 923 may be asked for; filled slots count."""
    runner = machine(generation, pages=1024)
    assert bulk(runner, 924) == 1
    assert counts(runner, "alloc_calls") == (1,)
    runner = machine(generation, pages=1024)
    assert bulk(runner, 923, 0x0F0F) == 923
    assert counts(runner, "alloc_calls") == (0,)


@pytest.mark.parametrize("generation", WITH_BULK)
def test_high_is_not_tested_and_nothing_halved(generation: str) -> None:
    runner = machine(generation, low=600, pages=1024)  # HIGH at 1200 cannot hold
    runner.machine.w[at.P_FREE_COUNT] = runner.machine.w[at.P_FREE_FACTOR] = 8
    assert bulk(runner, 50) == 50
    assert word(runner.machine, 0, at.Z_WORDS, at.Z_BELOW_HIGH) == 0
    assert (runner.machine.w[at.P_FREE_COUNT], runner.machine.w[at.P_FREE_FACTOR]) == (8, 8)
    runner.run(np.array([(ALLOC, 0, 0, KERNEL, 0, 0)], np.int64))
    assert word(runner.machine, 0, at.Z_WORDS, at.Z_BELOW_HIGH) == (GENERATIONS[generation].pcp_rule == 2)


@pytest.mark.parametrize("generation", WITH_BULK)
def test_a_zone_of_another_node_means_a_single_page(generation: str) -> None:
    zones = (
        ZoneConfig("Normal", 0, 1024, 0, watermarks=marks(1000)),
        ZoneConfig("Normal", 1024, 4096, 1, watermarks=marks(100)),
    )
    config = MachineConfig(zones=zones, cpus=2, nodes=2, generation=generation, occupancy=0.0)
    runner = Compiled(build_machine(config))
    assert bulk(runner, 64) == 1  # the first node has not 1064 pages
    assert bulk(runner, 64, cpu=1) == 64


@pytest.mark.parametrize("generation", WITH_BULK)
def test_the_reserve_is_that_of_the_preferred_zone(generation: str) -> None:
    """A request that may use Movable, on a machine without: DMA32 keeps what it keeps from Normal."""
    zones = (
        ZoneConfig("DMA32", 0, 2048, watermarks=Watermarks((0, 0, 100, 2000), 50, 100, 200)),
        ZoneConfig("Normal", 2048, 3072, watermarks=marks(1020)),
    )
    config = MachineConfig(zones=zones, cpus=1, generation=generation, occupancy=0.0)
    runner = Compiled(build_machine(config))
    assert bulk(runner, 64, gfp=MOVABLE) == 64
    assert {frame >> 11 for frame, _ in runner.live} == {0}


@pytest.mark.parametrize("generation", WITH_BULK)
def test_a_call_ends_where_the_pages_do(generation: str) -> None:
    """The watermark promises pages that no list of the type has: only CMA or HIGHATOMIC blocks are left."""
    runner = machine(generation, low=0, pages=1024)
    runner.machine.pb[at.B_TYPE :: at.B_WORDS] = 3
    left = runner.run(np.array([(ALLOC, 0, 10, KERNEL, 0, 0)], np.int64))
    assert left != [-1]
    runner.machine.w[at.Z_FREE] = 500  # as if pages that only others may use were free
    assert bulk(runner, 20) == 0
    taken = counts(runner, "failed_attempts")
    assert bulk(runner, 20, 0b11) == 2
    # 5.14 sees that the array is not empty and asks no further
    assert counts(runner, "failed_attempts") == (taken[0] + (generation != "5.14"),)


@pytest.mark.parametrize("generation", WITH_BULK)
def test_partial_results_count_no_slots_behind(generation: str) -> None:
    """Every 16th slot is filled: those passed count, those behind the first that stays empty do not."""
    runner = machine(generation, low=0, pages=1024)
    runner.run(np.array([(ALLOC, 0, 8, KERNEL, 0, 0)] * 3 + [(ALLOC, 0, 0, KERNEL, 0, 0)] * 200, np.int64))
    left = int(runner.machine.w[at.Z_FREE] + runner.machine.w[at.P_COUNT])
    runner.machine.w[at.Z_FREE] += 5000  # else LOW stops it before
    live = len(runner.live)
    came = bulk(runner, 400, 1 << 15)
    assert 15 < left < 256
    assert len(runner.live) - live == left
    assert came == left + left // 15


def test_5_10_has_no_bulk_allocator() -> None:
    stream = ops_of(request(0, [0] * 8, flags=TARGETED))
    config = MachineConfig(zones=(ZoneConfig("Normal", 0, 8192),), cpus=1, generation="5.10")
    message = r"'bulk' calls alloc_pages_bulk, which kernel 5\.10 does not have"
    with pytest.raises(StrategyError, match=message) as error:
        run_engine(stream, config, "bulk")
    assert "generation=5.14" in str(error.value.hint)


def test_unseen_bulk_pages_come_singly_on_5_10() -> None:
    """Recorded on a later kernel, simulated on this one."""
    stream = ops_of(request(0, [0] * 8, flags=UNSEEN) + request(100, [0]))
    config = MachineConfig(zones=(ZoneConfig("Normal", 0, 8192),), cpus=1, generation="5.10")
    outcome = run_engine(stream, config, "per-page")
    background = {name: int(outcome.background[slot(name)]) for name in ("alloc_calls", "bulk_calls")}
    assert background == {"alloc_calls": 9, "bulk_calls": 0}
