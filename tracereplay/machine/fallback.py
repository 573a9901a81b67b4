"""Fallback to other migratetypes, in its three generations (page-allocator.md section 4.4).

A: 5.10 to 6.9, leftovers of a foreign block land on the requester's lists. B: since 6.10, they stay on the lists of
the block's own type. C: since 6.15, first claim whole blocks, then steal the smallest piece; the mode lasts for one
hold of the zone lock. Movable pages in use are known only by what was asked for (``B_MOVABLE``). Up to 6.9 the kernel
compares free CMA pages with free pages as they were before the refill; here both are those of the moment.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, hot, inner
from tracereplay.kernel.constants import (
    MAX_PAGE_ORDER,
    MIGRATE_CMA,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMAPPED,
    MIGRATE_UNMOVABLE,
    NR_PAGE_ORDERS,
    PAGEBLOCK_ORDER,
)
from tracereplay.machine.alloc_flags import ALLOC_CMA, ALLOC_KSWAPD, ALLOC_NOFRAGMENT
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
from tracereplay.machine.holds import count_block_move, count_fallback
from tracereplay.machine.kswapd import wake_kswapd
from tracereplay.machine.layout import (
    B_MOVABLE,
    B_TYPE,
    B_WORDS,
    BUDDY,
    CFG_CLAIM_STEAL,
    CFG_FROM_FREED,
    CFG_KEEPS_TYPE,
    CFG_NODES,
    INFO_ORDER,
    INFO_STATE,
    Z_CMA,
    Z_END,
    Z_FREE,
    Z_NODE,
    Z_START,
    Z_TYPE,
    Z_WORDS,
    Z_WORK,
    Machine,
)
from tracereplay.machine.lists import first
from tracereplay.machine.watermarks import boost_watermark, nr_free, pages_of_type

MODE_NORMAL, MODE_CMA, MODE_CLAIM, MODE_STEAL = range(4)


@hot
def fallback_type(mt, i):
    """The i-th (0, 1, 2) type to fall back to (``fallbacks[][]``). UNMAPPED comes last, which no kernel has."""
    if mt == MIGRATE_UNMAPPED:
        return MIGRATE_UNMOVABLE if i == 0 else MIGRATE_RECLAIMABLE if i == 1 else MIGRATE_MOVABLE
    if i == 2:
        return MIGRATE_UNMAPPED
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
    for i in range(3):
        other = fallback_type(mt, i)
        if nr_free(m, z, order, other) > 0:
            return other
    return -1


@inner
def first_to_move(m, z, pfn):
    """First frame of a pageblock's free blocks that may be moved with the block at ``pfn``; -1 where none may.

    A block that leaves the zone is not moved since 6.10; before, one that starts outside is moved from ``pfn`` on.
    """
    start = pfn >> PAGEBLOCK_ORDER << PAGEBLOCK_ORDER
    if start + (1 << PAGEBLOCK_ORDER) > m.w[z * Z_WORDS + Z_END]:
        return -1
    if start >= m.w[z * Z_WORDS + Z_START]:
        return start
    return -1 if m.w[CFG_KEEPS_TYPE] else pfn


@inner
def move_block(m, z, start, mt):
    """Move the free blocks of a pageblock from ``start`` on to the tails of the lists of ``mt``. Returns their pages.

    ``move_freepages_block``; ``start`` comes from ``first_to_move``, -1 moves nothing.
    """
    moved = 0
    if start < 0:
        return moved
    pfn = start
    end = (start >> PAGEBLOCK_ORDER) + 1 << PAGEBLOCK_ORDER
    while pfn < end:
        info = get_info(m, pfn)
        if info & INFO_STATE != BUDDY:
            pfn += 1
            continue
        order = info & INFO_ORDER
        take_free(m, z, pfn, order, info_type(info))
        put_free(m, z, pfn, order, mt, True)
        m.w[z * Z_WORDS + Z_WORK] += 1
        moved += 1 << order
        pfn += 1 << order
    return moved


@inner
def free_in_block(m, start):
    """Free pages of a pageblock from ``start`` on."""
    free = 0
    pfn = start
    while pfn < (start >> PAGEBLOCK_ORDER) + 1 << PAGEBLOCK_ORDER:
        info = get_info(m, pfn)
        if info & INFO_STATE == BUDDY:
            free += 1 << (info & INFO_ORDER)
            pfn += 1 << (info & INFO_ORDER)
        else:
            pfn += 1
    return free


@inner
def good_share(m, start, free, mt, old):
    """Whether free and alike pages make at least half the pageblock (``steal_suitable_fallback``)."""
    movable = m.pb[(start >> PAGEBLOCK_ORDER) * B_WORDS + B_MOVABLE]
    alike = 0
    if mt == MIGRATE_MOVABLE:
        alike = movable
    elif old == MIGRATE_MOVABLE:
        alike = (1 << PAGEBLOCK_ORDER) - free - movable
    return free + alike >= 1 << (PAGEBLOCK_ORDER - 1)


@inner
def take_first(m, z, order, found, mt, leftovers):
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
def boost(m, z, flags):
    """Raise the watermarks of a zone whose types get mixed, and have kswapd work for them (section 4.7)."""
    if boost_watermark(m, z) and flags & ALLOC_KSWAPD:
        wake_kswapd(m, m.w[z * Z_WORDS + Z_NODE], 0, m.w[z * Z_WORDS + Z_TYPE])


@inner
def steal_to_own(m, z, found, other, mt, flags):
    """Generation A (``steal_suitable_fallback``): move a foreign block, or all of its pageblock, to the own lists."""
    pfn = first(m.pg, buddy_head(z, found, other)) - m.w[CFG_NODES]
    count_fallback(m, z)
    old = block_type(m, pfn)
    if old != MIGRATE_HIGHATOMIC:
        if found >= PAGEBLOCK_ORDER:
            retype(m, pfn, found, mt)
            count_block_move(m, z)
        else:
            boost(m, z, flags)
            start = first_to_move(m, z, pfn) if may_claim(found, mt) else -1
            free = move_block(m, z, start, mt)
            if free > 0:
                if good_share(m, start, free, mt, old):
                    m.pb[(pfn >> PAGEBLOCK_ORDER) * B_WORDS + B_TYPE] = mt
                    count_block_move(m, z)
                return
    take_free(m, z, pfn, found, other)
    put_free(m, z, pfn, found, mt, True)
    m.w[z * Z_WORDS + Z_WORK] += 1


@inner
def claim_block(m, z, order, found, other, mt, flags):
    """Generations B and C, a foreign block that may be claimed with its pageblock. -1 when the pageblock is not.

    (``steal_suitable_fallback`` of 6.12, ``try_to_claim_block``.)
    """
    pfn = first(m.pg, buddy_head(z, found, other)) - m.w[CFG_NODES]
    if found >= PAGEBLOCK_ORDER:
        retype(m, pfn, found, mt)
        count_fallback(m, z)
        count_block_move(m, z)
        return take_first(m, z, order, found, other, mt)
    boost(m, z, flags)
    start = first_to_move(m, z, pfn)
    if start < 0 or not good_share(m, start, free_in_block(m, start), mt, other):
        return -1
    move_block(m, z, start, mt)
    m.pb[(pfn >> PAGEBLOCK_ORDER) * B_WORDS + B_TYPE] = mt
    count_fallback(m, z)
    count_block_move(m, z)
    return rmqueue_smallest(m, z, order, mt)


@inner
def find_single_phase(m, z, order, mt, min_order):
    """Order of the foreign block that generations A and B take (``__rmqueue_fallback``); -1 when there is none.

    The largest, or the smallest that does where a movable request may not take a whole pageblock.
    """
    for found in range(MAX_PAGE_ORDER, min_order - 1, -1):
        if find_fallback(m, z, found, mt) < 0:
            continue
        if not may_claim(found, mt) and found > order:
            for smaller in range(order, found):
                if find_fallback(m, z, smaller, mt) >= 0:
                    return smaller
        return found
    return -1


@inner
def fallback_b(m, z, order, mt, min_order, flags):
    """Generation B: a piece of the block found, or its whole pageblock. -1 when nothing is there."""
    found = find_single_phase(m, z, order, mt, min_order)
    if found < 0:
        return -1
    other = find_fallback(m, z, found, mt)
    if may_claim(found, mt):
        pfn = claim_block(m, z, order, found, other, mt, flags)
        if pfn >= 0:
            return pfn
    else:
        boost(m, z, flags)
    count_fallback(m, z)
    return take_first(m, z, order, found, other, other)


@inner
def fallback_claim(m, z, order, mt, min_order, flags):
    """Generation C, first phase (``__rmqueue_claim``): whole blocks, largest first. -1 when none can be claimed."""
    for found in range(MAX_PAGE_ORDER, min_order - 1, -1):
        if not may_claim(found, mt):
            return -1
        other = find_fallback(m, z, found, mt)
        if other >= 0:
            pfn = claim_block(m, z, order, found, other, mt, flags)
            if pfn >= 0:
                return pfn
    return -1


@inner
def fallback_steal(m, z, order, mt):
    """Generation C, second phase (``__rmqueue_steal``): the smallest foreign piece. -1 when there is none."""
    for found in range(order, NR_PAGE_ORDERS):
        other = find_fallback(m, z, found, mt)
        if other >= 0:
            count_fallback(m, z)
            return take_first(m, z, order, found, other, other)
    return -1


@inner
def least_order(m, order, flags):
    """Order below which foreign blocks are left alone. Up to 5.17 NOFRAGMENT says a pageblock even to larger orders."""
    if flags & ALLOC_NOFRAGMENT and (order < PAGEBLOCK_ORDER or not m.w[CFG_FROM_FREED]):
        return PAGEBLOCK_ORDER
    return order


@inner
def rmqueue_a(m, z, order, mt, flags, cma):
    """``__rmqueue`` of generation A: after each steal the own lists are looked at again. -1 when nothing is left."""
    while True:
        pfn = rmqueue_smallest(m, z, order, mt)
        if pfn < 0 and cma:
            pfn = rmqueue_smallest(m, z, order, MIGRATE_CMA)
        if pfn >= 0:
            return pfn
        found = find_single_phase(m, z, order, mt, least_order(m, order, flags))
        if found < 0:
            return -1
        steal_to_own(m, z, found, find_fallback(m, z, found, mt), mt, flags)


@inner
def rmqueue_c(m, z, order, mt, flags, mode, cma):
    """``__rmqueue`` of generation C: phases that gave nothing are not tried again in one hold of the zone lock."""
    if mode == MODE_NORMAL:
        pfn = rmqueue_smallest(m, z, order, mt)
        if pfn >= 0:
            return pfn, MODE_NORMAL
    if mode <= MODE_CMA and cma:
        pfn = rmqueue_smallest(m, z, order, MIGRATE_CMA)
        if pfn >= 0:
            return pfn, MODE_CMA
    if mode <= MODE_CLAIM:
        pfn = fallback_claim(m, z, order, mt, least_order(m, order, flags), flags)
        if pfn >= 0:
            return pfn, MODE_NORMAL
    if not flags & ALLOC_NOFRAGMENT:
        pfn = fallback_steal(m, z, order, mt)
        if pfn >= 0:
            return pfn, MODE_STEAL
    return -1, MODE_NORMAL


@inner
def rmqueue_unmapped(m, z, order, flags):
    """A block of MIGRATE_UNMAPPED: its own lists, then whole pageblocks of other types (strategies.md 6.5). Or -1.

    The largest foreign block, of UNMOVABLE before RECLAIMABLE before MOVABLE; its pageblock changes its type whatever
    else is in use there, and all of its free pages move. The direct-map entry is split when the first page of it leaves
    the map, not here.
    """
    pfn = rmqueue_smallest(m, z, order, MIGRATE_UNMAPPED)
    if pfn >= 0:
        return pfn
    for found in range(MAX_PAGE_ORDER, least_order(m, order, flags) - 1, -1):
        other = find_fallback(m, z, found, MIGRATE_UNMAPPED)
        if other < 0:
            continue
        pfn = first(m.pg, buddy_head(z, found, other)) - m.w[CFG_NODES]
        if found < PAGEBLOCK_ORDER:
            start = first_to_move(m, z, pfn)
            if start < 0:
                continue
            boost(m, z, flags)
            move_block(m, z, start, MIGRATE_UNMAPPED)
            m.pb[(pfn >> PAGEBLOCK_ORDER) * B_WORDS + B_TYPE] = MIGRATE_UNMAPPED
            pfn = rmqueue_smallest(m, z, order, MIGRATE_UNMAPPED)
        else:
            retype(m, pfn, found, MIGRATE_UNMAPPED)
            pfn = take_first(m, z, order, found, other, MIGRATE_UNMAPPED)
        count_fallback(m, z)
        count_block_move(m, z)
        return pfn
    return -1


@entry(Machine, int, int, int, int, int)
def rmqueue(m, z, order, mt, flags, mode):
    """One block from the buddy lists (``__rmqueue``): own type first, then fallback.

    ``flags`` are ALLOC_* of the request; ``mode`` is the state that generation C keeps during one hold of the zone
    lock. Returns (frame or -1, mode).
    """
    if mt == MIGRATE_UNMAPPED:
        return rmqueue_unmapped(m, z, order, flags), MODE_NORMAL
    cma = flags & ALLOC_CMA != 0 and m.w[z * Z_WORDS + Z_CMA] > 0
    if cma and pages_of_type(m, z, MIGRATE_CMA) > m.w[z * Z_WORDS + Z_FREE] // 2:
        pfn = rmqueue_smallest(m, z, order, MIGRATE_CMA)
        if pfn >= 0:
            return pfn, mode
    if m.w[CFG_CLAIM_STEAL]:
        return rmqueue_c(m, z, order, mt, flags, mode, cma)
    if not m.w[CFG_KEEPS_TYPE]:
        return rmqueue_a(m, z, order, mt, flags, cma), MODE_NORMAL
    pfn = rmqueue_smallest(m, z, order, mt)
    if pfn < 0 and cma:
        pfn = rmqueue_smallest(m, z, order, MIGRATE_CMA)
    if pfn < 0:
        pfn = fallback_b(m, z, order, mt, least_order(m, order, flags), flags)
    return pfn, MODE_NORMAL
