"""Distributions and rates against a list with one cost for each request."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracereplay.cost.distribution import SHARES, edges_for, histogram, percentiles, share_of_top, spread
from tracereplay.cost.rates import Covered, against, baseline_of

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
