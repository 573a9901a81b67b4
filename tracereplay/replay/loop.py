"""The replay loop: operations of the demand stream, one after another, on one machine with one strategy.

This file is a template: ``engine.py`` writes a copy for each strategy with the marked import replaced, so that loop and
strategy meet in one importable module, which Numba's disk cache can hold (architecture.md section 4). As it
stands it is the loop for ``per-page``.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import tracereplay.strategies.per_page as strategy  # STRATEGY
from tracereplay.compiled import hot, kernel
from tracereplay.demand.stream import ALLOC, FIRST, FREE, REQUIRED, TARGETED, UNSEEN
from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.machine.buddy import get_info, set_info
from tracereplay.machine.counters import FAILURES  # type: ignore[attr-defined]
from tracereplay.machine.layout import CFG_CPUS, CFG_ERROR, ERROR_TOO_FEW, HELD, INFO_ORDER, Machine
from tracereplay.machine.page_alloc import alloc_pages, alloc_pages_bulk, free_held, free_pages, report_error
from tracereplay.replay.layout import (
    BL_BIN,
    BL_EXTENT,
    BL_FLAGS,
    BL_FRAME,
    BL_LEFT,
    BL_ORDER,
    BL_OWNER,
    BLF_REQUEST_SHIFT,
    BLF_ROW,
    BLF_TARGETED,
    E_BACKGROUND_FAILED,
    E_BIN,
    E_BIN_NS,
    E_BLOCK_FREE,
    E_BLOCK_LIVE,
    E_BLOCK_TOP,
    E_CENSORED,
    E_FAILED,
    E_HELD_ELSEWHERE,
    E_HELD_FREES,
    E_HELD_MISSING,
    E_NEXT_BIN_NS,
    E_ORPHANS,
    E_PAGES,
    E_REASON,
    E_REQ_FREE,
    E_REQ_TOP,
    E_REQUESTS,
    E_TARGETED,
    E_TARGETED_PAGES,
    E_UNSEEN_PAGES,
    E_WASTE,
    E_WASTE_PEAK,
    MACHINE_ERROR,
    MORE_BLOCKS,
    MORE_REQUESTS,
    MORE_VECTORS,
    RQ_BIN,
    RQ_BLOCKS,
    RQ_NEXT,
    RUNNING,
    SPARE_BLOCKS,
)
from tracereplay.replay.vectors import clear, count_request, fold, intern_vector, sum_vector, tables_full
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

strategy_allocate = hot(strategy.allocate)
strategy_release = hot(strategy.release)
strategy_init = hot(strategy.init)

NEVER = 1 << 62


@hot
def charged_to(m, row):
    """The machine, charging its counters to ``row``."""
    return Machine(m.pg, m.pb, m.w, row)


@kernel
def new_block(e, frame, order, left, owner, flags, extent):
    """Enter a live block; its number. There is room (SPARE_BLOCKS)."""
    h = e.es[E_BLOCK_FREE]
    if h >= 0:
        e.es[E_BLOCK_FREE] = e.bl[h, BL_FRAME]
    else:
        h = e.es[E_BLOCK_TOP]
        e.es[E_BLOCK_TOP] += 1
    e.es[E_BLOCK_LIVE] += 1
    e.bl[h, BL_FRAME] = frame
    e.bl[h, BL_ORDER] = order
    e.bl[h, BL_LEFT] = left
    e.bl[h, BL_OWNER] = owner
    e.bl[h, BL_FLAGS] = flags
    e.bl[h, BL_EXTENT] = extent
    e.bl[h, BL_BIN] = e.es[E_BIN]
    return h


@hot
def drop_block(e, h):
    """Forget a block."""
    e.bl[h, BL_FRAME] = e.es[E_BLOCK_FREE]
    e.bl[h, BL_FLAGS] = 0
    e.es[E_BLOCK_FREE] = h
    e.es[E_BLOCK_LIVE] -= 1


@kernel
def waste_add(e, pages):
    """Pages held though nobody uses them."""
    e.es[E_WASTE] += pages
    e.es[E_WASTE_PEAK] = max(e.es[E_WASTE_PEAK], e.es[E_WASTE])


@kernel
def map_blocks(m, e, ops, i, extents, blocks, flags, owner):
    """Enter the ``blocks`` in ``e.out`` as the pages of the ``extents`` operations from ``i`` on, in page order."""
    x = 0
    used = 0  # pages of the current extent that are mapped
    for b in range(blocks):
        frame, order = e.out[2 * b], e.out[2 * b + 1]
        size = 1 << order
        h = new_block(e, frame, order, size, owner, flags, -1)
        if x < extents and used == 0 and ops[i + x].order == order:
            e.fm[ops[i + x].pfn] = -h - 1
            e.bl[h, BL_EXTENT] = order
            x += 1
            continue
        mapped = 0
        while mapped < size and x < extents:
            e.fm[ops[i + x].pfn + used] = -h - 1
            used += 1
            mapped += 1
            if used == 1 << ops[i + x].order:
                used = 0
                x += 1
        e.bl[h, BL_LEFT] = mapped
        waste_add(e, size - mapped)
    if x < extents:
        report_error(m, ERROR_TOO_FEW, e.out[0])


@kernel
def new_request(e):
    """A row for a live request; its number. There is room."""
    r = e.es[E_REQ_FREE]
    if r >= 0:
        e.es[E_REQ_FREE] = e.rq[r, RQ_NEXT]
    else:
        r = e.es[E_REQ_TOP]
        e.es[E_REQ_TOP] += 1
    e.rq[r, RQ_BIN] = e.es[E_BIN]
    e.rq[r, RQ_BLOCKS] = 0
    clear(e.rows[r])
    return r


@kernel
def drop_request(e, r):
    """Free a request's row."""
    e.rq[r, RQ_NEXT] = e.es[E_REQ_FREE]
    e.rq[r, RQ_BLOCKS] = 0
    e.es[E_REQ_FREE] = r


