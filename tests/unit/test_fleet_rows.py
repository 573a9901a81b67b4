"""Rows of a fleet in the table of a sweep."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fleet_samples import TRACES
from tracereplay.cost.fleet import ENOUGH_HOSTS, FleetCost
from tracereplay.cost.profile import DEFAULT_PROFILE, load_profile
from tracereplay.errors import UsageError
from tracereplay.machine.counters import COUNTERS
from tracereplay.trace.fleet import WHOLE, Fleet, Member
from tracereplay.whatif.fleet_rows import fleet_rows, leads_of
from tracereplay.whatif.grid import plan
from tracereplay.whatif.prices import page_cost
from tracereplay.whatif.ranking import rank_rows
from tracereplay.whatif.task import FAILED, run_task

AXES = ["pcp.batch"]
LOCATIONS = [str(TRACES / name) for name in ("dmcrypt-6.1-1M", "dmcrypt-6.12-1M")]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Two strategies at two batches on two traces."""
    question = plan(LOCATIONS, ["per-page", "bulk"], ["pcp.batch=15,63"], profile=DEFAULT_PROFILE)
    made = [run_task(task) for task in question.tasks()]
    return [row | {"host": "ab"[LOCATIONS.index(row["trace"])], "date": None} for row in made]


def test_rows_of_the_fleet_are_sums(rows: list[dict[str, Any]]) -> None:
    found = fleet_rows(rows, LOCATIONS, AXES)
    assert [(r["host"], r["trace"], r["label"], r["pcp.batch"]) for r in found] == [
        (WHOLE, WHOLE, label, batch) for batch in ("15", "63") for label in ("per-page", "bulk")
    ]
    for row in found:
        parts = [r for r in rows if (r["label"], r["pcp.batch"]) == (row["label"], row["pcp.batch"])]
        for name in (*COUNTERS, "requests", "pages", "lost", "reserve_pages_peak"):
            assert row[name] == sum(p[name] for p in parts), name
        assert row["cost_total"] == pytest.approx(sum(p["cost_total"] for p in parts), rel=1e-12)
        assert row["per_page"] == pytest.approx(row["cost_total"] / row["pages"], rel=1e-12)
        assert row["per_page_low95"] <= row["per_page"] <= row["per_page_high95"]
        assert row["strategy"] == parts[0]["strategy"]
        assert row["error"] is None
        cost = page_cost(row)
        assert cost is not None
        assert cost.draws is not None
        assert len(cost.draws) == 1000
    assert len({row["key"] for row in found}) == len(found)


def test_they_compete_among_themselves(rows: list[dict[str, Any]]) -> None:
    every = [*rows, *fleet_rows(rows, LOCATIONS, AXES)]
    ranks = rank_rows(every, AXES)
    for standing, row in zip(ranks, every, strict=True):
        assert standing["versus"] == {"per-page": "bulk", "bulk": "per-page"}[row["label"]]
    whole = [s for s, row in zip(ranks, every, strict=True) if row["host"] == WHOLE]
    assert sorted(s["rank"] for s in whole) == [1, 1, 2, 2]
    # the same again from a table with rows of the fleet in it
    assert fleet_rows(every, LOCATIONS, AXES) == fleet_rows(rows, LOCATIONS, AXES)


def test_a_trace_where_a_point_failed_is_left_out_of_its_setting(rows: list[dict[str, Any]]) -> None:
    broken = [dict(row) for row in rows]
    failed = next(r for r in broken if (r["trace"], r["label"], r["pcp.batch"]) == (LOCATIONS[1], "bulk", "63"))
    failed |= {"status": FAILED, "error": "no"}
    found = fleet_rows(broken, LOCATIONS, AXES)
    at = {(r["label"], r["pcp.batch"]): r for r in found}
    assert at["bulk", "63"]["pages"] == at["per-page", "63"]["pages"] < at["bulk", "15"]["pages"]
    assert at["bulk", "63"]["error"] == f"without 1 traces, the first {LOCATIONS[1]}"
    assert at["bulk", "15"]["error"] is None
    assert fleet_rows([r for r in broken if r["trace"] == LOCATIONS[0]], LOCATIONS[1:], AXES) == []


def test_hosts_enough_to_draw_from_keep_their_sums(rows: list[dict[str, Any]]) -> None:
    one = [r for r in rows if r["trace"] == LOCATIONS[0] and r["pcp.batch"] == "63"]
    names = [f"t{k}" for k in range(ENOUGH_HOSTS)]
    many = [r | {"trace": name, "host": name} for name in names for r in one]
    costs = FleetCost(load_profile(DEFAULT_PROFILE), 0)
    for name in names:
        costs.add(
            name,
            json.loads(one[0]["machine"])["cpus"],
            [
                {"label": r["label"], "strategy": r["strategy"], "counters": {}, "sample": json.loads(r["sample"])}
                for r in one
            ],
        )
    for i, row in enumerate(fleet_rows(many, names, AXES)):
        parts = json.loads(row["sample"])["parts"]
        assert [len(part["sample"]["pages"]) for part in parts] == [1] * ENOUGH_HOSTS
        cost, draws = page_cost(row), costs.draws(i)
        assert cost is not None
        assert cost.draws is not None
        assert draws is not None
        assert cost.draws == pytest.approx(draws[:1000], rel=1e-12)


def test_points_without_prices_add_up_and_estimates_do_not(rows: list[dict[str, Any]]) -> None:
    priced = fleet_rows(rows, LOCATIONS, AXES)
    counted = fleet_rows([{k: v for k, v in r.items() if k != "sample"} for r in rows], LOCATIONS, AXES)
    assert [r["pcp_lock_acquisitions"] for r in counted] == [r["pcp_lock_acquisitions"] for r in priced]
    assert not any({"per_page", "sample"} & r.keys() for r in counted)
    assert fleet_rows([r | {"intervals": "{}"} for r in rows], LOCATIONS, AXES) == []


def test_partitions_become_columns() -> None:
    member = Member("x", "a", "2026-11-21", (("rack", "r1"),), "id")
    assert leads_of(Fleet((member,)), AXES) == {"x": {"host": "a", "date": "2026-11-21", "rack": "r1"}}
    for name in ("label", "pages", "pcp_refills"):
        with pytest.raises(UsageError, match=f"partition {name}="):
            leads_of(Fleet((Member("x", "a", None, ((name, "1"),), "id"),)), AXES)
