"""Page events by caller: the analysis against DuckDB on the same Parquet files, in processes taking turns.

``pytest tests/bench/bench_analyze_pages.py -m bench -s``. Times are from after the imports to the rows in Python, of
each process's first query; memory is the most that the whole process had, interpreter and libraries included.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.page_bundle import write_bundle

pytestmark = pytest.mark.bench

ROWS = 50_000_000
ROUNDS = 5
ROOT = Path(__file__).parents[2]
TIMED = """
import re, sys, time
path = sys.argv[1]
{imports}
wall, cpu = time.perf_counter(), time.process_time()
{query}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(len(rows), sum(r[1] for r in rows), wall, cpu, peak)
"""
DUCKDB = TIMED.format(
    imports="import duckdb",
    query='''rows = duckdb.sql(f"""SELECT caller, count(*), sum(pages) FROM (
    SELECT stack_id, 1 << "order" AS pages FROM read_parquet('{path}/page_events/*.parquet') WHERE kind = 'alloc') AS e
    JOIN (SELECT stack_id, symbol AS caller FROM read_parquet('{path}/stacks/*.parquet') WHERE depth = 2) AS s
    ON e.stack_id = s.stack_id GROUP BY caller""").fetchall()''',
)
DUCKDB_STACKS = TIMED.format(
    imports="import duckdb",
    query='''rows = duckdb.sql(f"""SELECT stack_id, count(*), sum(1 << "order") FROM
    read_parquet('{path}/page_events/*.parquet') WHERE kind = 'alloc' GROUP BY stack_id""").fetchall()''',
)
OURS = TIMED.format(
    imports="from tracereplay.analysis.registry import analysis_named; from tracereplay import Trace\n"
    "import tracereplay.analysis.page_sites, pyarrow.parquet",
    query="rows = analysis_named('callers')(Trace.open(path)).rows()",
)
POLARS = TIMED.format(
    imports="import polars as pl",
    query="""rows = (pl.scan_parquet(f"{path}/page_events/*.parquet").filter(pl.col("kind") == "alloc")
    .group_by("stack_id").agg(pl.len(), pl.lit(2).pow(pl.col("order").cast(pl.UInt32)).sum())
    .collect(engine="streaming").rows())""",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    """A trace in memory where that exists, so that the disk is not measured."""
    memory = Path("/dev/shm")
    path = memory / f"bench-pages-{os.getpid()}" if memory.is_dir() else tmp_path / "t"
    write_bundle(path, ROWS)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def run(code: str, bundle: Path) -> list[float]:
    """Rows, requests, wall seconds, CPU seconds, peak MiB."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return [float(word) for word in done.stdout.splitlines()[-1].split()]  # DuckDB draws a bar before


def test_by_caller(bundle: Path) -> None:
    sides = {
        "tracereplay, callers": OURS,
        "DuckDB, callers by a join": DUCKDB,
        "DuckDB, stacks only": DUCKDB_STACKS,
        "Polars, stacks only": POLARS,
    }
    found: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, code in sides.items():
            found[name].append(run(code, bundle))
    requests = {runs[0][1] for runs in found.values()}
    assert len(requests) == 1
    middle = {name: [statistics.median(r[i] for r in runs) for i in (2, 3, 4)] for name, runs in found.items()}
    base = middle["DuckDB, callers by a join"]
    print(f"\n{ROWS / 1e6:.0f} M page events, {requests.pop() / 1e6:.1f} M allocations, median of {ROUNDS}")
    for name, (wall, cpu, peak) in middle.items():
        print(
            f"{name:26} {wall:5.2f} s ({wall / base[0]:.2f} x)  CPU {cpu:5.2f} s ({cpu / base[1]:.2f} x)"
            f"  {peak:4.0f} MiB at most"
        )
