"""Requests as a strategy serves them: its calls, what each request is charged, its blocks' release.

A strategy's functions are compiled by themselves and reached by the addresses at X_INIT and the following words, which
the engine puts there.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, indirect, inner, kernel
from tracereplay.demand.stream import REQUIRED
from tracereplay.machine.counters import FAILURES, NR_SLOTS
from tracereplay.machine.layout import (
    CFG_CPU,
    CFG_CPUS,
    CFG_MUTEX_OWNER,
    CFG_NOW,
    ERROR_MAY_NOT_WAIT,
    ERROR_MUTEX_KEPT,
)
from tracereplay.machine.misuse import report_error
from tracereplay.replay.blocks import (
    block_word,
    charged_to,
    drop_block,
    map_blocks,
)
from tracereplay.replay.calls import ALLOCATE, FINISH, INIT, RELEASE, SHRINK, TIMER
from tracereplay.replay.layout import (
    BIO_PIECE,
    BL_FRAME,
    BL_LEFT,
    BL_ORDER,
    BL_OWNER,
    BL_PAGES,
    BL_TAG,
    BL_WORDS,
    ROW_BIO,
    ROW_BLOCKS,
    ROW_COUNTERS,
    ROW_WORDS,
    TAG_FLAGS,
    TAG_FLAGS_SHIFT,
    TAG_ROW,
    X_ALLOCATE,
    X_BINS,
    X_BLOCK,
    X_FAILED,
    X_FINISH,
    X_INIT,
    X_OUT,
    X_PROGRESS,
    X_RELEASE,
    X_REQ,
    X_SCRATCH,
    X_SHRINK,
    X_TARGETED_PAGES,
    X_TARGETED_REQUESTS,
    X_TIMER,
    X_WASTE,
    X_WORKER,
)
from tracereplay.replay.requests import (
    arrival_units,
    build_bio,
    charge_targeted,
    count_tagged,
    drop_row,
    end_request,
    introduce,
    new_row,
    tag_of,
)
from tracereplay.replay.vectors import clear, intern_vector, sum_vector
from tracereplay.replay.waiting import park, recall, settle
from tracereplay.strategies.contract import (
    BLOCK_FLAGS,
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CALLER,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_ID,
    REQ_NOW,
    REQ_ORDER,
    REQ_PAGES,
    REQ_WAIT,
    WAIT,
)

call_init = indirect(None, *INIT)
call_allocate = indirect(int, *ALLOCATE)
call_release = indirect(None, *RELEASE)
call_timer = indirect(None, *TIMER)
call_shrink = indirect(None, *SHRINK)
call_finish = indirect(None, *FINISH)


@kernel
def start(m, st, e):
    """Prepare the strategy."""
    call_init(e.x[X_INIT], (m, st))


@hot
def worker(m, e):
    """The machine, charging the strategy's own work."""
    return charged_to(m, e.x[X_WORKER:X_OUT])


@inner
def ask_strategy(m, st, e, first_block):
    """One call of the strategy for the request of X_REQ; its blocks land at X_OUT from pair ``first_block`` on."""
    return call_allocate(e.x[X_ALLOCATE], (m, st, e.x[X_REQ:X_BLOCK], e.x[X_OUT + 2 * first_block : X_BINS]))


@hot
def new_request(e, pages, order):
    """Words of X_REQ for a first call."""
    e.x[X_REQ + REQ_PAGES] = pages
    e.x[X_REQ + REQ_ORDER] = order
    e.x[X_REQ + REQ_BLOCKS] = 0
    for k in range(REQ_WAIT, REQ_CALLER):
        e.x[X_REQ + k] = 0


@hot
def release_block(m, st, e, frame, order, flags, cpu, now):
    """One call of the strategy's release."""
    block = e.x[X_BLOCK:X_SCRATCH]
    block[BLOCK_FRAME] = frame
    block[BLOCK_ORDER] = order
    block[BLOCK_FLAGS] = flags
    call_release(e.x[X_RELEASE], (m, st, block, cpu, now))


@inner
def ask_by_extent(m, st, e, ops, i, extents, flags, cpu, now):
    """A request that needs contiguity: one block per extent, all or nothing. DONE or FAIL."""
    for x in range(extents):
        order = np.int64(ops[i + x].order)
        new_request(e, 1 << order, order)
        status = ask_strategy(m, st, e, x)
        if status == WAIT:
            report_error(m, ERROR_MAY_NOT_WAIT, 0)
        if status != DONE or e.x[X_REQ + REQ_BLOCKS] != 1:
            for b in range(x):
                release_block(m, st, e, e.x[X_OUT + 2 * b], e.x[X_OUT + 2 * b + 1], flags, cpu, now)
            return FAIL
    e.x[X_REQ + REQ_BLOCKS] = extents
    return DONE


