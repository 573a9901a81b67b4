"""Stalls paired by task, and fragmentation from the twin and from buddyinfo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trace_samples import metadata, rows_batch, write_sample
from tracereplay import Trace
from tracereplay.analysis.fragmentation import FRAGMENTATION
from tracereplay.analysis.selection import Selection
from tracereplay.analysis.stalls import STALLS
from tracereplay.analysis.view import View
from tracereplay.errors import EmptyTraceError
from tracereplay.trace.writer import TraceWriter

ROOT = Path(__file__).parents[2]


def event(ts: int, pid: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"ts_ns": ts, "cpu": 0, "kind": kind, "pid": pid, **more}


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Task 1 reclaims for 100 and 300 ns, task 2 compacts two zones for order 9, kcompactd (3) in the background; ends
    without begins, begins without ends."""
    rows = [
        event(5, 9, "reclaim_end", result=7),
        event(10, 1, "reclaim_begin", order=0),
        event(20, 2, "compaction_try", order=9),
        event(30, 2, "compaction_begin"),
        event(40, 3, "compaction_begin"),
        event(80, 2, "compaction_end", result=1),
        event(90, 2, "compaction_begin"),
        event(110, 1, "reclaim_end", result=32),
        event(120, 2, "compaction_end", result=8),
        event(200, 1, "reclaim_begin", order=2),
        event(240, 3, "compaction_end"),
        event(500, 1, "reclaim_end", result=1),
        event(600, 1, "reclaim_begin", order=2),
        event(610, 1, "reclaim_begin", order=2),
        event(700, 4, "kswapd_wake"),
    ]
    names = {1: "cc1", 2: "qemu", 3: "kcompactd0"}
    path = tmp_path_factory.mktemp("waits") / "t.trace"
    with TraceWriter(path, metadata()) as writer:
        writer.write("mm_events", rows_batch("mm_events", rows))
        tasks = [{"pid": p, "tgid": p, "comm": c, "first_ns": 0, "last_ns": 999} for p, c in names.items()]
        writer.write("tasks", rows_batch("tasks", tasks))
    return Trace.open(path)


def test_stalls_are_paired_by_task(waits: Trace) -> None:
    answer = STALLS.answer(waits)
    shown = answer.frame.select("by", "stalls", "total_ns", "mean_ns", "p50_ns", "p99_ns", "max_ns", "reclaimed_pages")
    assert shown.rows() == [
        ("reclaim", 2, 400, 200, 100, 300, 300, 33),
        ("background compaction", 1, 200, 200, 200, 200, 200, 0),
        ("compaction", 2, 80, 40, 30, 50, 50, 0),
    ]
    assert answer.account == {"left_censored": 1, "right_censored": 2}


@pytest.mark.parametrize(
    ("by", "selection", "rows"),
    [
        ("order", {}, [("2", 300), ("0", 100), ("9", 80)]),
        ("process", {}, [("cc1", 400), ("qemu", 80)]),
        ("none", {}, [("all", 480)]),
        ("none", {"comm": ("q*",)}, [("all", 80)]),
        ("none", {"order": (0, 9)}, [("all", 180)]),
        ("process", {"time": (0, 130)}, [("cc1", 100), ("qemu", 80)]),
        ("process", {"time": (100, 300)}, []),
    ],
)
def test_stalls_by_group(waits: Trace, by: str, selection: dict[str, Any], rows: list[tuple[Any, int]]) -> None:
    frame = STALLS(View(waits, Selection(**selection)), by=by)
    assert frame.select("by", "total_ns").rows() == rows


def test_the_twin_starts_where_buddyinfo_does_and_ends_near_it() -> None:
    trace = Trace.open(ROOT / "traces" / "dmcrypt-6.12-bulk")
    answer = FRAGMENTATION.answer(trace, bins=3)
    frame = answer.frame
    assert frame.select("source", "t_ns").unique().height == 3 + 4
    assert frame["zone"].unique().to_list() == ["all"]
    ends = {}
    for source in ("twin", "buddyinfo"):
        own = frame.filter(source=source)
        ends[source] = [own.filter(t_ns=own["t_ns"].min()), own.filter(t_ns=own["t_ns"].max())]
    assert ends["twin"][0]["blocks"].to_list() == ends["buddyinfo"][0]["blocks"].to_list()
    pages = [ends[s][1]["free_pages"].sum() for s in ends]
    assert pages[0] == pytest.approx(pages[1], rel=0.02)
    for _, rows in frame.group_by("source", "t_ns"):
        shares = rows.sort("order")["unusable_share"].to_list()
        assert shares[0] == 0
        assert shares == sorted(shares)
    last = frame.filter(source="twin")[-1]
    assert last["fallbacks"][0] == 1


def test_foreign_snapshots_stand_before_and_after_the_events() -> None:
    trace = Trace.open(ROOT / "traces" / "dmcrypt-6.1-4k")
    frame = FRAGMENTATION(trace, source="buddyinfo", zones="each")
    view = View(trace)
    assert frame["t_ns"].unique(maintain_order=True).to_list() == [0, view.last_ns - view.origin_ns]
    assert "all" not in frame["zone"]


def test_neither_source_is_an_error(tmp_path: Path) -> None:
    trace = Trace.open(write_sample(tmp_path / "t.trace"))
    with pytest.raises(EmptyTraceError):
        FRAGMENTATION.answer(trace, source="twin")
