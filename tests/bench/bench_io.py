"""I/Os by layer: the pass over block events against a self-join in DuckDB on the same Parquet files.

``pytest tests/bench/bench_io.py -m bench -s``. Three events an I/O, no merges or splits, so that a join can pair them:
the n-th queue, issue and completion at a place are one I/O's. Processes take turns; times are from after the imports to
the last row, each process's first query with warm code caches; memory is the most that the process had.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.trace_samples import metadata
from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.schema import BIO_KINDS
from tracereplay.trace.writer import TraceWriter

pytestmark = pytest.mark.bench

IOS = 4_000_000
DEPTH = 64
ROUNDS = 3
ROOT = Path(__file__).parents[2]
TIMED = """
import re, sys, time
path = sys.argv[1]
{imports}
wall = time.perf_counter()
{query}
wall = time.perf_counter() - wall
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(rows, total, wall, peak)
"""
OURS = TIMED.format(
    imports="import polars, pyarrow.compute as pc\nfrom tracereplay import Trace\n"
    "from tracereplay.analysis.io import io_table",
    query="""rows = total = 0
for batch in io_table(Trace.open(path)):
    rows += batch.num_rows
    total += pc.sum(batch.column("q2c_ns")).as_py()""",
)
_SIDE = """(SELECT ts_ns, dev, sector, op, row_number() OVER (PARTITION BY dev, sector, op ORDER BY ts_ns) AS nth
    FROM events WHERE kind = '{}') AS {}"""
_SIDES = [_SIDE.format(kind, name) for kind, name in (("queue", "q"), ("issue", "d"), ("complete", "c"))]
DUCKDB = TIMED.format(
    imports="import duckdb",
    query=f'''duckdb.sql("SET threads = 1")
duckdb.sql("CREATE VIEW events AS SELECT * FROM read_parquet('" + path + "/bio_events/*.parquet')")
rows, total = duckdb.sql("""SELECT count(*), sum(c.ts_ns - q.ts_ns)::BIGINT FROM {_SIDES[0]}
    JOIN {_SIDES[1]} USING (dev, sector, op, nth) JOIN {_SIDES[2]} USING (dev, sector, op, nth)""").fetchall()[0]''',
)


def write_bundle(path: Path) -> None:
    """IOS reads of 4 KiB at random places, DEPTH in flight, each 1 us in software and 60 to 100 us in the device."""
    rng = np.random.default_rng(1)
    q = np.arange(IOS, dtype=np.int64) * 1300
    d = q + rng.integers(500, 1500, IOS)
    c = d + rng.integers(60_000, 100_000, IOS)
    sector = rng.integers(0, 1 << 24, IOS).astype(np.uint64) * 8
    ts = np.concatenate([q, d, c])
    order = np.argsort(ts, kind="stable")
    kind = np.repeat(np.array([BIO_KINDS.index(k) for k in ("queue", "issue", "complete")], np.int8), IOS)
    with TraceWriter(path, metadata(events=[])) as writer:
        for start in range(0, 3 * IOS, 1 << 20):
            at = order[start : start + (1 << 20)]
            n = len(at)
            text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), ["R"])
            columns = {
                "ts_ns": pa.array(ts[at]),
                "cpu": pa.array((at % 4).astype(np.uint16)),
                "kind": pa.DictionaryArray.from_arrays(pa.array(kind[at]), kind_dictionary("bio_events")),
                "dev": pa.array(np.full(n, 8 << 20, np.uint32)),
                "sector": pa.array(sector[at % IOS]),
                "nr_sectors": pa.array(np.full(n, 8, np.uint32)),
                "op": text,
                "flags": text,
                "pid": pa.array(np.full(n, 7, np.uint32)),
            }
            writer.write("bio_events", pa.RecordBatch.from_pydict(columns))


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    """A trace in memory where that exists, so that the disk is not measured."""
    memory = Path("/dev/shm")
    path = memory / f"bench-io-{os.getpid()}" if memory.is_dir() else tmp_path / "t"
    write_bundle(path)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def run(code: str, bundle: Path) -> list[float]:
    """Rows, sum of latencies, seconds, peak MiB."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def test_pass_against_a_join(bundle: Path) -> None:
    run(OURS, bundle)  # compiled code is in the cache now
    found = [(run(OURS, bundle), run(DUCKDB, bundle)) for _ in range(ROUNDS)]
    ours, theirs = found[0]
    assert ours[:2] == theirs[:2]
    assert ours[0] == IOS
    pace = [3 * IOS / a[2] / 1e6 for a, _ in found]
    ratio = [a[2] / b[2] for a, b in found]
    print(f"\n{3 * IOS / 1e6:.0f} M events: {statistics.median(pace):.2f} M events/s, peak {ours[3]:.0f} MiB;")
    print(f"DuckDB's join on one thread takes 1/{statistics.median(ratio):.2f} of the time, peak {theirs[3]:.0f} MiB")
    print("rounds", [f"{x:.2f}" for x in ratio])
