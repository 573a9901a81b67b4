"""Page events counted by the values of some columns at once, exactly and in bounded memory.

What most analyses of page events come to: one streamed pass gives a small frame with a row for each combination that
occurs, and the rest is arithmetic on that frame. Memory grows with the combinations, never with the events.

The values of the columns become small numbers, which are the place of a row in an array of counts, or a key of a hash
table where that array would be too large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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

BITS = {"kind": 4, "order": 9, "migratetype": 9, "cpu": 16, "gfp": 14, "bin": 30, "task": 26, "stack_id": 33}
"""Bits of each column's number in a key."""
_ROWS = 1 << 16
"""Rows counted at once: what is made of them is small."""
_DENSE = 1 << 20
"""Possible combinations up to which an array counts."""
_COMPACT = 1 << 20
"""Keys that wait to be summed up."""
_THREADS = 2
"""Shares of the trace that are read and counted at once."""
_PIDS = 1 << 22
"""``PID_MAX_LIMIT`` (include/linux/threads.h)."""


def tally(
    view: View, by: Sequence[str], *, kinds: Sequence[str] = PAGE_KINDS, bin_ns: int = 0, without: str | None = None
) -> pl.DataFrame:
    """How many page events of ``kinds`` there are of each combination: columns ``by`` and ``n``, sorted by ``by``.

    ``by``: of ``kind order migratetype cpu gfp stack_id``, as in the table; ``bin``, number of the stretch of
    ``bin_ns`` since ``view.start_ns``; ``task``, the row of ``view.task_index.frame``, null when no task is known, with
    another column ``pid`` that is null when one is. ``without``: only events in which that column is null.
    Raises TraceError, UsageError for more bins than can be counted.
    """
    if sum(BITS[name] for name in by) > 63:
        raise InvariantError(f"a key of {', '.join(by)} is too long")
    if "bin" in by and (bin_ns <= 0 or (view.end_ns - view.start_ns) // bin_ns >= 1 << BITS["bin"]):
        raise UsageError(f"bins of {bin_ns} ns are too short for {view.seconds:,.0f} s", hint="choose longer ones")
    counter = _Counter(view, by, kinds, bin_ns, without)
    shares = view.shares("page_events", counter.columns, _THREADS)
    counters = [counter, *(_Counter(view, by, kinds, bin_ns, without) for _ in shares[1:])]
    with ThreadPoolExecutor(len(shares), "tracereplay-count") as pool:
        list(pool.map(_Counter.count_all, counters, shares))
    frames = [counter.frame() for counter in counters]
    keys = frames[0].columns[:-1]
    return pl.concat(frames).group_by(keys).agg(pl.col("n").sum()).sort(keys)


class _Counter:
    """How rows of a batch become numbers, and numbers values again."""

    def __init__(self, view: View, by: Sequence[str], kinds: Sequence[str], bin_ns: int, without: str | None) -> None:
        self._view = view
        self._by = by
        self._kinds = [PAGE_KINDS.index(kind) for kind in kinds]
        self._bin_ns = bin_ns
        self._gfps: dict[int, int] = {}
        self._counts = _Counts([BITS[name] for name in by])
        self._strangers: dict[int, int] = {}
        self._task_of_pid = _tasks_of_pids(view) if "task" in by else np.zeros(1, np.int64)
        self._without = without
        self.columns = ["kind", *([without] if without else [])]
        for name in by:
            needed = {"bin": ("ts_ns",), "task": ("pid", "ts_ns")}.get(name, (name,))
            self.columns += [column for column in needed if column not in self.columns]

    # ------------------------------------------------------------ rows to numbers
    def count_all(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Count batches of ``columns``."""
        for batch in batches:
            self.count(batch)

    def count(self, batch: pa.RecordBatch) -> None:
        """Count a batch of ``columns``."""
        kept = self._view.mask(batch)
        for at in range(0, batch.num_rows, _ROWS):
            self._count(batch.slice(at, _ROWS), None if kept is None else kept[at : at + _ROWS])

    def _count(self, batch: pa.RecordBatch, kept: Mask | None) -> None:
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
            return
        numbers = [self._numbers(name, batch, None if len(rows) == len(kind) else rows) for name in self._by]
        for name, numbered in (("gfp", self._gfps), ("task", self._strangers)):
            if 2 * len(numbered) >= 1 << BITS[name]:
                column = {"task": "pid"}.get(name, name)
                raise TraceError(f"page_events has too many different values of {column}: the column is damaged")
        self._counts.add(numbers)

    def _numbers(self, name: str, batch: pa.RecordBatch, rows: I64 | None) -> I64:
        """A column as small numbers; 0 is null where it may be null."""
        if name == "bin":
            return np.asarray((_times(batch, rows) - self._view.start_ns) // self._bin_ns)
        if name == "task":
            pid = _values(batch.column("pid"), rows).astype(np.int64)
            if batch.column("pid").null_count:
                pid[~_valid(batch.column("pid"), rows)] = -1
            return self._tasks(pid, _times(batch, rows))
        column = batch.column(name)
        values = _values(column, rows)
        if name in ("kind", "cpu"):
            return values.astype(np.int64)
        valid = _valid(column, rows) if column.null_count else None
        if valid is not None and valid.all():
            valid = None
        if name == "gfp":
            if valid is not None:
                values = values * valid
            encoded = pa.array(values).dictionary_encode()
            codes = np.array([self._gfps.setdefault(m, len(self._gfps) + 1) for m in encoded.dictionary.to_pylist()])
            numbers: I64 = codes[encoded.indices.to_numpy()]
        else:
            numbers = values.astype(np.int64)
            numbers += 1
        if valid is not None:
            numbers *= valid
        return numbers

    def _tasks(self, pid: I64, ts: I64) -> I64:
        """2 x row + 1 of the task index, or 2 x number of an unknown task's pid (-1: null)."""
        found: I64 = self._task_of_pid.take(pid, mode="clip")
        found[pid < 0] = 0
        seek = np.flatnonzero(found == 0)
        if len(seek):
            rows = self._view.task_index.rows(pid[seek], ts[seek])
            unknown = [self._strangers.setdefault(p, len(self._strangers)) for p in pid[seek[rows < 0]].tolist()]
            found[seek] = 2 * rows + 1
            found[seek[rows < 0]] = 2 * np.array(unknown, np.int64)
        return found

    # ------------------------------------------------------------ numbers to values
    def frame(self) -> pl.DataFrame:
        """What the batches come to, in no order."""
        columns, counts = self._counts.result()
        made: dict[str, pl.Series] = {}
        for name, numbers in zip(self._by, columns, strict=True):
            if name == "kind":
                made[name] = pl.Series(name, np.array(PAGE_KINDS)[numbers])
            elif name == "task":
                known = numbers % 2 == 1
                made["task"] = _nullable(numbers // 2, known, pl.UInt32)
                pids = np.array([*self._strangers, -1], np.int64)[np.where(known, -1, numbers // 2)]
                made["pid"] = _nullable(pids, pids >= 0, pl.UInt32)
            elif name == "gfp":
                masks = np.array([0, *self._gfps], np.int64)
                made[name] = _nullable(masks[numbers], numbers > 0, pl.UInt32)
            elif name in ("cpu", "bin"):
                made[name] = pl.Series(name, numbers)
            else:
                made[name] = _nullable(numbers - 1, numbers > 0, pl.UInt32 if name == "stack_id" else pl.UInt8)
        return pl.DataFrame(made).with_columns(n=pl.Series(counts))


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
    return found if rows is None else found.take(rows)


def _times(batch: pa.RecordBatch, rows: I64 | None) -> I64:
    return _values(batch.column("ts_ns"), rows).view(np.int64)


def _valid(column: pa.Array, rows: I64 | None) -> Mask:
    first, end = column.offset // 8, (column.offset + len(column) + 7) // 8
    bits = np.unpackbits(np.frombuffer(column.buffers()[0], np.uint8)[first:end], bitorder="little").view(np.bool_)
    found: Mask = bits[column.offset % 8 :][: len(column)]
    return found if rows is None else found.take(rows)


def _nullable(values: I64, valid: Mask, kind: type[pl.DataType]) -> pl.Series:
    frame = pl.DataFrame({"value": values, "valid": valid})
    return frame.select(pl.when("valid").then("value").cast(kind)).to_series()


# ---------------------------------------------------------------- counting
class _Counts:
    """How often each combination of numbers occurs: in an array with an axis a column, or by keys in a hash table where
    that would be too large."""

    def __init__(self, bits: Sequence[int]) -> None:
        self._bits = bits
        self._table: I64 | None = np.zeros([1] * len(bits), np.int64)
        self._parts: list[tuple[I64, I64]] = []
        self._waiting = 0

    def add(self, numbers: Sequence[I64]) -> None:
        """Count rows: a number of each column, from 0."""
        table = None if self._table is None else self._with_room(self._table, numbers)
        if table is None:
            found = pc.value_counts(pa.array(self._keys(numbers)))
            self._keep(found.field("values").to_numpy(), found.field("counts").to_numpy())
            return
        index = numbers[0].copy()
        for column, size in zip(numbers[1:], table.shape[1:], strict=True):
            index *= size
            index += column
        np.add.at(table.reshape(-1), index, 1)

    def result(self) -> tuple[list[I64], I64]:
        """The combinations, column by column, and how often each occurred."""
        if self._table is not None:
            where = np.nonzero(self._table)
            return list(where), self._table[where]
        keys, counts = _summed(self._parts)
        columns = []
        for width in reversed(self._bits):
            columns.append(keys & ((1 << width) - 1))
            keys = keys >> width
        return columns[::-1], counts

    def _with_room(self, table: I64, numbers: Sequence[I64]) -> I64 | None:
        """The array, made larger where it is too small; None when it would be too large, and its counts are by keys."""
        sizes = [
            size if most < size else 1 << int(most).bit_length()
            for size, most in zip(table.shape, (column.max() for column in numbers), strict=True)
        ]
        if sizes == list(table.shape):
            return table
        if math.prod(sizes) <= _DENSE:
            self._table = np.zeros(sizes, np.int64)
            self._table[tuple(map(slice, table.shape))] = table
        else:
            self._table = None
            where = np.nonzero(table)
            self._keep(self._keys(where), table[where])
        return self._table

    def _keys(self, numbers: Sequence[I64]) -> I64:
        """Numbers of all columns as one, the last column in the lowest bits."""
        key = numbers[0].copy()
        for column, width in zip(numbers[1:], self._bits[1:], strict=True):
            key <<= width
            key |= column
        return key

    def _keep(self, keys: I64, counts: I64) -> None:
        self._parts.append((keys, counts))
        self._waiting += len(keys)
        if self._waiting > _COMPACT + 2 * len(self._parts[0][0]):
            self._parts, self._waiting = [_summed(self._parts)], 0


def _summed(parts: list[tuple[I64, I64]]) -> tuple[I64, I64]:
    keys, where = np.unique(np.concatenate([k for k, _ in parts]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, where, np.concatenate([c for _, c in parts]))
    return keys, counts
