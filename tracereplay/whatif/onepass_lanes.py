"""Per-CPU lists of many settings at once: counts only, one lane a setting.

A step goes through all lanes of a block in loops that the compiler turns into vector code: slices of fixed length,
32-bit arithmetic, choices instead of branches. Whether any lane refills or drains is one test a block. Rules as in
machine/pcp_sizes.py, which is the reference.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import PAGE_ALLOC_COSTLY_ORDER
from tracereplay.whatif.onepass_lane import drain_lane, free_lane
from tracereplay.whatif.onepass_state import (
    G_CHUNKED,
    G_FROM_FREED,
    G_RULE,
    LANE_COUNTERS,
    LANES,
    N_DRAIN_PAGES,
    N_DRAINS,
    N_HOLDS,
    N_LOCKS,
    N_REFILL_PAGES,
    N_REFILLS,
    R_ALLOC,
    R_AWAY,
    R_BATCH,
    R_BEFORE,
    R_CAP,
    R_FREED,
    R_HIGH,
    R_LEFT,
    R_LISTS,
    R_LOW,
    R_MOST,
    R_NEED,
    R_SCALE,
    R_TOP,
    R_TOTAL,
    ROWS,
)

I32 = np.int32


# ---------------------------------------------------------------- allocations
@hot
def leave(s, at, i, n, pages, shift):
    """``n`` blocks leave a list in every lane, R_FREED is halved ``shift`` times. Negative if a list ran short."""
    short = I32(0)
    n, pages, shift = I32(n), I32(pages), I32(shift)
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    total = s[at + R_TOTAL * LANES : at + R_TOTAL * LANES + LANES]
    freed = s[at + R_FREED * LANES : at + R_FREED * LANES + LANES]
    for j in range(LANES):
        left = I32(have[j] - n)
        have[j] = left
        total[j] = I32(total[j] - pages)
        freed[j] = I32(freed[j]) >> shift
        short |= left
    return short


@inner
def refill_fixed(s, at, rule, acc, row, i, order):
    """Refills of the lanes whose list went below zero, sizes fixed (up to 6.6)."""
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    total = s[at + R_TOTAL * LANES : at + R_TOTAL * LANES + LANES]
    batches = s[at + R_BATCH * LANES : at + R_BATCH * LANES + LANES]
    away = s[at + (R_AWAY + i) * LANES : at + (R_AWAY + i) * LANES + LANES]
    most = s[at + (R_MOST + i) * LANES : at + (R_MOST + i) * LANES + LANES]
    refills = acc[row + N_REFILLS * LANES : row + N_REFILLS * LANES + LANES]
    pages = acc[row + N_REFILL_PAGES * LANES : row + N_REFILL_PAGES * LANES + LANES]
    shift = I32(order)
    for j in range(LANES):
        batch = batches[j]
        blocks = I32(max(I32(batch >> shift), I32(2))) if batch > 1 and rule == 1 else batch
        # a quotient of 32-bit integers is exact enough in 64 bits of floating point
        times = I32(max(np.float64(I32(blocks - 1 - have[j])) / np.float64(blocks), 0.0))
        taken = I32(times * blocks)
        have[j] = I32(have[j] + taken)
        total[j] = I32(total[j] + I32(taken << shift))
        away[j] = I32(away[j] + taken)
        most[j] = max(most[j], away[j])
        refills[j] += times
        pages[j] += np.int64(taken) << order


@inner
def refill_tuned(s, at, acc, row, i, order):
    """One refill of each lane whose list went below zero, auto-tuned sizes. Negative if one of them is short still."""
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    total = s[at + R_TOTAL * LANES : at + R_TOTAL * LANES + LANES]
    batches = s[at + R_BATCH * LANES : at + R_BATCH * LANES + LANES]
    away = s[at + (R_AWAY + i) * LANES : at + (R_AWAY + i) * LANES + LANES]
    most = s[at + (R_MOST + i) * LANES : at + (R_MOST + i) * LANES + LANES]
    highs = s[at + R_HIGH * LANES : at + R_HIGH * LANES + LANES]
    lows = s[at + R_LOW * LANES : at + R_LOW * LANES + LANES]
    tops = s[at + R_TOP * LANES : at + R_TOP * LANES + LANES]
    factors = s[at + R_ALLOC * LANES : at + R_ALLOC * LANES + LANES]
    scales = s[at + R_SCALE * LANES : at + R_SCALE * LANES + LANES]
    refills = acc[row + N_REFILLS * LANES : row + N_REFILLS * LANES + LANES]
    pages = acc[row + N_REFILL_PAGES * LANES : row + N_REFILL_PAGES * LANES + LANES]
    shift, first = I32(order), order == 0
    short = I32(0)
    for j in range(LANES):
        old, batch, low, top = have[j], batches[j], lows[j], tops[j]
        factor, scale, count = factors[j], scales[j], total[j]
        before = highs[j]
        wanted = old < 0
        high = min(max(before, low), top)
        count = I32(count - I32(old << shift))
        blocks = I32(batch << factor) if first else batch
        on = high >= batch
        raised = min(I32(high + blocks), top) if (low != top) & on else high
        room = max(I32(raised - count - batch), batch)
        grows = first & (blocks <= room) & (factor < scale) & wanted & on
        factors[j] = I32(factor + 1) if grows else factor
        blocks = min(blocks, room) if first else blocks
        blocks = max(I32(blocks >> shift), I32(2)) if blocks > 1 else blocks
        taken = blocks if on else I32(1)
        taken = taken if wanted else I32(0)
        highs[j] = raised if wanted else before
        left = I32(old + taken)
        have[j] = left
        total[j] = I32(total[j] + I32(taken << shift))
        gone = I32(away[j] + taken)
        away[j] = gone
        most[j] = max(most[j], gone)
        refills[j] += I32(1) if wanted else I32(0)
        pages[j] += np.int64(taken) << order
        short |= left
    return short


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
            while refill_tuned(s, at, acc, row + c * LANE_COUNTERS * LANES, i, order) < 0:
                pass


# ---------------------------------------------------------------- frees
@hot
def arrive(s, at, i, n, pages):
    """``n`` blocks come onto a list in every lane. Negative if the lists of a lane came to ``high``."""
    over = I32(0)
    n, pages = I32(n), I32(pages)
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    total = s[at + R_TOTAL * LANES : at + R_TOTAL * LANES + LANES]
    highs = s[at + R_HIGH * LANES : at + R_HIGH * LANES + LANES]
    freed = s[at + R_FREED * LANES : at + R_FREED * LANES + LANES]
    before = s[at + R_BEFORE * LANES : at + R_BEFORE * LANES + LANES]
    for j in range(LANES):
        count = I32(total[j] + pages)
        before[j] = freed[j]
        have[j] = I32(have[j] + n)
        total[j] = count
        over |= I32(highs[j] - 1 - count)
    return over


@hot
def count_frees(s, at, n, order, shift):
    """What ``n`` frees do to ``alloc_factor`` and ``free_count`` (6.7 on). Negative where R_NEED was reached before."""
    size, n, shift = I32(1 << order), I32(n), I32(shift)
    needed = I32(0)
    freed = s[at + R_FREED * LANES : at + R_FREED * LANES + LANES]
    factors = s[at + R_ALLOC * LANES : at + R_ALLOC * LANES + LANES]
    caps = s[at + R_CAP * LANES : at + R_CAP * LANES + LANES]
    needs = s[at + R_NEED * LANES : at + R_NEED * LANES + LANES]
    for j in range(LANES):
        old, cap = freed[j], caps[j]
        factors[j] = I32(factors[j]) >> shift
        single = max(old, min(I32(old + n), cap))
        freed[j] = single if size == 1 else I32(old + size) if old < cap else old
        needed |= I32(needs[j] - 1 - old)
    return needed


@hot
def any_freed(s, at):
    """Negative where ``free_factor`` was above 0 before the step."""
    freed = I32(0)
    before = s[at + R_BEFORE * LANES : at + R_BEFORE * LANES + LANES]
    for j in range(LANES):
        freed |= I32(-before[j])
    return freed


@hot
def undo(s, at, i, n):
    """The lists before ``n`` order-0 frees that ``arrive`` counted; R_LEFT has them to do."""
    n = I32(n)
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    total = s[at + R_TOTAL * LANES : at + R_TOTAL * LANES + LANES]
    left = s[at + R_LEFT * LANES : at + R_LEFT * LANES + LANES]
    freed = s[at + R_FREED * LANES : at + R_FREED * LANES + LANES]
    before = s[at + R_BEFORE * LANES : at + R_BEFORE * LANES + LANES]
    for j in range(LANES):
        have[j] = I32(have[j] - n)
        total[j] = I32(total[j] - n)
        left[j] = n
        freed[j] = before[j]


@hot
def free_up_to_high(s, at, g, acc, row, i):
    """Order-0 frees of each lane until its lists come to ``high``, and the drain that follows.

    A drain that one list cannot serve stays in R_BEFORE, pages that are to be drained, and the result is not 0; other
    lanes have 0 there. Negative in the second result while a lane has frees left.
    """
    chunked, anywhere, unlimited = g[G_CHUNKED] != 0, g[G_FROM_FREED] != 0, g[G_FROM_FREED] == 0
    tuned, factors, moves = g[G_RULE] == 2, g[G_RULE] == 1, g[G_RULE] > 0
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    total = s[at + R_TOTAL * LANES : at + R_TOTAL * LANES + LANES]
    left = s[at + R_LEFT * LANES : at + R_LEFT * LANES + LANES]
    freed = s[at + R_FREED * LANES : at + R_FREED * LANES + LANES]
    hard = s[at + R_BEFORE * LANES : at + R_BEFORE * LANES + LANES]
    away = s[at + (R_AWAY + i) * LANES : at + (R_AWAY + i) * LANES + LANES]
    highs = s[at + R_HIGH * LANES : at + R_HIGH * LANES + LANES]
    lows = s[at + R_LOW * LANES : at + R_LOW * LANES + LANES]
    tops = s[at + R_TOP * LANES : at + R_TOP * LANES + LANES]
    batches = s[at + R_BATCH * LANES : at + R_BATCH * LANES + LANES]
    caps = s[at + R_CAP * LANES : at + R_CAP * LANES + LANES]
    scales = s[at + R_SCALE * LANES : at + R_SCALE * LANES + LANES]
    drains = acc[row + N_DRAINS * LANES : row + N_DRAINS * LANES + LANES]
    drained = acc[row + N_DRAIN_PAGES * LANES : row + N_DRAIN_PAGES * LANES + LANES]
    holds = acc[row + N_HOLDS * LANES : row + N_HOLDS * LANES + LANES]
    locks = acc[row + N_LOCKS * LANES : row + N_LOCKS * LANES + LANES]
    any_hard = I32(0)
    any_left = I32(0)
    for j in range(LANES):
        batch, low, top, cap, scale = batches[j], lows[j], tops[j], caps[j], scales[j]
        before, todo, old, listed, gone = highs[j], left[j], freed[j], have[j], away[j]
        count = total[j]
        high = min(max(before, low), top) if tuned else before
        step = min(max(I32(high - count), I32(1)), todo)
        todo = I32(todo - step)
        left[j] = todo
        any_left |= I32(-todo)
        count = I32(count + step)
        listed = I32(listed + step)
        reached = (step > 0) & (count >= high)
        # 6.7 on: free_count, and high below it
        freed_now = max(old, min(I32(old + step), cap))
        wanted = I32(freed_now + batch)
        raised = min(max(wanted, low), top) if reached & (low != top) & (high < wanted) else before
        highs[j] = raised if tuned else before
        # 5.14 to 6.6: free_factor
        doubled = I32(batch << min(old, I32(31))) if factors else batch
        grows = reached & (high >= batch) & (doubled < I32(high - batch)) & (unlimited | (old < scale))
        factor = I32(old + 1) if grows else old
        freed[j] = freed_now if tuned else factor if factors else old
        pages = min(max(freed_now if tuned else doubled, batch), I32(high - batch)) if moves else batch
        pages = I32(1) if moves & (high < batch) else pages
        pages = min(pages, count) if reached else I32(0)
        easy = (pages <= listed) if anywhere else (listed == count)
        taken = pages if easy else I32(0)
        rest = I32(pages - taken)
        hard[j] = rest
        any_hard |= rest
        have[j] = I32(listed - taken)
        total[j] = I32(count - taken)
        away[j] = I32(gone - taken)
        some = I32(1) if taken > 0 else I32(0)
        drains[j] += some
        drained[j] += taken
        if chunked:
            some = I32(np.float64(I32(taken + batch - 1)) / np.float64(batch)) if taken > 0 else I32(0)
            locks[j] += max(I32(some - 1), I32(0))
        holds[j] += some
    return any_hard, any_left


@inner
def free_pages_of(s, at, g, acc, row, i, n):
    """``n`` order-0 frees in every lane of a block, of which some drain."""
    undo(s, at, i, n)
    while True:
        hard, left = free_up_to_high(s, at, g, acc, row, i)
        if hard != 0:
            for j in range(LANES):
                pages = np.int64(s[at + R_BEFORE * LANES + j])
                if pages > 0:
                    drain_lane(s, at, j, g, acc, row + j, pages, i)
        if left >= 0:
            return


@inner
def release(s, first, last, g, acc, row, i, order, n, follows):
    """``n`` blocks come onto list ``i``; ``follows``: the free before was of order 1 to 3. One block for order > 0."""
    tuned = g[G_RULE] == 2
    low_order = 0 < order <= PAGE_ALLOC_COSTLY_ORDER
    shift = min(n, 31)
    for c in range(first, last):
        at = c * ROWS * LANES
        over = np.int64(arrive(s, at, i, n, n << order))
        if tuned:
            needed = count_frees(s, at, n, order, shift)
            over |= np.int64(needed) if low_order and follows else 0
        elif low_order and g[G_FROM_FREED]:
            over |= np.int64(any_freed(s, at))
        if over >= 0:
            continue
        if order == 0:
            free_pages_of(s, at, g, acc, row + c * LANE_COUNTERS * LANES, i, n)
            continue
        for j in range(LANES):
            drains = s[at + j] >= s[at + R_HIGH * LANES + j]
            if tuned:
                drains |= low_order and follows and s[at + R_BEFORE * LANES + j] >= s[at + R_NEED * LANES + j]
            elif low_order:
                drains |= s[at + R_BEFORE * LANES + j] > 0
            if drains:
                free_lane(s, at, j, g, acc, row + c * LANE_COUNTERS * LANES + j, i, order, follows)
