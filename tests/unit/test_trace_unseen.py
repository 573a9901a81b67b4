"""The estimate of pages allocated without an event: what it is about, and when it cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.trace_samples import metadata, rows_batch
from tracereplay import Trace, TraceWriter
from tracereplay.trace.snapshots import (
    pageblock_order,
    snapshot_batch,
    snapshot_of,
    snapshot_rows,
    snapshot_times,
    vmstat,
    vmstat_readings,
    zones,
)
from tracereplay.trace.unseen import UnseenTally, unseen_of

MS = 1_000_000
PROCFS = Path(__file__).parents[1] / "data" / "procfs"


def reading(pages: int) -> dict[str, int]:
    """vmstat with so many pages allocated since boot."""
    return {"pgalloc_dma32": 1000, "pgalloc_normal": pages, "pgfree": pages // 2}


def allocations(*at: int, order: int = 0) -> pa.RecordBatch:
    """Allocations at these times, in the schema's types."""
    rows = [{"ts_ns": t, "kind": "alloc", "order": order} for t in at]
    batch = rows_batch("page_events", rows)
    kinds = pa.DictionaryArray.from_arrays(pa.array([0] * len(at), pa.int8()), pa.array(["alloc"]))
    return batch.set_column(batch.schema.get_field_index("kind"), "kind", kinds)


def tally(*readings: tuple[int, int], events: pa.RecordBatch | None = None) -> UnseenTally:
    """A tally with readings (time, pages), then events."""
    made = UnseenTally()
    for ts, pages in readings:
        made.reading(ts, reading(pages))
    if events is not None:
        made.events(events)
    return made


def test_readings_inside_the_recording_are_preferred_to_those_around_it() -> None:
    events = allocations(*range(100 * MS, 1100 * MS, MS))
    # 500 pages before the gate opened and 300 after it closed are nobody's business.
    found = tally((90 * MS, 0), (101 * MS, 501), (1099 * MS, 1599), (1150 * MS, 1900), events=events)
    result = found.result(started_ns=100 * MS, stopped_ns=1100 * MS)
    assert (result["t0_ns"], result["t1_ns"]) == (101 * MS, 1099 * MS)
    assert (result["traced_pages"], result["unseen_pages"], result["outside_pages"]) == (998, 100, 0)
    assert result["freed_difference"] == 1599 // 2 - 501 // 2


def test_without_ticks_the_time_outside_is_told() -> None:
    events = allocations(*range(100 * MS, 1100 * MS, MS))
    result = tally((0, 0), (1200 * MS, 1250), events=events).result(started_ns=100 * MS, stopped_ns=1100 * MS)
    assert (result["traced_pages"], result["unseen_pages"], result["outside_pages"]) == (1000, 250, 200)
    assert result["noise_pages"] >= 200


def test_readings_far_from_an_end_do_not_stand_for_it() -> None:
    """With a tick only in the middle, the snapshots around the recording are needed at both ends."""
    events = allocations(*range(100 * MS, 1100 * MS, MS))
    result = tally((90 * MS, 0), (600 * MS, 510), (1110 * MS, 1020), events=events).result(
        started_ns=100 * MS, stopped_ns=1100 * MS
    )
    assert (result["t0_ns"], result["t1_ns"], result["unseen_pages"]) == (90 * MS, 1110 * MS, 20)
    assert result["intervals"]["unseen"] == [10, 10]


def test_freed_pages_without_an_event_widen_the_noise() -> None:
    """Every free fires an event: those that vmstat counted beyond are of the time outside."""
    made = UnseenTally()
    made.reading(0, {"pgalloc_normal": 0, "pgfree": 0})
    made.reading(1000 * MS, {"pgalloc_normal": 5000, "pgfree": 700})
    made.events(allocations(*range(0, 1000 * MS, MS)))
    result = made.result(started_ns=0, stopped_ns=1000 * MS)
    assert (result["unseen_pages"], result["freed_difference"], result["outside_pages"]) == (4000, 700, 0)
    assert result["noise_pages"] == 700 + 2


