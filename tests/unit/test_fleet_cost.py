"""Costs of a fleet: sums of counters, prices of the sum, intervals over hosts or within them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracereplay.cost.bootstrap import Sample, draws_of, stretch_of
from tracereplay.cost.fleet import ENOUGH_HOSTS, FleetCost
from tracereplay.cost.intervals import compared, judged, middle
from tracereplay.cost.price import total
from tracereplay.cost.profile import load_profile
from tracereplay.machine.counters import COUNTERS, NR_COUNTERS

BROUER = load_profile("brouer-2021")
SEED = 3
USED = [COUNTERS.index(n) for n in ("alloc_calls", "pages_allocated", "zone_lock_acquisitions", "tlb_flushes")]


def sample(random: np.random.Generator, slices: int, level: int = 5) -> Sample:
    counters = np.zeros((slices, NR_COUNTERS), np.int64)
    counters[:, USED] = random.integers(1, 2 * level, (slices, len(USED)))
    worker = np.zeros_like(counters)
    worker[:, USED[0]] = random.integers(0, 3, slices)
    end = np.zeros(NR_COUNTERS, np.int64)
    end[USED[1]] = 2
    pages = random.integers(5, 20, slices)
    return Sample(np.ones(slices, np.int64), pages, counters, worker, end, None, np.zeros((0, 3), np.int64))


def entry(label: str, found: Sample) -> dict[str, Any]:
    own = found.worker.sum(axis=0) + found.end
    sums = found.counters.sum(axis=0) + own
    counters = {name: int(n) for name, n in zip(COUNTERS, sums, strict=True)}
    return {"label": label, "strategy": label, "params": {}, "counters": counters, "sample": found,
            "requests": {"served": len(found.pages)}}  # fmt: skip


def alike(a: Sample, b: Sample) -> Sample:
    """The second's counters at the demand of the first, which all strategies of a replay share."""
    return Sample(a.requests, a.pages, b.counters, b.worker, b.end, None, a.cells)


def replays(hosts: int, slices: int, seed: int = 0) -> list[list[dict[str, Any]]]:
    random = np.random.default_rng(seed)
    made = []
    for k in range(hosts):
        base = sample(random, slices)
        made.append([entry("per-page", base), entry("bulk", alike(base, sample(random, slices, 2 + k % 3)))])
    return made


def fleet_of(found: list[list[dict[str, Any]]], cpus: list[int] | None = None, **hosts: Any) -> dict[str, Any]:
    fold = FleetCost(BROUER, SEED)
    for k, entries in enumerate(found):
        fold.add(f"h{k}", (cpus or [4] * len(found))[k], entries)
    return fold.to_json()


def test_one_trace_is_its_own_fleet() -> None:
    (entries,) = replays(1, 64)
    fold = FleetCost(BROUER, SEED)
    fold.add("a", 4, entries)
    found = fold.to_json()
    p = fold.pricing(4)
    base, bulk = (judged(e["sample"], p) for e in entries)
    assert base.page is not None
    for result, one in zip(found["results"], (base, bulk), strict=True):
        assert one.page is not None
        cost = result["cost"]
        assert math.isclose(cost["per_page"], one.page.value(p), rel_tol=1e-12)
        assert cost["per_page_interval95"] == pytest.approx(list(one.page.interval(p)), rel=1e-12)
        assert cost["per_page_interval95_prices"] == pytest.approx(list(one.page.of_prices(p)), rel=1e-12)
        assert cost["per_page_interval95_sampling"] == pytest.approx(list(one.page.of_sampling(p) or ()), rel=1e-12)
    row = compared("bulk", bulk, "per-page", base, p)
    assert found["results"][1]["ratio"] == pytest.approx(row["ratio"], rel=1e-12)
    assert found["results"][1]["ratio_interval95"] == pytest.approx(row["ratio_interval95"], rel=1e-12)
    assert found["results"][0]["ratio"] == 1.0
    assert found["sampling"]["over"] == "requests"


