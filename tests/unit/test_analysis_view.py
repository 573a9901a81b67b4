"""The frame of analyses: views, filters, tasks by time, needs, options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.trace_samples import metadata, rows_batch, write_sample
from tracereplay import Trace
from tracereplay.analysis.analysis import PAGE_FILTERS, PAGES, Analysis, Answer, Need, Option
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.view import View
from tracereplay.errors import EmptyTraceError, UsageError
from tracereplay.trace.writer import TraceWriter


def count(view: View, *, by: str, least: int) -> Answer:
    events = view.events("page_events").filter(kind="alloc")
    frame = events.group_by(by).agg(pl.len().alias("n")).filter(pl.col("n") >= least).sort("n", by, descending=True)
    return Answer(frame.collect(), "exact")


COUNT = Analysis(
    name="count",
    title="allocations",
    group="pages",
    compute=count,
    needs=(PAGES,),
    filters=PAGE_FILTERS,
    options=(Option("by", "cpu", "what to group by", ("cpu", "order")), Option("least", 0, "events at least")),
    ranked=True,
)


def reused_pid(path: Path, **facts: Any) -> Trace:
    """Pid 7 is `first` until 1,000 ns and `second` from 2,000 on; pid 8 has a cgroup; pid 9 has no task."""
    rows = [
        {"ts_ns": ts, "cpu": ts % 2, "kind": "alloc", "pfn": ts, "order": ts % 3, "pid": pid}
        for ts, pid in ((500, 7), (900, 8), (1500, 7), (2000, 7), (2500, 7), (2501, 9), (3000, 8))
    ]
    with TraceWriter(path, metadata(**facts)) as writer:
        writer.write("page_events", rows_batch("page_events", rows))
        tasks = [
            {"pid": 7, "tgid": 7, "comm": "second", "first_ns": 2000, "last_ns": 2500},
            {"pid": 7, "tgid": 1, "comm": "first", "first_ns": 600, "last_ns": 1000},
            {"pid": 8, "tgid": 8, "comm": "other", "cgroup": "/a/b", "first_ns": 900, "last_ns": 3000},
        ]
        writer.write("tasks", rows_batch("tasks", tasks))
    return Trace.open(path)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return reused_pid(tmp_path_factory.mktemp("view") / "t.trace")


def kept(view: View) -> list[int]:
    """Times of the rows that a view keeps, by both roads."""
    lazy = view.events("page_events").select("ts_ns").collect(engine="streaming")["ts_ns"].to_list()
    streamed: list[int] = []
    for batch in view.batches("page_events", ["ts_ns"]):
        mask = view.mask(batch)
        times = batch.column(0).to_numpy()
        streamed += (times if mask is None else times[mask]).tolist()
    assert lazy == streamed
    return lazy


@pytest.mark.parametrize(
    ("filters", "times"),
    [
        ({}, [500, 900, 1500, 2000, 2500, 2501, 3000]),
        ({"time": (400, 2000)}, [900, 1500, 2000]),
        ({"time": (None, 401)}, [500, 900]),
        ({"time": (2500, None)}, [3000]),
        ({"time": (90_000, None)}, []),
        ({"pid": (7, 9)}, [500, 1500, 2000, 2500, 2501]),
        ({"comm": ("first",)}, [500, 1500]),
        ({"comm": ("sec*",)}, [2000, 2500]),
        ({"comm": ("*",)}, [500, 900, 1500, 2000, 2500, 3000]),
        ({"cgroup": ("/a/*",)}, [900, 3000]),
        ({"cpu": (1,)}, [2501]),
        ({"order": (0,), "cpu": (0,)}, [900, 1500, 3000]),
        ({"comm": ("second",), "time": (1600, None)}, [2500]),
        ({"device": (1,)}, [500, 900, 1500, 2000, 2500, 2501, 3000]),
    ],
)
def test_filters_keep_the_same_rows_lazily_and_streamed(
    trace: Trace, filters: dict[str, Any], times: list[int]
) -> None:
    assert kept(View(trace, Selection(**filters))) == times


def test_a_reused_pid_is_a_task_by_time(trace: Trace) -> None:
    view = View(trace)
    named = view.with_task(view.events("page_events").select("ts_ns", "pid")).collect(engine="streaming")
    assert named["comm"].to_list() == ["first", "other", "first", "second", "second", None, "other"]
    assert named["tgid"].to_list() == [1, 8, 1, 7, 7, None, 8]
    assert named.columns == ["ts_ns", "pid", "tgid", "comm", "cgroup"]


def test_time_of_a_view(trace: Trace) -> None:
    whole = View(trace)
    assert (whole.start_ns, whole.end_ns) == (500, 3001)
    part = View(trace, Selection(time=(100, 200)))
    assert (part.start_ns, part.end_ns, part.seconds) == (600, 700, 1e-7)


def test_an_analysis_is_a_function_of_a_trace(trace: Trace) -> None:
    assert COUNT(trace).rows() == [(0, 6), (1, 1)]
    assert COUNT(View(trace, Selection(pid=(8,))), by="order").rows() == [(0, 2)]
    answer = COUNT.answer(trace, top=1, by="order")
    assert answer.frame.rows() == [(2, 3)]
    assert answer.notes == ("the first 1 of 3 rows",)
    assert COUNT(trace, least="2").rows() == [(0, 6)]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"bye": "cpu"}, "no option 'bye'.*mean 'by'"),
        ({"by": "cpus"}, "by=cpus is none of them.*mean 'cpu'"),
        ({"least": "many"}, "least=many: not a whole number"),
    ],
)
def test_wrong_options_are_named(trace: Trace, told: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        COUNT.answer(trace, **told)
    assert re.search(said, f"{caught.value.message} {caught.value.hint}")


def test_a_filter_without_a_meaning_is_refused(trace: Trace) -> None:
    with pytest.raises(UsageError, match="count cannot be filtered by device"):
        COUNT.answer(View(trace, Selection(device=(1,))))


def needing(table: str, *kinds: str) -> Analysis:
    need = Need(table, kinds, "capture --events buddy")
    return Analysis("drains", "drains", "pages", lambda view: Answer(pl.DataFrame(), "exact"), (need,), frozenset())


def test_a_trace_without_the_events_is_refused_with_the_option_that_records_them(trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(EmptyTraceError, match="drains needs drain events") as caught:
        needing("page_events", "drain").answer(trace)
    assert caught.value.hint == "record them with: tracereplay capture --events buddy"
    with pytest.raises(EmptyTraceError):
        needing("bio_events", "queue").answer(trace)
    needing("page_events", "drain", "alloc").answer(trace)
    recorded = reused_pid(tmp_path / "r.trace", events=["kmem:mm_page_pcpu_drain"])
    needing("page_events", "drain").answer(recorded)  # was looked for, and none happened
    watched = reused_pid(tmp_path / "w.trace", events=["vmscan:mm_vmscan_direct_reclaim_begin"])
    needing("mm_events", "reclaim_begin").answer(watched)


def test_callers_of_stacks(tmp_path: Path) -> None:
    frames = {1: ["get_page_from_freelist", "__alloc_pages", "do_fault", "entry"], 2: ["__alloc_pages"], 3: [None]}
    rows = [
        {"stack_id": i, "depth": d, "address": 4096 + d, "symbol": s}
        for i, names in frames.items()
        for d, s in enumerate(names)
    ]
    path = write_sample(tmp_path / "s.trace")
    with TraceWriter(tmp_path / "c.trace", metadata()) as writer:
        writer.write("stacks", rows_batch("stacks", rows))
    callers = View(Trace.open(tmp_path / "c.trace")).callers()
    assert callers["caller"].to_list() == ["do_fault", "__alloc_pages", "(no symbols)"]
    assert callers["stack"][0].to_list() == ["entry", "do_fault", "__alloc_pages", "get_page_from_freelist"]
    assert View(Trace.open(path)).callers().is_empty()
