"""Intervals and comparisons: known distributions, equal strategies, correlated prices, stored results."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.example_result import example_result
from tests.machine_samples import MACHINES
from tests.replay_samples import random_stream, run_engine
from tracereplay.cost.bootstrap import MIN_BLOCKS, Sample, block_length, resampling, student
from tracereplay.cost.intervals import (
    CLASSES,
    Pricing,
    classes,
    compared,
    cost_intervals,
    judged,
    percentile_intervals,
    pricing,
)
from tracereplay.cost.price import draw_prices, percentile
from tracereplay.cost.priced import priced_results, repriced
from tracereplay.cost.profile import Profile, load_profile, shipped_profiles
from tracereplay.cost.tornado import tornado
from tracereplay.errors import ProfileError
from tracereplay.machine.counters import NR_COUNTERS, slot
from tracereplay.replay import layout as at

ARRAY = load_profile("brouer-2021")
SPLITS, MERGES = slot("splits"), slot("merges")


def exact(profile: Profile) -> Profile:
    """The same prices without ranges."""
    return replace(
        profile,
        parameters=tuple(replace(p, low=p.value, high=p.value) for p in profile.parameters),
        coefficients=tuple(
            c if c.formula else replace(c, low=c.value, high=c.value) for c in profile.coefficients
        ),
    )  # fmt: skip


EXACT = pricing(exact(ARRAY), seed=0)
"""Splits and merges cost 10 ns each."""


def sample_of(splits: list[list[int]], *, pages: int = 1, merges: int = 0) -> Sample:
    """Slices of requests with so many splits each, all of ``pages`` pages and with ``merges`` merges."""
    flat = np.array([n for row in splits for n in row], np.int64)
    slices = np.repeat(np.arange(len(splits)), [len(row) for row in splits])
    kinds, kind = np.unique(flat, return_inverse=True)
    vectors = np.zeros((len(kinds), NR_COUNTERS), np.int64)
    vectors[:, SPLITS], vectors[:, MERGES] = kinds, merges
    keys, requests_of = np.unique(kind * len(splits) + slices, return_counts=True)
    requests = np.bincount(slices, minlength=len(splits)).astype(np.int64)
    counters = np.zeros((len(splits), NR_COUNTERS), np.int64)
    counters[:, SPLITS], counters[:, MERGES] = np.bincount(slices, flat, len(splits)), requests * merges
    return Sample(
        requests=requests,
        pages=requests * pages,
        counters=counters,
        worker=np.zeros_like(counters),
        end=np.zeros(NR_COUNTERS, np.int64),
        vectors=vectors,
        cells=np.stack([keys // len(splits), keys % len(splits), requests_of], axis=1),
    )


def random_sample(source: np.random.Generator, slices: int = 60, per_slice: int = 20) -> Sample:
    """Requests whose splits are geometric, mean 20; nothing depends on when they came."""
    counts = 1 + source.poisson(per_slice, slices)
    return sample_of([source.geometric(0.05, n).tolist() for n in counts])


# ---------------------------------------------------------------- sampling
def test_coverage() -> None:
    """Of 200 traces of one source, 95 % of the intervals hold the source's own figure, within binomial bounds."""
    p = pricing(exact(ARRAY), seed=0, draws=1000)
    median, p99 = (math.ceil(math.log(1 - share) / math.log(0.95)) for share in (0.5, 0.99))
    truth = {"mean": 200.0, "p50": 10.0 * median, "p99": 10.0 * p99}
    source = np.random.default_rng(1)
    hits = dict.fromkeys(truth, 0)
    for _ in range(200):
        strategy = judged(random_sample(source), p)
        assert strategy.request is not None
        found = [strategy.request.interval(p), *percentile_intervals(strategy, p, (0.50, 0.99))]
        for (name, value), ends in zip(truth.items(), found, strict=True):
            assert ends is not None
            hits[name] += ends[0] <= value <= ends[1]
    # a coverage of 93 to 97 % of 200 and three standard deviations; steps of 10 ns can only widen percentiles
    assert 177 <= hits["mean"] <= 199
    assert hits["p50"] >= 177
    assert hits["p99"] >= 177


