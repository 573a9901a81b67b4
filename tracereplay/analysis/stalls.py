"""What tasks waited for while they allocated: direct reclaim and direct compaction (mm/vmscan.c, mm/compaction.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.analysis import Analysis, Answer, Need, Option, Picture
from tracereplay.analysis.together import Together

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

BY = ("what", "process", "cgroup", "order", "cpu", "none")


def compute(view: View, *, by: str) -> Answer:
    """Columns: the group, ``stalls total_ns mean_ns p50_ns p90_ns p99_ns max_ns reclaimed_pages``; longest in all
    first."""
    from tracereplay.analysis.stall_times import stalls

    return stalls(view, by)


STALLS = Analysis(
    name="stalls",
    title="time that allocating tasks spent in direct reclaim and compaction",
    group="memory",
    compute=compute,
    needs=(Need("mm_events", ("reclaim_begin", "compaction_begin"), "capture --events page,reclaim"),),
    filters=frozenset({"time", "pid", "comm", "cgroup", "cpu", "order"}),
    options=(Option("by", "what", "what to group by", BY),),
    ranked=True,
    picture=Picture("bars", "by", "total_ns", title="Time in allocation stalls", unit="ns"),
    together=Together(
        ("by",),
        ("stalls", "total_ns", "reclaimed_pages"),
        ratios={"mean_ns": ("total_ns", "stalls")},
        most=("max_ns",),
        rank="total_ns",
    ),
)
ANALYSES = (STALLS,)
