"""Lifetimes over 50 M page events: ours beside Polars' window and DuckDB's lead() on the same files.

pytest -m bench tests/bench/bench_lifetimes.py -s

Each way runs in a process of its own, and gives count and sum of the lifetimes of complete blocks, those that the
window can see: the next event of the same frame is its free. Where blocks come back in pieces only ours is right; this
trace has none of these. ``TRACEREPLAY_BENCH_TRACE``: use this trace instead of making one (about 20 s, 300 MB).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tracereplay.demand import synthetic

EVENTS = 50_000_000
ROUNDS = 2
WINDOW = "Polars, shift().over(pfn)"

_ROWS = """
from tracereplay.demand.lifetime import Lives
# measured from here
n = total = 0
for rows in Lives(trace, facts=False).ended():
    done = rows.how == 0
    n += int(done.sum())
    total += int((rows.t_free - rows.t_alloc)[done].sum())
"""
_ARROW = """
import pyarrow.compute as pc
from tracereplay.demand import lifetimes
# measured from here
n = total = 0
for batch in lifetimes(trace):
    lived = batch.column("lifetime_ns")
    n += len(lived) - lived.null_count
    total += pc.sum(lived).as_py() or 0
"""
_ANALYSIS = """
import tracereplay.analysis.leak_table, tracereplay.analysis.lifetime_tables
from tracereplay.analysis.registry import analysis_named
# measured from here
n, total = int(analysis_named({name!r}).answer(trace, by={by!r}).frame[{column!r}].sum()), 0
"""
_POLARS = """
import polars as pl
# measured from here
def next_of(name):
    return pl.col(name).shift(-1).over("pfn")
frame = (
    trace.page_events.filter(pl.col("kind").cast(pl.String).is_in(["alloc", "free"]))
    .select("ts_ns", "pfn", (pl.col("kind").cast(pl.String) == "free").alias("freed"))
    .with_columns(next_of("ts_ns").alias("until"), next_of("freed").alias("ends"))
    .filter(~pl.col("freed") & pl.col("ends"))
    .select(pl.len(), (pl.col("until") - pl.col("ts_ns")).sum())
)
n, total = frame.collect(engine="streaming").row(0)
"""
_DUCKDB = """
import duckdb
duckdb.execute("set enable_progress_bar = false")
# measured from here
files = [str(part.path) for part in trace.files["page_events"]]
n, total = duckdb.execute(
    '''select count(*), sum(until - ts_ns) from (
           select kind, ts_ns, lead(ts_ns) over w as until, lead(kind) over w as ends
           from read_parquet($files) where kind in ('alloc', 'free') window w as (partition by pfn order by ts_ns))
       where kind = 'alloc' and ends = 'free' ''',
    {"files": files},
).fetchone()
"""
_AROUND = """
import json, re, resource, sys, time
from tracereplay.trace.reader import Trace
trace = Trace.open(sys.argv[1])
{imports}
before = time.process_time()
started = time.perf_counter()
{body}
wall = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_SELF)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024  # ru_maxrss has the parent's
print(json.dumps([n, int(total), wall, used.ru_utime + used.ru_stime - before, peak]))
"""


class Run(NamedTuple):
    """One way, in a process of its own."""

    lifetimes: int
    sum_ns: int
    wall: float
    cpu: float
    """Seconds of all threads."""
    peak: float
    """MiB."""


def measure(body: str, trace: Path) -> Run:
    imports, body = body.split("# measured from here")
    program = _AROUND.format(imports=imports, body=body)
    made = subprocess.run([sys.executable, "-c", program, str(trace)], capture_output=True, text=True, check=True)
    return Run(*json.loads(made.stdout))


@pytest.mark.bench
def test_lifetimes_beside_windows(tmp_path_factory: pytest.TempPathFactory) -> None:
    given = os.environ.get("TRACEREPLAY_BENCH_TRACE")
    trace = Path(given) if given else tmp_path_factory.mktemp("lifetimes") / "t"
    if not given:
        synthetic.write_trace(trace, events=EVENTS)
    ways = {
        WINDOW: _POLARS,
        "DuckDB, lead() over pfn": _DUCKDB,
        "lifetimes, columns in place": _ROWS,
        "lifetimes, Arrow batches of all columns": _ARROW,
    }
    for name, by, column in (
        ("lifetimes", "none", "complete"),
        ("lifetimes", "caller", "complete"),
        ("peak", "caller", "blocks"),
        ("leaks", "caller", "taken_bytes"),
        ("reuse", "none", "reused"),
    ):
        ways[f"analyze {name} --by {by}"] = _ANALYSIS.format(name=name, by=by, column=column)
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(ROUNDS):  # in turns, since other load comes and goes
        for name, body in ways.items():
            runs[name].append(measure(body, trace))
    best = {name: min(found, key=lambda run: run.wall) for name, found in runs.items()}
    print()
    for name, run in best.items():
        print(
            f"{name:40} {run.wall:6.2f} s, {run.wall / best[WINDOW].wall:5.2f} of Polars' window; "
            f"CPU {run.cpu:6.2f} s, {run.cpu / best[WINDOW].cpu:5.2f}; peak {run.peak:6.0f} MiB"
        )
    exact = {run[:2] for name, run in best.items() if not name.startswith(("analyze", "DuckDB"))}
    assert len(exact) == 1, best
    # a window ordered by time cannot tell a free from an allocation of the same frame at the same nanosecond
    assert best["DuckDB, lead() over pfn"].lifetimes == pytest.approx(exact.pop()[0], rel=1e-5)
