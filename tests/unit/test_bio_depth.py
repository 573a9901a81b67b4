"""Queue depth and what follows from it: against intervals counted one by one, and case by case."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.bio_samples import DISK, OTHER, bio_trace
from tests.trace_samples import metadata, rows_batch
from tracereplay import Trace
from tracereplay.analysis.in_flight import InFlight
from tracereplay.analysis.registry import analyses
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.view import View
from tracereplay.errors import EmptyTraceError, UsageError
from tracereplay.report.answer_picture import picture
from tracereplay.trace.writer import TraceWriter

KNOWN = analyses()
NAMES = ("queue-depth", "depth-over-time", "latency-heatmap", "concurrency")
SHIPPED = Path(__file__).parents[2] / "traces"


def intervals(n: int, seed: int) -> list[tuple[int, int, int]]:
    """(device, start, end) of random I/Os, all times distinct."""
    rng = np.random.default_rng(seed)
    times = rng.choice(np.arange(1, 40 * n), 2 * n, replace=False) * 1000
    starts = np.sort(times[:n])
    ends = starts + rng.exponential(60_000, n).astype(np.int64) // 1000 * 1000 + 500
    return [
        (int(rng.choice([DISK, OTHER])), int(s), int(e) + i % 499)
        for i, (s, e) in enumerate(zip(starts, ends, strict=True))
    ]


def traced(path: Path, made: list[tuple[int, int, int]], start: str, end: str) -> Trace:
    """Each I/O has sectors of its own."""
    rows = []
    for i, (dev, t0, t1) in enumerate(made):
        rows.append({"ts_ns": t0, "kind": start, "dev": dev, "sector": 100 * i, "nr_sectors": 8})
        rows.append({"ts_ns": t1, "kind": end, "dev": dev, "sector": 100 * i, "nr_sectors": 8})
    return bio_trace(path, sorted(rows, key=lambda r: r["ts_ns"]))


@pytest.mark.parametrize(("start", "end"), [("issue", "complete"), ("queue", "complete"), ("queue", "bio_complete")])
def test_against_intervals(start: str, end: str, tmp_path: Path) -> None:
    made = intervals(2000, 5)
    trace = traced(tmp_path / "t", made, start, end)
    zero, last = min(m[1] for m in made), max(m[2] for m in made) + 1
    t0, t1 = 3_000_000, (last - zero) // 2 + 77
    view = View(trace, Selection(time=(t0, t1)))
    low, high = zero + t0, zero + t1
    width = 1_000_000

    held: Counter[tuple[str, int]] = Counter()
    area: Counter[tuple[str, int]] = Counter()
    latencies: dict[tuple[str, int], list[int]] = {}
    for dev, name in ((DISK, "8:0"), (OTHER, "8:16")):
        mine = [(s, e) for d, s, e in made if d == dev]
        edges = sorted({low, high, *(t for pair in mine for t in pair if low < t < high)})
        for a, b in pairwise(edges):
            depth = sum(s <= a < e for s, e in mine)
            held[name, depth] += b - a
        for s, e in mine:
            if low <= e < high:
                latencies.setdefault((name, sum(a < s < b for a, b in mine)), []).append(e - s)
        for b in range(-(-(high - low) // width)):
            x, y = low + b * width, min(high, low + (b + 1) * width)
            area[name, b] = sum(max(0, min(e, y) - max(s, x)) for s, e in mine)

    depths = KNOWN["queue-depth"](view)
    assert {(d, k): t for d, k, t in depths.select("device", "depth", "time_ns").iter_rows()} == dict(held)
    assert depths.group_by("device").agg(pl.col("share").sum())["share"].to_list() == pytest.approx([1, 1])
    over = KNOWN["depth-over-time"](view, bin="1ms")
    found = {(d, (t - t0) // width): m * w for d, t, w, m in over.drop("peak_depth").iter_rows() if t + w <= t1}
    assert found == pytest.approx({k: area[k] for k in found})
    heat = KNOWN["latency-heatmap"](view, bin="1ms")
    binned = Counter(1 << ((e - s).bit_length() - 1) for _, s, e in made if low <= e < high)
    assert dict(heat.group_by("latency_ns").agg(pl.col("ios").sum()).iter_rows()) == dict(binned)
    deep = KNOWN["concurrency"](view).filter(pl.col("depth") < 8)
    for row in deep.to_dicts():
        mine = sorted(latencies[row["device"], row["depth"]])
        assert (row["ios"], row["latency_max_ns"]) == (len(mine), mine[-1])
        assert row["latency_mean_ns"] == pytest.approx(sum(mine) / len(mine))
        for name, q in (("p50", 50), ("p90", 90), ("p99", 99)):
            assert row[f"latency_{name}_ns"] == pytest.approx(mine[-(-len(mine) * q // 100) - 1], rel=0.004)


def flight(path: Path, rows: list[dict[str, Any]], at: str = "auto") -> tuple[list[tuple[Any, ...]], dict[str, int]]:
    """(start, latency, depth) of the I/Os that ended, and the account."""
    made = InFlight(View.of(bio_trace(path, rows)), at)
    made.drain()
    ended = pl.concat(list(made.ended())).select("start_ns", "latency_ns", "depth").rows()
    return ended, {k: v for k, v in made.account.items() if v}


def test_parts_requeues_and_flushes(tmp_path: Path) -> None:
    ended, account = flight(
        tmp_path / "t",
        [
            {"ts_ns": 10, "kind": "issue", "sector": 0, "nr_sectors": 16},
            {"ts_ns": 20, "kind": "issue", "sector": 100},
            {"ts_ns": 25, "kind": "requeue", "sector": 100},
            {"ts_ns": 30, "kind": "complete", "sector": 0, "nr_sectors": 8},  # its first half
            {"ts_ns": 40, "kind": "complete", "sector": 8, "nr_sectors": 8},
            {"ts_ns": 50, "kind": "issue", "sector": 100},
            {"ts_ns": 60, "kind": "issue", "sector": 100},  # the driver was busy; the requeue was not recorded
            {"ts_ns": 70, "kind": "issue", "op": "F", "flags": "FF", "sector": None, "nr_sectors": 0},
            {"ts_ns": 75, "kind": "complete", "op": "F", "flags": "FF", "sector": 0, "nr_sectors": 0},
            {
                "ts_ns": 76,
                "kind": "complete",
                "flags": "WS",
                "sector": 0,
                "nr_sectors": 0,
            },  # the flush's bio: never issued
            {"ts_ns": 80, "kind": "complete", "sector": 100},
            {"ts_ns": 90, "kind": "complete", "sector": 500},
        ],
    )
    assert ended == [(10, 30, 0), (70, 5, 1), (60, 20, 0)]
    assert account == {"reissued": 1, "unmatched_completions": 1}


def test_bios_merged_and_split(tmp_path: Path) -> None:
    ended, account = flight(
        tmp_path / "t",
        [
            {"ts_ns": 10, "sector": 0},
            {"ts_ns": 11, "sector": 8},
            {"ts_ns": 12, "sector": 16, "nr_sectors": 16},
            {
                "ts_ns": 20,
                "kind": "complete",
                "sector": 0,
                "nr_sectors": 24,
            },  # one request: two bios and half of the third
            {"ts_ns": 30, "kind": "complete", "sector": 24},
        ],
    )
    assert sorted(ended) == [(10, 10, 0), (11, 9, 1), (12, 18, 2)]
    assert account == {}
    stacked, account = flight(
        tmp_path / "s",
        [
            {"ts_ns": 10, "dev": OTHER, "nr_sectors": 64},
            {"ts_ns": 11, "dev": OTHER, "sector": 64, "nr_sectors": 64},
            {"ts_ns": 30, "dev": OTHER, "kind": "bio_complete", "sector": 48, "nr_sectors": 16},  # names its last part
            {"ts_ns": 40, "dev": OTHER, "kind": "bio_complete", "sector": 128, "nr_sectors": 0},  # was advanced
        ],
    )
    assert stacked == [(10, 20, 0), (11, 29, 1)]
    assert account == {}


def test_what_has_no_end(tmp_path: Path) -> None:
    rows = [{"ts_ns": 5, "kind": "issue", "sector": 900}]
    for i in range(50):
        rows += [{"ts_ns": 100 * i + 10, "kind": "issue"}, {"ts_ns": 100 * i + 40, "kind": "complete"}]
    rows.append({"ts_ns": 4995, "kind": "issue", "sector": 300})
    ended, account = flight(tmp_path / "t", rows)
    assert {depth for _, _, depth in ended} == {0}
    assert account == {"never_completed": 1, "open_at_end": 1}


def test_a_loss_empties_the_queue(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        io = {"cpu": 0, "dev": DISK, "nr_sectors": 8, "op": "W"}
        rows = [(10, "issue", 0), (20, "issue", 8), (90, "issue", 16), (95, "complete", 16)]
        made = [{**io, "ts_ns": t, "kind": k, "sector": s} for t, k, s in rows]
        writer.write("bio_events", rows_batch("bio_events", made))
        lost = {"t0_ns": 30, "t1_ns": 80, "table": "bio_events", "cpu": 0, "n": 2, "class": "ring_full"}
        writer.write("loss", rows_batch("loss", [lost]))
    found = KNOWN["queue-depth"].answer(Trace.open(tmp_path / "t"))
    assert found.account["open_at_loss"] == 2
    assert found.frame.select("depth", "time_ns").rows() == [(0, 80 - 10 - 70 + 10 + 1), (1, 10 + 5), (2, 60)]


def test_a_partition_is_its_disk(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(20):
        rows += [
            {"ts_ns": 100 * i + 1, "dev": DISK + 1, "sector": 2048 + 8 * i},
            {"ts_ns": 100 * i + 2, "kind": "issue", "sector": 2048 + 8 * i},
            {"ts_ns": 100 * i + 9, "kind": "complete", "sector": 2048 + 8 * i},
        ]
    ended, account = flight(tmp_path / "t", rows, "queue")
    assert [latency for _, latency, _ in ended] == [8] * 20
    assert account == {}


@pytest.mark.parametrize("name", NAMES)
def test_options_views_and_refusals(name: str, tmp_path: Path) -> None:
    analysis = KNOWN[name]
    trace = Trace.open(SHIPPED / "mixed-6.18")
    whole = analysis.answer(trace)
    assert whole.account["unmatched_completions"] == 0
    drawn = analysis.picture
    assert drawn is not None
    assert {drawn.x, drawn.y, drawn.value, drawn.group} - {""} <= set(whole.frame.columns)
    nothing = analysis(View(trace, Selection(device=(5,))))
    assert nothing.is_empty()
    assert nothing.schema == whole.frame.schema
    assert "queue" in analysis.answer(trace, at="queue").method
    upper = View(Trace.open(SHIPPED / "dmcrypt-6.12-bulk"), Selection(device=(253 << 20,)))
    assert "from queue" in analysis.answer(upper).method  # its requests are another device's
    with pytest.raises(UsageError, match="cannot be filtered by pid"):
        analysis(View(trace, Selection(pid=(1,))))
    with pytest.raises(EmptyTraceError, match="complete or bio_complete"):
        analysis(bio_trace(tmp_path / "q", [{"ts_ns": 1}]))
    with pytest.raises(UsageError, match="issue and completion") as caught:
        analysis(bio_trace(tmp_path / "b", [{"ts_ns": 1}, {"ts_ns": 2, "kind": "bio_complete"}]), at="issue")
    assert "at=queue" in str(caught.value.hint)


def test_small_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace.open(SHIPPED / "mixed-6.18")
    whole = [KNOWN[name](trace) for name in NAMES]
    batches = Trace.batches
    monkeypatch.setattr(Trace, "batches", lambda *a: batches(*a, rows=997))
    assert all(KNOWN[name](trace).equals(w) for name, w in zip(NAMES, whole, strict=True))


def test_latencies_are_drawn_by_powers_of_two() -> None:
    analysis = KNOWN["latency-heatmap"]
    assert analysis.picture is not None
    text = picture(analysis(Trace.open(SHIPPED / "mixed-6.18")), analysis.picture, "")
    assert [text.count(f">{mark}<") for mark in ("16.4 us", "32.8 us", "65.5 us", "131 us")] == [1] * 4