@kernel
def end_request(e, r):
    """Account a request that is over, and free its row."""
    fold(e.targeted, e.rows[r])
    count_request(e, intern_vector(e, e.rows[r]), e.rq[r, RQ_BIN])
    drop_request(e, r)


@kernel
def ask_strategy(m, st, e, pages, order, flags, first_block):
    """One call of the strategy; its blocks land in ``e.out`` from pair ``first_block`` on. Their number, or -1."""
    e.req[REQ_PAGES] = pages
    e.req[REQ_ORDER] = order
    e.req[REQ_FLAGS] = flags
    e.req[REQ_BLOCKS] = 0
    if strategy_allocate(m, st, e.req, e.out[2 * first_block :]) != DONE:
        return -1
    return e.req[REQ_BLOCKS]


@kernel
def release_block(m, st, e, frame, order, flags, cpu, now):
    """One call of the strategy's release."""
    e.block[BLOCK_FRAME] = frame
    e.block[BLOCK_ORDER] = order
    e.block[BLOCK_FLAGS] = flags
    strategy_release(m, st, e.block, cpu, now)


@kernel
def serve_targeted(m, st, e, ops, i, extents):
    """A targeted request: by the strategy, charged to a row of its own. All or nothing."""
    op = ops[i]
    cpu = op.cpu % m.w[CFG_CPUS]
    flags = op.flags
    r = new_request(e)
    mr = charged_to(m, e.rows[r])
    e.req[REQ_CPU] = cpu
    e.req[REQ_GFP] = op.gfp
    e.req[REQ_NOW] = op.ts_ns
    blocks = 0
    if flags & REQUIRED:
        for x in range(extents):
            got = ask_strategy(mr, st, e, 1 << ops[i + x].order, ops[i + x].order, flags, blocks)
            if got < 0:
                for b in range(blocks):
                    release_block(mr, st, e, e.out[2 * b], e.out[2 * b + 1], flags, cpu, op.ts_ns)
                blocks = -1
                break
            blocks += got
    else:
        blocks = ask_strategy(mr, st, e, op.pages, 0, flags, 0)
    e.es[E_TARGETED] += 1
    e.es[E_TARGETED_PAGES] += op.pages
    if blocks < 0:
        mr.c[FAILURES] += 1
        e.es[E_FAILED] += 1
        end_request(e, r)
        return
    kept = BLF_TARGETED | (flags << BLF_REQUEST_SHIFT)
    if blocks == 1:
        fold(e.targeted, e.rows[r])
        v = intern_vector(e, e.rows[r])
        drop_request(e, r)
        map_blocks(m, e, ops, i, extents, 1, kept, v)
    else:
        e.rq[r, RQ_BLOCKS] = blocks
        map_blocks(m, e, ops, i, extents, blocks, kept | BLF_ROW, r)


@kernel
def release_targeted(m, st, e, h, cpu, now):
    """The last page of a targeted block was freed: the strategy gets it back."""
    flags, owner = e.bl[h, BL_FLAGS], e.bl[h, BL_OWNER]
    frame, order = e.bl[h, BL_FRAME], e.bl[h, BL_ORDER]
    if flags & BLF_ROW:
        release_block(charged_to(m, e.rows[owner]), st, e, frame, order, flags >> BLF_REQUEST_SHIFT, cpu, now)
        e.rq[owner, RQ_BLOCKS] -= 1
        if e.rq[owner, RQ_BLOCKS] == 0:
            end_request(e, owner)
    else:
        clear(e.scratch)
        release_block(charged_to(m, e.scratch), st, e, frame, order, flags >> BLF_REQUEST_SHIFT, cpu, now)
        fold(e.targeted, e.scratch)
        count_request(e, sum_vector(e, owner, intern_vector(e, e.scratch), e.scratch), e.bl[h, BL_BIN])


