"""How long reports of a large trace take, process start included, and on what.

pytest -m bench tests/bench/bench_report.py -s

Writes a trace of 5 M page events with stacks and 0.5 M bios (TRACEREPLAY_BENCH_EVENTS names another number of page
events; TRACEREPLAY_BENCH_TRACE a trace that is there). The first report compiles what is not compiled yet.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.bench.page_bundle import page_block, stack_rows
from tests.trace_samples import metadata
from tracereplay.analysis.registry import analysis_named
from tracereplay.report import sources, tracedata
from tracereplay.report.html import Report, render
from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.completeness import completeness
from tracereplay.trace.reader import Trace
from tracereplay.trace.summary import summarize
from tracereplay.trace.writer import TraceWriter

EVENTS = int(os.environ.get("TRACEREPLAY_BENCH_EVENTS", 5_000_000))
COMMAND = [sys.executable, "-c", "from tracereplay.cli.app import main; main()", "report"]


def bios(rng: np.random.Generator, count: int, end_ns: int) -> pa.RecordBatch:
    """Queue and completion of ``count`` writes and reads on one device."""
    queued = np.sort(rng.integers(0, end_ns, count))
    sectors = np.cumsum(rng.integers(8, 4096, count)).astype(np.uint64)
    sizes = (8 << rng.integers(0, 6, count)).astype(np.uint32)
    done = queued + rng.integers(20_000, 500_000, count)
    order = np.argsort(np.concatenate([queued, done]), kind="stable")
    both = np.concatenate([np.arange(count), np.arange(count)])[order]
    ops = pa.array(np.where(rng.random(count) < 0.7, "W", "R"))
    kinds = kind_dictionary("bio_events")
    names = kinds.to_pylist()
    codes = np.repeat([names.index("queue"), names.index("complete")], count)[order].astype(np.int8)
    return pa.RecordBatch.from_pydict(
        {
            "ts_ns": pa.array(np.concatenate([queued, done])[order]),
            "cpu": pa.array((both % 4).astype(np.uint16)),
            "kind": pa.DictionaryArray.from_arrays(pa.array(codes), kinds),
            "dev": pa.array(np.full(2 * count, 8 << 20, np.uint32)),
            "sector": pa.array(sectors[both]),
            "nr_sectors": pa.array(sizes[both]),
            "op": ops.take(pa.array(both)).dictionary_encode(),
            "pid": pa.array((both % 40 + 1).astype(np.uint32)),
        }
    )


def write(path: Path) -> None:
    """The trace."""
    rng, last = np.random.default_rng(7), 0
    with TraceWriter(path, metadata()) as writer:
        writer.write("stacks", stack_rows())
        tasks = {"pid": np.arange(1, 400, dtype=np.uint32), "comm": [f"task-{i % 40}" for i in range(1, 400)]}
        writer.write("tasks", pa.RecordBatch.from_pydict(tasks))
        for _ in range(0, EVENTS, 1 << 20):
            batch = page_block(rng, last)
            last = batch.column(0)[-1].as_py()
            writer.write("page_events", batch)
        writer.write("bio_events", bios(rng, EVENTS // 10, last))


@pytest.mark.bench
def test_report_of_a_large_trace(tmp_path: Path) -> None:
    named = os.environ.get("TRACEREPLAY_BENCH_TRACE")
    path = Path(named) if named else tmp_path / "large.trace"
    if not named:
        write(path)
    rows = Trace.open(path).rows("page_events") + Trace.open(path).rows("bio_events")
    for name in ("first", "second"):
        started = time.perf_counter()
        subprocess.run([*COMMAND, path, "-o", tmp_path / f"{name}.html"], check=True, stdout=subprocess.DEVNULL)
        print(f"{name} report of {rows:,} events: {time.perf_counter() - started:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"page {(tmp_path / 'second.html').stat().st_size / 1e3:.0f} kB; memory at most {peak / 1024:.0f} MiB")
    trace = Trace.open(path)
    summary = summarize(trace)
    data = tracedata.build_trace_data(trace)
    parts: dict[str, Callable[[], Any]] = {
        "summary": lambda: summarize(trace),
        "completeness": lambda: completeness(trace),
        "rates": lambda: tracedata._charts(trace, summary),
        "orders and tasks": lambda: (tracedata._orders(trace), tracedata._tasks(trace)),
        **{name: lambda name=name: analysis_named(name).answer(trace) for name in (*sources.PAGES, *sources.BIOS)},
        "drawing": lambda: render(Report(trace=data), title="t", made="now"),
    }
    seconds = {}
    for name, part in parts.items():
        started = time.perf_counter()
        part()
        seconds[name] = time.perf_counter() - started
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {name:<20} {value:6.2f} s {100 * value / sum(seconds.values()):5.1f} %")
