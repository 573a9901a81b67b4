"""Merging CPUs by time, finding gaps by sequence number, cutting at the watermark; against slow obvious versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture_streams import KIND, PAGE, hello, record
from tracereplay.errors import CollectorError
from tracereplay.trace.decode import Loss, RingDecoder, RingLayout, merge_order

PAGE_RING = next(r for r in hello()["rings"] if r["name"] == "page")
ALLOC, FREE = KIND["alloc"], KIND["free"]


def decoder() -> RingDecoder:
    return RingDecoder(RingLayout.from_hello(PAGE_RING))


def raw(*records: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(records), np.uint8)


def alloc(ts: int, seq: int, *, kind: int = ALLOC, flags: int = 0, pfn: int = 0) -> bytes:
    return record(PAGE, ts=ts, seq=seq, kind=kind, flags=flags, pfn=pfn)


@given(st.lists(st.lists(st.integers(0, 2**40), min_size=1, max_size=50).map(sorted), min_size=1, max_size=5))
def test_merge_order_equals_a_stable_sort(runs: list[list[int]]) -> None:
    ts, order = merge_order([np.array(run, np.int64) for run in runs])
    flat = [t for run in runs for t in run]
    expected = sorted(range(len(flat)), key=lambda i: flat[i])
    assert (list(range(len(flat))) if order is None else order.tolist()) == expected
    assert ts.tolist() == sorted(flat)


def test_merge_order_of_times_too_far_apart_to_pack() -> None:
    runs = [np.array([0, 2**62], np.int64), np.array([1, 2**62 - 1], np.int64)]
    ts, order = merge_order(runs)
    assert ts.tolist() == [0, 1, 2**62 - 1, 2**62]
    assert order is not None
    assert order.tolist() == [0, 2, 3, 1]


@given(st.data())
def test_any_split_into_flushes_gives_all_records_once_in_time_order(data: st.DataObject) -> None:
    """Two CPUs, random times, random batches and watermarks: the output is the sorted input."""
    times = {cpu: sorted(data.draw(st.lists(st.integers(0, 300), max_size=60))) for cpu in (0, 1)}
    todo = {cpu: [alloc(t, i, pfn=cpu << 32 | i) for i, t in enumerate(ts)] for cpu, ts in times.items()}
    made = decoder()
    got: list[tuple[int, int]] = []
    sent = {0: 0, 1: 0}
    while any(sent[cpu] < len(todo[cpu]) for cpu in todo):
        slabs = {}
        for cpu in todo:
            count = data.draw(st.integers(0, 20))
            part = todo[cpu][sent[cpu] : sent[cpu] + count]
            sent[cpu] += len(part)
            if part:
                slabs[cpu] = raw(*part)
        # What has not been sent bounds the watermark, as the collector does.
        watermark = min((times[c][sent[c]] for c in todo if sent[c] < len(todo[c])), default=1000)
        records = made.flush(slabs, watermark)
        if records is not None:
            assert (records.ts < watermark).all()
            got += list(zip(records.ts.tolist(), records.column("pfn").tolist(), strict=True))
    rest = made.flush({}, None)
    if rest is not None:
        got += list(zip(rest.ts.tolist(), rest.column("pfn").tolist(), strict=True))
    expected = sorted((t, cpu << 32 | i) for cpu, ts in times.items() for i, t in enumerate(ts))
    assert [t for t, _ in got] == sorted(t for t, _ in got)
    assert sorted(got) == expected
    assert made.losses == []
    assert made.late == 0


def test_a_gap_is_a_row_between_its_neighbours() -> None:
    made = decoder()
    made.flush({3: raw(alloc(10, 0), alloc(20, 1), alloc(50, 7, flags=0x40), alloc(60, 8))}, None)
    assert made.losses == [Loss("page_events", 3, 20, 50, 5, "ring_full")]
    assert made.totals() == {"seen": 4, "lost": 5}


def test_a_gap_between_two_flushes_and_one_before_the_first_record() -> None:
    made = decoder()
    made.flush({0: raw(alloc(10, 2, flags=0x80))}, None)
    made.flush({0: raw(alloc(30, 4, flags=0x60))}, None)
    assert made.losses == [
        Loss("page_events", 0, None, 10, 2, "ring_lock"),
        Loss("page_events", 0, 10, 30, 1, "unknown"),
    ]


def test_programs_number_their_records_apart() -> None:
    """An interrupt's record in between does not look like a gap, and a gap of one program is not hidden."""
    nested = KIND["free_nested"]
    made = decoder()
    made.flush({0: raw(alloc(1, 0), alloc(2, 0, kind=nested), alloc(3, 1), alloc(4, 0, kind=FREE), alloc(5, 2))}, None)
    assert made.losses == []
    made.flush({0: raw(alloc(6, 4, flags=0x40), alloc(7, 1, kind=nested), alloc(8, 1, kind=FREE))}, None)
    assert made.losses == [Loss("page_events", 0, 5, 6, 1, "ring_full")]


