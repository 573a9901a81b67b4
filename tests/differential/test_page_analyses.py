"""Analyses of page events against DuckDB on the same Parquet files, and the counting pass against Polars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.page_samples import duck, page_rows, page_trace
from tests.trace_samples import metadata, rows_batch
from tracereplay import Trace, TraceWriter
from tracereplay.analysis import tally as tally_module
from tracereplay.analysis.registry import analyses, analysis_named
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.tally import tally
from tracereplay.analysis.view import View
from tracereplay.demand.lifetime import lifetimes
from tracereplay.demand.state import CLASS_MASK
from tracereplay.errors import InvariantError, UsageError
from tracereplay.report.answer_picture import picture
from tracereplay.trace.schema import PAGE_KINDS

ALLOC = "kind = 'alloc'"
PAGES = 'sum(1::BIGINT << "order")'


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return page_trace(tmp_path_factory.mktemp("pages") / "t.trace")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return page_trace(tmp_path_factory.mktemp("bare") / "t.trace", 1000, seed=1, stacks=False)


def rows(trace: Trace | View, name: str, *columns: str, **options: Any) -> list[tuple[Any, ...]]:
    return analysis_named(name)(trace, **options).select(columns).rows()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    by=st.lists(st.sampled_from(["kind", "order", "migratetype", "cpu", "gfp", "stack_id"]), min_size=1, max_size=3,
                unique=True),
    kinds=st.lists(st.sampled_from(PAGE_KINDS), min_size=1, max_size=8, unique=True),
    dense=st.booleans(),
    cpu=st.sampled_from([(), (0, 2)]),
    piece=st.sampled_from([64, 1000]),
)  # fmt: skip
def test_tally(
    trace: Trace, by: list[str], kinds: list[str], dense: bool, cpu: tuple[int, ...], piece: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(tally_module, "_DENSE", 1 << 18 if dense else 1)
    monkeypatch.setattr(tally_module, "_ROWS", piece)
    view = View(trace, Selection(cpu=cpu))
    slow = view.events("page_events").with_columns(pl.col("kind").cast(pl.String)).filter(pl.col("kind").is_in(kinds))
    wanted = slow.group_by(by).agg(pl.len().cast(pl.Int64).alias("n")).sort(by).collect()
    found = tally(view, by, kinds=kinds)
    assert found.with_columns(pl.col(pl.Int64).cast(pl.Int64)).rows() == wanted.rows()


@pytest.mark.parametrize("time", [(None, None), (3000, 20_001)])
def test_tally_of_tasks_and_bins(trace: Trace, time: tuple[int | None, int | None]) -> None:
    view = View(trace, Selection(time=time))
    found = tally(view, ("bin", "task"), kinds=("alloc", "free"), bin_ns=1500)
    with_task = view.with_task(view.events("page_events").filter(pl.col("kind").is_in(["alloc", "free"])))
    slow = with_task.select(bin=(pl.col("ts_ns") - view.start_ns) // 1500, comm="comm", pid="pid").collect()
    names = found.join(view.task_index.frame, left_on="task", right_on="row", how="left")
    made = names.select("bin", "comm", pl.coalesce("pid", "pid_right").alias("pid"), "n")
    wanted = slow.group_by("bin", "comm", "pid").agg(pl.len().cast(pl.Int64).alias("n"))
    assert sorted(made.rows(), key=str) == sorted(wanted.rows(), key=str)
    assert {"first", "second", None} <= set(made["comm"])


def test_values_that_cannot_be(tmp_path: Path) -> None:
    row = {"cpu": 0, "kind": "alloc", "pfn": 1, "order": 0, "gfp": 0xCC0, "migratetype": 1, "pid": 0}
    rows_of = [
        row,
        {**row, "pid": None},
        {**row, "order": 200, "migratetype": 255, "gfp": None},
        {**row, "pid": 4294967295},
    ]
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("page_events", rows_batch("page_events", [{**r, "ts_ns": i} for i, r in enumerate(rows_of)]))
        writer.write("tasks", rows_batch("tasks", [{"pid": 0, "comm": "swapper"}]))
    odd = Trace.open(tmp_path / "t")
    assert rows(odd, "orders", "order", "requests", "pages") == [(0, 3, 3), (200, 1, 0)]
    threads = set(rows(odd, "processes", "comm", "pid", "requests", by="thread"))
    assert threads == {("swapper", 0, 2), (None, None, 1), (None, 4294967295, 1)}
    assert rows(odd, "gfp", "gfp", "requests", by="mask") == [("GFP_KERNEL", 3), ("?", 1)]


def test_tally_refuses(trace: Trace) -> None:
    with pytest.raises(UsageError, match="too short"):
        tally(View.of(trace), ("bin",), bin_ns=0)
    with pytest.raises(InvariantError):
        tally(View.of(trace), ("task", "stack_id", "gfp"))


def test_summary(trace: Trace) -> None:
    kinds = {kind: (n, pages) for kind, n, pages in rows(trace, "summary", "kind", "events", "pages")}
    sql = f"SELECT kind, count(*), {PAGES}, sum(returned) FROM page_events GROUP BY kind"
    for kind, n, pages, returned in duck(trace, sql):
        assert kinds[kind] == (n, returned if kind == "bulk" else pages)
    assert kinds["alloc+free"][0] + kinds["alloc only"][0] >= kinds["alloc"][0]
    assert analysis_named("summary").answer(trace).account["complete"] == kinds["alloc+free"][0]
    alone = analysis_named("summary")(trace, pairs="no")
    assert alone.rows() == analysis_named("summary")(trace).head(len(alone)).rows()
    rate = alone["per_s"].sum()
    assert rate == pytest.approx(trace.rows("page_events") / View.of(trace).seconds)


def test_orders(trace: Trace) -> None:
    sql = f'SELECT "order", migratetype, count(*), {PAGES} FROM page_events WHERE {ALLOC} GROUP BY ALL ORDER BY ALL'
    names = {0: "Unmovable", 1: "Movable"}
    wanted = [(order, names[kind], n, pages) for order, kind, n, pages in duck(trace, sql)]
    assert rows(trace, "orders", "order", "migratetype", "requests", "pages") == wanted


def test_gfp(trace: Trace) -> None:
    sql = f"SELECT gfp, count(*), {PAGES} FROM page_events WHERE {ALLOC} GROUP BY gfp"
    masks = duck(trace, sql)
    assert sorted(rows(trace, "gfp", "mask", "requests", "pages", by="mask")) == sorted(masks)
    zero = sum(n for mask, n, _ in masks if mask & 0x100)
    flags = dict(rows(trace, "gfp", "gfp", "requests"))
    assert flags["__GFP_ZERO"] == zero
    assert flags["0x80000000"] == sum(n for mask, n, _ in masks if mask & 0x80000000)


def test_callers(trace: Trace) -> None:
    stacks = duck(trace, f"SELECT stack_id, count(*), {PAGES} FROM page_events WHERE {ALLOC} GROUP BY stack_id")
    by_stack = {stack: (n, pages) for stack, n, pages in stacks}
    found = {name: (n, pages) for name, n, pages in rows(trace, "callers", "by", "requests", "pages")}
    assert found["crypt_alloc_buffer"] == by_stack[1]
    assert found["pte_alloc_one"] == (by_stack[0][0] + by_stack[2][0], by_stack[0][1] + by_stack[2][1])
    assert sum(n for n, _ in found.values()) == sum(n for n, _ in by_stack.values())
    assert analysis_named("callers").answer(trace).account == {"without stack": by_stack[None][0]}
    symbols = {name: (n, own) for name, n, own in rows(trace, "callers", "by", "requests", "self_pages", by="symbol")}
    assert symbols["do_fork"] == (by_stack[2][0], 0)
    assert symbols["pte_alloc_one"][1] == by_stack[0][1] + by_stack[2][1]
    named = dict(rows(trace, "callers", "by", "requests", by="stack"))
    assert named["do_fork;pte_alloc_one;__alloc_pages_noprof"] == by_stack[2][0]


def test_callers_without_stacks(bare: Trace) -> None:
    sql = f"SELECT gfp, pid, count(*) FROM page_events WHERE {ALLOC} GROUP BY ALL"
    kworker = sum(n for gfp, pid, n in duck(bare, sql) if (gfp & CLASS_MASK, pid) == (0xCC0, 8))
    found = dict(rows(bare, "callers", "by", "requests"))
    assert found["kworker: GFP_KERNEL"] == kworker
    assert sum(found.values()) == duck(bare, f"SELECT count(*) FROM page_events WHERE {ALLOC}")[0][0]


def test_flame(trace: Trace) -> None:
    found = analysis_named("flame")(trace, weight="requests")
    assert dict(found.rows())["do_fork;pte_alloc_one;__alloc_pages_noprof"] > 0
    assert found["value"].sum() == analysis_named("callers")(trace)["requests"].sum()
    held = {weight: analysis_named("flame")(trace, weight=weight) for weight in ("live", "byte-seconds")}
    table = pl.from_arrow(pa.Table.from_batches(lifetimes(trace)))
    assert isinstance(table, pl.DataFrame)
    live = table.filter(pl.col("class") == "right_censored")
    assert held["live"]["value"].sum() == live["pages"].sum()
    stack = "do_fork;pte_alloc_one;__alloc_pages_noprof"
    mine = live.filter(pl.col("stack_id") == 2)["pages"].sum()
    assert held["live"].filter(stack=stack)["value"].sum() == mine
    assert set(held["byte-seconds"]["stack"]) <= set(found["stack"])
    same = analysis_named("flame")(trace, against=str(trace.path))
    assert same["change"].abs().max() == 0
    early = analysis_named("flame").answer(trace, against="0s:10us")
    assert early.frame["before"].sum() == pytest.approx(
        analysis_named("callers")(View(trace, Selection(time=(0, 10_000))))["pages"].sum()
        * View.of(trace).seconds / 10e-6
    )  # fmt: skip
    for against, said in (("nothing", "no trace"), ("9us:1us", "ends before"), ("5s:", "nothing then")):
        with pytest.raises(UsageError, match=said):
            analysis_named("flame")(trace, against=against)


@pytest.mark.parametrize("by", ["kind", "order", "cpu"])
def test_rate(trace: Trace, by: str) -> None:
    found = rows(trace, "rate", "by", "start_ns", "requests", "pages", by=by, bin="5us")
    kinds = "('alloc', 'alloc_failed', 'free')" if by == "kind" else "('alloc')"
    sql = f"""SELECT CAST("{by}" AS VARCHAR), (ts_ns - 1000) // 5000 * 5000, count(*), {PAGES} FROM page_events
              WHERE kind IN {kinds} GROUP BY ALL"""
    wanted = duck(trace, sql)
    assert sorted(r for r in found if r[2]) == sorted(wanted)
    assert len(found) == len({r[0] for r in wanted}) * 6
    later = rows(
        View(trace, Selection(time=(5000, 10_000))), "rate", "by", "start_ns", "requests", "pages", by=by, bin="5us"
    )
    assert sorted(later) == sorted(r for r in wanted if r[1] == 5000)


def test_failures(trace: Trace) -> None:
    wanted = duck(trace, "SELECT count(*) FROM page_events WHERE kind = 'alloc_failed' AND stack_id = 1 AND gfp = 3264")
    found = analysis_named("failures")(trace).filter(caller="crypt_alloc_buffer", gfp="GFP_KERNEL")
    assert found["failures"].sum() == wanted[0][0]
    assert analysis_named("failures")(trace)["share"].sum() == pytest.approx(1)


def test_processes_and_cgroups(trace: Trace) -> None:
    sql = """SELECT comm, count(*) FILTER (kind = 'alloc'), count(*) FILTER (kind = 'alloc_failed'),
                    count(*) FILTER (kind = 'free'), sum(1::BIGINT << "order") FILTER (kind = 'alloc')
             FROM page_events LEFT JOIN (SELECT *, lead(first_ns, 1, 1::BIGINT << 62) OVER (PARTITION BY pid ORDER BY
             first_ns NULLS FIRST) AS until FROM tasks) AS tasks
             ON page_events.pid = tasks.pid AND (ts_ns >= first_ns OR first_ns IS NULL) AND ts_ns < until
             GROUP BY ALL"""
    columns = ("requests", "failures", "frees", "pages")
    found = rows(trace, "processes", "comm", *columns)
    wanted = duck(trace, sql)
    assert sorted(found, key=str) == sorted(wanted, key=str)
    threads = rows(trace, "processes", "comm", "pid", "requests", by="thread")
    assert sum(n for comm, _, n in threads if comm == "first") == {r[0]: r[1] for r in wanted}["first"]
    groups = {r[0]: r[1] for r in rows(trace, "cgroups", "cgroup", *columns)}
    named = {r[0]: r[1] for r in wanted}
    assert groups == {"/a": named["first"], "/b": named["second"] + named["kworker/0:1"], None: named[None]}


def test_lists(trace: Trace) -> None:
    drained = duck(trace, f"SELECT cpu, count(*), {PAGES} FROM page_events WHERE kind = 'drain' GROUP BY cpu")
    assert sorted(rows(trace, "drains", "cpu", "blocks", "pages")) == sorted(drained)
    calls = duck(
        trace,
        "SELECT CAST(requested AS VARCHAR), count(*), sum(returned), count(*) FILTER (returned < requested) "
        "FROM page_events WHERE kind = 'bulk' GROUP BY requested",
    )
    assert sorted(rows(trace, "bulk", "by", "calls", "returned", "short_calls")) == sorted(calls)
    broken = duck(trace, "SELECT alloc_order, fallback_order, change_ownership, count(*) FROM page_events "
                         "WHERE kind = 'extfrag' GROUP BY ALL")  # fmt: skip
    found = rows(trace, "extfrag", "order", "fallback_order", "change_ownership", "events")
    assert sorted(found) == sorted(broken)
    assert {r[1] for r in rows(trace, "extfrag", "order", "fragmenting")} == {True, False}


@pytest.mark.parametrize("by", ["cpu", "order", "process", "size"])
def test_refills(trace: Trace, by: str) -> None:
    sql = """SELECT count(*), count(*) FILTER (change_ownership AND fallback_order < 9) FROM page_events
             WHERE alloc_order <= 3 OR (kind = 'zone_locked' AND percpu_refill)"""
    events, moved = duck(trace, sql)[0]
    found = analysis_named("refills")(trace, by=by)
    assert found["blocks"].sum() == events - moved
    assert (found["blocks_p50"] <= found["blocks_max"]).all()
    if by == "size":
        assert found["by"].cast(pl.Int64).is_sorted()
        assert (found["by"].cast(pl.Int64) * found["refills"] == found["blocks"]).all()


def test_filters(trace: Trace) -> None:
    view = View(trace, Selection(comm=("first",), order=(0, 3), time=(2000, 20_000)))
    sql = f"""SELECT count(*) FROM page_events WHERE {ALLOC} AND "order" IN (0, 3) AND ts_ns BETWEEN 3000 AND 20999
              AND (pid = 9 OR pid = 7 AND ts_ns < (SELECT max(first_ns) FROM tasks))"""
    assert rows(view, "callers", "requests")
    for name in ("callers", "orders", "gfp", "processes", "cgroups"):
        assert (
            analysis_named(name)(view, **({"by": "mask"} if name == "gfp" else {}))["requests"].sum()
            == duck(trace, sql)[0][0]
        )
    one = View(trace, Selection(comm=("second",), cpu=(1,)))
    assert set(analysis_named("refills")(one)["by"]) == {"1"}
    assert set(analysis_named("refills")(one, by="process")["by"]) == {"second"}


SPARE: tuple[dict[str, Any], ...] = ({"pid": (123456,)}, {"time": (10**12, None)}, {"cgroup": ("/a",)})
"""Filters that keep nothing, and one that keeps something."""


def test_all_options_on_odd_traces(tmp_path: Path, trace: Trace, bare: Trace) -> None:
    events = page_rows(300, 3, stacks=False)
    views = [View(bare), *(View(trace, Selection(**chosen)) for chosen in SPARE)]
    for name, rows_of in (("no tasks", events), ("one", [next(e for e in events if e["kind"] == "alloc")])):
        with TraceWriter(tmp_path / name, metadata(migratetypes=[])) as writer:
            writer.write("page_events", rows_batch("page_events", rows_of))
        views.append(View(Trace.open(tmp_path / name)))
    for view in views:
        for analysis in analyses().values():
            kinds = {k for need in analysis.needs for k in need.kinds}
            if analysis.group != "pages" or (view is views[-1] and "alloc" not in kinds):
                continue
            if set(view.selection.used) <= analysis.filters:
                for option, choice in [(None, "")] + [(o.name, c) for o in analysis.options for c in o.choices]:
                    answer = analysis.answer(view, **({option: choice} if option else {}))
                    assert answer.method.startswith("exact")
                    if analysis.picture is not None:
                        assert "<svg" in picture(answer.frame, analysis.picture, analysis.title)
