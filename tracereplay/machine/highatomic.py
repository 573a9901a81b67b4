"""Pageblocks kept for high-order requests that cannot wait (page-allocator.md 4.6).

Mimics ``reserve_highatomic_pageblock`` and ``unreserve_highatomic_pageblock`` of mm/page_alloc.c.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.kernel.constants import MIGRATE_HIGHATOMIC, MIGRATE_PCPTYPES, NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.machine.buddy import block_type, buddy_head, put_free, take_free
from tracereplay.machine.counters import HIGHATOMIC_RELEASED, HIGHATOMIC_RESERVED
from tracereplay.machine.fallback import first_to_move, move_block, retype
from tracereplay.machine.holds import zone_lock, zone_unlock
from tracereplay.machine.layout import (
    CFG_KEEPS_TYPE,
    CFG_NODES,
    CFG_PCP_RULE,
    Z_HIGHATOMIC,
    Z_MANAGED,
    Z_SET_ASIDE,
    Z_WORDS,
    ZL_WORDS,
)
from tracereplay.machine.lists import first
from tracereplay.machine.zonelist import zone_at, zonelist

PAGEBLOCK = 1 << PAGEBLOCK_ORDER


@inner
def add_reserved(m, z, pages):
    """Account pages in HIGHATOMIC blocks (``nr_reserved_highatomic``), never below 0."""
    pages = max(pages, -m.w[z * Z_WORDS + Z_HIGHATOMIC])
    m.w[z * Z_WORDS + Z_HIGHATOMIC] += pages
    m.w[z * Z_WORDS + Z_SET_ASIDE] += pages


@inner
def most_reserved(m, z):
    """Pages of a zone at which no more blocks are reserved: about 1 %."""
    share = m.w[z * Z_WORDS + Z_MANAGED] // 100
    if m.w[CFG_PCP_RULE] < 2:
        return share + PAGEBLOCK
    return 0 if share < PAGEBLOCK else -(-share // PAGEBLOCK) * PAGEBLOCK


@inner
def reserve_highatomic(m, z, pfn, order):
    """Keep the pageblock of a block that a HIGHATOMIC request got, unless the zone has enough."""
    if m.w[z * Z_WORDS + Z_HIGHATOMIC] >= most_reserved(m, z):
        return
    zone_lock(m, z)
    if block_type(m, pfn) < MIGRATE_PCPTYPES:
        start = first_to_move(m, z, pfn)
        large = order >= PAGEBLOCK_ORDER and m.w[CFG_KEEPS_TYPE]
        if large or start >= 0 or not m.w[CFG_KEEPS_TYPE]:
            if not large:
                move_block(m, z, start, MIGRATE_HIGHATOMIC)
            retype(m, pfn, order if large else PAGEBLOCK_ORDER, MIGRATE_HIGHATOMIC)
            add_reserved(m, z, 1 << order if large else PAGEBLOCK)
            m.c[HIGHATOMIC_RESERVED] += 1
    zone_unlock(m, z)


@inner
def release_block(m, z, order, mt):
    """Give the pageblock of the first free HIGHATOMIC block of an order to ``mt``. Whether free pages moved."""
    pfn = first(m.pg, buddy_head(z, order, MIGRATE_HIGHATOMIC)) - m.w[CFG_NODES]
    m.c[HIGHATOMIC_RELEASED] += 1
    if m.w[CFG_KEEPS_TYPE]:
        add_reserved(m, z, -max(1 << order, PAGEBLOCK))
        if order >= PAGEBLOCK_ORDER:
            take_free(m, z, pfn, order, MIGRATE_HIGHATOMIC)
            put_free(m, z, pfn, order, mt, True)
            retype(m, pfn, order, mt)
            return True
    elif block_type(m, pfn) == MIGRATE_HIGHATOMIC:
        add_reserved(m, z, -PAGEBLOCK)
    retype(m, pfn, PAGEBLOCK_ORDER, mt)
    return move_block(m, z, first_to_move(m, z, pfn), mt) > 0


@inner
def unreserve_highatomic(m, cpu, gfp, mt, force):
    """Give one reserved block of the zonelist back, to the type that needs it. Whether there was one.

    Each zone keeps its last block unless ``force``.
    """
    row = zonelist(m, cpu, gfp)
    for k in range(ZL_WORDS):
        z = zone_at(m, row, k, gfp)
        if z < 0:
            break
        if not force and m.w[z * Z_WORDS + Z_HIGHATOMIC] <= PAGEBLOCK:
            continue
        zone_lock(m, z)
        done = False
        for order in range(NR_PAGE_ORDERS):
            head = buddy_head(z, order, MIGRATE_HIGHATOMIC)
            if first(m.pg, head) != head:
                done = release_block(m, z, order, mt)
                if done:
                    break
        zone_unlock(m, z)
        if done:
            return True
    return False
