"""A whole stream into a trace: rows, tasks, loss, metadata; and what is left when a stream breaks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from collectors.protocol import FrameType
from tests.capture_streams import BIO, PAGE, TASK, Stream, hello
from tracereplay.errors import (
    BccUnavailableError,
    CaptureError,
    CollectorError,
    PrivilegeError,
    ProbeUnavailableError,
    UsageError,
)
from tracereplay.kernel.constants import NO_PFN, dev_number
from tracereplay.trace import frames
from tracereplay.trace.accounts import named_error
from tracereplay.trace.capture import CaptureOptions
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.recording import CaptureSummary, Recording
from tracereplay.trace.validate import validate_trace
from tracereplay.trace.writer import TraceWriter

BUDDYINFO = "Node 0, zone   Normal      1      2      3      0      0      0      0      0      0      0      4\n"


def record_stream(stream: Stream, folder: Path) -> CaptureSummary:
    """Into folder/trace; an error leaves what ``capture`` would leave."""
    recording = Recording(TraceWriter(folder / "trace", TraceMetadata(source={"kind": "capture"})))
    fd = stream.open(folder)
    try:
        return recording.run(frames.read_packets(fd))
    except BaseException:
        recording.give_up()
        raise
    finally:
        os.close(fd)


def rows(trace: Trace, table: str, *columns: str) -> list[tuple[Any, ...]]:
    frame = trace.table(table).select(*columns or "*").collect()
    words = [c for c in frame.columns if isinstance(frame.schema[c], pl.Categorical | pl.Enum)]
    return frame.with_columns(pl.col(words).cast(pl.String)).rows()


def page_stream() -> Stream:
    s = Stream().json(FrameType.SNAPSHOT, {"phase": "start", "files": {"buddyinfo": BUDDYINFO}, "errors": {}}).started()
    s.batch(
        PAGE,
        1,
        s.one(PAGE, 1, "alloc", ts=1001, pfn=7, gfp=0xCC0, pid=42, order=2, migratetype=1),
        s.one(PAGE, 1, "zone_locked", ts=1005, pfn=9, pid=42, order=0, migratetype=2, flags=1),
        s.one(PAGE, 1, "extfrag", ts=1006, pfn=64, pid=42, order=1, gfp=0x1_02_09, migratetype=1),
    )
    s.batch(
        PAGE,
        0,
        s.one(PAGE, 0, "free", ts=1003, pfn=7, pid=43, order=2),
        s.one(PAGE, 0, "free_nested", ts=1004, pfn=8, pid=43),
        s.one(PAGE, 0, "alloc", ts=1007, pfn=NO_PFN, gfp=0x820, pid=43, order=9),
    )
    return s.watermark(2000)


def test_page_records_become_rows_in_time_order(tmp_path: Path) -> None:
    summary = record_stream(page_stream().close(), tmp_path)
    trace = Trace.open(summary.path)
    assert rows(trace, "page_events", "ts_ns", "cpu", "kind", "pfn", "order", "gfp", "migratetype", "pid") == [
        (1001, 1, "alloc", 7, 2, 0xCC0, 1, 42),
        (1003, 0, "free", 7, 2, None, None, 43),
        (1004, 0, "free", 8, 0, None, None, 43),
        (1005, 1, "zone_locked", 9, 0, None, 2, 42),
        (1006, 1, "extfrag", 64, None, None, 1, 42),
        (1007, 0, "alloc_failed", None, 9, 0x820, 0, 43),
    ]
    only = ("percpu_refill", "alloc_order", "fallback_order", "fallback_migratetype", "change_ownership")
    assert rows(trace, "page_events", *only)[3:5] == [(True, None, None, None, None), (None, 1, 9, 2, True)]
    assert set(rows(trace, "page_events", *only)[:3]) == {(None,) * 5}
    assert summary.events == {"page_events": 6, "bio_events": 0}
    assert summary.lost == 0
    assert summary.bytes_on_disk > 0


def test_the_bundle_says_where_it_comes_from_and_validates(tmp_path: Path) -> None:
    trace = Trace.open(record_stream(page_stream().close(), tmp_path).path)
    assert trace.complete
    assert validate_trace(trace).ok
    metadata = trace.metadata
    assert metadata.host["release"] == "6.18.0"
    assert metadata.clock == {"name": "monotonic", "resolution_ns": 1, "triples": [[1, 2, 3], [4, 5, 6]]}
    assert metadata.events[:2] == ["kmem:mm_page_alloc", "kmem:mm_page_free"]
    assert len(metadata.events) == len(set(metadata.events))
    assert "task:task_rename" not in metadata.events
    assert metadata.source["taps"]["kmem:mm_page_alloc"] == "raw"
    assert rows(trace, "snapshots", "phase", "source", "order", "value")[0] == ("start", "buddyinfo", 0, 1)


def test_bio_records_carry_only_what_their_event_has(tmp_path: Path) -> None:
    s = Stream().started()
    dev, disk = dev_number(254, 1), dev_number(254, 0)
    common = {"dev": dev, "pid": 5, "rwbs": b"WS"}
    s.batch(
        BIO,
        0,
        s.one(BIO, 0, "queue", ts=1, sector=8, nr_sectors=16, **common),
        # The kernel leaves behind the text's NUL what an earlier event had there.
        s.one(BIO, 0, "split", ts=2, sector=8, other_sector=12, **{**common, "rwbs": b"WS\0\0 fio"}),
        s.one(BIO, 0, "remap", ts=3, sector=2056, nr_sectors=4, old_dev=dev, other_sector=8, **{**common, "dev": disk}),
        s.one(BIO, 0, "issue", ts=4, sector=2056, nr_sectors=4, nr_bytes=2048, **{**common, "rwbs": b"FWFSM"}),
        s.one(BIO, 0, "complete", ts=5, sector=2056, nr_sectors=4, error=-5, **common),
    ).watermark(10)
    trace = Trace.open(record_stream(s.close(), tmp_path).path)
    columns = (
        "kind",
        "sector",
        "nr_sectors",
        "nr_bytes",
        "op",
        "flags",
        "error",
        "old_dev",
        "old_sector",
        "new_sector",
    )
    assert rows(trace, "bio_events", *columns) == [
        ("queue", 8, 16, None, "W", "WS", None, None, None, None),
        ("split", 8, None, None, "W", "WS", None, None, None, 12),
        ("remap", 2056, 4, None, "W", "WS", None, dev, 8, None),
        ("issue", 2056, 4, 2048, "W", "FWFSM", None, None, None, None),
        ("complete", 2056, 4, None, "W", "WS", -5, None, None, None),
    ]


def test_tasks_are_intervals_of_names(tmp_path: Path) -> None:
    s = Stream().started()
    s.batch(
        TASK,
        0,
        s.one(TASK, 0, "alloc", ts=10, pid=7, tgid=7, comm=b"sh"),
        s.one(TASK, 0, "rename", ts=20, pid=7, tgid=7, comm=b"make"),
        s.one(TASK, 0, "alloc", ts=21, pid=7, tgid=7, comm=b"make"),
        s.one(TASK, 0, "free", ts=30, pid=8, tgid=7, comm=b"w\xc3\xb6rker"),
        s.one(TASK, 0, "rename", ts=35, pid=9, tgid=0, comm=b"named"),
    ).watermark(40)
    trace = Trace.open(record_stream(s.close(), tmp_path).path)
    assert rows(trace, "tasks", "pid", "tgid", "comm", "first_ns", "last_ns") == [
        (0, 0, "swapper", None, None),
        (7, 7, "sh", 10, 20),
        (7, 7, "make", 20, None),
        (8, 7, "wörker", 30, None),
        (9, None, "named", 35, None),
    ]


def test_losses_of_every_kind_add_up_to_the_kernels_count(tmp_path: Path) -> None:
    s = Stream().started()
    first = s.one(PAGE, 0, "alloc", ts=1001)
    s.skip(PAGE, 0, 5)
    second = s.one(PAGE, 0, "alloc", ts=1009, flags=0x40)
    s.batch(PAGE, 0, first, second).watermark(2000)
    s.skip(PAGE, 1, 3, kind="free", why="no_ring")
    s.skip(BIO, 0, 2, kind="queue", why="lock")
    programs = {"block:block_rq_complete": {"tap": "tracepoint", "recursion_misses": 4, "nested": 0, "lost": 4}}
    summary = record_stream(s.close(programs=programs), tmp_path)
    trace = Trace.open(summary.path)
    assert rows(trace, "loss", "table", "cpu", "t0_ns", "t1_ns", "n", "class") == [
        ("page_events", 0, 1001, 1009, 5, "ring_full"),
        ("page_events", 1, None, 9000, 3, "unknown"),
        ("bio_events", 0, None, 9000, 2, "ring_lock"),
        ("bio_events", None, 1000, 9000, 4, "recursion"),
    ]
    assert trace.metadata.loss == {"by_class": {"ring_full": 5, "unknown": 3, "ring_lock": 2, "recursion": 4}}
    assert summary.lost == 14
    assert trace.loss_summary()["lost"] == 14


def test_recursion_is_told_by_the_second_and_its_sum_is_the_kernels(tmp_path: Path) -> None:
    def facts(lost: int, bulk: int) -> dict[str, dict[str, object]]:
        return {
            "kmem:mm_page_free": {"tap": "raw", "recursion_misses": lost, "nested": 0, "lost": lost},
            "kprobe:__alloc_pages_bulk": {"tap": "kprobe", "recursion_misses": 0, "nested": 0, "lost": bulk},
        }

    s = Stream().started(1000)
    s.batch(PAGE, 0, s.one(PAGE, 0, "alloc", ts=1001)).watermark(2000)
    for at, lost in ((3000, 2), (4000, 2), (5000, 1), (6000, 5)):  # a look may be behind the one before
        s.json(FrameType.STATUS, {"event": "tick", "programs": facts(lost, 1), "cost": {}}, mono_ns=at)
    trace = Trace.open(record_stream(s.close(9000, programs=facts(6, 0)), tmp_path).path)
    assert rows(trace, "loss", "table", "cpu", "t0_ns", "t1_ns", "n", "class") == [
        ("page_events", None, 1000, 3000, 2, "recursion"),
        ("page_events", None, 5000, 6000, 3, "recursion"),
        ("page_events", None, 6000, 9000, 1, "recursion"),
    ]
    assert trace.metadata.loss == {"by_class": {"recursion": 6}}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("PrivilegeError", PrivilegeError),
        ("BccUnavailableError", BccUnavailableError),
        ("ProbeUnavailableError", ProbeUnavailableError),
        ("CollectorError", CollectorError),
        ("SystemExit", CollectorError),
        ("UsageError", CollectorError),
        ("nearest", CollectorError),
    ],
)
def test_an_error_frame_becomes_the_error_it_names(name: str, kind: type[CaptureError], tmp_path: Path) -> None:
    s = Stream().json(FrameType.ERROR, {"error": name, "message": "no", "hint": "do"})
    with pytest.raises(CaptureError) as caught:
        record_stream(s, tmp_path)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == ("no", "do", 4)
    assert not (tmp_path / "trace").exists()
    assert named_error({}).hint is None


def test_a_stream_that_breaks_keeps_what_came_and_says_incomplete(tmp_path: Path) -> None:
    with pytest.raises(CollectorError, match="without its closing frame"):
        record_stream(page_stream(), tmp_path)
    trace = Trace.open(tmp_path / "trace")
    assert not trace.complete
    assert trace.rows("page_events") == 6
    assert trace.metadata.host["release"] == "6.18.0"


def test_a_stream_that_breaks_before_any_event_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CollectorError):
        record_stream(Stream().started(), tmp_path)
    assert not (tmp_path / "trace").exists()


def damaged() -> dict[str, Stream]:
    odd = Stream().started()
    odd.batch(PAGE, 0, odd.one(PAGE, 0, "queue", ts=1)).watermark(9)
    nameless = hello()
    del nameless["host"]
    other = hello()
    other["rings"][0]["fields"][2]["offset"] = 40
    return {
        "record of a probe that is not the table's": odd.close(),
        "hello without host": Stream(nameless).close(),
        "fields moved apart": Stream(other).close(),
        "closing without clock": page_stream().json(
            FrameType.CLOSING, {"started_ns": 1, "stopped_ns": 2, "counters": {}}
        ),
        "counters of another form": page_stream().close(counters={"page": {"x": {}}}),
    }


@pytest.mark.parametrize("case", damaged())
def test_frames_that_make_no_sense_are_named(case: str, tmp_path: Path) -> None:
    with pytest.raises(CollectorError):
        record_stream(damaged()[case], tmp_path)
    assert not (tmp_path / "trace").exists() or not Trace.open(tmp_path / "trace").complete


def test_a_snapshot_that_cannot_be_read_is_noted(tmp_path: Path) -> None:
    files = {"buddyinfo": "nonsense"}
    s = page_stream().json(FrameType.SNAPSHOT, {"phase": "end", "files": files, "errors": {"vmstat": "denied"}})
    trace = Trace.open(record_stream(s.close(), tmp_path).path)
    assert "snapshot end: vmstat not read: denied" in trace.metadata.notes
    assert any("buddyinfo" in note for note in trace.metadata.notes)


def test_missing_probes_and_refused_cpus_are_noted(tmp_path: Path) -> None:
    s = Stream(hello(missing={"block:block_split": "the kernel has no tracepoint block:block_split"})).started()
    s.batch(PAGE, 0, s.one(PAGE, 0, ts=1)).watermark(2)
    summary = record_stream(s.close(refused_cpus={"5": "no memory"}), tmp_path)
    assert summary.missing == {"block:block_split": "the kernel has no tracepoint block:block_split"}
    notes = " ".join(Trace.open(summary.path).metadata.notes)
    assert "no tracepoint block:block_split" in notes
    assert "CPU 5" in notes


@pytest.mark.parametrize(
    "options", [{"groups": ("pages",)}, {"groups": ()}, {"duration_s": 0.0}, {"ring_mib": 0.0}, {"ring_mib": 1e9}]
)
def test_options_that_make_no_sense_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CaptureOptions(**options)


def test_what_two_taps_recorded_or_nobody_counts_is_noted(tmp_path: Path) -> None:
    s = page_stream()
    programs = {
        "kmem:mm_page_free": {"tap": "raw", "recursion_misses": 3, "nested": 5, "lost": 0},
        "block:block_split": {"tap": "tracepoint", "recursion_misses": None, "nested": 0, "lost": None},
    }
    trace = Trace.open(record_stream(s.close(programs=programs), tmp_path).path)
    assert "2 events inside other programs may be recorded twice" in trace.metadata.notes
    assert any("not counted here: block:block_split" in note for note in trace.metadata.notes)
    assert trace.rows("loss") == 0
