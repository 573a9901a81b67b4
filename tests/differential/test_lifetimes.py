"""Lifetimes against a slow reference, DuckDB's lead() and demand's own accounting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.demand_samples import MemoryTrace, page_row, trace_of
from tests.differential.test_demand_pairing import soups
from tests.reference.slow_demand import Event
from tests.reference.slow_lifetimes import PageLife, slow_lifetimes
from tracereplay.demand import lifetime, lifetimes, open_demand, synthetic
from tracereplay.demand.lifetime import Lives
from tracereplay.importers.convert import import_trace
from tracereplay.trace.reader import Trace

SHIPPED = Path(__file__).parents[2] / "traces"
RECORDED = Path(__file__).parents[1] / "data" / "import"


def rows_of(trace: Any) -> list[dict[str, Any]]:
    return [row for batch in lifetimes(trace) for row in batch.to_pylist()]


def pages_of(rows: list[dict[str, Any]]) -> list[PageLife]:
    """Rows as single pages."""

    def plain(value: int | None) -> int:
        return -1 if value is None else value

    facts = ("t_free_ns", "t_alloc_ns", "class", "alloc_cpu", "free_cpu", "pid", "gfp")
    made = []
    for row in rows:
        assert row["pfn"] % row["pages"] == 0
        assert row["pages"] == 1 << row["order"]
        values = [row[name] if name == "class" else plain(row[name]) for name in facts]
        made += [PageLife(row["pfn"] + k, *values) for k in range(row["pages"])]
    return sorted(made)


@settings(max_examples=60)
@given(soups(), st.lists(st.tuples(st.integers(0, 900_000), st.integers(1, 40_000)), max_size=2), st.integers(1, 40))
def test_soup_agrees_with_the_slow_lifetimes(events: list[Event], gaps: list[tuple[int, int]], cut: int) -> None:
    """Equal page by page, however the rows are cut."""
    losses = [(1_000_000 + a, 1_000_000 + a + d) for a, d in gaps]
    rows = rows_of(trace_of(events, losses=losses, cut=cut))
    assert pages_of(rows) == sorted(slow_lifetimes(events, losses))
    ends = [row["t_free_ns"] for row in rows if row["t_free_ns"] is not None]
    assert ends == sorted(ends)


@settings(max_examples=15)
@given(soups())
def test_accounting_is_that_of_demand(events: list[Event]) -> None:
    trace: Any = trace_of(events, losses=[(1_100_000, 1_200_000)])
    lives = Lives(trace)
    for _ in lives.ended():
        pass
    stream = open_demand(trace, target="none")
    for _ in stream:
        pass
    accounting = stream.report.accounting
    names = ("allocations", "frees", "matched", "matched_pages", "left_censored_pages", "unseen_pages", "lost_pages")
    for name in (*names, "reused", "reused_pages", "reused_lost", "partial_frees", "covering_frees"):
        assert lives.counts[name] == getattr(accounting, name), name
    assert lives.counts["live_blocks"] == accounting.right_censored == sum(len(r.how) for r in lives.live())


@pytest.mark.parametrize("name", ["pages-6.12", "dmcrypt-6.12-bulk"])
def test_shipped_trace_agrees_with_the_slow_lifetimes(name: str) -> None:
    trace = Trace.open(SHIPPED / name)
    events = [
        Event(r["ts_ns"], r["cpu"], r["kind"], r["pfn"] or 0, r["order"] or 0, r["gfp"] or 0, r["pid"])
        for batch in trace.batches("page_events", ["ts_ns", "cpu", "kind", "pfn", "order", "gfp", "pid"])
        for r in batch.to_pylist()
    ]
    assert pages_of(rows_of(trace)) == sorted(slow_lifetimes(events))


def test_stacks_and_callers_of_allocations() -> None:
    """A stack with symbols names its caller; one without, and none, leave it to task and gfp."""
    events = [page_row(Event(1000 + k, 0, "alloc", k, 0, 0xCC0, 10)) | {"stack_id": s} for k, s in enumerate(STACKS)]
    stacks = [
        {"stack_id": 7, "depth": 0, "address": 1, "symbol": "__alloc_pages"},
        {"stack_id": 7, "depth": 1, "address": 2, "symbol": "pipe_write"},
        {"stack_id": 8, "depth": 0, "address": 3},
    ]
    trace: Any = MemoryTrace({"page_events": events, "stacks": stacks, "tasks": [{"pid": 10, "comm": "cat"}]})
    by_task = "cat: GFP_KERNEL"
    assert [(r["stack_id"], r["caller"]) for r in rows_of(trace)] == [
        (7, "pipe_write"),
        (None, by_task),
        (8, by_task),
        (7, "pipe_write"),
        (9, by_task),
    ]


STACKS = (7, None, 8, 7, 9)


def test_single_pages_are_paired_as_duckdb_pairs_them(tmp_path: Path) -> None:
    """Row for row: where every event is of one page, the free of an allocation is the frame's next event."""
    path = synthetic.write_trace(tmp_path / "t", events=60_000, memory=64 << 20)
    rows = Trace.open(path).page_events.filter(order=0).collect().to_arrow()
    base = duckdb.connect()
    base.register("rows", rows)
    singles = base.sql(
        """with e as (select *, lead(ts_ns) over w as t_free, lead(kind) over w as next_kind,
                      lead(cpu) over w as free_cpu from rows window w as (partition by pfn order by ts_ns))
           select pfn, ts_ns as t_alloc_ns, t_free as t_free_ns, t_free - ts_ns as lifetime_ns, cpu as alloc_cpu,
                  free_cpu, pid, gfp from e where kind = 'alloc' and next_kind = 'free' order by t_free, pfn"""
    ).to_arrow_table()
    ours = [r for r in rows_of(Trace.open(path)) if r["class"] == "complete" and r["order"] == 0]
    columns = ("pfn", "t_alloc_ns", "t_free_ns", "lifetime_ns", "alloc_cpu", "free_cpu", "pid", "gfp")
    mine = [{c: r[c] for c in columns} for r in ours]
    assert sorted(mine, key=lambda r: (r["t_free_ns"], r["pfn"])) == singles.to_pylist()
    assert len(mine) > 20_000


