"""The tally of unseen pages against sums over plain events, however the events are cut into batches."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.trace.unseen import UnseenTally

Event = tuple[int, str, int, int]
"""(ts_ns, kind, order, returned)."""

events = st.lists(
    st.tuples(st.integers(0, 1000), st.sampled_from(PAGE_KINDS), st.integers(0, 10), st.integers(0, 64)),
    min_size=1,
    max_size=80,
).map(sorted)


def batch(rows: list[Event]) -> pa.RecordBatch:
    """Events as a capture or a trace gives them: nulls where a kind has no such value."""
    codes = pa.array([PAGE_KINDS.index(kind) for _, kind, _, _ in rows], pa.int8())
    return pa.RecordBatch.from_pydict(
        {
            "ts_ns": pa.array([ts for ts, *_ in rows], pa.int64()),
            "kind": pa.DictionaryArray.from_arrays(codes, kind_dictionary("page_events")),
            "order": pa.array([None if k in ("free_batched", "bulk") else o for _, k, o, _ in rows], pa.uint8()),
            "returned": pa.array([r if k == "bulk" else None for _, k, _, r in rows], pa.uint32()),
        }
    )


def pages(rows: list[Event], begin: int, end: int) -> tuple[int, int]:
    """Pages allocated with an event, and by bulk calls, in [begin, end)."""
    within = [row for row in rows if begin <= row[0] < end]
    return (
        sum(1 << order for _, kind, order, _ in within if kind == "alloc"),
        sum(returned for _, kind, _, returned in within if kind == "bulk" and returned > 1),
    )


@given(events, st.sets(st.integers(0, 1000), min_size=2, max_size=6), st.data())
def test_intervals_are_sums_over_their_events(rows: list[Event], times: set[int], data: st.DataObject) -> None:
    readings = sorted(times)
    growth = data.draw(st.lists(st.integers(0, 10**6), min_size=len(readings), max_size=len(readings)))
    counters = np.cumsum(growth).tolist()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=5)) | {0, len(rows)})
    tally, whole = UnseenTally(), batch(rows)
    pending = list(zip(readings, counters, strict=True))
    for begin, end in pairwise(cuts):
        # A capture tells a reading before any event that is younger than it.
        while pending and (end == begin or pending[0][0] <= rows[end - 1][0]):
            ts, value = pending.pop(0)
            tally.reading(ts, {"pgalloc_dma": 1, "pgalloc_normal": value, "pgfree": 7})
        tally.events(whole.slice(begin, end - begin))
    for ts, value in pending:
        tally.reading(ts, {"pgalloc_dma": 1, "pgalloc_normal": value, "pgfree": 7})
    found = tally.result(started_ns=readings[0], stopped_ns=readings[-1])
    between = list(pairwise(readings))
    sums = [pages(rows, a, b) for a, b in between]
    table = found["intervals"]
    assert list(zip(table["t0_ns"], table["t1_ns"], strict=True)) == between
    assert list(zip(table["traced"], table["bulk"], strict=True)) == sums
    assert table["pgalloc"] == growth[1:]
    assert found["unseen_pages"] == sum(growth[1:]) - sum(a + b for a, b in sums) == sum(table["unseen"])
    assert found["pgalloc_delta"] == sum(growth[1:])


@given(st.integers(0, 20), st.integers(1, 5000))
def test_long_captures_keep_their_sums_in_few_intervals(seed: int, readings: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.integers(0, 1000, readings + 1))
    tally = UnseenTally()
    tally.reading(0, {"pgalloc_normal": int(values[0])})
    rows: list[Any] = [(1, "alloc", 3, 0)]
    for at, value in enumerate(values[1:].tolist()):
        tally.reading(2 * at + 2, {"pgalloc_normal": value})
    tally.events(batch(rows))
    found = tally.result(started_ns=0, stopped_ns=2 * readings)
    table = found["intervals"]
    assert len(table["t0_ns"]) <= 512
    assert sum(table["unseen"]) == found["unseen_pages"] == int(values[-1] - values[0]) - 8
    assert table["t0_ns"][0] == 0
    assert table["t1_ns"][-1] == 2 * readings
    assert table["t1_ns"][:-1] == table["t0_ns"][1:]
