"""What closing files costs: a writer that is asked to rotate now and then, against one that never is.

python -m pytest -m bench tests/bench/bench_rotation.py -s
"""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest

from tests.trace_samples import metadata, page_batch
from tracereplay import TraceWriter
from tracereplay.trace.flight import FlightRecorder

BATCH = 100_000
BATCHES = 120
SECOND = 1_000_000_000


def write(path: Path, every: int | None, window_s: float | None = None) -> tuple[float, list[float], int]:
    """Seconds in all, those of each rotation, bytes. Batches of 100,000 events stand for 0.1 s each."""
    batches = [page_batch(BATCH, seed=seed).drop_columns(["ts_ns"]) for seed in range(8)]
    times = page_batch(BATCH, seed=99).column("ts_ns").to_numpy() // 1100
    writer = TraceWriter(path, metadata())
    flight = None
    if window_s is not None:
        flight = FlightRecorder(writer, int(window_s * SECOND))
        writer.on_rows = flight.on_rows
    stalls = []
    begin = time.perf_counter()
    for number in range(BATCHES):
        batch = batches[number % 8].add_column(0, "ts_ns", pa.array(times + number * SECOND // 10))
        writer.write("page_events", batch)
        before = time.perf_counter()
        if flight is not None:
            if flight.on_time((number + 1) * SECOND // 10):
                stalls.append(time.perf_counter() - before)
        elif every is not None and number % every == every - 1:
            writer.rotate()
            stalls.append(time.perf_counter() - before)
    seconds = time.perf_counter() - begin
    if flight is not None:
        flight.freeze(BATCHES * SECOND // 10, "asked")
    path = writer.finish()
    return seconds, stalls, sum(f.stat().st_size for f in path.rglob("*.parquet"))


@pytest.mark.bench
def test_rotation(tmp_path: Path) -> None:
    events = BATCH * BATCHES
    rows = [
        ("never", *write(tmp_path / "never", None)),
        ("every 3 M events", *write(tmp_path / "long", 30)),
        ("every 1 M events", *write(tmp_path / "second", 10)),
        ("every 0.2 M events", *write(tmp_path / "short", 2)),
        ("flight recorder, 5 s", *write(tmp_path / "flight", None, 5.0)),
    ]
    print(f"\n{events:,} page events at 1 M events/s of trace time")
    base = rows[0][1]
    for name, seconds, stalls, size in rows:
        longest = max(stalls, default=0.0) * 1e3
        print(
            f"{name:22} {seconds:6.2f} s, {seconds / base:5.2f} of never; {len(stalls):3} rotations, "
            f"longest {longest:6.0f} ms; {size / 1e6:6.1f} MB on disk"
        )
    assert len(rows[2][2]) == BATCHES // 10
