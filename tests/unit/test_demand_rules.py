"""Single rules of reconstruction, each on a handful of events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.demand_samples import MemoryTrace, page_row, trace_of
from tests.reference.slow_demand import Event
from tests.reference.stream_check import check_stream
from tracereplay.demand import gaps, lifetimes, open_demand, synthetic
from tracereplay.demand.callers import Callers, comm_group, is_crypt_gfp, is_fault_gfp, is_vmalloc_gfp
from tracereplay.demand.state import BINS, CRYPT, SINGLE, SINGLE_OK
from tracereplay.demand.stream import BATCH, REQUIRED, TARGETED, UNSEEN
from tracereplay.demand.target import Target
from tracereplay.errors import TraceError, UsageError
from tracereplay.trace.reader import Trace

KERNEL = 0xCC0
CRYPT_PAGE = 0x800 | 0x2 | 0x2000 | 0x10000 | 0x80000
CRYPT_BLOCK = CRYPT_PAGE | 0x40000


def a(ts: int, pfn: int, order: int = 0, gfp: int = KERNEL, pid: int = 10, cpu: int = 0) -> Event:
    return Event(ts, cpu, "alloc", pfn, order, gfp, pid)


def f(ts: int, pfn: int, order: int = 0, pid: int = 10, cpu: int = 0) -> Event:
    return Event(ts, cpu, "free", pfn, order, 0, pid)


def shapes(events: list[Event], **options: Any) -> list[tuple[int, ...]]:
    """Orders of the extents of each request."""
    stream = open_demand(trace_of(events), **options)  # type: ignore[arg-type]
    return [tuple(r.extents) for r in check_stream(stream, stream.info).requests]


# ---------------------------------------------------------------- bursts
def test_a_free_of_the_task_ends_its_burst() -> None:
    assert shapes([a(1000, 0), a(1100, 1), f(1200, 0), a(1300, 2), a(1400, 3)]) == [(0, 0), (0, 0)]


def test_another_class_ends_a_burst_and_an_atomic_one_does_not() -> None:
    assert shapes([a(1000, 0), a(1100, 1, gfp=0xC40), a(1200, 2)]) == [(0,), (0,), (0,)]
    assert shapes([a(1000, 0), a(1100, 1, gfp=0x820), a(1200, 2)]) == [(0, 0), (0,)]


def test_masks_of_one_class_differ_in_the_flags_of_attempts() -> None:
    assert shapes([a(1000, 0, gfp=0xC40), a(1100, 1, gfp=0xC40 | 0x2000 | 0x10000)]) == [(0, 0)]


def test_tasks_do_not_share_bursts() -> None:
    events = [a(1000, 0), a(1050, 10, pid=11, cpu=1), a(1100, 1), a(1150, 11, pid=11, cpu=1)]
    assert shapes(events) == [(0, 0), (0, 0)]


def test_a_block_of_an_unknown_caller_is_required_whole() -> None:
    stream = open_demand(trace_of([a(1000, 0), a(1100, 8, 3), a(1200, 1)]))  # type: ignore[arg-type]
    found = check_stream(stream, stream.info).requests
    assert [tuple(r.extents) for r in found] == [(0,), (3,), (0,)]
    assert [bool(r.flags & REQUIRED) for r in found] == [False, True, False]
    assert not any(r.flags & BATCH for r in found)


def test_the_users_list_makes_blocks_extents() -> None:
    events = [a(1000, 0, 3), a(1100, 8, 3)]
    assert shapes(events) == [(3,), (3,)]
    assert shapes(events, single_ok=["*GFP_KERNEL"]) == [(3, 3)]


def test_faults_stay_apart() -> None:
    fault = 0x140DCA
    assert shapes([a(1000 + 100 * i, i, gfp=fault) for i in range(4)]) == [(0,)] * 4


def test_dm_crypt_orders_never_rise_and_repeat_only_after_a_failure() -> None:
    block: dict[str, int] = {"gfp": CRYPT_BLOCK}
    assert shapes([a(1000, 0, 5, **block), a(1100, 32, 5, **block)]) == [(5,), (5,)]
    assert shapes([a(1000, 0, 4, **block), a(1100, 16, 3, **block)]) == [(4, 3)]
    assert shapes([a(1000, 0, 3, **block), a(1100, 16, 4, **block)]) == [(3,), (4,)]
    failing = [Event(1000 + k, 0, "alloc_failed", 0, 5 - k, CRYPT_BLOCK, 10) for k in range(3)]
    assert shapes([*failing, *(a(1010 + i, 4 * i, 2, **block) for i in range(8))]) == [(2,) * 8]


def test_a_request_arrives_with_its_first_attempt() -> None:
    events = [Event(1000, 0, "alloc_failed", 0, 5, CRYPT_BLOCK, 10), a(1500, 0, 4, gfp=CRYPT_BLOCK)]
    stream = open_demand(trace_of(events))  # type: ignore[arg-type]
    assert [(r.ts, r.pages) for r in check_stream(stream, stream.info).requests] == [(1000, 16)]


def test_failed_attempts_alone_make_no_request() -> None:
    stream = open_demand(trace_of([Event(1000, 0, "alloc_failed", 0, 5, CRYPT_BLOCK, 10), f(1200, 0)]))  # type: ignore[arg-type]
    assert check_stream(stream, stream.info).requests == []
    assert stream.report.accounting.failed == stream.report.accounting.failed_requests == 1


def test_a_buffer_has_at_most_256_pages() -> None:
    events = [a(1000 + 10 * i, i, gfp=CRYPT_PAGE) for i in range(600)]
    assert [len(s) for s in shapes(events)] == [256, 256, 88]


def test_a_page_that_changes_hands_during_a_burst_gets_its_second_key() -> None:
    """Task 11 frees page 7 while task 10's burst is open; task 10 takes it. The request arrived before the free."""
    events = [a(1000, 7, pid=11, cpu=1), a(2000, 0), f(2050, 7, pid=11, cpu=1), a(2100, 7), f(2200, 7), f(2300, 0)]
    stream = open_demand(trace_of(events))  # type: ignore[arg-type]
    found = check_stream(stream, stream.info)
    assert [(r.ts, r.keys) for r in found.requests] == [(1000, [7]), (2000, [0, 1024 + 7])]
    assert stream.report.accounting.second_keys == 1
    assert not found.live


