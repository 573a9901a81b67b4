"""mempool-bulk-atomic: all missing pages from the reserve or none (C. Hellwig, v6.19 cycle; strategies.md 4.6).

``alloc_pages_bulk`` first, then ``mempool_alloc_bulk`` for the slots that stay empty: single pages through the pool's
callback until one fails, then as many elements of the reserve as are missing under one hold of its lock, or none. Who
waits holds no part of the reserve, so no mutex is needed, and there is one pass only.

dm-crypt was never converted to it: on its path this is what the merged code would do there, with the gfp of dm-crypt's
second pass. Without a path the strategy has a reserve of its own.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import ON_PATH, REQUIRED
from tracereplay.kernel.gfp import GFP_DIRECT_RECLAIM, GFP_IO, GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine import counters, ops
from tracereplay.machine.layout import CFG_NOW, POOL_GFP, POOL_MIN
from tracereplay.strategies.contract import (
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_OWN,
    REQ_PAGES,
    REQ_STEP,
    REQ_UNTIL,
    WAIT,
    Params,
    compiled,
)
from tracereplay.strategies.parts import (
    ASLEEP,
    free_of_pool,
    one_block,
    own_reserve,
    pages_past_pool,
    pool_pages_param,
    sleep_on_pool,
)

POOL_PAGES, OWN = range(2)
"""Words of the state: the parameter, and whether the reserve is the strategy's own."""
END, DEADLINE = REQ_OWN, REQ_OWN + 1
"""Words of a request: pages that are there when the call in hand is done; when its sleep ends in any case, ns."""
MEMPOOL_CALLS = counters.slot("mempool_calls")
MEMPOOL_WAITS = counters.slot("mempool_waits")


@dataclass(frozen=True)
class MempoolBulkAtomic(Params):
    """Parameters of the all-or-nothing mempool."""

    name = "mempool-bulk-atomic"
    summary = "alloc_pages_bulk, then all missing pages from the reserve at once, or none"
    mimics = "mempool_alloc_bulk and mempool_free_bulk, mm/mempool.c, as posted for v6.19; no mutex"
    leaves_out = "frees in bulk: each page that comes back is one call; users of it other than one caller's batches"

    pool_pages: int = pool_pages_param()


def init(m, st):
    """A reserve of its own where no path has one."""
    st[OWN] = own_reserve(m, st[POOL_PAGES])


@compiled
def fill_in_bulk(m, req, gfp, out):
    """``alloc_pages_bulk`` for the slots from REQ_BLOCKS to END; on a path the quota is asked once."""
    have = req[REQ_BLOCKS]
    for k in range(have, req[END]):
        out[2 * k] = -1
    if ops.quota_allows(m, 1):
        came = ops.alloc_pages_bulk(m, req[REQ_CPU], gfp, req[END] - have, out[2 * have :])
        if came > 0:
            ops.quota_add(m, req[REQ_CPU], came)
            req[REQ_BLOCKS] += came


@compiled
def fill_singly(m, req, gfp, out):
    """Slot by slot through the pool's callback, up to the first failure. True when all are filled."""
    while req[REQ_BLOCKS] < req[END]:
        frame = ops.quota_alloc(m, req[REQ_CPU], 0, gfp)
        if frame < 0:
            return False
        out[2 * req[REQ_BLOCKS]] = frame
        out[2 * req[REQ_BLOCKS] + 1] = 0
        req[REQ_BLOCKS] += 1
    return True


@compiled
def take_missing(m, req, out):
    """All missing elements under one hold of the reserve's lock. False: there are not as many, and none was taken."""
    if not ops.pool_take_all(m, req[END] - req[REQ_BLOCKS], out, req[REQ_BLOCKS]):
        return False
    req[REQ_BLOCKS] = req[END]
    return True


@compiled
def pool_alloc_bulk(m, req, gfp, out):
    """``mempool_alloc_bulk`` for the empty slots before END, or what it does when it wakes. True when all are filled.

    Woken by an element it looks at the reserve only; after 5 s it asks the allocator again, with full flags.
    """
    gfp |= GFP_NOMEMALLOC | GFP_NORETRY | GFP_NOWARN
    if req[REQ_STEP] == ASLEEP:
        if take_missing(m, req, out):
            return True
        if m.w[CFG_NOW] < req[DEADLINE]:
            return False
    else:
        ops.count(m, MEMPOOL_CALLS, 1)
        if fill_singly(m, req, gfp & ~(GFP_DIRECT_RECLAIM | GFP_IO), out) or take_missing(m, req, out):
            return True
        if not gfp & GFP_DIRECT_RECLAIM:
            return False
    return fill_singly(m, req, gfp, out) or take_missing(m, req, out)


@compiled
def fill(m, req, gfp, out):
    """All pages, in calls of at most as many as the reserve has elements. False: the request sleeps or fails."""
    while True:
        if req[REQ_STEP] != ASLEEP:
            if req[REQ_BLOCKS] == req[REQ_PAGES]:
                return True
            req[END] = min(req[REQ_PAGES], req[REQ_BLOCKS] + m.w[POOL_MIN])
            fill_in_bulk(m, req, gfp & ~(GFP_DIRECT_RECLAIM | GFP_IO), out)
        if req[REQ_BLOCKS] < req[END] and not pool_alloc_bulk(m, req, gfp, out):
            return False
        req[REQ_STEP] = req[DEADLINE] = 0


def allocate(m, st, req, out):
    """Serve a request; one that needs contiguity gets its one block."""
    if req[REQ_FLAGS] & REQUIRED:
        return one_block(m, req, out)
    gfp = req[REQ_GFP]
    if req[REQ_FLAGS] & ON_PATH:
        gfp = m.w[POOL_GFP] | GFP_DIRECT_RECLAIM
    elif not st[OWN]:
        return pages_past_pool(m, req, out)
    if fill(m, req, gfp, out):
        return DONE
    if gfp & GFP_DIRECT_RECLAIM:
        ops.count(m, MEMPOOL_WAITS, 1)
        sleep_on_pool(m, req)
        if req[DEADLINE] > m.w[CFG_NOW]:  # woken too early: the same sleep goes on
            req[REQ_UNTIL] = req[DEADLINE]
        req[DEADLINE] = req[REQ_UNTIL]
        return WAIT
    ops.pool_free_bulk(m, req[REQ_CPU], req[REQ_BLOCKS], out)
    return FAIL


def release(m, st, block, cpu, now):
    """One ``mempool_free_bulk`` of a page: into the reserve while it is short, else to the page allocator."""
    free_of_pool(m, block, cpu, st[OWN])
