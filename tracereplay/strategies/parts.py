"""Compiled pieces that strategies share: one block for a contiguous request, dm-crypt's second pass, its frees."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.demand.stream import ON_PATH, REQUIRED
from tracereplay.kernel.gfp import GFP_DIRECT_RECLAIM, GFP_KERNEL
from tracereplay.machine import counters, ops
from tracereplay.machine.layout import CFG_MUTEX_OWNER, CFG_NOW, MAX_POOL, POOL_GFP, POOL_MIN
from tracereplay.strategies.contract import (
    BLOCK_FLAGS,
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    NEVER,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_GFP,
    REQ_ID,
    REQ_ORDER,
    REQ_PAGES,
    REQ_STEP,
    REQ_UNTIL,
    REQ_WAIT,
    WAIT,
    WAIT_MUTEX,
    WAIT_POOL,
    compiled,
    inlined,
    param,
)

MEMPOOL_WAIT_NS = 5 * 10**9
"""How long ``mempool_alloc`` sleeps at most before it tries again (``io_schedule_timeout(5 * HZ)``)."""
RESTARTS = counters.slot("restarts")

# ---- REQ_STEP of a request on the path
FIRST_PASS, SECOND_PASS, ASLEEP = range(3)
"""Without reclaim; with it, under the mutex; the same after a sleep on the reserve. Only a path whose gfp may not sleep
has a first pass (and a mutex): dm-crypt's. Others begin with the second.
"""


def mutex_param():
    """The parameter that the strategies of dm-crypt's path share."""
    return param(
        True,
        unit="flag",
        doc="a request may wait for the path's reserve under its mutex only; false: two of them can deadlock",
        source="bio_alloc_lock, commit 'dm crypt: avoid deadlock in mempools'; false is a study option",
    )


def pool_pages_param():
    """The parameter of strategies that need a reserve where no path has one."""
    return param(
        256,
        unit="pages",
        low=1,
        high=MAX_POOL,
        doc="elements of the strategy's own reserve; a path's reserve comes before it",
        source="as dm-crypt's page_pool, which holds one request of the largest size (BIO_MAX_VECS)",
    )


@compiled
def own_reserve(m, pages):
    """Where no path brought a reserve: one of ``pages``, filled by plain allocations that are charged to nobody.

    1 when it is the strategy's own, else 0. The engine sees that it is full.
    """
    if m.w[POOL_MIN] > 0:
        return 0
    m.w[POOL_MIN] = pages
    ops.pool_fill(m, 0, GFP_KERNEL)
    return 1


@compiled
def pages_past_pool(m, req, out):
    """A request beside the path that owns the mempool: bulk calls while they bring something. DONE or FAIL."""
    cpu, pages = req[REQ_CPU], req[REQ_PAGES]
    for k in range(pages):
        out[2 * k] = -1
    have = 0
    while have < pages:
        came = ops.alloc_pages_bulk(m, cpu, req[REQ_GFP], pages, out)
        if came == have:
            all_back(m, cpu, have, out)
            return FAIL
        have = came
    req[REQ_BLOCKS] = pages
    return DONE


@compiled
def one_block(m, req, out):
    """A request that needs contiguity: one block of its order with the recorded gfp. DONE or FAIL."""
    frame = ops.alloc_pages(m, req[REQ_CPU], req[REQ_ORDER], req[REQ_GFP])
    if frame < 0:
        return FAIL
    out[0] = frame
    out[1] = req[REQ_ORDER]
    req[REQ_BLOCKS] = 1
    return DONE


@compiled
def in_first_pass(m, req):
    """Whether a request on the path is in a pass that may not sleep."""
    if req[REQ_STEP] == FIRST_PASS and m.w[POOL_GFP] & GFP_DIRECT_RECLAIM:
        req[REQ_STEP] = SECOND_PASS
    return req[REQ_STEP] == FIRST_PASS


@compiled
def start_again(m, req):
    """dm-crypt's second pass: the buffer starts from nothing, now with direct reclaim."""
    ops.count(m, RESTARTS, 1)
    req[REQ_STEP] = SECOND_PASS
    req[REQ_BLOCKS] = 0


@compiled
def enter_second_pass(m, req, mutex):
    """The mutex, where there is one. False: the request waits for it."""
    if mutex and not m.w[POOL_GFP] & GFP_DIRECT_RECLAIM and not ops.mutex_lock(m, req[REQ_ID]):
        req[REQ_WAIT] = WAIT_MUTEX
        req[REQ_UNTIL] = NEVER
        return False
    return True


@compiled
def leave_second_pass(m, req):
    """The request is served: the mutex goes, if it has it."""
    if m.w[CFG_MUTEX_OWNER] == req[REQ_ID]:
        ops.mutex_unlock(m)


@compiled
def sleep_on_pool(m, req):
    """Wait for an element of the reserve, 5 s at most. What the request has stays with it."""
    req[REQ_STEP] = ASLEEP
    req[REQ_WAIT] = WAIT_POOL
    req[REQ_UNTIL] = m.w[CFG_NOW] + MEMPOOL_WAIT_NS
    return WAIT


@compiled
def page_of_pool(m, req):
    """One page in the second pass (``mempool_alloc`` with direct reclaim). Frame, or -1: ``sleep_on_pool``."""
    if req[REQ_STEP] == ASLEEP:
        req[REQ_STEP] = SECOND_PASS
        return ops.pool_alloc_again(m, req[REQ_CPU], m.w[POOL_GFP] | GFP_DIRECT_RECLAIM)
    return ops.pool_alloc(m, req[REQ_CPU], m.w[POOL_GFP] | GFP_DIRECT_RECLAIM)


@compiled
def rest_from_pool(m, req, out):
    """Second pass: single pages through the mempool from block REQ_BLOCKS on, then the mutex goes. DONE or WAIT."""
    while req[REQ_BLOCKS] < req[REQ_PAGES]:
        frame = page_of_pool(m, req)
        if frame < 0:
            return sleep_on_pool(m, req)
        out[2 * req[REQ_BLOCKS]] = frame
        out[2 * req[REQ_BLOCKS] + 1] = 0
        req[REQ_BLOCKS] += 1
    leave_second_pass(m, req)
    return DONE


@compiled
def all_to_pool(m, cpu, pages, out):
    """Give the first pages of ``out`` back through the mempool, one ``mempool_free`` each, in the order they came."""
    for k in range(pages):
        ops.pool_free(m, cpu, out[2 * k])


@compiled
def all_back(m, cpu, pages, out):
    """The same to the page allocator."""
    for k in range(pages):
        ops.free_pages(m, cpu, out[2 * k], 0)


@inlined
def free_of_pool(m, block, cpu, own):
    """Give a block back: through the mempool where it came from there, the path's or the strategy's ``own``."""
    if block[BLOCK_FLAGS] & REQUIRED or not (own or block[BLOCK_FLAGS] & ON_PATH):
        ops.free_pages(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
    else:
        ops.pool_free(m, cpu, block[BLOCK_FRAME])


@inlined
def from_pool(block):
    """Whether a block is a single page that the path's mempool gave."""
    flags = block[BLOCK_FLAGS]
    return flags & ON_PATH != 0 and flags & REQUIRED == 0 and block[BLOCK_ORDER] == 0


@inlined
def free_page(m, block, cpu):
    """Give a block back: through the mempool where it came from there."""
    if from_pool(block):
        ops.pool_free(m, cpu, block[BLOCK_FRAME])
    else:
        ops.free_pages_here(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
