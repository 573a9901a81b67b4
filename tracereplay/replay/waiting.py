"""Requests that wait (architecture.md section 3, rule 4): parked, called again, granted; their pages' later frees.

A parked request keeps a slot with the words of its ``req`` and, for each of its pages, an entry among the blocks
(PG_*). There lie the key of the page, the blocks that the request holds meanwhile, and the recorded free of the page if
one comes before the request is served. Once it is, each page is freed later than recorded by as much as it waited.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner, kernel
from tracereplay.machine.counters import FAILURES
from tracereplay.machine.layout import (
    CFG_MUTEX_OWNER,
    CFG_NOW,
    CFG_TIMER,
    CFG_WOKEN,
    ERROR_BAD_WAIT,
    ERROR_NOT_HELD,
    ERROR_TOO_FEW,
    ERROR_TOO_MANY,
    NEVER,
    WOKEN_MUTEX,
)
from tracereplay.machine.misuse import report_error
from tracereplay.replay.agenda import (
    append_slot,
    first_of,
    remove_slot,
    schedule,
    slot_at,
)
from tracereplay.replay.blocks import block_word, drop_block, holds, new_block, waste_add
from tracereplay.replay.layout import (
    AG_RELEASE,
    BL_FRAME,
    BL_LEFT,
    BL_ORDER,
    BL_OWNER,
    BL_TAG,
    BL_WORDS,
    LIST_FREE,
    LIST_MUTEX,
    LIST_READY,
    LIST_TIME,
    PG_CPU,
    PG_FRAME,
    PG_HIGH,
    PG_KEY,
    PG_LOW,
    PG_NEXT,
    PG_ORDER,
    ROW_BLOCKS,
    ROW_COUNTERS,
    ROW_DELAY,
    ROW_WORDS,
    SL_ALARM,
    SL_PAGES,
    SL_REQ,
    SL_ROW,
    SL_SEQUENCE,
    TAG_DELAYED,
    TAG_PARKED,
    TAG_ROW,
    X_FAILED,
    X_ORPHANS,
    X_OUT,
    X_PARKED,
    X_PENDING,
    X_PROGRESS,
    X_REQ,
    X_STUCK,
    X_STUCK_SINCE,
    X_WAIT_LONGEST,
    X_WAIT_NS,
    X_WAITED,
    X_WAITING,
    X_WAITING_PAGES,
)
from tracereplay.replay.requests import build_bio, end_request, tag_of
from tracereplay.replay.vectors import tables_full
from tracereplay.replay.wakeups import count_call, enqueue, next_sequence, set_alarm, wake
from tracereplay.strategies.contract import (
    DONE,
    REQ_BLOCKS,
    REQ_FLAGS,
    REQ_ID,
    REQ_NOW,
    REQ_PAGES,
    REQ_UNTIL,
    REQ_WAIT,
    REQ_WORDS,
    WAIT,
    WAIT_MUTEX,
    WAIT_TIME,
)

LOW_BITS = 31


# ---------------------------------------------------------------- into a slot and out of it
@inner
def park(m, e, ops, i, extents, row):
    """A new request, that of the ``extents`` operations from ``i`` on, has to wait. There is a slot and room."""
    s = first_of(e.t, e.x, LIST_FREE)
    remove_slot(e.t, e.x, s)
    a = slot_at(e.x, s)
    e.t[a + SL_ROW] = row
    e.t[a + SL_SEQUENCE] = 0
    e.x[X_PARKED] += 1
    last = np.int64(-1)
    for x in range(extents):
        for k in range(1 << np.int64(ops[i + x].order)):
            h = new_block(e, np.int64(ops[i + x].pfn) + k, 0, 0, -1, TAG_PARKED | tag_of(TAG_ROW, 0, 0))
            e.bl[h * BL_WORDS + PG_NEXT] = -1
            if last < 0:
                e.t[a + SL_PAGES] = h
            else:
                e.bl[last * BL_WORDS + PG_NEXT] = h
            last = h
            e.fm[ops[i + x].pfn + k] = -h - 1
    if m.w[CFG_WOKEN] != 0:
        wake(m, e)
        m.w[CFG_TIMER] = 0  # those that are ready go on next
    keep_waiting(m, e, s)


@inner
def keep_waiting(m, e, s):
    """Put the request of X_REQ and X_OUT into its slot, to wait as it says.

    Who was called and got nothing keeps its place; who got blocks begins to wait anew, behind the others.
    """
    a = slot_at(e.x, s)
    goes_on = e.t[a + SL_SEQUENCE] != 0
    for k in (REQ_WAIT, REQ_BLOCKS):
        goes_on = goes_on and e.t[a + SL_REQ + k] == e.x[X_REQ + k]
    for k in range(REQ_WORDS):
        e.t[a + SL_REQ + k] = e.x[X_REQ + k]
    h = e.t[a + SL_PAGES]
    for b in range(e.x[X_REQ + REQ_BLOCKS]):
        frame, order = e.x[X_OUT + 2 * b], e.x[X_OUT + 2 * b + 1]
        if h < 0 or not holds(m, frame, order):
            report_error(m, ERROR_TOO_MANY if h < 0 else ERROR_NOT_HELD, frame)
            return
        e.bl[h * BL_WORDS + PG_FRAME] = frame
        e.bl[h * BL_WORDS + PG_ORDER] = order
        h = block_word(e, h, PG_NEXT)
    kind, until, owner = e.x[X_REQ + REQ_WAIT], e.x[X_REQ + REQ_UNTIL], m.w[CFG_MUTEX_OWNER]
    if kind < WAIT_MUTEX or kind > WAIT_TIME or until <= m.w[CFG_NOW]:
        report_error(m, ERROR_BAD_WAIT, kind)
    if kind == WAIT_MUTEX and (owner == 0 or owner == e.x[X_REQ + REQ_ID]):
        report_error(m, ERROR_BAD_WAIT, kind)
    if not goes_on:
        e.t[a + SL_SEQUENCE] = next_sequence(e)
    enqueue(e, max(WAIT_MUTEX, min(kind, WAIT_TIME)), s)
    if until < NEVER and (e.t[a + SL_ALARM] == 0 or until <= e.t[a + SL_ALARM]):
        set_alarm(m, e, s)


@inner
def recall(m, e, s):
    """Take a ready request back into X_REQ and X_OUT, to be called again. Its row."""
    remove_slot(e.t, e.x, s)
    a = slot_at(e.x, s)
    for k in range(REQ_WORDS):
        e.x[X_REQ + k] = e.t[a + SL_REQ + k]
    h = e.t[a + SL_PAGES]
    for b in range(e.x[X_REQ + REQ_BLOCKS]):
        e.x[X_OUT + 2 * b] = block_word(e, h, PG_FRAME)
        e.x[X_OUT + 2 * b + 1] = block_word(e, h, PG_ORDER)
        h = block_word(e, h, PG_NEXT)
    count_call(m, e)
    return e.t[a + SL_ROW]


@inner
def settle(m, e, s, status):
    """What the new call of a waiting request came to: it waits on, got all, or failed."""
    if status == WAIT:
        if m.w[CFG_WOKEN] != 0:
            wake(m, e)
        keep_waiting(m, e, s)
    else:
        a = slot_at(e.x, s)
        row, delay = e.t[a + SL_ROW], m.w[CFG_NOW] - e.x[X_REQ + REQ_NOW]
        e.x[X_PARKED] -= 1
        e.x[X_WAITED] += 1
        e.x[X_WAIT_NS] += delay
        e.x[X_WAIT_LONGEST] = max(e.x[X_WAIT_LONGEST], delay)
        e.x[X_PROGRESS] = m.w[CFG_NOW]
        e.rows[row * ROW_WORDS + ROW_DELAY] = delay
        if status == DONE:
            build_bio(e, row, e.x[X_REQ + REQ_FLAGS], e.x[X_REQ + REQ_PAGES], e.x[X_REQ + REQ_BLOCKS])
            grant(m, e, e.t[a + SL_PAGES], row)
        else:
            forget_pages(e, e.t[a + SL_PAGES])
            e.rows[row * ROW_WORDS + ROW_COUNTERS + FAILURES] += 1
            e.x[X_FAILED] += 1
            end_request(e, row)
        append_slot(e.t, e.x, LIST_FREE, s)
    if m.w[CFG_MUTEX_OWNER] == 0 and first_of(e.t, e.x, LIST_MUTEX) != 0:
        m.w[CFG_WOKEN] |= WOKEN_MUTEX  # the mutex's next, if this one did not take it


@inner
def grant(m, e, h, row):
    """Enter the blocks at X_OUT as the pages of a request that waited ROW_DELAY; ``h``: entry of its first page."""
    blocks = e.x[X_REQ + REQ_BLOCKS]
    e.rows[row * ROW_WORDS + ROW_BLOCKS] = blocks
    delay = e.rows[row * ROW_WORDS + ROW_DELAY]
    tag = TAG_DELAYED | tag_of(TAG_ROW, e.x[X_REQ + REQ_FLAGS], 0)
    for b in range(blocks):
        frame, order = e.x[X_OUT + 2 * b], e.x[X_OUT + 2 * b + 1]
        if h < 0 or not holds(m, frame, order):
            report_error(m, ERROR_TOO_MANY if h < 0 else ERROR_NOT_HELD, frame)
            return
        block, mapped = h, 0
        while mapped < 1 << order and h >= 0:
            after, key = block_word(e, h, PG_NEXT), block_word(e, h, PG_KEY)
            if key >= 0:
                e.fm[key] = -block - 1
            else:
                freed = block_word(e, h, PG_HIGH) << LOW_BITS | block_word(e, h, PG_LOW)
                put_off(m, e, block, freed + delay, block_word(e, h, PG_CPU))
            if h != block:
                drop_block(e, h)
            mapped += 1
            h = after
        e.bl[block * BL_WORDS + BL_FRAME] = frame
        e.bl[block * BL_WORDS + BL_ORDER] = order
        e.bl[block * BL_WORDS + BL_LEFT] = mapped
        e.bl[block * BL_WORDS + BL_OWNER] = row
        e.bl[block * BL_WORDS + BL_TAG] = tag
        waste_add(e, (1 << order) - mapped)
    if h >= 0:
        report_error(m, ERROR_TOO_FEW, e.x[X_OUT])


@inner
def forget_pages(e, h):
    """Drop the pages of a request that waited in vain."""
    while h >= 0:
        after, key = block_word(e, h, PG_NEXT), block_word(e, h, PG_KEY)
        if key >= 0:
            e.fm[key] = 0
        else:
            e.x[X_ORPHANS] += 1
        drop_block(e, h)
        h = after


# ---------------------------------------------------------------- frees
@hot
def waited_for(e, h):
    """Whether entry ``h`` is of a request that waits or has waited."""
    tag = block_word(e, h, BL_TAG)
    return tag & TAG_ROW != 0 and tag & (TAG_DELAYED | TAG_PARKED) != 0


@inner
def put_off(m, e, h, when, cpu):
    """A page of block ``h`` is to be freed at ``when``."""
    e.x[X_PENDING] += 1
    schedule(m.w, e.t, e.x, when, AG_RELEASE, cpu, next_sequence(e), h)


@inner
def free_later(m, e, h, cpu, now):
    """The recorded free of a page whose request waits or has waited: for after the grant, or for later."""
    if block_word(e, h, BL_TAG) & TAG_PARKED:
        e.bl[h * BL_WORDS + PG_KEY] = -1
        e.bl[h * BL_WORDS + PG_CPU] = cpu
        e.bl[h * BL_WORDS + PG_LOW] = now & (1 << LOW_BITS) - 1
        e.bl[h * BL_WORDS + PG_HIGH] = now >> LOW_BITS
    else:
        put_off(m, e, h, now + e.rows[block_word(e, h, BL_OWNER) * ROW_WORDS + ROW_DELAY], cpu)


# ---------------------------------------------------------------- the end
@inner
def pages_held(e, h, blocks):
    """Pages of the blocks that a waiting request has; ``h``: entry of its first page."""
    pages = 0
    for _ in range(blocks):
        pages += 1 << block_word(e, h, PG_ORDER)
        h = block_word(e, h, PG_NEXT)
    return pages


@kernel
def end_waiting(m, e):
    """The end of the trace: requests that still wait count with what they cost so far. False: a table must grow."""
    for which in range(LIST_MUTEX, LIST_READY + 1):
        while True:
            s = first_of(e.t, e.x, which)
            if s == 0:
                break
            if tables_full(e.x):
                return False
            a = slot_at(e.x, s)
            remove_slot(e.t, e.x, s)
            append_slot(e.t, e.x, LIST_FREE, s)
            e.x[X_PARKED] -= 1
            e.x[X_WAITING] += 1
            if which != LIST_TIME:
                e.x[X_STUCK] += 1
                owner = m.w[CFG_MUTEX_OWNER] == e.t[a + SL_REQ + REQ_ID]
                if e.x[X_STUCK_SINCE] == 0 or e.t[a + SL_REQ + REQ_BLOCKS] > 0 or owner:
                    e.x[X_STUCK_SINCE] = max(e.x[X_STUCK_SINCE], e.t[a + SL_REQ + REQ_NOW])
            e.x[X_WAITING_PAGES] += pages_held(e, e.t[a + SL_PAGES], e.t[a + SL_REQ + REQ_BLOCKS])
            forget_pages(e, e.t[a + SL_PAGES])
            e.rows[e.t[a + SL_ROW] * ROW_WORDS + ROW_DELAY] = m.w[CFG_NOW] - e.t[a + SL_REQ + REQ_NOW]
            end_request(e, e.t[a + SL_ROW])
    return True
