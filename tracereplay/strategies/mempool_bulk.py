"""mempool-bulk: a mempool that hands out many pages in one call (Yang Shi, v2 of 2023-02-14; strategies.md 4.1 to 4.4).

A call asks the page allocator in bulk first, without reclaim, then pops the reserve, an element for each hold of its
lock; what is missing then is asked for in bulk with full flags, and at last waited for. On the dm-crypt path the whole
buffer is one call; a first pass with GFP_NOWAIT that falls short restarts under the mutex, as ``per-page`` does.

Without a path the strategy has a reserve of its own, and the recorded gfp decides whether a request may sleep.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import ON_PATH, REQUIRED
from tracereplay.kernel.gfp import GFP_DIRECT_RECLAIM, GFP_IO, GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine import counters, ops
from tracereplay.machine.layout import AS_CALLBACK, NO_QUOTA, POOL_GFP, POOL_QUOTA
from tracereplay.strategies.contract import (
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_PAGES,
    REQ_STEP,
    WAIT,
    Params,
    compiled,
    param,
)
from tracereplay.strategies.parts import (
    ASLEEP,
    all_to_pool,
    enter_second_pass,
    free_of_pool,
    in_first_pass,
    leave_second_pass,
    mutex_param,
    one_block,
    own_reserve,
    pages_past_pool,
    pool_pages_param,
    sleep_on_pool,
    start_again,
)

FORM, POOL_PAGES, COUNTED, QUOTA_CHECK, POP_LOCK, MUTEX, OWN = range(7)
"""Words of the state: the parameters, and whether the reserve is the strategy's own."""
CALLBACK, PER_PAGE = 0, 1
"""Values of FORM and QUOTA_CHECK."""
MEMPOOL_CALLS = counters.slot("mempool_calls")
MEMPOOL_WAITS = counters.slot("mempool_waits")
MEMPOOL_LOCKS = counters.slot("mempool_lock_acquisitions")
CALLBACKS = counters.slot("callbacks")


@dataclass(frozen=True)
class MempoolBulk(Params):
    """Parameters of the bulk mempool."""

    name = "mempool-bulk"
    summary = "a mempool that asks alloc_pages_bulk first and its reserve for the rest"
    mimics = "mempool_alloc_pages_bulk_cb and _array, '[v2 PATCH 0/5] Introduce mempool pages bulk allocator', 2023"
    leaves_out = "that the allocation of the clone bio can sleep too; mempool_resize and teardown"

    form: str = param(
        "callback",
        unit="form",
        choices=("callback", "array"),
        doc="pages go to a callback (which appends them to the bio), or into an array that counts earlier pages",
        source="v2 2/5 to 5/5; dm-crypt uses the callback",
    )
    pool_pages: int = pool_pages_param()
    reserve_counted: bool = param(
        False,
        unit="flag",
        doc="the pages of the initial reserve count against the quota",
        source="v2 fills it with alloc_page, past the callback; true is a study option",
    )
    quota_check: str = param(
        "per_call",
        unit="rule",
        choices=("per_call", "per_page"),
        doc="the quota lets a whole call pass, or as many pages as it has room for",
        source="v2 5/5: per call, so that the quota is overshot by up to n - 1 pages; per_page is a study option",
    )
    pop_lock_per_page: bool = param(
        True,
        unit="flag",
        doc="the reserve's lock is taken anew for each element",
        source="v2 3/5; false is a study option",
    )
    mutex: bool = mutex_param()


def init(m, st):
    """A reserve of its own where no path has one; the path's is not counted."""
    st[OWN] = own_reserve(m, st[POOL_PAGES])
    if not st[COUNTED]:
        ops.quota_forget(m)


