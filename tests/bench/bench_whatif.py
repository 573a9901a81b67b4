"""Speed and memory of grids: ratios of one run. ``pytest tests/bench/bench_whatif.py -m bench -s``.

``TRACEREPLAY_BENCH_TRACE`` names a trace to use instead of the synthetic one of 5 million events.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tracereplay.demand.synthetic import write_trace
from tracereplay.whatif.executors import open_executor
from tracereplay.whatif.grid import plan
from tracereplay.whatif.processes import Processes
from tracereplay.whatif.run import run_tasks
from tracereplay.whatif.task import OK, Row, Task

pytestmark = pytest.mark.bench

EVENTS = 5_000_000
CPUS = 4
POINTS = 8
ROUNDS = 3
GRID = {
    "per-page": "pcp.batch=63",
    "bulk": "bulk.batch_cap=8:512:8",
    "compound": "compound.max_order=0:10:1",
    "unmapped-cache": "unmapped-cache.refill_order=0:9:1",
    "mempool-bulk": "mempool-bulk.pool_pages=64:896:64",
}
"""100 points."""

KERNEL = """
import sys, time
from tracereplay.whatif.grid import plan
from tracereplay.whatif.task import demand_of, run_task, trace_of
from tracereplay.machine.from_trace import configured_machine
from tracereplay.replay.run import prepared
from tracereplay.strategies.registry import choose
task = next(plan([sys.argv[1]], ["per-page"], ["pcp.batch=63"], profile="brouer-2021").tasks())
run_task(task)
trace, spool = trace_of(task.trace), demand_of(task.trace, task.demand.recorded)
ready = prepared(trace, spool, task.demand, lambda cpus: configured_machine(trace, cpus, dict(task.machine), 0))
(choice,) = choose(["per-page"], [])
batches = list(spool)
for line in sys.stdin:
    engines = [ready.engine(choice) for _ in range(int(line))]
    start = time.perf_counter()
    for engine in engines:
        for batch in batches:
            engine.feed(batch)
    print(time.perf_counter() - start, flush=True)
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The trace that is named, or one of EVENTS events."""
    named = os.environ.get("TRACEREPLAY_BENCH_TRACE")
    return named or str(write_trace(tmp_path_factory.mktemp("bench") / "t.trace", events=EVENTS, cpus=CPUS))


def tasks_of(trace: str, strategies: Sequence[str], *grid: str) -> list[Task]:
    """Points of a grid."""
    return list(plan([trace], strategies, grid, profile="brouer-2021").tasks())


def run(kind: str, tasks: Sequence[Task], workers: int, warm: Sequence[Task] = ()) -> float:
    """Seconds that points take on an executor whose workers are there and know the demand."""
    rows: list[Row] = []
    with open_executor(kind, workers) as executor:
        for _ in range(2 if kind == "processes" else 1):
            run_tasks(warm or tasks[:workers], executor, lambda _row: None, workers=workers)
        start = time.perf_counter()
        run_tasks(tasks, executor, rows.append, workers=workers)
        seconds = time.perf_counter() - start
    assert [row["status"] for row in rows] == [OK] * len(tasks)
    return seconds


def test_two_cores(trace: str) -> None:
    """A grid on two workers against two copies of the replay kernel."""
    tasks = tasks_of(trace, ["per-page"], f"pcp.batch=63:{62 + POINTS}:1")
    kernels = [
        subprocess.Popen(
            [sys.executable, "-c", KERNEL, trace], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]

    def fed(who: Sequence[subprocess.Popen[str]], times: int) -> float:
        for kernel in who:
            assert kernel.stdin is not None
            kernel.stdin.write(f"{times}\n")
            kernel.stdin.flush()
        return max(float(kernel.stdout.readline()) for kernel in who if kernel.stdout)

    fed(kernels, 1)
    for kind in ("threads", "processes"):
        best = 0.0
        for _ in range(ROUNDS):
            one, two = fed(kernels[:1], 2), fed(kernels, 2)
            apart = 2 * one / two
            grid = run(kind, tasks, 1) / run(kind, tasks, 2)
            best = max(best, grid / apart)
            print(
                f"\n{kind}: two kernels do {apart:.2f} times what one does, two workers {grid:.2f}: {grid / apart:.2f}"
            )
        print(f"{kind}: best of {ROUNDS}: {best:.2f}")
    for kernel in kernels:
        kernel.communicate("")


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_hundred_points(trace: str, kind: str) -> None:
    tasks = [task for strategy, grid in GRID.items() for task in tasks_of(trace, [strategy], grid)]
    first = {task.strategy: task for task in tasks}
    seconds = run(kind, tasks, 2, list(first.values()))
    print(f"\n{len(tasks)} points on two {kind}: {seconds:.1f} s, {seconds / len(tasks):.2f} s a point")


def test_memory_of_a_worker(tmp_path: Path) -> None:
    """A worker's most resident memory on two traces, one four times as long."""
    for events in (EVENTS, 4 * EVENTS):
        path = str(write_trace(tmp_path / f"{events}.trace", events=events, cpus=CPUS))
        executor = Processes(1)
        run_tasks(tasks_of(path, ["per-page"], "pcp.batch=31,63,127"), executor, lambda _row: None, workers=1)
        status = Path(f"/proc/{executor.pids[0]}/status").read_text()
        peak, now = (int(status.split(f"{name}:")[1].split()[0]) >> 10 for name in ("VmHWM", "VmRSS"))
        executor.shutdown()
        print(f"\n{events / 1e6:.0f} M events: {peak} MiB at most, {now} MiB after the last point")
