"""Names that tasks take while the trace runs: after exec, by prctl(PR_SET_NAME), or as a new task of a reused pid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tracereplay.demand.callers import TRACER
from tracereplay.demand.state import PIDS, Array, Work

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace


def task_renames(trace: Trace, names: Mapping[int, str]) -> list[tuple[int, int, str]]:
    """(ts_ns, pid, name) in order of time: from then on the pid's task is called so. ``names``: what each pid is called
    first. The tracer stays the tracer."""
    rows: list[tuple[int, int, str]] = []
    for batch in trace.batches("tasks", ["first_ns", "pid", "comm"]):
        columns = zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True)
        rows += [(ts, pid, comm) for ts, pid, comm in columns if ts is not None and comm and pid < PIDS]
    now = dict(names)
    found = []
    for ts, pid, comm in sorted(rows):
        if now.get(pid) not in (comm, TRACER, None):
            found.append((ts, pid, comm))
            now[pid] = comm
    return found


@dataclass(frozen=True, slots=True)
class Names:
    """What tasks are called: numbers of names and groups of the target, each of ``pid``."""

    pid: Array
    comm: Array
    group: Array

    def put(self, work: Work, *tables: Array) -> None:
        """Call the tasks so: in the tables by pid, and in those of the tasks (state.TASK) that were seen."""
        work.comms[self.pid] = self.comm
        work.groups[self.pid] = self.group
        task = work.slots[self.pid & (PIDS - 1)] - 1
        seen = task >= 0
        for table in tables:
            table["comm"][task[seen]] = self.comm[seen]
            table["group"][task[seen]] = self.group[seen]
            table["caller"][task[seen]] = -1


class Renames:
    """Renames to be applied between the events of batches, which come in order of time."""

    def __init__(
        self,
        found: list[tuple[int, int, str]],
        number: Callable[[str], int],
        group: Callable[[int, str], int] = lambda _pid, _name: 0,
    ) -> None:
        """``number``: of a name. ``group``: of a pid's task of that name."""
        self._ts: Array = np.array([ts for ts, _, _ in found], np.int64)
        self._pid: Array = np.array([pid for _, pid, _ in found], np.int64)
        self._comm: Array = np.array([number(name) for _, _, name in found], np.int32)
        self._group: Array = np.array([group(pid, name) for _, pid, name in found], np.uint8)
        self._next = 0

    def pieces(self, ts: Array) -> Iterator[tuple[slice, Names]]:
        """Pieces of a batch, and the names that tasks take right before each. Changes nothing."""
        due = self._next
        cuts = np.searchsorted(ts, self._ts[due : self._end(ts)])
        starts = np.unique([0, *cuts.tolist()]).tolist()
        for start, end in zip(starts, [*starts[1:], len(ts)], strict=True):
            until = self._next + int(np.searchsorted(cuts, start, "right"))
            yield slice(start, end), self._names(due, until)
            due = until

    def before(self, ts: Array, work: Work) -> Names:
        """What tasks that a batch renames are called before it."""
        pid = np.unique(self._pid[self._next : self._end(ts)])
        return Names(pid, work.comms[pid].copy(), work.groups[pid].copy())

    def pass_by(self, ts: Array) -> None:
        """A batch is done with: what it renamed is not due again."""
        self._next = self._end(ts)

    def _end(self, ts: Array) -> int:
        return int(np.searchsorted(self._ts, ts[-1], "right")) if len(ts) else self._next

    def _names(self, begin: int, end: int) -> Names:
        return Names(self._pid[begin:end], self._comm[begin:end], self._group[begin:end])
