"""Random event soups through the compiled reconstruction and the slow one: equal accounting, equal requests."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.demand_samples import trace_of
from tests.reference.slow_demand import CLASS, Event, SlowDemand, caller
from tests.reference.stream_check import check_stream
from tracereplay.demand import open_demand, reconstruct
from tracereplay.demand.stream import REQUIRED, UNSEEN

FRAMES = 64
GFPS = (0xCC0, 0x400DC0, 0x820, 0x140CCA, 0x100CCA | 0x1000, 0xC40)
EQUAL = [
    "events",
    "allocations",
    "allocated_pages",
    "failed",
    "frees",
    "matched",
    "left_censored",
    "unseen_frees",
    "lost_frees",
    "matched_pages",
    "left_censored_pages",
    "unseen_pages",
    "lost_pages",
    "reused",
    "reused_pages",
    "reused_lost",
]
KINDS = ["alloc"] * 8 + ["free"] * 8 + ["zone_locked", "drain", "free_batched", "extfrag", "alloc_failed"]


@st.composite
def soups(draw: st.DrawFn) -> list[Event]:
    """Events that need not make sense: partial and covering frees, frees of nothing, reuse, ties, many CPUs."""
    n = draw(st.integers(1, 120))
    rng = draw(st.randoms(use_true_random=False))
    frames = rng.choice([8, 16, FRAMES])
    tasks = rng.choice([1, 2, 4])
    ts = 1_000_000
    events = []
    orders = rng.choice([(0,), (0, 0, 0, 1, 2), (0, 1, 2, 3)])
    tidy = rng.random() < 0.5
    held: list[tuple[int, int]] = []
    for _ in range(n):
        ts += rng.choice([0, 0, 1, 300, 700, 2_000, 50_000])
        kind = rng.choice(KINDS)
        order = rng.choice(orders)
        pfn = rng.randrange(frames >> order) << order
        if kind == "free" and tidy and held:
            pfn, order = held.pop(rng.randrange(len(held)))
            if order and rng.random() < 0.3:
                order -= 1
        elif kind == "alloc":
            held.append((pfn, order))
        pid = rng.randrange(tasks) + 10
        cpu = rng.randrange(3) if rng.random() < 0.3 else pid % 3
        events.append(Event(ts, cpu, kind, pfn, order, rng.choice(GFPS[: rng.choice([1, 6])]), pid))
    return events


def _labels(stream: Any) -> dict[str, str]:
    """Caller labels of the engine -> classes of the oracle."""
    made = {}
    for label, gfp in zip(stream.callers.labels, stream.callers.gfps, strict=True):
        made[label] = caller(gfp)
    made[stream.callers.labels[0]] = "unseen"
    return made


def _limits(stream: Any) -> dict[str, int]:
    """The thresholds that the engine used, by class: equal in all tasks here, since their names are equal."""
    work = stream._work
    limits: dict[str, int] = defaultdict(lambda: int(work.thresholds[0]))
    for number, gfp in enumerate(stream.callers.gfps):
        if number > 1:
            limits[caller(gfp)] = int(work.thresholds[number])
    limits["unseen"] = int(work.thresholds[0])
    return limits


@settings(max_examples=200)
@given(soups(), st.lists(st.tuples(st.integers(0, 900_000), st.integers(1, 40_000)), max_size=2))
def test_soup_agrees_with_the_slow_reconstruction(events: list[Event], gaps: list[tuple[int, int]]) -> None:
    losses = [(1_000_000 + a, 1_000_000 + a + d) for a, d in gaps]
    stream = open_demand(trace_of(events, losses=losses))  # type: ignore[arg-type]
    found = check_stream(stream, stream.info)
    slack = round(2 * stream._unit_ns)
    slow = SlowDemand(events, limits=_limits(stream), slack=slack, losses=losses)
    a = stream.report.accounting
    for name in EQUAL:
        assert getattr(a, name) == slow.counts[name], name
    assert a.right_censored_pages == len(slow.owner) == len(found.live)
    assert a.right_censored == slow.live_blocks
    for kind, n in a.ignored.items():
        assert n == slow.counts[kind]
    assert found.initial == a.left_censored_pages
    if a.boundaries["key"]:
        return  # both keys of a frame were taken: the request was cut there, which the oracle does not know
    labels = _labels(stream)
    alias = stream.info.recorded_frames
    mine = [
        (r.ts, r.cpu, labels[stream.report.callers[r.caller]], [k % alias for k in r.keys], r.flags)
        for r in found.requests
    ]
    theirs = [
        (
            r.arrival,
            r.cpu,
            r.caller,
            r.frames,
            1 | (REQUIRED if r.required else 0) | (UNSEEN if r.unseen else 0),
        )
        for r in slow.requests
    ]
    batch_or_target = 4 | 32
    note(f"{mine}\n{theirs}")
    assert [(*m[:4], m[4] & ~batch_or_target) for m in mine] == theirs


@settings(max_examples=60)
@given(soups(), st.integers(1, 40))
def test_soup_does_not_depend_on_how_rows_are_cut(events: list[Event], cut: int) -> None:
    """Batches of any size give the same stream: thresholds differ only with what was learned, so fix them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruct.Reconstruction, "_learn", lambda *_: None)
        streams = []
        for rows in (1 << 20, cut):
            stream = open_demand(trace_of(events, cut=rows))  # type: ignore[arg-type]
            streams.append([op for batch in stream for op in batch.tolist()])
    assert streams[0] == streams[1]


@settings(max_examples=40)
@given(soups(), st.sampled_from([1, 3, 7, 64]))
def test_small_output_batches_carry_whole_requests(events: list[Event], most: int) -> None:
    """A batch ends before a FIRST; a request larger than the buffer would not fit, so the buffer is larger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruct, "OUT_ROWS", 64 + most)
        stream = open_demand(trace_of(events))  # type: ignore[arg-type]
        check_stream(stream, stream.info)


def test_the_oracle_groups_by_class() -> None:
    assert caller(0xCC0) == hex(0xCC0 & CLASS) != caller(0xC40)
