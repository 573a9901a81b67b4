"""Stack distances, miss ratios and working sets against lists, dictionaries and sets, on random accesses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.slow_blocks import lru_misses, stack_distances, working_sets
from tracereplay.analysis import working_set_pass as wp
from tracereplay.analysis.block_table import DEVICE_SHIFT
from tracereplay.analysis.stack_distance import (
    StackDistances,
    Stacks,
    bin_edges,
    miss_ratio_curve,
    octave_edges,
)
from tracereplay.analysis.working_set import WorkingSet

ALL_AT_ONCE = 1 << 40
I64 = npt.NDArray[np.int64]

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), min_size=1, max_size=80)
"""First block and number of blocks of I/Os."""


def arrays(io: list[tuple[int, int]]) -> tuple[I64, I64]:
    return np.array([a for a, _ in io], np.int64), np.array([n for _, n in io], np.int64)


def one_by_one(io: list[tuple[int, int]]) -> list[int]:
    return [block for first, n in io for block in range(first, first + n)]


def binned(distances: list[int | None]) -> I64:
    edges = bin_edges()
    known = np.array([d for d in distances if d is not None], np.int64)
    return np.bincount(np.searchsorted(edges, known, side="right") - 1, minlength=len(edges))


@given(ranges, st.integers(1, 79))
def test_distances_and_misses(io: list[tuple[int, int]], cut: int) -> None:
    stack = StackDistances(ALL_AT_ONCE)
    first, count = arrays(io)
    stack.feed(first[:cut], count[:cut])
    stack.feed(first[cut:], count[cut:])
    blocks = one_by_one(io)
    assert stack.histogram().astype(int).tolist() == binned(stack_distances(blocks)).tolist()
    assert (stack.accesses, stack.distinct, stack.rate) == (len(blocks), len(set(blocks)), 1)
    curve = miss_ratio_curve(stack)
    misses = [lru_misses(blocks, size) for size in curve.blocks.tolist()]
    assert (curve.ratio * len(blocks)).round().astype(int).tolist() == misses
    assert misses[-1] == len(set(blocks))
    assert not curve.error95.any()


def test_tables_grow_and_positions_are_packed() -> None:
    rng = np.random.default_rng(3)
    hot = rng.integers(0, 900, 60_000)  # positions run out many times
    wide = rng.integers(0, 30_000, 20_000)  # the table grows
    blocks = np.concatenate([hot, wide, hot[:5000]])
    stack = StackDistances(ALL_AT_ONCE)
    stack.feed(blocks, np.ones(len(blocks), np.int64))
    edges = bin_edges()
    curve = miss_ratio_curve(stack)
    for size in (1, 10, 256, 1024, int(curve.blocks[-1])):
        at = int(np.searchsorted(edges, size)) - 1
        assert round(curve.ratio[at] * len(blocks)) == lru_misses(blocks.tolist(), size)


def test_bins() -> None:
    edges = bin_edges()
    assert (np.diff(edges) > 0).all()
    assert octave_edges(edges, 16).tolist() == edges.tolist()
    assert octave_edges(np.arange(9), 1).tolist() == [0, 1, 2, 2, 4, 4, 4, 4, 8]
    assert octave_edges(np.array([7, 12, 100, 127]), 2).tolist() == [6, 12, 96, 96]


def zipf(n: int, blocks: int, seed: int) -> I64:
    """Accesses with a popular few."""
    rng = np.random.default_rng(seed)
    return (rng.random(n) ** 4 * blocks).astype(np.int64)


@pytest.mark.parametrize(("hold", "near"), [(2048, 0.03), (8192, 0.015)])
def test_a_sample_is_near_and_knows_how_near(hold: int, near: float) -> None:
    blocks = zipf(400_000, 100_000, 4)
    ones = np.ones(len(blocks), np.int64)
    exact, sampled = StackDistances(ALL_AT_ONCE), StackDistances(hold)
    for stack in (exact, sampled):
        stack.feed(blocks, ones)
    assert sampled.rate < 1
    assert sampled.blocks <= hold
    assert sampled.accesses == exact.accesses
    assert sampled.distinct == pytest.approx(exact.distinct, rel=0.1)
    truth, guess = miss_ratio_curve(exact), miss_ratio_curve(sampled)
    n = min(len(truth.ratio), len(guess.ratio))
    error = np.abs(truth.ratio[:n] - guess.ratio[:n])
    assert error.mean() < near
    assert np.mean(error <= guess.error95[:n]) > 0.8


def test_devices_share_what_may_be_held() -> None:
    stacks = Stacks(1024)
    device = np.tile(np.array([0, 1, 1], np.int64), 3000)
    stacks.feed(np.arange(9000) | device << DEVICE_SHIFT, np.ones(9000, np.int64), device)
    found = dict(stacks.stacks())
    assert [found[d].accesses for d in (0, 1)] == [3000, 6000]
    assert sum(s.blocks for s in found.values()) <= 1024
    together = Stacks(ALL_AT_ONCE)
    together.feed(np.array([5, 5, 6]), np.array([1, 1, 1]), None)
    assert together.stacks()[0][1].histogram()[0] == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 50), st.integers(1, 9), st.booleans()), min_size=1, max_size=80
    ),
    st.integers(1, 20),
)
def test_working_sets(io: list[tuple[int, int, int, bool]], per_window: int) -> None:
    windows = -(-len(io) // per_window)
    found = WorkingSet(3 * windows, ALL_AT_ONCE)
    window = np.arange(len(io), dtype=np.int64) // per_window
    device = np.array([d for d, *_ in io], np.int64)
    first, count = arrays([(a, n) for _, a, n, _ in io])
    write = np.array([w for *_, w in io])
    found.feed(first | device << DEVICE_SHIFT, count, device * windows + window, window, write)
    slow = working_sets(
        [(d, int(k), b, w) for (d, a, n, w), k in zip(io, window, strict=True) for b in range(a, a + n)]
    )
    counts = found.counts().reshape(3, windows, -1)
    columns = [wp.READ, wp.WRITTEN, wp.ANY, wp.NEW]
    for (d, k), wanted in slow.items():
        assert tuple(counts[d, k, columns]) == wanted
    ever = {(d, b) for d, a, n, w in io for b in range(a, a + n) if w}
    assert counts[..., wp.NEW_WRITTEN].sum() == len(ever)
    ever = {(d, b) for d, a, n, w in io for b in range(a, a + n) if not w}
    assert counts[..., wp.NEW_READ].sum() == len(ever)


def test_a_sampled_working_set() -> None:
    found = WorkingSet(4, 4096)
    for window in range(4):
        n = 50_000 * (window + 1)
        where = np.full(1, window, np.int64)
        found.feed(np.zeros(1, np.int64), np.array([n]), where, where, np.zeros(1, np.bool_))
    assert found.rate < 0.05
    counts = found.counts()
    for window in range(4):
        n = 50_000 * (window + 1)
        interval = 1.96 * (n * (1 / found.rate - 1)) ** 0.5
        assert abs(counts[window, wp.ANY] - n) < 1.5 * interval
    assert counts[:, wp.NEW].sum() == pytest.approx(200_000, rel=0.1)
