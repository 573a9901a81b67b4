"""Lifetimes and the live set from page events: one pass over a table with 24 bytes a frame (compiled).

The rules of pairing are those of demand (pairing.py, frames.py); left out is what demand needs besides: requests,
tasks, keys. A *tag* is a small number that the caller of the pass gives to every allocation: what its results are
grouped by. Frames carry it until they are freed.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tracereplay.compiled import hot, kernel
from tracereplay.demand.bursts import K_ALLOC, K_DRAIN, K_FREE, K_ZONE_LOCKED
from tracereplay.demand.frames import AHEAD, fetch, forget, place, refilled
from tracereplay.demand.pairing import pairing, pass_losses
from tracereplay.demand.state import (
    C_ALLOCATED_PAGES,
    C_ALLOCATIONS,
    C_EVENTS,
    C_FREES,
    C_LIVE_BLOCKS,
    C_LIVE_PAGES,
    C_MALFORMED,
    C_MATCHED,
    C_MATCHED_PAGES,
    COMPLETE,
    COUNTERS,
    HEAD,
    KEPT,
    LEFT_CENSORED,
    S_FRAMES,
    S_LOSS_END,
    S_LOSS_I,
    S_START_NS,
    SCALARS,
    STATE_MASK,
    TAIL,
    Array,
)
from tracereplay.kernel.constants import MAX_PAGE_ORDER

FRAME = np.dtype(
    {
        "names": ["ts", "span", "pid", "cpu", "state", "order", "gfp", "tag"],
        "formats": [np.int64, np.uint32, np.uint32, np.int16, np.uint8, np.uint8, np.uint32, np.uint32],
        "offsets": [0, 8, 8, 12, 14, 15, 16, 20],
        "itemsize": 24,
    },
    align=True,
)
"""As of state.FRAME; ``pid gfp tag`` belong to a HEAD, and ``span`` takes the place of ``pid`` once it is freed."""

ROWS = 1 << 15
"""Rows handed over at a time: what they take stays within a processor's cache."""
LOOK = 16
"""What is live is looked for in pieces of 2^16 frames, where there was anything."""
MARGIN = 1 << 12
"""An event ends at most 2^10 blocks."""

S_ROWS, S_WHOLE, S_LEVEL, S_LEFT, S_MOST, S_MOST_NS, S_EVENT, S_MOST_EVENT = range(SCALARS, SCALARS + 8)
"""Further scalars: rows filled; whether what has no known allocation is wanted; pages of wanted blocks that are live;
pages freed that were live when the trace began; the most of ``S_LEVEL``, when it was, events passed, and after how
many of them it was."""


class Rows(NamedTuple):
    """Lifetimes as columns; -1 where an end was not seen."""

    t_alloc: Array  # int64
    t_free: Array  # int64: when it ended; of a ``broken`` one with an allocation, when the frame was given out again
    pfn: Array  # int64
    pid: Array  # uint32, of the allocation
    gfp: Array  # uint32
    tag: Array  # uint32
    alloc_cpu: Array  # int16
    free_cpu: Array  # int16
    order: Array  # uint8
    how: Array  # uint8, index into state.CENSORING

    def first(self, n: int) -> Rows:
        """Views of the first ``n`` rows."""
        return Rows._make(column[:n] for column in self)


class Table(NamedTuple):
    """Everything that the pass reads and writes."""

    frames: Array  # FRAME, one per frame
    level: Array  # int64 by tag: live pages of wanted blocks; one row when nobody asks
    loss0: Array
    loss1: Array
    loss_cpu: Array
    lost_until: Array
    touched: Array  # bool, one per 2^LOOK frames: something was allocated there
    scalar: Array  # int64
    counts: Array  # int64, by state.COUNTERS
    # the columns of Rows
    t_alloc: Array
    t_free: Array
    pfn: Array
    pid: Array
    gfp: Array
    tag: Array
    alloc_cpu: Array
    free_cpu: Array
    order: Array
    how: Array

    @property
    def rows(self) -> Rows:
        """The buffers of rows."""
        return Rows(*self[9:])


def new_rows(n: int) -> Rows:
    """Room for ``n`` rows."""
    types = (np.int64, np.int64, np.int64, np.uint32, np.uint32, np.uint32, np.int16, np.int16, np.uint8, np.uint8)
    return Rows._make(np.empty(n, kind) for kind in types)


def new_table(frames: Array, start_ns: int, losses: tuple[Array, Array, Array], cpus: int, *, rows: bool) -> Table:
    """A table over zeroed ``frames`` (FRAME), of which nothing is known."""
    scalar = np.zeros(S_MOST_EVENT + 1, np.int64)
    scalar[S_START_NS] = start_ns - 1
    scalar[S_FRAMES] = len(frames)
    scalar[S_LOSS_END] = np.iinfo(np.int64).min
    scalar[S_WHOLE] = 1
    return Table(
        frames,
        np.zeros(1, np.int64),
        *losses,
        np.full(cpus, np.iinfo(np.int64).min, np.int64),
        np.zeros((len(frames) >> LOOK) + 1, np.bool_),
        scalar,
        np.zeros(len(COUNTERS), np.int64),
        *new_rows(ROWS if rows else 0),
    )


