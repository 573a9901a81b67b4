"""Watermark tests of a zone, what is set aside from them, and the boost (page-allocator.md 4.5 to 4.7).

Mimics ``zone_watermark_fast``, ``__zone_watermark_ok``, ``__zone_watermark_unusable_free`` and ``boost_watermark`` of
mm/page_alloc.c. Every mark includes the boost, as the kernel's ``wmark_pages`` does: LOW and MIN of a request, HIGH of
the test that sets BELOW_HIGH, and HIGH of kswapd. One test leaves it out: MIN of an order-0 ``__GFP_HIGH`` request (up
to 6.2 ``__GFP_ATOMIC``) that failed with it.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import (
    MIGRATE_CMA,
    MIGRATE_HIGHATOMIC,
    MIGRATE_PCPTYPES,
    MIGRATE_UNMAPPED,
    NR_PAGE_ORDERS,
    PAGEBLOCK_ORDER,
)
from tracereplay.machine.alloc_flags import (
    ALLOC_CMA,
    ALLOC_HARDER,
    ALLOC_HIGHATOMIC,
    ALLOC_MIN_RESERVE,
    ALLOC_NON_BLOCK,
    ALLOC_RESERVES,
    ALLOC_UNBOOSTED,
    ALLOC_WMARK_MIN,
)
from tracereplay.machine.counters import WATERMARK_BOOSTS
from tracereplay.machine.layout import (
    CFG_BOOST_FACTOR,
    CFG_KEEPS_TYPE,
    CFG_PCP_RULE,
    NF,
    NR_TYPES,
    Z_BOOST,
    Z_CMA,
    Z_FREE,
    Z_HIGH,
    Z_HIGHATOMIC,
    Z_MANAGED,
    Z_MIN,
    Z_RESERVE,
    Z_SET_ASIDE,
    Z_WORDS,
)


@hot
def nr_free(m, z, order, mt):
    """Free blocks on a buddy list."""
    return np.int64(m.w[NF + (z * NR_PAGE_ORDERS + order) * NR_TYPES + mt])


@inner
def pages_of_type(m, z, mt):
    """Free pages on the buddy lists of a migratetype (NR_FREE_CMA_PAGES, nr_free_highatomic)."""
    pages = 0
    for order in range(NR_PAGE_ORDERS):
        pages += nr_free(m, z, order, mt) << order
    return pages


@inner
def unusable(m, z, flags):
    """Free pages of a zone that a request may not count on (``__zone_watermark_unusable_free`` without its own).

    HIGHATOMIC pages count as reserved up to 6.9, as free since. Whoever may use reserves counts them in: up to 6.2
    ALLOC_HARDER alone, since then any right to a reserve.
    """
    pages = 0
    rights = ALLOC_RESERVES if m.w[CFG_PCP_RULE] == 2 else ALLOC_HARDER
    if not flags & rights:
        pages += pages_of_type(m, z, MIGRATE_HIGHATOMIC) if m.w[CFG_KEEPS_TYPE] else m.w[z * Z_WORDS + Z_HIGHATOMIC]
    if not flags & ALLOC_CMA and m.w[z * Z_WORDS + Z_CMA]:
        pages += pages_of_type(m, z, MIGRATE_CMA)
    return pages


@inner
def reserve_access(m, mark, flags):
    """A mark as a request with access to reserves sees it: GFP_ATOMIC goes down to three eighths."""
    if flags & ALLOC_MIN_RESERVE:
        mark -= mark // 2
        if flags & ALLOC_NON_BLOCK:
            mark -= mark // 4
    if flags & ALLOC_HARDER:
        mark -= mark // 4
    return mark


@inner
def zone_watermark_ok(m, z, order, mark, top, flags):
    """``__zone_watermark_ok``: free pages above ``mark`` and the lowmem reserve, and a block of a sufficient order."""
    free = m.w[z * Z_WORDS + Z_FREE] - ((1 << order) - 1)
    if m.w[z * Z_WORDS + Z_SET_ASIDE]:
        free -= unusable(m, z, flags)
    if free <= reserve_access(m, mark, flags) + m.w[z * Z_WORDS + Z_RESERVE + top]:
        return False
    if order == 0:
        return True
    for o in range(order, NR_PAGE_ORDERS):
        for mt in range(MIGRATE_PCPTYPES):
            if nr_free(m, z, o, mt) > 0:
                return True
        if nr_free(m, z, o, MIGRATE_UNMAPPED) > 0:
            return True
        if flags & ALLOC_CMA and nr_free(m, z, o, MIGRATE_CMA) > 0:
            return True
        if flags & ALLOC_HIGHATOMIC and nr_free(m, z, o, MIGRATE_HIGHATOMIC) > 0:
            return True
    return False


@inner
def watermark_ok_slow(m, z, order, mark, top, flags):
    """``zone_watermark_fast`` where the comparison alone does not do. ``mark`` includes the boost."""
    if zone_watermark_ok(m, z, order, mark, top, flags):
        return True
    if order == 0 and flags & ALLOC_UNBOOSTED and flags & ALLOC_WMARK_MIN and m.w[z * Z_WORDS + Z_BOOST]:
        return zone_watermark_ok(m, z, 0, m.w[z * Z_WORDS + Z_MIN], top, flags)
    return False


@hot
def watermark_ok(m, z, order, mark, top, flags):
    """Whether a zone stays above ``mark`` (without boost) for a request up to zone type ``top`` with ALLOC_* ``flags``.

    Inlined is the plain comparison, for requests without access to reserves in zones that set nothing aside.
    """
    mark += m.w[z * Z_WORDS + Z_BOOST]
    if order == 0 and m.w[z * Z_WORDS + Z_SET_ASIDE] == 0 and not flags & (ALLOC_RESERVES | ALLOC_UNBOOSTED):
        return m.w[z * Z_WORDS + Z_FREE] > mark + m.w[z * Z_WORDS + Z_RESERVE + top]
    return watermark_ok_slow(m, z, order, mark, top, flags)


@inner
def boost_watermark(m, z):
    """Raise a zone's boost by a pageblock after a fallback that mixes types. Whether it may be boosted at all."""
    if m.w[CFG_BOOST_FACTOR] == 0 or m.w[z * Z_WORDS + Z_MANAGED] < 4 << PAGEBLOCK_ORDER:
        return False
    most = m.w[z * Z_WORDS + Z_HIGH] * m.w[CFG_BOOST_FACTOR] // 10000
    if most == 0:
        return False
    most = max(most, 1 << PAGEBLOCK_ORDER)
    m.c[WATERMARK_BOOSTS] += 1
    m.w[z * Z_WORDS + Z_BOOST] = min(m.w[z * Z_WORDS + Z_BOOST] + (1 << PAGEBLOCK_ORDER), most)
    return True
