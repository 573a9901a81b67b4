"""Per-CPU lists as counts, one setting: what is rare enough to go lane by lane.

The rules are those of machine/pcp.py, pcp_sizes.py and vmstat.py, which are the reference; here a list is the number of
blocks on it. ``at`` is where the lane's block of state begins, ``j`` the lane in it, ``row`` its first counter.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import inner
from tracereplay.kernel.constants import PAGE_ALLOC_COSTLY_ORDER
from tracereplay.whatif.onepass_state import (
    G_CHUNKED,
    G_DECAY,
    G_FROM_FREED,
    G_LISTS,
    G_ORDERS,
    G_RULE,
    LANES,
    N_DRAIN_PAGES,
    N_DRAINS,
    N_HOLDS,
    N_LOCKS,
    R_BATCH,
    R_BEFORE,
    R_CAP,
    R_FREED,
    R_HIGH,
    R_KEEPS,
    R_LEFT,
    R_LISTS,
    R_LOW,
    R_NEED,
    R_SCALE,
    R_TOP,
    ROOM,
)


@inner
def drain_lists_of(s, at, j, g, pages, index):
    """Take pages off the lists of a lane under one hold (``drain_lists``). Returns pages moved."""
    total = np.int64(s[at + j])
    pages = min(pages, total)
    lists = g[G_LISTS]
    moved = 0
    share = 0
    if not g[G_FROM_FREED]:
        index = 0
    while moved < pages:
        if g[G_FROM_FREED]:
            while s[at + (R_LISTS + index) * LANES + j] == 0:
                index = index + 1 if index + 1 < lists else 0
            share = pages
        else:
            while True:
                share += 1
                index = index + 1 if index + 1 < lists else 0
                if s[at + (R_LISTS + index) * LANES + j] != 0 or share > lists:
                    break
            if share == lists:
                share = pages
        order = g[G_ORDERS + index]
        k = at + (R_LISTS + index) * LANES + j
        blocks = min(min(share, np.int64(s[k])), (pages - moved + (1 << order) - 1) >> order)
        s[k] -= blocks
        s[k + ROOM * LANES] -= blocks
        share -= blocks
        moved += blocks << order
    s[at + j] = total - moved
    return moved


@inner
def drain_lane(s, at, j, g, acc, row, pages, index):
    """One drain after a free (``drain``)."""
    batch = np.int64(s[at + R_BATCH * LANES + j])
    acc[row + N_DRAINS * LANES] += 1
    chunk = batch if g[G_CHUNKED] else pages
    holds = 0
    moved = 0
    while True:
        moved += drain_lists_of(s, at, j, g, min(chunk, pages), index)
        holds += 1
        pages -= chunk
        if pages <= 0 or s[at + j] <= 0:
            break
    acc[row + N_DRAIN_PAGES * LANES] += moved
    acc[row + N_HOLDS * LANES] += holds
    acc[row + N_LOCKS * LANES] += holds - 1


@inner
def pages_fixed(s, at, j, g, order):
    """``drain_pages_fixed``."""
    batch, high = np.int64(s[at + R_BATCH * LANES + j]), np.int64(s[at + R_HIGH * LANES + j])
    count, factor = np.int64(s[at + j]), np.int64(s[at + R_FREED * LANES + j])
    if g[G_RULE] == 0:
        return batch if count >= high else 0
    if g[G_FROM_FREED] and 0 < order <= PAGE_ALLOC_COSTLY_ORDER and factor > 0:
        return count
    if count < high:
        return 0
    if high < batch:
        return 1
    pages = batch << factor
    if pages < high - batch and (factor < s[at + R_SCALE * LANES + j] or not g[G_FROM_FREED]):
        s[at + R_FREED * LANES + j] = factor + 1
    return min(max(pages, batch), high - batch)


@inner
def pages_tuned(s, at, j, free_high):
    """``drain_threshold`` and the end of ``drain_pages_tuned``, with the zone above HIGH."""
    batch, count = np.int64(s[at + R_BATCH * LANES + j]), np.int64(s[at + j])
    low, top = np.int64(s[at + R_LOW * LANES + j]), np.int64(s[at + R_TOP * LANES + j])
    freed, cap = np.int64(s[at + R_FREED * LANES + j]), np.int64(s[at + R_CAP * LANES + j])
    high = min(max(np.int64(s[at + R_HIGH * LANES + j]), low), top)
    s[at + R_HIGH * LANES + j] = high
    if free_high:
        s[at + R_HIGH * LANES + j] = max(high - cap, low)
        return min(count, cap)
    if count < high:
        return 0
    if low != top and high < freed + batch:
        s[at + R_HIGH * LANES + j] = min(max(freed + batch, low), top)
    if high < batch:
        return 1
    return min(max(freed, batch), high - batch)


@inner
def free_lane(s, at, j, g, acc, row, i, order, follows):
    """What one free of an order above 0, counted already, makes drain. ``follows``: that before was of order 1 to 3."""
    if g[G_RULE] < 2:
        pages = pages_fixed(s, at, j, g, order)
    else:
        free_high = False
        if order <= PAGE_ALLOC_COSTLY_ORDER and follows:
            keeps = s[at + R_KEEPS * LANES + j] != 0 and s[at + j] < s[at + R_BATCH * LANES + j]
            free_high = s[at + R_BEFORE * LANES + j] >= s[at + R_NEED * LANES + j] and not keeps
        pages = pages_tuned(s, at, j, free_high)
    if pages > 0:
        drain_lane(s, at, j, g, acc, row, pages, i)


@inner
def free_run(s, at, j, g, acc, row, i):
    """R_LEFT order-0 frees that are counted already, as if they were not: one drain after another."""
    n = np.int64(s[at + R_LEFT * LANES + j])
    s[at + R_LEFT * LANES + j] = 0
    s[at + j] -= n
    s[at + (R_LISTS + i) * LANES + j] -= n
    while n > 0:
        step = min(max(np.int64(s[at + R_HIGH * LANES + j]) - s[at + j], 1), n)
        n -= step
        s[at + j] += step
        s[at + (R_LISTS + i) * LANES + j] += step
        if g[G_RULE] == 2:
            freed, cap = np.int64(s[at + R_FREED * LANES + j]), np.int64(s[at + R_CAP * LANES + j])
            s[at + R_FREED * LANES + j] = max(freed, min(freed + step, cap))
            pages = pages_tuned(s, at, j, False)
        else:
            pages = pages_fixed(s, at, j, g, 0)
        if pages > 0:
            drain_lane(s, at, j, g, acc, row, pages, i)


@inner
def tick_lane(s, at, j, g, acc, row):
    """``decay`` of the vmstat worker."""
    low, high = np.int64(s[at + R_LOW * LANES + j]), np.int64(s[at + R_HIGH * LANES + j])
    if high > low:
        high = max(max(np.int64(s[at + j]) - s[at + R_CAP * LANES + j], high - (high >> 3)), low)
        s[at + R_HIGH * LANES + j] = high
    left = max(s[at + j] - high, 0)
    if left == 0:
        return
    acc[row + N_DRAINS * LANES] += 1
    chunk = np.int64(s[at + R_BATCH * LANES + j]) if g[G_DECAY] == 2 else left
    while left > 0:
        acc[row + N_LOCKS * LANES] += 1
        acc[row + N_HOLDS * LANES] += 1
        acc[row + N_DRAIN_PAGES * LANES] += drain_lists_of(s, at, j, g, min(left, chunk), 0)
        left -= chunk
