"""How often intervals of sampled points hold the full replay's figures: 1000 seeds for each of some points.

Run: ``pytest tests/bench/bench_sampling_coverage.py -m bench -s``; some minutes. Blocks of a point are replayed once;
what a seed finds is then arithmetic. A hundred seeds are also run as a user's are, and find the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.sampling_samples import DRAWS, MAIN, Case, baseline_of, case_of, coverage, prices, sampled
from tracereplay.demand.synthetic import write_trace
from tracereplay.whatif.sampled_point import Point, measure

pytestmark = pytest.mark.bench

EVENTS = 2_500_000
RUNS = 1000
WHOLE_RUNS = 100
LEAST = 0.93
FIXED = {"memory": "768MiB", "generation": "6.1"}
TUNED = {"memory": "768MiB", "generation": "6.12"}
POINTS: tuple[tuple[str, dict[str, str], tuple[tuple[str, dict[str, str]], ...]], ...] = (
    ("per-page", FIXED, (("per-page", {"pcp.batch": "31", "pcp.high": "186"}), ("per-page", {"pcp.high": "200"}))),
    ("per-page", TUNED, (("per-page", {"pcp.batch": "31"}), ("per-page", {"pcp.batch": "255"}))),
    ("bulk", FIXED, (("bulk", {"pcp.batch": "31"}), ("bulk:batch_cap=4", {}))),
)
"""Baselines, and the points that are measured against each."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events of four CPUs on 512 MiB."""
    return write_trace(tmp_path_factory.mktemp("bench") / "t.trace", events=EVENTS, cpus=4, memory=512 << 20)


def test_intervals_hold_what_they_should(trace: Path) -> None:
    names = ("cost", *MAIN)
    print(f"\n{'point':<44}{'replayed':>9}  " + "".join(f"{name[:16]:>18}" for name in names))
    for strategy, machine, points in POINTS:
        base = baseline_of(trace, strategy, machine)
        for number, (chosen, changes) in enumerate(points):
            case = case_of(base, chosen, changes, machine, trace)
            held, widths, work = coverage(case, RUNS, precision=0.05)
            settings = ", ".join(f"{name}={text}" for name, text in changes.items())
            told = f"{machine['generation']} {chosen} {settings}"
            cells = "".join(f"{100 * h:9.1f} % ±{100 * w:4.0f} %" for h, w in zip(held, widths, strict=True))
            print(f"{told:<44}{100 * work:7.0f} %  {cells}")
            assert (held >= LEAST).all(), told
            if number == 0:
                as_a_user_runs_them(case)


def as_a_user_runs_them(case: Case) -> None:
    """Block by block from checkpoints, a hundred times."""
    for seed in range(WHOLE_RUNS):
        known = sampled(case, seed, 0.05)
        base = case.point.base  # with that seed's order
        point = Point(base, case.point.choice, case.point.machine)
        found = measure(point, prices(), precision=0.05, draws=DRAWS, seed=seed)
        assert (found is None) == (known is None)
        if found is not None and known is not None:
            assert np.array_equal(found.low, known.low)
            assert np.array_equal(found.high, known.high)
