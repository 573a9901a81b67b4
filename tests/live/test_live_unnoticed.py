"""Frees that no program saw and nothing counted: what the trace says of them, against its own frames and against an
ftrace instance that records beside the capture."""

from __future__ import annotations

import contextlib
import os
import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from collectors.tracepoints import tracefs_root
from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.reader import Trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]

CHURN = "end=$(($(date +%s) + 8)); while [ $(date +%s) -lt $end ]; do for i in $(seq 50); do /bin/true; done; done"
"""Processes that come and go: their page tables are freed in RCU callbacks."""
LINE = re.compile(r"\[(\d+)\] \S+ +(\d+)\.(\d+): mm_page_free: page=\S+ pfn=0x([0-9a-f]+) order=0")
APART_US = 400
"""Two records of one free, by two tracers, are hardly further apart than this."""
EDGE_NS = 20_000_000
BUFFER_KB = 65_536


def churn(out: Path) -> Trace:
    """A capture of process churn on two CPUs."""
    command = ("sh", "-c", f"({CHURN}) & ({CHURN}) & wait")
    capture(out, CaptureOptions(groups=("page",), command=command))
    return Trace.open(out)


def singles(trace: Trace) -> pl.DataFrame:
    """Allocations and frees of order 0, with what came before of the same frame."""
    kind = pl.col("kind").cast(pl.String)
    events = trace.page_events.filter((pl.col("order") == 0) & kind.is_in(["alloc", "free"]))
    frame = events.select("ts_ns", "cpu", "pfn", kind=kind).collect()
    return frame.with_columns(
        before=pl.col("kind").shift(1).over("pfn"),
        since=pl.col("ts_ns").shift(1).over("pfn"),
    )


def losses(trace: Trace) -> pl.DataFrame:
    """Rows of page events in table ``loss``."""
    rows = trace.loss.with_columns(pl.col("table", "class").cast(pl.String)).collect()
    return rows.filter(pl.col("table") == "page_events")


@contextlib.contextmanager
def beside(root: Path) -> Iterator[Path]:
    """An ftrace instance that records every free."""
    instance = root / "instances" / f"tracereplay_test_{os.getpid()}"
    instance.mkdir()
    try:
        (instance / "trace_clock").write_text("mono")
        (instance / "buffer_size_kb").write_text(str(BUFFER_KB))
        (instance / "events/kmem/mm_page_free/enable").write_text("1")
        yield instance
    finally:
        (instance / "tracing_on").write_text("0")
        (instance / "events/kmem/mm_page_free/enable").write_text("0")
        instance.rmdir()


def frees_of(instance: Path) -> list[tuple[int, int, int]]:
    """(CPU, frame, time in us) of the frees of order 0 in its buffer; none was overwritten."""
    (instance / "tracing_on").write_text("0")
    for stats in instance.glob("per_cpu/cpu*/stats"):
        text = stats.read_text()
        assert "\noverrun: 0\n" in text, text
    with (instance / "trace").open(errors="replace") as lines:
        found = [LINE.search(line) for line in lines]
    return [(int(m[1]), int(m[4], 16), int(m[2]) * 1_000_000 + int(m[3])) for m in found if m]


def only_beside(theirs: list[tuple[int, int, int]], ours: pl.DataFrame) -> list[tuple[int, int]]:
    """(frame, time in us) of the frees that the capture does not have."""
    times: dict[tuple[int, int], list[int]] = defaultdict(list)
    for cpu, pfn, ts in ours.filter(pl.col("kind") == "free").select("cpu", "pfn", "ts_ns").iter_rows():
        times[cpu, pfn].append(ts // 1000)
    at: dict[tuple[int, int], int] = defaultdict(int)
    missing = []
    for cpu, pfn, us in theirs:
        mine, k = times[cpu, pfn], at[cpu, pfn]
        while k < len(mine) and mine[k] < us - APART_US:
            k += 1
        if k < len(mine) and mine[k] <= us + APART_US:
            k += 1
        else:
            missing.append((pfn, us))
        at[cpu, pfn] = k
    return missing


def test_no_frame_is_allocated_twice_beyond_what_the_loss_table_says(out: Path) -> None:
    trace = churn(out)
    events, rows = singles(trace), losses(trace)
    assert len(events) > 100_000
    twice = events.filter((pl.col("kind") == "alloc") & (pl.col("before") == "alloc"))
    others = rows.filter(pl.col("class") != "unnoticed").select("t0_ns", "t1_ns").iter_rows()
    for t0, t1 in others:  # what is lost in that time may be the free
        twice = twice.filter((pl.col("ts_ns") < (t0 or 0)) | (pl.col("since") > (t1 or 1 << 62)))
    unnoticed = rows.filter(pl.col("class") == "unnoticed")
    assert unnoticed["n"].sum() == len(twice)
    assert trace.metadata.loss["by_class"].get("unnoticed", 0) == len(twice)
    for t0, t1, n in unnoticed.select("t0_ns", "t1_ns", "n").iter_rows():
        assert len(twice.filter((pl.col("since") <= t0 + (1 << 20)) & (pl.col("ts_ns") >= t1))) >= n


def test_what_ftrace_saw_and_the_capture_did_not_is_counted(out: Path) -> None:
    root = tracefs_root()
    if root is None:
        pytest.skip("tracefs is not mounted")
    with beside(root) as instance:
        trace = churn(out)
        theirs = frees_of(instance)
    events, rows = singles(trace), losses(trace)
    assert rows.filter(pl.col("class") != "unnoticed")["n"].sum() <= 1
    first, last = events["ts_ns"][0] + EDGE_NS, events["ts_ns"][-1] - EDGE_NS
    missing = [(pfn, us) for pfn, us in only_beside(theirs, events) if first <= us * 1000 < last]
    of_frame: dict[int, list[tuple[int, str]]] = defaultdict(list)
    named = events.filter(pl.col("pfn").is_in(list({pfn for pfn, _ in missing})))
    for pfn, ts, kind in named.select("pfn", "ts_ns", "kind").iter_rows():
        of_frame[pfn].append((ts, kind))
    proven = set()
    for pfn, us in missing:
        at = bisect(of_frame[pfn], (us * 1000, ""))
        if [kind for _, kind in of_frame[pfn][max(0, at - 1) : at + 1]] == ["alloc", "alloc"]:
            proven.add((pfn, at))
    counted = rows.filter(pl.col("class") == "unnoticed")
    # More is possible: a kernel that hides a task from BPF may hide what the task itself does from ftrace too.
    assert counted["n"].sum() >= len(proven)