@hot
def _row(w, pfn, order, t_alloc, t_free, alloc_cpu, free_cpu, how):
    """One row, of a block whose facts are still in its first frame."""
    n = w.scalar[S_ROWS]
    f = w.frames[pfn]
    w.t_alloc[n] = t_alloc
    w.t_free[n] = t_free
    w.pfn[n] = pfn
    w.pid[n] = f.pid
    w.gfp[n] = f.gfp
    w.tag[n] = f.tag
    w.alloc_cpu[n] = alloc_cpu
    w.free_cpu[n] = free_cpu
    w.order[n] = order
    w.how[n] = how
    w.scalar[S_ROWS] = n + 1


@hot
def _free_block(w, pfn, t, cpu, ended):
    """End the live block that starts at ``pfn``."""
    f = w.frames[pfn]
    order = f.order
    if f.state & KEPT:
        pages = 1 << order
        w.scalar[S_LEVEL] -= pages
        if w.level.shape[0] > 1:
            w.level[f.tag] -= pages
        if w.how.shape[0]:
            _row(w, pfn, order, f.ts, t, f.cpu, cpu, ended)
    forget(w, pfn, order, t, cpu)


@hot
def _unpaired(w, t, cpu, ti, pfn, order, how):
    """Frames freed whose allocation was not seen."""
    f = w.frames[pfn]
    wanted = w.scalar[S_WHOLE]
    w.counts[C_LIVE_BLOCKS] += 1
    w.counts[C_LIVE_PAGES] += 1 << order
    if how == LEFT_CENSORED:
        if wanted:
            w.scalar[S_LEVEL] -= 1 << order
            w.scalar[S_LEFT] += 1 << order
            if w.how.shape[0]:
                _row(w, pfn, order, -1, t, -1, cpu, how)
        f.ts = w.scalar[S_START_NS]
    else:
        if wanted and w.how.shape[0]:
            _row(w, pfn, order, -1, t, f.cpu, cpu, how)
        f.ts = t
    forget(w, pfn, order, t, cpu)


_reuse, _free_range = pairing(_free_block, _unpaired)


@kernel
def follow(
    w: Table,
    ts: Array,
    cpus: Array,
    kinds: Array,
    pfns: Array,
    orders: Array,
    gfps: Array,
    pids: Array,
    tags: Array,
    keep: Array,
    start: int,
    stop: int,
) -> int:
    """Work through events ``start`` to ``stop``; where it had to end because the rows are full.

    ``keep``: which allocations are wanted; empty: all.
    """
    frames = w.scalar[S_FRAMES]
    full = w.how.shape[0] - MARGIN
    if w.how.shape[0] == 0:
        full = np.int64(1)
    i = start
    while i < stop and w.scalar[S_ROWS] < full:
        kind = kinds[i]
        t = ts[i]
        cpu = np.int64(cpus[i])
        order = np.int64(orders[i])
        pfn = pfns[i]
        if i + AHEAD < stop:
            fetch(w.frames, pfns[i + AHEAD])
        if w.scalar[S_LOSS_I] < w.loss0.shape[0]:
            pass_losses(w, t)
        if kind in (K_ALLOC, K_FREE):
            if order > MAX_PAGE_ORDER or pfn + (1 << order) > frames:
                w.counts[C_MALFORMED] += 1
            elif kind == K_ALLOC:
                _allocate(w, t, cpu, pfn, order, gfps[i], pids[i], tags[i], keep.shape[0] == 0 or keep[i])
                if w.scalar[S_LEVEL] > w.scalar[S_MOST]:
                    w.scalar[S_MOST] = w.scalar[S_LEVEL]
                    w.scalar[S_MOST_NS] = t
                    w.scalar[S_MOST_EVENT] = w.scalar[S_EVENT] + i - start + 1
            else:
                w.counts[C_FREES] += 1
                f = w.frames[pfn]
                if f.state & STATE_MASK == HEAD and f.order == order:
                    _free_block(w, pfn, t, cpu, COMPLETE)
                    w.counts[C_MATCHED] += 1
                    w.counts[C_MATCHED_PAGES] += 1 << order
                else:
                    _free_range(w, t, cpu, 0, pfn, order)
        elif kind in (K_ZONE_LOCKED, K_DRAIN) and order <= MAX_PAGE_ORDER and pfn < frames:
            refilled(w, pfn, order, t, cpu)
        i += 1
    w.counts[C_EVENTS] += i - start
    w.scalar[S_EVENT] += i - start
    return i


@hot
def _allocate(w, t, cpu, pfn, order, gfp, pid, tag, kept):
    """A block is given out."""
    w.counts[C_ALLOCATIONS] += 1
    w.counts[C_ALLOCATED_PAGES] += 1 << order
    taken = w.frames[pfn].state & STATE_MASK
    if order > 0 or taken in (HEAD, TAIL):
        _reuse(w, pfn, order, t, cpu)
    f = w.frames[pfn]
    if order == 0:
        f.state = HEAD
        f.ts = t
        f.cpu = cpu
        f.order = 0
        w.counts[C_LIVE_BLOCKS] += 1
        w.counts[C_LIVE_PAGES] += 1
    else:
        place(w, pfn, order, t, cpu, False)
    f.pid = pid
    f.gfp = gfp
    f.tag = tag
    w.touched[pfn >> LOOK] = True
    if kept:
        f.state |= KEPT
        pages = 1 << order
        w.scalar[S_LEVEL] += pages
        if w.level.shape[0] > 1:
            w.level[tag] += pages
