"""A mempool of single pages, its callbacks under a quota (strategies.md sections 1.4, 4.6 and 5).

Mimics ``mempool_alloc`` and ``mempool_free`` of mm/mempool.c with ``crypt_page_alloc`` and ``crypt_page_free`` of
drivers/md/dm-crypt.c as callbacks: the callback is tried first, the reserve second, and only frees refill the reserve,
before anything goes back to the page allocator. The reserve is a stack: what came last goes first. Nothing sleeps
here: an allocation that the kernel would put to sleep returns -1, and its caller waits (``WAIT_POOL``) and asks again.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner, kernel
from tracereplay.kernel.gfp import GFP_DIRECT_RECLAIM, GFP_IO, GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine.counters import (
    CALLBACKS,
    MEMPOOL_CALLS,
    MEMPOOL_LOCK_ACQUISITIONS,
    MEMPOOL_PUTS,
    MEMPOOL_TAKES,
    MEMPOOL_WAITS,
)
from tracereplay.machine.layout import (
    CFG_WOKEN,
    POOL_CURRENT,
    POOL_ELEMENTS,
    POOL_MIN,
    WOKEN_POOL,
)
from tracereplay.machine.page_alloc import alloc_pages
from tracereplay.machine.page_free import free_pages
from tracereplay.machine.quota import quota_add, quota_allows
from tracereplay.machine.reserve import reserve_add


@inner
def quota_alloc(m, cpu, order, gfp):
    """Allocation callback with the quota (``crypt_page_alloc``). Frame or -1; counts the pages it gave.

    Only requests with __GFP_NORETRY are refused: the initial fill is not one.
    """
    m.c[CALLBACKS] += 1
    if gfp & GFP_NORETRY and not quota_allows(m, 1 << order):
        return -1
    pfn = alloc_pages(m, cpu, order, gfp)
    if pfn >= 0:
        quota_add(m, cpu, 1 << order)
    return pfn


@inner
def quota_free(m, cpu, pfn, order):
    """Free callback (``crypt_page_free``)."""
    quota_add(m, cpu, -(1 << order))
    free_pages(m, cpu, pfn, order)


@hot
def pool_push(m, pfn):
    """An element onto the reserve, which has room for it."""
    m.w[POOL_ELEMENTS + m.w[POOL_CURRENT]] = pfn
    m.w[POOL_CURRENT] += 1
    reserve_add(m, 1)


@inner
def pool_fill(m, cpu, gfp):
    """Fill the reserve at creation through the callback (``mempool_init``). True when it is full."""
    while m.w[POOL_CURRENT] < m.w[POOL_MIN]:
        pfn = quota_alloc(m, cpu, 0, gfp)
        if pfn < 0:
            return False
        pool_push(m, pfn)
    return True


@inner
def pool_alloc(m, cpu, gfp):
    """One page (``mempool_alloc``): callback without reclaim, reserve, then both again with full flags. Frame or -1.

    -1 with direct reclaim: the kernel would sleep until an element comes, 5 s at most; ``pool_alloc_again`` then.
    """
    m.c[MEMPOOL_CALLS] += 1
    gfp |= GFP_NOMEMALLOC | GFP_NORETRY | GFP_NOWARN
    first = gfp & ~(GFP_DIRECT_RECLAIM | GFP_IO)
    if first != gfp:
        pfn = quota_alloc(m, cpu, 0, first)
        if pfn < 0:
            pfn = pool_take(m)
        if pfn >= 0:
            return pfn
    return pool_alloc_again(m, cpu, gfp)


@inner
def pool_alloc_again(m, cpu, gfp):
    """What ``mempool_alloc`` does when it wakes: callback with full flags, then the reserve. Frame, or -1 as before."""
    pfn = quota_alloc(m, cpu, 0, gfp | GFP_NOMEMALLOC | GFP_NORETRY | GFP_NOWARN)
    if pfn < 0:
        pfn = pool_take(m)
    if pfn < 0 and gfp & GFP_DIRECT_RECLAIM:
        m.c[MEMPOOL_WAITS] += 1
    return pfn


@inner
def pool_take(m):
    """The element freed last, or -1: one look under the pool's lock."""
    m.c[MEMPOOL_LOCK_ACQUISITIONS] += 1
    if m.w[POOL_CURRENT] == 0:
        return -1
    m.c[MEMPOOL_TAKES] += 1
    m.w[POOL_CURRENT] -= 1
    reserve_add(m, -1)
    return m.w[POOL_ELEMENTS + m.w[POOL_CURRENT]]


@inner
def pool_take_all(m, pages, out, at):
    """``pages`` elements into the pairs of ``out`` from ``at`` on, or none, under one hold of the lock (4.6)."""
    m.c[MEMPOOL_LOCK_ACQUISITIONS] += 1
    if m.w[POOL_CURRENT] < pages:
        return False
    for k in range(pages):
        m.w[POOL_CURRENT] -= 1
        out[2 * (at + k)] = m.w[POOL_ELEMENTS + m.w[POOL_CURRENT]]
        out[2 * (at + k) + 1] = 0
    m.c[MEMPOOL_TAKES] += pages
    reserve_add(m, -pages)
    return True


@inner
def pool_free(m, cpu, pfn):
    """One page back (``mempool_free``): into the reserve while it is short, waking all that wait for it; else through
    the free callback.
    """
    m.c[MEMPOOL_CALLS] += 1
    if m.w[POOL_CURRENT] < m.w[POOL_MIN]:
        m.c[MEMPOOL_LOCK_ACQUISITIONS] += 1
        m.c[MEMPOOL_PUTS] += 1
        pool_push(m, pfn)
        m.w[CFG_WOKEN] |= WOKEN_POOL
        return
    m.c[CALLBACKS] += 1
    quota_free(m, cpu, pfn, 0)


@inner
def pool_free_bulk(m, cpu, pages, out):
    """The first ``pages`` of ``out`` back: the first into the reserve under one hold of the lock
    (``mempool_free_bulk``), the rest to the page allocator, which the kernel's callers do with ``release_pages``.
    """
    m.c[MEMPOOL_CALLS] += 1
    put = min(pages, m.w[POOL_MIN] - m.w[POOL_CURRENT])
    if put > 0:
        m.c[MEMPOOL_LOCK_ACQUISITIONS] += 1
        m.c[MEMPOOL_PUTS] += put
        for k in range(put):
            pool_push(m, out[2 * k])
        m.w[CFG_WOKEN] |= WOKEN_POOL
    for k in range(put, pages):
        free_pages(m, cpu, out[2 * k], 0)
    if put < pages:
        quota_add(m, cpu, put - pages)


@kernel
def fill_reserve(m, cpu, gfp):
    """``pool_fill`` for Python callers."""
    return pool_fill(m, cpu, gfp)