@given(st.data())
def test_gaps_equal_the_records_left_out(data: st.DataObject) -> None:
    """Leave records out at random over three programs: the sum of the rows is what is missing, also at the tail."""
    kinds = data.draw(st.lists(st.sampled_from([ALLOC, FREE, KIND["drain"]]), min_size=1, max_size=80))
    kept = data.draw(st.lists(st.booleans(), min_size=len(kinds), max_size=len(kinds)))
    counted: dict[int, int] = {}
    lost: dict[int, int] = {}
    sent = []
    for ts, (kind, keep) in enumerate(zip(kinds, kept, strict=True)):
        seq = counted.get(kind, 0)
        counted[kind] = seq + 1
        if keep:
            sent.append(alloc(ts, seq, kind=kind, flags=0x40))
        else:
            lost[kind] = lost.get(kind, 0) + 1
    made = decoder()
    cut = data.draw(st.integers(0, len(sent)))
    for part in (sent[:cut], sent[cut:]):
        if part:
            made.flush({0: raw(*part)}, None)
    counters = {str(k): {"seq": n, "full": lost.get(k, 0), "lock": 0, "no_ring": 0} for k, n in counted.items()}
    made.close({"0": counters}, 1000)
    assert sum(row.n for row in made.losses) == kept.count(False)
    assert made.totals() == {"seen": kept.count(True), "lost": kept.count(False)}
    assert {row.cls for row in made.losses} <= {"ring_full"}
    assert all(row.t0_ns is None or row.t1_ns is None or row.t0_ns < row.t1_ns for row in made.losses)


def test_sequence_numbers_wrap_at_32_bits() -> None:
    made = decoder()
    start = 2**32 - 2
    made.flush({0: raw(*(alloc(n, (start + n) & 0xFFFFFFFF, flags=0x40) for n in range(4)))}, None)
    assert [(row.n, row.t0_ns) for row in made.losses] == [(start, None)]
    made.close({"0": {str(ALLOC): {"seq": 2**32 + 2, "full": start}}}, 10)
    assert len(made.losses) == 1


def test_the_tail_is_booked_by_class_and_the_rest_as_the_readers() -> None:
    made = decoder()
    made.flush({0: raw(alloc(5, 0))}, None)
    made.close({"0": {str(ALLOC): {"seq": 11, "full": 3, "lock": 2, "no_ring": 1}}, "1": {}}, 99)
    assert [(row.n, row.cls, row.t0_ns, row.t1_ns) for row in made.losses] == [
        (3, "ring_full", 5, 99),
        (2, "ring_lock", 5, 99),
        (1, "unknown", 5, 99),
        (4, "reader", 5, 99),
    ]


def test_more_records_than_the_kernel_counted_is_an_error() -> None:
    made = decoder()
    made.flush({0: raw(alloc(1, 0), alloc(2, 1))}, None)
    with pytest.raises(CollectorError, match="the kernel counted 1"):
        made.close({"0": {str(ALLOC): {"seq": 1}}}, 9)


def test_discarded_records_are_dropped_and_foreign_ones_refused() -> None:
    dropped = bytearray(alloc(2, 9))
    dropped[3] |= 0x40
    made = decoder()
    records = made.flush({0: raw(alloc(1, 0), bytes(dropped), alloc(3, 1))}, None)
    assert records is not None
    assert records.ts.tolist() == [1, 3]
    busy = bytearray(alloc(4, 2))
    busy[3] |= 0x80
    with pytest.raises(CollectorError, match="another size or unfinished"):
        made.flush({0: raw(bytes(busy))}, None)


def test_times_out_of_order_around_the_cut_are_not_late() -> None:
    """An interrupt recorded between another program's reservation and its time stamp."""
    made = decoder()
    first = made.flush({0: raw(alloc(10, 0), alloc(31, 1), alloc(29, 0, kind=FREE), alloc(40, 2))}, 30)
    second = made.flush({}, 100)
    assert first is not None
    assert second is not None
    assert first.ts.tolist() == [10, 29]
    assert second.ts.tolist() == [31, 40]
    assert made.late == 0


def test_a_record_behind_the_watermark_is_moved_and_counted() -> None:
    made = decoder()
    made.flush({0: raw(alloc(50, 0))}, 60)
    late = made.flush({1: raw(alloc(40, 0), alloc(70, 1))}, 100)
    assert late is not None
    assert late.ts.tolist() == [50, 70]
    assert made.late == 1


@pytest.mark.parametrize(
    "change", [{"stride": 16}, {"fields": []}, {"fields": [{"name": "ts", "type": "u128", "offset": 0}]}]
)
def test_a_layout_that_does_not_hold_together_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(CollectorError, match="layout"):
        RingLayout.from_hello({**PAGE_RING, **change})