def test_interval_narrows_with_more_requests() -> None:
    source = np.random.default_rng(2)
    few, many = (
        judged(random_sample(source, per_slice=n), EXACT).page for n in (10, 1000)
    )  # fmt: skip
    assert few is not None
    assert many is not None
    widths = [ends[1] - ends[0] for ends in (few.interval(EXACT), many.interval(EXACT))]
    assert widths[0] > 5 * widths[1]


def test_requests_that_are_alike_in_time_widen_it() -> None:
    """The same requests, shuffled and in order of cost: neighbours that agree say less."""
    source = np.random.default_rng(3)
    flat = source.geometric(0.05, 1200)
    shuffled, ordered = (
        judged(sample_of(np.reshape(values, (60, 20)).tolist()), EXACT) for values in (flat, np.sort(flat))
    )
    assert shuffled.request is not None
    assert ordered.request is not None
    widths = [np.ptp(s.interval(EXACT)) for s in (shuffled.request, ordered.request)]
    assert widths[1] > 3 * widths[0]


def test_demand_that_stays_alike_makes_blocks_longer() -> None:
    steady = sample_of([[1] * 20] * 64)
    phases = sample_of([[1] * (1 if i // 16 % 2 else 40) for i in range(64)])
    assert block_length(steady) == 4
    assert block_length(phases) == 64 // MIN_BLOCKS
    assert block_length(sample_of([[1]])) == 1


def test_blocks_are_whole_and_keep_their_order() -> None:
    drawn = resampling(sample_of([[1] * 20] * 64), seed=0, draws=500)
    assert (drawn.slices, drawn.length, drawn.judged) == (64, 4, True)
    assert (drawn.times.sum(axis=1) == 64).all()
    # a run of four starts with a slice that is there more often than the one before; 16 runs to a draw
    steps = np.maximum(drawn.times - np.roll(drawn.times, 1, axis=1), 0).sum(axis=1)
    assert steps.max() <= 16
    assert drawn.times.mean(axis=0) == pytest.approx(1, abs=0.2)
    assert (resampling(sample_of([[9] * 20] * 64), seed=0, draws=500).times == drawn.times).all()
    assert (resampling(sample_of([[9] * 20] * 64), seed=1, draws=500).times != drawn.times).any()


def test_few_slices_are_not_judged() -> None:
    p = pricing(ARRAY, seed=0)
    strategy = judged(sample_of([[5] * 8]), p)
    cost = cost_intervals(strategy, p)
    assert cost["sampling"] == {
        "judged": False, "requests": 8, "slices": 1, "block": 1,
        "note": "8 requests in 1 slice of time, too few to judge",
    }  # fmt: skip
    assert cost["interval95_sampling"] is None
    assert cost["interval95"] == cost["interval95_prices"]
    assert all(row["name"] != "sampling" for row in cost["tornado"])
    assert judged(sample_of([[5]] * MIN_BLOCKS), p).resampling.judged
    assert not judged(sample_of([[5]] * (MIN_BLOCKS - 1)), p).resampling.judged


def test_no_requests() -> None:
    p = pricing(ARRAY, seed=0)
    nothing = judged(Sample.whole({}, {}, None, np.zeros(0), pages=0, requests=0), p)
    cost = cost_intervals(nothing, p)
    assert (cost["interval95"], cost["per_page_interval95"], cost["tornado"]) == ([0.0, 0.0], None, [])
    assert cost["sampling"]["note"] == "no requests"
    assert percentile_intervals(nothing, p, (0.5, 0.99)) == [None, None]
    row = compared("a", nothing, "b", nothing, p)
    assert (row["difference"], row["ratio"], row["beyond"], row["hinges_on"]) == (None, None, False, None)


@pytest.mark.parametrize(("freedom", "quantile"), [(7, 2.3646), (15, 2.1314), (60, 2.0003)])
def test_student(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, rel=1e-3)


# ---------------------------------------------------------------- both together
def test_interval_covers_prices_and_requests() -> None:
    """Independent sources of one width each: together the root of two, not twice."""
    sample = random_sample(np.random.default_rng(4))
    probe = judged(sample, EXACT).page
    assert probe is not None
    low, high = probe.interval(EXACT)
    relative = (high - low) / 2 / probe.value(EXACT)
    wide = replace(
        EXACT.profile,
        coefficients=tuple(
            replace(c, low=c.value * (1 - relative), high=c.value * (1 + relative)) if c.name == "split" else c
            for c in EXACT.profile.coefficients
        ),
    )
    p = pricing(wide, seed=0)
    cost = cost_intervals(judged(sample, p), p)
    widths = {key: np.ptp(cost[key]) for key in ("interval95", "interval95_prices", "interval95_sampling")}
    assert widths["interval95_prices"] == pytest.approx(widths["interval95_sampling"], rel=0.05)
    assert widths["interval95"] == pytest.approx(math.sqrt(2) * widths["interval95_prices"], rel=0.05)
    assert cost["by_primitive_interval95"] == {"split": pytest.approx(cost["interval95"])}


def test_work_of_the_end_is_not_resampled() -> None:
    base = random_sample(np.random.default_rng(5))
    end = np.zeros(NR_COUNTERS, np.int64)
    end[MERGES] = 10_000
    without, with_end = (judged(s, EXACT).page for s in (base, replace(base, end=end)))
    assert without is not None
    assert with_end is not None
    per_page = 10 * 10_000 / base.pages.sum()
    moved = [x + per_page for x in without.interval(EXACT)]
    assert with_end.interval(EXACT) == pytest.approx(moved)


def test_many_distinct_requests_are_put_together() -> None:
    source = np.random.default_rng(6)
    sample = sample_of(source.permutation(3600).reshape(60, 60).tolist())
    assert sample.vectors is not None
    vectors, cells = classes(sample.vectors @ EXACT.matrix, sample.cells, EXACT.values)
    assert len(vectors) == CLASSES
    assert cells[:, 2].sum() == 3600
    exactly, about = (
        percentile(v @ EXACT.values, np.bincount(c[:, 0], c[:, 2]).astype(int), 0.99)
        for v, c in ((sample.vectors @ EXACT.matrix, sample.cells), (vectors, cells))
    )
    assert about == pytest.approx(exactly, rel=0.005)
    whole = (vectors * np.bincount(cells[:, 0], cells[:, 2])[:, None]).sum(axis=0)
    assert whole == pytest.approx((sample.vectors @ EXACT.matrix).sum(axis=0))


# ---------------------------------------------------------------- comparisons
def test_equal_strategies_differ_by_nothing() -> None:
    p = pricing(ARRAY, seed=0)
    a, b = (judged(random_sample(np.random.default_rng(7)), p) for _ in range(2))
    row = compared("a", a, "b", b, p)
    assert row["difference_interval95"] == [0.0, 0.0]
    assert row["ratio_interval95"] == [1.0, 1.0]
    assert row["beyond"] is False
    assert row["hinges_on"] is None
    assert row["tornado"] == []


def test_difference_under_the_same_prices_and_requests() -> None:
    """One split less in each request: how dear a split is, and how many the others have, does not blur that."""
    p = pricing(ARRAY, seed=0)
    base = random_sample(np.random.default_rng(8))
    fewer = replace(
        base, counters=base.counters - np.where(np.arange(NR_COUNTERS) == SPLITS, base.requests[:, None], 0)
    )
    row = compared("fewer", judged(fewer, p), "base", judged(base, p), p)
    assert row["difference"] == pytest.approx(-10)
    assert row["difference_interval95"] == pytest.approx([-25, -5], rel=0.05)
    assert row["beyond"] is True
    assert [r["name"] for r in row["tornado"]] == ["split"]
    assert row["hinges_on"]["crossing"] == pytest.approx(0)
    assert row["hinges_on"]["within"] is False


def test_what_a_comparison_hinges_on() -> None:
    """Splits (10, 5 to 25) against merges (10, 5 to 25): 10 of the ones for 14 of the others."""
    p = pricing(ARRAY, seed=0)
    a, b = judged(sample_of([[10]]), p), judged(sample_of([[0]], merges=14), p)
    row = compared("a", a, "b", b, p)
    assert row["difference"] == pytest.approx(-40)
    assert row["beyond"] is False
    assert row["hinges_on"] == {
        "name": "split", "unit": "ns", "value": 10.0, "low": 5.0, "high": 25.0, "crossing": pytest.approx(14),
        "within": True,
    }  # fmt: skip
    merge, split = row["tornado"]
    assert (merge["name"], merge["at_low"], merge["at_high"]) == ("merge", pytest.approx(30), pytest.approx(-250))
    assert (split["name"], split["at_low"], split["at_high"]) == ("split", pytest.approx(-90), pytest.approx(110))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 5), others=st.integers(0, 3))
def test_intervals_do_not_depend_on_the_other_strategies(seed: int, others: int) -> None:
    p = pricing(ARRAY, seed, draws=200)
    ours, *rest = (random_sample(np.random.default_rng(i), slices=20) for i in range(1 + others))
    entry: dict[str, Any] = {"strategy": "bulk", "counters": {"splits": int(ours.counters[:, SPLITS].sum())}}
    alone = priced_results([entry], [ours], p)["results"][0]
    among = priced_results([entry] * (1 + others), [*rest, ours], p)["results"][-1]
    assert alone == among


# ---------------------------------------------------------------- prices that were fitted together
def correlated(rho: float) -> Profile:
    return replace(ARRAY, correlation=(("split", "merge"), ((1.0,), (rho, 1.0))))


@pytest.mark.parametrize("rho", [0.0, 0.6, -0.9, 1.0])
def test_correlated_prices(rho: float) -> None:
    names = [c.name for c in ARRAY.coefficients]
    split, merge = names.index("split"), names.index("merge")
    prices = draw_prices(correlated(rho), seed=1, draws=20_000)
    ranks = [np.argsort(np.argsort(prices[:, i])) for i in (split, merge)]
    # rank correlation of two normals with correlation rho
    assert np.corrcoef(ranks)[0, 1] == pytest.approx(6 / math.pi * math.asin(rho / 2), abs=0.02)
    for i in (split, merge):
        assert np.quantile(prices[:, i], [0.025, 0.5, 0.975]) == pytest.approx([5, 10, 25], rel=0.04)
    untouched = [i for i in range(len(names)) if i not in (split, merge)]
    assert (prices[:, untouched] == draw_prices(ARRAY, seed=1, draws=20_000)[:, untouched]).all()


def test_numbers_fitted_together_move_together() -> None:
    """Splits and merges, 10 (5 to 25) each: with one at 25, the other is as far as their correlation says."""
    p = pricing(correlated(-0.5), seed=0)
    both = judged(sample_of([[10]], merges=10), p)
    merge, split = cost_intervals(both, p)["tornado"]
    for row in (merge, split):
        assert row["at_high"] == pytest.approx(10 * 25 + 10 * (10 - 0.5 * 5))
        assert row["at_low"] == pytest.approx(10 * 5 + 10 * (10 + 0.5 * 15))
    a, b = judged(sample_of([[10]]), p), judged(sample_of([[0]], merges=11), p)
    found = compared("a", a, "b", b, p)["hinges_on"]
    # splits at 10 + 15 r take merges to 10 - 2.5 r: 100 + 150 r = 110 - 27.5 r; merges down to 10 - 5 r are farther
    assert found["name"] == "split"
    assert found["crossing"] == pytest.approx(10 + 15 * 10 / 177.5)


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_shipped_profile_can_be_drawn_and_moved(name: str) -> None:
    p = pricing(load_profile(name), seed=0)
    assert np.isfinite(p.prices).all()
    ones = np.ones(len(p.values))
    swings = {row["name"]: row for row in tornado(p.swings, ones, None)}
    assert swings
    low, high = np.quantile(p.prices @ ones, [0.0005, 0.9995])
    for row in swings.values():
        assert low <= min(row["at_low"], row["at_high"]) <= max(row["at_low"], row["at_high"]) <= high, row


def test_correlations_of_nothing_are_refused() -> None:
    three = ((1.0,), (0.9, 1.0), (0.9, -0.9, 1.0))
    profile = replace(ARRAY, correlation=(("split", "merge", "zone_lock"), three))
    with pytest.raises(ProfileError, match="no random numbers"):
        draw_prices(profile, seed=0, draws=10)
    rounded = replace(ARRAY, correlation=(("split", "merge", "zone_lock"), ((1.0,), (0.99, 1.0), (0.99, 0.96, 1.0))))
    prices = draw_prices(rounded, seed=0, draws=4000)
    split, merge = (prices[:, [c.name for c in ARRAY.coefficients].index(name)] for name in ("split", "merge"))
    assert np.corrcoef(split, merge)[0, 1] == pytest.approx(0.98, abs=0.02)


def test_correlation_narrows_a_difference_and_widens_a_sum() -> None:
    plain, joint = (pricing(profile, seed=0) for profile in (ARRAY, correlated(0.95)))
    widths = []
    for p in (plain, joint):
        a, b = judged(sample_of([[10]]), p), judged(sample_of([[0]], merges=10), p)
        both = judged(sample_of([[10]], merges=10), p).page
        assert both is not None
        widths.append((np.ptp(compared("a", a, "b", b, p)["difference_interval95"]), np.ptp(both.interval(p))))
    (apart, together), (apart_joint, together_joint) = widths
    assert apart_joint < 0.5 * apart
    assert together_joint > 1.2 * together


# ---------------------------------------------------------------- stored results
def priced_example(profile: Profile = ARRAY) -> dict[str, Any]:
    """The example with samples: ten slices of one request each."""
    result = example_result()
    entries = []
    samples = []
    for row in result["results"]:
        counters = np.array([row["counters"][name] // 10 for name in list(row["counters"])[:NR_COUNTERS]], np.int64)
        samples.append(
            Sample(
                requests=np.full(10, 1), pages=np.full(10, 256), counters=np.tile(counters, (10, 1)),
                worker=np.zeros((10, NR_COUNTERS), np.int64), end=np.zeros(NR_COUNTERS, np.int64),
                vectors=counters[None], cells=np.array([[0, i, 1] for i in range(10)]),
            )
        )  # fmt: skip
        entries.append({k: v for k, v in row.items() if k != "cost"})
    p: Pricing = pricing(profile, seed=0)
    return result | {"profile": profile.to_dict()} | priced_results(entries, samples, p)


def test_a_stored_result_is_priced_anew_without_a_replay() -> None:
    dear = replace(
        ARRAY,
        coefficients=tuple(
            c if c.formula or c.high is None else replace(c, value=2 * c.value, high=2 * c.high)
            for c in ARRAY.coefficients
        ),
    )
    dear = dear.with_parameters(cpus=8)
    stored = json.loads(json.dumps(priced_example()))
    assert repriced(stored, dear)["results"] == json.loads(json.dumps(priced_example(dear)))["results"]
    assert repriced(stored, dear)["comparison"] == priced_example(dear)["comparison"]
    again = repriced(stored, ARRAY.with_parameters(cpus=8))
    assert again == stored


def test_rates_and_percentiles_have_intervals() -> None:
    """What is the total over a time has the total's interval; a percentile that of the same share."""
    sample = random_sample(np.random.default_rng(10))
    splits = int(sample.counters[:, SPLITS].sum())
    entry: dict[str, Any] = {
        "strategy": "bulk", "counters": {"splits": splits},
        "rates": {"cost_per_s": 5.0 * splits, "cpu_s_per_day": None, "versus": {"label": "bulk", "cost_per_s": 0.0}},
        "distribution": {"per_request": {"count": 1}},
    }  # fmt: skip
    fewer = replace(sample, counters=sample.counters // 2)
    found, other = priced_results([entry, entry | {"label": "fewer"}], [sample, fewer], EXACT)["results"]
    apart = other["rates"]["versus"]["cost_per_s_interval95"]
    assert apart[0] < -2.5 * splits < apart[1]
    assert found["rates"]["versus"]["cost_per_s_interval95"] is None
    cost, rates, spread = found["cost"], found["rates"], found["distribution"]["per_request"]
    assert rates["cost_per_s_interval95"] == pytest.approx([end / 2 for end in cost["interval95"]])
    assert rates["cpu_s_per_day_interval95"] is None
    assert spread["percentile_intervals95"]["p99"] == cost["per_request"]["p99_interval95"]
    ends = list(spread["percentile_intervals95"].values())
    assert len(ends) == 8
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(ends))


def test_the_longest_section_has_an_interval_over_prices() -> None:
    parts = ("refills", "blocks_refilled", "splits", "fallbacks", "block_moves", "unlinked", "prepared", "zeroed")
    section = dict.fromkeys(parts, 0) | {"work": 4, "splits": 4}
    entry: dict[str, Any] = {"strategy": "bulk", "counters": {}, "sections": {"pcp": section}}
    found = priced_results([entry], [sample_of([[1]])], pricing(ARRAY, seed=0))["results"][0]["sections"]["pcp"]
    assert found["cost"] == pytest.approx(40)
    assert found["cost_interval95"] == pytest.approx([20, 100], rel=0.05)


@pytest.mark.parametrize("name", ["per-page", "unmapped-cache", "background-pool"])
def test_a_sample_holds_all_that_was_counted(name: str) -> None:
    outcome = run_engine(random_stream(random.Random(11), 3000), MACHINES["one zone"], name, bins=120, frames=16384)
    sample = Sample.of(outcome)
    whole = sample.counters.sum(axis=0) + sample.worker.sum(axis=0) + sample.end
    assert np.array_equal(whole, (outcome.totals + outcome.worker)[:NR_COUNTERS])
    assert outcome.worker.any() == (name == "background-pool")
    assert 32 <= len(sample.requests) <= 64
    assert (sample.requests > 0).all()
    assert sample.requests.sum() == outcome.scalars[at.X_TARGETED_REQUESTS]
    assert sample.pages.sum() == outcome.scalars[at.X_TARGETED_PAGES]
    assert np.array_equal(sample.counts, outcome.counts)
    by_slice = np.zeros_like(sample.counters)
    np.add.at(by_slice, sample.cells[:, 1], outcome.vectors[sample.cells[:, 0]] * sample.cells[:, 2:])
    assert np.array_equal(by_slice, sample.counters)


def test_a_result_without_a_sample_is_priced_by_its_totals() -> None:
    found = repriced(example_result(), ARRAY)
    for row, stored in zip(found["results"], example_result()["results"], strict=True):
        assert row["cost"]["total"] == stored["cost"]["total"]
        assert row["cost"]["sampling"]["judged"] is False
        assert row["cost"]["per_request"]["p99"] is None


def test_sample_survives_json() -> None:
    sample = random_sample(np.random.default_rng(9), slices=3, per_slice=2)
    again = Sample.from_json(json.loads(json.dumps(sample.to_json())))
    for name in Sample.__slots__:
        assert np.array_equal(getattr(again, name), getattr(sample, name)), name
    many = random_sample(np.random.default_rng(9)).to_json()
    assert (many["vectors"], many["cells"]) == (None, None)
