"""Distinct blocks by window of time: the driver of the compiled pass."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tracereplay.analysis import working_set_pass as wp
from tracereplay.analysis.block_table import ALL, EMPTY

I64 = npt.NDArray[np.int64]
_FIRST_BLOCKS = 1 << 12


class WorkingSet:
    """Distinct blocks touched in each of ``lines`` lines (a window of a device). Windows rise from call to call.

    At most ``most_blocks`` blocks are held, of 26 to 51 bytes; beyond that the sampling rate is halved.
    """

    def __init__(self, lines: int, most_blocks: int) -> None:
        scalar = np.zeros(wp.SCALARS, np.int64)
        scalar[wp.LIMIT] = ALL
        scalar[wp.MOST] = most_blocks
        self._state = wp.Blocks(_empty(_FIRST_BLOCKS), scalar, np.zeros(lines * wp.COUNTS))

    def feed(self, first: I64, count: I64, line: I64, window: I64, write: npt.NDArray[np.bool_]) -> None:
        """Accesses in time order, as of :func:`working_set_pass.touch`."""
        while (stop := wp.touch(self._state, first, count, line, window, write)) != wp.DONE:
            old = self._state
            if stop == wp.HALVE:
                old.scalar[wp.LIMIT] //= 2
            made = _empty(old.slots.size >> (0 if stop == wp.GROW else 1))
            wp.rebuild(old.slots, made, old.scalar)
            self._state = old._replace(slots=made)

    @property
    def rate(self) -> float:
        """Share of the blocks that was followed at the end; 1: all, and the counts are exact."""
        return int(self._state.scalar[wp.LIMIT]) / ALL

    def counts(self) -> npt.NDArray[np.float64]:
        """Blocks by line and kind of count (COUNTS); estimates when sampled."""
        return self._state.counts.reshape(-1, wp.COUNTS)


def _empty(pairs: int) -> I64:
    slots = np.zeros(2 * pairs, np.int64)
    slots[::2] = EMPTY
    return slots
