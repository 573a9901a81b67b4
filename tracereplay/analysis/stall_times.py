"""Begins and ends of direct reclaim and compaction paired by task, in one streaming pass."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tracereplay.analysis.analysis import Answer
from tracereplay.trace.schema import MM_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracereplay.analysis.view import View

COLUMNS = ("ts_ns", "cpu", "kind", "pid", "order", "result")
PERCENTILES = (50, 90, 99)
BACKGROUND = "kcompactd"
_PAIRS = {
    MM_KINDS.index("reclaim_begin"): ("reclaim", True),
    MM_KINDS.index("reclaim_end"): ("reclaim", False),
    MM_KINDS.index("compaction_begin"): ("compaction", True),
    MM_KINDS.index("compaction_end"): ("compaction", False),
}
_TRY = MM_KINDS.index("compaction_try")


@dataclass(frozen=True, slots=True)
class Stall:
    """One wait of one task."""

    what: str
    """``reclaim``; ``compaction``, of one zone; ``background compaction``, for which nobody waits."""
    begin_ns: int
    end_ns: int
    pid: int | None
    cpu: int
    order: int | None
    """Of the request. Compaction begins do not carry it: that of the task's compaction_try before it."""
    reclaimed: int
    """Pages that reclaim freed."""


@dataclass(slots=True)
class Unpaired:
    """Waits of which one end is not in what is looked at."""

    left_censored: int = 0
    right_censored: int = 0


def pairs(view: View, unpaired: Unpaired) -> Iterator[Stall]:
    """Stalls in the order of their ends, of all tasks. Memory: a begin for each task that waits.

    A begin after a begin of the same task and kind is one whose end was lost: the first of them is right-censored.
    """
    begun: dict[tuple[int | None, str], tuple[int, int, int | None]] = {}
    tried: dict[int | None, int | None] = {}
    for batch in view.batches("mm_events", COLUMNS):
        kinds = batch.column(2).indices
        for ts, cpu, kind, pid, order, result in zip(
            batch.column(0).to_pylist(), batch.column(1).to_pylist(), kinds.to_pylist(),
            *(batch.column(i).to_pylist() for i in (3, 4, 5)), strict=True,
        ):  # fmt: skip
            if kind == _TRY:
                tried[pid] = order
            if kind not in _PAIRS:
                continue
            what, begins = _PAIRS[kind]
            if begins:
                unpaired.right_censored += (pid, what) in begun
                begun[pid, what] = ts, cpu, order if what == "reclaim" else tried.get(pid)
            elif (begin := begun.pop((pid, what), None)) is None:
                unpaired.left_censored += 1
            else:
                yield Stall(what, begin[0], ts, pid, begin[1], begin[2], result or 0 if what == "reclaim" else 0)
    unpaired.right_censored += len(begun)


@dataclass(slots=True)
class _Group:
    times: array[int] = field(default_factory=lambda: array("q"))
    reclaimed: int = 0


def stalls(view: View, by: str) -> Answer:
    """Waits by group, the longest in all first. Percentiles are nearest-rank and exact: 8 bytes a wait are kept."""
    unpaired = Unpaired()
    groups: dict[str | None, _Group] = {}
    tasks = view.task_index
    names = tasks.frame.select("comm", "cgroup").rows()
    kept = tasks.matching(view.selection.comm, view.selection.cgroup)
    chosen = view.selection
    for stall in pairs(view, unpaired):
        pid = -1 if stall.pid is None else stall.pid
        row = int(tasks.rows(np.array([pid]), np.array([stall.begin_ns]))[0])
        if not kept[row] or (chosen.pid and pid not in chosen.pid) or (chosen.cpu and stall.cpu not in chosen.cpu):
            continue
        if chosen.order and stall.order not in chosen.order:
            continue
        comm, cgroup = names[row] if row >= 0 else (None, None)
        background = stall.what == "compaction" and (comm or "").startswith(BACKGROUND)
        if background and by != "what":
            continue  # nobody waits for it
        what = f"background {stall.what}" if background else stall.what
        key = {"what": what, "process": comm, "cgroup": cgroup, "order": stall.order, "cpu": stall.cpu, "none": "all"}
        group = groups.setdefault(None if key[by] is None else str(key[by]), _Group())
        group.times.append(stall.end_ns - stall.begin_ns)
        group.reclaimed += stall.reclaimed
    rows = [_row(name, group) for name, group in groups.items()]
    schema = ["by", "stalls", "total_ns", "mean_ns", *(f"p{p}_ns" for p in PERCENTILES), "max_ns", "reclaimed_pages"]
    types = dict.fromkeys(schema[1:], pl.Int64) | {"by": pl.String}
    frame = pl.DataFrame(rows, schema=schema, schema_overrides=types, orient="row")
    account = {"left_censored": unpaired.left_censored, "right_censored": unpaired.right_censored}
    notes = ("compaction is timed zone by zone",) if "compaction" in (frame["by"] if by == "what" else ()) else ()
    return Answer(
        frame.sort("total_ns", "by", descending=[True, False]), "percentiles: nearest rank, exact", account, notes
    )


def _row(name: str | None, group: _Group) -> tuple[Any, ...]:
    times = np.sort(np.frombuffer(group.times, np.int64))
    ranks = [int(times[max(0, -(-len(times) * p // 100) - 1)]) for p in PERCENTILES]
    total = int(times.sum())
    return (name, len(times), total, total // len(times), *ranks, int(times[-1]), group.reclaimed)
