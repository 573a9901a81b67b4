"""Ranking of strategies at the settings of a sweep, and where it changes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from tracereplay.cost.bootstrap import Sample
from tracereplay.cost.intervals import compared, judged, pricing
from tracereplay.cost.price import total
from tracereplay.cost.profile import DEFAULT_PROFILE, load_profile
from tracereplay.machine.counters import COUNTERS, NR_COUNTERS
from tracereplay.whatif.crossings import crossings, is_numeric, number_of
from tracereplay.whatif.prices import DRAWS, page_cost
from tracereplay.whatif.ranking import COLUMNS, rank_rows, with_ranks

PROFILE = load_profile(DEFAULT_PROFILE)


def row(label: str, cost: float | None, spread: float = 0.0, **settings: Any) -> dict[str, Any]:
    """A point without a sample: its interval is ``cost`` give or take ``spread``."""
    return {
        "status": "failed" if cost is None else "ok",
        "trace_id": "t",
        "label": label,
        "profile": DEFAULT_PROFILE,
        "seed": 0,
        "requests": 1000,
        "failed": 0,
        "waiting": 0,
        "per_page": cost,
        "per_page_low95": None if cost is None else cost - spread,
        "per_page_high95": None if cost is None else cost + spread,
        "sample": None,
    } | settings


def sampled_row(label: str, counters: np.ndarray[Any, Any], **settings: Any) -> dict[str, Any]:
    """A point of 10 pages and one request in each slice. ``counters``: [slice, NR_COUNTERS]."""
    slices = len(counters)
    sample = Sample(
        requests=np.ones(slices, np.int64),
        pages=np.full(slices, 10),
        counters=counters,
        worker=np.zeros_like(counters),
        end=np.zeros(NR_COUNTERS, np.int64),
        vectors=None,
        cells=np.zeros((0, 3), np.int64),
    )
    whole = dict(zip(COUNTERS, counters.sum(axis=0).tolist(), strict=True))
    return row(label, total(whole, PROFILE) / (10 * slices), **settings) | {
        "sample": json.dumps(sample.to_json()),
        "machine": json.dumps({"cpus": 8}),
    }


def counters_like(seed: int, **rates: float) -> np.ndarray[Any, Any]:
    table = np.zeros((40, NR_COUNTERS), np.int64)
    random = np.random.default_rng(seed)
    for name, rate in rates.items():
        table[:, COUNTERS.index(name)] = random.poisson(rate, 40)
    return table


def test_difference_and_interval_are_those_of_a_comparison() -> None:
    a = sampled_row("a", counters_like(1, alloc_calls=10, pcp_refills=3))
    b = sampled_row("b", counters_like(2, alloc_calls=9, zone_lock_acquisitions=2))
    found = rank_rows([a, b], [])
    p = pricing(PROFILE, 0, DRAWS)
    expected = compared(
        "a",
        judged(Sample.from_json(json.loads(a["sample"])), p),
        "b",
        judged(Sample.from_json(json.loads(b["sample"])), p),
        p,
    )
    assert found[0]["difference_per_page"] == pytest.approx(expected["difference"], rel=1e-12)
    ends = [found[0]["difference_low95"], found[0]["difference_high95"]]
    assert ends == pytest.approx(expected["difference_interval95"], rel=1e-12)
    assert found[0]["settled"] == expected["beyond"]
    assert found[1]["difference_low95"] == pytest.approx(-ends[1])
    assert {found[0]["versus"], found[1]["versus"]} == {"a", "b"}


def test_common_draws_settle_what_intervals_of_their_own_leave_open() -> None:
    counters = counters_like(1, alloc_calls=10, zone_lock_acquisitions=5)
    dearer = counters.copy()
    dearer[:, COUNTERS.index("zone_lock_acquisitions")] += 1
    rows = [sampled_row("a", counters), sampled_row("b", dearer)]
    costs = [page_cost(r) for r in rows]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[0].draws is not None
    assert np.quantile(costs[0].draws, 0.975) > costs[1].value
    assert [r["settled"] for r in rank_rows(rows, [])] == [True, True]


def test_what_estimates_are_off_by_widens_the_difference() -> None:
    counters = counters_like(1, alloc_calls=10)
    dearer = counters.copy()
    dearer[:, COUNTERS.index("alloc_calls")] += 1
    a, b = sampled_row("a", counters), sampled_row("b", dearer)
    (exact, _) = rank_rows([a, b], [])
    assert exact["settled"]
    difference = exact["difference_per_page"]
    a["intervals"] = json.dumps({"per_page": [a["per_page"] + 3 * difference, a["per_page"] - 4 * difference]})
    (estimated, _) = rank_rows([a, b], [])
    assert not estimated["settled"]
    below = difference - exact["difference_low95"]
    above = exact["difference_high95"] - difference
    assert difference - estimated["difference_low95"] == pytest.approx((below**2 + (3 * difference) ** 2) ** 0.5)
    assert estimated["difference_high95"] - difference == pytest.approx((above**2 + (4 * difference) ** 2) ** 0.5)


def test_ranks_within_a_setting() -> None:
    rows = [
        row("a", 3.0, 0.1, batch="1"),
        row("b", 2.0, 0.1, batch="1"),
        row("c", 2.1, 0.1, batch="1"),
        row("a", 1.0, batch="2"),
        row("b", 4.0, batch="2"),
        row("c", None, batch="2"),
        row("a", 7.0, batch="1") | {"trace_id": "other"},
    ]
    found = rank_rows(rows, ["batch"])
    assert [r["rank"] for r in found] == [3, 1, 2, 1, 2, None, 1]
    assert [r["versus"] for r in found] == ["b", "c", "b", "b", "a", None, None]
    assert [r["settled"] for r in found] == [True, False, False, True, True, None, None]
    assert found[1]["difference_per_page"] == pytest.approx(-0.1)
    assert (found[1]["difference_low95"], found[1]["difference_high95"]) == pytest.approx((-0.3, 0.1))


def test_an_axis_of_one_strategy_gives_it_several_points_at_a_setting() -> None:
    rows = [
        row("a", 3.0, **{"b.cap": None}),
        row("b", 4.0, **{"b.cap": "1"}),
        row("b", 2.0, **{"b.cap": "8"}),
        row("b", 2.5, **{"b.cap": "4"}),
    ]
    found = rank_rows(rows, ["b.cap"])
    assert [(r["rank"], r["versus"]) for r in found] == [(3, "b[cap=8]"), (4, "a"), (1, "a"), (2, "a")]
    assert [r["versus"] for r in rank_rows(rows[1:], ["b.cap"])] == ["b[cap=8]", "b[cap=4]", "b[cap=8]"]


def test_who_leaves_requests_unserved_is_not_cheapest() -> None:
    rows = [row("a", 3.0), row("b", 1.0) | {"failed": 100}, row("c", 4.0, 5.0)]
    found = rank_rows(rows, [])
    assert [r["rank"] for r in found] == [1, 3, 2]
    assert [(r["versus"], r["settled"]) for r in found] == [("c", False), ("a", True), ("a", False)]


def test_columns_at_the_end_of_the_table() -> None:
    frame = pl.DataFrame([row("a", 3.0, batch="1"), row("b", None, batch="1")])
    once = with_ranks(frame, ["batch"])
    assert tuple(once.columns[-len(COLUMNS) :]) == COLUMNS
    assert with_ranks(once, ["batch"]).equals(once)
    assert once["rank"].to_list() == [1, None]


@pytest.mark.parametrize(
    ("text", "number"), [("31", 31.0), ("0.5", 0.5), ("16GiB", float(16 << 30)), ("dm-crypt", None)]
)
def test_numbers_of_values(text: str, number: float | None) -> None:
    assert number_of(text) == number


def test_generations_are_names() -> None:
    assert not is_numeric("generation", ["6.7", "6.12"])
    assert is_numeric("copies", ["1", "2"])


def lines(axis: str, **costs: list[tuple[float, float]]) -> pl.DataFrame:
    """Strategies with cost and spread at 0, 10, 20 ..."""
    return pl.DataFrame(
        [
            row(label, cost, spread, **{axis: str(10 * i)})
            for label, values in costs.items()
            for i, (cost, spread) in enumerate(values)
        ]
    )


def test_a_crossing_lies_between_its_neighbours_with_its_unsettled_range() -> None:
    # a - b: -4, -1, 1, 2 give or take 0.5, 2, 2, 0.5
    frame = lines(
        "x", a=[(1.0, 0.25), (4.0, 1.0), (6.0, 1.0), (7.0, 0.25)], b=[(5.0, 0.25), (5.0, 1.0), (5.0, 1.0), (5.0, 0.25)]
    )
    (found,) = crossings(frame, "x", ["x"]).to_dicts()
    assert (found["below"], found["above"], found["left"], found["right"], found["best"]) == ("a", "b", 10, 20, True)
    assert found["at"] == pytest.approx(15)
    assert found["low"] == pytest.approx(0 + 10 * 3.5 / 4.5)
    assert found["high"] == pytest.approx(20 + 10 * 1 / 2.5)


def test_the_unsettled_range_may_go_on_to_an_end() -> None:
    frame = lines("x", a=[(4.0, 1.0), (6.0, 1.0), (9.0, 0.0)], b=[(5.0, 1.0), (5.0, 1.0), (5.0, 0.0)])
    (found,) = crossings(frame, "x", ["x"]).to_dicts()
    assert found["low"] is None
    assert 10 < found["high"] < 20


def test_crossings_of_all_pairs_say_which_change_the_cheapest() -> None:
    frame = lines("x", a=[(1.0, 0), (9.0, 0)], b=[(2.0, 0), (2.0, 0)], c=[(3.0, 0), (3.0, 0)])
    found = crossings(frame, "x", ["x"]).to_dicts()
    assert [(r["below"], r["above"], r["best"]) for r in found] == [("a", "b", True), ("a", "c", False)]


def test_equal_at_a_point_is_where_they_cross_and_touching_is_no_crossing() -> None:
    frame = lines("x", a=[(1.0, 0), (2.0, 0), (3.0, 0)], b=[(2.0, 0), (2.0, 0), (2.0, 0)])
    assert crossings(frame, "x", ["x"])["at"].to_list() == [10]
    frame = lines("x", a=[(1.0, 0), (2.0, 0), (1.0, 0)], b=[(2.0, 0), (2.0, 0), (2.0, 0)])
    assert crossings(frame, "x", ["x"]).is_empty()


def test_along_an_axis_of_one_strategy_the_others_stay() -> None:
    rows = [row("a", 3.0, **{"b.cap": None, "m": m}) for m in ("p", "q")]
    rows += [row("b", cost, **{"b.cap": cap, "m": "p"}) for cap, cost in (("2", 1.0), ("4", 2.0), ("8", 4.0))]
    (found,) = crossings(pl.DataFrame(rows), "b.cap", ["b.cap", "m"]).to_dicts()
    assert (found["below"], found["above"], found["at"], found["m"]) == ("b", "a", 6.0, "p")


def test_an_axis_of_names_has_no_crossings() -> None:
    frame = pl.DataFrame([row(s, c, generation=g) for s, c, g in (("a", 1, "6.1"), ("b", 2, "6.1"), ("a", 3, "6.12"))])
    found = crossings(frame, "generation", ["generation"])
    assert found.is_empty()
    assert {"below", "above", "at", "low", "high", "left", "right", "best"} <= set(found.columns)
