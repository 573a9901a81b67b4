"""LRU stack distances and the miss-ratio curve that follows from them, exact while the blocks fit, else sampled."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracereplay.analysis import stack_pass as sp
from tracereplay.analysis.block_table import ALL, EMPTY, GROUPS

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

FIRST_BLOCKS = 1 << 12
"""Pairs of a new stack's table."""
_T_95 = 2.131
"""97.5 % point of Student's t with GROUPS - 1 degrees of freedom."""
BYTES_PER_BLOCK = 56
"""Of a table at its emptiest, right after it has grown, with positions and tree."""


class StackDistances:
    """Distances of the accesses fed to it: how many other blocks were accessed since the last access of the same block.

    Memory: at most ``most_blocks`` blocks are held, of about BYTES_PER_BLOCK bytes (half as much again while the table
    grows); beyond that the sampling rate is halved, and the distances are estimates.
    """

    def __init__(self, most_blocks: int, limit: int = ALL) -> None:
        self._state = _empty(FIRST_BLOCKS)
        self._state.scalar[sp.LIMIT] = limit
        self._state.scalar[sp.MOST] = most_blocks

    def feed(self, first: I64, count: I64) -> None:
        """Access ``count[i]`` blocks from number ``first[i]`` on, row by row. Both contiguous."""
        while (stop := sp.touch(self._state, first, count)) != sp.DONE:
            self._rebuild(stop)

    def halve(self) -> None:
        """Follow half as many blocks from now on."""
        if self._state.scalar[sp.LIMIT] > 1:
            self._rebuild(sp.HALVE)

    def _rebuild(self, stop: int) -> None:
        old = self._state
        if stop == sp.HALVE:
            old.scalar[sp.LIMIT] //= 2
        pairs = old.slots.size >> (0 if stop == sp.GROW else 1)
        made = _empty(pairs)
        self._state = made._replace(scalar=old.scalar, found=old.found, cold=old.cold)
        sp.rebuild(old, self._state, np.empty(old.bits.size, np.int64))

    # ------------------------------------------------------------ what was found
    @property
    def rate(self) -> float:
        """Share of the blocks that was followed at the end; 1: all, and everything is exact."""
        return int(self._state.scalar[sp.LIMIT]) / ALL

    @property
    def blocks(self) -> int:
        """Blocks held at the end."""
        return int(self._state.scalar[sp.LIVE])

    @property
    def accesses(self) -> int:
        """Accesses fed, sampled or not."""
        return int(self._state.scalar[sp.ACCESSES])

    @property
    def distinct(self) -> int:
        """Distinct blocks accessed; an estimate when sampled."""
        return round(float(self._state.cold.sum()))

    def histogram(self) -> F64:
        """Accesses by bin of :func:`bin_edges`; estimates when sampled. First accesses are not among them."""
        total: F64 = self._state.found.reshape(GROUPS, sp.BINS).sum(axis=0)
        return total

    def misses(self) -> tuple[F64, F64]:
        """Misses of an LRU cache of :func:`bin_edges` blocks, and the half width of their 95 % interval.

        The accesses that a sample is short of, or has too many, count as hits of any cache (SHARDS-adj). The interval
        comes from the spread between GROUPS parts of the sample; 0 when exact.
        """
        found = self._state.found.reshape(GROUPS, sp.BINS)
        hits = np.cumsum(found, axis=1) - found  # of distances below the edge
        parts = (found.sum(axis=1) + self._state.cold)[:, None] - hits
        misses = parts.sum(axis=0)
        if self.rate == 1:
            return misses, np.zeros(sp.BINS)
        spread = parts.std(axis=0, ddof=1) * np.sqrt(GROUPS * (1 - self.rate))
        return misses, _T_95 * spread


class Stacks:
    """A stack for each device, or one for all, which together hold at most so many blocks (and one batch's more)."""

    def __init__(self, most_blocks: int) -> None:
        self._most = most_blocks
        self._by_device: dict[int, StackDistances] = {}

    def feed(self, first: I64, count: I64, device: I64 | None) -> None:
        """Accesses in time order, each to the stack of its device; None: all to one."""
        if device is None or not len(device):
            self._of(0).feed(first, count)
        else:
            order = np.argsort(device, kind="stable")
            starts = np.flatnonzero(np.diff(device[order], prepend=-1))
            for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
                rows = order[start:end]
                self._of(int(device[rows[0]])).feed(first[rows], count[rows])
        while sum(s.blocks for s in self._by_device.values()) > self._most:
            max(self._by_device.values(), key=lambda s: s.blocks).halve()

    def _of(self, device: int) -> StackDistances:
        return self._by_device.setdefault(device, StackDistances(self._most))

    def stacks(self) -> list[tuple[int, StackDistances]]:
        """The stacks that saw anything, by device."""
        return sorted((d, s) for d, s in self._by_device.items() if s.accesses)


@dataclass(frozen=True, slots=True)
class Curve:
    """A miss-ratio curve: ratio by cache size in blocks."""

    blocks: I64
    ratio: F64
    error95: F64


def miss_ratio_curve(stack: StackDistances) -> Curve:
    """The curve at every bin edge up to the first that holds everything. Exact at these sizes when the stack is."""
    misses, error = stack.misses()
    edges = bin_edges()
    last = max(1, int(np.searchsorted(edges, stack.distinct)))
    n = max(1, stack.accesses)
    ratio = np.clip(misses / n, 0, 1)
    return Curve(edges[1 : last + 1], ratio[1 : last + 1], error[1 : last + 1] / n)


def bin_edges() -> I64:
    """Least distance of every bin: 0 .. 15, then 16 an octave. A cache of that many blocks misses it and all above."""
    small = np.arange(sp.SUB, dtype=np.int64)
    octaves = np.arange(sp.BINS // sp.SUB - 1, dtype=np.int64)[:, None]
    return np.concatenate([small, ((sp.SUB + small)[None, :] << octaves).ravel()])


def octave_edges(values: I64, steps: int) -> I64:
    """The greatest edge not above each value, of bins that cut every doubling into ``steps`` (1, 2, 4, 8 or 16)."""
    octave = np.int64(1) << (np.frexp(np.maximum(values, 1).astype(np.float64))[1] - 1).astype(np.int64)
    edges: I64 = values - values % np.maximum(octave // steps, 1)
    return edges


def _empty(pairs: int) -> sp.Stack:
    slots = np.zeros(2 * pairs, np.int64)
    slots[::2] = EMPTY
    positions = 2 * pairs  # at least twice as many as blocks, so that packing pays
    groups = positions >> sp.GROUP_SHIFT
    return sp.Stack(
        slots,
        np.zeros(positions >> 6, np.uint64),
        np.zeros(groups + 1, np.int64),
        np.zeros(sp.SCALARS, np.int64),
        np.zeros(GROUPS * sp.BINS),
        np.zeros(GROUPS),
    )
