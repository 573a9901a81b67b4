"""Which task an event belongs to: pids are reused, so it depends on the time."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracereplay.trace.reader import Trace

COLUMNS = ("tgid", "comm", "cgroup")


class TaskIndex:
    """Tasks of a trace, to be looked up by pid and time.

    A pid's tasks follow one another: each begins when it was first seen, the first one at the beginning of time.
    """

    def __init__(self, trace: Trace) -> None:
        """Reads table ``tasks``, which is small. Raises TruncatedTraceError."""
        self.frame = (
            trace.tasks.select("pid", "first_ns", *COLUMNS)
            .sort("pid", "first_ns", nulls_last=False, maintain_order=True)
            .collect()
            .with_row_index("row")
        )
        """Columns ``row pid first_ns tgid comm cgroup``, by pid and time."""
        self._pid = self.frame["pid"].to_numpy().astype(np.int64)
        self._since = self.frame["first_ns"].fill_null(np.iinfo(np.int64).min).to_numpy()

    def rows(self, pid: npt.NDArray[np.int64], ts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Row of each event's task; -1: no task of that pid is known. Negative pids are unknown tasks."""
        if not len(self._pid):
            return np.full(len(pid), -1)
        row = np.searchsorted(self._pid, pid, "right") - 1
        found = (row >= 0) & (self._pid[row] == pid)
        while True:  # at most as often as one pid was reused
            earlier = found & (self._since[row] > ts) & (row > 0) & (self._pid[np.maximum(row, 1) - 1] == pid)
            if not earlier.any():
                return np.where(found, row, -1)
            row = row - earlier

    def matching(self, comm: Sequence[str], cgroup: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which rows match one of the globs of each kind; no globs: all do. The last element is row -1: no task."""
        kept = [
            _any(name, comm) and _any(group, cgroup) for name, group in self.frame.select("comm", "cgroup").iter_rows()
        ]
        return np.array([*kept, not comm and not cgroup])

    def of(self, ts: str, pid: str) -> pl.Expr:
        """The row of each event's task, null when unknown; streams."""

        def look_up(both: pl.Series) -> pl.Series:
            pids = both.struct.field(pid).cast(pl.Int64).fill_null(-1).to_numpy()
            rows = self.rows(pids, both.struct.field(ts).cast(pl.Int64).fill_null(0).to_numpy())
            return pl.Series(both.name, rows, pl.Int64)

        row = pl.struct(ts, pid).map_batches(look_up, return_dtype=pl.Int64, is_elementwise=True)
        return pl.when(row >= 0).then(row).cast(self.frame.schema["row"])


def _any(name: str | None, globs: Sequence[str]) -> bool:
    return not globs or any(fnmatchcase(name or "", glob) for glob in globs)
