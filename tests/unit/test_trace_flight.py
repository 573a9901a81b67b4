"""The flight recorder: what it keeps, what it drops, and what the small tables say of the window that is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tests.trace_samples import metadata, rows_batch, snapshot
from tracereplay import Trace, TraceWriter
from tracereplay.trace.flight import MAX_IDS, SEGMENTS, FlightRecorder, _Marks
from tracereplay.trace.manifest import read_manifest
from tracereplay.trace.validate import validate_trace

SECOND = 1_000_000_000
STEP = SECOND // 10
"""The recording hands over rows and time in steps of 100 ms."""


def page(ts: int, *, pid: int = 5, stack: int | None = None, kind: str = "alloc") -> dict[str, Any]:
    return {
        "ts_ns": ts, "cpu": 0, "kind": kind, "pfn": ts // STEP, "order": 0, "gfp": 0xCC0, "migratetype": 0,
        "pid": pid, "stack_id": stack,
    }  # fmt: skip


def bio(ts: int, pid: int) -> dict[str, Any]:
    return {"ts_ns": ts, "cpu": 1, "kind": "queue", "dev": 8 << 20, "sector": 64, "nr_sectors": 8, "pid": pid}


class Run:
    """Feeds a writer and its recorder as a recording does: rows, then the time up to which they are complete."""

    def __init__(self, path: Path, window_s: float, **options: Any) -> None:
        self.writer = TraceWriter(path, metadata(source={"kind": "capture"}), row_group_rows=50)
        self.flight = FlightRecorder(self.writer, int(window_s * SECOND), **options)
        self.writer.on_rows = self.flight.on_rows
        self.ts: dict[str, list[int]] = {"page_events": [], "bio_events": []}

    def write(self, table: str, rows: list[dict[str, Any]]) -> None:
        batch = rows_batch(table, rows)
        self.writer.write(table, batch)
        if table in self.ts:
            self.ts[table] += [r["ts_ns"] for r in rows]

    def step(self, until_ns: int, *, pid: int = 5, stack: int | None = None) -> None:
        begin = until_ns - STEP
        self.write("page_events", [page(begin + n * STEP // 7, pid=pid, stack=stack) for n in range(7)])
        if until_ns // STEP % 3 == 0:
            self.write("bio_events", [bio(begin + 5, pid)])
        self.flight.on_time(until_ns)

    def finish(self, now_ns: int, reason: str = "asked") -> Trace:
        self.flight.freeze(now_ns, reason)
        return Trace.open(self.writer.finish())


def times(trace: Trace, table: str) -> list[int]:
    return trace.table(table).select("ts_ns").collect().to_series().to_list()


def test_it_keeps_the_window_and_at_most_a_segment_more(tmp_path: Path) -> None:
    run = Run(tmp_path / "t", 5.0)
    most = 0
    for number in range(1, 301):
        run.step(number * STEP)
        kept = sum(e.rows for e in read_manifest(tmp_path / "t").tables.get("page_events", []))
        most = max(most, kept)
    trace = run.finish(300 * STEP)
    first = trace.metadata.source["flight"]["from_ns"]
    assert 30 * SECOND - 5.5 * SECOND <= first <= 25 * SECOND
    for table, written in run.ts.items():
        # Complete from one instant on, in every event table, and nothing from before it.
        assert times(trace, table) == [ts for ts in written if ts >= first]
    assert most <= 7 * 10 * 5.5
    report = validate_trace(trace)
    assert report.ok
    assert not report.findings
    assert trace.complete


def test_what_the_metadata_say(tmp_path: Path) -> None:
    run = Run(tmp_path / "t", 5.0)
    for number in range(1, 101):
        run.step(number * STEP)
    trace = run.finish(100 * STEP, "alloc_failed at 9.9 s")
    facts = trace.metadata.source["flight"]
    kept = trace.rows("page_events") + trace.rows("bio_events")
    assert facts["window_s"] == 5.0
    assert facts["frozen_by"] == "alloc_failed at 9.9 s"
    assert facts["dropped_events"] == sum(len(ts) for ts in run.ts.values()) - kept
    assert facts["dropped_files"] > 0
    assert facts["to_ns"] == 100 * STEP
    assert facts["kept_s"] == pytest.approx((facts["to_ns"] - facts["from_ns"]) / SECOND)
    (note,) = [n for n in trace.metadata.notes if "flight recorder" in n]
    assert f"the last {facts['kept_s']:.1f} s of a longer run, frozen by alloc_failed" in note


def test_a_run_shorter_than_the_window_is_whole(tmp_path: Path) -> None:
    run = Run(tmp_path / "t", 60.0)
    run.writer.write("snapshots", snapshot("6.12", 0, "start"))
    for number in range(1, 30):
        run.step(number * STEP)
    trace = run.finish(29 * STEP)
    assert times(trace, "page_events") == run.ts["page_events"]
    assert trace.metadata.source["flight"]["from_ns"] is None
    assert trace.metadata.notes == []
    assert set(trace.snapshots.collect()["phase"].cast(pl.String)) == {"start"}


def snapshot_times(trace: Trace) -> list[tuple[int, str]]:
    frame = trace.snapshots.select("ts_ns", pl.col("phase").cast(pl.String)).unique().sort("ts_ns").collect()
    return frame.rows()


@pytest.mark.parametrize(
    ("every", "start"),
    # Every 2 s: the first one inside. Every 20 s: none is inside, the last one before stands for the state.
    [(20, 5.0), (200, 0.0)],
    ids=["inside", "before"],
)
def test_a_snapshot_becomes_the_state_at_the_start(tmp_path: Path, every: int, start: float) -> None:
    run = Run(tmp_path / "t", 5.0)
    run.writer.write("snapshots", snapshot("6.12", 0, "start"))
    run.writer.rotate()
    for number in range(1, 101):
        if number % every == 0 and number < 100:
            run.writer.write("snapshots", snapshot("6.12", number * STEP, "tick"))
        run.step(number * STEP)
    run.writer.write("snapshots", snapshot("6.12", 100 * STEP, "end"))
    trace = run.finish(100 * STEP)
    first = trace.metadata.source["flight"]["from_ns"]
    found = snapshot_times(trace)
    assert [phase for _, phase in found] == ["start", *["tick"] * (len(found) - 2), "end"]
    inside = [n * STEP for n in range(every, 100, every) if n * STEP >= first]
    assert [ts for ts, _ in found] == [*(inside or [int(start * SECOND)]), 100 * STEP]
    assert validate_trace(trace).ok


def test_ticks_of_weeks_do_not_stay(tmp_path: Path) -> None:
    run = Run(tmp_path / "t", 1.0)
    run.writer.write("snapshots", snapshot("6.12", 0, "start"))
    one = run.writer.rotate()[0].rows
    for number in range(1, 201):
        run.writer.write("snapshots", snapshot("6.12", number * STEP - 1, "tick"))
        run.step(number * STEP)
        kept = sum(e.rows for e in run.writer.files("snapshots")) // one
        assert kept <= SEGMENTS + 3
    assert len(read_manifest(tmp_path / "t").tables["snapshots"]) <= SEGMENTS + 3
    assert len(run.flight._segments) <= SEGMENTS + 2
    assert len(run.flight._ends) <= SEGMENTS + 2


def lose(run: Run, t0: int | None, t1: int | None, n: int, name: str = "ring_full") -> None:
    row = {"t0_ns": t0, "t1_ns": t1, "table": "page_events", "cpu": 0, "n": n, "class": name}
    run.writer.write("loss", rows_batch("loss", [row]))


def test_loss_is_that_of_the_window(tmp_path: Path) -> None:
    run = Run(tmp_path / "t", 2.0)
    for number in range(1, 101):
        lose(run, number * STEP - 20, number * STEP - 10, number)
        if number == 79:
            # A gap that ends after the segment in which it was found.
            lose(run, 79 * STEP - 5, 80 * STEP, 1000)
        run.step(number * STEP)
    lose(run, STEP, 100 * STEP, 7, "recursion")
    run.writer.metadata.loss = {"by_class": {"ring_full": sum(range(101)) + 1000, "recursion": 7}}
    trace = run.finish(100 * STEP)
    first = trace.metadata.source["flight"]["from_ns"]
    assert first == 79 * STEP
    inside = sum(n for n in range(1, 101) if n * STEP - 10 >= first)
    assert trace.loss_summary()["by_class"] == {"recursion": 7, "ring_full": inside + 1000}
    assert trace.metadata.loss["by_class"] == {"ring_full": inside + 1000, "recursion": 7}
    assert trace.metadata.loss["whole_run"]["by_class"]["ring_full"] == sum(range(101)) + 1000
    assert validate_trace(trace).ok


def test_a_loss_that_the_table_does_not_hold_still_shows(tmp_path: Path) -> None:
    """The kernel's count less what was dropped is held against the table: not the table against itself."""
    run = Run(tmp_path / "t", 2.0)
    for number in range(1, 101):
        lose(run, number * STEP - 20, number * STEP - 10, 1)
        run.step(number * STEP)
    run.writer.metadata.loss = {"by_class": {"ring_full": 101}}
    report = validate_trace(run.finish(100 * STEP))
    assert [f.code for f in report.errors] == ["loss-sum"]


