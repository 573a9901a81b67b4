"""WRITE bios as requests: splitting, completion by either event, layers, devices."""

from __future__ import annotations

from typing import Any

import pytest

from tests.demand_samples import MemoryTrace, trace_of
from tests.reference.slow_demand import Event
from tests.reference.stream_check import check_stream
from tracereplay.demand import open_demand
from tracereplay.demand.stream import BATCH, FROM_BIO, ON_PATH, PIECE, TARGETED
from tracereplay.errors import EmptyTraceError, UsageError

SDA, SDB, MD = 8 << 20, 8 << 20 | 16, 9 << 20


def bio(ts: int, kind: str, dev: int, sector: int, sectors: int, op: str = "W", **more: Any) -> dict[str, Any]:
    row = {"ts_ns": ts, "cpu": 1, "kind": kind, "dev": dev, "sector": sector, "nr_sectors": sectors, "op": op}
    return row | {"flags": op, "pid": 7} | more


def run(bios: list[dict[str, Any]], events: list[Event] | None = None, **options: Any) -> Any:
    trace = trace_of(events, bios=bios) if events else MemoryTrace({"bio_events": bios})
    stream = open_demand(trace, **{"path": "dm-crypt"} | options)  # type: ignore[arg-type]
    ops = [op for batch in stream for op in batch.tolist()]
    return stream, ops


def requests(ops: list[Any]) -> list[tuple[int, int]]:
    return [(op[0], op[3]) for op in ops if op[7] == 1 and op[6] & 1]


def releases(ops: list[Any]) -> list[tuple[int, int]]:
    return [(op[0], 1 << op[8]) for op in ops if op[7] == 2]


def test_a_mebibyte_and_a_sector_are_256_pages_and_one() -> None:
    stream, ops = run([bio(100, "queue", SDA, 0, 2049), bio(900, "bio_complete", SDA, 0, 2049)])
    assert requests(ops) == [(100, 256), (100, 1)]
    assert releases(ops) == [(900, 256), (900, 1)]
    assert stream.report.path["requests"] == 2
    flags = [op[6] for op in ops if op[7] == 1]
    assert all(f & FROM_BIO and f & ON_PATH and f & TARGETED for f in flags)
    assert [bool(f & BATCH) for f in flags] == [True, False]
    assert min(op[1] for op in ops if op[7] != PIECE) >= stream.info.recorded_frames
    assert [(op[1], op[3]) for op in ops if op[7] == PIECE] == [(0, 1), (0, 0)]


def test_odd_sizes_come_as_binary_digits() -> None:
    stream, ops = run([bio(100, "queue", SDA, 0, 37 * 8)])
    assert [op[8] for op in ops] == [5, 2, 0]
    assert requests(ops) == [(100, 37)]
    assert stream.report.path["right_censored"] == 1


def test_the_cap_of_newer_kernels_splits() -> None:
    _, ops = run([bio(100, "queue", SDA, 0, 2048)], max_write=131072)
    assert requests(ops) == [(100, 32)] * 8


@pytest.mark.parametrize("size", [0, 100, 1 << 21])
def test_an_unusable_cap_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="max_write cannot be"):
        run([bio(100, "queue", SDA, 0, 8)], max_write=size)


def test_request_completions_cover_split_and_merged_bios() -> None:
    """Two bios merged into one request that completes in two parts; a third one split over two requests."""
    bios = [
        bio(100, "queue", SDA, 0, 8),
        bio(110, "queue", SDA, 8, 8),
        bio(120, "queue", SDA, 100, 16),
        bio(200, "complete", SDA, 0, 12),
        bio(300, "complete", SDA, 12, 4),
        bio(400, "complete", SDA, 108, 8),
        bio(500, "complete", SDA, 100, 8),
    ]
    _, ops = run(bios)
    assert requests(ops) == [(100, 1), (110, 1), (120, 2)]
    assert releases(ops) == [(200, 1), (300, 1), (500, 2)]


def test_reads_discards_and_empty_flushes_take_no_pages() -> None:
    bios = [
        bio(100, "queue", SDA, 0, 8, "R"),
        bio(110, "queue", SDA, 0, 8, "D"),
        bio(120, "queue", SDA, 0, 0, "WF"),
        bio(130, "queue", SDA, 0, 8),
    ]
    _, ops = run(bios)
    assert requests(ops) == [(130, 1)]


def test_keys_are_recycled_and_streams_well_formed() -> None:
    bios = []
    for i in range(200):
        bios += [bio(1000 * i + 100, "queue", SDA, i * 8, 24), bio(1000 * i + 900, "complete", SDA, i * 8, 24)]
    stream, _ = run(bios)
    again = open_demand(MemoryTrace({"bio_events": bios}), path="dm-crypt")  # type: ignore[arg-type]
    found = check_stream(again, again.info)
    assert {k for r in found.requests for k in r.keys} == {1024 * 2 + k for k in range(3)}
    assert not found.live
    assert stream.report.requests == 200


def test_the_lowest_layer_is_taken_and_named() -> None:
    bios = [
        bio(100, "queue", MD, 0, 16),
        bio(110, "remap", SDA, 0, 8, old_dev=MD, old_sector=0),
        bio(120, "queue", SDA, 0, 8),
        bio(130, "remap", SDB, 0, 8, old_dev=MD, old_sector=8),
        bio(140, "queue", SDB, 0, 8),
        bio(150, "queue", SDB, 64, 8),
    ]
    stream, ops = run(bios)
    assert stream.report.path["device"] == "8,16"
    assert requests(ops) == [(140, 1), (150, 1)]
    stream, ops = run(bios, device="9,0")
    assert requests(ops) == [(100, 2)]


def test_unknown_devices_and_paths_are_refused() -> None:
    bios = [bio(100, "queue", SDA, 0, 8)]
    with pytest.raises(UsageError, match="no WRITE bio") as error:
        run(bios, device="1,1")
    assert "8,0" in str(error.value.hint)
    with pytest.raises(UsageError, match="is no device"):
        run(bios, device="sda")
    with pytest.raises(UsageError, match="unknown path"):
        open_demand(MemoryTrace({"bio_events": bios}), path="raid")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="belongs to a path"):
        open_demand(MemoryTrace({"bio_events": bios}), device="8,0")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="belongs to a path"):
        open_demand(MemoryTrace({"bio_events": bios}), max_write=4096)  # type: ignore[arg-type]


def test_a_trace_without_page_events_needs_a_path_and_writes() -> None:
    with pytest.raises(EmptyTraceError, match="no page events"):
        open_demand(MemoryTrace({"bio_events": [bio(1, "queue", SDA, 0, 8)]}))  # type: ignore[arg-type]
    with pytest.raises(EmptyTraceError):
        open_demand(MemoryTrace({"bio_events": [bio(1, "queue", SDA, 0, 8, "R")]}), path="dm-crypt")  # type: ignore[arg-type]


def test_background_goes_on_beside_the_path() -> None:
    events = [Event(50, 0, "alloc", 5, 0, 0xCC0, 9), Event(950, 0, "free", 5, 0, 0, 9)]
    stream, ops = run([bio(100, "queue", SDA, 0, 8), bio(900, "complete", SDA, 0, 8)], events)
    assert [op[0] for op in ops] == [50, 100, 900, 950]
    assert stream.report.targeted_requests == 1
    assert stream.report.accounting.right_censored == 0
