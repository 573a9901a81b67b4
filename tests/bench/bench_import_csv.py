"""Import speed of block-trace tables beside DuckDB's and Polars' CSV readers on the same file, in one run.

Both readers only parse into columns; the import also checks, converts units, sorts, adds completions and writes
Parquet. ``pytest tests/bench/bench_import_csv.py -m bench -s``
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.block_samples import TABLES
from tracereplay.importers.base import ImportOptions
from tracereplay.importers.block_table_reader import BlockTableReader
from tracereplay.importers.convert import import_trace
from tracereplay.importers.source import Source

pytestmark = pytest.mark.bench

LINES = 3_000_000


def write_file(path: Path, name: str) -> int:
    """A file like a published one; its bytes."""
    import polars as pl

    random = np.random.default_rng(7)
    step = random.exponential(200.0, LINES).astype(np.int64).cumsum()
    offset = random.integers(0, 1 << 28, LINES) * 4096
    size = random.choice([4096, 8192, 65536, 131072], LINES)
    write = random.random(LINES) < 0.7
    columns: dict[str, Any] = {
        "msr": {
            "Timestamp": 128_166_385_295_514_663 + 10 * step,
            "Hostname": np.full(LINES, "web"),
            "DiskNumber": np.zeros(LINES, np.int64),
            "Type": np.where(write, "Write", "Read"),
            "Offset": offset,
            "Size": size,
            "ResponseTime": random.exponential(5000.0, LINES).astype(np.int64),
        },
        "alibaba": {
            "device_id": random.integers(0, 1000, LINES),
            "opcode": np.where(write, "W", "R"),
            "offset": offset,
            "length": size,
            "timestamp": 1_577_808_000_000_000 + step,
        },
    }[name]
    pl.DataFrame(columns).write_csv(path, include_header=False)
    return path.stat().st_size


def timed(work: Callable[[], Any]) -> float:
    """Seconds of the faster of two runs."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@pytest.mark.parametrize("name", ["alibaba", "msr"])
def test_import_speed(tmp_path: Path, name: str) -> None:
    import duckdb
    import polars as pl

    path = tmp_path / "x.csv"
    size = write_file(path, name)
    few = tmp_path / "few.csv"
    few.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1000]))
    import_trace(few, tmp_path / "warm")  # compiles, or loads compiled code

    def parse() -> None:
        with Source(path) as source, source.open() as stream:
            for _ in BlockTableReader(TABLES[name], source, ImportOptions()).requests(stream):
                pass

    parse_s = timed(parse)
    import_s = timed(lambda: import_trace(path, tmp_path / "t", force=True))
    polars_s = timed(lambda: pl.read_csv(path, has_header=False))
    duckdb_s = timed(lambda: duckdb.sql(f"SELECT * FROM read_csv('{path}', header=false)").to_arrow_table())
    print(f"\n{name}: {LINES:,} lines, {size / 1e6:.0f} MB")
    for what, seconds in (("parse", parse_s), ("import", import_s), ("Polars", polars_s), ("DuckDB", duckdb_s)):
        print(f"  {what:8}{LINES / seconds / 1e6:7.2f} M lines/s {size / seconds / 1e6:7.0f} MB/s", end="")
        print(f"   import takes {import_s / seconds:.2f} times as long" if seconds != import_s else "")
