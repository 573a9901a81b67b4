"""Copies of a demand stream: one is the stream, many are its operations on other CPUs, with other keys, later."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.replay_samples import Ops, op, ops_of, random_stream, request, run_engine
from tracereplay.demand import copies as module
from tracereplay.demand.copies import MOST_KEYS, CopiedDemand
from tracereplay.demand.stream import ALLOC, FIRST, FREE, FREE_INITIAL, OP, PIECE, TARGETED, DemandInfo, DemandReport
from tracereplay.errors import ParameterError, TooLittleMemoryError
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.counters import slot
from tracereplay.replay.run import copied_demand, refuse_too_little_memory


class Stream:
    """A demand stream of given operations, in batches that cut no request."""

    def __init__(self, ops: Ops, frames: int = 4096, cpus: int = 5, batch: int = 100) -> None:
        end = int(ops["ts_ns"].max()) if len(ops) else 0
        self.info = DemandInfo(frames, frames, cpus, 0, end)
        first = ops["flags"] & FIRST != 0
        requests = int(((ops["kind"] == ALLOC) & first).sum())
        rows = [{"caller": "x", "requests": requests, "pages": int(ops["pages"].sum()), "sizes": {"1": requests}}]
        self.report = DemandReport(requests=requests, pages=int(ops["pages"].sum()), by_caller=rows)
        starts = np.flatnonzero((ops["kind"] != ALLOC) | first)[::batch].tolist() or [0]
        self.parts = [ops[i:j] for i, j in zip(starts, [*starts[1:], len(ops)], strict=True)]

    def __iter__(self) -> Iterator[Ops]:
        return iter(self.parts)


def together(copied: CopiedDemand) -> Ops:
    """All operations."""
    return np.concatenate([np.zeros(0, OP), *copied])


@pytest.mark.parametrize("window", [1, 50, 1 << 17])
def test_one_copy_is_the_stream(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_OPS", window)
    monkeypatch.setattr(module, "LEAST_OPS", 1)
    ops = random_stream(random.Random(1), 3000)
    copied = CopiedDemand(Stream(ops), 1, cpus=5, seed=0)
    assert (together(copied) == ops).all()
    assert copied.info == Stream(ops).info
    assert copied.report == Stream(ops).report


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(2, 9), st.integers(1, 200), st.integers(0, 5))
def test_every_copy_is_the_stream_elsewhere(seed: int, copies: int, window: int, ops_seed: int) -> None:
    ops = random_stream(random.Random(ops_seed), 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW_OPS", window)
        patch.setattr(module, "LEAST_OPS", 1)
        copied = CopiedDemand(Stream(ops), copies, cpus=5, seed=seed)
        batches = list(copied)
    merged = np.concatenate(batches)
    assert copied.info.cpus == 5 * copies
    assert copied.info.frames == 4096 * copies
    assert merged["ts_ns"].max() <= copied.info.end_ns
    assert (np.diff(merged["ts_ns"]) >= 0).all()
    for k, offset in enumerate(copied.offsets_ns):
        own = merged[merged["cpu"] // 5 == k]
        back = own.copy()
        back["cpu"] -= 5 * k
        back["ts_ns"] -= offset
        piece = own["kind"] == PIECE
        back["pfn"] -= np.where((own["kind"] == FREE_INITIAL) | piece, 0, 4096 * k).astype(np.int32)
        assert (back["pfn"][piece] % copies == k).all()  # no two copies have a bio's number in common
        back["pfn"][piece] //= copies
        assert (back == ops).all(), k
    for batch in batches:  # a request is not cut, and nothing comes between its extents
        extents = np.flatnonzero((batch["kind"] == ALLOC) & (batch["flags"] & FIRST == 0))
        assert (extents > 0).all()
        for name in ("ts_ns", "cpu", "kind"):
            assert (batch[name][extents] == batch[name][extents - 1]).all()


def test_offsets_come_from_the_seed_and_spread_over_a_tenth() -> None:
    ops = ops_of([*request(0, [0]), op(FREE, 0, 0, ts=1_000_000)])
    offsets = CopiedDemand(Stream(ops), 100, cpus=5, seed=3).offsets_ns
    assert offsets == CopiedDemand(Stream(ops), 100, cpus=5, seed=3).offsets_ns
    assert offsets != CopiedDemand(Stream(ops), 100, cpus=5, seed=4).offsets_ns
    assert offsets[0] == 0
    assert 90_000 < max(offsets) < 100_000


def test_a_stream_that_goes_back_in_time_keeps_its_order() -> None:
    rows = [op(FREE_INITIAL, i, ts=ts) for i, ts in enumerate((10, 30, 20, 25, 40, 40, 39))]
    copied = CopiedDemand(Stream(ops_of(rows)), 3, cpus=5, seed=1)
    merged = together(copied)
    for k in range(3):
        assert merged["pfn"][merged["cpu"] // 5 == k].tolist() == list(range(7))


def test_the_report_is_that_of_all() -> None:
    ops = random_stream(random.Random(2), 300)
    one, three = Stream(ops).report, CopiedDemand(Stream(ops), 3, cpus=5, seed=0).report
    assert (three.requests, three.pages) == (3 * one.requests, 3 * one.pages)
    assert three.by_caller[0]["sizes"] == {"1": 3 * one.requests}
    assert three.accounting == one.accounting


def test_cpus_beyond_the_machine_wrap_as_in_a_replay() -> None:
    ops = ops_of([op(FREE_INITIAL, i, cpu=i) for i in range(5)])
    assert together(CopiedDemand(Stream(ops), 2, cpus=4, seed=0))["cpu"].tolist() == [0, 1, 2, 3, 0, 4, 5, 6, 7, 4]


def most_live(ops: Ops) -> int:
    """Most pages in use, exactly."""
    pages = 1 << ops["order"].astype(int)
    return max(int(np.cumsum(np.where(ops["kind"] == ALLOC, pages, -pages)).max()), 0)


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_memory_in_use_is_never_said_too_low(copies: int) -> None:
    rows: list[Any] = []
    for k in range(400):
        rows += request(8 * k, [3], ts=1000 * k)
        if k > 50:
            rows.append(op(FREE, 8 * (k - 50), 3, ts=1000 * k + 500))
    ops = ops_of(rows)
    copied = CopiedDemand(Stream(ops), copies, cpus=5, seed=9)
    exact = most_live(together(copied))
    assert exact <= copied.most_live() <= exact + 16 * copies


def test_an_empty_stream() -> None:
    copied = CopiedDemand(Stream(ops_of([])), 2, cpus=1, seed=0)
    assert list(copied) == []
    assert copied.most_live() == 0


@pytest.mark.parametrize(
    ("copies", "frames", "says"), [(0, 1, "1 to 128"), (129, 1, "1 to 128"), (9, 1 << 28, "7 copies")]
)
def test_too_many(copies: int, frames: int, says: str) -> None:
    assert MOST_KEYS // (1 << 28) == 7
    with pytest.raises(ParameterError) as caught:
        CopiedDemand(Stream(ops_of([]), frames), copies, cpus=1, seed=0)
    assert says in (caught.value.hint or "")


ZONE = ZoneConfig("Normal", 0, 1 << 15, watermarks=Watermarks((0, 0, 0, 0), 50, 100, 200))
CONFIG = MachineConfig((ZONE,), cpus=3, generation="6.1", occupancy=0.0, pcp_batch=31, pcp_high=120)
BY_CPU = (
    "alloc_calls", "free_calls", "pages_allocated", "pages_freed", "pcp_lock_acquisitions", "pcp_hits", "pcp_refills",
    "pcp_refill_pages", "pcp_drains", "pcp_drain_pages", "frees_pcp", "zone_lock_acquisitions", "watermark_checks",
    "remote_frees", "tail_pages_checked", "zeroed_pages",
)  # fmt: skip
"""Counters that depend on what a CPU does, and not on where in memory its pages lie."""


def tiny() -> Ops:
    """Requests on three CPUs that are all freed again, on some other CPU at times."""
    rng = random.Random(8)
    rows: list[Any] = []
    for k in range(60):
        rows += request(64 * k, [0] * 50, ts=1000 * k, cpu=k % 3, flags=TARGETED)
        rows += [op(FREE, 64 * k + i, ts=1000 * k + 500, cpu=rng.randrange(3)) for i in range(50)]
    return ops_of(rows)


def counters(outcome: Any) -> np.ndarray:
    return np.asarray(outcome.totals + outcome.background)


def test_one_copy_counts_as_the_plain_replay() -> None:
    ops = tiny()
    plain = run_engine(ops, CONFIG)
    copied = run_engine(together(CopiedDemand(Stream(ops, cpus=3), 1, cpus=3, seed=5)), CONFIG)
    assert (plain.machine.w == copied.machine.w).all()
    assert (plain.machine.pg == copied.machine.pg).all()
    for name in ("totals", "background", "vectors", "counts", "series", "scalars"):
        assert (getattr(plain, name) == getattr(copied, name)).all(), name


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_far_apart_count_so_many_times(copies: int) -> None:
    ops = tiny()
    one = counters(run_engine(ops, CONFIG))
    copied = CopiedDemand(Stream(ops, cpus=3), copies, cpus=3, seed=5)
    copied.offsets_ns = [k * 10_000_000 for k in range(copies)]
    config = replace(CONFIG, cpus=3 * copies)
    many = counters(run_engine(together(copied), config, frames=4096 * copies, end_ns=copied.offsets_ns[-1] + 60_000))
    assert one[slot("pcp_refills")] > 3
    for name in BY_CPU:
        assert many[slot(name)] == copies * one[slot(name)], name
    # those that come later find memory cut up by the lists of those before
    assert 0 < many[slot("splits")] <= copies * one[slot("splits")]


def test_a_machine_too_small_is_named() -> None:
    rows = [row for k in range(40) for row in request(512 * k, [9], ts=k, flags=TARGETED)]
    ops = ops_of(rows)
    machine = build_machine(CONFIG)
    refuse_too_little_memory(CopiedDemand(Stream(ops, 1 << 16), 1, cpus=3, seed=0), machine)  # type: ignore[arg-type]
    copied = CopiedDemand(Stream(ops, 1 << 16), 4, cpus=3, seed=0)
    with pytest.raises(TooLittleMemoryError, match="4 copies of the demand need") as caught:
        refuse_too_little_memory(copied, machine)
    assert caught.value.exit_code == 5
    assert "--machine memory=" in (caught.value.hint or "")


def test_a_machine_of_too_many_cpus_is_named() -> None:
    with pytest.raises(ParameterError, match="more than 1024") as caught:
        copied_demand(Stream(tiny()), 100, replace(CONFIG, cpus=11))  # type: ignore[arg-type]
    assert "at most 93 copies" in (caught.value.hint or "")
