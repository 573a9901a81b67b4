"""A trace and what of it is looked at: its events filtered, its tasks and callers by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.analysis.selection import Selection
from tracereplay.analysis.tasks import COLUMNS, TaskIndex
from tracereplay.kernel.allocators import ALLOCATOR
from tracereplay.trace.schema import EVENT_TABLES, TABLES

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

_COLUMN_OF = {"pid": "pid", "cpu": "cpu", "order": "order", "device": "dev"}
"""Filters by value, and the column that they look at."""
NO_SYMBOLS = "(no symbols)"


@dataclass(frozen=True)
class View:
    """Events of a trace that a selection keeps. Memory does not grow with the trace."""

    trace: Trace
    selection: Selection = field(default_factory=Selection)

    @classmethod
    def of(cls, trace: Trace | View) -> View:
        """A view of all of a trace; a view as it is."""
        return trace if isinstance(trace, View) else cls(trace)

    # ------------------------------------------------------------ time
    @cached_property
    def _ends(self) -> tuple[int, int]:
        ranges = [r for t in EVENT_TABLES if (r := self.trace.sort_range(t)) is not None]
        return (min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else (0, 0)

    @property
    def origin_ns(self) -> int:
        """The trace's first event: times that are shown count from here, whatever is looked at."""
        return self._ends[0]

    @property
    def last_ns(self) -> int:
        """The trace's last event."""
        return self._ends[1]

    @property
    def start_ns(self) -> int:
        """First moment looked at, trace clock: the trace's first event, or later by the selection."""
        first, after = self._ends[0], self.selection.time[0]
        return first if after is None else first + after

    @property
    def end_ns(self) -> int:
        """First moment no longer looked at, trace clock: after the trace's last event, or earlier."""
        first, last = self._ends
        until = self.selection.time[1]
        return last + 1 if until is None else min(last + 1, first + until)

    @property
    def seconds(self) -> float:
        """Length of what is looked at."""
        return max(0, self.end_ns - self.start_ns) / 1e9

    # ------------------------------------------------------------ events
    def events(self, table: str) -> pl.LazyFrame:
        """Rows of an event table that the selection keeps, all columns. Filters on columns that the table lacks (order
        of bios, device of pages) keep everything.

        Raises MissingTableError, TruncatedTraceError.
        """
        frame = self.trace.table(table)
        chosen = self.selection
        if chosen.time[0] is not None:
            frame = frame.filter(pl.col("ts_ns") >= self.start_ns)
        if chosen.time[1] is not None:
            frame = frame.filter(pl.col("ts_ns") < self.end_ns)
        columns = TABLES[table].schema.names
        for name, column in _COLUMN_OF.items():
            values = getattr(chosen, name)
            if values and column in columns:
                frame = frame.filter(pl.col(column).cast(pl.Int64).is_in(values))
        if chosen.comm or chosen.cgroup:
            rows = np.flatnonzero(self._kept_tasks[:-1]).tolist()
            frame = frame.filter(self.task_index.of("ts_ns", "pid").cast(pl.Int64).is_in(rows))
        return frame

    def batches(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The table's rows between the selection's times, streamed, for a pass that must see all of them.

        The other filters are not applied; :meth:`mask` tells which rows they keep. Its columns follow those asked for.
        """
        wanted = list(dict.fromkeys([*columns, *self._mask_columns(table)]))
        limited = self.selection.time != (None, None)
        if limited and "ts_ns" not in wanted:
            wanted.append("ts_ns")
        for batch in self.trace.batches(table, wanted):
            if limited and batch.num_rows:
                ts = batch.column(wanted.index("ts_ns")).to_numpy()
                low, high = np.searchsorted(ts, (self.start_ns, self.end_ns))
                if high > low:
                    yield batch.slice(low, high - low)
                if high < len(ts):
                    return
            else:
                yield batch

    def shares(self, table: str, columns: Sequence[str], n: int) -> list[Iterator[pa.RecordBatch]]:
        """The same in up to ``n`` shares, each for a thread of its own, for what does not depend on order."""
        if self.selection.time != (None, None):
            return [self.batches(table, columns)]
        return self.trace.shares(table, list(dict.fromkeys([*columns, *self._mask_columns(table)])), n)

    def mask(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_] | None:
        """Rows of a batch of :meth:`batches` that the filters keep; None: all of them."""
        kept: npt.NDArray[np.bool_] | None = None
        names = batch.schema.names
        for name, column in _COLUMN_OF.items():
            values = getattr(self.selection, name)
            if values and column in names:
                found = np.isin(pc.fill_null(batch.column(column).cast(pa.int64()), -1).to_numpy(), values)
                kept = found if kept is None else kept & found
        if self.selection.comm or self.selection.cgroup:
            pids = pc.fill_null(batch.column("pid").cast(pa.int64()), -1).to_numpy()
            found = self._kept_tasks[self.task_index.rows(pids, batch.column("ts_ns").to_numpy())]
            kept = found if kept is None else kept & found
        return kept

    def _mask_columns(self, table: str) -> list[str]:
        names = TABLES[table].schema.names
        found = [c for f, c in _COLUMN_OF.items() if getattr(self.selection, f) and c in names]
        return [*found, "pid", "ts_ns"] if self.selection.comm or self.selection.cgroup else found

    # ------------------------------------------------------------ names
    @cached_property
    def task_index(self) -> TaskIndex:
        """Tasks by pid and time."""
        return TaskIndex(self.trace)

    @cached_property
    def _kept_tasks(self) -> npt.NDArray[np.bool_]:
        return self.task_index.matching(self.selection.comm, self.selection.cgroup)

    def with_task(self, frame: pl.LazyFrame, *, ts: str = "ts_ns", pid: str = "pid") -> pl.LazyFrame:
        """A frame with columns ``tgid comm cgroup`` of the task that had ``pid`` at ``ts``; null when unknown."""
        names = self.task_index.frame.lazy().select("row", *COLUMNS)
        found = frame.with_columns(self.task_index.of(ts, pid).alias("row"))
        return found.join(names, on="row", how="left", maintain_order="left").drop("row")

    def callers(self) -> pl.DataFrame:
        """Stacks of the trace: ``stack_id``, ``caller`` (the innermost function that is not the allocator's) and
        ``stack`` (functions, outermost first). Small: a row for each distinct stack."""
        name = pl.coalesce(pl.col("symbol").cast(pl.String), pl.format("0x{}", pl.col("address").cast(pl.String)))
        columns = ["stack_id", "depth", "symbol", "address"]
        parts = [pl.DataFrame(pl.from_arrow(batch)) for batch in self.trace.batches("stacks", columns)]
        frames = pl.concat(parts) if parts else self.trace.stacks.select(columns).collect()  # a lazy scan takes 60 MB
        frames = frames.sort("stack_id", "depth").with_columns(name.fill_null("?").alias("name"))
        allocator = [n for n in frames["name"].unique().to_list() if ALLOCATOR.match(n)]
        outside = pl.col("name").filter(~pl.col("name").is_in(allocator)).first()
        named = pl.col("symbol").is_not_null().any()
        caller = pl.when(named).then(pl.coalesce(outside, pl.col("name").last())).otherwise(pl.lit(NO_SYMBOLS))
        stack = pl.col("name").reverse().alias("stack")
        return frames.group_by("stack_id", maintain_order=True).agg(caller.alias("caller"), stack)

    def device_name(self, dev: int | None) -> str:
        """``major:minor`` of a device, and the name that an imported source gave it (``0:3 web_3``)."""
        name = self.trace.metadata.source.get("devices", {}).get(str(dev), "")
        return "-" if dev is None else f"{dev >> 20}:{dev & 0xFFFFF} {name}".rstrip()
