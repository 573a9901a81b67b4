"""Five calibrations one after another: time each, and whether each agrees with the others within its own ranges.

pytest -m bench tests/bench/bench_calibrate.py -s
"""

from __future__ import annotations

import os
import time

import pytest

from tracereplay.cost.calibrate.estimate import Calibration, calibrate
from tracereplay.cost.calibrate.run import measure
from tracereplay.trace.hostcheck import capture_path

RUNS = 5
LONGEST_S = 60.0


def agreement(runs: list[Calibration], name: str) -> tuple[int, int]:
    """How often the value of one run lies in the range of another, of how many pairs that claim it."""
    claimed = [run.claimed[name] for run in runs if name in run.claimed]
    pairs = [a.low <= b.value <= a.high for a in claimed for b in claimed if a is not b]
    return sum(pairs), len(pairs)


@pytest.mark.bench
def test_five_runs_agree() -> None:
    path, reason = capture_path()
    if path != "ebpf":
        pytest.skip(f"doctor: {reason}")
    runs: list[Calibration] = []
    took = []
    for _ in range(RUNS):
        started = time.perf_counter()
        runs.append(calibrate(measure()))
        took.append(time.perf_counter() - started)
    print(f"\n{RUNS} runs of {', '.join(f'{s:.1f}' for s in took)} s; load {os.getloadavg()[0]:.1f}")
    inside = pairs = 0
    for claim in runs[0].claims:
        name = claim.rule.target
        held, of = agreement(runs, name)
        inside, pairs = inside + held, pairs + of
        values = "  ".join(
            f"{run.claimed[name].value:8.2f}" if name in run.claimed else " refused" for run in runs
        )  # fmt: skip
        print(f"{name:<13} {values}   in each other's ranges: {held} of {of}")
    print(f"all: {inside} of {pairs} = {inside / max(pairs, 1):.1%}")
    assert max(took) < LONGEST_S
    assert inside >= 0.95 * pairs > 0
