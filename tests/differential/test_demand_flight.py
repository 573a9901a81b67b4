"""Random queues, remaps, completions and losses through the sector map and the slow one: the same pieces are over."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.slow_flight import SlowFlight
from tracereplay.demand.flight import OVERDUE_NS, OVERDUE_TIMES, Bio, Flight, Piece

SECTORS = 4096 + 24
"""Ranges lie around a boundary of the sector map's cells."""
FIRST = 2048 - 12

ranges = st.tuples(st.integers(FIRST, FIRST + 24), st.integers(1, 12))
devices = st.integers(1, 3)
steps = st.one_of(
    st.tuples(st.just("queue"), devices, ranges, st.sets(st.integers(1, 11), max_size=2)),
    st.tuples(st.just("remap"), devices, ranges, devices, st.integers(-4, 4)),
    st.tuples(st.just("complete"), devices, ranges),
    st.tuples(st.just("complete"), devices, st.tuples(st.just(0), st.just(SECTORS))),
    st.tuples(st.just("bio_complete"), devices, ranges),
    st.tuples(st.just("end_of_a_bio"), st.integers(0, 7), st.booleans()),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(steps, st.sampled_from([0, 10, 1000, OVERDUE_NS])), max_size=40),
    st.sets(devices),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=3),
)
def test_pieces_end_alike(plan: list[tuple[tuple, int]], by_bio: set[int], spans: list[tuple[int, int]]) -> None:  # type: ignore[type-arg]
    losses = [(a, a + n) for a, n in spans]
    fast = Flight(by_bio, losses)
    slow = SlowFlight(by_bio, losses, overdue_ns=OVERDUE_NS, overdue_times=OVERDUE_TIMES)
    ts, names = 0, 0
    queued: list[tuple[int, int, int]] = []
    for (what, *args), wait in plan:
        ts += wait
        assert [p.number for p in fast.advance(ts)] == slow.advance(ts)
        if what == "queue":
            dev, (start, sectors), cuts = args
            end = start + sectors
            inside = sorted(start + c for c in cuts if c < sectors)
            bio = Bio(dev, start, end, ts, 1, 0)
            edges = [start, *inside, end]
            for a, b in pairwise(edges):
                names += 1
                bio.pieces.append(Piece(bio, a, b, 1, names))
            mine = [p.number for p in bio.pieces]
            assert sorted(p.number for p in fast.queue(bio)) == sorted(slow.queue(ts, dev, start, end, inside, mine))
            queued.append((dev, start, end))
            continue
        if what == "remap":
            dev, (start, sectors), old, offset = args
            if dev != old:
                fast.remap(dev, start + offset, sectors, old, start)
                slow.remap(dev, start + offset, sectors, old, start)
            continue
        if what == "end_of_a_bio":
            which, part = args
            if not queued:
                continue
            dev, start, end = queued[which % len(queued)]
            start += (end - start) // 2 if part else 0
            what, sectors = "bio_complete", end - start
        else:
            dev, (start, sectors) = args
        done = getattr(fast, what)(dev, start, sectors, ts)
        assert sorted(p.number for p in done) == sorted(getattr(slow, what)(ts, dev, start, sectors))
    assert fast.pieces() == len(slow.live())
    assert (fast.lost, fast.unmatched, fast.longest_ns) == (slow.lost, slow.unmatched, slow.longest)
