"""The replay loop: operations of the demand stream and what is due in between, one after another."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner, kernel
from tracereplay.demand.stream import ALLOC, FIRST, FREE, OF_BIO, PIECE, TARGETED, UNSEEN
from tracereplay.machine.background import run_background
from tracereplay.machine.buddy import owner_of
from tracereplay.machine.counters import FAILURES
from tracereplay.machine.layout import (
    CFG_CPU,
    CFG_CPUS,
    CFG_ERROR,
    CFG_NOW,
    CFG_SHRINK,
    CFG_TIMER,
    CFG_TIMER_DUE,
    CFG_WOKEN,
    NEVER,
)
from tracereplay.machine.page_alloc import alloc_pages_here
from tracereplay.machine.page_free import free_pages, free_pages_here
from tracereplay.machine.timers import next_timer
from tracereplay.machine.vmstat import tick_due, vmstat_tick
from tracereplay.replay.agenda import drop_first, first_kind, first_of, first_time
from tracereplay.replay.blocks import (
    block_room,
    containing_extent,
    free_initial,
    free_run,
    lacking,
    order_at,
    serve_unseen,
    spread_extent,
    still_held,
    waste_add,
)
from tracereplay.replay.layout import (
    AG_CPU_SHIFT,
    AG_ITEM,
    AG_RANK,
    AG_RELEASE,
    END_PATIENCE_NS,
    FM_FRAME,
    FM_TARGETED,
    LIST_READY,
    MACHINE_ERROR,
    MORE_BLOCKS,
    MORE_TABLES,
    RUNNING,
    X_AG,
    X_BACKGROUND_FAILED,
    X_CALLS,
    X_NEXT_BIN_NS,
    X_ORPHANS,
    X_PAGES,
    X_PARKED,
    X_PENDING,
    X_PIECE,
    X_PROGRESS,
    X_REASON,
    X_REQUESTS,
)
from tracereplay.replay.requests import announce_piece, pass_piece
from tracereplay.replay.serve import (
    free_page_of,
    recall_request,
    release_targeted,
    run_shrinker,
    run_timer,
    serve_targeted,
)
from tracereplay.replay.vectors import next_bin, tables_full
from tracereplay.replay.waiting import free_later, waited_for
from tracereplay.replay.wakeups import count_call, heed_woken, pass_over, ring_alarm, wake


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
            if waited_for(e, -v - 1):
                free_later(m, e, -v - 1, cpu, now)
            else:
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
                release_targeted(m, st, e, frame, size, owner, tag, 1 << size, cpu, now)
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
        heed_woken(m, e)
        return True
    return False


@hot
def release_due(m, e):
    """Whether the next thing is a free that was put off, and its time has come."""
    return first_time(e.t, e.x) <= m.w[CFG_NOW] and first_kind(e.t, e.x) == AG_RELEASE


@inner
def free_due(m, st, e):
    """Free the page that the agenda has first."""
    at = e.x[X_AG]
    h, cpu = e.t[at + AG_ITEM], e.t[at + AG_RANK] >> AG_CPU_SHIFT
    drop_first(e.t, e.x)
    e.x[X_PENDING] -= 1
    m.w[CFG_CPU] = cpu % m.w[CFG_CPUS]
    free_page_of(m, st, e, h, cpu, m.w[CFG_NOW])
    if not release_due(m, e):
        waste_add(e, 0)


@inner
def pass_time(m, e, when):
    """Simulated time goes on, and kswapd with it."""
    if when >= e.x[X_NEXT_BIN_NS]:
        next_bin(m, e, when)
    m.w[CFG_NOW] = when
    e.x[X_CALLS] = 0
    run_background(m)


@inner
def step(m, st, e, until):
    """Do the next thing that is due by ``until``, or pass time up to it. False: nothing is, or X_REASON says why not.

    At one time: frees, then what these and others let go on (the shrinker, waiting requests), then timers by number,
    then deadlines.
    """
    e.x[X_REASON] = MACHINE_ERROR if m.w[CFG_ERROR] != 0 else lacking(e)
    if e.x[X_REASON] != RUNNING:
        return False
    if release_due(m, e):
        free_due(m, st, e)
        return True
    if m.w[CFG_SHRINK] != 0:
        pages = max(m.w[CFG_SHRINK], 0)
        m.w[CFG_SHRINK] = 0
        run_shrinker(m, st, e, pages)
        return True
    if m.w[CFG_WOKEN] != 0:
        wake(m, e)
    s = first_of(e.t, e.x, LIST_READY)
    if s != 0:
        recall_request(m, st, e, s)
        return True
    pass_over(m, e)
    when = min(first_time(e.t, e.x), m.w[CFG_TIMER_DUE])
    if when > until:
        return False
    if when > m.w[CFG_NOW]:
        pass_time(m, e, when)
    elif m.w[CFG_TIMER_DUE] <= m.w[CFG_NOW]:
        count_call(m, e)
        run_timer(m, st, e, next_timer(m, m.w[CFG_NOW]))
    else:
        ring_alarm(e)
    return True


@inner
def catch_up(m, st, e, now):
    """Do what is due by ``now``, in its order, and set ``w[CFG_TIMER]`` anew. False: X_REASON says what prevents it."""
    while True:
        while step(m, st, e, now):
            pass
        if e.x[X_REASON] != RUNNING:
            m.w[CFG_TIMER] = 0
            return False
        if m.w[CFG_NOW] >= now:
            break
        pass_time(m, e, now)
    run_background(m)
    m.w[CFG_TIMER] = min(m.w[CFG_TIMER], first_time(e.t, e.x))
    return True


@kernel
def wind_up(m, st, e, end):
    """After the last operation, at ``end``: frees that are due later, and requests that wait as long as this helps.

    True when done; else X_REASON says what prevents it.
    """
    while True:
        until = NEVER - 1
        if e.x[X_PARKED] == 0:
            m.w[CFG_TIMER_DUE] = NEVER
        if e.x[X_PENDING] == 0:
            until = max(end, e.x[X_PROGRESS]) + END_PATIENCE_NS if e.x[X_PARKED] > 0 else end
        if not step(m, st, e, until):
            return e.x[X_REASON] == RUNNING


@kernel
def run(m, st, e, ops, i):
    """Replay ``ops`` from index ``i`` on. Index of the first operation not done; ``X_REASON`` says why it stopped."""
    n = ops.shape[0]
    cpus = m.w[CFG_CPUS]
    e.x[X_REASON] = RUNNING
    while i < n:
        op = ops[i]
        if op.ts_ns >= m.w[CFG_TIMER] and not catch_up(m, st, e, op.ts_ns):
            return i
        if op.ts_ns >= e.x[X_NEXT_BIN_NS]:
            next_bin(m, e, op.ts_ns)
        m.w[CFG_NOW] = op.ts_ns
        cpu = np.int64(op.cpu)
        if cpu >= cpus:
            cpu %= cpus
        m.w[CFG_CPU] = cpu
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
            if op.kind != PIECE:
                free_initial(m, e, op, cpu)
            elif tables_full(e.x):
                e.x[X_REASON] = MORE_TABLES
                return i
            else:
                announce_piece(e, np.int64(op.pfn), np.int64(op.pages))
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
                heed_woken(m, e)
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
                if op.flags & OF_BIO and e.x[X_PIECE] != 0:
                    pass_piece(e)
            i += 1
        if m.w[CFG_ERROR] != 0:
            e.x[X_REASON] = MACHINE_ERROR
            return i
    return i