# ---------------------------------------------------------------- pairing
def test_partial_frees_split_a_block() -> None:
    stream = open_demand(trace_of([a(1000, 0, 3), f(1100, 5), f(1200, 0, 2)]))  # type: ignore[arg-type]
    found = check_stream(stream, stream.info)
    acc = stream.report.accounting
    assert found.live == {4, 6, 7}
    assert (acc.partial_frees, acc.right_censored, acc.right_censored_pages) == (1, 2, 3)


def test_one_free_covers_several_allocations() -> None:
    stream = open_demand(trace_of([a(1000, 0, 1), a(1100, 2), a(1200, 3), f(1300, 0, 2)]))  # type: ignore[arg-type]
    assert not check_stream(stream, stream.info).live
    assert stream.report.accounting.covering_frees == 1
    assert stream.report.accounting.matched == 1


def test_a_second_free_proves_an_unseen_allocation_on_the_cpu_of_the_first() -> None:
    events = [f(1000, 4, cpu=2), f(5000, 4, cpu=0, pid=11), f(5100, 5, pid=11)]
    stream = open_demand(trace_of(events))  # type: ignore[arg-type]
    found = check_stream(stream, stream.info)
    assert [(r.ts, r.cpu, r.keys) for r in found.requests] == [(5000, 2, [4])]
    assert found.requests[0].flags & UNSEEN
    assert not found.requests[0].flags & TARGETED
    acc = stream.report.accounting
    assert (acc.left_censored, acc.unseen_frees, acc.unseen_pages) == (2, 1, 1)


def test_a_refilled_frame_that_is_freed_was_allocated_unseen() -> None:
    events = [Event(1000, 1, "zone_locked", 8, 2, 0, 10), *(f(9000 + i, 8 + i, pid=12, cpu=3) for i in range(4))]
    stream = open_demand(trace_of(events))  # type: ignore[arg-type]
    found = check_stream(stream, stream.info)
    assert [(r.cpu, r.keys) for r in found.requests] == [(1, [8, 9, 10, 11])]
    assert stream.report.accounting.unseen_pages == 4


