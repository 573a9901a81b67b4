"""The arithmetic of docs/fleet.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.bench.fleet_plan import DAY_S, Rates, hosts_needed, load

RATES = Rates("x", 1000.0, 3.0, 1e6, 1e-6, 1e-7, 2e-7)


def test_a_day_of_one_host() -> None:
    found = load(RATES, 1, DAY_S, 24, strategies=3)
    assert found.bytes == 86_400_000 * 3 + 24e6
    assert found.replay_hours == pytest.approx(86_400_000 * 1.2e-6 / 3600)
    assert found.analyze_hours == pytest.approx(86_400_000 * 2e-7 / 3600)
    many = load(RATES, 1000, DAY_S, 24, strategies=3)
    assert (many.bytes, many.traces) == (1000 * found.bytes, 24_000)


def test_hosts_to_draw() -> None:
    assert hosts_needed(10**9, 0.5, 0.05) == math.ceil((1.96 * 0.5 / 0.05) ** 2)
    assert hosts_needed(10, 0.5, 0.05) == 10
    assert hosts_needed(1000, 0.5, 0.05) < hosts_needed(100_000, 0.5, 0.05)
    random = np.random.default_rng(1)
    fleet = random.gamma(4, 1, 1000)  # standard deviation over mean is a half
    n = hosts_needed(1000, fleet.std() / fleet.mean(), 0.05)
    off = [abs(random.choice(fleet, n, replace=False).mean() / fleet.mean() - 1) <= 0.05 for _ in range(2000)]
    assert np.mean(off) == pytest.approx(0.95, abs=0.02)
