"""The keeper within a recording: from a collector's stream to the reason of the end; and memory over weeks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from collectors.protocol import FrameType
from tests.capture_streams import PAGE, TASK, Stream
from tracereplay.errors import UsageError
from tracereplay.kernel.constants import NO_PFN
from tracereplay.trace import event_batches, frames
from tracereplay.trace.capture import CaptureOptions
from tracereplay.trace.event_batches import TaskTable
from tracereplay.trace.keeper import Bounds, Keeper
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.recording import CaptureSummary, Recording
from tracereplay.trace.triggers import Trigger
from tracereplay.trace.unseen import UnseenTally
from tracereplay.trace.validate import validate_trace
from tracereplay.trace.writer import TraceWriter

SECOND = 1_000_000_000
VMSTAT = "nr_free_pages 100\npgalloc_dma 0\npgalloc_normal {}\npgfree 5\n"


class Recorded:
    """A stream recorded under bounds."""

    def __init__(self, stream: Stream, folder: Path, bounds: Bounds) -> None:
        self.path = folder / "trace"
        self.asked = 0
        writer = TraceWriter(self.path, TraceMetadata(source={"kind": "capture"}))
        self.keeper = Keeper(writer, bounds, self.stop)
        self.recording = Recording(writer, keeper=self.keeper)
        self.summary: CaptureSummary | None = None
        fd = stream.open(folder)
        try:
            self.summary = self.recording.run(frames.read_packets(fd, flush_bytes=1))
        except Exception:
            self.recording.give_up()
        finally:
            os.close(fd)

    def stop(self) -> None:
        self.asked += 1


def ticking(seconds: int, *, failed_at: int | None = None) -> Stream:
    """A stream with an allocation, a new task, a snapshot and a status tick every second."""
    s = Stream().started(SECOND)
    for n in range(1, seconds + 1):
        at = n * SECOND
        s.json(FrameType.SNAPSHOT, {"phase": "start" if n == 1 else "tick", "files": {"vmstat": VMSTAT.format(n)}}, at)
        pfn = NO_PFN if n == failed_at else n
        s.batch(TASK, 0, s.one(TASK, 0, "rename", ts=at + 5, pid=n, tgid=n, comm=b"task"))
        s.batch(PAGE, 0, s.one(PAGE, 0, "alloc", ts=at + 10, pfn=pfn, pid=n, gfp=0xCC0))
        s.watermark(at + 20)
        s.json(FrameType.STATUS, {"event": "tick", "cost": {"cpu_seconds": 0.1}}, at + 30)
    return s


def test_a_trigger_in_the_stream_asks_for_the_end_and_names_it(tmp_path: Path) -> None:
    bounds = Bounds(triggers=(Trigger("alloc_failed"),), freeze_after_ns=2 * SECOND)
    done = Recorded(ticking(9, failed_at=5).close(10 * SECOND), tmp_path, bounds)
    assert done.asked == 1
    assert done.summary is not None
    assert done.summary.reason.startswith("alloc_failed at ")
    assert "4.000 s after the start" in done.summary.reason
    assert done.summary.events["page_events"] == 9  # the stream of this test goes on
    assert validate_trace(Trace.open(done.path)).ok


def test_the_summary_of_a_flight_recorder_is_about_what_it_kept(tmp_path: Path) -> None:
    done = Recorded(ticking(30).close(31 * SECOND), tmp_path, Bounds(window_ns=5 * SECOND))
    assert done.summary is not None
    trace = Trace.open(done.path)
    kept = trace.rows("page_events")
    assert done.summary.events["page_events"] == kept
    assert 5 <= kept <= 6
    assert trace.metadata.source["flight"]["dropped_events"] == 30 - kept
    assert done.summary.reason == "duration"
    pids = trace.page_events.select("pid").collect()["pid"].to_list()
    assert pids == list(range(31 - kept, 31))
    assert set(trace.tasks.collect()["pid"]) == {0, *pids}
    assert validate_trace(trace).ok
    # The state at the start, and what is reckoned from it, are of the window.
    start = trace.snapshots.filter(pl.col("phase").cast(pl.String) == "start").collect()
    assert start["ts_ns"].min() >= trace.metadata.source["flight"]["from_ns"]
    assert trace.metadata.unseen["t0_ns"] >= 24 * SECOND


def test_what_is_in_memory_is_written_when_files_are_closed(tmp_path: Path) -> None:
    """The collector dies; then as if the writer had died: what was on disk at that time."""
    stream = ticking(12)
    done = Recorded(stream, tmp_path, Bounds(rotate_ns=3 * SECOND))  # no closing frame
    trace = Trace.open(done.path)
    assert done.summary is None
    assert not trace.complete
    assert trace.rows("tasks") == 13
    assert validate_trace(trace).ok
    (only,) = trace.files["tasks"]
    assert int(only.path.stem[-6:]) >= 3  # written with each closing of files, and at the end


def test_tables_are_written_again_only_when_they_have_grown(tmp_path: Path) -> None:
    s = Stream().started(SECOND)
    s.batch(TASK, 0, *(s.one(TASK, 0, "rename", ts=SECOND + n, pid=n, tgid=n, comm=b"t") for n in range(1, 101)))
    for n in range(2, 30):
        at = n * SECOND
        s.batch(TASK, 0, s.one(TASK, 0, "rename", ts=at + 5, pid=1000 + n, tgid=n, comm=b"task"))
        s.batch(PAGE, 0, s.one(PAGE, 0, "alloc", ts=at + 10, pfn=n, pid=n, gfp=0xCC0)).watermark(at + 20)
        s.json(FrameType.STATUS, {"event": "tick", "cost": {"cpu_seconds": 0.1}}, at + 30)
    done = Recorded(s.close(40 * SECOND), tmp_path, Bounds(rotate_ns=SECOND))
    trace = Trace.open(done.path)
    assert trace.rows("tasks") == 129
    (only,) = trace.files["tasks"]
    assert 2 <= int(only.path.stem[-6:]) <= 5


# ---------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_on": ("extfrag=10",)}, "group 'buddy'"),
        ({"flight_s": 0.5}, "too short"),
        ({"max_bytes": 1000}, "holds nothing"),
        ({"rotate_s": 0.0}, "hold nothing"),
        ({"rotate_bytes": 0}, "hold nothing"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CaptureOptions(**options)


def test_options_become_bounds() -> None:
    options = CaptureOptions(
        groups=("page", "buddy"), flight_s=600, freeze_on=("extfrag=7",), freeze_after_s=3, max_bytes=1 << 30
    )
    bounds = options.bounds()
    assert bounds.window_ns == 600 * SECOND
    assert bounds.triggers == (Trigger("extfrag", 7),)
    assert bounds.aftermath_ns == 3 * SECOND
    assert bounds.max_bytes == 1 << 30
    assert CaptureOptions().bounds() == Bounds()
    # A trigger stays inside its own window.
    assert CaptureOptions(flight_s=4, freeze_on=("alloc_failed",)).bounds().aftermath_ns == 2 * SECOND


# ---------------------------------------------------------------- memory over weeks
def test_names_that_went_out_of_use_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_batches, "MOST_TASKS", 3)
    tasks = TaskTable()
    for pid in range(1, 6):
        tasks.rows.append([pid, pid, "old", 9, 10 * pid, 10 * pid + 5])
        tasks.rows.append([pid, pid, "new", 8, 10 * pid + 5, None])
        tasks._current[pid] = len(tasks.rows) - 1
    tasks.name_cgroups({"8": "/a", "9": "/b"})
    tasks.forget(35, lambda pids: [pid in (2, 4) for pid in pids])
    assert [(row[0], row[2]) for row in tasks.rows] == [(2, "new"), (4, "old"), (4, "new")]
    assert tasks._current == {2: 0, 4: 2}
    tasks.forget(100, lambda pids: pytest.fail("few tasks are all kept"))
    assert [(row[0], row[2]) for row in tasks.rows] == [(2, "new"), (4, "new")]
    assert set(tasks._cgroups) == {8}


def test_readings_and_losses_before_a_window_are_forgotten() -> None:
    tally = UnseenTally()
    for n in range(1, 11):
        tally.reading(n * SECOND, {"pgalloc_normal": n})
        tally.lost(n * SECOND, n * SECOND + 1000, 1)
        tally.lost(None, n * SECOND, 1)
    tally.forget(6 * SECOND + 5)
    assert [r.ts_ns // SECOND for r in tally._readings] == [6, 7, 8, 9, 10]
    assert sum(tally._lost_at.values()) == 5
    assert [t1 for _, t1, _ in tally._losses] == [n * SECOND for n in (7, 8, 9, 10)]
