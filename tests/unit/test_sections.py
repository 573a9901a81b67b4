"""The longest sections under the pcp lock, what of them has interrupts off, and lists without a lock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.reference.pool_driver import BULK, CompiledPool
from tests.replay_samples import op, ops_of, request, run_engine
from tracereplay.cost.profile import load_profile
from tracereplay.cost.sections import UNLINK_SHARE, section_cost
from tracereplay.demand.stream import FREE, TARGETED
from tracereplay.kernel.generations import GENERATIONS, PCP_LOCKS
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.counters import COUNTERS, slot
from tracereplay.machine.options import machine_options
from tracereplay.replay.atomics import without_locks
from tracereplay.replay.sections import longest, sections

KERNEL, ZERO = 0xCC0, 0xDC0
BATCH = 15
ZONE = ZoneConfig("Normal", 0, 1 << 14, watermarks=Watermarks((0, 0, 0, 0), 50, 100, 200))
CONFIG = MachineConfig((ZONE,), cpus=1, generation="6.1", occupancy=0.0, pcp_batch=BATCH, pcp_high=600)


def after_bulk(pages: int, how: int = 0, gfp: int = KERNEL, calls: int = 1) -> at.Machine:
    """A machine, wholly free before, after bulk calls."""
    runner = CompiledPool(build_machine(CONFIG))
    for _ in range(calls):
        assert runner.run((BULK, 0, gfp, pages, how)) == [pages]
    return runner.machine


def counted(machine: at.Machine, name: str) -> int:
    return int(machine.c[slot(name)])


@pytest.mark.parametrize("gfp", [KERNEL, ZERO])
@pytest.mark.parametrize("how", [0, at.TWO_PASS])
@pytest.mark.parametrize("pages", [2, 15, 16, 64, 200])
def test_a_bulk_section_is_what_its_call_counts(pages: int, how: int, gfp: int) -> None:
    """All of the call's work is under the lock, but for what a second pass does."""
    machine = after_bulk(pages, how, gfp)
    found = longest(machine, at.SECTION_BULK)
    inside = how != at.TWO_PASS
    expected = {
        "refills": -(-pages // BATCH),
        "blocks_refilled": -(-pages // BATCH) * BATCH,
        "splits": counted(machine, "splits"),
        "fallbacks": counted(machine, "fallbacks"),
        "block_moves": counted(machine, "fallback_block_moves"),
        "unlinked": pages,
        "prepared": pages if inside else 0,
        "zeroed": pages if inside and gfp == ZERO else 0,
    }
    assert found == {"work": sum(expected.values()), **expected}
    assert counted(machine, "zeroed_pages") == (pages if gfp == ZERO else 0)


def test_the_longest_section_stays() -> None:
    """The second call finds 11 pages on the list, and splits less for the rest."""
    first, second = (longest(after_bulk(64, calls=calls), at.SECTION_BULK) for calls in (1, 2))
    assert first == second


@pytest.mark.parametrize("lock", PCP_LOCKS)
def test_interrupts_are_off_where_the_lock_says_and_in_refills(lock: str) -> None:
    machine = after_bulk(64)
    refill, call = longest(machine, at.SECTION_REFILL), longest(machine, at.SECTION_BULK)
    assert (refill["refills"], refill["blocks_refilled"], refill["unlinked"]) == (1, BATCH, 0)
    found = sections(machine, lock)
    assert found["pcp"] == {"lock": lock, **(call if lock != "llist" else dict.fromkeys(call, 0))}
    assert found["interrupts_off"] == {**(call if PCP_LOCKS[lock] else refill), "longest_drain_pages": 0}


def test_without_bulk_a_section_is_a_refill_and_a_page() -> None:
    ops = ops_of(request(0, [0] * 40, flags=TARGETED))
    machine = run_engine(ops, CONFIG).machine
    refill = longest(machine, at.SECTION_REFILL)
    found = sections(machine, "local_lock")
    assert found["pcp"]["work"] == found["interrupts_off"]["work"] == refill["work"] + 1
    assert found["pcp"]["unlinked"] == 1
    assert longest(machine, at.SECTION_BULK)["work"] == 0


def test_protection_by_generation_and_option() -> None:
    locks = {g: replace(CONFIG, generation=g).pcp_protection for g in GENERATIONS}
    assert locks == {
        "5.10": "irqoff",
        "5.14": "local_lock",
        "6.1": "trylock_irqsave",
        "6.7": "trylock",
        "6.12": "trylock",
        "6.18": "trylock",
        "6.19": "trylock",
    }
    assert machine_options(CONFIG, {"pcp_lock": "llist"}).describe()["pcp_lock"] == "llist"


def test_llist_moves_no_page_elsewhere() -> None:
    """Bursts that refill the list and drain it, on both machines."""
    rows: list[Any] = []
    for _ in range(4):
        rows += request(0, [0] * 200, flags=TARGETED)
        rows += [op(FREE, key, 0) for key in range(200)]
    config = replace(CONFIG, pcp_high=100)
    locked, lockless = (run_engine(ops_of(rows), replace(config, pcp_lock=lock)) for lock in ("trylock", "llist"))
    assert (locked.machine.w == lockless.machine.w).all()
    assert (locked.machine.pg == lockless.machine.pg).all()
    before, after = (dict(zip(COUNTERS, o.totals.tolist(), strict=False)) for o in (locked, lockless))
    assert min(before[name] for name in ("pcp_hits", "pcp_refills", "pcp_drains", "pcp_lock_acquisitions")) > 0
    changed = {name: after[name] for name in COUNTERS if after[name] != before[name]}
    atomics = before["pcp_hits"] + 2 * before["pcp_refills"] + before["frees_pcp"] + before["pcp_drain_pages"]
    assert changed == {"pcp_lock_acquisitions": 0, "pcp_atomics": atomics}
    assert (lockless.counts @ lockless.vectors == lockless.totals[: len(COUNTERS)]).all()


def test_llist_counts_atomics_for_locks() -> None:
    rng = np.random.default_rng(7)
    rows = rng.integers(0, 1000, (5, len(COUNTERS)))
    rows[:, slot("pcp_atomics")] = 0
    found = without_locks(rows)
    for before, after in zip(rows, found, strict=True):
        expected = dict(zip(COUNTERS, before.tolist(), strict=True))
        expected["pcp_atomics"] = (
            expected["pcp_hits"]  # pops
            + 2 * expected["pcp_refills"]  # the chain, and the pop after it
            + expected["frees_pcp"]  # pushes
            + expected["pcp_drain_pages"]  # no splice
        )
        expected["pcp_lock_acquisitions"] = 0
        assert dict(zip(COUNTERS, after.tolist(), strict=True)) == expected


def test_a_section_is_priced_part_by_part() -> None:
    profile = load_profile()
    prices = {c.name: c.value for c in profile.coefficients}
    parts = dict.fromkeys(at.SECTION_PARTS, 0)
    assert section_cost(parts, profile) == 0
    for part, price in (
        ("refills", prices["zone_lock"]),
        ("blocks_refilled", prices["refill_page"]),
        ("splits", prices["split"]),
        ("fallbacks", prices["fallback"]),
        ("block_moves", prices["block_move"]),
        ("zeroed", prices["zero_page"]),
        ("unlinked", prices["pcp_pop"] * UNLINK_SHARE),
        ("prepared", prices["pcp_pop"] * (1 - UNLINK_SHARE)),
    ):
        assert section_cost({**parts, part: 3}, profile) == pytest.approx(3 * price)
