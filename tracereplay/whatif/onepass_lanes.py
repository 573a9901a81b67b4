"""Per-CPU lists of many settings at once: counts only, one lane a setting.

A step goes through all lanes of a block in loops that the compiler turns into vector code: rows at known distances,
32-bit arithmetic, choices instead of branches. Whether any lane refills or drains is one test a block. Rules as in
machine/pcp_sizes.py, which is the reference.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner
from tracereplay.whatif.onepass_state import (
    G_RULE,
    LANE_COUNTERS,
    LANES,
    N_REFILLS,
    R_ALLOC,
    R_AWAY,
    R_BATCH,
    R_FREED,
    R_GONE,
    R_HAVE,
    R_HIGH,
    R_LISTS,
    R_LOW,
    R_MOST,
    R_SCALE,
    R_TAKEN,
    R_TIMES,
    R_TOP,
    R_TOTAL,
    ROWS,
)

I32 = np.int32


@hot
def quotient(a, b):
    """``a // b`` of 32-bit integers, ``a >= 0``, ``b > 0``; exact while ``a + b`` is below 2^24.

    An ``a`` below the next multiple k b is at most k b - 1: a quotient of at least one part in k b < 2^24 below k,
    which 24 bits do not round up to k.
    """
    return I32(np.float32(a) / np.float32(b))


# ---------------------------------------------------------------- allocations
@hot
def leave(s, at, i, n, pages, shift):
    """``n`` blocks leave a list in every lane, R_FREED is halved ``shift`` times. Negative if a list ran short."""
    short = I32(0)
    n, pages, shift = I32(n), I32(pages), I32(shift)
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        left = I32(have[j] - n)
        have[j] = left
        b[R_TOTAL * LANES + j] = I32(b[R_TOTAL * LANES + j] - pages)
        b[R_FREED * LANES + j] = I32(b[R_FREED * LANES + j]) >> shift
        short |= left
    return short


@hot
def fetch(s, at, i):
    """Copy the rows of a list to where they are at a known distance from all others: only then loops become vectors."""
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    away = s[at + (R_AWAY + i) * LANES : at + (R_AWAY + i) * LANES + LANES]
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        b[R_HAVE * LANES + j] = have[j]
    for j in range(LANES):
        b[R_GONE * LANES + j] = away[j]


@hot
def put_back(s, at, i):
    """The reverse of ``fetch``, and R_MOST."""
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    away = s[at + (R_AWAY + i) * LANES : at + (R_AWAY + i) * LANES + LANES]
    most = s[at + (R_MOST + i) * LANES : at + (R_MOST + i) * LANES + LANES]
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        have[j] = b[R_HAVE * LANES + j]
    for j in range(LANES):
        away[j] = b[R_GONE * LANES + j]
    for j in range(LANES):
        most[j] = max(most[j], b[R_GONE * LANES + j])


@hot
def refills_of(s, at, rule, order):
    """Refills of the lanes whose list went below zero, sizes fixed (up to 6.6), to R_TIMES and R_TAKEN."""
    shift = I32(order)
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        batch = b[R_BATCH * LANES + j]
        blocks = I32(max(I32(batch >> shift), I32(2))) if batch > 1 and rule == 1 else batch
        times = quotient(max(I32(blocks - 1 - b[R_HAVE * LANES + j]), I32(0)), blocks)
        taken = I32(times * blocks)
        b[R_HAVE * LANES + j] = I32(b[R_HAVE * LANES + j] + taken)
        b[R_TOTAL * LANES + j] = I32(b[R_TOTAL * LANES + j] + I32(taken << shift))
        b[R_GONE * LANES + j] = I32(b[R_GONE * LANES + j] + taken)
        b[R_TIMES * LANES + j] = times
        b[R_TAKEN * LANES + j] = I32(taken << shift)


@hot
def count_moves(s, at, acc, row):
    """Add R_TIMES and R_TAKEN to two counters that lie one after the other."""
    times = acc[row : row + LANES]
    pages = acc[row + LANES : row + LANES + LANES]
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        times[j] += np.int64(b[R_TIMES * LANES + j])
        pages[j] += np.int64(b[R_TAKEN * LANES + j])


@inner
def refill_fixed(s, at, rule, acc, row, i, order):
    """Refills of the lanes whose list went below zero, sizes fixed (up to 6.6)."""
    fetch(s, at, i)
    refills_of(s, at, rule, order)
    put_back(s, at, i)
    count_moves(s, at, acc, row + N_REFILLS * LANES)


@hot
def refills_of_tuned(s, at, order):
    """One refill of each lane whose list went below zero, auto-tuned sizes. Negative if one of them is short still."""
    shift, first = I32(order), order == 0
    short = I32(0)
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        old, batch, low, top = b[R_HAVE * LANES + j], b[R_BATCH * LANES + j], b[R_LOW * LANES + j], b[R_TOP * LANES + j]
        factor, scale, count = b[R_ALLOC * LANES + j], b[R_SCALE * LANES + j], b[R_TOTAL * LANES + j]
        before = b[R_HIGH * LANES + j]
        wanted = old < 0
        high = min(max(before, low), top)
        count = I32(count - I32(old << shift))
        blocks = I32(batch << factor) if first else batch
        on = high >= batch
        raised = min(I32(high + blocks), top) if (low != top) & on else high
        room = max(I32(raised - count - batch), batch)
        grows = first & (blocks <= room) & (factor < scale) & wanted & on
        b[R_ALLOC * LANES + j] = I32(factor + 1) if grows else factor
        blocks = min(blocks, room) if first else blocks
        blocks = max(I32(blocks >> shift), I32(2)) if blocks > 1 else blocks
        taken = blocks if on else I32(1)
        taken = taken if wanted else I32(0)
        b[R_HIGH * LANES + j] = raised if wanted else before
        left = I32(old + taken)
        b[R_HAVE * LANES + j] = left
        b[R_TOTAL * LANES + j] = I32(b[R_TOTAL * LANES + j] + I32(taken << shift))
        b[R_GONE * LANES + j] = I32(b[R_GONE * LANES + j] + taken)
        b[R_TIMES * LANES + j] = I32(1) if wanted else I32(0)
        b[R_TAKEN * LANES + j] = I32(taken << shift)
        short |= left
    return short


@inner
def refill_tuned(s, at, acc, row, i, order):
    """Refills until no list of a lane is short, auto-tuned sizes."""
    fetch(s, at, i)
    while True:
        short = refills_of_tuned(s, at, order)
        count_moves(s, at, acc, row + N_REFILLS * LANES)
        if short >= 0:
            break
    put_back(s, at, i)


@inner
def allocate(s, first, last, g, acc, row, i, order, n, halvings):
    """``n`` blocks leave list ``i``; ``halvings``: single allocations among them."""
    shift = min(halvings, 31)
    for c in range(first, last):
        at = c * ROWS * LANES
        short = np.int64(leave(s, at, i, n, n << order, shift))
        if short < 0 and g[G_RULE] < 2:
            refill_fixed(s, at, g[G_RULE], acc, row + c * LANE_COUNTERS * LANES, i, order)
        elif short < 0:
            refill_tuned(s, at, acc, row + c * LANE_COUNTERS * LANES, i, order)
