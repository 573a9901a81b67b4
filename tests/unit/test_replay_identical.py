"""Counters do not depend on how many threads replay, nor on the run: every built-in strategy, on a recorded trace."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tracereplay.machine.from_trace import machine_of
from tracereplay.replay.engine import Outcome
from tracereplay.replay.run import replay
from tracereplay.strategies.registry import choose, known_strategies
from tracereplay.trace.reader import Trace

TRACE = Path(__file__).parents[2] / "traces" / "dmcrypt-6.1-1M"


def outcomes(threads: int, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    monkeypatch.setattr(os, "cpu_count", lambda: threads)
    trace = Trace.open(TRACE)
    done = replay(trace, choose(list(known_strategies())), lambda cpus: machine_of(trace, cpus), path="dm-crypt")
    return [outcome for _, outcome in done.outcomes]


def test_counters_are_the_same_in_every_run_and_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = (outcomes(threads, monkeypatch) for threads in (1, 1, 4))
    assert all(outcome.totals.any() for outcome in first)
    for run in others:
        for one, other in zip(first, run, strict=True):
            for field in ("totals", "background", "vectors", "counts", "series", "background_series"):
                assert np.array_equal(getattr(one, field), getattr(other, field))
            assert np.array_equal(one.machine.w, other.machine.w)