@settings(max_examples=10)
@given(st.integers(1, 12), st.integers(0, 1000))
def test_sums_and_prices_are_those_of_the_hosts(hosts: int, seed: int) -> None:
    """Each host is priced for its CPUs, so the fleet's cost is the sum of theirs whatever the profile."""
    made = replays(hosts, 3, seed)
    cpus = [1 + k % 3 for k in range(hosts)]
    found = fleet_of(made, cpus)
    for i, result in enumerate(found["results"]):
        for name in COUNTERS:
            assert result["counters"][name] == sum(entries[i]["counters"][name] for entries in made)
        costs = [total(e[i]["counters"], BROUER.with_parameters(cpus=c)) for e, c in zip(made, cpus, strict=True)]
        pages = [int(e[i]["sample"].pages.sum()) for e in made]
        assert math.isclose(result["cost"]["total"], math.fsum(costs), rel_tol=1e-12)
        assert math.isclose(result["cost"]["per_page"], math.fsum(costs) / sum(pages), rel_tol=1e-12)
        assert math.isclose(math.fsum(result["cost"]["by_primitive"].values()), math.fsum(costs), rel_tol=1e-12)
        low, high = result["cost"]["per_page_interval95"]
        assert low <= result["cost"]["per_page"] <= high
        for host, cost, n in zip(found["hosts"], costs, pages, strict=True):
            assert math.isclose(host["per_page"][result["label"]], cost / n, rel_tol=1e-12)
        best = [min(host["per_page"].values()) == host["per_page"][result["label"]] for host in found["hosts"]]
        assert result["cheapest_hosts"] == sum(best)


def test_intervals_over_hosts_are_those_of_plain_python() -> None:
    hosts = ENOUGH_HOSTS + 1
    made = replays(hosts, 2)
    fold = FleetCost(BROUER, SEED)
    for k, entries in enumerate(made):
        fold.add(f"h{k}", 4, entries)
    assert all(share.sample is None for part in fold.parts for share in part.shares)
    p = fold.pricing(4)
    times, stretch = draws_of(SEED, hosts, 1, len(p.prices)), stretch_of(hosts)
    wholes = [e[1]["counters"] for e in made]
    counts = np.array([[sum(w[c] for c in q.counters) for q in p.profile.coefficients] for w in wholes], float)
    pages = [int(e[1]["sample"].pages.sum()) for e in made]
    value = counts.sum(axis=0) / sum(pages)
    drawn = []
    for k in range(200):  # some of the draws tell as well as all of them
        chosen = [h for h in range(hosts) for _ in range(int(times[k, h]))]
        assert len(chosen) == hosts
        page = sum(counts[h] for h in chosen) / sum(pages[h] for h in chosen)
        drawn.append(float(np.maximum(value + stretch * (page - value), 0) @ p.prices[k]))
    assert fold._over_hosts(1).both[:200] == pytest.approx(drawn, rel=1e-12)
    result = fold.to_json()
    assert result["sampling"]["over"] == "hosts"
    assert result["sampling"]["judged"]
    both = fold._over_hosts(1)
    assert result["results"][1]["cost"]["per_page_interval95"] == pytest.approx(list(middle(both.both, both.value)))


def test_traces_of_one_host_are_one_host() -> None:
    made = replays(3, 16)
    fold = FleetCost(BROUER, SEED)
    for host, entries in zip(("a", "a", "b"), made, strict=True):
        fold.add(host, 4, entries)
    found = fold.to_json()
    assert [h["host"] for h in found["hosts"]] == ["a", "b"]
    assert found["sampling"] | {"note": ""} == {
        "over": "requests", "judged": True, "hosts": 2, "traces": 3, "note": ""
    }  # fmt: skip
    assert "2 hosts, too few" in found["sampling"]["note"]


def test_more_hosts_tell_more_while_prices_stay_as_uncertain() -> None:
    one = fleet_of(replays(1, 64))["results"][1]["cost"]
    many = fleet_of([replays(1, 64)[0] for _ in range(7)])["results"][1]["cost"]
    assert many["per_page"] == pytest.approx(one["per_page"], rel=1e-12)
    assert many["per_page_interval95_prices"] == pytest.approx(one["per_page_interval95_prices"], rel=1e-12)
    width = [high - low for low, high in (c["per_page_interval95_sampling"] for c in (one, many))]
    assert width[1] == pytest.approx(width[0] / math.sqrt(7), rel=0.15)


def test_nothing_was_targeted() -> None:
    empty = Sample.whole({}, {}, None, np.zeros(0), pages=0, requests=0)
    found = fleet_of([[entry("per-page", empty), entry("bulk", empty)]])
    assert found["hosts"][0]["per_page"] == {"per-page": None, "bulk": None}
    assert [r["cost"]["per_page"] for r in found["results"]] == [None, None]
    assert [r["ratio"] for r in found["results"]] == [None, None]
    assert [r["cheapest_hosts"] for r in found["results"]] == [0, 0]