def test_lost_events_are_shared_out_over_their_time() -> None:
    # Half of the recorded events are allocations of one page.
    rows = [{"ts_ns": t * MS, "kind": ("alloc", "free")[t % 2], "order": 0} for t in range(1000)]
    kinds = pa.DictionaryArray.from_arrays(
        pa.array([(0, 2)[t % 2] for t in range(1000)], pa.int8()), pa.array(["alloc", "alloc_failed", "free"])
    )
    events = rows_batch("page_events", rows)
    events = events.set_column(events.schema.get_field_index("kind"), "kind", kinds)
    made = tally((0, 0), (500 * MS, 350), (1000 * MS, 700), events=events)
    made.lost(100 * MS, 100 * MS + 1, 60)
    made.lost(400 * MS, 600 * MS, 80)
    made.lost(None, 1000 * MS, 20)
    result = made.result(started_ns=0, stopped_ns=1000 * MS)
    assert result["intervals"]["lost"] == [30 + 20 + 5, 20 + 5]
    assert result["intervals"]["unseen"] == [350 - 250 - 55, 350 - 250 - 25]
    assert result["unseen_pages"] == 700 - 500 - 80
    assert any("lost events" in r for r in result["remarks"])
    made.lost(5, 6, None)
    assert any("unknown number" in r for r in made.result(started_ns=0, stopped_ns=1000 * MS)["remarks"])


def test_intervals_in_which_events_were_sampled_are_left_out() -> None:
    events = allocations(*range(0, 1000 * MS, MS))
    made = tally((0, 0), (500 * MS, 510), (1000 * MS, 9000), events=events)
    result = made.result(started_ns=0, stopped_ns=1000 * MS, shed=[(600 * MS, None, 4)])
    assert (result["pgalloc_delta"], result["traced_pages"], result["unseen_pages"]) == (510, 500, 10)
    assert result["intervals"]["unseen"] == [10, None]
    assert "1 of 2 intervals left out: events were sampled on purpose" in result["remarks"]
    assert result["freed_difference"] is None
    # Fewer stacks are no fewer events.
    assert made.result(started_ns=0, stopped_ns=1000 * MS, shed=[(0, None, 1)])["remarks"] == []
    whole = made.result(started_ns=0, stopped_ns=1000 * MS, shed=[(0, None, 2)])
    assert (whole["unseen_pages"], whole["reason"]) == (None, "events were sampled on purpose throughout")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"filters": {"pid": [7]}}, "filters left page events out on purpose"),
        ({"filters": {"gfp": 0x100}}, "filters left page events out on purpose"),
        ({"events": ["block:block_bio_queue"]}, "kmem:mm_page_alloc was not recorded"),
    ],
)
def test_what_was_not_recorded_cannot_be_told_from_unseen(facts: dict[str, Any], reason: str) -> None:
    made = tally((0, 0), (9, 50), events=allocations(1, 2, 3))
    result = made.result(facts=facts)
    assert (result["unseen_pages"], result["reason"]) == (None, reason)
    assert made.result(facts={"filters": {"device": ["vda"]}})["unseen_pages"] == 47


def test_too_little_to_go_on_is_said() -> None:
    assert tally((0, 0), (9, 50)).result()["reason"] == "no page events"
    only = tally((5, 0), events=allocations(1, 2, 3))
    assert only.result()["reason"] == "no two readings of vmstat around the events"
    made = UnseenTally()
    made.reading(None, reading(1))
    made.reading(3, {"pgfree": 5})
    made.events(allocations(4))
    assert made.result()["unseen_pages"] is None


def test_a_reading_that_comes_after_younger_events_is_left_out() -> None:
    made = tally((0, 0), events=allocations(1, 2, 30))
    made.reading(20, reading(50))
    made.reading(40, reading(13))
    result = made.result()
    assert (result["unseen_pages"], result["intervals"]["t1_ns"]) == (10, [40])
    assert result["remarks"] == ["1 readings came out of order and were left out"]


def test_kernels_that_count_page_list_hits_as_one_page_are_named() -> None:
    made = tally((0, 0), (9, 50), events=allocations(1, 2, 3))
    assert made.result(facts={"release": "5.10.0-8-amd64"})["remarks"] == []
    assert len(made.result(facts={"release": "5.15.85"})["remarks"]) == 1


# ------------------------------------------------------------------ from a trace
def write_trace(path: Path, snapshots: Sequence[tuple[int | None, str, int]], **facts: Any) -> Trace:
    """Ten allocations of 8 pages at 1000..1009 and a vmstat per (ts, phase, pages)."""
    with TraceWriter(path, metadata(**facts)) as writer:
        for ts, phase, pages in snapshots:
            rows, _ = snapshot_of({"files": {"vmstat": f"pgalloc_normal {pages}\npgfree 0\n"}})
            writer.write("snapshots", snapshot_batch(rows, ts, phase))
        event = {"cpu": 0, "kind": "alloc", "pfn": 8, "gfp": 0, "order": 3}
        writer.write("page_events", rows_batch("page_events", [{**event, "ts_ns": 1000 + i} for i in range(10)]))
    return Trace.open(path)