def test_gaps_of_several_reasons_leave_no_negative_counts(tmp_path: Path) -> None:
    """The kernel counts a gap's events by reason, the table holds the gap as one row of class unknown."""
    run = Run(tmp_path / "t", 2.0)
    for number in range(1, 101):
        lose(run, number * STEP - 20, number * STEP - 10, 10, "unknown" if number in (5, 95) else "ring_full")
        run.step(number * STEP)
    run.writer.metadata.loss = {"by_class": {"ring_full": 998, "ring_lock": 2}}
    trace = run.finish(100 * STEP)
    counted = trace.metadata.loss["by_class"]
    assert all(n > 0 for n in counted.values())
    assert sum(counted.values()) == trace.loss_summary()["lost"]
    assert validate_trace(trace).ok


def test_shed_intervals_stay_sorted(tmp_path: Path) -> None:
    run = Run(tmp_path / "t", 2.0)
    for number in range(1, 101):
        if number % 10 == 0:
            row = {"t0_ns": (number - 10) * STEP, "t1_ns": number * STEP, "sample": number, "reason": "max-rate"}
            run.writer.write("shed", rows_batch("shed", [row]))
        run.step(number * STEP)
    trace = run.finish(100 * STEP)
    first = trace.metadata.source["flight"]["from_ns"]
    assert trace.table("shed").collect()["t1_ns"].to_list() == [
        n * STEP for n in range(10, 101, 10) if n * STEP >= first
    ]
    assert validate_trace(trace).ok


