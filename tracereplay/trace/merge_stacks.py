"""Stacks of several traces under common numbers: equal stacks, address by address, are one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.trace.schema import STACKS

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

U32 = npt.NDArray[np.uint32]
_SEEDS = (0x9E3779B9, 0x85EBCA6B)
"""Two hashes of 64 bits: among a million stacks the chance that two differ and look equal is 10^-27."""


class StackNumbers:
    """Numbers given to stacks so far."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int] = {}
        self._next = 0

    def take(self, trace: Trace) -> tuple[StackMap, Iterator[pa.RecordBatch]]:
        """The map from a trace's numbers to the common ones, and the rows of stacks that are new. Memory: the stacks of
        one trace, which a capture bounds."""
        import polars as pl

        frames = trace.stacks.with_columns(pl.col(pl.Categorical).cast(pl.String)).sort("stack_id", "depth").collect()
        if not len(frames):
            return StackMap(self, np.zeros(0, np.uint32), np.zeros(0, np.uint32)), iter(())
        content = pl.struct(pl.exclude("stack_id"))
        ids, first = np.unique(frames["stack_id"].to_numpy(), return_index=True)
        sums = []
        for seed in _SEEDS:
            hashes = frames.select(content.hash(seed)).to_series().to_numpy().astype(np.uint64)
            sums.append(np.add.reduceat(hashes, first))  # depth is in each hash: the order of frames counts
        new = np.empty(len(ids), np.uint32)
        fresh = np.zeros(len(ids), np.bool_)
        for i, key in enumerate(zip(sums[0].tolist(), sums[1].tolist(), strict=True)):
            if key not in self._known:
                self._known[key] = self.fresh()
                fresh[i] = True
            new[i] = self._known[key]
        lengths = np.diff(np.append(first, len(frames)))
        rows = frames.with_columns(pl.Series("stack_id", np.repeat(new, lengths))).filter(
            pl.Series(np.repeat(fresh, lengths))
        )
        table = rows.select(STACKS.names).to_arrow()
        return StackMap(self, ids.astype(np.uint32), new), iter(table.to_batches())

    def fresh(self) -> int:
        """A number that no stack has."""
        self._next += 1
        return self._next - 1


class StackMap:
    """From one trace's numbers to the common ones."""

    def __init__(self, numbers: StackNumbers, ids: U32, new: U32) -> None:
        self._numbers = numbers
        self._ids = ids
        self._new = new

    def __call__(self, column: pa.Array) -> pa.Array:
        """A column of stack numbers; one without rows in table ``stacks`` gets a number of its own."""
        absent = column.is_null().to_numpy(zero_copy_only=False)
        if absent.all():
            return column
        old = column.fill_null(0).to_numpy().astype(np.uint32)
        unknown = np.setdiff1d(old[~absent], self._ids)
        if len(unknown):
            given = np.array([self._numbers.fresh() for _ in unknown], np.uint32)
            ids = np.concatenate([self._ids, unknown])
            order = np.argsort(ids)
            self._ids, self._new = ids[order], np.concatenate([self._new, given])[order]
        place = np.minimum(np.searchsorted(self._ids, old), len(self._ids) - 1)
        return pa.array(self._new[place], pa.uint32(), mask=absent)