def test_inferences_across_a_loss_are_the_losss() -> None:
    events = [f(1000, 4), f(9000, 4), a(9500, 6), a(20_000, 6)]
    stream = open_demand(trace_of(events, losses=[(5000, 6000), (12_000, 13_000)]))  # type: ignore[arg-type]
    check_stream(stream, stream.info)
    acc = stream.report.accounting
    assert (acc.unseen_frees, acc.lost_frees, acc.reused, acc.reused_lost) == (0, 1, 0, 1)
    assert acc.loss_intervals == 2


def test_reuse_without_a_free_closes_the_old_block() -> None:
    stream = open_demand(trace_of([a(1000, 0, 2), a(50_000_000, 1)]))  # type: ignore[arg-type]
    found = check_stream(stream, stream.info)
    acc = stream.report.accounting
    assert (acc.reused, acc.reused_pages, acc.right_censored_pages) == (1, 1, 4)
    assert len(found.live) == 4


def test_batched_markers_and_failures_change_nothing() -> None:
    events = [a(1000, 0), f(2000, 0), Event(2001, 0, "free_batched", 0, 0, 0, 10)]
    stream = open_demand(trace_of(events))  # type: ignore[arg-type]
    check_stream(stream, stream.info)
    assert stream.report.accounting.ignored["free_batched"] == 1
    assert stream.report.accounting.matched == 1


def test_a_frame_number_that_no_host_has_is_refused() -> None:
    rows = [page_row(a(1000, 1 << 33))]
    with pytest.raises(TraceError, match="frame"):
        open_demand(MemoryTrace({"page_events": rows}))  # type: ignore[arg-type]


# ---------------------------------------------------------------- lifetimes
def test_lifetimes_and_their_censoring() -> None:
    events = [
        a(1000, 0, 1, cpu=1),
        f(1500, 0, cpu=2),
        f(1600, 9),
        f(1700, 9),
        a(1800, 3),
        a(40_000_000, 3),
    ]
    rows = [r for batch in lifetimes(trace_of(events)) for r in batch.to_pylist()]  # type: ignore[arg-type]
    assert [(r["pfn"], r["class"], r["lifetime_ns"]) for r in rows] == [
        (0, "complete", 500),
        (9, "left_censored", None),
        (9, "unseen", None),
        (3, "broken", None),
        (1, "right_censored", None),
        (3, "right_censored", None),
    ]
    assert rows[0]["alloc_cpu"] == 1
    assert rows[0]["free_cpu"] == 2
    assert rows[0]["pid"] == 10
    assert rows[0]["caller"].endswith("GFP_KERNEL")
    assert rows[3]["t_alloc_ns"] == 1800
    assert rows[3]["t_free_ns"] is None
    assert rows[4]["t_alloc_ns"] == 1000


# ---------------------------------------------------------------- targets
def run_target(selector: str | list[str]) -> tuple[int, int]:
    events = [a(1000, 0), a(1100, 1), a(1200, 8, 3, gfp=0xDC0), a(2000, 20, gfp=CRYPT_PAGE, pid=30), f(3000, 0, pid=31)]
    events += [f(4000, 50), f(5000, 50)]
    trace = trace_of(events, comms={10: "make", 30: "kworker/u4:1"})
    stream = open_demand(trace, target=selector)  # type: ignore[arg-type]
    for _ in stream:
        pass
    return stream.report.targeted_requests, stream.report.targeted_pages


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ("batches", (1, 2)),
        ("all", (3, 11)),
        ("none", (0, 0)),
        ("pages>=2", (2, 10)),
        ("pages=1", (1, 1)),
        ("pages<3", (2, 3)),
        ("comm:kworker*", (1, 1)),
        ("caller:dm-crypt*", (1, 1)),
        ("gfp:__GFP_ZERO", (1, 8)),
        ("gfp:GFP_KERNEL,pages>4", (1, 8)),
        ("origin:unseen", (1, 1)),
        ("origin:traced,pages>=2", (2, 10)),
        (["batches", "comm:kworker"], (2, 3)),
    ],
)
def test_selectors(selector: str | list[str], taken: tuple[int, int]) -> None:
    assert run_target(selector) == taken


