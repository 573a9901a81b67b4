"""The pass: steps of all page sets through all lanes, and how much is away from the buddy lists at one time."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner, kernel
from tracereplay.kernel.constants import PAGE_ALLOC_COSTLY_ORDER
from tracereplay.whatif.onepass_frees import release
from tracereplay.whatif.onepass_lane import tick_lane
from tracereplay.whatif.onepass_lanes import allocate
from tracereplay.whatif.onepass_state import (
    G_ACCOUNTS,
    G_BULK,
    G_CAP,
    G_DECAY,
    G_INDEX,
    G_ORDERS,
    G_UNSEEN,
    LANE_COUNTERS,
    LANES,
    M_ALLOCS,
    M_BUDDY,
    M_LOCKS,
    MUTUAL_COUNTERS,
    R_AWAY,
    ROOM,
    ROWS,
)
from tracereplay.whatif.onepass_words import (
    ACCOUNTED,
    ALLOC,
    CLASS_SHIFT,
    FREE,
    HEAD_BITS,
    KIND_BITS,
    LIST_SHIFT,
    REQUEST,
    TICK,
)


@hot
def pieces(g, kind, pages):
    """A request in calls: (bulk calls of several pages, single calls)."""
    cap = g[G_CAP] if kind == REQUEST and g[G_CAP] > 0 else pages
    if cap < 2:
        return 0, pages
    rest = pages % cap
    return pages // cap + (1 if rest > 1 else 0), 1 if rest == 1 else 0


@inner
def end_epoch(state, peaks, peak_epochs, epoch, cpus, first, last, lanes):
    """Blocks away from each zone at one time: at most the sum of the most of its page sets since the epoch began.

    ``peaks[(zone * ROOM + list) * lanes + lane]`` keeps the largest such sum, ``peak_epochs`` when it was.
    """
    size = lanes // LANES * ROWS * LANES
    for z in range(state.shape[0] // size // cpus):
        for i in range(ROOM):
            for c in range(first, last):
                to = (z * ROOM + i) * lanes + c * LANES
                for j in range(LANES):
                    away = np.int64(0)
                    for p in range(z * cpus, (z + 1) * cpus):
                        k = p * size + (c * ROWS + R_AWAY + i) * LANES + j
                        away += state[k + ROOM * LANES]
                        state[k + ROOM * LANES] = state[k]
                    if away > peaks[to + j]:
                        peaks[to + j] = away
                        peak_epochs[to + j] = epoch


@kernel
def sweep(words, segments, state, prev, acc, mutual, peaks, peak_epochs, g, cpus, first, last, lanes):
    """Take steps through blocks ``first`` to ``last`` - 1 of the lanes.

    ``words``: steps; ``segments[k]``: page set, first step, end, or the end of an epoch: -1, its number, 0. ``state``:
    page set by page set, ``lanes // LANES`` blocks of ROWS x LANES each. ``prev``: whether the last free of a page set
    was of order 1 to 3. Added to are ``acc[((class * blocks + block) * LANE_COUNTERS + counter) * LANES + lane]`` and
    ``mutual[class * MUTUAL_COUNTERS + counter]``; ``peaks`` as end_epoch says.
    """
    size = lanes // LANES * ROWS * LANES
    for k in range(segments.shape[0]):
        p = segments[k, 0]
        if p < 0:
            end_epoch(state, peaks, peak_epochs, segments[k, 1], cpus, first, last, lanes)
            continue
        s = state[p * size : (p + 1) * size]
        follows = np.int64(prev[p])
        for w in range(segments[k, 1], segments[k, 2]):
            word = np.int64(words[w])
            n = word >> HEAD_BITS
            kind = word & ((1 << KIND_BITS) - 1)
            whose = word >> CLASS_SHIFT & 3
            row = whose * lanes * LANE_COUNTERS
            if kind == TICK:
                if g[G_DECAY] != 0:
                    for c in range(first, last):
                        for j in range(LANES):
                            tick_lane(s, c * ROWS * LANES, j, g, acc, row + c * LANE_COUNTERS * LANES + j)
                continue
            i = g[G_INDEX + (word >> LIST_SHIFT & 0xF)]
            if i < 0:
                mutual[whose * MUTUAL_COUNTERS + M_BUDDY] += n
                continue
            order = g[G_ORDERS + i]
            if kind == FREE:
                mutual[whose * MUTUAL_COUNTERS + M_LOCKS] += n
                for _ in range(1 if order == 0 else n):
                    release(s, first, last, g, acc, row, i, order, n if order == 0 else 1, follows)
                    follows = np.int64(0 < order <= PAGE_ALLOC_COSTLY_ORDER)
                continue
            bulk, single = 0, n
            asks_in_bulk = g[G_BULK] if kind == REQUEST else g[G_UNSEEN]
            if kind != ALLOC and asks_in_bulk and not (g[G_ACCOUNTS] and word & ACCOUNTED):
                bulk, single = pieces(g, kind, n)
            mutual[whose * MUTUAL_COUNTERS + M_ALLOCS] += n
            mutual[whose * MUTUAL_COUNTERS + M_LOCKS] += bulk + single
            allocate(s, first, last, g, acc, row, i, order, n, single)
        prev[p] = follows