def test_a_table_that_memory_cannot_hold_is_refused_with_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime, "available_bytes", lambda: 1000)
    with pytest.raises(lifetime.TraceError, match=r"1024 frames needs up to .* GiB"):
        next(lifetimes(trace_of([Event(1, 0, "alloc")])))  # type: ignore[arg-type]


def test_a_sparse_table_takes_memory_only_where_it_is_touched() -> None:
    """Frames near 2^31 of a trace with few events: 48 GiB of address space."""
    events = [Event(1000, 0, "alloc", (1 << 31) - 2048), Event(2000, 1, "free", (1 << 31) - 2048)]
    events.append(Event(3000, 0, "alloc", 5))
    trace: Any = trace_of(events)
    assert [row["lifetime_ns"] for row in rows_of(trace)] == [1000, None]


def test_classes_are_those_of_perf_kmem(tmp_path: Path) -> None:
    """``perf kmem --page -i FILE stat`` of the same recording: alloc+freed, alloc-only and free-only requests."""
    said = (RECORDED / "perf-6.18.kmem-stat.txt").read_text()
    totals = {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"Total (\S+) requests *: +(\d+) +\[ +(\d+) KB", said)}
    rows = rows_of(Trace.open(import_trace(RECORDED / "perf-6.18.script.txt.zst", tmp_path / "t").path))
    for name, how in PERF_KMEM.items():
        pages = [row["pages"] for row in rows if row["class"] == how]
        assert (len(pages), 4 * sum(pages)) == totals[name]


PERF_KMEM = {"alloc+freed": "complete", "alloc-only": "right_censored", "free-only": "left_censored"}
