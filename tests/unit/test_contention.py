"""Waiting at the zone locks of a replay: what is added up, priced and said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.replay_samples import op, ops_of, request, run_engine
from tracereplay.cost.contention import HANDOVER, contention, hold_prices, queue_of
from tracereplay.cost.price import price
from tracereplay.cost.profile import load_profile
from tracereplay.demand.stream import FREE, TARGETED
from tracereplay.machine import layout as at
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.counters import COUNTERS
from tracereplay.replay.engine import Outcome
from tracereplay.replay.holds import busiest_slot, slot_classes

ZONE = ZoneConfig("Normal", 0, 1 << 16, watermarks=Watermarks((0, 0, 0, 0), 50, 100, 200))
CONFIG = MachineConfig((ZONE,), cpus=8, generation="6.1", occupancy=0.0, pcp_batch=31, pcp_high=200)
PROFILE = load_profile()


def demand(cpus: int, apart_ns: int, rounds: int = 50) -> Any:
    """Each CPU in turn takes 64 pages and, some rounds later, frees them."""
    rows: list[Any] = []
    for k in range(rounds * cpus):
        ts, cpu = k * apart_ns, k % cpus
        rows += request(64 * k, [0] * 64, flags=TARGETED, ts=ts, cpu=cpu)
        if k >= 10 * cpus:
            rows += [op(FREE, 64 * (k - 10 * cpus) + i, 0, ts=ts, cpu=cpu) for i in range(64)]
    return ops_of(rows)


def found(outcome: Outcome, profile: Any = PROFILE, config: MachineConfig = CONFIG) -> dict[str, Any]:
    counters = dict(zip(COUNTERS, outcome.totals.tolist(), strict=False))
    return contention(outcome, config, profile, counters)


def test_one_cpu_waits_for_nobody() -> None:
    result = found(run_engine(demand(1, 5_000), CONFIG, frames=1 << 16))
    lock = result["locks"][0]
    assert lock["acquisitions"] > 20
    assert lock["utilisation"] > 0
    assert lock["spin_total"] == lock["wait_mean"] == lock["wait_p99"] == lock["contended"] == 0
    assert result["spin_total"] == result["share_of_cost"] == 0


def test_more_cpus_at_the_same_rate_wait_more() -> None:
    spins = [
        found(run_engine(demand(cpus, 5_000, 400 // cpus), CONFIG, frames=1 << 16))["spin_total"] for cpus in (1, 2, 8)
    ]
    assert spins[0] == 0 < spins[1] < spins[2]


def test_less_often_is_less_waiting() -> None:
    spins = [
        found(run_engine(demand(8, apart), CONFIG, frames=1 << 16))["spin_total"]
        for apart in (1_000, 10_000, 1_000_000)
    ]
    assert spins[0] > spins[1] > spins[2] == 0  # 1 ms apart: nobody shares a slot


def test_holds_cost_what_the_run_counts() -> None:
    """All zone-lock work of a run is in its holds, at the price that the run pays for it."""
    outcome = run_engine(demand(4, 5_000), CONFIG, frames=1 << 16)
    prices = hold_prices(PROFILE, checked=False)
    rows = slot_classes(outcome.machine, 0)
    whole = dict(zip(COUNTERS, (outcome.totals + outcome.background).tolist(), strict=False))
    under = ("zone_lock", "refill_page", "drain_page", "split", "merge", "buddy_free", "fallback", "block_move")
    assert float(prices.totals(rows).sum()) == pytest.approx(sum(price(whole, PROFILE)[name] for name in under))
    assert rows[:, at.H_LOCKS].sum() == outcome.machine.w[at.Z_LOCKS]
    mean = prices.totals(rows) / rows[:, at.H_LOCKS]
    assert (prices.squares(rows) >= mean**2 * (1 - 1e-9)).all()


def test_what_the_profile_does_not_name_is_free() -> None:
    outcome = run_engine(demand(8, 1_000), CONFIG, frames=1 << 16)
    without = replace(PROFILE, parameters=tuple(p for p in PROFILE.parameters if p.name != HANDOVER))
    assert found(outcome, without)["handover"] is None
    assert found(outcome, without)["spin_total"] < found(outcome)["spin_total"]


def test_instructions_are_no_times() -> None:
    outcome = run_engine(demand(2, 5_000), CONFIG, frames=1 << 16)
    result = found(outcome, replace(PROFILE, unit="instructions"))
    assert "waiting needs times" in result["reason"]
    assert result["pcp_locks"]["acquisitions"] > 0
    assert "locks" not in result


def test_checked_pages_are_held_where_refills_check_them() -> None:
    dearer = replace(
        PROFILE,
        coefficients=tuple(
            replace(c, counters=(*c.counters, "new_pages_checked")) if c.name == "tail_check" else c
            for c in PROFILE.coefficients
        ),
    )
    plain, checked = (hold_prices(dearer, checked=checked).weights for checked in (False, True))
    tail = next(c.value for c in PROFILE.coefficients if c.name == "tail_check")
    assert checked[at.H_REFILL_PAGES] - plain[at.H_REFILL_PAGES] == tail


def test_the_busiest_slot() -> None:
    ops = demand(4, 50_000)
    ops["ts_ns"][640:1920] = ops["ts_ns"][640]  # many at once
    outcome = run_engine(ops, CONFIG, frames=1 << 16)
    row, start = busiest_slot(outcome.machine, 0) or (None, 0)
    assert row is not None
    at_once = int(ops["ts_ns"][640])
    assert start <= at_once < start + at.SLOT_NS
    assert row[at.H_LOCKS] == slot_classes(outcome.machine, 0)[:, at.H_LOCKS].max()
    slot = found(outcome)["locks"][0]["busiest_slot"]
    assert slot["acquisitions"] == row[at.H_LOCKS]
    assert slot["start_ns"] == start


def test_it_is_plain_data() -> None:
    for cpus in (1, 8):
        json.dumps(found(run_engine(demand(cpus, 5_000), CONFIG, frames=1 << 16)), allow_nan=False)


def test_an_idle_zone() -> None:
    config = replace(CONFIG, zones=(replace(ZONE, name="DMA32", end=1 << 12), replace(ZONE, start=1 << 12)))
    locks = found(run_engine(demand(2, 5_000), config, frames=1 << 16), config=config)["locks"]
    assert [lock["lock"] for lock in locks] == ["DMA32, node 0", "Normal, node 0"]
    assert locks[0]["acquisitions"] == locks[0]["spin_total"] == 0
    assert locks[0]["wait_mean"] is None


def test_rows_that_are_alike_wait_alike() -> None:
    """Adding up slots of one class changes no wait."""
    outcome = run_engine(demand(4, 5_000), CONFIG, frames=1 << 16)
    rows = slot_classes(outcome.machine, 0)
    prices = hold_prices(PROFILE, checked=False)
    assert np.allclose(queue_of(rows, prices, 0.0).wait, queue_of(3 * rows, prices, 0.0).wait)
