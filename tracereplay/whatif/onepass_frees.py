"""Frees to the per-CPU lists of many settings at once, and the drains that follow; see onepass_lanes.py."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import PAGE_ALLOC_COSTLY_ORDER
from tracereplay.whatif.onepass_lane import drain_lane, free_lane, free_run
from tracereplay.whatif.onepass_lanes import count_moves, fetch, put_back, quotient
from tracereplay.whatif.onepass_state import (
    G_CHUNKED,
    G_FROM_FREED,
    G_RULE,
    G_STEADY,
    LANE_COUNTERS,
    LANES,
    N_DRAIN_PAGES,
    N_DRAINS,
    N_HOLDS,
    N_LOCKS,
    R_ALLOC,
    R_AWAY,
    R_BATCH,
    R_BEFORE,
    R_CAP,
    R_FREED,
    R_GONE,
    R_HAVE,
    R_HIGH,
    R_LEFT,
    R_LISTS,
    R_LOW,
    R_NEED,
    R_SCALE,
    R_TAKEN,
    R_TIMES,
    R_TOP,
    R_TOTAL,
    ROWS,
)

I32 = np.int32
LARGE = 1 << 23
"""Pages beyond ``high`` up to which quotients are exact."""


@hot
def arrive(s, at, i, n, pages):
    """``n`` blocks come onto a list in every lane. Negative if the lists of a lane came to ``high``."""
    over = I32(0)
    n, pages = I32(n), I32(pages)
    have = s[at + (R_LISTS + i) * LANES : at + (R_LISTS + i) * LANES + LANES]
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        count = I32(b[R_TOTAL * LANES + j] + pages)
        b[R_BEFORE * LANES + j] = b[R_FREED * LANES + j]
        have[j] = I32(have[j] + n)
        b[R_TOTAL * LANES + j] = count
        over |= I32(b[R_HIGH * LANES + j] - 1 - count)
    return over


@hot
def count_frees(s, at, n, order, shift):
    """What ``n`` frees do to ``alloc_factor`` and ``free_count`` (6.7 on). Negative where R_NEED was reached before."""
    size, n, shift = I32(1 << order), I32(n), I32(shift)
    needed = I32(0)
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        old, cap = b[R_FREED * LANES + j], b[R_CAP * LANES + j]
        b[R_ALLOC * LANES + j] = I32(b[R_ALLOC * LANES + j]) >> shift
        single = max(old, min(I32(old + n), cap))
        b[R_FREED * LANES + j] = single if size == 1 else I32(old + size) if old < cap else old
        needed |= I32(b[R_NEED * LANES + j] - 1 - old)
    return needed


@hot
def any_freed(s, at):
    """Negative where ``free_factor`` was above 0 before the step."""
    freed = I32(0)
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        freed |= I32(-b[R_BEFORE * LANES + j])
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


@hot
def drains_of_fixed(s, at, g):
    """Drains that R_LEFT order-0 frees of each lane bring about, sizes fixed; ``arrive`` counted them.

    ``high`` is above ``batch``. Drains of P pages each follow one another: while the lists are at ``high`` each free
    drains, then each time that they come there again, so the k drains are the fewest after which they are below it, at
    most one for each free. After the last one the lists have ``high - P`` or, if every free drained, more, which
    tells how many frees were still to come then, and that the list had least. P grows with ``free_factor`` or
    ``free_count`` until it cannot: before that it is one drain at a time. Results: not 0 where R_BEFORE says that
    a list cannot serve the drains and nothing was done; negative while there may be more.
    """
    tuned, factors, anywhere, unlimited = g[G_RULE] == 2, g[G_RULE] == 1, g[G_FROM_FREED] != 0, g[G_FROM_FREED] == 0
    any_hard = I32(0)
    any_left = I32(0)
    b = s[at : at + ROWS * LANES]
    for j in range(LANES):
        batch, high, count = b[R_BATCH * LANES + j], b[R_HIGH * LANES + j], b[R_TOTAL * LANES + j]
        cap, scale = b[R_CAP * LANES + j], b[R_SCALE * LANES + j]
        todo, old, listed = b[R_LEFT * LANES + j], b[R_FREED * LANES + j], b[R_HAVE * LANES + j]
        most = I32(high - batch)
        over = I32(count - high)
        # 6.7 on: free_count when the first drain is due; 5.14 to 6.6: free_factor
        freed_then = max(old, min(I32(old + min(max(I32(todo - over), I32(1)), todo)), cap))
        doubled = I32(batch << min(old, I32(31))) if factors else batch
        grows = factors & (doubled < most) & (unlimited | (old < scale))
        pages = min(max(freed_then if tuned else doubled, batch), most) if tuned | factors else batch
        moves = (freed_then < min(cap, most)) if tuned else grows
        at_once = min(todo, I32(1)) if moves else todo
        times = min(I32(quotient(max(over, I32(0)), pages) + 1), at_once) if over >= 0 else I32(0)
        taken = I32(times * pages)
        after = min(I32(over + pages - taken), I32(todo - times)) if times > 0 else I32(0)
        easy = (I32(listed - after - taken) >= 0) if anywhere else (listed == count)
        done = easy & (over < LARGE) | (times == 0)
        b[R_BEFORE * LANES + j] = I32(0) if done else I32(1)
        any_hard |= b[R_BEFORE * LANES + j]
        times = times if done else I32(0)
        taken = taken if done else I32(0)
        again = done & (I32(over - taken) >= 0)
        after = after if again else I32(0) if done else todo
        freed_now = max(old, min(I32(old + todo - after), cap))
        b[R_FREED * LANES + j] = freed_now if tuned else I32(old + 1) if grows & (times > 0) else old
        b[R_HAVE * LANES + j] = I32(listed - taken)
        b[R_TOTAL * LANES + j] = I32(count - taken)
        b[R_GONE * LANES + j] = I32(b[R_GONE * LANES + j] - taken)
        b[R_LEFT * LANES + j] = after
        b[R_TIMES * LANES + j] = times
        b[R_TAKEN * LANES + j] = taken
        any_left |= I32(-after) if again else I32(0)
    return any_hard, any_left


@inner
def free_pages_steady(s, at, g, acc, row, i, n):
    """``free_pages_of`` with sizes that are fixed and ordinary (G_STEADY)."""
    b = s[at : at + ROWS * LANES]
    holds = acc[row + N_HOLDS * LANES : row + N_HOLDS * LANES + LANES]
    for j in range(LANES):
        b[R_LEFT * LANES + j] = I32(n)
    if g[G_RULE] == 2:
        for j in range(LANES):
            b[R_FREED * LANES + j] = b[R_BEFORE * LANES + j]
    while True:
        fetch(s, at, i)
        hard, left = drains_of_fixed(s, at, g)
        put_back(s, at, i)
        count_moves(s, at, acc, row + N_DRAINS * LANES)
        for j in range(LANES):
            holds[j] += np.int64(b[R_TIMES * LANES + j])
        if hard != 0:
            for j in range(LANES):
                if s[at + R_BEFORE * LANES + j] != 0:
                    free_run(s, at, j, g, acc, row + j, i)
        if left >= 0:
            return


@inner
def free_pages_of(s, at, g, acc, row, i, n):
    """``n`` order-0 frees in every lane of a block, of which some drain."""
    if g[G_STEADY]:
        free_pages_steady(s, at, g, acc, row, i, n)
        return
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
