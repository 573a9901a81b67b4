"""Flight recorder: a trace of the last minutes of a run that may take weeks.

The run is cut into segments of a tenth of the window. At a cut every open file is closed, so that a segment is
complete in all event tables from one instant on; segments that ended before the window began are dropped,
first out of the manifest, then off the disk. At the freeze the small tables are reduced to what belongs to the
window that is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracereplay.trace.manifest import FileEntry
from tracereplay.trace.partwriter import storage
from tracereplay.trace.schema import EVENT_TABLES, TABLES
from tracereplay.trace.writer import TraceWriter

SEGMENTS = 10
"""Cuts per window: the trace holds up to a tenth more than asked for."""
MAX_IDS = 1 << 22
"""Task ids (PID_MAX_LIMIT of the kernel) and stack ids that are followed one by one."""

_SECOND = 1_000_000_000
_BEFORE = ("loss", "shed")
"""Tables of intervals: a row belongs to the window when it ends in it, or has no end."""


@dataclass(slots=True)
class _Segment:
    """What was closed at one cut."""

    number: int
    end_ns: int
    """Every event from here on is in a later segment."""
    files: list[FileEntry] = field(default_factory=list)
    rows: int = 0
    """Events."""


class _Marks:
    """By id, the last segment in which it was seen. Memory: 4 bytes for each id up to the greatest one."""

    def __init__(self) -> None:
        self._last: npt.NDArray[np.uint32] = np.zeros(1 << 10, np.uint32)

    def add(self, ids: pa.Array, segment: int) -> None:
        """Note that these were seen now; nulls are not."""
        values = (ids.drop_null() if ids.null_count else ids).to_numpy()
        if not len(values):
            return
        top = int(values.max())
        if top >= MAX_IDS:
            values = values[values < MAX_IDS]
            top = MAX_IDS - 1
        if top >= len(self._last):
            grown = np.zeros(min(MAX_IDS, 1 << top.bit_length()), np.uint32)
            grown[: len(self._last)] = self._last
            self._last = grown
        self._last[values] = segment

    def since(self, ids: pa.Array, segment: int) -> npt.NDArray[np.bool_]:
        """Whether each was seen in this segment or a later one; true for ids too great to be followed."""
        values = pc.fill_null(ids, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        known = values < len(self._last)
        found: npt.NDArray[np.bool_] = values >= MAX_IDS
        found[known] = self._last[values[known]] >= segment
        return found


class FlightRecorder:
    """Keeps at least the last ``window_ns`` of a writer's trace on disk; with ``max_bytes`` at most so much.

    Times are those of the trace clock, and only move forward.
    """

    def __init__(self, writer: TraceWriter, window_ns: int, max_bytes: int | None = None) -> None:
        self.window_ns = window_ns
        self.dropped_events = 0
        self.dropped_files = 0
        self.from_ns: int | None = None
        """The trace is complete from here on; None: nothing has been dropped, it goes back to the start."""
        self.state_ns: int | None = None
        """Time of the snapshot in the window that has become its start; known after the freeze."""
        self.dropped_loss: dict[str, int] = {}
        """Losses whose rows went with their segment, by class."""
        self._writer = writer
        self._max_bytes = max_bytes
        self._segments: deque[_Segment] = deque()
        self._number = 1
        self._cut_ns: int | None = None
        self._tasks = _Marks()
        self._stacks = _Marks()
        self._facts: dict[str, Any] = {"window_s": window_ns / _SECOND}
        self._note = ""
        self._torn_map = False
        self._ends: dict[str, int | None] = {}
        writer.metadata.source["flight"] = self._facts

    # ------------------------------------------------------------ while it runs
    def on_rows(self, table: str, columns: Mapping[str, pa.Array]) -> None:
        """Note whose events are written."""
        if table in EVENT_TABLES:
            for name, marks in (("pid", self._tasks), ("stack_id", self._stacks)):
                if name in columns:
                    marks.add(columns[name], self._number)

    def on_time(self, now_ns: int) -> bool:
        """Cut and drop what is due; whether it was. What is written later may be older than ``now_ns``: it stays
        longer than it must.
        """
        if self._cut_ns is None:
            self._cut_ns = now_ns
        full = self._max_bytes is not None and self._writer.open_bytes * SEGMENTS >= self._max_bytes
        if not full and (now_ns - self._cut_ns) * SEGMENTS < self.window_ns:
            return False
        self._cut(now_ns)
        self._drop(now_ns)
        return True

    def seen_tasks(self, pids: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which tasks made an event in a segment that is kept."""
        return self._tasks.since(pa.array(pids, pa.uint32()), self._first)

    @property
    def _first(self) -> int:
        """Number of the first segment that is kept."""
        return self._segments[0].number if self._segments else self._number

    def _cut(self, now_ns: int) -> None:
        segment = _Segment(self._number, now_ns)
        for entry in self._writer.rotate():
            table = entry.file.split("/")[0]
            if table in EVENT_TABLES or table == "page_map":
                segment.files.append(entry)
                segment.rows += entry.rows if table in EVENT_TABLES else 0
        self._segments.append(segment)
        self._number += 1
        self._cut_ns = now_ns

    def _drop(self, now_ns: int) -> None:
        gone: list[FileEntry] = []
        spare = (
            0 if self._max_bytes is None else self._writer.finished_bytes - self._max_bytes * (SEGMENTS - 1) // SEGMENTS
        )
        old = False
        while self._segments and (
            self._segments[0].end_ns <= now_ns - self.window_ns or (spare > 0 and len(self._segments) > 1)
        ):
            segment = self._segments.popleft()
            old = True
            self.from_ns = segment.end_ns
            self.dropped_events += segment.rows
            gone += segment.files
            self._torn_map |= any(e.file.startswith("page_map/") for e in segment.files)
            spare -= sum(e.bytes for e in segment.files)
        if not old:
            return
        gone += self._side_files()
        self.dropped_files += len(gone)
        self._tell()
        if gone:
            self._writer.drop([e.file for e in gone])

    def _side_files(self) -> list[FileEntry]:
        """Files of the small tables that hold nothing of the window any more."""
        assert self.from_ns is not None
        gone = []
        for table in _BEFORE:
            for entry in self._writer.files(table):
                end = self._end_of(table, entry)
                if end is None or end >= self.from_ns:
                    break
                if table == "loss":
                    self._count_loss(self._read(entry))
                gone.append(entry)
        snapshots = self._writer.files("snapshots")
        for entry, later in pairwise(snapshots):
            first = pc.min(self._read(later, ["ts_ns"]).column("ts_ns")).as_py()
            if first is None or first > self.from_ns:
                break
            gone.append(entry)
        for entry in gone:
            self._ends.pop(entry.file, None)
        return gone

    def _end_of(self, table: str, entry: FileEntry) -> int | None:
        """When the last interval of a file ends; None: one of them has no end."""
        if entry.file not in self._ends:
            column = self._read(entry, ["t1_ns"]).column("t1_ns")
            self._ends[entry.file] = None if column.null_count else pc.max(column).as_py()
        return self._ends[entry.file]

    def _count_loss(self, rows: pa.Table) -> None:
        for name, n in zip(rows.column("class").to_pylist(), rows.column("n").to_pylist(), strict=True):
            self.dropped_loss[name] = self.dropped_loss.get(name, 0) + (n or 0)

    def _read(self, entry: FileEntry, columns: list[str] | None = None) -> pa.Table:
        path = self._writer.path / entry.file
        with storage(path), pq.ParquetFile(path) as file:
            return file.read(columns)

    def _tell(self) -> None:
        """What the metadata say, also of a recorder that is killed later."""
        self._facts.update(dropped_events=self.dropped_events, dropped_files=self.dropped_files, from_ns=self.from_ns)
        self._set_note("flight recorder: this is the end of a longer run; what was before has been dropped")

    def _set_note(self, note: str) -> None:
        notes = self._writer.metadata.notes
        if self._note in notes:
            notes[notes.index(self._note)] = note
        else:
            notes.append(note)
        self._note = note

    # ------------------------------------------------------------ the end
    def freeze(self, now_ns: int, frozen_by: str, trigger: Mapping[str, Any] | None = None) -> None:
        """Reduce the small tables to the window; after this the trace is finished or given up.

        Raises StorageError.
        """
        self._cut(now_ns)
        self._drop(now_ns)
        self._facts.update(
            frozen_by=frozen_by,
            to_ns=now_ns,
            dropped_events=self.dropped_events,
            dropped_files=self.dropped_files,
            from_ns=self.from_ns,
        )
        if trigger:
            self._facts["trigger"] = dict(trigger)
        if self.from_ns is None:
            return
        if self._torn_map:  # it was being read when the window began: half a map tells nobody that it is half
            self._writer.drop([e.file for e in self._writer.files("page_map")])
        self._reduce_intervals()
        self._reduce("tasks", self._tasks_of)
        self._reduce("stacks", lambda rows: self._stacks.since(rows.column("stack_id").combine_chunks(), self._first))
        self._start_snapshot()
        self._window_loss()
        seconds = (now_ns - self.from_ns) / _SECOND
        self._facts["kept_s"] = seconds
        self._set_note(
            f"flight recorder: the last {_span(seconds)} of a longer run, frozen by {frozen_by}; "
            f"{self.dropped_events:,} earlier events were dropped"
        )

    def _reduce(self, table: str, keep: Callable[[pa.Table], npt.NDArray[np.bool_]]) -> None:
        """Rewrite the files of a small table that hold rows to leave out."""
        files: list[str] = []
        kept: list[pa.Table] = []
        for entry in self._writer.files(table):
            rows = self._read(entry)
            mask = keep(rows)
            if mask.all() and not (files and TABLES[table].sorted_by):
                continue
            files.append(entry.file)
            kept.append(rows.filter(pa.array(mask)))
            if table == "loss":
                self._count_loss(rows.filter(pa.array(~mask)))
        if files:
            self._writer.replace(table, pa.concat_tables(kept).unify_dictionaries(), files)

    def _reduce_intervals(self) -> None:
        start = self.from_ns
        for table in _BEFORE:
            self._reduce(table, lambda rows: _mask(pc.greater_equal(rows.column("t1_ns"), start), absent=True))

    def _tasks_of(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Tasks that made an event of the window, under the names that they had in it; and the idle task."""
        pid = rows.column("pid").combine_chunks()
        lasted = _mask(pc.greater_equal(rows.column("last_ns"), self.from_ns), absent=True)
        return (self._tasks.since(pid, self._first) | _mask(pc.equal(pid, 0))) & lasted

    def _start_snapshot(self) -> None:
        """The earliest snapshot inside the window, or the last one before it, is the state at its start."""
        files = self._writer.files("snapshots")
        times: dict[int, str] = {}
        for entry in files:
            rows = self._read(entry, ["ts_ns", "phase"])
            pairs = pa.table([rows.column("ts_ns"), rows.column("phase").cast(pa.string())], ["ts", "phase"])
            for row in pairs.group_by(["ts", "phase"]).aggregate([]).to_pylist():
                times[row["ts"]] = row["phase"]
        states = sorted(ts for ts, phase in times.items() if phase != "end")
        inside = [ts for ts in states if ts >= (self.from_ns or 0)]
        before = [ts for ts in states if ts < (self.from_ns or 0)]
        start = inside[0] if inside else before[-1] if before else None
        self.state_ns = inside[0] if inside else None
        gone, kept = [], []
        for entry in files:
            rows = self._read(entry)
            ts = rows.column("ts_ns")
            chosen = np.zeros(rows.num_rows, np.bool_) if start is None else _mask(pc.equal(ts, start))
            mask = chosen | _mask(pc.greater_equal(ts, self.from_ns))
            if mask.all() and not chosen.any():
                continue
            phase = rows.column("phase").cast(pa.string())
            phase = pc.if_else(pa.array(chosen), "start", phase)
            rows = rows.set_column(rows.schema.get_field_index("phase"), "phase", phase)
            gone.append(entry.file)
            kept.append(rows.filter(pa.array(mask)))
        if gone:
            self._writer.replace("snapshots", pa.concat_tables(kept).unify_dictionaries(), gone)

    def _window_loss(self) -> None:
        """Loss as the kernel counted it, less what went with its segment: ``validate`` holds the table to it."""
        loss = self._writer.metadata.loss
        if "by_class" not in loss:
            return
        whole = dict(loss["by_class"])
        left = {name: whole.get(name, 0) - self.dropped_loss.get(name, 0) for name in whole | self.dropped_loss}
        for name in [name for name, n in left.items() if n < 0]:
            # Rows of gaps with several reasons went: of which reason most were is known, of which gap is not.
            most = max(left, key=lambda other: left[other])
            left[most] += left.pop(name)
        loss["whole_run"] = {"by_class": whole}
        loss["by_class"] = {name: n for name, n in left.items() if n}


def _mask(values: pa.Array | pa.ChunkedArray, *, absent: bool = False) -> npt.NDArray[np.bool_]:
    """Booleans as NumPy; ``absent`` stands for null."""
    found: npt.NDArray[np.bool_] = pc.fill_null(values, absent).to_numpy(zero_copy_only=False)
    return found


def _span(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
