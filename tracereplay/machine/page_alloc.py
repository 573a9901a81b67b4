"""Allocation entries: zonelist walk, watermarks, per-CPU lists or buddy lists, bulk (page-allocator.md 4 and 5).

Mimics ``__alloc_pages``, ``get_page_from_freelist``, ``rmqueue`` and ``__alloc_pages_bulk`` of mm/page_alloc.c. Stated
model of the slow path: reclaim and compaction are attempted, counted and bring nothing (what they freed on the recorded
host is in the trace as frees); memory that is not there is a failure.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import (
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    NR_PAGE_ORDERS,
    PAGE_ALLOC_COSTLY_ORDER,
)
from tracereplay.kernel.gfp import (
    GFP_ACCOUNT,
    GFP_COMP,
    GFP_DIRECT_RECLAIM,
    GFP_HARDER,
    GFP_HIGH,
    GFP_NOMEMALLOC,
    GFP_NORETRY,
    GFP_THISNODE,
    GFP_ZERO,
)
from tracereplay.machine.buddy import (
    note_movable,
    set_info,
    zone_lock,
    zone_unlock,
)
from tracereplay.machine.counters import (
    ALLOC_CALLS,
    BULK_CALLS,
    COMPACTION_ATTEMPTS,
    COMPOUND_PREPS,
    FAILED_ATTEMPTS,
    FAILED_ATTEMPTS_BY_ORDER,
    MEMCG_CHARGES,
    PAGES_ALLOCATED,
    PAGES_ALLOCATED_BY_ORDER,
    RECLAIM_ATTEMPTS,
    TAIL_PAGES_PREPARED,
    WATERMARK_CHECKS,
    ZEROED_PAGES,
)
from tracereplay.machine.fallback import MODE_NORMAL, rmqueue
from tracereplay.machine.layout import (
    CFG_FROM_FREED,
    CFG_INIT_ON_ALLOC,
    CFG_PCP_RULE,
    CN,
    INFO_CPU_SHIFT,
    INFO_TYPE_SHIFT,
    NF,
    NR_TYPES,
    NR_ZONE_TYPES,
    USED,
    Z_BELOW_HIGH,
    Z_BOOST,
    Z_FREE,
    Z_HIGH,
    Z_LOW,
    Z_MIN,
    Z_NODE,
    Z_NOFRAGMENT,
    Z_RESERVE,
    Z_WORDS,
    ZL,
    ZL_WORDS,
    ZONE_DMA,
    ZONE_DMA32,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)
from tracereplay.machine.pcp import note_pcp_alloc, pcp_holds, pcp_index_of_cpu, pcp_lock, pcp_pop

MARK_LOW, MARK_MIN = 0, 1


@hot
def migratetype(gfp):
    """Migratetype that a gfp mask asks for (``gfp_migratetype``)."""
    mt = (gfp >> 3) & 3
    return mt if mt < MIGRATE_PCPTYPES else 0


@hot
def highest_zone(gfp):
    """Highest zone type that a gfp mask allows (``gfp_zone``, page-allocator.md 1.2)."""
    low = gfp & 0xF
    if low & 0x1:
        return ZONE_DMA
    if low & 0x4:
        return ZONE_DMA32
    if low & 0xA == 0xA:
        return ZONE_MOVABLE
    return ZONE_NORMAL


@inner
def watermark_ok_slow(m, z, order, mark):
    """The part of ``__zone_watermark_ok`` for high orders: some list of a sufficient order holds a block."""
    free = m.w[z * Z_WORDS + Z_FREE] - ((1 << order) - 1)
    if free <= mark:
        return False
    for o in range(order, NR_PAGE_ORDERS):
        row = z * NR_PAGE_ORDERS + o
        for mt in range(MIGRATE_PCPTYPES):
            if m.w[NF + row * NR_TYPES + mt] > 0:
                return True
    return False


@hot
def watermark_ok(m, z, order, mark, top):
    """Whether a zone stays above ``mark`` plus its lowmem reserve for requests up to zone type ``top``."""
    mark += m.w[z * Z_WORDS + Z_BOOST] + m.w[z * Z_WORDS + Z_RESERVE + top]
    if order == 0:
        return m.w[z * Z_WORDS + Z_FREE] > mark
    return watermark_ok_slow(m, z, order, mark)


@inner
def min_mark(m, z, gfp):
    """MIN watermark as this request may use it (page-allocator.md 4.5, reserve access)."""
    mark = m.w[z * Z_WORDS + Z_MIN]
    if gfp & GFP_HIGH:
        mark -= mark // 2
    if m.w[CFG_PCP_RULE] == 2:
        if gfp & GFP_HIGH and not gfp & GFP_DIRECT_RECLAIM:
            mark -= mark // 4
    elif gfp & GFP_HARDER and not gfp & GFP_NOMEMALLOC:  # ALLOC_HARDER
        mark -= mark // 4
    return mark


@inner
def rmqueue_buddy(m, z, order, mt, nofragment):
    """A block straight from the buddy lists, under the zone lock (``rmqueue_buddy``). First frame or -1."""
    zone_lock(m, z)
    pfn, _mode = rmqueue(m, z, order, mt, nofragment, MODE_NORMAL)
    zone_unlock(m, z)
    return pfn


@hot
def rmqueue_zone(m, z, cpu, order, mt, nofragment):
    """A block from a zone: per-CPU lists where they hold the order, else the buddy lists (``rmqueue``)."""
    if pcp_holds(m, order):
        p = pcp_index_of_cpu(m, z, cpu)
        pcp_lock(m, p)
        note_pcp_alloc(m, p)
        pfn = pcp_pop(m, z, p, order, mt, nofragment)
        if pfn >= 0 or not m.w[CFG_FROM_FREED]:  # up to 5.15 an empty refill is the end of the zone
            return pfn
    return rmqueue_buddy(m, z, order, mt, nofragment)


@hot
def zone_passes(m, z, order, gfp, top, which):
    """Watermark test of one zone, with the HIGH test that clears the way since 6.7. Counts each test."""
    if m.w[CFG_PCP_RULE] == 2 and m.w[z * Z_WORDS + Z_BELOW_HIGH] == 0:
        m.c[WATERMARK_CHECKS] += 1
        if watermark_ok(m, z, order, m.w[z * Z_WORDS + Z_HIGH], top):
            return True
        m.w[z * Z_WORDS + Z_BELOW_HIGH] = 1
    m.c[WATERMARK_CHECKS] += 1
    mark = m.w[z * Z_WORDS + Z_LOW] if which == MARK_LOW else min_mark(m, z, gfp)
    return watermark_ok(m, z, order, mark, top)


@hot
def prepare(m, cpu, pfn, order, gfp, mt):
    """What ``prep_new_page`` does to a block that is handed out: state, zeroing, compound heads; and its accounting."""
    set_info(m, pfn, USED | (cpu << INFO_CPU_SHIFT) | (mt << INFO_TYPE_SHIFT) | order)
    if mt == MIGRATE_MOVABLE:
        note_movable(m, pfn, order, 1)
    m.c[PAGES_ALLOCATED] += 1 << order
    m.c[PAGES_ALLOCATED_BY_ORDER + order] += 1 << order
    if gfp & GFP_ZERO or m.w[CFG_INIT_ON_ALLOC]:
        m.c[ZEROED_PAGES] += 1 << order
    if order > 0 and gfp & GFP_COMP:
        m.c[COMPOUND_PREPS] += 1
        m.c[TAIL_PAGES_PREPARED] += (1 << order) - 1
    if gfp & GFP_ACCOUNT:
        m.c[MEMCG_CHARGES] += 1


@inner
def try_zone(m, z, cpu, order, gfp, mt, which, nofragment):
    """One step of the zonelist walk: the watermark test and, when it passes, a block. First frame or -1."""
    if not zone_passes(m, z, order, gfp, highest_zone(gfp), which):
        return -1
    return rmqueue_zone(m, z, cpu, order, mt, nofragment)


@inner
def walk_zonelist(m, cpu, order, gfp, mt, which, first, nofragment):
    """Try the zones of the CPU's zonelist from place ``first`` on (``get_page_from_freelist``). First frame or -1.

    With ``nofragment`` only zones of the preferred node are tried: fragmenting the local node is better than going
    to a remote one. ``__GFP_THISNODE`` never leaves it.
    """
    stay = nofragment or gfp & GFP_THISNODE != 0
    row = ZL + (m.w[CN + cpu] * NR_ZONE_TYPES + highest_zone(gfp)) * ZL_WORDS
    for k in range(first, ZL_WORDS):
        z = m.w[row + k]
        if z < 0 or (stay and m.w[z * Z_WORDS + Z_NODE] != m.w[m.w[row] * Z_WORDS + Z_NODE]):
            break
        pfn = try_zone(m, z, cpu, order, gfp, mt, which, nofragment)
        if pfn >= 0:
            return pfn
    return -1


@inner
def slow_path(m, cpu, order, gfp, mt):
    """``__alloc_pages_slowpath``: MIN watermark, then compaction and reclaim as the stated model. Frame or -1."""
    pfn = walk_zonelist(m, cpu, order, gfp, mt, MARK_MIN, 0, False)
    if pfn >= 0 or not gfp & GFP_DIRECT_RECLAIM:
        return pfn
    if order > PAGE_ALLOC_COSTLY_ORDER or (order > 0 and mt != MIGRATE_MOVABLE):
        m.c[COMPACTION_ATTEMPTS] += 1
        if gfp & GFP_NORETRY and order > PAGE_ALLOC_COSTLY_ORDER:
            return -1
    m.c[RECLAIM_ATTEMPTS] += 1
    if order > 0:
        m.c[COMPACTION_ATTEMPTS] += 1
    return walk_zonelist(m, cpu, order, gfp, mt, MARK_MIN, 0, False)


@hot
def alloc_pages_here(m, cpu, order, gfp):
    """``alloc_pages``, inlined: for the one place where every event passes."""
    m.c[ALLOC_CALLS] += 1
    mt = migratetype(gfp)
    top = highest_zone(gfp)
    z = m.w[ZL + (m.w[CN + cpu] * NR_ZONE_TYPES + top) * ZL_WORDS]
    nofragment = m.w[z * Z_WORDS + Z_NOFRAGMENT] != 0
    pfn = -1
    if zone_passes(m, z, order, gfp, top, MARK_LOW):
        pfn = rmqueue_zone(m, z, cpu, order, mt, nofragment)
    if pfn < 0:
        pfn = alloc_pages_elsewhere(m, cpu, order, gfp, mt, nofragment)
    if pfn >= 0:
        prepare(m, cpu, pfn, order, gfp, mt)
    return pfn


@inner
def alloc_pages(m, cpu, order, gfp):
    """Allocate a block of ``order`` (``__alloc_pages``). First frame, or -1 when it failed."""
    return alloc_pages_here(m, cpu, order, gfp)


@inner
def alloc_pages_elsewhere(m, cpu, order, gfp, mt, nofragment):
    """What follows when the preferred zone gave nothing: the rest of the zonelist, then the slow path."""
    pfn = walk_zonelist(m, cpu, order, gfp, mt, MARK_LOW, 1, nofragment)
    if pfn < 0 and nofragment:
        pfn = walk_zonelist(m, cpu, order, gfp, mt, MARK_LOW, 0, False)
    if pfn < 0:
        pfn = slow_path(m, cpu, order, gfp, mt)
    if pfn < 0:
        m.c[FAILED_ATTEMPTS] += 1
        m.c[FAILED_ATTEMPTS_BY_ORDER + order] += 1
    return pfn


@inner
def bulk_zone(m, cpu, gfp, wanted):
    """Zone that can serve a bulk request: the first of the local node above LOW + ``wanted``; -1 when none is."""
    top = highest_zone(gfp)
    row = m.w[CN + cpu] * NR_ZONE_TYPES + top
    for k in range(ZL_WORDS):
        z = m.w[ZL + row * ZL_WORDS + k]
        if z < 0 or m.w[z * Z_WORDS + Z_NODE] != m.w[m.w[ZL + row * ZL_WORDS] * Z_WORDS + Z_NODE]:
            break
        m.c[WATERMARK_CHECKS] += 1
        if watermark_ok(m, z, 0, m.w[z * Z_WORDS + Z_LOW] + wanted, top):
            return z
    return -1


@inner
def alloc_pages_bulk(m, cpu, gfp, wanted, slots):
    """``__alloc_pages_bulk``: fill the empty slots (frame -1) among the first ``wanted`` (frame, order) pairs.

    Order-0 pages of one zone of the local node, under one pcp lock (section 5.2). Returns the number of filled slots,
    those filled before the call included; it may be fewer than wanted. Accounted requests, a single missing page and
    zones below LOW + wanted go the ordinary way, which brings one page at most.
    """
    m.c[BULK_CALLS] += 1
    filled = 0
    at = -1
    for i in range(wanted):
        if slots[2 * i] >= 0:
            filled += 1
        elif at < 0:
            at = i
    if at < 0:
        return filled
    mt = migratetype(gfp)
    taken = 0
    if wanted - filled > 1 and not gfp & GFP_ACCOUNT:
        z = bulk_zone(m, cpu, gfp, wanted)
        if z >= 0:
            p = pcp_index_of_cpu(m, z, cpu)
            pcp_lock(m, p)
            for i in range(at, wanted):
                if slots[2 * i] >= 0:
                    continue
                pfn = pcp_pop(m, z, p, 0, mt, False)
                if pfn < 0:
                    break
                prepare(m, cpu, pfn, 0, gfp, mt)
                slots[2 * i] = pfn
                slots[2 * i + 1] = 0
                taken += 1
    if taken == 0:
        pfn = alloc_pages(m, cpu, 0, gfp)
        if pfn >= 0:
            slots[2 * at] = pfn
            slots[2 * at + 1] = 0
            taken = 1
    return filled + taken
