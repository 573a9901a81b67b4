"""Streams with stacks, cgroups and shed load, from frames to tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from collectors.layout import STACK, rings_for
from collectors.protocol import FrameType
from tests.capture_streams import TASK, Stream, hello
from tracereplay.errors import CollectorError
from tracereplay.trace import frames
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.recording import Recording
from tracereplay.trace.stacks import folded_stacks
from tracereplay.trace.writer import TraceWriter

PAGE, BIO = rings_for(stacks=True)[:2]
NAMES = {
    "symbols": {
        "16": ["__traceiter_mm_page_alloc", 1, ""],
        "32": ["alloc_pages_mpol", 2, ""],
        "48": ["crypt_alloc_buffer", 3, "dm_crypt"],
    },
    "note": "",
}


def recorded(stream: Stream, folder: Path) -> Trace:
    recording = Recording(TraceWriter(folder / "trace", TraceMetadata(source={"kind": "capture"})))
    fd = stream.open(folder)
    try:
        summary = recording.run(frames.read_packets(fd))
    finally:
        os.close(fd)
    assert summary.lost == Trace.open(summary.path).loss_summary()["lost"]
    return Trace.open(summary.path)


def rows(trace: Trace, table: str, *columns: str) -> list[tuple[Any, ...]]:
    frame = trace.table(table).select(*columns).collect()
    words = [c for c in frame.columns if isinstance(frame.schema[c], pl.Categorical | pl.Enum)]
    return frame.with_columns(pl.col(words).cast(pl.String)).rows()


def stream(**sampling: Any) -> Stream:
    return Stream(hello(stacks=True, sampling={"stack_sample": 1, **sampling})).started()


def test_events_name_their_stacks_and_stacks_their_functions(tmp_path: Path) -> None:
    s = stream()
    s.batch(
        PAGE,
        1,
        s.one(PAGE, 1, "alloc", ts=1010, pfn=7, stack=1 << 63),
        s.one(PAGE, 1, "alloc", ts=1020, pfn=8),
        s.one(PAGE, 1, "free", ts=1030, pfn=7),
        s.one(PAGE, 1, "alloc", ts=1040, pfn=7, stack=5),
    )
    s.batch(BIO, 0, s.one(BIO, 0, "queue", ts=1015, sector=8, rwbs=b"W", stack=1 << 63))
    s.batch(STACK, 1, s.one(STACK, 1, "alloc", ts=1009, hash=1 << 63, depth=3, frames=[16, 32, 48]))
    s.json(FrameType.SYMBOLS, NAMES)
    trace = recorded(s.close(), tmp_path)
    assert rows(trace, "page_events", "pfn", "stack_id") == [(7, 0), (8, None), (7, None), (7, 1)]
    assert rows(trace, "bio_events", "stack_id") == [(0,)]
    assert rows(trace, "stacks", "stack_id", "depth", "address", "symbol", "offset", "module") == [
        (0, 0, 32, "alloc_pages_mpol", 2, None),
        (0, 1, 48, "crypt_alloc_buffer", 3, "dm_crypt"),
        (1, 0, None, None, None, None),
    ]
    assert folded_stacks(trace.stacks).collect().rows() == [(0, "crypt_alloc_buffer;alloc_pages_mpol"), (1, "[lost]")]
    assert any("1 of 2 stacks came without their frames" in note for note in trace.metadata.notes)


def test_lost_and_failed_stacks_are_told_apart_from_events(tmp_path: Path) -> None:
    s = stream()
    s.batch(PAGE, 0, s.one(PAGE, 0, "alloc", ts=1010, pfn=7, stack=9))
    s.skip(STACK, 0, 2)
    s.batch(STACK, 0, s.one(STACK, 0, "alloc", ts=1020, hash=9, depth=1, frames=[32], flags=0x40))
    counters = s.counters()
    next(iter(counters["page"]["0"].values()))["stack_errors"] = 3
    trace = recorded(s.close(counters=counters), tmp_path)
    assert rows(trace, "loss", "table", "cpu", "n", "class") == [
        ("stacks", 0, 2, "stack"),
        ("stacks", 0, 3, "stack"),
    ]
    assert trace.loss_summary() == {"lost": 0, "intervals": 2, "by_class": {"stack": 5}}
    assert trace.metadata.loss["by_class"] == {"stack": 5}


def test_names_that_cannot_be_had_are_noted(tmp_path: Path) -> None:
    s = stream()
    s.batch(PAGE, 0, s.one(PAGE, 0, "alloc", ts=1010, pfn=7, stack=9))
    s.batch(STACK, 0, s.one(STACK, 0, "alloc", ts=1005, hash=9, depth=2, frames=[32, 48]))
    s.json(FrameType.SYMBOLS, {"symbols": {}, "note": "kptr_restrict"})
    trace = recorded(s.close(), tmp_path)
    assert rows(trace, "stacks", "address", "symbol") == [(32, None), (48, None)]
    assert "symbols: kptr_restrict" in trace.metadata.notes


def test_damaged_symbols_end_the_recording(tmp_path: Path) -> None:
    s = stream().json(FrameType.SYMBOLS, {"symbols": {"x": 1}}).close()
    with pytest.raises(CollectorError, match="symbols are damaged"):
        recorded(s, tmp_path)


def test_tasks_have_the_path_of_their_cgroup(tmp_path: Path) -> None:
    s = stream()
    s.batch(
        TASK,
        0,
        s.one(TASK, 0, ts=1010, pid=42, tgid=40, comm=b"db", cgroup=7),
        s.one(TASK, 0, ts=1020, pid=42, tgid=40, comm=b"db", cgroup=7),
        s.one(TASK, 0, ts=1030, pid=42, tgid=40, comm=b"db", cgroup=8),
        s.one(TASK, 0, ts=1040, pid=43, tgid=40, comm=b"db", cgroup=0),
    )
    s.json(FrameType.CGROUPS, {"7": "/system.slice/db.service"})
    trace = recorded(s.close(), tmp_path)
    assert rows(trace, "tasks", "pid", "cgroup", "first_ns", "last_ns")[1:] == [
        (42, "/system.slice/db.service", 1010, 1030),
        (42, "id:8", 1030, None),
        (43, None, 1040, None),
    ]


def shed(at: int, stage: int, stacks: int, sample: int) -> dict[str, Any]:
    return {
        "event": "shed",
        "t_ns": at,
        "stage": stage,
        "stacks": stacks,
        "sample": sample,
        "reason": "overhead",
        "overhead": 0.5,
        "rate": 1e6,
    }


def test_shed_intervals_meet_and_end_with_stage_nought(tmp_path: Path) -> None:
    s = stream()
    s.batch(PAGE, 0, s.one(PAGE, 0, "alloc", ts=1010, pfn=7))
    for change in (shed(2000, 1, 16, 1), shed(3000, 4, 0, 4), shed(5000, 0, 1, 1), shed(7000, 1, 16, 1)):
        s.json(FrameType.STATUS, change)
    trace = recorded(s.close(), tmp_path)
    assert rows(trace, "shed", "t0_ns", "t1_ns", "stacks", "sample", "reason", "overhead", "rate") == [
        (2000, 3000, 16, 1, "overhead", 0.5, 1e6),
        (3000, 5000, 0, 4, "overhead", 0.5, 1e6),
        (7000, None, 16, 1, "overhead", 0.5, 1e6),
    ]
