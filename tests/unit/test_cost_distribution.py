"""Distributions and rates against a list with one cost for each request."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.demand_samples import MemoryTrace, page_row
from tests.reference.slow_demand import Event
from tests.replay_samples import ops_of, request
from tests.unit.test_engine import engine
from tracereplay.cost.distribution import SHARES, edges_for, histogram, percentiles, share_of_top, spread
from tracereplay.cost.price import price_vectors, total
from tracereplay.cost.profile import load_profile
from tracereplay.cost.rates import Covered, against, baseline_of, covered_time, rates
from tracereplay.demand.stream import TARGETED
from tracereplay.machine.counters import COUNTERS
from tracereplay.replay import layout as at

PAIRS = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(1e-3, 1e9)), st.integers(1, 2000)), min_size=0, max_size=12
)
Pairs = list[tuple[float, int]]


def arrays(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    return np.array([v for v, _ in pairs], np.float64), np.array([n for _, n in pairs], np.int64)


def each(pairs: Pairs) -> list[float]:
    """One cost for each request, ascending."""
    return sorted(v for v, n in pairs for _ in range(n))


@given(PAIRS)
def test_every_figure_is_that_of_the_list(pairs: Pairs) -> None:
    values, counts = arrays(pairs)
    costs = each(pairs)
    found = spread(values, counts, edges_for([(values, counts)]))
    assert found["count"] == len(costs)
    if not costs:
        assert found["mean"] is None
        assert set(found["percentiles"].values()) == {None}
        assert found["top1_percent_share"] is None
        assert found["histogram"] == {"edges": [], "requests": [], "zero": 0}
        return
    assert found["mean"] == pytest.approx(math.fsum(costs) / len(costs), rel=1e-12)
    for name, share in SHARES.items():
        rank = -(-round(share * 1_000_000) * len(costs) // 1_000_000)
        assert found["percentiles"][name] == costs[rank - 1]
    assert found["percentiles"]["max"] == costs[-1]
    top = costs[-(-len(costs) // 100) * -1 :]
    if costs[-1] > 0:
        assert found["top1_percent_share"] == pytest.approx(math.fsum(top) / math.fsum(costs), rel=1e-9)
    bins = found["histogram"]
    assert bins["zero"] == costs.count(0.0)
    edges = bins["edges"]
    for low, high, n in zip(edges, edges[1:], bins["requests"], strict=False):
        assert n == sum(low <= cost < high for cost in costs)
    assert bins["zero"] + sum(bins["requests"]) == len(costs)


@given(PAIRS, PAIRS)
def test_edges_hold_all_spreads(one: Pairs, other: Pairs) -> None:
    edges = edges_for([arrays(one), arrays(other)])
    assert edges == sorted(set(edges))
    for pairs in (one, other):
        found = histogram(*arrays(pairs), edges)
        assert found["zero"] + sum(found["requests"]) == len(each(pairs))


@pytest.mark.parametrize("value", [10.0**k for k in range(-3, 9)] + [31.62, 31.623, 99.999999, 100.00000001])
def test_a_value_on_an_edge(value: float) -> None:
    edges = edges_for([(np.array([value]), np.array([3]))])
    assert edges[0] <= value < edges[-1]
    assert sum(histogram(np.array([value]), np.array([3]), edges)["requests"]) == 3


def test_rows_that_no_request_had_do_not_count() -> None:
    values, counts = np.array([5.0, 1e6]), np.array([4, 0])
    assert percentiles(values, counts, [0.01, 0.5, 1.0]) == [5.0, 5.0, 5.0]
    assert max(edges_for([(values, counts)])) < 10
    assert share_of_top(values, counts) == 0.25


def test_top_is_rounded_up_to_whole_requests() -> None:
    values, counts = np.array([1.0, 100.0]), np.array([100, 1])
    assert share_of_top(values, counts) == pytest.approx(101 / 200)  # two of 101


def test_covered_time() -> None:
    assert Covered(2_000_000_000, 5e8).to_json() == {"span_s": 2.0, "lost_s": 0.5, "covered_s": 1.5}


@pytest.mark.parametrize(
    ("losses", "lost"),
    [
        ([], 0),
        ([(200, 300, 0)], 50),  # one of two CPUs
        ([(200, 300, None)], 100),  # nobody knows which: all
        ([(200, 300, 0), (250, 400, None)], (200 + 150) / 2),  # what overlaps counts once
        ([(None, 200, 1), (900, None, 1)], (100 + 100) / 2),  # open ends reach to those of the trace
    ],
)
def test_losses_cover_nothing(losses: list[Any], lost: float) -> None:
    events = [Event(100, 0, "alloc", 0, 5, 0xCC0, 10), Event(1000, 1, "free", 0, 5, 0, 10)]
    lossy = [
        {"t0_ns": t0, "t1_ns": t1, "cpu": cpu, "table": "page_events", "n": 1, "class": "ring_full"}
        for t0, t1, cpu in losses
    ]
    trace = MemoryTrace({"page_events": [page_row(e) for e in events], "loss": lossy})
    assert covered_time(trace) == Covered(900, lost)  # type: ignore[arg-type]


def outcome_of(arrivals: list[int], *, end_ns: int = 9_999_999_999) -> Any:
    """One page at a time; 120 bins over ten seconds."""
    runner = engine("per-page", end_ns=end_ns, bins=120)
    runner.feed(ops_of([r for k, ts in enumerate(arrivals) for r in request(k, [0], flags=TARGETED, ts=ts)]))
    return runner.finish()


def test_rates_are_the_total_over_the_covered_time() -> None:
    arrivals = sorted(int(1e9 * (1 + 3 * (k % 7) / 7)) for k in range(50)) + [7_100_000_000] * 30
    outcome = outcome_of(arrivals)
    counters = dict(zip(COUNTERS, outcome.totals.tolist(), strict=False))
    profile = load_profile()
    found = rates(outcome, counters, profile, Covered(10_000_000_000, 2e9))
    cost = total(counters, profile)
    assert found["cost_per_s"] == pytest.approx(cost / 8)
    assert found["cpu_s_per_day"] == pytest.approx(cost / 8 * 86_400e-9)
    assert (found["requests_per_s"], found["pages_per_s"]) == (10.0, 10.0)
    costs = price_vectors(outcome.series, profile)
    busiest = found["busiest"]
    assert busiest["window_s"] == pytest.approx(1.0, rel=0.01)
    bins = round(busiest["window_s"] * 1e9 / outcome.scalars[at.X_BIN_NS])
    most = max(float(costs[k : k + bins].sum()) for k in range(len(costs) - bins + 1))
    assert busiest["cost_per_s"] == pytest.approx(most / busiest["window_s"])


def test_a_profile_in_instructions_has_no_cpu_time() -> None:
    outcome = outcome_of([5])
    counters = dict(zip(COUNTERS, outcome.totals.tolist(), strict=False))
    found = rates(outcome, counters, replace(load_profile(), unit="instructions"), Covered(1_000_000_000, 0))
    assert found["cost_per_s"] > 0
    assert found["cpu_s_per_day"] is None
    assert "ns" in found["note"]


@pytest.mark.parametrize("covered", [Covered(0, 0), Covered(1000, 1000.0)])
def test_no_time_no_rate(covered: Covered) -> None:
    found = rates(outcome_of([], end_ns=0), {}, load_profile(), covered)
    named = ("requests_per_s", "pages_per_s", "cost_per_s", "cpu_s_per_day")
    assert all(found[name] is None for name in named)
    assert found["busiest"] is None or found["busiest"]["cost_per_s"] == 0


def test_difference_against_per_page() -> None:
    def entry(strategy: str, cost: float, day: float | None) -> dict[str, object]:
        return {"strategy": strategy, "label": strategy, "rates": {"cost_per_s": cost, "cpu_s_per_day": day}}

    entries = [entry("bulk", 3.0, 1.0), entry("per-page", 5.0, 4.0), entry("compound", 1.0, None)]
    against(entries)
    assert baseline_of(entries) is entries[1]
    found = [e["rates"]["versus"] for e in entries]  # type: ignore[index]
    assert found[0] == {"label": "per-page", "cost_per_s": -2.0, "cpu_s_per_day": -3.0}
    assert found[1] == {"label": "per-page", "cost_per_s": 0.0, "cpu_s_per_day": 0.0}
    assert found[2] == {"label": "per-page", "cost_per_s": -4.0, "cpu_s_per_day": None}
    against([])
