"""Waiting at zone locks in replays of shipped traces: the queue after the replay against every hold in its turn.

``pytest -s`` prints the rows of the table in docs/contention.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.reference.slow_lock_queue import Operation, waits
from tracereplay.cost.contention import hold_prices, queue_of, work_between_holds
from tracereplay.cost.lock_queue import wait_percentile
from tracereplay.cost.profile import load_profile
from tracereplay.demand import open_demand
from tracereplay.demand.copies import CopiedDemand
from tracereplay.demand.stream import ALLOC, FIRST
from tracereplay.machine import layout as at
from tracereplay.machine.from_trace import machine_of
from tracereplay.machine.options import machine_options
from tracereplay.replay.engine import Engine
from tracereplay.replay.holds import slot_classes
from tracereplay.strategies.registry import load_strategy
from tracereplay.trace.reader import Trace

TRACES = Path(__file__).parents[2] / "traces"
PROFILE = load_profile()


@pytest.mark.parametrize(("name", "copies", "within"), [("dmcrypt-6.1-1M", 64, 1.3), ("mixed-6.18", 8, 2.0)])
def test_every_hold_in_its_turn(name: str, copies: int, within: float) -> None:
    """Operation by operation, so that each one's holds are known; those of one operation are taken as alike."""
    trace = Trace.open(TRACES / name)
    recorded = open_demand(trace)
    one = machine_options(machine_of(trace, recorded.info.cpus), {"memory": "16GiB"})
    copied = CopiedDemand(recorded, copies, cpus=one.cpus, seed=0)
    config = replace(one, cpus=copied.info.cpus)
    info = copied.info
    engine = Engine(load_strategy("per-page")(), config, frames=info.frames, start_ns=info.start_ns, end_ns=info.end_ns)
    w, zones = engine.machine.w, len(config.zones)
    prices = hold_prices(PROFILE, checked=bool(w[at.CFG_PAGE_CHECKS] == at.CHECK_LEAVING))
    rows = w[at.HOLDS : at.HOLDS + zones * at.HOLD_ROWS * at.HOLD_WORDS].reshape(zones, at.HOLD_ROWS, at.HOLD_WORDS)
    locks = w[at.Z_LOCKS : at.Z_LOCKS + zones * at.Z_WORDS : at.Z_WORDS]
    taken, before = locks.copy(), rows[:, :-1].sum(axis=1)
    held: list[list[tuple[int, int, int, float]]] = [[] for _ in range(zones)]
    for ops in copied:
        starts = np.flatnonzero((ops["kind"] != ALLOC) | (ops["flags"] & FIRST != 0)).tolist()
        for i, j in zip(starts, [*starts[1:], len(ops)], strict=True):
            engine.feed(ops[i:j])
            if (locks == taken).all():
                continue
            taken, now = locks.copy(), rows[:, :-1].sum(axis=1)
            for z, n in enumerate((now - before)[:, at.H_LOCKS].tolist()):
                if n:
                    each = float((now - before)[z] @ prices.weights) / n
                    held[z].append((int(ops["ts_ns"][i]), int(ops["cpu"][i]), n, each))
            before = now
    outcome = engine.finish()
    work = work_between_holds(outcome, zones, PROFILE, prices)
    z = max(range(zones), key=lambda z: len(held[z]))
    operations: list[Operation] = [
        (ts, cpu, [(each, work if n > 1 else 0.0)] * n) for ts, cpu, n, each in held[z]
    ]  # fmt: skip
    exact = np.array([wait for _, _, wait in waits(operations, prices.handover)])
    classes = slot_classes(engine.machine, z)
    acquisitions = classes[:, at.H_LOCKS].astype(np.float64)
    queue = queue_of(classes, prices, work)
    mean = float((queue.wait * acquisitions).sum() / acquisitions.sum())
    contended = float((queue.contended * acquisitions).sum() / acquisitions.sum())
    p99, exact_p99 = wait_percentile(queue, acquisitions, 0.99), float(np.quantile(exact, 0.99))
    print(
        f"\n| {name} x {copies} | {len(exact):,} | {100 * (exact > 0).mean():.1f} / {100 * contended:.1f} % "
        f"| {exact.mean():.0f} / {mean:.0f} | {exact_p99:,.0f} / {p99:,.0f} |"
    )
    assert len(exact) > 1000
    assert 1 / within < mean / exact.mean() < within
    assert 1 / within < contended / (exact > 0).mean() < within
    if exact_p99 > 0 and p99 > 0:
        assert 1 / 2 < p99 / exact_p99 < 2
