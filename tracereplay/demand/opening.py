"""What reconstruction reads of a trace before its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracereplay.demand.callers import TRACER, Callers
from tracereplay.demand.state import PIDS, Array
from tracereplay.errors import TraceError
from tracereplay.kernel.constants import MAX_PAGE_ORDER
from tracereplay.kernel.gfp import gfp_table

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

MOST_FRAMES = (1 << 31) - 1
"""Keys are 32 bits wide (stream.OP)."""


def task_names(trace: Trace) -> dict[int, str]:
    """pid -> comm; of a pid with several, the first in time (renames.py has the others). The tracer's own tasks are
    named as such."""
    cost = trace.metadata.self_cost
    own = {cost[side]["pid"] for side in ("collector", "writer") if "pid" in cost.get(side, {})}
    names: dict[int, str] = {}
    since: dict[int, int] = {}
    for batch in trace.batches("tasks", ["pid", "tgid", "comm", "first_ns"]):
        for pid, tgid, comm, first in zip(*(batch.column(i).to_pylist() for i in range(4)), strict=True):
            begin = np.iinfo(np.int64).min if first is None else first
            if pid in own or tgid in own:
                names[pid], since[pid] = TRACER, np.iinfo(np.int64).min
            elif comm and (pid not in names or begin < since[pid]):
                names[pid], since[pid] = comm, begin
    return names


def task_cgroups(trace: Trace) -> dict[int, str]:
    """pid -> cgroup, where one was recorded; of a pid that was reused, the first."""
    found: dict[int, str] = {}
    for batch in trace.batches("tasks", ["pid", "cgroup"]):
        for pid, cgroup in zip(*(batch.column(i).to_pylist() for i in range(2)), strict=True):
            if cgroup:
                found.setdefault(pid, cgroup)
    return found


def gfp_names(trace: Trace) -> dict[str, int]:
    """Names of gfp bits of the recorded kernel."""
    return trace.metadata.gfp_flags or gfp_table(trace.metadata.host.get("release"))


def frames_of(trace: Trace) -> int:
    """Frames of the recorded host that the trace names, rounded up to a largest block."""
    found = trace.bounds("page_events", "pfn") if trace.rows("page_events") else None
    block = 1 << MAX_PAGE_ORDER
    frames = ((found[1] + 1 if found else 0) + block - 1) // block * block
    if frames > MOST_FRAMES:
        raise TraceError(
            f"page events name frame {found[1] if found else 0:#x}",
            hint="frames up to 2^31 can be replayed; the trace is damaged or not of a page allocator",
        )
    return max(frames, block)


def time_range(trace: Trace) -> tuple[int, int]:
    """First and last time of page and bio events."""
    ranges = [r for t in ("page_events", "bio_events") if (r := trace.sort_range(t)) is not None]
    return (min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else (0, 0)


def losses(trace: Trace, events: str = "page_events") -> tuple[Array, Array, Array]:
    """Intervals in which events of a table were lost, by start, and their CPUs. Open ends reach as far as time does."""
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    found: list[tuple[int, int, int]] = []
    for batch in trace.batches("loss", ["t0_ns", "t1_ns", "table", "n", "class", "cpu"]):
        columns = (batch.column(i).to_pylist() for i in range(6))
        for t0, t1, table, n, kind, cpu in zip(*columns, strict=True):
            if table in (events, "all") and n != 0 and kind != "stack":
                found.append((low if t0 is None else t0, high if t1 is None else t1, -1 if cpu is None else cpu))
    found.sort()
    table = np.array(found, np.int64).reshape(-1, 3)
    return table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy()


def comm_numbers(tasks: dict[int, str]) -> tuple[dict[str, int], Array]:
    """Numbers of task names, 0 being no name, and a table pid -> number of its name."""
    numbers: dict[str, int] = {"": 0}
    size = min(max(tasks, default=0) + 1, PIDS)
    table = np.zeros(max(size, 1), np.int32)
    for pid, comm in tasks.items():
        if pid < size:
            table[pid] = numbers.setdefault(comm, len(numbers))
    return numbers, table


def stack_callers(trace: Trace, callers: Callers) -> Array:
    """Table stack_id -> caller; -1 for a stack without symbols."""
    table: dict[int, list[tuple[int, str | None]]] = {}
    for batch in trace.batches("stacks", ["stack_id", "depth", "symbol"]):
        ids, depths, symbols = (batch.column(i).to_pylist() for i in range(3))
        for i, d, name in zip(ids, depths, symbols, strict=True):
            table.setdefault(i, []).append((d, name))
    made = np.full(max(table, default=-1) + 1, -1, np.int32)
    for i, entries in table.items():
        made[i] = callers.by_stack([name for _, name in sorted(entries, key=lambda e: e[0])])
    return made