@pytest.mark.parametrize("selector", ["", "batch", "caller:", "gfp:__GFP_ZERRO", "origin:disk", "pages>=x"])
def test_wrong_selectors_say_what_is_known(selector: str) -> None:
    with pytest.raises(UsageError) as error:
        Target(selector)
    assert error.value.hint


# ---------------------------------------------------------------- callers, gaps
def test_what_masks_say() -> None:
    assert is_crypt_gfp(CRYPT_PAGE)
    assert is_crypt_gfp(CRYPT_BLOCK)
    assert is_crypt_gfp(CRYPT_PAGE | 0x400)  # second pass: direct reclaim
    assert not is_crypt_gfp(CRYPT_PAGE | 0x8)
    assert is_vmalloc_gfp(0xCC2)
    assert not is_vmalloc_gfp(0x100CC2)
    assert is_fault_gfp(0x140DCA)
    assert not is_fault_gfp(0x140CCA | 0x1000)
    assert comm_group("kworker/u4:2") == comm_group("kworker/0:1H") == "kworker"
    assert comm_group("fio") == "fio"


def test_stacks_skip_the_allocator() -> None:
    callers = Callers()
    crypt = callers.by_stack(
        ["__alloc_pages", "crypt_page_alloc", "mempool_alloc", "crypt_alloc_buffer", "kcryptd_crypt_write_convert"]
    )
    same = callers.by_stack(["__alloc_pages_noprof", "alloc_pages_mpol_noprof", "crypt_alloc_buffer"])
    assert crypt == same
    assert callers.labels[crypt] == "crypt_alloc_buffer"
    assert callers.flags[crypt] == SINGLE_OK | CRYPT
    fault = callers.by_stack(["__alloc_pages", "vma_alloc_folio", "wp_page_copy", "handle_mm_fault"])
    assert (callers.labels[fault], callers.flags[fault]) == ("wp_page_copy", SINGLE)
    assert callers.by_stack([None]) == -1


def histogram(values: list[tuple[float, int]]) -> np.ndarray[Any, Any]:
    made = np.zeros(BINS, np.int64)
    for ns, n in values:
        made[gaps._bin(ns)] += n
    return made


def test_thresholds_lie_in_the_valley() -> None:
    two = gaps.threshold(histogram([(1700, 2000), (4_000_000, 8)]), 700)
    assert 1700 * 2 < two.ns < 1_000_000
    noisy = gaps.threshold(
        histogram([(3000, 3000), (4500, 900), (6000, 200), (9000, 40), (12_000, 20), (800_000, 250)]), 1000
    )
    assert 12_000 < noisy.ns < 700_000
    single = gaps.threshold(histogram([(26_000, 2000)]), 700)
    assert (single.ns, single.mode_ns) == (5600, None)
    assert gaps.threshold(histogram([]), 700).ns == 5600
    wide = gaps.threshold(histogram([(26_000, 2000)]), 700, gaps.UNRECORDED_REFILLS)
    assert wide.ns == 16_800


def test_the_unit_survives_a_coarse_clock() -> None:
    fine = histogram([(900, 1000), (50_000, 100)])
    assert 700 < gaps.unit_ns(fine, 1) < 1100
    coarse = histogram([(0, 770), (1000, 230), (90_000, 100)])
    assert 200 < gaps.unit_ns(coarse, 1000) < 260


# ---------------------------------------------------------------- synthetic
def test_synthetic_traces_are_a_function_of_the_seed(tmp_path: Any) -> None:
    one = synthetic.make_events(20_000, seed=3, memory=64 << 20)
    two = synthetic.make_events(20_000, seed=3, memory=64 << 20)
    assert all(np.array_equal(getattr(one, n), getattr(two, n)) for n in one.__dataclass_fields__)
    assert not np.array_equal(one.pfn, synthetic.make_events(20_000, seed=4, memory=64 << 20).pfn)
    orders = one.order[one.kind == 0]
    assert 0.85 < (orders == 0).mean() < 0.95
    path = synthetic.write_trace(tmp_path / "s", events=20_000, seed=3, memory=64 << 20)
    stream = open_demand(Trace.open(path))
    found = check_stream(stream, stream.info)
    acc = stream.report.accounting
    assert acc.events == 20_000
    assert acc.unmatched_frees == acc.reused == acc.malformed == 0
    assert len(found.live) == acc.right_censored_pages
