"""The vmstat workers' phase: found from noisy drains, across the second's end, and unknown where too few speak."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trace_samples import metadata, rows_batch
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.trace.reader import Trace
from tracereplay.trace.writer import TraceWriter
from tracereplay.verify import layout as at
from tracereplay.verify.controls import LEAST_DRAINS, SECOND_NS, WINDOW_NS, controls_of, densest, learn_phase

SKEW = 12_000_000
MS = 1_000_000


def near(phase: int, wanted: int) -> bool:
    """Within a window of each other, around the second."""
    return abs((phase - wanted + SECOND_NS // 2) % SECOND_NS - SECOND_NS // 2) <= WINDOW_NS


@pytest.mark.parametrize("wanted", [0, 3 * MS, 500 * MS, 980 * MS, 999 * MS])
def test_phase_is_found_among_drains_that_come_late_and_others(wanted: int) -> None:
    rng = random.Random(wanted)
    workers = [s * SECOND_NS + wanted + rng.randrange(20) * MS for s in range(100, 160)]
    others = [rng.randrange(100 * SECOND_NS, 160 * SECOND_NS) for _ in range(60)]
    phase = densest(np.array(rng.sample(workers + others, 120), np.int64), SKEW)
    assert near(phase.ns, wanted)
    assert 60 <= phase.drains <= 80
    assert phase.skew_ns == SKEW
    assert 0 <= phase.ns < SECOND_NS


def test_too_few_drains_say_nothing() -> None:
    few = np.array([s * SECOND_NS + 400 * MS for s in range(LEAST_DRAINS - 1)], np.int64)
    assert densest(few, SKEW).drains == 0
    assert densest(few[:0], SKEW).drains == 0
    one_more = np.append(few, 7 * SECOND_NS + 401 * MS)
    assert densest(one_more, SKEW).drains == LEAST_DRAINS
    assert near(densest(one_more, SKEW).ns, 400 * MS)


def test_scattered_drains_say_nothing() -> None:
    apart = np.arange(8, dtype=np.int64) * (2 * WINDOW_NS) + 5 * SECOND_NS
    assert densest(apart, SKEW).drains == 0


# ---------------------------------------------------------------- from a trace
def written(path: Path, drains: list[tuple[int, int, int]], comms: dict[int, str], span: tuple[int, int]) -> Trace:
    """A trace of drain events (time, CPU, pid) between an allocation at either end of ``span``."""
    ends: list[dict[str, Any]] = [
        {"ts_ns": ts, "cpu": 0, "kind": "alloc", "pfn": 64, "order": 0, "migratetype": 0, "pid": 1} for ts in span
    ]
    rows = [
        {"ts_ns": ts, "cpu": cpu, "kind": "drain", "pfn": 8 + i, "order": 0, "migratetype": 1, "pid": pid}
        for i, (ts, cpu, pid) in enumerate(drains)
    ]
    tasks = [{"pid": pid, "tgid": pid, "comm": comm, "first_ns": 0, "last_ns": 1} for pid, comm in comms.items()]
    with TraceWriter(path, metadata()) as writer:
        writer.write("page_events", rows_batch("page_events", sorted(ends + rows, key=lambda r: r["ts_ns"])))
        writer.write("tasks", rows_batch("tasks", tasks))
    return Trace.open(path)


def test_phase_comes_from_drains_by_kworkers_brought_to_cpu_0(tmp_path: Path) -> None:
    rng = random.Random(7)
    start, phase = 50 * SECOND_NS, 250 * MS
    drains = [
        (start + s * SECOND_NS + phase - cpu * SKEW + late * MS + i * 2000, cpu, 40 + cpu)
        for s in range(20)
        for cpu, late in enumerate(rng.choices(range(5), k=4))
        for i in range(3)  # of one run: it counts once
    ]
    drains += [(start + i * SECOND_NS // 3 + 700 * MS, 1, 90) for i in range(50)]  # a task's own
    comms = {40 + cpu: f"kworker/{cpu}:1" for cpu in range(4)} | {90: "cc1"}
    found = learn_phase(written(tmp_path / "t", drains, comms, (start, start + 21 * SECOND_NS)))
    assert near(found.ns, phase)
    assert found.drains == 80
    assert found.skew_ns == SKEW


def test_without_workers_the_phase_is_not_known(tmp_path: Path) -> None:
    drains = [(s * SECOND_NS, 0, 90) for s in range(1, 20)]
    assert learn_phase(written(tmp_path / "t", drains, {90: "cc1"}, (0, 30 * SECOND_NS))).drains == 0


def test_each_cpus_worker_runs_once_a_second_a_little_before_the_last_ones(tmp_path: Path) -> None:
    trace = written(tmp_path / "t", [(10 * SECOND_NS, 0, 40)], {40: "kworker/0:0"}, (SECOND_NS // 2, 10 * SECOND_NS))
    config = MachineConfig(zones=(ZoneConfig("Normal", 0, 4096),), cpus=3, generation="6.12")
    phase = densest(np.array([s * SECOND_NS + 5 * MS for s in range(5)], np.int64), SKEW)
    rows = controls_of(trace, config, None, phase)
    assert set(rows[:, 1].tolist()) == {at.CTL_TICK}
    assert (np.diff(rows[:, 0]) >= 0).all()
    for cpu in range(3):
        times = rows[rows[:, 2] == cpu, 0]
        assert (np.diff(times) == SECOND_NS).all()
        assert (times % SECOND_NS == (phase.ns - cpu * SKEW) % SECOND_NS).all()
        assert SECOND_NS // 2 < times[0] <= SECOND_NS * 3 // 2
        assert times[-1] <= 10 * SECOND_NS < times[-1] + SECOND_NS
    assert len(controls_of(trace, replace(config, generation="6.1"), None, phase)) == 0
