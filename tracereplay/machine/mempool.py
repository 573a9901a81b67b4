"""A mempool of single pages with dm-crypt's quota (strategies.md sections 1.4 and 5).

Mimics ``mempool_alloc``, ``mempool_free`` of mm/mempool.c and ``crypt_page_alloc``/``crypt_page_free`` of
drivers/md/dm-crypt.c: the callback is tried first, the reserve second, and frees refill the reserve before anything
goes back to the page allocator. The percpu counter is exact here (its folding error is not modelled), and a sleeping
allocation that finds the reserve empty fails instead of waiting: waits are not simulated yet.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner, kernel
from tracereplay.kernel.gfp import GFP_DIRECT_RECLAIM, GFP_IO, GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine.counters import (
    CALLBACKS,
    MEMPOOL_CALLS,
    MEMPOOL_PUTS,
    MEMPOOL_TAKES,
    MEMPOOL_WAITS,
    PERCPU_COUNTER_OPS,
    QUOTA_REFUSALS,
)
from tracereplay.machine.layout import (
    CFG_DRY_LONGEST,
    CFG_DRY_NS,
    CFG_DRY_SPELLS,
    CFG_NOW,
    CFG_RESERVE,
    CFG_RESERVE_PEAK,
    CFG_RESERVE_SINCE,
    CFG_RESERVE_US,
    POOL_ALLOCATED,
    POOL_CURRENT,
    POOL_ELEMENTS,
    POOL_MIN,
    POOL_QUOTA,
)
from tracereplay.machine.page_alloc import alloc_pages
from tracereplay.machine.page_free import free_pages


@hot
def reserve_add(m, pages):
    """Note that a reserve holds ``pages`` more (fewer when negative) idle pages; the peak and the time are kept."""
    now = m.w[CFG_NOW] // 1000
    m.w[CFG_RESERVE_US] += m.w[CFG_RESERVE] * (now - m.w[CFG_RESERVE_SINCE])
    m.w[CFG_RESERVE_SINCE] = now
    m.w[CFG_RESERVE] += pages
    m.w[CFG_RESERVE_PEAK] = max(m.w[CFG_RESERVE_PEAK], m.w[CFG_RESERVE])


@inner
def dry_spell(m, ns):
    """Note that a strategy's cache has pages again, so long after it first could not serve."""
    m.w[CFG_DRY_SPELLS] += 1
    m.w[CFG_DRY_NS] += ns
    m.w[CFG_DRY_LONGEST] = max(m.w[CFG_DRY_LONGEST], ns)


@inner
def quota_alloc(m, cpu, order, gfp):
    """Allocation callback with the quota (``crypt_page_alloc``). Frame or -1; counts the pages it gave."""
    m.c[CALLBACKS] += 1
    m.c[PERCPU_COUNTER_OPS] += 1
    if gfp & GFP_NORETRY and m.w[POOL_ALLOCATED] + (1 << order) > m.w[POOL_QUOTA]:
        m.c[QUOTA_REFUSALS] += 1
        return -1
    pfn = alloc_pages(m, cpu, order, gfp)
    if pfn >= 0:
        m.c[PERCPU_COUNTER_OPS] += 1
        m.w[POOL_ALLOCATED] += 1 << order
    return pfn


@inner
def quota_free(m, cpu, pfn, order):
    """Free callback (``crypt_page_free``)."""
    m.c[PERCPU_COUNTER_OPS] += 1
    m.w[POOL_ALLOCATED] -= 1 << order
    free_pages(m, cpu, pfn, order)


@inner
def pool_fill(m, cpu, gfp):
    """Fill the reserve at creation through the callback (``mempool_init``). True when it is full."""
    while m.w[POOL_CURRENT] < m.w[POOL_MIN]:
        pfn = quota_alloc(m, cpu, 0, gfp)
        if pfn < 0:
            return False
        m.w[POOL_ELEMENTS + m.w[POOL_CURRENT]] = pfn
        m.w[POOL_CURRENT] += 1
        reserve_add(m, 1)
    return True


@inner
def pool_alloc(m, cpu, gfp):
    """One page (``mempool_alloc``): callback without reclaim, reserve, callback with full flags. Frame or -1."""
    m.c[MEMPOOL_CALLS] += 1
    gfp |= GFP_NOMEMALLOC | GFP_NORETRY | GFP_NOWARN
    first = gfp & ~(GFP_DIRECT_RECLAIM | GFP_IO)
    pfn = quota_alloc(m, cpu, 0, first)
    if pfn >= 0:
        return pfn
    if m.w[POOL_CURRENT] > 0:
        return pool_take(m)
    if first != gfp:
        pfn = quota_alloc(m, cpu, 0, gfp)
        if pfn >= 0:
            return pfn
        if m.w[POOL_CURRENT] > 0:
            return pool_take(m)
        m.c[MEMPOOL_WAITS] += 1
    return -1


@inner
def pool_take(m):
    """The element freed last (the reserve is a stack)."""
    m.c[MEMPOOL_TAKES] += 1
    m.w[POOL_CURRENT] -= 1
    reserve_add(m, -1)
    return m.w[POOL_ELEMENTS + m.w[POOL_CURRENT]]


@inner
def pool_free(m, cpu, pfn):
    """One page back (``mempool_free``): into the reserve while it is short, else through the free callback."""
    m.c[MEMPOOL_CALLS] += 1
    if m.w[POOL_CURRENT] < m.w[POOL_MIN]:
        m.c[MEMPOOL_PUTS] += 1
        m.w[POOL_ELEMENTS + m.w[POOL_CURRENT]] = pfn
        m.w[POOL_CURRENT] += 1
        reserve_add(m, 1)
        return
    m.c[CALLBACKS] += 1
    quota_free(m, cpu, pfn, 0)


@kernel
def fill_reserve(m, cpu, gfp):
    """``pool_fill`` for Python callers."""
    return pool_fill(m, cpu, gfp)
