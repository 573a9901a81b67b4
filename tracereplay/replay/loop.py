"""The replay loop: operations of the demand stream, one after another, on one machine with one strategy.

The loop is compiled once. A strategy's functions are compiled by themselves and reached by the addresses at
X_ALLOCATE and the following words, which the engine puts there.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, indirect, inner, kernel
from tracereplay.demand.stream import ALLOC, FIRST, FREE, REQUIRED, TARGETED, UNSEEN
from tracereplay.machine.background import run_background
from tracereplay.machine.buddy import owner_of
from tracereplay.machine.counters import FAILURES, NR_SLOTS
from tracereplay.machine.layout import CFG_CPUS, CFG_ERROR, CFG_NOW, CFG_TIMER
from tracereplay.machine.page_alloc import alloc_pages_here
from tracereplay.machine.page_free import free_pages, free_pages_here
from tracereplay.machine.vmstat import tick_due, vmstat_tick
from tracereplay.replay.blocks import (
    block_room,
    block_word,
    charge_targeted,
    charged_to,
    containing_extent,
    drop_block,
    drop_row,
    end_request,
    free_initial,
    free_run,
    lacking,
    map_blocks,
    new_row,
    next_bin,
    order_at,
    serve_unseen,
    spread_extent,
    still_held,
    tag_of,
    waste_add,
)
from tracereplay.replay.calls import ALLOCATE, INIT, RELEASE
from tracereplay.replay.layout import (
    BL_FRAME,
    BL_LEFT,
    BL_ORDER,
    BL_OWNER,
    BL_TAG,
    BL_WORDS,
    FM_FRAME,
    FM_TARGETED,
    MACHINE_ERROR,
    MORE_BLOCKS,
    MORE_TABLES,
    ROW_BLOCKS,
    ROW_COUNTERS,
    ROW_WORDS,
    RUNNING,
    TAG_BIN_SHIFT,
    TAG_FLAGS,
    TAG_FLAGS_SHIFT,
    TAG_ROW,
    X_ALLOCATE,
    X_BACKGROUND_FAILED,
    X_BIN,
    X_BINS,
    X_BLOCK,
    X_FAILED,
    X_INIT,
    X_NEXT_BIN_NS,
    X_ORPHANS,
    X_OUT,
    X_PAGES,
    X_REASON,
    X_RELEASE,
    X_REQ,
    X_REQUESTS,
    X_SCRATCH,
    X_TARGETED_PAGES,
    X_TARGETED_REQUESTS,
    X_WASTE,
)
from tracereplay.replay.vectors import clear, count_request, intern_vector, sum_vector, tables_full
from tracereplay.strategies.contract import (
    BLOCK_FLAGS,
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_NOW,
    REQ_ORDER,
    REQ_PAGES,
)

call_init = indirect(None, *INIT)
call_allocate = indirect(int, *ALLOCATE)
call_release = indirect(None, *RELEASE)


@kernel
def start(m, st, e):
    """Prepare the strategy."""
    call_init(e.x[X_INIT], (m, st))


@inner
def ask_strategy(m, st, e, pages, order, flags, first_block):
    """One call of the strategy; its blocks land at X_OUT from pair ``first_block`` on. Their number, or -1."""
    req = e.x[X_REQ:X_BLOCK]
    req[REQ_PAGES] = pages
    req[REQ_ORDER] = order
    req[REQ_FLAGS] = flags
    req[REQ_BLOCKS] = 0
    if call_allocate(e.x[X_ALLOCATE], (m, st, req, e.x[X_OUT + 2 * first_block : X_BINS])) != DONE:
        return -1
    return req[REQ_BLOCKS]


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
    """A request that needs contiguity: one block per extent, all or nothing. Blocks, or -1."""
    for x in range(extents):
        order = np.int64(ops[i + x].order)
        if ask_strategy(m, st, e, 1 << order, order, flags, x) != 1:
            for b in range(x):
                release_block(m, st, e, e.x[X_OUT + 2 * b], e.x[X_OUT + 2 * b + 1], flags, cpu, now)
            return -1
    return extents


@inner
def serve_targeted(m, st, e, ops, i, extents):
    """A targeted request: by the strategy, charged to a row of its own."""
    cpu = np.int64(ops[i].cpu) % m.w[CFG_CPUS]
    flags = np.int64(ops[i].flags)
    pages = np.int64(ops[i].pages)
    now = ops[i].ts_ns
    r = new_row(e)
    mr = charged_to(m, e.rows[r * ROW_WORDS + ROW_COUNTERS : (r + 1) * ROW_WORDS])
    e.x[X_REQ + REQ_CPU] = cpu
    e.x[X_REQ + REQ_GFP] = ops[i].gfp
    e.x[X_REQ + REQ_NOW] = now
    e.x[X_TARGETED_REQUESTS] += 1
    e.x[X_TARGETED_PAGES] += pages
    if flags & REQUIRED:
        blocks = ask_by_extent(mr, st, e, ops, i, extents, flags, cpu, now)
    else:
        blocks = ask_strategy(mr, st, e, pages, 0, flags, 0)
    if blocks < 0:
        mr.c[FAILURES] += 1
        e.x[X_FAILED] += 1
        end_request(e, r)
        return
    if blocks == 1:
        charge_targeted(e, e.rows[r * ROW_WORDS + ROW_COUNTERS : (r + 1) * ROW_WORDS])
        v = intern_vector(e.t, e.x, e.rows[r * ROW_WORDS + ROW_COUNTERS : (r + 1) * ROW_WORDS])
        drop_row(e, r)
        map_blocks(m, e, ops, i, extents, 1, v, tag_of(0, flags, e.x[X_BIN]))
    else:
        e.rows[r * ROW_WORDS + ROW_BLOCKS] = blocks
        map_blocks(m, e, ops, i, extents, blocks, r, tag_of(TAG_ROW, flags, 0))


@inner
def release_targeted(m, st, e, frame, order, owner, tag, cpu, now):
    """The last page of a targeted block was freed: the strategy gets it back."""
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
        count_request(e.t, e.x, v, tag >> TAG_BIN_SHIFT)


@inner
def free_page_of(m, st, e, h, cpu, now):
    """One page of block ``h`` was freed; the last one releases it."""
    e.bl[h * BL_WORDS + BL_LEFT] -= 1
    e.x[X_WASTE] += 1
    if e.bl[h * BL_WORDS + BL_LEFT] > 0:
        return
    frame, order = block_word(e, h, BL_FRAME), block_word(e, h, BL_ORDER)
    owner, tag = block_word(e, h, BL_OWNER), block_word(e, h, BL_TAG)
    e.x[X_WASTE] -= 1 << order
    drop_block(e, h)
    release_targeted(m, st, e, frame, order, owner, tag, cpu, now)


@inner
def free_keys(m, st, e, key, order, cpu, now):
    """Free ``2^order`` pages by key, however they were served."""
    v = np.int64(e.fm[key])
    if v > 0 and order_at(m, v) > order:
        spread_extent(m, e, key)
    elif v == 0:
        head = containing_extent(m, e, key)
        if head >= 0:
            spread_extent(m, e, head)
    if order > 0 and 0 < e.fm[key] < FM_TARGETED and free_run(m, e, key, order, cpu):
        return
    k = key
    end = key + (1 << order)
    while k < end:
        v = np.int64(e.fm[k])
        e.fm[k] = 0
        if v == 0:
            e.x[X_ORPHANS] += 1
            k += 1
        elif v < 0:
            free_page_of(m, st, e, -v - 1, cpu, now)
            k += 1
        else:
            frame, size = (v & FM_FRAME) - 1, order_at(m, v)
            k += 1 << size
            if not still_held(m, frame):
                return
            if v < FM_TARGETED:
                free_pages(m, cpu, frame, size)
            else:
                owner, tag = owner_of(m, frame)
                release_targeted(m, st, e, frame, size, owner, tag, cpu, now)
    waste_add(e, 0)  # pages freed together are not waste in between: only now the peak counts


@inner
def free_slow(m, st, e, op, cpu):
    """A free that is not simply that of a background block: targeted, or in pieces, or of several. False: no room."""
    key, order = np.int64(op.pfn), np.int64(op.order)
    if tables_full(e.x):
        e.x[X_REASON] = MORE_TABLES
    elif not block_room(e):
        e.x[X_REASON] = MORE_BLOCKS
    else:
        free_keys(m, st, e, key, order, cpu, op.ts_ns)
        return True
    return False


@kernel
def run(m, st, e, ops, i):
    """Replay ``ops`` from index ``i`` on. Index of the first operation not done; ``X_REASON`` says why it stopped."""
    n = ops.shape[0]
    cpus = m.w[CFG_CPUS]
    e.x[X_REASON] = RUNNING
    while i < n:
        op = ops[i]
        if op.ts_ns >= e.x[X_NEXT_BIN_NS]:
            next_bin(m, e, op.ts_ns)
        m.w[CFG_NOW] = op.ts_ns
        if op.ts_ns >= m.w[CFG_TIMER]:
            run_background(m)
        cpu = np.int64(op.cpu)
        if cpu >= cpus:
            cpu %= cpus
        if tick_due(m, cpu, op.ts_ns):
            vmstat_tick(m, cpu, op.ts_ns)
        order = np.int64(op.order)
        if op.kind == FREE:
            v = np.int64(e.fm[op.pfn])
            if 0 < v < FM_TARGETED and order_at(m, v) == order:
                e.fm[op.pfn] = 0
                free_pages_here(m, cpu, v - 1, order)
            elif not free_slow(m, st, e, op, cpu):
                return i
            i += 1
        elif op.kind != ALLOC:
            free_initial(m, e, op, cpu)
            i += 1
        elif op.flags & (TARGETED | UNSEEN):
            e.x[X_REASON] = lacking(e)
            if e.x[X_REASON] != RUNNING:
                return i
            extents = 1
            while i + extents < n and ops[i + extents].kind == ALLOC and not ops[i + extents].flags & FIRST:
                extents += 1
            e.x[X_REQUESTS] += 1
            e.x[X_PAGES] += op.pages
            if op.flags & TARGETED:
                serve_targeted(m, st, e, ops, i, extents)
            else:
                serve_unseen(m, e, ops, i, extents)
            i += extents
        else:
            frame = alloc_pages_here(m, cpu, order, np.int64(op.gfp))
            e.fm[op.pfn] = frame + 1
            if frame < 0:
                m.c[FAILURES] += 1
                e.x[X_BACKGROUND_FAILED] += 1
            if op.flags & FIRST:
                e.x[X_REQUESTS] += 1
                e.x[X_PAGES] += op.pages
            i += 1
        if m.w[CFG_ERROR] != 0:
            e.x[X_REASON] = MACHINE_ERROR
            return i
    return i
