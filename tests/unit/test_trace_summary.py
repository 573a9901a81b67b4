"""The summary behind `info`, and the facts read out of snapshots."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.trace_samples import metadata, rows_batch, snapshot, write_sample
from tracereplay import Trace, TraceWriter
from tracereplay.trace.snapshots import directmap_kib, vmstat, zones
from tracereplay.trace.summary import summarize


def test_summary_of_a_sample(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    trace = Trace.open(path)
    summary = summarize(trace)
    frame = trace.page_events.collect()
    assert {k.kind: k.events for k in summary.kinds if k.table == "page_events"} == {
        kind: frame.filter(frame["kind"] == kind).height for kind in ("alloc", "free")
    }
    allocs = frame.filter(frame["kind"] == "alloc")
    assert next(k.pages for k in summary.kinds if k.kind == "alloc") == sum(1 << o for o in allocs["order"])
    assert next(k.pages for k in summary.kinds if k.kind == "queue") is None
    start, end = min(10, frame["ts_ns"].min()), max(20, frame["ts_ns"].max())  # type: ignore[type-var]
    assert (summary.start_ns, summary.end_ns) == (start, end)
    for kind in summary.kinds:
        assert kind.per_second == pytest.approx(kind.events / summary.duration_s)
    table = next(t for t in summary.tables if t.name == "page_events")
    assert (table.rows, table.files, table.damaged) == (1000, 2, [])
    assert table.bytes == sum(p.stat().st_size for p in (path / "page_events").iterdir())
    assert table.bytes_per_row == table.bytes / 1000
    assert summary.loss == {"lost": 3, "intervals": 1, "by_class": {"ring_full": 3}}
    assert summary.snapshots == ["start"]
    assert summary.bulk is None
    assert summary.notes == []
    json.dumps(summary.to_json(), allow_nan=False)


def test_zones_of_6_1(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("snapshots", snapshot("6.1", 1, "start"))
    trace = Trace.open(tmp_path / "t")
    dma, dma32 = zones(trace)  # Normal, Movable and Device have no pages
    assert (dma.zone, dma.managed, dma.start_pfn, dma.free) == ("DMA", 3840, 1, 3776)
    assert (dma32.min, dma32.low, dma32.high) == (11177, 13971, 16765)
    assert dma32.pcp_count == {0: 2411, 1: 3489}
    assert dma32.pcp_high == {0: 6985, 1: 6985}
    assert dma32.pcp_batch == {0: 63, 1: 63}
    assert dma32.free_blocks == [2, 3, 2, 0, 2, 1, 1, 2, 1, 1, 398]
    assert directmap_kib(trace)["DirectMap2M"] == 2062336
    assert zones(trace, "end") == []
    assert vmstat(trace, "end") == {}


def test_first_start_and_last_end_snapshot_count(tmp_path: Path) -> None:
    row = {"source": "vmstat", "name": "pgfree"}
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        for phase, ts, value in [("start", 5, 1), ("start", 9, 2), ("end", 20, 3), ("end", 30, 4)]:
            batch = rows_batch("snapshots", [{**row, "phase": phase, "ts_ns": ts, "value": value}])
            writer.write("snapshots", batch)
    trace = Trace.open(tmp_path / "t")
    assert vmstat(trace, "start") == {"pgfree": 1}
    assert vmstat(trace, "end") == {"pgfree": 4}


def test_the_first_tick_stands_for_a_start_that_is_gone(tmp_path: Path) -> None:
    row = {"source": "vmstat", "name": "pgfree"}
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        for phase, ts, value in [("tick", 5, 1), ("tick", 9, 2), ("end", 20, 3)]:
            writer.write("snapshots", rows_batch("snapshots", [{**row, "phase": phase, "ts_ns": ts, "value": value}]))
    assert vmstat(Trace.open(tmp_path / "t"), "start") == {"pgfree": 1}


def grown(batch: pa.RecordBatch, name: str, by: int) -> pa.RecordBatch:
    """A snapshot in which one counter is larger."""
    hit = pc.equal(batch.column("name").cast(pa.string()), name)
    value = pc.add(batch.column("value"), pc.if_else(hit, by, 0))
    return batch.set_column(batch.schema.get_field_index("value"), "value", value)


def test_bulk_estimate_is_the_unexplained_part_of_pgalloc(tmp_path: Path) -> None:
    event = {"cpu": 0, "kind": "alloc", "pfn": 1, "gfp": 0}
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("snapshots", snapshot("6.12", 0, "start"))
        rows = [{**event, "ts_ns": t, "order": o} for t, o in [(1, 0), (2, 3), (3, 0)]]
        rows.append({"ts_ns": 4, "cpu": 0, "kind": "free", "pfn": 1, "order": 3})
        writer.write("page_events", rows_batch("page_events", rows))
        after = grown(grown(snapshot("6.12", 9, "end"), "pgalloc_dma32", 110), "pgfree", 5000)
        writer.write("snapshots", after)
    bulk = summarize(Trace.open(tmp_path / "t")).bulk
    assert bulk is not None
    assert (bulk.pgalloc_delta, bulk.traced_pages, bulk.unseen_pages) == (110, 10, 100)
    # The snapshots are 9 ns apart, the events span 3 ns: twice the traced pages may lie outside them.
    assert bulk.outside_pages == 20
    assert bulk.remarks == []


def test_damage_is_named_and_the_rest_summed(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    part = path / "page_events" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    loss = path / "loss" / "part-000000.parquet"
    loss.write_bytes(b"PAR1")
    summary = summarize(Trace.open(path))
    assert sum(k.events for k in summary.kinds if k.table == "page_events") == 500
    assert summary.loss is None
    assert len(summary.notes) == 2
    assert "page_events/part-000001.parquet" in summary.notes[0]


def test_incomplete_trace_says_so(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t", metadata())
    writer.write("tasks", rows_batch("tasks", [{"pid": 1}]))
    writer.abort()
    assert summarize(Trace.open(tmp_path / "t")).notes == [
        "capture did not finish; events that were not yet on disk are lost"
    ]
