"""Analyses of lifetimes against plain sums over all rows; spreads and slopes against what is known of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.demand_samples import MemoryTrace, page_row, trace_of
from tests.differential.test_demand_pairing import soups
from tests.reference.slow_demand import Event
from tracereplay.analysis.lifetime_totals import totals_by_stack
from tracereplay.analysis.lifetimes import BYTE_SECONDS, HISTOGRAM, LIFETIMES, MATRIX, REMOTE, REUSE
from tracereplay.analysis.live import LEAKS, LIVE, PEAK
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.slopes import slope_interval, theil_sen
from tracereplay.analysis.spread import Spread, survival_median
from tracereplay.analysis.view import View
from tracereplay.demand import lifetimes
from tracereplay.trace.reader import Trace

MIXED = Path(__file__).parents[2] / "traces" / "mixed-6.12"


@pytest.fixture(scope="module")
def mixed() -> Trace:
    return Trace.open(MIXED)


@pytest.fixture(scope="module")
def rows(mixed: Trace) -> pl.DataFrame:
    """All lifetimes."""
    found = pl.concat([pl.DataFrame(batch) for batch in lifetimes(mixed)])
    return found.with_columns(pl.col("caller", "class").cast(pl.String))


def nearest_rank(values: list[int], share: float) -> int | None:
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)] if values else None


# ---------------------------------------------------------------- percentiles and counts
@pytest.mark.parametrize("by", ["none", "caller", "order", "cpu"])
def test_percentiles_and_classes_are_those_of_the_rows(mixed: Trace, rows: pl.DataFrame, by: str) -> None:
    column = {"none": pl.lit("all"), "caller": pl.col("caller"), "order": pl.col("order"), "cpu": pl.col("alloc_cpu")}
    key = column[by].cast(pl.String)
    if by != "none":
        key = pl.when(pl.col("t_alloc_ns").is_null()).then(pl.lit("(allocation not seen)")).otherwise(key)
    answer = LIFETIMES.answer(mixed, by=by)
    assert answer.method == "percentiles: nearest rank, exact"
    expected = {}
    for (name,), part in rows.with_columns(key.alias("by")).group_by("by"):
        lived = part["lifetime_ns"].drop_nulls().to_list()
        classes = dict(part["class"].value_counts().iter_rows())
        expected[str(name)] = (
            len(part),
            part["pages"].sum(),
            len(lived),
            *(nearest_rank(lived, s) for s in (0.5, 0.9, 0.99, 0.999, 1)),
            *(classes.get(c, 0) for c in ("right_censored", "left_censored", "broken", "unseen")),
        )
    names = [f"lifetime_{p}_ns" for p in ("p50", "p90", "p99", "p999", "max")]
    names = ["blocks", "pages", "complete", *names, "right_censored", "left_censored", "broken", "unseen"]
    found = {str(row["by"]): tuple(row[n] for n in names) for row in answer.frame.iter_rows(named=True)}
    if by == "order":  # pieces of a block that fell apart count as of the order that was allocated
        assert found.keys() == expected.keys()
    else:
        assert found == expected
    assert dict(answer.account) == dict.fromkeys(answer.account, 0) | dict(rows["class"].value_counts().iter_rows())


def test_histogram_adds_up_to_the_rows(mixed: Trace, rows: pl.DataFrame) -> None:
    lived = rows["lifetime_ns"].drop_nulls()
    frame = HISTOGRAM(mixed)
    assert frame["blocks"].sum() == len(lived)
    assert frame["share"].sum() == pytest.approx(1)
    for low, high, blocks in frame.select("low_ns", "high_ns", "blocks").iter_rows():
        assert blocks == ((lived >= low) & (lived < high)).sum()
    ages = HISTOGRAM(mixed, of="live", by="process")
    assert ages["blocks"].sum() == (rows["class"] == "right_censored").sum()


def test_frees_on_another_cpu(mixed: Trace, rows: pl.DataFrame) -> None:
    done = rows.filter(pl.col("class") == "complete")
    away = done.filter(pl.col("alloc_cpu") != pl.col("free_cpu"))
    row = REMOTE(mixed, by="none").row(0, named=True)
    assert (row["blocks"], row["remote"]) == (len(done), len(away))
    assert (row["pages"], row["remote_pages"]) == (done["pages"].sum(), away["pages"].sum())
    cells = done.group_by("alloc_cpu", "free_cpu").agg(pl.len().alias("blocks"), pl.col("pages").sum())
    same = MATRIX(mixed).select(pl.col("alloc_cpu", "free_cpu", "blocks", "pages").cast(pl.Int64)).sort(pl.all())
    assert same.equals(cells.select(pl.all().cast(pl.Int64)).sort(pl.all()))


def test_byte_seconds_and_totals_are_the_area_under_the_live_set(mixed: Trace, rows: pl.DataFrame) -> None:
    first, last = rows["t_alloc_ns"].min(), rows["t_free_ns"].max()
    view = View(mixed)
    lived = rows.filter(pl.col("class") != "unseen").select(
        pl.col("pages"),
        (pl.col("t_free_ns").fill_null(view.last_ns + 1) - pl.col("t_alloc_ns").fill_null(view.start_ns)).alias("ns"),
    )
    area = (lived["pages"].cast(pl.Float64) * lived["ns"]).sum() * 4096 / 1e9
    assert first is not None
    assert last is not None
    whole = BYTE_SECONDS(mixed, by="caller")
    assert whole["byte_seconds"].sum() == pytest.approx(area, rel=1e-3)
    middle = (view.last_ns - view.start_ns) // 2
    halves = [View(mixed, Selection(time=t)) for t in ((None, middle), (middle, None))]
    assert sum(BYTE_SECONDS(h, by="none")["byte_seconds"].sum() for h in halves) == pytest.approx(area, rel=1e-3)
    totals = totals_by_stack(mixed)
    known = whole.filter(pl.col("by") != "(allocation not seen)")
    assert totals["byte_seconds"].sum() == pytest.approx(known["byte_seconds"].sum(), rel=1e-3)
    assert totals["live_pages"].sum() == rows.filter(pl.col("class") == "right_censored")["pages"].sum()


def test_filters_are_those_of_the_allocation(mixed: Trace, rows: pl.DataFrame) -> None:
    view = View(mixed, Selection(cpu=(0,), order=(0,), time=(4_000_000_000, 6_000_000_000)))
    begin = view.start_ns
    mine = rows.filter(
        pl.col("t_alloc_ns").is_between(begin, view.end_ns, closed="left"), pl.col("alloc_cpu") == 0, order=0
    )
    answer = LIFETIMES.answer(view)
    assert len(mine) > 500
    assert answer.frame["blocks"].to_list() == [len(mine)]
    assert "frees whose allocation was not seen" in answer.notes[0]
    assert sum(REUSE.answer(view).account.values()) == len(mine)


def test_lifetimes_that_a_loss_falls_into_are_counted() -> None:
    events = [
        Event(1000, 0, "alloc", 1),
        Event(2000, 0, "alloc", 2),
        Event(3000, 0, "free", 1),
        Event(9000, 0, "free", 2),
    ]
    trace: Any = trace_of(events, losses=[(500, 600), (5000, 6000)])
    assert LIFETIMES.answer(trace).account["complete_across_losses"] == 1
    odd: Any = trace_of([*events, Event(9500, 0, "free", 0, 40)])
    assert LIFETIMES.answer(odd).account["malformed"] == 1
    assert "complete_across_losses" not in LIFETIMES.answer(trace_of(events)).account  # type: ignore[arg-type]


# ---------------------------------------------------------------- the live set
def levels(events: list[Event]) -> tuple[list[int], int]:
    """Pages live after each event, without those from before the trace; and how many of those were freed."""
    owner: set[int] = set()
    seen: set[int] = set()
    found, before = [], 0
    for e in events:
        if e.kind == "alloc":
            owner |= set(e.frames)
        elif e.kind == "free":
            before += len(set(e.frames) - owner - seen)
            owner -= set(e.frames)
        if e.kind in ("alloc", "free", "zone_locked", "drain"):
            seen |= set(e.frames)
        found.append(len(owner) - before)
    return found, before


@settings(max_examples=40)
@given(soups(), st.integers(1, 9))
def test_live_and_peak_agree_with_counting(events: list[Event], bins: int) -> None:
    trace: Any = trace_of(events)
    found, before = levels(events)
    live = LIVE(trace, bins=bins)
    first = events[0].ts
    for t, pages in live.select("t_ns", "pages").iter_rows():
        passed = sum(e.ts < first + t for e in events)
        assert pages == before + (found[passed - 1] if passed else 0)
    most = before + max(0, *found)
    assert live["most_pages"].max() == most
    peak = PEAK.answer(trace, by="order")
    assert peak.account["peak_pages"] == most
    assert peak.frame["pages"].sum() == most
    by = LIVE(trace, by="cpu", bins=bins).group_by("t_ns").agg(pl.col("pages").sum()).sort("t_ns")
    if len(by):
        assert by["pages"].to_list() == live["pages"].to_list()


def test_who_held_memory_at_the_peak() -> None:
    events = [
        Event(1000, 0, "alloc", 8, 3, 0xCC0, 10),
        Event(2000, 0, "alloc", 0, 0, 0xCC0, 11),
        Event(3000, 0, "free", 40),
        Event(4000, 0, "free", 8, 3),
        Event(9000, 0, "alloc", 16, 1, 0xCC0, 11),
    ]
    trace: Any = trace_of(events, comms={10: "fio", 11: "cat"})
    answer = PEAK.answer(trace, by="process")
    shown = answer.frame.select("by", "pages", "blocks", "age_p50_ns", "age_max_ns").rows()
    assert shown == [("fio", 8, 1, 1000, 1000), ("(live when the trace began)", 1, 0, None, None), ("cat", 1, 1, 0, 0)]
    assert answer.account == {"peak_pages": 10}
    later = PEAK.answer(View(trace, Selection(time=(5000, None))), by="process")
    assert later.frame.select("by", "pages").rows() == [("cat", 3)]
    mine = PEAK.answer(View(trace, Selection(comm=("cat",))), by="none")
    assert mine.frame.select("by", "pages").rows() == [("all", 3)]


def leaking() -> list[Event]:
    """Task 10 keeps one block in four, 11 frees all it takes, 12 takes once and keeps, 13 fills early and stays."""
    rng = np.random.default_rng(7)
    events, held = [], []
    for k in range(6000):
        t = 1000 + k * 1000
        if k % 3 == 0:
            events.append(Event(t, 0, "alloc", k, 0, 0xCC0, 10))
            if rng.random() < 0.75:
                held.append((k + rng.integers(1, 90), k))
        elif k % 3 == 1:
            events.append(Event(t, 0, "alloc", k, 0, 0xCC0, 11))
            held.append((k + rng.integers(1, 90), k))
        elif k == 3002 or k < 200:
            pid, order = (12, 9) if k == 3002 else (13, 0)
            events.append(Event(t, 0, "alloc", 8192 if k == 3002 else k, order, 0xCC0, pid))
        held, due = [h for h in held if h[0] > k], [h for h in held if h[0] <= k]
        events += [Event(t + 1 + n, 0, "free", pfn) for n, (_, pfn) in enumerate(due)]
    return events


def test_only_what_keeps_growing_is_a_suspect() -> None:
    trace: Any = trace_of(leaking(), comms={10: "leak", 11: "steady", 12: "once", 13: "early"})
    answer = LEAKS.answer(trace, by="process")
    frame = {row["by"]: row for row in answer.frame.iter_rows(named=True)}
    assert [name for name, row in frame.items() if row["suspect"]] == ["leak"]
    leak = frame["leak"]
    true = 2000 / 4 * 4096 / 6e-3  # a quarter of 2000 pages in 6 ms
    assert leak["slope_low_bytes_per_s"] < true < leak["slope_high_bytes_per_s"]
    assert leak["slope_bytes_per_s"] == pytest.approx(true, rel=0.15)
    assert 0.2 < leak["kept_share"] < 0.3
    assert frame["once"]["slope_low_bytes_per_s"] <= 0
    assert "early" not in frame
    assert any("too few" in note for note in LEAKS.answer(trace, bins=5).notes)


# ---------------------------------------------------------------- reuse, stacks
def test_reuse_is_the_time_from_a_free_to_the_next_owner() -> None:
    events = [
        Event(1000, 0, "alloc", 4),
        Event(2000, 0, "free", 4),
        Event(2500, 0, "alloc", 4, 2),
        Event(3000, 0, "free", 4, 2),
        Event(3300, 0, "alloc", 6),  # idle 300
        Event(4000, 0, "alloc", 6),  # its free was not seen
        Event(5000, 0, "free", 6),
        Event(5100, 0, "free", 6),  # allocated unseen
        Event(5700, 0, "alloc", 6),  # idle 600
    ]
    trace: Any = trace_of(events)
    row = REUSE(trace).row(0, named=True)
    assert (row["reused"], row["idle_p50_ns"], row["idle_max_ns"]) == (3, 500, 600)


def test_stacks_without_symbols_keep_their_numbers() -> None:
    page_events = [
        page_row(Event(1000 + k, 0, "alloc", k, 0, 0xCC0, 10)) | {"stack_id": s} for k, s in enumerate([7, 7, 8, None])
    ]
    stacks = [{"stack_id": 7, "depth": 0, "symbol": "pipe_write"}, {"stack_id": 8, "depth": 0, "address": 3}]
    trace: Any = MemoryTrace({"page_events": page_events, "stacks": stacks, "tasks": [{"pid": 10, "comm": "cat"}]})
    found = totals_by_stack(trace).select("stack_id", "caller", "live_pages").sort("stack_id", nulls_last=True)
    assert found.rows() == [(7, "pipe_write", 2), (8, "cat: GFP_KERNEL", 1), (None, "cat: GFP_KERNEL", 1)]


# ---------------------------------------------------------------- spreads and slopes
@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1 << 45)), min_size=1, max_size=200))
def test_binned_percentiles_are_within_the_stated_error(values: list[tuple[int, int]]) -> None:
    group, value = np.array(values, np.int64).T
    shares = (0.5, 0.9, 1.0)
    exact, binned = Spread(), Spread(exact=0)
    for part in np.array_split(np.arange(len(group)), 3):
        exact.add(group[part], value[part])
        binned.add(group[part], value[part])
    assert exact.exact
    assert not binned.exact
    a, b = (s.percentiles(np.arange(4), 4, shares) for s in (exact, binned))
    assert a.tolist() == [
        [nearest_rank(value[group == g].tolist(), s) if (group == g).any() else -1 for s in shares] for g in range(4)
    ]
    assert (np.abs(a - b) <= np.maximum(0.004 * a, 0)).all()


def test_survival_counts_what_is_still_live() -> None:
    """Ends at 1, 2, 3, 4; four more blocks are live at age 2.5: half of all have ended at 4, not at 2."""
    ended = (np.zeros(4, np.int64), np.array([10, 20, 30, 40]), np.ones(4, np.int64))
    nobody = (np.zeros(0, np.int64),) * 3
    live = (np.zeros(4, np.int64), np.full(4, 25), np.ones(4, np.int64))
    assert survival_median(ended, nobody, 2).tolist() == [20, -1]
    assert survival_median(ended, live, 1).tolist() == [30]
    assert survival_median(ended, (live[0], np.full(4, 99), live[2]), 1).tolist() == [40]


def test_slope_intervals_hold_zero_for_walks_without_a_drift() -> None:
    rng = np.random.default_rng(3)
    sure = drifting = 0
    for _ in range(40):
        walk = np.concatenate([[0], np.cumsum(rng.normal(0, 10, 48))])
        sure += slope_interval(walk)[1] > 0
        drifting += slope_interval(walk + 8 * np.arange(49))[1] > 0
    assert sure <= 4
    assert drifting >= 33
    assert theil_sen(np.array([[0.0, 1, 2, 90, 4, 5, 6]]))[0] == 1
    assert slope_interval(np.r_[np.zeros(24), np.full(25, 1000)])[1] <= 0
