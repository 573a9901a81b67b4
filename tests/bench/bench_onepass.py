"""Speed of exact one-pass sweeps: 256 settings over 10 M page events, and one full replay of the same in this run.

Run: ``pytest tests/bench/bench_onepass.py -m bench -s``. The events are synthetic and bursty (demand/synthetic.py):
each CPU allocates or frees up to 256 blocks in a row, a tenth of them of orders 1 to 10. How far that packs is printed:
steps a word. Seconds are those of a sweep whose steps are there already: reading them, and no table of rows.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tracereplay.cost.profile import DEFAULT_PROFILE
from tracereplay.demand.synthetic import write_trace
from tracereplay.machine.options import machine_options
from tracereplay.whatif.grid import plan
from tracereplay.whatif.onepass import SIZES, steps_of
from tracereplay.whatif.onepass_sweep import Asking, sweep_lanes
from tracereplay.whatif.task import replayed, trace_of

pytestmark = pytest.mark.bench

EVENTS = 10_000_000
GRIDS = {
    "5.10, fixed": ("5.10", ["pcp.batch=7:127:8", "pcp.high=128:2048:128"]),
    "6.1, fixed": ("6.1", ["pcp.batch=7:127:8", "pcp.high=128:2048:128"]),
    "6.12, fixed": ("6.12", ["pcp.batch=7:127:8", "pcp.high=128:2048:128"]),
    "6.12, auto-tuned": ("6.12", ["pcp.batch=1:256:1"]),
}


def test_sweeps_of_256_settings(tmp_path: Path) -> None:
    trace = str(write_trace(tmp_path / "made", events=EVENTS))
    for name, (generation, grid) in GRIDS.items():
        machine = {"generation": generation, "memory": "64GiB"}
        question = plan([trace], ["per-page"], grid, machine=machine, profile=DEFAULT_PROFILE)
        tasks = list(question.tasks())
        steps, base = steps_of(trace_of(trace), tasks[0])
        configs = [machine_options(base, {key: text for key, text in task.machine if key in SIZES}) for task in tasks]
        sweep_lanes(steps, configs[:1], Asking(bulk=False))
        took = []
        for _ in range(3):
            start = time.perf_counter()
            sweep_lanes(steps, configs, Asking(bulk=False))
            took.append(time.perf_counter() - start)
        replayed(tasks[0])
        start = time.perf_counter()
        replayed(tasks[0])
        whole = time.perf_counter() - start
        print(
            f"\n{name}: {len(configs)} settings x {EVENTS:,} events in {min(took):.2f} s "
            f"({steps.facts.steps / steps.facts.words:.1f} steps a word); "
            f"a full replay of one takes {whole:.2f} s: {whole * len(configs) / min(took):.0f} times as long for all"
        )
        assert len(configs) == 256
