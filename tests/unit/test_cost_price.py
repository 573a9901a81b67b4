"""Pricing on counter vectors: published tables, linearity, percentiles, intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracereplay.cost.price import (
    cost_block,
    interval95,
    percentile,
    price,
    price_vectors,
    ratio_interval95,
    total,
    unpriced,
)
from tracereplay.cost.profile import load_profile
from tracereplay.machine.counters import COUNTERS, NR_SLOTS, slot

ARRAY = load_profile("brouer-2021")
LIST = load_profile("brouer-2021-list")

SINGLE = {
    "alloc_calls": 1, "watermark_checks": 1, "pcp_lock_acquisitions": 2, "pcp_hits": 1, "pages_allocated": 1,
    "free_calls": 1, "frees_pcp": 1, "pages_freed": 1,
}  # fmt: skip
"""What the machine counts for one page allocated and freed on a warm per-CPU list (machine/page_alloc.py)."""


def bulk(n: int) -> dict[str, int]:
    """The same for one bulk call of n pages; a call for one page falls through to the single path."""
    if n == 1:
        return SINGLE | {"bulk_calls": 1}
    return {
        "bulk_calls": 1, "watermark_checks": 1, "pcp_lock_acquisitions": 1 + n, "pcp_hits": n,
        "pages_allocated": n, "free_calls": n, "frees_pcp": n, "pages_freed": n,
    }  # fmt: skip


def times(counters: dict[str, int], n: int) -> dict[str, int]:
    return {name: n * value for name, value in counters.items()}


BATCHES = (1, 2, 3, 4, 8, 16, 32, 64, 128)
PUBLISHED = {  # ns per page by batch, J. Brouer, 2021-03-22
    "array": (ARRAY, (56.383, 40.047, 37.339, 35.578, 33.592, 32.362, 31.476, 30.633, 30.596), 0.016),
    "list": (LIST, (57.478, 42.861, 40.536, 39.477, 39.610, 38.155, 37.739, 37.282, 36.993), 0.025),
}


@pytest.mark.parametrize("form", PUBLISHED)
def test_published_table(form: str) -> None:
    profile, table, tolerance = PUBLISHED[form]
    assert total(SINGLE, profile) == pytest.approx(55.472)
    for n, published in zip(BATCHES, table, strict=True):
        assert total(bulk(n), profile) / n == pytest.approx(published, rel=tolerance), n
    assert total(bulk(1), profile) == pytest.approx(table[0])


def test_self_check_21_ratio_of_bulk_64_to_single() -> None:
    assert total(bulk(64), ARRAY) / 64 / total(SINGLE, ARRAY) == pytest.approx(0.552, abs=0.01)
    assert total(bulk(64), LIST) / 64 / total(SINGLE, LIST) == pytest.approx(0.672, abs=0.02)


def test_self_check_22_micro_costs_do_not_explain_dm_crypts_gain() -> None:
    saved = total(times(SINGLE, 256), ARRAY) - total(bulk(256), ARRAY)
    slat = 765_710.0  # ns per 1 MiB write, Yang Shi, v2 cover
    assert saved == pytest.approx(6_400, abs=120)
    assert slat / (slat - saved) - 1 == pytest.approx(0.0084, abs=0.0002)


def test_refill_adds_what_the_reference_gives_it() -> None:
    """63 pages cut one split each from larger blocks: batch * 15 ns + 50 ns, and the first pop is no hit."""
    refill = {
        "pcp_refills": 1,
        "pcp_hits": -1,
        "zone_lock_acquisitions": 1,
        "pcp_refill_pages": 63,
        "splits": 63,
    }
    assert total(refill, ARRAY) == pytest.approx(63 * 15 + 50)


def test_price_lists_each_primitive_once() -> None:
    parts = price(SINGLE, ARRAY)
    assert list(parts) == [c.name for c in ARRAY.coefficients]
    assert parts["pcp_lock"] == 10.0
    assert parts["split"] == 0.0


counters = st.dictionaries(st.sampled_from(COUNTERS), st.integers(0, 10**9))


@given(a=counters, b=counters, k=st.integers(0, 1000))
def test_price_is_linear_in_counters(a: dict[str, int], b: dict[str, int], k: int) -> None:
    both = {name: a.get(name, 0) + k * b.get(name, 0) for name in {*a, *b}}
    assert total(both, ARRAY) == pytest.approx(total(a, ARRAY) + k * total(b, ARRAY), rel=1e-12)


@given(a=counters, factor=st.floats(0, 100))
def test_price_is_linear_in_coefficients(a: dict[str, int], factor: float) -> None:
    scaled = replace(
        ARRAY,
        coefficients=tuple(replace(c, value=c.value * factor, formula=None) for c in ARRAY.coefficients),
    )
    assert total(a, scaled) == pytest.approx(factor * total(a, ARRAY), rel=1e-12)


@given(st.lists(counters, max_size=5))
def test_vectors_agree_with_the_dictionary(rows: list[dict[str, int]]) -> None:
    vectors = np.zeros((len(rows), NR_SLOTS), dtype=np.int64)
    for i, row in enumerate(rows):
        for name, value in row.items():
            vectors[i, slot(name)] = value
    vectors[:, len(COUNTERS) :] = 7  # by-order slots carry no price
    assert price_vectors(vectors, ARRAY) == pytest.approx([total(row, ARRAY) for row in rows], rel=1e-12)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), min_size=1),
    st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_percentile_is_nearest_rank(pairs: list[tuple[int, int]], share: float) -> None:
    values, counts = np.array([float(v) for v, _ in pairs]), np.array([c for _, c in pairs])
    every = sorted(v for v, c in pairs for _ in range(c))
    rank = next(r for r in range(1, len(every) + 1) if r * 100 >= round(share * 100) * len(every))
    assert percentile(values, counts, share) == every[rank - 1]


def test_percentile_of_nothing() -> None:
    assert percentile(np.zeros(0), np.zeros(0, dtype=np.int64), 0.5) is None


def test_unpriced_work_is_named() -> None:
    assert unpriced({"reclaim_attempts": 3, "splits": 2, "compaction_attempts": 0}, ARRAY) == {"reclaim_attempts": 3}


def test_interval_contains_the_value_and_follows_the_seed() -> None:
    low, high = interval95(SINGLE, ARRAY, seed=1)
    assert low < 55.472 < high
    assert (low, high) == interval95(SINGLE, ARRAY, seed=1)
    assert (low, high) != interval95(SINGLE, ARRAY, seed=2)


def test_interval_of_a_measured_sum_is_the_measurement_s_own() -> None:
    """How 55.472 ns splits into parts is far less certain than the sum; the split must not widen it."""
    low, high = interval95(SINGLE, ARRAY, seed=0)
    assert low == pytest.approx(54.0, abs=0.3)
    assert high == pytest.approx(58.0, abs=0.3)
    lock = {"pcp_lock_acquisitions": 1}
    assert interval95(lock, ARRAY, seed=0) == pytest.approx((3.0, 8.0), rel=0.05)


def test_ratio_uses_common_draws() -> None:
    per_page, in_bulk = times(SINGLE, 64), bulk(64)
    assert ratio_interval95(per_page, per_page, ARRAY, seed=0) == (1.0, 1.0)
    ratio = ratio_interval95(in_bulk, per_page, ARRAY, seed=0)
    assert ratio is not None
    low, high = ratio
    assert low < total(in_bulk, ARRAY) / total(per_page, ARRAY) < high
    apart = interval95(in_bulk, ARRAY, seed=0)[1] / interval95(per_page, ARRAY, seed=0)[0]
    assert high < apart
    assert ratio_interval95(in_bulk, {}, ARRAY, seed=0) is None


def test_draws_of_one_number_do_not_depend_on_the_others() -> None:
    fewer = replace(ARRAY, coefficients=tuple(c for c in ARRAY.coefficients if c.name == "split"))
    assert interval95({"splits": 5}, fewer, seed=3) == interval95({"splits": 5}, ARRAY, seed=3)


def test_cost_block() -> None:
    vectors = np.zeros((2, NR_SLOTS), dtype=np.int64)
    for name, value in times(SINGLE, 2).items():
        vectors[0, slot(name)] = value
    for name, value in bulk(4).items():
        vectors[1, slot(name)] = value
    totals = {name: 9 * times(SINGLE, 2).get(name, 0) + bulk(4).get(name, 0) for name in COUNTERS}
    block = cost_block(totals, vectors, np.array([9, 1]), ARRAY, pages=22, requests=10, seed=0)
    assert list(block) == ["unit", "total", "per_page", "per_request", "interval95", "by_primitive"]
    assert block["unit"] == "ns"
    whole = 18 * 55.472 + 4 * 30.80 + 19.05
    assert block["total"] == pytest.approx(whole)
    assert block["per_page"] == pytest.approx(whole / 22)
    assert block["per_request"]["mean"] == pytest.approx(whole / 10)
    assert block["per_request"]["p50"] == pytest.approx(2 * 55.472)
    assert block["per_request"]["p99"] == pytest.approx(4 * 30.80 + 19.05)
    assert sum(block["by_primitive"].values()) == pytest.approx(whole)
    low, high = block["interval95"]
    assert low < whole < high


def test_cost_block_of_no_request() -> None:
    block = cost_block({}, np.zeros((0, NR_SLOTS)), np.zeros(0, dtype=np.int64), ARRAY, pages=0, requests=0, seed=0)
    assert block["total"] == 0.0
    assert block["per_page"] is None
    assert block["per_request"] == {"mean": None, "p50": None, "p99": None}
    assert block["interval95"] == [0.0, 0.0]
