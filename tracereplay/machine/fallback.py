"""Fallback to other migratetypes, in its three generations (page-allocator.md section 4.4).

A: 5.10 to 6.9, leftovers of a foreign block land on the requester's lists. B: since 6.10, they stay on the lists of
the block's own type. C: since 6.15, first claim whole blocks, then steal the smallest piece; the mode lasts for one
hold of the zone lock. Movable pages in use are known only by what was asked for (``B_MOVABLE``).
Watermark boost, CMA and HIGHATOMIC blocks are not modelled.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import (
    MAX_PAGE_ORDER,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    NR_PAGE_ORDERS,
    PAGEBLOCK_ORDER,
)
from tracereplay.machine.buddy import (
    block_type,
    buddy_head,
    expand,
    get_info,
    info_type,
    put_free,
    rmqueue_smallest,
    take_free,
)
from tracereplay.machine.counters import (
    FALLBACK_BLOCK_MOVES,
    FALLBACKS,
)
from tracereplay.machine.layout import (
    B_MOVABLE,
    B_TYPE,
    B_WORDS,
    BUDDY,
    CFG_CLAIM_STEAL,
    CFG_KEEPS_TYPE,
    CFG_NODES,
    INFO_ORDER,
    INFO_STATE,
    NF,
    NR_TYPES,
    Z_END,
    Z_FREE,
    Z_START,
    Z_WORDS,
    Z_WORK,
)
from tracereplay.machine.lists import first

MODE_NORMAL, MODE_CLAIM, MODE_STEAL = 0, 1, 2


@hot
def fallback_type(mt, i):
    """The i-th (0, 1) type to fall back to (``fallbacks[][]``)."""
    if mt == MIGRATE_UNMOVABLE:
        return MIGRATE_RECLAIMABLE if i == 0 else MIGRATE_MOVABLE
    if mt == MIGRATE_MOVABLE:
        return MIGRATE_RECLAIMABLE if i == 0 else MIGRATE_UNMOVABLE
    return MIGRATE_UNMOVABLE if i == 0 else MIGRATE_MOVABLE


@hot
def may_claim(order, mt):
    """Whether a whole pageblock may be taken over (``can_steal_fallback``, ``should_try_claim_block``)."""
    return order >= PAGEBLOCK_ORDER // 2 or mt != MIGRATE_MOVABLE


@inner
def find_fallback(m, z, order, mt):
    """First fallback type with a free block of exactly ``order``; -1 when none has one."""
    for i in range(2):
        other = fallback_type(mt, i)
        if m.w[NF + (z * NR_PAGE_ORDERS + order) * NR_TYPES + other] > 0:
            return other
    return -1


@inner
def move_block(m, z, block, mt):
    """Move all free blocks of a pageblock to the lists of ``mt``, to their tails (``move_freepages_block``)."""
    pfn = block << PAGEBLOCK_ORDER
    end = pfn + (1 << PAGEBLOCK_ORDER)
    while pfn < end:
        info = get_info(m, pfn)
        if info & INFO_STATE != BUDDY:
            pfn += 1
            continue
        order = info & INFO_ORDER
        take_free(m, z, pfn, order, info_type(info))
        put_free(m, z, pfn, order, mt, True)
        m.w[z * Z_WORDS + Z_WORK] += 1
        pfn += 1 << order


@hot
def inside_zone(m, z, block):
    """Whether a whole pageblock lies in the zone; others are not moved (``move_freepages_block``)."""
    start = block << PAGEBLOCK_ORDER
    return start >= m.w[z * Z_WORDS + Z_START] and start + (1 << PAGEBLOCK_ORDER) <= m.w[z * Z_WORDS + Z_END]


@inner
def good_share(m, block, mt, old):
    """Whether free and alike pages make at least half the pageblock (``steal_suitable_fallback``)."""
    start = block << PAGEBLOCK_ORDER
    free = 0
    pfn = start
    while pfn < start + (1 << PAGEBLOCK_ORDER):
        info = get_info(m, pfn)
        if info & INFO_STATE == BUDDY:
            free += 1 << (info & INFO_ORDER)
            pfn += 1 << (info & INFO_ORDER)
        else:
            pfn += 1
    movable = m.pb[block * B_WORDS + B_MOVABLE]
    alike = 0
    if mt == MIGRATE_MOVABLE:
        alike = movable
    elif old == MIGRATE_MOVABLE:
        alike = (1 << PAGEBLOCK_ORDER) - free - movable
    return free + alike >= 1 << (PAGEBLOCK_ORDER - 1)


@inner
def take_from(m, z, order, found, mt, leftovers):
    """Take the first block of ``found`` order from the list of ``mt``, cut it down, leftovers to type ``leftovers``."""
    pfn = first(m.pg, buddy_head(z, found, mt)) - m.w[CFG_NODES]
    take_free(m, z, pfn, found, mt)
    m.w[z * Z_WORDS + Z_FREE] -= 1 << order
    m.w[z * Z_WORDS + Z_WORK] += 1
    expand(m, z, pfn, order, found, leftovers)
    return pfn


@inner
def retype(m, pfn, order, mt):
    """Give all pageblocks of a large block a type (``change_pageblock_range``)."""
    for block in range(pfn >> PAGEBLOCK_ORDER, (pfn + (1 << order)) >> PAGEBLOCK_ORDER):
        m.pb[block * B_WORDS + B_TYPE] = mt


@inner
def use_fallback(m, z, order, found, other, mt, claim):
    """Serve a request from a foreign block (``steal_suitable_fallback`` and its successors). Returns the frame.

    With ``claim`` false only this block is taken. Returns -1 in generation C when a claim was refused.
    """
    pfn = first(m.pg, buddy_head(z, found, other)) - m.w[CFG_NODES]
    m.c[FALLBACKS] += 1
    if found >= PAGEBLOCK_ORDER:
        retype(m, pfn, found, mt)
        m.c[FALLBACK_BLOCK_MOVES] += 1
        return take_from(m, z, order, found, other, mt)
    leftovers = other if m.w[CFG_KEEPS_TYPE] else mt
    if not claim:
        return take_from(m, z, order, found, other, leftovers)
    block = pfn >> PAGEBLOCK_ORDER
    inside = inside_zone(m, z, block)
    share = inside and good_share(m, block, mt, block_type(m, pfn))
    if share or (inside and not m.w[CFG_KEEPS_TYPE]):
        move_block(m, z, block, mt)
        if share:
            m.pb[block * B_WORDS + B_TYPE] = mt
            m.c[FALLBACK_BLOCK_MOVES] += 1
        return rmqueue_smallest(m, z, order, mt)
    if m.w[CFG_CLAIM_STEAL]:
        m.c[FALLBACKS] -= 1
        return -1
    return take_from(m, z, order, found, other, leftovers)


@inner
def fallback_single_phase(m, z, order, mt, min_order):
    """Generations A and B (``__rmqueue_fallback``): largest foreign block first. -1 when nothing is there."""
    for found in range(MAX_PAGE_ORDER, min_order - 1, -1):
        other = find_fallback(m, z, found, mt)
        if other < 0:
            continue
        if may_claim(found, mt):
            return use_fallback(m, z, order, found, other, mt, True)
        if found > order:
            for smaller in range(order, NR_PAGE_ORDERS):
                other = find_fallback(m, z, smaller, mt)
                if other >= 0:
                    return use_fallback(m, z, order, smaller, other, mt, False)
        return use_fallback(m, z, order, found, other, mt, False)
    return -1


@inner
def fallback_claim(m, z, order, mt, min_order):
    """Generation C, first phase (``__rmqueue_claim``): whole blocks, largest first. -1 when none can be claimed."""
    for found in range(MAX_PAGE_ORDER, min_order - 1, -1):
        if not may_claim(found, mt):
            return -1
        other = find_fallback(m, z, found, mt)
        if other >= 0:
            pfn = use_fallback(m, z, order, found, other, mt, True)
            if pfn >= 0:
                return pfn
    return -1


@inner
def fallback_steal(m, z, order, mt):
    """Generation C, second phase (``__rmqueue_steal``): the smallest foreign piece. -1 when there is none."""
    for found in range(order, NR_PAGE_ORDERS):
        other = find_fallback(m, z, found, mt)
        if other >= 0:
            return take_from_foreign(m, z, order, found, other)
    return -1


@inner
def take_from_foreign(m, z, order, found, other):
    """Steal a piece, leftovers keep their type."""
    m.c[FALLBACKS] += 1
    return take_from(m, z, order, found, other, other)


@inner
def rmqueue(m, z, order, mt, nofragment, mode):
    """One block from the buddy lists (``__rmqueue``): own type first, then fallback.

    ``mode`` is the state that generation C keeps during one hold of the zone lock. Returns (frame or -1, mode).
    """
    if mode == MODE_NORMAL or not m.w[CFG_CLAIM_STEAL]:
        pfn = rmqueue_smallest(m, z, order, mt)
        if pfn >= 0:
            return pfn, MODE_NORMAL
    min_order = PAGEBLOCK_ORDER if nofragment and order < PAGEBLOCK_ORDER else order
    if not m.w[CFG_CLAIM_STEAL]:
        return fallback_single_phase(m, z, order, mt, min_order), MODE_NORMAL
    if mode != MODE_STEAL:
        pfn = fallback_claim(m, z, order, mt, min_order)
        if pfn >= 0:
            return pfn, MODE_NORMAL
    if not nofragment:
        pfn = fallback_steal(m, z, order, mt)
        if pfn >= 0:
            return pfn, MODE_STEAL
    return -1, MODE_NORMAL
