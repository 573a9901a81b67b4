"""Distinct blocks by window of time, in one pass over the accesses (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.analysis.block_table import ALL, EMPTY, find, has_room, mix, sampled
from tracereplay.compiled import hot, kernel

DONE, GROW, HALVE = range(3)
HELD, LIMIT, MOST, ROW, OFFSET = range(5)
"""``scalar``: blocks held, sampling limit, most blocks to hold, where the input goes on."""
SCALARS = 5
READ, WRITTEN, ANY, NEW_READ, NEW_WRITTEN, NEW = range(6)
"""``counts`` of a window: distinct blocks read, written, either; those of them never read, written, touched before."""
COUNTS = 6
_HALF = 32
_LOW = (1 << _HALF) - 1


class Blocks(NamedTuple):
    """Distinct blocks, and in which window each was last read and written."""

    slots: npt.NDArray[np.int64]
    """Key of a block, and the windows plus one of its last read (high half) and write (low half), by turns."""
    scalar: npt.NDArray[np.int64]
    counts: npt.NDArray[np.float64]
    """COUNTS by line (window and device); a block counts for 1 / sampling rate."""


@hot
def _count(s, line, what, weight):
    s.counts[line * COUNTS + what] += weight


@kernel
def touch(s, first, count, line, window, write):
    """Access the blocks of all rows from where the last call stopped; returns why it stopped.

    Row ``i``: blocks ``first[i] .. first[i] + count[i] - 1`` in a window, counted in a line of ``counts``.
    """
    k = s.scalar
    limit = k[LIMIT]
    weight = float(ALL // limit)
    for row in range(k[ROW], first.size):
        now = window[row] + 1
        for i in range(k[OFFSET], count[row]):
            key = first[row] + i
            h = mix(key)
            if not sampled(h, limit):
                continue
            at = find(s.slots, key, h)
            if s.slots[at] == EMPTY:
                stop = DONE
                if k[HELD] >= k[MOST] and limit > 1:
                    stop = HALVE
                elif not has_room(s.slots, k[HELD]):
                    stop = GROW
                if stop != DONE:
                    k[ROW] = row
                    k[OFFSET] = i
                    return stop
                s.slots[at] = key
                s.slots[at + 1] = 0
                k[HELD] += 1
                _count(s, line[row], NEW, weight)
            read = s.slots[at + 1] >> _HALF
            written = s.slots[at + 1] & _LOW
            if max(read, written) != now:
                _count(s, line[row], ANY, weight)
            if write[row]:
                if written == 0:
                    _count(s, line[row], NEW_WRITTEN, weight)
                if written != now:
                    _count(s, line[row], WRITTEN, weight)
                s.slots[at + 1] = read << _HALF | now
            else:
                if read == 0:
                    _count(s, line[row], NEW_READ, weight)
                if read != now:
                    _count(s, line[row], READ, weight)
                s.slots[at + 1] = now << _HALF | written
        k[OFFSET] = 0
    k[ROW] = 0
    return DONE


@kernel
def rebuild(old, new, scalar):
    """Move what the limit keeps of ``old``'s slots into ``new``'s, which are empty."""
    held = 0
    for at in range(0, old.size, 2):
        key = old[at]
        if key != EMPTY:
            h = mix(key)
            if sampled(h, scalar[LIMIT]):
                to = find(new, key, h)
                new[to] = key
                new[to + 1] = old[at + 1]
                held += 1
    scalar[HELD] = held
    return held
