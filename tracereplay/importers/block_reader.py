"""What the readers of blktrace records and of blkparse text share: the state of a compiled parser, driven.

Grows what is full, drains rows after each call, and gathers tasks, gaps in sequence numbers and refusals.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.importers import blktrace_state as st
from tracereplay.importers.blktrace_format import REQUEST, TA_COMPLETE, count_names, flags_text, kinds_by_action
from tracereplay.importers.blktrace_tasks import replace_keys
from tracereplay.importers.interning import Texts
from tracereplay.importers.losses import LossInterval, LossTracker
from tracereplay.importers.ordering import Columns
from tracereplay.importers.rejects import Rejects
from tracereplay.trace.schema import TASKS

T = TypeVar("T", bound=np.generic)
Table = TypeVar("Table", st.Pids, st.Sequences)

ROWS = 1 << 17
"""Rows a call of the parser may give."""
WALL_CLOCKS = 8


class BlockReader(Protocol):
    """A source of block events, whatever its form."""

    shared: BlockState
    relative: bool
    """Times count from the first event by all means."""

    def chunks(self, advance: Callable[[int], None]) -> Iterator[Columns]:
        """Rows in the order of the source; columns of ``BlockRows``."""
        ...

    def settle(self, rows: Columns) -> None:
        """Set what of rows can be known only after more of the source, just before they are written."""
        ...

    def facts(self) -> dict[str, Any]:
        """``path sha256 ...`` of the source, for the metadata."""
        ...

    def format(self) -> str:
        """Name and version of what was read; known at the end."""
        ...


class BlockState:
    """Parser state over one source."""

    def __init__(self, streams: int) -> None:
        self.task_texts, self.comms = Texts(4096), Texts(1024)
        self.state = st.new_state(ROWS, streams, kinds_by_action(), self.task_texts.table, self.comms.table)
        self.rejects = Rejects()
        self.losses = LossTracker()
        self.walls: list[tuple[int, int]] = []
        """(trace clock, wall clock) in ns."""

    def scalar(self, slot: int) -> int:
        """A scalar of the parser's state (``blktrace_state``)."""
        return int(self.state.scalars[slot])

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Rows by tracepoint, and records without a table by name."""
        return count_names(self.state.counts.tolist())

    def bio_completions(self, n: int) -> None:
        """Of the completions counted as requests', so many were bios'."""
        self.state.counts[REQUEST + TA_COMPLETE] -= n
        self.state.counts[TA_COMPLETE] += n

    def flags(self) -> list[str]:
        """Texts of the numbers in column ``flags``."""
        return [flags_text(int(code)) for code in self.state.flag_codes[: self.scalar(st.FLAG_TEXTS)]]

    def cpus(self) -> int:
        """CPUs that have an event."""
        keys = self.state.sequences.key
        return int(np.unique(keys[keys >= 0] & 0xFFFF).size)

    def grow(self) -> None:
        """Double what is nearly full."""
        s = self.state
        self.task_texts.grow()
        self.comms.grow()
        tasks, pids, sequences = s.tasks, s.pids, s.sequences
        size = self.task_texts.table.hashes.size
        if tasks.first.size < size:
            tasks = st.Tasks(
                _longer(tasks.comm, size, -1),
                _longer(tasks.cgroup, size, 0),
                _longer(tasks.first, size, -1),
                _longer(tasks.last, size, -1),
            )
        if 4 * self.scalar(st.PIDS) >= pids.pid.size:
            pids = _moved(pids, st.pids(2 * pids.pid.size))
        if 4 * self.scalar(st.SEQUENCES) >= sequences.key.size:
            sequences = _moved(sequences, st.sequences(2 * sequences.key.size))
            s.streams.hint[:] = 0
        self.state = s._replace(
            task_texts=self.task_texts.table, comms=self.comms.table, tasks=tasks, pids=pids, sequences=sequences
        )

    def drain(self) -> Columns:
        """The rows of the last call."""
        n = self.scalar(st.ROWS)
        rows = {name: column[:n].copy() for name, column in self.state.rows._asdict().items()}
        notes, k = self.state.notes, self.state.scalars
        for i in range(self.scalar(st.GAPS)):
            self.losses.intervals.append(
                LossInterval(
                    int(notes.gap_cpu[i]),
                    int(notes.gap_t0[i]),
                    int(notes.gap_t1[i]),
                    int(notes.gap_n[i]),
                    "unknown",
                )
            )
        clocks = zip(notes.clock_ts.tolist(), notes.clock_wall.tolist(), strict=True)
        self.walls += [next(clocks) for _ in range(self.scalar(st.CLOCKS))][: WALL_CLOCKS - len(self.walls)]
        k[st.ROWS] = k[st.GAPS] = k[st.CLOCKS] = 0
        return rows

    def task_batch(self) -> pa.RecordBatch:
        """Rows of ``tasks``: one per pid, name and cgroup."""
        n = len(self.task_texts)
        tasks = self.state.tasks
        comms = [text.decode("utf-8", "backslashreplace") for text in self.comms.texts()]
        columns = {
            "pid": pa.array(self.task_texts.table.keys[:n], pa.uint32()),
            "tgid": pa.nulls(n, pa.uint32()),
            "comm": pa.array([comms[c] if c >= 0 else None for c in tasks.comm[:n]], pa.string()),
            "cgroup": pa.array([str(c) if c else None for c in tasks.cgroup[:n].tolist()], pa.string()),
            "first_ns": pa.array(tasks.first[:n]),
            "last_ns": pa.array(tasks.last[:n]),
        }
        return pa.RecordBatch.from_arrays([columns[f.name] for f in TASKS], schema=TASKS)


def _longer(array: npt.NDArray[T], size: int, value: int) -> npt.NDArray[T]:
    longer = np.full(size, value, array.dtype)
    longer[: array.size] = array
    return longer


def _moved(old: Table, new: Table) -> Table:
    """The rows of a table by key (its first array, -1 where it is free) in a larger, empty one."""
    used = old[0] != -1
    places = replace_keys(old[0], new[0], np.zeros(old[0].size, np.int64))[used]
    columns: Any = zip(old[1:], new[1:], strict=True)
    for before, after in columns:
        after[places] = before[used]
    return new
