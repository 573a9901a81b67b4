"""Demand from Parquet: nanoseconds an event, as ratios to reading alone, in one run.

pytest -m bench tests/bench/bench_demand.py -s
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from tracereplay.demand import lifetimes, open_demand, synthetic
from tracereplay.demand.columns import PAGE_COLUMNS, page_batch
from tracereplay.trace.reader import Trace

EVENTS = 10_000_000


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_trace(tmp_path_factory.mktemp("bench") / "synthetic", events=EVENTS)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.bench
def test_demand_speed(trace: Path, tmp_path: Path) -> None:
    opened = Trace.open(trace)
    for _ in open_demand(opened):  # compiles
        break
    started = time.perf_counter()
    for raw in opened.batches("page_events", PAGE_COLUMNS):
        page_batch(raw, stacks=False)
    reading = (time.perf_counter() - started) * 1e9 / EVENTS
    walls, works = [], []
    for _ in range(3):
        started, worked = time.perf_counter(), time.thread_time()
        stream = open_demand(opened)
        ops = sum(len(batch) for batch in stream)
        walls.append((time.perf_counter() - started) * 1e9 / EVENTS)
        works.append((time.thread_time() - worked) * 1e9 / EVENTS)
    wall, work = min(walls), min(works)
    started = time.perf_counter()
    rows = sum(b.num_rows for b in lifetimes(opened))
    lived = (time.perf_counter() - started) * 1e9 / EVENTS
    before = _peak_mib()
    longer = Trace.open(synthetic.write_trace(tmp_path / "longer", events=2 * EVENTS))
    made = _peak_mib()
    for _ in open_demand(longer):
        pass
    print(
        f"\n{EVENTS:,} events, {ops:,} operations: reading alone {reading:.1f} ns/event; demand {wall:.1f} ns/event "
        f"with reading on its own thread ({work:.1f} ns of this thread), {wall / reading:.2f} times reading; "
        f"lifetimes {rows:,} rows, {lived / wall:.2f} times demand; peak {before:.0f} MiB, "
        f"{max(_peak_mib() - made, 0):.0f} MiB more for twice the events"
    )
    assert ops >= EVENTS


@pytest.mark.bench
def test_growth_of_memory_is_that_of_the_zone_not_of_the_trace(trace: Path) -> None:
    """Frame table and buffers are made at open; iterating adds a few batches."""
    stream = open_demand(Trace.open(trace))
    table = stream._work.frames.nbytes / (1 << 20)
    held = sum(a.nbytes for a in stream._work if a is not stream._work.frames) / (1 << 20)
    print(f"\nframe table {table:.0f} MiB, all other state {held:.0f} MiB")
    assert held < 128