def test_a_stored_estimate_is_taken_as_it_is(tmp_path: Path) -> None:
    stored = {"unseen_pages": 5, "noise_pages": 1, "remarks": []}
    trace = write_trace(tmp_path / "t", [(0, "start", 0), (2000, "end", 100)], unseen=stored)
    assert unseen_of(trace) == stored


def test_a_trace_without_one_is_reckoned_from_its_tables(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t", [(0, "start", 0), (1005, "tick", 60), (2000, "end", 200)])
    found = unseen_of(trace)
    assert found is not None
    assert (found["pgalloc_delta"], found["traced_pages"], found["unseen_pages"]) == (200, 80, 120)
    assert found["intervals"]["traced"] == [40, 40]


def test_snapshots_without_a_time_count_from_the_first_event_to_the_last(tmp_path: Path) -> None:
    found = unseen_of(write_trace(tmp_path / "t", [(None, "start", 0), (None, "end", 200)]))
    assert found is not None
    assert (found["traced_pages"], found["unseen_pages"]) == (80, 120)
    assert any("carry no time" in r for r in found["remarks"])


def test_filters_and_shed_load_of_a_trace_are_heeded(tmp_path: Path) -> None:
    around = [(0, "start", 0), (2000, "end", 200)]
    found = unseen_of(write_trace(tmp_path / "a", around, filters={"comm": ["dd"]}))
    assert found is not None
    assert found["unseen_pages"] is None
    assert unseen_of(write_trace(tmp_path / "b", around[:1])) is None


# ------------------------------------------------------------------ snapshots
def test_one_bad_text_costs_that_file_only() -> None:
    message = {
        "files": {"vmstat": "pgfree 3\n", "buddyinfo": "nonsense\n", "unknown": "x"},
        "read_ns": {"vmstat": 17, "buddyinfo": 18},
        "errors": {"zoneinfo": "Permission denied"},
    }
    rows, problems = snapshot_of(message)
    assert [(r["source"], r["name"], r["value"]) for r in rows] == [("vmstat", "pgfree", 3), ("read_ns", "vmstat", 17)]
    assert problems["zoneinfo"] == "Permission denied"
    assert "buddyinfo" in problems["buddyinfo"]


def test_ticks_come_in_order_and_are_found_by_their_time(tmp_path: Path) -> None:
    texts = {p.name: p.read_text() for p in (PROCFS / "6.18").iterdir()}
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        for ts, phase in [(10, "start"), (20, "tick"), (30, "tick"), (40, "end")]:
            files = {**texts, "vmstat": f"pgalloc_normal {ts}\n"}
            if phase == "tick":
                del files["zoneinfo"]
            rows, _ = snapshot_of({"files": files, "read_ns": {"vmstat": ts - 1}})
            writer.write("snapshots", snapshot_batch(rows, ts, phase))
    trace = Trace.open(tmp_path / "t")
    assert snapshot_times(trace) == [(10, "start"), (20, "tick"), (30, "tick"), (40, "end")]
    assert [(ts, phase, c["pgalloc_normal"]) for ts, phase, c in vmstat_readings(trace)] == [
        (9, "start", 10),
        (19, "tick", 20),
        (29, "tick", 30),
        (39, "end", 40),
    ]
    assert vmstat(trace, "tick", 30) == {"pgalloc_normal": 30}
    assert zones(trace, ts_ns=40) == zones(trace, "start") != []
    assert zones(trace, ts_ns=20) == []
    assert pageblock_order(trace) == 9


OLD_ZONEINFO = """\
Node 0, zone   Normal
  per-node stats
      nr_inactive_anon 12
  pages free     1000
        min      10
        low      12
        high     14
        spanned  4096
        present  4096
        managed  4000
        protection: (0, 0, 0, 0, 0)
      nr_free_pages 1000
  pagesets
    cpu: 0
              count: 100
              high:  378
              batch: 63
  vm stats threshold: 24
    cpu: 1
              count: 7
              high:  378
              batch: 63
  vm stats threshold: 24
  node_unreclaimable:  0
  start_pfn:           4096
"""


def test_zoneinfo_of_5_10(tmp_path: Path) -> None:
    """No boost, no high_min: as kernels before 6.1 print it."""
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("snapshots", snapshot_batch(snapshot_rows({"zoneinfo": OLD_ZONEINFO}), 1, "start"))
    (normal,) = zones(Trace.open(tmp_path / "t"))
    assert (normal.managed, normal.start_pfn, normal.min, normal.low, normal.high) == (4000, 4096, 10, 12, 14)
    assert (normal.pcp_count, normal.pcp_high, normal.pcp_batch) == ({0: 100, 1: 7}, {0: 378, 1: 378}, {0: 63, 1: 63})
