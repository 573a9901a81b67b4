"""The dearest requests and the words for why; whose they were; bios in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.replay_samples import op, ops_of, request
from tests.unit.test_engine import engine
from tracereplay.cost.distribution import distributions
from tracereplay.cost.price import price_vectors
from tracereplay.cost.profile import load_profile
from tracereplay.cost.worst import reason, worst
from tracereplay.demand.stream import FREE, OF_BIO, PIECE, TARGETED
from tracereplay.machine.counters import NR_COUNTERS, slot

PROFILE = load_profile()
WEIGHTS = price_vectors(np.eye(NR_COUNTERS), PROFILE)


def row(**counters: int) -> Any:
    made = np.zeros(NR_COUNTERS, np.int64)
    for name, n in counters.items():
        made[slot(name)] = n
    return made


PAGE = {"alloc_calls": 1, "pcp_hits": 1, "free_calls": 1, "pcp_lock_acquisitions": 2, "watermark_checks": 1}


@pytest.mark.parametrize(
    ("counters", "pages", "waited", "says"),
    [
        ({}, 1, 0, "as the median request"),
        ({"pcp_refills": 2, "pcp_refill_pages": 126, "splits": 118}, 1, 0, "118 splits; 2 refills moving 126 pages"),
        ({"fallbacks": 1, "fallback_block_moves": 1}, 1, 0, "a fallback with a pageblock move"),
        ({"failed_attempts": 3}, 1, 0, "3 failed attempts"),
        ({"direct_map_splits": 1, "tlb_flushes": 1}, 1, 0, "a TLB flush; a split of the direct map"),
        ({"reclaim_attempts": 1, "reclaimed_pages": 40}, 1, 0, "a direct reclaim of 40 pages"),
        ({"mempool_waits": 1}, 1, 1_300_000, "waited 1.3 ms for the reserve"),
        ({"failures": 1}, 1, 0, "failed"),
        ({"free_calls": 2}, 1, 0, "2 free calls"),
    ],
)
def test_reasons(counters: dict[str, int], pages: int, waited: int, says: str) -> None:
    assert reason(row(**PAGE | counters), row(**PAGE), WEIGHTS, pages, 1, waited) == says


def test_a_large_request_is_compared_per_page() -> None:
    large = row(**{name: 16 * n for name, n in PAGE.items()})
    assert reason(large, row(**PAGE), WEIGHTS, 16, 1) == "16 pages, the median request has 1"
    large[slot("splits")] += 60
    assert reason(large, row(**PAGE), WEIGHTS, 16, 1) == "16 pages, the median request has 1; 60 splits"


def test_what_explains_little_is_not_named() -> None:
    dear = row(**PAGE | {"zeroed_pages": 100, "splits": 1})
    assert reason(dear, row(**PAGE), WEIGHTS, 1, 1) == "100 pages zeroed"


def test_the_dearest_come_first_and_say_who() -> None:
    runner = engine("per-page", end_ns=999)
    records: list[Any] = []
    for i in range(20):
        records += request(10 * i, [0], flags=TARGETED, ts=i, cpu=i)
    records += request(1000, [0] * 7, flags=TARGETED, ts=333, cpu=1)
    records += [op(FREE, 10 * i, ts=999) for i in range(20)]
    runner.feed(ops_of(records))
    outcome = runner.finish()
    found = worst(outcome, PROFILE, ["somebody"], [], 10)
    assert [w["cost"] for w in found] == sorted((w["cost"] for w in found), reverse=True)
    assert sum(w["requests"] for w in found) == 21
    refilled = next(w for w in found if w["pages"] == 1 and w["counters"].get("pcp_refills"))
    assert refilled["arrival_ns"] == 0
    seven = next(w for w in found if w["pages"] == 7)
    assert (seven["arrival_ns"], seven["within_ns"], seven["from_s"]) == (333, 0, 333e-9)
    assert (seven["cpu"], seven["caller"], seven["requests"]) == (1, "somebody", 1)
    assert seven["reason"].startswith("7 pages, the median request has 1")
    one = next(w for w in found if w["requests"] > 1)
    assert (one["cpu"], one["caller"], one["pages"]) == (None, None, 1)
    assert worst(outcome, PROFILE, ["somebody"], [], 0) == []


def test_nothing_and_nothing_but_failures() -> None:
    empty = engine("per-page").finish()
    assert worst(empty, PROFILE, [], [], 10) == []
    (spread,) = distributions([empty], PROFILE)
    assert spread["per_request"]["count"] == 0
    assert spread["per_bio"] is None
    runner = engine("per-page", frames=1 << 20)
    runner.feed(ops_of(request(0, [10] * 16, flags=TARGETED) * 1))
    failing = engine("compound", frames=1 << 20)
    from tracereplay.demand.stream import REQUIRED

    failing.feed(ops_of([r for k in range(40) for r in request(k << 14, [10] * 16, flags=TARGETED | REQUIRED)]))
    outcome = failing.finish()
    assert outcome.counts.sum() == 40
    assert any("failed" in w["reason"] for w in worst(outcome, PROFILE, ["x"], [], 100))


@pytest.mark.parametrize("name", ["per-page", "bulk", "compound"])
def test_a_bio_costs_the_sum_of_its_pieces(name: str) -> None:
    """Three bios: one whole, one in two pieces, one whose last piece the trace does not show; and a request of none."""
    runner = engine(name)
    flags = TARGETED | OF_BIO
    records = [
        *request(0, [2], flags=flags, ts=1),
        op(PIECE, 0, ts=2, pages=1),
        *request(100, [2], flags=flags, ts=2),
        *request(300, [1], flags=TARGETED, ts=3),
        op(PIECE, 0, ts=4, pages=0),
        *request(200, [1], flags=flags, ts=4),
        op(PIECE, 1, ts=5, pages=1),
        *request(400, [1], flags=flags, ts=5),
        op(FREE, 0, 2, ts=6),
        op(FREE, 100, 2, ts=7),
        op(FREE, 200, 1, ts=8),
        op(FREE, 300, 1, ts=9),
        op(FREE, 400, 1, ts=10),
    ]
    runner.feed(ops_of(records))
    outcome = runner.finish()
    pages = slot("pages_allocated")
    assert outcome.counts.sum() == 5
    assert outcome.bio_pieces == (3, 2, 1)
    sizes = np.repeat(outcome.bio_vectors[:, pages], outcome.bio_counts)
    assert sorted(sizes.tolist()) == [2, 4, 6]
    (spread,) = distributions([outcome], PROFILE)
    told = {k: spread["per_bio"][k] for k in ("count", "pieces", "in_pieces", "cut", "requests_without")}
    assert told == {"count": 3, "pieces": 3, "in_pieces": 2, "cut": 1, "requests_without": 1}


def test_a_piece_that_is_not_targeted_is_left_out() -> None:
    runner = engine()
    records = [
        op(PIECE, 0, ts=1, pages=1),
        *request(0, [2], flags=TARGETED | OF_BIO, ts=1),
        op(FREE, 0, 2, ts=2),
        op(PIECE, 0, ts=3, pages=0),
        *request(100, [0], flags=OF_BIO, ts=3),
        *request(200, [1], flags=TARGETED | OF_BIO, ts=4),
        op(FREE, 200, 1, ts=5),
    ]
    runner.feed(ops_of(records))
    outcome = runner.finish()
    sizes = np.repeat(outcome.bio_vectors[:, slot("pages_allocated")], outcome.bio_counts)
    assert sorted(sizes.tolist()) == [2, 4]
    assert outcome.bio_pieces == (1, 1, 0)


def test_more_bios_in_pieces_than_there_is_room_for() -> None:
    runner = engine(frames=1 << 17)
    records: list[Any] = []
    for bio in range(2000):
        records += [op(PIECE, bio, ts=bio, pages=1), *request(2 * bio, [0], flags=TARGETED | OF_BIO, ts=bio)]
    for bio in range(2000):
        ts = 3000 + bio
        records += [op(PIECE, bio, ts=ts, pages=0), *request(2 * bio + 1, [0], flags=TARGETED | OF_BIO, ts=ts)]
        records += [op(FREE, 2 * bio + k, ts=ts) for k in (0, 1)]
    for bio in range(2000, 9000):
        records += [op(PIECE, bio, ts=bio, pages=0), *request(2 * bio, [0], flags=TARGETED | OF_BIO, ts=bio)]
        records.append(op(FREE, 2 * bio, ts=bio))
    runner.feed(ops_of(records))
    outcome = runner.finish()
    assert outcome.bio_counts.sum() == 9000
    assert outcome.bio_pieces == (11_000, 9000, 0)
    assert (outcome.bio_vectors[:, slot("pages_allocated")] * outcome.bio_counts).sum() == 11_000
