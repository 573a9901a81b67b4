"""Distributions of durations by group: exact while they are few, else counted in bins of bounded relative error."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.demand.tags import Numbers

Array = npt.NDArray[Any]
Counted = tuple[Array, Array, Array]
"""Group, value, and how many there are of it."""
EXACT = 1 << 20
"""Up to so many values are kept as they are."""
SUB_BITS = 7
"""Each octave has 2^7 bins."""
_SHIFT = 52 - SUB_BITS
_FIRST = 1022 << SUB_BITS
"""Bin of 0.5, in the exponent and leading mantissa bits of a double; everything below counts as 0."""
_BIN_BITS = 16
EXACT_METHOD = "percentiles: nearest rank, exact"
BINNED_METHOD = "percentiles: nearest rank over log-linear bins, 128 an octave, relative error <= 0.4 %"


class Spread:
    """Values (int64, not negative) of groups (int64). Memory: 16 bytes a value up to EXACT of them, then that of the
    bins in use.
    """

    def __init__(self, exact: int = EXACT) -> None:
        self._most = exact
        self._kept: list[tuple[Array, Array]] = []
        self._n = 0
        self._cells: Numbers | None = None
        self._counts = np.zeros(0, np.int64)

    @property
    def exact(self) -> bool:
        """All values are still known."""
        return self._cells is None

    @property
    def method(self) -> str:
        """What percentiles are, in a line."""
        return EXACT_METHOD if self.exact else BINNED_METHOD

    def add(self, groups: Array, values: Array) -> None:
        """Count values."""
        if not len(values):
            return
        self._n += len(values)
        if self._cells is None:
            self._kept.append((groups.copy(), values.copy()))
            if self._n <= self._most:
                return
            self._cells = Numbers()
            kept, self._kept = self._kept, []
            for group, value in kept:
                self._bin(self._cells, group, value)
        else:
            self._bin(self._cells, groups, values)

    def _bin(self, cells: Numbers, groups: Array, values: Array) -> None:
        bins = np.maximum((values.astype(np.float64).view(np.int64) >> _SHIFT) - _FIRST, 0)
        found = np.bincount(cells.of(groups << _BIN_BITS | bins))
        if len(found) > len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(2 * len(found) - len(self._counts), np.int64)])
        self._counts[: len(found)] += found

    def counts(self) -> Counted:
        """Group, value and number of values, by group and value. Of a bin the middle is given."""
        if self._cells is None:
            none = np.zeros(0, np.int64)
            groups = np.concatenate([g for g, _ in self._kept] or [none])
            values = np.concatenate([v for _, v in self._kept] or [none])
            order = np.lexsort((values, groups))
            return groups[order], values[order], np.ones(len(values), np.int64)
        keys = self._cells.keys
        order = np.argsort(keys)
        bins = (keys[order] & ((1 << _BIN_BITS) - 1)) + _FIRST
        low = (bins << _SHIFT).view(np.float64)
        high = ((bins + 1) << _SHIFT).view(np.float64)
        middle = np.where(high <= 2 << SUB_BITS, np.ceil(low), np.rint((low + high) / 2)).astype(np.int64)
        middle[bins == _FIRST] = 0
        return keys[order] >> _BIN_BITS, middle, self._counts[: len(keys)][order]

    def percentiles(self, numbers: Array, groups: int, shares: tuple[float, ...]) -> Array:
        """Nearest ranks, as [groups, shares] of int64; -1 of a group without values.

        ``numbers``: what group each one counts as.
        """
        group, value, count = self.counts()
        return ranked(numbers[group], value, count, groups, shares)


def ranked(group: Array, value: Array, count: Array, groups: int, shares: tuple[float, ...]) -> Array:
    """Nearest ranks of counted values, as [groups, shares] of int64; -1 of a group without values."""
    order = np.lexsort((value, group))
    group, value, passed = group[order], value[order], np.cumsum(count[order])
    made = np.full((groups, len(shares)), -1, np.int64)
    first = np.searchsorted(group, np.arange(groups))
    last = np.searchsorted(group, np.arange(groups), "right")
    for g in np.flatnonzero(last > first).tolist():
        before = int(passed[first[g] - 1]) if first[g] else 0
        n = int(passed[last[g] - 1]) - before
        ranks = before + np.maximum(np.ceil(np.array(shares) * n - 1e-9), 1)
        made[g] = value[np.searchsorted(passed, ranks)]
    return made


def survival_median(ended: Counted, live: Counted, groups: int) -> Array:
    """When half of each group has ended, counting what is still live with the age that it has so far (Kaplan and
    Meier 1958); -1 where fewer have.
    """
    made = np.full(groups, -1, np.int64)
    ended, live = _sorted(ended), _sorted(live)
    bounds = [np.searchsorted(counted[0], np.arange(groups + 1)) for counted in (ended, live)]
    for g in np.unique(ended[0]).tolist():
        (_, values, n), (_, ages, alive) = (
            tuple(column[edge[g] : edge[g + 1]] for column in counted)
            for counted, edge in zip((ended, live), bounds, strict=True)
        )
        ends, first = np.unique(values, return_index=True)
        died = np.add.reduceat(n, first)
        gone = np.concatenate([[0], np.cumsum(alive)])
        at_risk = died[::-1].cumsum()[::-1] + gone[-1] - gone[np.searchsorted(ages, ends)]
        half = np.flatnonzero(np.cumprod(1 - died / at_risk) <= 0.5)
        if len(half):
            made[g] = ends[half[0]]
    return made


def _sorted(counted: Counted) -> Counted:
    order = np.lexsort((counted[1], counted[0]))
    group, value, count = (column[order] for column in counted)
    return group, value, count
