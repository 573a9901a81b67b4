"""Frees that nothing counted as lost and that the frames' own events prove, against a slow count event by event."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trace_samples import rows_batch
from tracereplay.trace.decode import Loss
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.trace.unnoticed import CLASS, UnnoticedFrees

MS = 1_000_000
TICK = 1 << 20
BOTH = ["kmem:mm_page_alloc", "kmem:mm_page_free"]
Event = tuple[int, str, int, int]
"""ts_ns, kind, pfn, order."""


def batch_of(events: Sequence[Event]) -> pa.RecordBatch:
    """Page events as the recorder makes them: codes of PAGE_KINDS."""
    rows = [dict(zip(("ts_ns", "kind", "pfn", "order"), event, strict=True)) for event in events]
    batch = rows_batch("page_events", rows)
    codes = pa.array([PAGE_KINDS.index(event[1]) for event in events], pa.int8())
    kinds = pa.DictionaryArray.from_arrays(codes, pa.array(PAGE_KINDS))
    return batch.set_column(batch.schema.get_field_index("kind"), "kind", kinds)


def watcher(**filters: object) -> UnnoticedFrees:
    made = UnnoticedFrees()
    made.begin(BOTH, filters)
    return made


def found(events: Sequence[Event], losses: Sequence[Loss] = ()) -> list[Loss]:
    made = watcher()
    made.events(batch_of(events))
    for loss in losses:
        made.lost(loss)
    return made.settle(all_of_it=True)


def slow(events: Sequence[Event]) -> list[tuple[int, int]]:
    """(time of the allocation before, time of the one after) of each free that must be missing."""
    since: dict[int, int] = {}
    missing = []
    for ts, kind, pfn, order in events:
        if order or kind not in ("alloc", "free"):
            continue
        if kind == "alloc" and pfn in since:
            missing.append((since[pfn], ts))
        if kind == "alloc":
            since[pfn] = ts
        else:
            since.pop(pfn, None)
    return sorted(missing, key=lambda pair: pair[1])


FRAMES = (0, 1, 65_535, 65_536, 1 << 25)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * MS),
            st.sampled_from(["alloc", "free", "zone_locked"]),
            st.sampled_from(FRAMES),
            st.sampled_from([0, 0, 1]),
        ),
        max_size=40,
    ),
    st.lists(st.integers(0, 40), max_size=3),
)
def test_it_finds_what_a_count_event_by_event_finds(steps: list[tuple[int, str, int, int]], cuts: list[int]) -> None:
    times = np.cumsum([step[0] + 1 for step in steps]).tolist()
    events = [(t, *step[1:]) for t, step in zip(times, steps, strict=True)]
    expected = slow(events)
    made = watcher()
    edges = sorted({0, *(min(cut, len(events)) for cut in cuts), len(events)})
    for begin, end in pairwise(edges):
        made.events(batch_of(events[begin:end]))
    rows = made.settle(all_of_it=True)
    assert sum(row.n for row in rows) == len(expected)
    assert {(row.table, row.cpu, row.cls) for row in rows} <= {("page_events", None, CLASS)}
    at = 0
    for row in rows:  # each row is of the next n, in the order of their ends, and within all of them, to a tick
        of_row = expected[at : at + row.n]
        at += row.n
        assert row.t0_ns is not None
        assert row.t1_ns == min(t1 for _, t1 in of_row)
        latest = max(t0 for t0, _ in of_row)
        assert latest - TICK < row.t0_ns <= latest
    assert made.settle(all_of_it=True) == []


def test_a_burst_is_one_row_in_the_time_that_all_of_it_has_in_common() -> None:
    events = [(10 * MS, "alloc", 1, 0), (20 * MS, "alloc", 2, 0), (30 * MS, "alloc", 1, 0), (31 * MS, "alloc", 2, 0)]
    (row,) = found(events)
    assert row.n == 2
    assert row.t1_ns == 30 * MS
    assert row.t0_ns is not None
    assert 19 * MS - TICK <= row.t0_ns <= 20 * MS


@pytest.mark.parametrize(
    ("span", "n"), [((5, 15), 0), ((12, 13), 0), ((None, 11), 0), ((25, None), 1), ((31, 40), 1), ((1, 5), 1)]
)
def test_a_known_loss_in_that_time_explains_it(span: tuple[int | None, int | None], n: int) -> None:
    t0, t1 = (None if t is None else t * MS for t in span)
    events = [(10 * MS, "alloc", 1, 0), (20 * MS, "alloc", 1, 0)]
    loss = Loss("page_events", 0, t0, t1, 5, "ring_full")
    assert sum(row.n for row in found(events, [loss])) == n
    assert len(found(events, [Loss("bio_events", 0, t0, t1, 5, "ring_full")])) == 1
    assert len(found(events, [Loss("stacks", 0, t0, t1, 5, "stack")])) == 1


def test_losses_may_be_told_late() -> None:
    made = watcher()
    made.events(batch_of([(10 * MS, "alloc", 1, 0), (20 * MS, "alloc", 1, 0)]))
    assert made.settle() == []  # the last seconds wait
    made.lost(Loss("page_events", 1, 15 * MS, 900 * MS, 1, "ring_full"))
    made.events(batch_of([(9000 * MS, "free", 1, 0)]))
    assert made.settle() == []
    made.events(batch_of([(9001 * MS, "alloc", 2, 0), (9002 * MS, "alloc", 2, 0), (20_000 * MS, "free", 3, 0)]))
    assert [row.n for row in made.settle()] == [1]


def test_many_losses_are_joined_and_still_explain() -> None:
    made = watcher()
    for k in range(20_000):
        made.lost(Loss("page_events", 0, k * MS, k * MS + 10, 1, "ring_full"))
    made.events(batch_of([(5, "alloc", 1, 0), (19_000 * MS, "alloc", 1, 0), (30_000 * MS, "alloc", 2, 0)]))
    made.events(batch_of([(30_001 * MS, "alloc", 2, 0)]))
    assert [row.n for row in made.settle(all_of_it=True)] == [1]


def test_nothing_is_watched_where_events_are_left_out_on_purpose() -> None:
    twice = batch_of([(10, "alloc", 1, 0), (20, "alloc", 1, 0)])
    for made in (watcher(pid=[1]), watcher(order=[0]), UnnoticedFrees()):
        made.events(twice)
        assert made.settle(all_of_it=True) == []
    made = watcher(device=[1])  # of bios
    made.sampled(1)
    made.events(twice)
    made.sampled(4)
    made.events(batch_of([(30, "alloc", 1, 0)]))
    assert [row.n for row in made.settle(all_of_it=True)] == [1]


def test_frames_that_no_machine_has_are_left_out() -> None:
    assert found([(10, "alloc", 1 << 50, 0), (20, "alloc", 1 << 50, 0), (30, "alloc", (1 << 64) - 1, 0)]) == []