@inner
def serve_targeted(m, st, e, ops, i, extents):
    """A targeted request: by the strategy, charged to a row of its own."""
    cpu = np.int64(ops[i].cpu) % m.w[CFG_CPUS]
    flags = np.int64(ops[i].flags)
    pages = np.int64(ops[i].pages)
    now = ops[i].ts_ns
    r = new_row(e)
    introduce(e, r, ops[i])
    mr = charged_to(m, e.rows[r * ROW_WORDS + ROW_COUNTERS : (r + 1) * ROW_WORDS])
    e.x[X_REQ + REQ_CPU] = cpu
    e.x[X_REQ + REQ_GFP] = ops[i].gfp
    e.x[X_REQ + REQ_FLAGS] = flags
    e.x[X_REQ + REQ_NOW] = now
    e.x[X_REQ + REQ_CALLER] = ops[i].caller
    e.x[X_TARGETED_REQUESTS] += 1
    e.x[X_TARGETED_PAGES] += pages
    e.x[X_REQ + REQ_ID] = e.x[X_TARGETED_REQUESTS]
    if flags & REQUIRED:
        status = ask_by_extent(mr, st, e, ops, i, extents, flags, cpu, now)
    else:
        new_request(e, pages, 0)
        status = ask_strategy(mr, st, e, 0)
    if status == WAIT:
        park(m, e, ops, i, extents, r)
        return
    if m.w[CFG_MUTEX_OWNER] == e.x[X_REQ + REQ_ID]:
        report_error(m, ERROR_MUTEX_KEPT, 0)
    blocks = e.x[X_REQ + REQ_BLOCKS]
    if status != DONE:
        mr.c[FAILURES] += 1
        e.x[X_FAILED] += 1
        end_request(e, r)
        return
    build_bio(e, r, flags, pages, blocks)
    if blocks == 1 and e.rows[r * ROW_WORDS + ROW_BIO] < BIO_PIECE:
        charge_targeted(e, e.rows[r * ROW_WORDS + ROW_COUNTERS : (r + 1) * ROW_WORDS])
        v = intern_vector(e.t, e.x, e.rows[r * ROW_WORDS + ROW_COUNTERS : (r + 1) * ROW_WORDS])
        drop_row(e, r)
        map_blocks(m, e, ops, i, extents, 1, v, tag_of(0, flags, arrival_units(e.x, now)))
    else:
        e.rows[r * ROW_WORDS + ROW_BLOCKS] = blocks
        map_blocks(m, e, ops, i, extents, blocks, r, tag_of(TAG_ROW, flags, 0))


@inner
def recall_request(m, st, e, s):
    """Call a request again that waited."""
    row = recall(m, e, s)
    m.w[CFG_CPU] = e.x[X_REQ + REQ_CPU]
    mr = charged_to(m, e.rows[row * ROW_WORDS + ROW_COUNTERS : (row + 1) * ROW_WORDS])
    status = ask_strategy(mr, st, e, 0)
    if status != WAIT and m.w[CFG_MUTEX_OWNER] == e.x[X_REQ + REQ_ID]:
        report_error(m, ERROR_MUTEX_KEPT, 0)
    settle(m, e, s, status)


@inner
def release_targeted(m, st, e, frame, order, owner, tag, pages, cpu, now):
    """The last page of a targeted block was freed, of which the request had ``pages``: the strategy gets it back."""
    e.x[X_PROGRESS] = now
    flags = tag >> TAG_FLAGS_SHIFT & TAG_FLAGS
    if tag & TAG_ROW:
        row = e.rows[owner * ROW_WORDS + ROW_COUNTERS : (owner + 1) * ROW_WORDS]
        release_block(charged_to(m, row), st, e, frame, order, flags, cpu, now)
        e.rows[owner * ROW_WORDS + ROW_BLOCKS] -= 1
        if e.rows[owner * ROW_WORDS + ROW_BLOCKS] == 0:
            end_request(e, owner)
    else:
        row = e.x[X_SCRATCH : X_SCRATCH + NR_SLOTS]
        clear(row)
        release_block(charged_to(m, row), st, e, frame, order, flags, cpu, now)
        charge_targeted(e, row)
        v = sum_vector(e.t, e.x, owner, intern_vector(e.t, e.x, row), row)
        count_tagged(e, v, tag, pages)


@inner
def free_page_of(m, st, e, h, cpu, now):
    """One page of block ``h`` was freed; the last one releases it."""
    e.bl[h * BL_WORDS + BL_LEFT] -= 1
    e.x[X_WASTE] += 1
    if e.bl[h * BL_WORDS + BL_LEFT] > 0:
        return
    frame, order = block_word(e, h, BL_FRAME), block_word(e, h, BL_ORDER)
    owner, tag, pages = block_word(e, h, BL_OWNER), block_word(e, h, BL_TAG), block_word(e, h, BL_PAGES)
    e.x[X_WASTE] -= 1 << order
    drop_block(e, h)
    release_targeted(m, st, e, frame, order, owner, tag, pages, cpu, now)


@inner
def run_timer(m, st, e, number):
    """A timer of the strategy is due."""
    if e.x[X_TIMER] != 0:
        call_timer(e.x[X_TIMER], (worker(m, e), st, number, m.w[CFG_NOW]))


@inner
def run_shrinker(m, st, e, pages):
    """Memory is reclaimed, and the strategy asked for ``pages`` of what it keeps idle."""
    if e.x[X_SHRINK] != 0:
        call_shrink(e.x[X_SHRINK], (worker(m, e), st, pages))


@kernel
def finish(m, st, e):
    """Tell the strategy that the trace is over."""
    if e.x[X_FINISH] != 0:
        call_finish(e.x[X_FINISH], (worker(m, e), st))
