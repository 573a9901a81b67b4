"""A demand at another rate, and one of smaller requests: nothing but that changes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.slow_request_pages import cut_requests
from tests.reference.stream_check import check_stream
from tests.replay_samples import Ops, compare, op, ops_of, random_stream, request, run_engine, run_slow
from tracereplay.demand import request_pages as module
from tracereplay.demand.copies import CopiedDemand
from tracereplay.demand.loaded import with_loads
from tracereplay.demand.rate import RatedDemand, at_rate
from tracereplay.demand.request_pages import CutDemand, in_pieces
from tracereplay.demand.stream import ALLOC, FIRST, FREE, OF_BIO, OP, PIECE, TARGETED, DemandInfo, DemandReport
from tracereplay.errors import ParameterError
from tracereplay.machine.config import MachineConfig, ZoneConfig

FIRST_BIO = 10_000


class Stream:
    """A demand stream of given operations, in batches of so many records that cut no request."""

    def __init__(self, ops: Ops, batch: int = 1 << 20, start_ns: int = 0) -> None:
        self.info = DemandInfo(4096, 4096, 5, start_ns, int(ops["ts_ns"].max(initial=start_ns)))
        firsts = ops[(ops["kind"] == ALLOC) & (ops["flags"] & FIRST != 0)]
        sizes = Counter(firsts["pages"].tolist())
        targeted = firsts[firsts["flags"] & TARGETED != 0]
        self.report = DemandReport(
            requests=len(firsts),
            pages=int(firsts["pages"].sum()),
            targeted_requests=len(targeted),
            targeted_pages=int(targeted["pages"].sum()),
            callers=["x"],
            by_caller=[{"caller": "x", "requests": len(firsts), "pages": int(firsts["pages"].sum())}],
        )
        self.report.by_caller[0]["sizes"] = {str(p): sizes[p] for p in sorted(sizes, reverse=True)}
        starts = np.flatnonzero((ops["kind"] != ALLOC) | (ops["flags"] & FIRST != 0))[::batch].tolist()
        self.parts = [ops[i:j] for i, j in zip(starts, [*starts[1:], len(ops)], strict=True)]

    def __iter__(self) -> Iterator[Ops]:
        return iter(self.parts)


def together(stream: Any) -> Ops:
    """All operations."""
    return np.concatenate([np.zeros(0, OP), *stream])


def valid(seed: int, n: int) -> Ops:
    """A random stream that keeps the contract: batches are cut anywhere, so all are looked at as one."""
    return random_stream(random.Random(seed), n)


# ---------------------------------------------------------------- smaller requests
@settings(max_examples=80, deadline=None)
@given(st.integers(0, 200), st.sampled_from([1, 2, 3, 7, 8, 31, 64, 100, 255, 256]), st.integers(1, 300))
def test_pieces_are_those_of_the_slow_form(seed: int, most: int, batch: int) -> None:
    ops = valid(seed, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW_PAGES", 2 * batch)
        cut = CutDemand(Stream(ops, batch), most, first_bio=FIRST_BIO)
        made = together(cut)
    assert made.tolist() == cut_requests(ops.tolist(), most, FIRST_BIO)
    assert cut.report == replace(Stream(made).report, request_pages=most)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(1, 300))
def test_pages_keys_frees_and_times_stay(seed: int, most: int) -> None:
    ops = valid(seed, 300)
    made = together(CutDemand(Stream(ops), most, first_bio=FIRST_BIO))
    assert (made["ts_ns"][made["kind"] != PIECE] >= 0).all()
    assert (np.diff(made["ts_ns"]) >= 0).all()
    other = [rows[(rows["kind"] != ALLOC) & (rows["kind"] != PIECE)] for rows in (ops, made)]
    assert (other[0] == other[1]).all()

    def pages(rows: Ops) -> list[tuple[Any, ...]]:
        """Every page that is asked for, in order: time, key, CPU, gfp, caller."""
        alloc = rows[rows["kind"] == ALLOC]
        return [(r[0], r[1] + i, r[5], r[2], r[4]) for r in alloc.tolist() for i in range(1 << r[8])]

    assert pages(made) == pages(ops)
    first = made[(made["kind"] == ALLOC) & (made["flags"] & FIRST != 0)]
    none = first[(first["flags"] & (TARGETED | 2)) == TARGETED]
    assert (none["pages"] <= most).all()
    if most >= ops["pages"].max():
        assert (made == ops).all()


def test_pieces_keep_the_contract() -> None:
    rows = [
        op(PIECE, 5, ts=1, pages=2),
        *request(0, [8, 3], ts=1, flags=TARGETED | OF_BIO),
        *request(512, [6], ts=2, flags=TARGETED | OF_BIO),
        op(PIECE, 5, ts=3, pages=1),
        *request(1024, [5], ts=3, flags=TARGETED | OF_BIO),
        op(FREE, 0, 9, ts=4),
    ]
    rows[-1] = op(FREE, 0, 8, ts=4)
    made = together(CutDemand(Stream(ops_of(rows)), 100, first_bio=FIRST_BIO))
    found = check_stream([made], Stream(ops_of(rows)).info)
    assert [r.pages for r in found.requests] == [100, 100, 64, 64, 32]
    assert found.requests[0].extents == [6, 5, 2]
    assert found.pieces == [(0, 5, 4), (1, 5, 3), (2, 5, 2), (4, 5, 1)]
    assert [(r[1], r[3]) for r in together(CutDemand(Stream(ops_of(rows)), 40, first_bio=7)).tolist() if r[7] == PIECE][
        7:9
    ] == [(7, 1), (7, 0)]


def test_a_bio_costs_what_its_pieces_do_and_both_replays_agree() -> None:
    ops = valid(3, 800)
    made = together(CutDemand(Stream(ops), 5, first_bio=FIRST_BIO))
    config = MachineConfig((ZoneConfig("Normal", 0, 1 << 15),), cpus=4, generation="6.12", occupancy=0.3, pcp_batch=15)
    for strategy in ("per-page", "compound"):
        outcome = run_engine(made, config, strategy)
        assert not compare(outcome, run_slow(made, config, strategy))
    whole = run_engine(ops, config)
    assert int(outcome.bio_counts.sum()) == int(whole.bio_counts.sum()) > 10


@pytest.mark.parametrize("most", [0, 16385])
def test_sizes_that_no_request_has(most: int) -> None:
    with pytest.raises(ParameterError, match="request_pages"):
        in_pieces(Stream(valid(1, 10)), most, first_bio=0)


# ---------------------------------------------------------------- rate
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.floats(0.001, 1000), st.integers(0, 10**15))
def test_only_the_clock_changes(seed: int, rate: float, start: int) -> None:
    ops = valid(seed, 200)
    ops["ts_ns"] += start
    rated = RatedDemand(Stream(ops, 50, start_ns=start), rate)
    made = together(rated)
    assert (np.diff(made["ts_ns"]) >= 0).all()
    assert (np.abs((made["ts_ns"] - start) * rate - (ops["ts_ns"] - start)) <= rate * 1.001 + 1).all()
    assert rated.info.end_ns == made["ts_ns"].max()
    assert rated.report == replace(Stream(ops).report, rate=rate)
    made["ts_ns"] = ops["ts_ns"]
    assert (made == ops).all()


def test_rate_one_is_the_stream() -> None:
    stream = Stream(valid(1, 100))
    assert at_rate(stream, 1.0) is stream
    for bad in (0.0, -1.0, float("nan"), float("inf"), 1e-4):
        with pytest.raises(ParameterError, match="rate="):
            at_rate(stream, bad)


def test_all_changes_together_leave_what_they_are_made_of() -> None:
    ops = valid(4, 400)
    spooled = Stream(ops)
    before = replace(spooled.report, by_caller=[dict(row) for row in spooled.report.by_caller])
    cut = in_pieces(at_rate(spooled, 4.0), 8, first_bio=FIRST_BIO)
    copied = CopiedDemand(cut, 3, cpus=5, seed=1)
    stream = with_loads(copied, ["network"])
    made = together(stream)
    recorded = made[made["caller"] >= 0]
    assert recorded["ts_ns"].max() <= copied.info.end_ns < ops["ts_ns"].max()
    report = stream.report
    assert (report.rate, report.request_pages, len(report.loads)) == (4.0, 8, 1)
    assert report.targeted_requests == 3 * cut.report.targeted_requests + report.loads[0]["requests"]
    assert before == spooled.report
    numbers = [set(made["pfn"][(made["kind"] == PIECE) & (made["cpu"] // 5 == k)].tolist()) for k in range(3)]
    assert not numbers[0] & numbers[1] | numbers[1] & numbers[2] | numbers[0] & numbers[2]
