"""Analyses of bios: block accesses a second through the LRU stack, and counts against DuckDB on the same Parquet files.

``pytest tests/bench/bench_block.py -m bench -s``
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tests.reference.slow_blocks import lru_misses
from tests.trace_samples import metadata
from tracereplay import Trace, TraceWriter
from tracereplay.analysis.registry import analyses
from tracereplay.analysis.stack_distance import StackDistances, miss_ratio_curve
from tracereplay.trace.columns import kind_dictionary

pytestmark = pytest.mark.bench

ACCESSES = 10_000_000
BIOS = 8 << 20
BATCH = 1 << 20
ALL = 1 << 40


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Best wall time of a few calls."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def test_stack_distances() -> None:
    rng = np.random.default_rng(1)
    ones = np.ones(ACCESSES, np.int64)
    StackDistances(ALL).feed(np.arange(10), ones[:10])  # compiles, or loads compiled code
    few = (rng.random(300_000) ** 3 * 200_000).astype(np.int64)
    slow = seconds(lambda: lru_misses(few.tolist(), 1 << 30), 1)
    print(f"\nordered dictionary, one size  {len(few) / slow / 1e6:7.2f} M accesses/s")
    for name, blocks in (("1.8 M blocks", 2_000_000), ("6 M blocks", 20_000_000)):
        accesses = (rng.random(ACCESSES) ** 3 * blocks).astype(np.int64)
        exact: StackDistances | None = None
        for hold in (ALL, 1 << 18, 1 << 13):
            stack = StackDistances(hold)
            start = time.perf_counter()
            stack.feed(accesses, ones)
            took = time.perf_counter() - start
            exact = exact or stack
            truth, found = miss_ratio_curve(exact), miss_ratio_curve(stack)
            n = min(len(truth.ratio), len(found.ratio))
            error = np.abs(truth.ratio[:n] - found.ratio[:n]).mean()
            how = "exact" if stack.rate == 1 else f"1 block in {1 / stack.rate:.0f}"
            print(f"{name:12} {how:16} {ACCESSES / took / 1e6:7.2f} M accesses/s, mean error {error:.4f}")


def write_bios(path: Path) -> Trace:
    """Queued reads and writes of four disks, half of them sequential, each issued and completed."""
    rng = np.random.default_rng(2)
    with TraceWriter(path, metadata()) as writer:
        for part in range(BIOS // BATCH):
            n = BATCH // 4
            late = part * n * 4000
            start = late + np.sort(rng.integers(0, n * 4000 - 100_000, n))  # all end before the next part
            run = np.repeat(rng.integers(0, 1 << 30, n // 8), 8) * 8 + np.tile(np.arange(8) * 16, n // 8)
            stages = [(0, "queue"), (2000, "insert"), (5000, "issue"), (80_000, "complete")]
            ts = np.concatenate([start + d for d, _ in stages])
            order = np.argsort(ts, kind="stable")
            kinds = kind_dictionary("bio_events").to_pylist()
            kind = np.repeat([kinds.index(k) for _, k in stages], n).astype(np.int8)
            dev = np.repeat(rng.integers(0, 4, n // 8), 8).astype(np.uint32) * 16 + (8 << 20)
            op = np.repeat(rng.random(n // 8) < 0.3, 8).astype(np.int8)
            columns = {
                "ts_ns": pa.array(ts[order]),
                "cpu": pa.array(np.zeros(4 * n, np.uint16)),
                "kind": pa.DictionaryArray.from_arrays(pa.array(kind[order]), kind_dictionary("bio_events")),
                "dev": pa.array(np.tile(dev, 4)[order]),
                "sector": pa.array(np.tile(run.astype(np.uint64), 4)[order]),
                "nr_sectors": pa.array(np.full(4 * n, 16, np.uint32)),
                "op": pa.DictionaryArray.from_arrays(pa.array(np.tile(op, 4)[order].astype(np.int32)), ["R", "W"]),
                "pid": pa.array(np.full(4 * n, 7, np.uint32)),
            }
            writer.write("bio_events", pa.RecordBatch.from_pydict(columns))
    return Trace.open(path)


def test_analyses_against_duckdb(tmp_path: Path) -> None:
    trace = write_bios(tmp_path / "bios.trace")
    rows = trace.rows("bio_events")
    files = [str(f.path) for f in trace.files["bio_events"]]
    table = f"(select * from read_parquet({files}) where kind = 'queue' and op in ('R', 'W'))"
    first = trace.sort_range("bio_events")
    assert first is not None
    queries = {
        "throughput": f"""select dev, (ts_ns - {first[0]}) // 100000000, count(*), sum(nr_sectors::bigint * 512)
                          from {table} group by all""",
        "sizes": f"select dev, op, nr_sectors, count(*) from {table} group by all",
        "seeks": f"""select dev, sign(gap), floor(log2(abs(gap) + 1)), count(*) from
                     (select dev, sector::bigint - lag(sector + nr_sectors) over (partition by dev order by ts_ns)
                      as gap from {table}) group by all""",
    }
    known = analyses()
    names = ("ops", "sizes", "throughput", "seeks", "hot-regions", "queue-depth", "working-set", "miss-ratio")
    print(f"\n{rows:,} block events")
    for name in names:
        options = {"bin": "100ms"} if name == "throughput" else {}
        ours = seconds(lambda name=name, options=options: known[name](trace, **options), 2)
        said = ""
        if name in queries:
            with duckdb.connect() as duck:
                theirs = seconds(lambda duck=duck, name=name: duck.execute(queries[name]).fetchall(), 2)
            said = f", DuckDB {theirs:6.2f} s, ratio {ours / theirs:.2f}"
        print(f"{name:12} {ours:6.2f} s, {rows / ours / 1e6:6.1f} M events/s{said}")