@kernel
def serve_unseen(m, e, ops, i, extents):
    """Pages that the bulk allocator handed out unseen: taken in bulk, charged to the background."""
    pages = ops[i].pages
    cpu = ops[i].cpu % m.w[CFG_CPUS]
    e.es[E_UNSEEN_PAGES] += pages
    have = 0
    for p in range(pages):
        e.out[2 * p] = -1
    while have < pages:
        got = alloc_pages_bulk(m, cpu, ops[i].gfp, pages, e.out)
        if got == have:
            break
        have = got
    p = 0
    for x in range(extents):
        for k in range(1 << ops[i + x].order):
            if e.out[2 * p] >= 0:
                e.fm[ops[i + x].pfn + k] = e.out[2 * p] + 1
            else:
                m.c[FAILURES] += 1
                e.es[E_BACKGROUND_FAILED] += 1
            p += 1


@kernel
def serve_large(m, e, op, cpu):
    """A background block of several pages, as recorded."""
    frame = alloc_pages(m, cpu, op.order, op.gfp)
    if frame < 0:
        m.c[FAILURES] += 1
        e.es[E_BACKGROUND_FAILED] += 1
        return
    h = new_block(e, frame, op.order, 1 << op.order, 0, 0, op.order)
    e.fm[op.pfn] = -h - 1


@kernel
def containing_extent(e, key):
    """Key of the extent's head that covers a page which has no entry of its own; -1 when none does."""
    for o in range(1, NR_PAGE_ORDERS):
        head = key & ~((1 << o) - 1)
        if head != key and e.fm[head] < 0 and e.bl[-e.fm[head] - 1, BL_EXTENT] >= o:
            return head
    return -1


@kernel
def spread_extent(m, e, head):
    """Give every page of an extent an entry of its own, since it comes back in pieces.

    A background block is cut into single pages in the machine as well (``split_page``).
    """
    h = -e.fm[head] - 1
    frame, order = e.bl[h, BL_FRAME], e.bl[h, BL_EXTENT]
    if e.bl[h, BL_FLAGS] & BLF_TARGETED:
        e.bl[h, BL_EXTENT] = -1
        for k in range(1 << order):
            e.fm[head + k] = -h - 1
        return
    info = get_info(m, frame) & ~INFO_ORDER
    for k in range(1 << order):
        set_info(m, frame + k, info)
        e.fm[head + k] = frame + k + 1
    drop_block(e, h)


@kernel
def free_run(m, e, key, order, cpu):
    """Free pages of a split background block that go back together and lie together: as one block. True if so."""
    first_frame = e.fm[key] - 1
    if first_frame < 0 or first_frame & ((1 << order) - 1):
        return False
    for k in range(1 << order):
        if e.fm[key + k] != first_frame + k + 1:
            return False
    info = get_info(m, first_frame)
    for k in range(1 << order):
        e.fm[key + k] = 0
        set_info(m, first_frame + k, HELD)
    set_info(m, first_frame, info | order)
    free_pages(m, cpu, first_frame, order)
    return True


@kernel
def free_keys(m, st, e, key, order, cpu, now):
    """Free ``2^order`` pages by key, however they were served."""
    v = e.fm[key]
    if v < 0 and e.bl[-v - 1, BL_EXTENT] > order:
        spread_extent(m, e, key)
    elif v == 0:
        head = containing_extent(e, key)
        if head >= 0:
            spread_extent(m, e, head)
    if order > 0 and e.fm[key] > 0 and free_run(m, e, key, order, cpu):
        return
    k = key
    end = key + (1 << order)
    while k < end:
        v = e.fm[k]
        e.fm[k] = 0
        if v > 0:
            free_pages(m, cpu, v - 1, 0)
            k += 1
            continue
        if v == 0:
            e.es[E_ORPHANS] += 1
            k += 1
            continue
        h = -v - 1
        pages = 1 if e.bl[h, BL_EXTENT] < 0 else 1 << e.bl[h, BL_EXTENT]
        k += pages
        if not e.bl[h, BL_FLAGS] & BLF_TARGETED:
            free_pages(m, cpu, e.bl[h, BL_FRAME], e.bl[h, BL_ORDER])
            drop_block(e, h)
            continue
        e.bl[h, BL_LEFT] -= pages
        if e.bl[h, BL_LEFT] == 0:
            waste_add(e, pages - (1 << e.bl[h, BL_ORDER]))
            release_targeted(m, st, e, h, cpu, now)
            drop_block(e, h)
        else:
            waste_add(e, pages)