def test_tasks_and_stacks_are_those_of_the_window(tmp_path: Path) -> None:
    run = Run(tmp_path / "t", 2.0)
    for number in range(1, 101):
        run.step(number * STEP, pid=number, stack=number)
    task = {"tgid": 1, "comm": "c"}
    tasks = [{**task, "pid": n, "first_ns": (n - 1) * STEP, "last_ns": None} for n in range(1, 101)]
    # The same pid went by another name before the window.
    tasks.append({**task, "pid": 95, "comm": "old", "first_ns": 0, "last_ns": 10 * STEP})
    tasks.append({"pid": 0, "tgid": 0, "comm": "swapper", "first_ns": None, "last_ns": None})
    run.writer.write("tasks", rows_batch("tasks", tasks))
    frames = [{"stack_id": n, "depth": d, "address": n} for n in range(1, 101) for d in (0, 1)]
    run.writer.write("stacks", rows_batch("stacks", frames))
    trace = run.finish(100 * STEP)
    first = trace.metadata.source["flight"]["from_ns"] // STEP
    seen = set(range(first + 1, 101))
    kept = trace.tasks.collect()
    assert set(kept["pid"]) == {0, *seen}
    assert "old" not in set(kept["comm"])
    assert set(trace.stacks.collect()["stack_id"]) == seen
    assert trace.rows("stacks") == 2 * len(seen)


def test_max_size_drops_the_oldest_files(tmp_path: Path) -> None:
    free = Run(tmp_path / "free", 1000.0)
    bound = Run(tmp_path / "bound", 1000.0, max_bytes=100_000)
    for number in range(1, 401):
        for run in (free, bound):
            run.step(number * STEP)
            used = run.writer.finished_bytes + run.writer.open_bytes
            on_disk = sum(f.stat().st_size for f in (tmp_path / "bound").rglob("*.parquet*"))
            if run is bound:
                assert used <= 100_000
                assert on_disk <= 110_000
    assert free.finish(400 * STEP).rows("page_events") == 2800
    trace = bound.finish(400 * STEP)
    assert 0 < trace.rows("page_events") < 2800
    first = trace.metadata.source["flight"]["from_ns"]
    assert times(trace, "page_events") == [ts for ts in bound.ts["page_events"] if ts >= first]
    assert validate_trace(trace).ok


def test_the_page_map_goes_with_the_state_that_it_shows(tmp_path: Path) -> None:
    run = Run(tmp_path / "t", 1.0)
    for number in range(1, 51):
        # Read while the window passes: some of it is inside.
        chunk = {"pfn": number, "pages": 9, "kind": "buddy", "ts_ns": number * STEP}
        run.writer.write("page_map", rows_batch("page_map", [chunk]))
        run.step(number * STEP)
    trace = run.finish(50 * STEP)
    assert trace.rows("page_map") == 0
    assert validate_trace(trace).ok


def test_silence_is_cut_too(tmp_path: Path) -> None:
    """Nothing comes for a while: what gathered is on disk after a tenth of the window, and goes in time."""
    run = Run(tmp_path / "t", 2.0)
    run.step(STEP)
    for number in range(2, 5):
        run.flight.on_time(number * STEP)
    assert Trace.open(tmp_path / "t").rows("page_events") == 7
    for number in range(5, 60):
        run.flight.on_time(number * STEP)
    assert Trace.open(tmp_path / "t").rows("page_events") == 0
    assert validate_trace(run.finish(60 * STEP)).ok


def test_a_recorder_that_dies_says_what_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path / "t", 1.0)
    for number in range(1, 51):
        run.step(number * STEP)
    trace = Trace.open(tmp_path / "t")  # nothing more is written
    assert not trace.complete
    assert trace.metadata.source["flight"]["dropped_events"] > 0
    assert any("end of a longer run" in note for note in trace.metadata.notes)
    assert validate_trace(trace).ok


def test_marks_grow_with_the_ids_and_no_further() -> None:
    marks = _Marks()
    marks.add(pa.array([1, 70_000, None], pa.uint32()), 3)
    marks.add(pa.array([2, MAX_IDS + 5], pa.uint32()), 4)
    found = marks.since(pa.array([1, 2, 70_000, 4, MAX_IDS - 1, MAX_IDS + 7], pa.uint32()), 4)
    assert found.tolist() == [False, True, False, False, False, True]
    assert marks.since(pa.array([70_000], pa.uint32()), 3).tolist() == [True]
    assert len(marks._last) == MAX_IDS
