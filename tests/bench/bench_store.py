"""Speed and size of the store, as ratios measured in one run.

Run: ``pytest tests/bench/bench_store.py -m bench -s``. CPU seconds are those of the whole process, all threads.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trace_samples import metadata
from tracereplay import Trace, TraceWriter
from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.schema import PAGE_EVENTS
from tracereplay.trace.summary import summarize
from tracereplay.trace.validate import validate_trace

pytestmark = pytest.mark.bench

ROWS = 8 << 20
REPLAY_COLUMNS = ["ts_ns", "cpu", "kind", "pfn", "order", "gfp", "pid"]
SHIPPED = sorted(p.parent for p in (Path(__file__).parents[2] / "traces").glob("*/manifest.json"))


def capture_like(rows: int, seed: int) -> pa.RecordBatch:
    """Events as a capture delivers them: bursts of one task on one CPU, frames in short ascending runs, four in ten
    of order 0 from another place, frees without gfp and migratetype; all-null columns are not there at all.
    """
    rng = np.random.default_rng(seed)
    burst = rng.integers(8, 256, rows // 64)
    owner = np.repeat(np.arange(len(burst)), burst)[:rows]
    cpu = rng.integers(0, 2, len(burst)).astype(np.uint16)[owner]
    pid = rng.integers(1, 400, len(burst)).astype(np.uint32)[owner]
    free = (rng.random(len(burst)) < 0.5)[owner]
    run = rng.integers(0, 1 << 22, rows // 16).repeat(16)[:rows] + np.tile(np.arange(16), rows // 16)[:rows]
    pfn = np.where(rng.random(rows) < 0.4, rng.integers(0, 1 << 22, rows), run).astype(np.uint64)
    gfp = rng.choice(np.array([0x140DCA, 0xCC0, 0x400DC0, 0x52CC0], np.uint32), len(burst))[owner]
    return pa.RecordBatch.from_pydict(
        {
            "ts_ns": pa.array(np.cumsum(rng.integers(80, 1500, rows))),
            "cpu": pa.array(cpu),
            "kind": pa.DictionaryArray.from_arrays(
                pa.array(np.where(free, 2, 0).astype(np.int8)), kind_dictionary("page_events")
            ),
            "pfn": pa.array(pfn),
            "order": pa.array(np.where(rng.random(rows) < 0.03, 3, 0).astype(np.uint8)),
            "gfp": pa.array(gfp, mask=free),
            "migratetype": pa.array((gfp == 0x140DCA).astype(np.uint8), mask=free),
            "pid": pa.array(pid),
        }
    )


def batches(rows: int, size: int) -> list[pa.RecordBatch]:
    """``rows`` rows in batches of ``size``, times rising throughout."""
    block = capture_like(1 << 20, 7)
    span = block.column("ts_ns")[-1].as_py()
    made = []
    for number in range(rows >> 20):
        times = pa.array(block.column("ts_ns").to_numpy() + number * span)
        shifted = block.set_column(0, "ts_ns", times)
        made += [shifted.slice(start, size) for start in range(0, 1 << 20, size)]
    return made


def cpu_seconds(work: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    """Where the measured bundle goes: in memory where that exists, so that the disk is not measured."""
    memory = Path("/dev/shm")
    path = memory / f"bench-store-{os.getpid()}" if memory.is_dir() else tmp_path / "t"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def size_of(path: Path) -> int:
    """Bytes of page_events."""
    return sum(p.stat().st_size for p in (path / "page_events").iterdir())


def test_write(bundle: Path) -> None:
    """Writing page_events, against PyArrow's defaults on the same rows."""
    full = [
        pa.RecordBatch.from_arrays(
            [b.column(f.name) if f.name in b.schema.names else pa.nulls(b.num_rows, f.type) for f in PAGE_EVENTS],
            schema=PAGE_EVENTS,
        )
        for b in batches(2 << 20, 1 << 20)
    ]

    def plain() -> None:
        with pq.ParquetWriter(bundle.with_suffix(".parquet"), full[0].schema) as writer:
            for batch in full:
                writer.write_batch(batch)

    cpu, _ = cpu_seconds(plain)
    base = (2 << 20) / cpu
    print(
        f"\nPyArrow defaults: {base / 1e6:.1f} M rows per CPU second, "
        f"{bundle.with_suffix('.parquet').stat().st_size / (2 << 20):.2f} B/row"
    )
    bundle.with_suffix(".parquet").unlink()
    for size in (1 << 20, 100_000, 10_000):
        rows = batches(ROWS, size)

        def store(rows: list[pa.RecordBatch] = rows) -> None:
            with TraceWriter(bundle, metadata()) as writer:
                for batch in rows:
                    writer.write("page_events", batch)

        cpu, wall = cpu_seconds(store)
        print(
            f"TraceWriter, batches of {size:>7}: {ROWS / cpu / 1e6:.1f} M rows per CPU second "
            f"({ROWS / cpu / base:.2f} x PyArrow's defaults; {100e6 * cpu / ROWS:.1f} % of a core at 1 M events/s), "
            f"{size_of(bundle) / ROWS:.2f} B/row, wall {wall:.2f} s"
        )
        shutil.rmtree(bundle)


def test_read(bundle: Path) -> None:
    """The replay road, against bare row groups; then what whole-trace verbs cost."""
    with TraceWriter(bundle, metadata()) as writer:
        for batch in batches(ROWS, 1 << 20):
            writer.write("page_events", batch)
    trace = Trace.open(bundle)

    def bare() -> None:
        with pq.ParquetFile(trace.files["page_events"][0].path) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group, columns=REPLAY_COLUMNS)

    def ours() -> None:
        for _ in trace.batches("page_events", REPLAY_COLUMNS):
            pass

    bare()  # page cache and allocator warm for both
    _, base = cpu_seconds(bare)
    _, wall = cpu_seconds(ours)
    print(f"\nread_row_group: {ROWS / base / 1e6:.1f} M rows/s")
    print(f"Trace.batches:  {ROWS / wall / 1e6:.1f} M rows/s ({base / wall:.2f} x), 7 columns")
    for name, work in (
        ("validate_trace", lambda: validate_trace(trace)),
        ("summarize", lambda: summarize(trace)),
        ("page_events by kind (Polars)", lambda: trace.page_events.group_by("kind").len().collect()),
    ):
        _, wall = cpu_seconds(work)
        print(f"{name}: {ROWS / wall / 1e6:.1f} M rows/s")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_size_of_real_traces(path: Path) -> None:
    """Bytes per event of the traces in traces/."""
    trace = Trace.open(path)
    for table in ("page_events", "bio_events"):
        rows = trace.rows(table)
        size = sum(p.bytes for p in trace.files.get(table, []))
        if rows:
            print(f"\n{path.name} {table}: {rows} rows, {size / rows:.2f} B/event")
