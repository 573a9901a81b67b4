"""Page events counted by the values of some columns at once, exactly and in bounded memory.

What most analyses of page events come to: one streamed pass gives a small frame with a row for each combination that
occurs, and the rest is arithmetic on that frame. Memory grows with the combinations, never with the events.

Each batch is counted by itself: the values of its columns, small numbers all, make up one number a row, which is
counted in an array where there are few possible ones and in a hash table else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.errors import InvariantError, TraceError, UsageError
from tracereplay.trace.schema import PAGE_KINDS

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.integer]

BITS = {"kind": 4, "order": 6, "migratetype": 6, "cpu": 16, "gfp": 14, "bin": 30, "task": 26, "stack_id": 33}
"""Bits of each column's number in a key."""
_ROWS = 1 << 16
"""Rows counted at once: what is made of them is small."""
_DENSE = 1 << 18
"""Possible numbers up to which an array counts."""
_COMPACT = 1 << 20

_PIDS = 1 << 22
"""``PID_MAX_LIMIT`` (include/linux/threads.h)."""


def tally(
    view: View, by: Sequence[str], *, kinds: Sequence[str] = PAGE_KINDS, bin_ns: int = 0, without: str | None = None
) -> pl.DataFrame:
    """How many page events of ``kinds`` there are of each combination: columns ``by`` and ``n``, sorted by ``by``.

    ``by``: of ``kind order migratetype cpu gfp stack_id``, as in the table; ``bin``, number of the stretch of
    ``bin_ns`` since ``view.start_ns``; ``task``, the row of ``view.task_index.frame``, null when no task is known, with
    another column ``pid`` that is null when one is. Raises TraceError, UsageError for more bins than can be counted.
    """
    if sum(BITS[name] for name in by) > 63:
        raise InvariantError(f"a key of {', '.join(by)} is too long")
    if "bin" in by and (bin_ns <= 0 or (view.end_ns - view.start_ns) // bin_ns >= 1 << BITS["bin"]):
        raise UsageError(f"bins of {bin_ns} ns are too short for {view.seconds:,.0f} s", hint="choose longer ones")
    counter = _Counter(view, by, kinds, bin_ns, without)
    return counter.frame(*_merged(map(counter.count, view.batches("page_events", counter.columns))))


class _Counter:
    """How rows of a batch become numbers, and numbers values again."""

    def __init__(self, view: View, by: Sequence[str], kinds: Sequence[str], bin_ns: int, without: str | None) -> None:
        self._view = view
        self._by = by
        self._kinds = [PAGE_KINDS.index(kind) for kind in kinds]
        self._bin_ns = bin_ns
        self._gfps: dict[int, int] = {}
        self._strangers: dict[int, int] = {}
        self._task_of_pid = _tasks_of_pids(view) if "task" in by else np.zeros(1, np.int64)
        self._without = without
        self.columns = ["kind", *([without] if without else [])]
        for name in by:
            needed = {"bin": ("ts_ns",), "task": ("pid", "ts_ns")}.get(name, (name,))
            self.columns += [column for column in needed if column not in self.columns]

    # ------------------------------------------------------------ rows to numbers
    def count(self, batch: pa.RecordBatch) -> list[tuple[I64, I64]]:
        """Keys of a batch and how often they occur, piece by piece."""
        kept = self._view.mask(batch)
        return [
            self._count(batch.slice(at, _ROWS), None if kept is None else kept[at : at + _ROWS])
            for at in range(0, batch.num_rows, _ROWS)
        ]

    def _count(self, batch: pa.RecordBatch, kept: Mask | None) -> tuple[I64, I64]:
        kind = _values(batch.column(0))
        wanted = np.zeros(len(kind), np.bool_)
        for code in self._kinds:
            wanted |= kind == code
        if kept is not None:
            wanted &= kept
        if self._without:
            column = batch.column(self._without)
            wanted &= ~_valid(column, None) if column.null_count else False
        rows = np.flatnonzero(wanted)
        if not len(rows):
            return rows, rows
        numbers = [self._numbers(name, batch, None if len(rows) == len(kind) else rows) for name in self._by]
        for name, numbered in (("gfp", self._gfps), ("task", self._strangers)):
            if 2 * len(numbered) >= 1 << BITS[name]:
                column = {"task": "pid"}.get(name, name)
                raise TraceError(f"page_events has too many different values of {column}: the column is damaged")
        return _counted(numbers, [BITS[name] for name in self._by])

    def _numbers(self, name: str, batch: pa.RecordBatch, rows: I64 | None) -> I64:
        """A column as small numbers; 0 is null where it may be null."""
        if name == "bin":
            return np.asarray((_times(batch, rows) - self._view.start_ns) // self._bin_ns)
        if name == "task":
            return self._tasks(_values(batch.column("pid"), rows), _times(batch, rows))
        column = batch.column(name)
        values = _values(column, rows)
        if name in ("kind", "cpu"):
            return values.astype(np.int64)
        if name == "gfp":
            encoded = pa.array(values).dictionary_encode()
            codes = np.array([self._gfps.setdefault(m, len(self._gfps) + 1) for m in encoded.dictionary.to_pylist()])
            numbers: I64 = codes[encoded.indices.to_numpy()]
        else:
            numbers = values.astype(np.int64)
            numbers += 1
        if column.null_count:
            numbers *= _valid(column, rows)
        return numbers

    def _tasks(self, pid: Numbers, ts: I64) -> I64:
        """2 x row + 1 of the task index, or 2 x number of an unknown task's pid."""
        found: I64 = self._task_of_pid.take(pid, mode="clip")
        seek = np.flatnonzero(found == 0)
        if len(seek):
            rows = self._view.task_index.rows(pid[seek].astype(np.int64), ts[seek])
            unknown = [self._strangers.setdefault(p, len(self._strangers)) for p in pid[seek[rows < 0]].tolist()]
            found[seek] = 2 * rows + 1
            found[seek[rows < 0]] = 2 * np.array(unknown, np.int64)
        return found

    # ------------------------------------------------------------ numbers to values
    def frame(self, keys: I64, counts: I64) -> pl.DataFrame:
        """The result of all batches."""
        made: dict[str, pl.Series] = {}
        for name in self._by:
            numbers = keys & ((1 << BITS[name]) - 1)
            keys = keys >> BITS[name]
            if name == "kind":
                made[name] = pl.Series(name, np.array(PAGE_KINDS)[numbers])
            elif name == "task":
                pids = np.array([*self._strangers, 0], np.int64)
                known = numbers % 2 == 1
                made["task"] = _nullable(numbers // 2, known, pl.UInt32)
                made["pid"] = _nullable(pids[np.where(known, -1, numbers // 2)], ~known, pl.UInt32)
            elif name == "gfp":
                masks = np.array([0, *self._gfps], np.int64)
                made[name] = _nullable(masks[numbers], numbers > 0, pl.UInt32)
            elif name in ("cpu", "bin"):
                made[name] = pl.Series(name, numbers)
            else:
                made[name] = _nullable(numbers - 1, numbers > 0, pl.UInt32 if name == "stack_id" else pl.UInt8)
        return pl.DataFrame(made).with_columns(n=pl.Series(counts)).sort(*made)


def _tasks_of_pids(view: View) -> I64:
    """2 x row + 1 of the task index by pid; 0 where there are several or none, and in the last element, which stands
    for all pids from there on."""
    pids = view.task_index.frame["pid"].to_numpy().astype(np.int64)
    distinct, first, tasks = np.unique(pids, return_index=True, return_counts=True)
    plain = (distinct < _PIDS) & (tasks == 1)
    table = np.zeros(int(distinct[plain].max(initial=-1)) + 2, np.int64)
    table[distinct[plain]] = 2 * first[plain] + 1
    return table


def _values(column: pa.Array, rows: I64 | None = None) -> Numbers:
    """Values of an integer column, or of a dictionary's codes, as they lie in memory: whatever they are at nulls."""
    if pa.types.is_dictionary(column.type):
        column = column.indices
    dtype = np.dtype(column.type.to_pandas_dtype())
    found = np.frombuffer(column.buffers()[1], dtype)[column.offset : column.offset + len(column)]
    return found if rows is None else found[rows]


def _times(batch: pa.RecordBatch, rows: I64 | None) -> I64:
    return _values(batch.column("ts_ns"), rows).view(np.int64)


def _valid(column: pa.Array, rows: I64 | None) -> Mask:
    first, end = column.offset // 8, (column.offset + len(column) + 7) // 8
    bits = np.unpackbits(np.frombuffer(column.buffers()[0], np.uint8)[first:end], bitorder="little").view(np.bool_)
    found: Mask = bits[column.offset % 8 :][: len(column)]
    return found if rows is None else found[rows]


def _nullable(values: I64, valid: Mask, kind: type[pl.DataType]) -> pl.Series:
    frame = pl.DataFrame({"value": values, "valid": valid})
    return frame.select(pl.when("valid").then("value").cast(kind)).to_series()


# ---------------------------------------------------------------- counting
def _counted(numbers: list[I64], bits: Sequence[int]) -> tuple[I64, I64]:
    """Distinct rows as keys, the first column in the lowest bits, and how often each occurs."""
    sizes = [int(column.max()) + 1 for column in numbers]
    key = numbers[-1].copy()
    if math.prod(sizes) > _DENSE:
        for column, width in zip(numbers[-2::-1], bits[-2::-1], strict=True):
            key <<= width
            key |= column
        found = pc.value_counts(pa.array(key))
        return found.field("values").to_numpy(), found.field("counts").to_numpy()
    for column, size in zip(numbers[-2::-1], sizes[-2::-1], strict=True):
        key *= size
        key += column
    counts = np.bincount(key)
    used = np.flatnonzero(counts)
    counts, keys, shift = counts[used], np.zeros(len(used), np.int64), 0
    for size, width in zip(sizes, bits, strict=True):
        keys |= (used % size) << shift
        used //= size
        shift += width
    return keys, counts


def _merged(parts: Iterable[list[tuple[I64, I64]]]) -> tuple[I64, I64]:
    """Keys and counts of all batches together, by key."""
    waiting: list[tuple[I64, I64]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    rows = 0
    for part in itertools.chain.from_iterable(parts):
        waiting.append(part)
        rows += len(part[0])
        if rows > _COMPACT + 2 * len(waiting[0][0]):
            waiting, rows = [_summed(waiting)], 0
    return _summed(waiting)


def _summed(parts: list[tuple[I64, I64]]) -> tuple[I64, I64]:
    keys, where = np.unique(np.concatenate([k for k, _ in parts]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, where, np.concatenate([c for _, c in parts]))
    return keys, counts
