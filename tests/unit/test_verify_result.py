"""What the result of a twin check says, on streams of a kernel whose whole state is known, and on made-up traces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.initial_samples import EVENTS
from tests.trace_samples import metadata, rows_batch
from tracereplay.errors import EmptyTraceError
from tracereplay.machine import layout as machine_at
from tracereplay.trace.reader import Trace
from tracereplay.trace.snapshots import snapshot_batch, snapshot_rows
from tracereplay.trace.writer import TraceWriter
from tracereplay.verify import layout as at
from tracereplay.verify.ending import end_snapshot, free_blocks, l1_share, pcp_counts, vmstat_sums, zone_changes
from tracereplay.verify.explain import contexts, disagreements, text_of
from tracereplay.verify.result import Frames, Match, require_events, result_of, run_check
from tracereplay.verify.run import Twin

ALLOC = {"cpu": 0, "kind": "alloc", "pfn": 5000, "order": 0, "gfp": 0xCC0, "migratetype": 0, "pid": 1}
FREE = {"cpu": 0, "kind": "free", "pfn": 5000, "order": 0, "pid": 1}


def zone_text(managed: int, counts: Sequence[int]) -> dict[str, str]:
    """/proc texts of a host with one zone."""
    pagesets = "".join(
        f"    cpu: {cpu}\n              count: {n}\n              high:  500\n              batch: 63\n"
        for cpu, n in enumerate(counts)
    )
    zoneinfo = (
        "Node 0, zone   Normal\n  pages free     1000\n        boost    0\n        min      10\n        low      20\n"
        f"        high     30\n        spanned  8192\n        present  8192\n        managed  {managed}\n"
        f"  pagesets\n{pagesets}  node_unreclaimable:  0\n  start_pfn:           4096\n"
    )
    return {"zoneinfo": zoneinfo, "buddyinfo": "Node 0, zone   Normal      1      2      0 3 0 0 0 0 0 0 1\n"}


def write_trace(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    snapshots: Sequence[tuple[int | None, str, dict[str, str]]] = (),
    **facts: Any,
) -> Trace:
    facts.setdefault("events", EVENTS)
    with TraceWriter(path, metadata(**facts)) as writer:
        for ts, phase, texts in snapshots:
            writer.write("snapshots", snapshot_batch(snapshot_rows(texts), ts, phase))
        if rows:
            writer.write("page_events", rows_batch("page_events", rows))
    return Trace.open(path)


# ---------------------------------------------------------------- shares
def test_shares_of_nothing_are_null() -> None:
    nothing = {"kernel": 0, "twin": 0, "precision": None, "recall": None}
    assert Match(0, 0, 0).to_json() == nothing
    assert Frames(0, 0, 0).to_json() == {"eligible": 0, "eligible_share": None, "exact": 0, "share": None}
    assert l1_share([0, 0], [3, 0]) is None


def test_shares_by_hand() -> None:
    assert Match(kernel=10, twin=8, matched=6).to_json() == {"kernel": 10, "twin": 8, "precision": 0.75, "recall": 0.6}
    assert Frames(allocations=200, eligible=100, exact=99).to_json() == {
        "eligible": 100,
        "eligible_share": 0.5,
        "exact": 99,
        "share": 0.99,
    }
    assert l1_share([10, 0, 5, 5], [8, 1, 5, 7]) == pytest.approx(5 / 20)


# ---------------------------------------------------------------- the ends
def test_the_end_is_the_snapshot_nearest_to_the_last_event(tmp_path: Path) -> None:
    events = [{**ALLOC, "ts_ns": 1_000}, {**FREE, "ts_ns": 10_000_000_000}]
    texts = zone_text(8000, [1, 2])
    taken = [(500, "start", texts), (9_999_000_000, "tick", texts), (12_000_000_000, "end", texts)]
    end = end_snapshot(write_trace(tmp_path / "a", events, taken))
    assert end is not None
    assert (end.phase, end.seconds_after) == ("tick", -0.001)
    end = end_snapshot(write_trace(tmp_path / "b", events, [taken[0], taken[2]]))
    assert end is not None
    assert (end.phase, end.seconds_after) == ("end", 2.0)
    untimed = [(None, "start", texts), (None, "end", texts)]
    end = end_snapshot(write_trace(tmp_path / "c", events, untimed))
    assert end is not None
    assert (end.ts_ns, end.phase, end.seconds_after) == (None, "end", None)
    assert end_snapshot(write_trace(tmp_path / "d", events, taken[:1])) is None
    assert end_snapshot(write_trace(tmp_path / "e", events)) is None


def test_zones_that_grow_are_named_with_their_steps(tmp_path: Path) -> None:
    sizes = [(10, "start", 7000), (20, "tick", 7000), (30, "tick", 7600), (40, "end", 8000)]
    taken = [(ts, phase, zone_text(managed, [0])) for ts, phase, managed in sizes]
    grown = zone_changes(write_trace(tmp_path / "t", [{**ALLOC, "ts_ns": 11}], taken))
    assert grown == [{"node": 0, "zone": "Normal", "pages": 1000, "steps": [[30, 600], [40, 400]]}]
    assert zone_changes(write_trace(tmp_path / "u", [{**ALLOC, "ts_ns": 11}], taken[:2])) == []


def test_free_blocks_and_counts_beside_the_snapshot(tmp_path: Path) -> None:
    """A machine whose gauges are set by hand: what is read from where."""
    taken = [(10, "start", zone_text(8000, [7, 9])), (30, "end", zone_text(8192, [7, 9]))]
    events = [{**ALLOC, "ts_ns": 11, "cpu": 1}, {**FREE, "ts_ns": 12}]
    twin = Twin(write_trace(tmp_path / "t", events, taken))
    w = twin.machine.w
    at_zone = machine_at.NF
    w[at_zone : at_zone + 11 * machine_at.NR_TYPES] = 0
    w[at_zone + 0 * machine_at.NR_TYPES + 1] = 1
    w[at_zone + 1 * machine_at.NR_TYPES + 0] = 1
    w[at_zone + 1 * machine_at.NR_TYPES + 2] = 4
    w[at_zone + 3 * machine_at.NR_TYPES + 1] = 3
    sets = [(5, 2), (9, 0)]
    for cpu, (count, unlisted) in enumerate(sets):
        w[cpu * machine_at.P_WORDS + machine_at.P_COUNT] = count
        w[cpu * machine_at.P_WORDS + machine_at.P_UNLISTED] = unlisted
    end = end_snapshot(twin.trace)
    found = free_blocks(twin, end, zone_changes(twin.trace))
    assert found["order"] == list(range(11))
    assert found["kernel"] == [1, 2, 0, 3, 0, 0, 0, 0, 0, 0, 1]
    assert found["twin"] == [1, 5, 0, 3, 0, 0, 0, 0, 0, 0, 0]
    assert found["l1_share"] == pytest.approx((3 + 1) / 7)
    assert found["zones"][0]["managed_changed"] == 192
    counted = [(c["cpu"], c["twin"], c["unlisted"], c["kernel"]) for c in pcp_counts(twin, end)]
    assert counted == [(0, 5, 2, 7), (1, 9, 0, 9), (2, 0, 0, None), (3, 0, 0, None)]
    without = free_blocks(twin, None, [])
    assert (without["kernel"], without["l1_share"], without["snapshot"]) == (None, None, None)
    assert without["twin"] == found["twin"]
    assert {c["kernel"] for c in pcp_counts(twin, None)} == {None}


def test_vmstat_is_compared_over_the_recording(tmp_path: Path) -> None:
    """Readings at 0.1, 1, 9 and 15 s; events from 1 to 9 s: the second and third are nearest."""
    second = 1_000_000_000

    def vmstat(alloc: int, freed: int) -> dict[str, str]:
        return {"vmstat": f"pgalloc_normal {alloc}\npgalloc_dma {alloc // 10}\npgfree {freed}\nnr_free_pages 5\n"}

    readings = [(second // 10, 0, 0), (second, 100, 50), (9 * second, 200, 58), (15 * second, 900, 900)]
    taken = [
        (ts, "start" if i == 0 else "end" if i == 3 else "tick", vmstat(a, f)) for i, (ts, a, f) in enumerate(readings)
    ]
    bulk = {"cpu": 0, "kind": "bulk", "order": 0, "pid": 1}
    events = [
        {**ALLOC, "ts_ns": second, "order": 3},
        {**ALLOC, "ts_ns": 2 * second, "order": 6},
        {**bulk, "ts_ns": 3 * second, "requested": 64, "returned": 38},
        {**bulk, "ts_ns": 3 * second, "requested": 64, "returned": 1},
        {**FREE, "ts_ns": 9 * second, "order": 3},
    ]
    sums = vmstat_sums(write_trace(tmp_path / "t", events, taken))
    wanted = {"pgalloc": 110, "pgfree": 8, "allocated": 72, "freed": 8, "bulk": 38, "outside_seconds": 0.0}
    assert sums == wanted
    assert vmstat_sums(write_trace(tmp_path / "u", events, taken[:1])) is None


# ---------------------------------------------------------------- what a trace must hold
@pytest.mark.parametrize(
    ("kinds", "events", "words"),
    [
        ((), ["kmem:mm_page_alloc"], "no page events"),
        (("alloc", "free"), EVENTS[:2], "no zone_locked and no drain events"),
        (("alloc", "free"), EVENTS[:3], "no drain events"),
        (("alloc",), EVENTS[:2], "no allocations and frees"),
    ],
)
def test_captures_without_the_events_are_refused(
    tmp_path: Path, kinds: Sequence[str], events: list[str], words: str
) -> None:
    rows = [{**ALLOC, "kind": kind, "ts_ns": 10 + i} for i, kind in enumerate(kinds)]
    trace = write_trace(tmp_path / "t", rows, events=events, source={"kind": "capture"})
    with pytest.raises(EmptyTraceError, match=words) as refused:
        require_events(trace)
    assert refused.value.hint == "capture with --events page,buddy"


def test_what_holds_the_events_is_accepted(tmp_path: Path) -> None:
    rows = [{**ALLOC, "ts_ns": 1}, {**FREE, "ts_ns": 2}]
    require_events(write_trace(tmp_path / "t", rows, source={"kind": "capture"}))
    # tapped, though none fired; a foreign file that does not say; rows that the metadata do not name
    require_events(write_trace(tmp_path / "u", rows, events=EVENTS[:2], source={"kind": "import", "format": "ftrace"}))
    named = [*rows, {**FREE, "kind": "zone_locked", "ts_ns": 3}, {**FREE, "kind": "drain", "ts_ns": 4}]
    require_events(write_trace(tmp_path / "v", named, events=EVENTS[:2], source={"kind": "capture"}))
    with pytest.raises(EmptyTraceError):
        require_events(write_trace(tmp_path / "w", rows, events=EVENTS[:2], source={"kind": "import", "format": "raw"}))


def finished(path: Path, **numbers: int) -> Twin:
    """A twin of a foreign trace of two events, whose totals are set by hand."""
    rows = [{**ALLOC, "ts_ns": 1}, {**FREE, "ts_ns": 2}]
    twin = Twin(write_trace(path, rows, events=EVENTS[:2], source={"kind": "import", "format": "ftrace"}), room=4)
    for name, value in numbers.items():
        twin.v[at.TOTALS.index(name)] = value
    return twin


def test_a_foreign_file_without_refills_is_refused_when_the_twin_had_some(tmp_path: Path) -> None:
    with pytest.raises(EmptyTraceError, match="they were not recorded"):
        result_of(finished(tmp_path / "t", refill_twin=3))
    said = " ".join(result_of(finished(tmp_path / "u", drain_twin=5, outside_zones=2)).warnings)
    assert "the twin refilled no list either" in said
    assert "the twin drained 5 times" in said
    assert "2 events name frames outside" in said
    assert "no memory snapshot" in said


def test_the_document_has_the_agreed_form(tmp_path: Path) -> None:
    numbers = {
        "allocations": 40,
        "unmatched_frees": 3,
        "pcp_allocations": 30,
        "eligible": 20,
        "exact": 15,
        "refill_kernel": 8,
        "refill_twin": 4,
        "refill_matched": 2,
        "drain_kernel": 5,
        "drain_matched": 0,
        "extfrag_kernel": 1,
        "extfrag_twin": 1,
        "extfrag_matched": 1,
    }
    twin = finished(tmp_path / "t", **numbers)
    twin.v[at.RS + at.RS_HIGH] = 7
    twin.v[at.VC_INDEX] = 1000
    by = 2 * at.BY_WORDS
    twin.v[at.BY_ALLOCS + by], twin.v[at.BY_ELIGIBLE + by], twin.v[at.BY_EXACT + by] = 9, 4, 3
    found = json.loads(json.dumps(result_of(twin, 0.5).to_json(), allow_nan=False))
    assert (found["schema"], found["generation"]) == (1, "6.12")
    assert found["allocations"] == {"traced": 40, "unmatched_frees": 3}
    assert found["refill"] == {"kernel": 8, "twin": 4, "precision": 0.5, "recall": 0.25}
    assert found["drain"] == {"kernel": 5, "twin": 0, "precision": None, "recall": 0.0}
    assert found["extfrag"] == {"kernel": 1, "twin": 1, "precision": 1.0, "recall": 1.0}
    assert found["pfn"] == {"eligible": 20, "eligible_share": pytest.approx(2 / 3), "exact": 15, "share": 0.75}
    assert set(found["resynchronisations"]) == set(at.REASONS)
    assert {k: n for k, n in found["resynchronisations"].items() if n} == {"high_moved": 7}
    assert set(found["free_blocks"]) >= {"order", "kernel", "twin", "l1_share"}
    assert (found["seconds"], found["events_per_second"]) == (0.5, 2000.0)
    assert [(r["order"], r["allocations"], r["eligible"], r["exact"], r["share"]) for r in found["by_order"]] == [
        (2, 9, 4, 3, 0.75)
    ]
    assert found["totals"]["events"] == 1000
    assert {"trace", "completeness", "pcp_counts", "vmstat", "initial", "vmstat_worker", "zone_changed"} <= set(found)


# ---------------------------------------------------------------- disagreements
def test_every_kind_has_words() -> None:
    said = [text_of(kind, 0x1234, 2, 1, 3, 4) for kind in range(len(at.DISAGREEMENTS))]
    assert len(set(said)) == len(said)
    assert all("0x1234" in text for text, kind in zip(said, at.DISAGREEMENTS, strict=True) if kind != "extfrag")


def test_where_the_twin_had_a_page() -> None:
    def had(info: int) -> str:
        return text_of(at.DIS_ELSEWHERE, 0x10, 0, 1, 0, info).split("the twin had it ")[1]

    on_list = machine_at.PCP | 5 << machine_at.INFO_CPU_SHIFT | 2 << machine_at.INFO_TYPE_SHIFT | 3
    assert had(on_list) == "on the Reclaimable list of order 3 of CPU 5"
    assert had(machine_at.BUDDY | 7) == "free in the buddy lists, order 7"
    assert had(machine_at.USED | 1) == "in use since an allocation of order 1"


def test_triggers_of_drains() -> None:
    def said(trigger: int) -> str:
        return text_of(at.DIS_DRAIN_MISSED, trigger, 63, 100, 50, 0)

    assert "at the free of page 0x20;" in said(0x20)
    assert "away from any free;" in said(-1)
    assert "when the vmstat worker ran" in text_of(at.DIS_DRAIN_FALSE, at.TICK, 63, 100, 50, 0)


def test_context_is_of_the_cpu_and_marks_its_event(tmp_path: Path) -> None:
    rows = [{**ALLOC, "ts_ns": i, "cpu": i % 3, "pfn": i} for i in range(300)]
    trace = write_trace(tmp_path / "t", rows)
    first, middle, last = contexts(trace, [(0, 0), (151, 1), (299, 2)], cpus=3)
    assert [e["event"] for e in middle] == [133, 136, 139, 142, 145, 148, 151, 154, 157, 160]
    assert all(e["pfn"] == e["event"] for e in middle)
    assert [e["event"] for e in first] == [0, 3, 6, 9]
    assert [e["event"] for e in last] == [281, 284, 287, 290, 293, 296, 299]


def test_ten_of_each_kind_or_the_first_of_any(tmp_path: Path) -> None:
    rows = [{**ALLOC, "ts_ns": i} for i in range(60)]
    twin = Twin(write_trace(tmp_path / "t", rows), room=40)
    log = twin.v[len(twin.v) - 40 * at.LOG_WORDS :].reshape(40, at.LOG_WORDS)
    for i in range(25):
        log[i] = (i + 1, at.DIS_POP if i != 20 else at.DIS_EXTFRAG, 0, 99, 0, 1, 2, 0)
    twin.v[at.VC_LOGGED] = 25
    kinds = [(d.event, d.kind) for d in disagreements(twin)]
    assert kinds == [*((i, "pop") for i in range(10)), (20, "extfrag")]
    assert [d.event for d in disagreements(twin, 12)] == list(range(12))
    assert disagreements(twin)[10].context[0]["event"] == 14


# ---------------------------------------------------------------- a whole check
def test_the_log_names_the_rows_of_the_table(tmp_path: Path) -> None:
    """A page that the twin cannot know is popped at row 3: the disagreement is noticed there."""
    rows = [
        {**FREE, "pfn": 5000, "ts_ns": 1},
        {**FREE, "pfn": 5001, "ts_ns": 2},
        {**ALLOC, "pfn": 5001, "ts_ns": 3},
        {**ALLOC, "pfn": 6001, "ts_ns": 4},
        {**ALLOC, "pfn": 5000, "ts_ns": 5},
    ]
    taken = [(0, "start", zone_text(8192, [0, 0]))]
    twin, result = run_check(write_trace(tmp_path / "t", rows, taken), room=16)
    assert disagreements(twin)[0].event == 3
    assert result.totals["events"] == 5
    assert result.totals["allocations"] == 3