@kernel
def free_initial(m, e, op, cpu):
    """A page that was in use before the trace began."""
    e.es[E_HELD_FREES] += 1
    frame = free_held(m, cpu, op.pfn, op.order)
    if frame < 0:
        e.es[E_HELD_MISSING] += 1
    elif frame != op.pfn:
        e.es[E_HELD_ELSEWHERE] += 1


@kernel
def next_bin(m, e, ts_ns):
    """Close time bins up to the one of ``ts_ns``: the background's counters so far are kept at each end."""
    while ts_ns >= e.es[E_NEXT_BIN_NS] and e.es[E_BIN] + 1 < e.bins.shape[0]:
        fold(e.bins[e.es[E_BIN]], m.c)
        e.es[E_BIN] += 1
        e.es[E_NEXT_BIN_NS] += e.es[E_BIN_NS]
    if e.es[E_BIN] + 1 >= e.bins.shape[0]:
        e.es[E_NEXT_BIN_NS] = NEVER


@hot
def room(e):
    """What must grow before the next request: a reason, or RUNNING."""
    if e.es[E_BLOCK_LIVE] + SPARE_BLOCKS > e.bl.shape[0]:
        return MORE_BLOCKS
    if e.es[E_REQ_FREE] < 0 and e.es[E_REQ_TOP] >= e.rq.shape[0]:
        return MORE_REQUESTS
    if tables_full(e):
        return MORE_VECTORS
    return RUNNING


@kernel
def start(m, st):
    """Prepare the strategy."""
    strategy_init(m, st)


@kernel
def finish(e, i):
    """The end of the trace: requests still live count with what they cost so far.

    Looks at live blocks and rows from ``i`` on; returns where it stopped because a table must grow, or -1.
    """
    blocks = e.es[E_BLOCK_TOP]
    while i < blocks + e.es[E_REQ_TOP]:
        if tables_full(e):
            return i
        if i < blocks:
            if e.bl[i, BL_FLAGS] & (BLF_TARGETED | BLF_ROW) == BLF_TARGETED:
                e.es[E_CENSORED] += 1
                count_request(e, e.bl[i, BL_OWNER], e.bl[i, BL_BIN])
        elif e.rq[i - blocks, RQ_BLOCKS] > 0:
            e.es[E_CENSORED] += 1
            end_request(e, i - blocks)
        i += 1
    return -1


@kernel
def run(m, st, e, ops, i):
    """Replay ``ops`` from index ``i`` on. Index of the first operation not done; ``E_REASON`` says why it stopped."""
    n = ops.shape[0]
    cpus = m.w[CFG_CPUS]
    e.es[E_REASON] = RUNNING
    while i < n:
        op = ops[i]
        if op.ts_ns >= e.es[E_NEXT_BIN_NS]:
            next_bin(m, e, op.ts_ns)
        cpu = op.cpu if op.cpu < cpus else op.cpu % cpus
        if op.kind == FREE:
            v = e.fm[op.pfn]
            if op.order == 0 and v > 0:
                e.fm[op.pfn] = 0
                free_pages(m, cpu, v - 1, 0)
            else:
                if tables_full(e):
                    e.es[E_REASON] = MORE_VECTORS
                    return i
                free_keys(m, st, e, op.pfn, op.order, cpu, op.ts_ns)
            i += 1
        elif op.kind == ALLOC:
            if op.flags & FIRST:
                e.es[E_REQUESTS] += 1
                e.es[E_PAGES] += op.pages
            if not op.flags & (TARGETED | UNSEEN):
                if op.order == 0:
                    frame = alloc_pages(m, cpu, 0, op.gfp)
                    e.fm[op.pfn] = frame + 1
                    if frame < 0:
                        m.c[FAILURES] += 1
                        e.es[E_BACKGROUND_FAILED] += 1
                else:
                    if e.es[E_BLOCK_LIVE] + SPARE_BLOCKS > e.bl.shape[0]:
                        e.es[E_REASON] = MORE_BLOCKS
                        return i
                    serve_large(m, e, op, cpu)
                i += 1
            else:
                e.es[E_REASON] = room(e)
                if e.es[E_REASON] != RUNNING:
                    e.es[E_REQUESTS] -= 1
                    e.es[E_PAGES] -= op.pages
                    return i
                extents = 1
                while i + extents < n and ops[i + extents].kind == ALLOC and not ops[i + extents].flags & FIRST:
                    extents += 1
                if op.flags & TARGETED:
                    serve_targeted(m, st, e, ops, i, extents)
                else:
                    serve_unseen(m, e, ops, i, extents)
                i += extents
        else:
            free_initial(m, e, op, cpu)
            i += 1
        if m.w[CFG_ERROR] != 0:
            e.es[E_REASON] = MACHINE_ERROR
            return i
    return i