@compiled
def from_allocator(m, st, req, gfp, out):
    """Step 1: one bulk call for what is missing, if the quota lets it."""
    have, wanted = req[REQ_BLOCKS], req[REQ_PAGES]
    cpu = req[REQ_CPU]
    ops.count(m, CALLBACKS, 1)
    if not ops.quota_allows(m, 1):
        return
    if st[QUOTA_CHECK] == PER_PAGE and m.w[POOL_QUOTA] < NO_QUOTA:
        wanted = min(wanted, have + m.w[POOL_QUOTA] - ops.quota_read(m))
    for k in range(have, wanted):
        out[2 * k] = -1
    if st[FORM] == CALLBACK:
        came = have + ops.bulk_call(m, cpu, gfp, wanted - have, out[2 * have :], AS_CALLBACK)
    else:
        came = ops.bulk_call(m, cpu, gfp, wanted, out, 0)
    if came > have:
        ops.quota_add(m, cpu, came - have)
    req[REQ_BLOCKS] = came


@compiled
def from_reserve(m, st, req, out):
    """Step 2: elements of the reserve; the lock is let go to hand each over, and taken again to look on."""
    missing = req[REQ_PAGES] - req[REQ_BLOCKS]
    while missing > 0:
        frame = ops.pool_take(m)
        if frame < 0:
            return
        out[2 * req[REQ_BLOCKS]] = frame
        out[2 * req[REQ_BLOCKS] + 1] = 0
        req[REQ_BLOCKS] += 1
        missing -= 1
        if st[FORM] == CALLBACK:
            ops.count(m, CALLBACKS, 1)
        if not st[POP_LOCK]:
            ops.count(m, MEMPOOL_LOCKS, -1)
    ops.count(m, MEMPOOL_LOCKS, 1)


@compiled
def pool_bulk(m, st, req, gfp, out):
    """One call of the bulk mempool, or what it does when it wakes. True when all pages are there."""
    gfp |= GFP_NOMEMALLOC | GFP_NORETRY | GFP_NOWARN
    now = gfp
    if req[REQ_STEP] != ASLEEP:
        ops.count(m, MEMPOOL_CALLS, 1)
        now = gfp & ~(GFP_DIRECT_RECLAIM | GFP_IO)
    while True:
        from_allocator(m, st, req, now, out)
        if req[REQ_BLOCKS] < req[REQ_PAGES]:
            from_reserve(m, st, req, out)
        if req[REQ_BLOCKS] == req[REQ_PAGES]:
            return True
        if now == gfp:
            return False
        now = gfp


@compiled
def sleepable(m, st, req, gfp, out):
    """A call that may sleep: DONE, or WAIT with what it has."""
    if pool_bulk(m, st, req, gfp, out):
        return DONE
    ops.count(m, MEMPOOL_WAITS, 1)
    return sleep_on_pool(m, req)


@compiled
def on_the_path(m, st, req, out):
    """dm-crypt's two passes around it."""
    if in_first_pass(m, req):
        if pool_bulk(m, st, req, m.w[POOL_GFP], out):
            return DONE
        all_to_pool(m, req[REQ_CPU], req[REQ_BLOCKS], out)
        start_again(m, req)
    if not enter_second_pass(m, req, st[MUTEX]):
        return WAIT
    status = sleepable(m, st, req, m.w[POOL_GFP] | GFP_DIRECT_RECLAIM, out)
    if status == DONE:
        leave_second_pass(m, req)
    return status


def allocate(m, st, req, out):
    """Serve a request with one call; one that needs contiguity gets its one block."""
    if req[REQ_FLAGS] & REQUIRED:
        return one_block(m, req, out)
    if req[REQ_FLAGS] & ON_PATH:
        return on_the_path(m, st, req, out)
    if not st[OWN]:
        return pages_past_pool(m, req, out)
    if req[REQ_GFP] & GFP_DIRECT_RECLAIM:
        return sleepable(m, st, req, req[REQ_GFP], out)
    if pool_bulk(m, st, req, req[REQ_GFP], out):
        return DONE
    all_to_pool(m, req[REQ_CPU], req[REQ_BLOCKS], out)
    return FAIL


def release(m, st, block, cpu, now):
    """One ``mempool_free`` a page."""
    free_of_pool(m, block, cpu, st[OWN])
