"""Calls of the bulk allocator, from records to rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from collectors.bulkprobe import BulkProbe
from collectors.cbulk import FLAG_NO_ENTRY, KPROBE, Target
from collectors.kernel import describe_lanes, describe_rings
from collectors.layout import PAGE, Ring
from collectors.programs import Plan, lanes_of
from collectors.protocol import FrameType
from collectors.tracepoints import PROBES, parse_format
from tests.capture_streams import Stream, hello, record
from tests.kernel_formats import formats
from tracereplay.errors import CollectorError
from tracereplay.trace import bulk_batches
from tracereplay.trace.bulk_batches import merged
from tracereplay.trace.frames import read_packets
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.recording import Recording
from tracereplay.trace.summary import summarize
from tracereplay.trace.validate import validate_trace
from tracereplay.trace.writer import TraceWriter

CALLER = 0xFFFFFFFF81234567


class BulkStream(Stream):
    """A stream of a host that shows its bulk allocator."""

    def __init__(self) -> None:
        probe = BulkProbe(KPROBE, Target("__alloc_pages_bulk"), "x86_64")
        parsed = {event: parse_format(text) for event, text in formats("6.1").items()}
        self.plan = Plan(lanes_of(PROBES, raw=True, bulk=probe), parsed, bulk=probe)
        super().__init__(
            hello(
                rings=describe_rings(self.plan, [1 << 20] * len(self.plan.rings)),
                probes=describe_lanes(self.plan, {}),
                groups=["page", "bulk"],
            )
        )
        self.calls = 0

    @property
    def ring(self) -> Ring:
        return self.plan.ring("bulk")

    def call(self, **values: Any) -> bytes:
        """The next record of a call."""
        self.calls += 1
        kind = len(self.plan.lanes) - 1
        return record(self.ring, seq=self.calls - 1, kind=kind, **values)

    def end(self, *, counted: int | None = None, programs: dict[str, Any] | None = None) -> Stream:
        """Symbols and the closing frame. ``counted``: calls that the kernel numbered."""
        self.json(FrameType.SYMBOLS, {"symbols": {str(CALLER): ["__vmalloc_node_range", 0x1C7, ""]}, "note": ""})
        counters = self.counters()
        seq = self.calls if counted is None else counted
        lane = str(len(self.plan.lanes) - 1)
        counters["bulk"] = {"0": {lane: {"seq": seq, "full": seq - self.calls, "lock": 0, "no_ring": 0}}}
        return self.close(counters=counters, programs=programs or {})


def record_stream(s: Stream, folder: Path) -> Trace:
    """The trace of a stream."""
    fd = s.open(folder)
    try:
        with TraceWriter(folder / "trace", TraceMetadata()) as writer:
            return Trace.open(Recording(writer).run(read_packets(fd)).path)
    finally:
        os.close(fd)


def test_a_row_says_what_was_asked_and_given_and_by_whom(tmp_path: Path) -> None:
    s = BulkStream()
    s.started()
    s.batch(
        s.ring,
        0,
        s.call(ts=2000, caller=CALLER, requested=100, returned=100, gfp=0xCC2, pid=42),
        s.call(ts=3000, caller=0, requested=5, returned=1, gfp=0x400CC0, pid=43),
        s.call(ts=4000, caller=CALLER, returned=64, pid=42, flags=FLAG_NO_ENTRY),
    ).watermark(5000)
    trace = record_stream(s.end(), tmp_path)
    found = trace.page_events.collect().to_dicts()
    keys = ("ts_ns", "cpu", "kind", "pfn", "order", "gfp", "pid", "requested", "returned", "migratetype")
    assert [tuple(row[k] for k in keys) for row in found] == [
        (2000, 0, "bulk", None, None, 0xCC2, 42, 100, 100, None),
        (3000, 0, "bulk", None, None, 0x400CC0, 43, 5, 1, None),
        (4000, 0, "bulk", None, None, None, 42, None, 64, None),
    ]
    assert [row["stack_id"] for row in found] == [0, None, 0]
    assert trace.table("stacks").collect().select("stack_id", "depth", "symbol").rows() == [
        (0, 0, "__vmalloc_node_range")
    ]
    assert "kprobe:__alloc_pages_bulk" in trace.metadata.events
    assert [(k.kind, k.events, k.pages) for k in summarize(trace).kinds] == [("bulk", 3, 165)]
    assert validate_trace(trace).ok


def test_calls_lie_among_the_other_rows_by_time(tmp_path: Path) -> None:
    s = BulkStream()
    s.started()
    s.batch(PAGE, 0, *(s.one(PAGE, 0, ts=1000 + 10 * i, pfn=i) for i in range(10)))
    s.batch(PAGE, 1, *(s.one(PAGE, 1, "free", ts=1005 + 10 * i, pfn=i) for i in range(10)))
    times = (900, 1003, 1003, 1005, 1060, 2000)
    s.batch(s.ring, 0, *(s.call(ts=t, requested=2, returned=2) for t in times)).watermark(1500)
    s.batch(PAGE, 0, s.one(PAGE, 0, ts=2000, pfn=77)).watermark(3000)
    trace = record_stream(s.end(), tmp_path)
    rows = trace.page_events.collect().select("ts_ns", "kind", "pfn").rows()
    assert len(rows) == 27
    assert [r[0] for r in rows] == sorted(r[0] for r in rows)
    assert [r[0] for r in rows if r[1] == "bulk"] == list(times)
    assert {r[2] for r in rows if r[1] == "alloc"} == {*range(10), 77}
    assert rows[0][1] == "bulk"
    assert validate_trace(trace).ok


def test_a_gap_among_the_calls_is_a_loss_of_page_events(tmp_path: Path) -> None:
    s = BulkStream()
    s.started()
    first = s.call(ts=2000, requested=2, returned=2)
    s.calls += 3
    s.batch(s.ring, 0, first, s.call(ts=2500, requested=2, returned=2, flags=0x40)).watermark(5000)
    s.calls -= 3
    trace = record_stream(s.end(counted=5), tmp_path)
    assert trace.table("loss").collect().select("table", "cpu", "t0_ns", "t1_ns", "n", "class").rows() == [
        ("page_events", 0, 2000, 2500, 3, "ring_full")
    ]


def test_missed_returns_are_told(tmp_path: Path) -> None:
    s = BulkStream()
    s.started()
    s.batch(s.ring, 0, s.call(ts=2000, requested=2, returned=2)).watermark(5000)
    facts = {"tap": "kprobe", "recursion_misses": 0, "nested": 0, "lost": 2}
    reclaim = {"tap": "tracepoint", "recursion_misses": 1, "nested": 0, "lost": 1}
    programs = {"kprobe:__alloc_pages_bulk": facts, "vmscan:mm_vmscan_direct_reclaim_end": reclaim}
    trace = record_stream(s.end(programs=programs), tmp_path)
    rows = trace.table("loss").collect().select("table", "n", "class").rows()
    assert sorted(rows) == [("mm_events", 1, "recursion"), ("page_events", 2, "recursion")]


def batch(times: list[int], **more: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"ts_ns": pa.array(times, pa.int64()), **more})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [], [1, 2, 3]),
        ([], [5, 6], [-5, -6]),
        ([2, 4], [1, 2, 2, 3, 5], [-1, 2, -2, -2, -3, 4, -5]),
        ([1, 1, 1], [1, 1], [1, 1, 1, -1, -1]),
    ],
)
def test_merging_keeps_time_order(first: list[int], second: list[int], expected: list[int]) -> None:
    a = batch(first, sign=pa.array([1] * len(first), pa.int8()), only=pa.array(first, pa.uint8()))
    b = batch(second, sign=pa.array([-1] * len(second), pa.int8()), other=pa.array(second, pa.uint8()))
    both = merged(a, b)
    rows = both.to_pylist()
    assert [r["ts_ns"] * r["sign"] for r in rows] == expected
    assert all((r["only"] is None) == (r["sign"] < 0) for r in rows)
    assert all((r["other"] is None) == (r["sign"] > 0) for r in rows)


def test_the_flag_is_the_collectors() -> None:
    assert bulk_batches.FLAG_NO_ENTRY == FLAG_NO_ENTRY


def test_a_call_of_an_unknown_program_is_refused(tmp_path: Path) -> None:
    s = BulkStream()
    s.started()
    s.batch(s.ring, 0, record(s.ring, ts=2000, kind=200, returned=1)).watermark(5000)
    with pytest.raises(CollectorError):
        record_stream(s.end(), tmp_path)
