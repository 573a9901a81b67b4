"""Free entries: to the per-CPU lists or the buddy lists; pages in use since before the replay (page-allocator.md 6).

Mimics ``__free_pages``, ``free_unref_page`` and ``free_one_page`` of mm/page_alloc.c.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, hot, inner
from tracereplay.kernel.constants import (
    MIGRATE_MOVABLE,
    NR_PAGE_ORDERS,
    PAGEBLOCK_ORDER,
)
from tracereplay.machine.buddy import (
    block_type,
    free_one_page,
    get_info,
    note_movable,
    set_info,
    zone_of,
)
from tracereplay.machine.cache import cache_put
from tracereplay.machine.counters import (
    CACHE_LOCKS,
    FREE_CALLS,
    FREES_BUDDY,
    PAGES_FREED,
    REMOTE_FREES,
    TAIL_PAGES_CHECKED,
)
from tracereplay.machine.holds import note_hold, zone_lock, zone_unlock
from tracereplay.machine.layout import (
    B_MAP,
    B_MOVABLE,
    B_WORDS,
    CAPTURED_LIST,
    CFG_FRAMES,
    CFG_HELD_CURSOR,
    CFG_KEEPS_TYPE,
    CFG_ZONES,
    ERROR_BAD_FREE,
    ERROR_OUTSIDE,
    H_FREES,
    HELD,
    INFO_CPU_SHIFT,
    INFO_ORDER,
    INFO_STATE,
    INFO_TYPE_SHIFT,
    MAP_CAPTURE,
    USED,
    Z_START,
    Z_WORDS,
    Machine,
)
from tracereplay.machine.misuse import report_error
from tracereplay.machine.page_prep import check_freed
from tracereplay.machine.pcp import pcp_holds, pcp_index_of_cpu, pcp_lock, pcp_push
from tracereplay.machine.reserve import reserve_add


@entry(Machine, int, int, int)
def free_to_buddy(m, z, pfn, order):
    """Free a block straight to the buddy lists (``free_one_page``): since 6.10 pageblock by pageblock."""
    set_info(m, pfn, HELD)
    m.c[FREES_BUDDY] += 1
    zone_lock(m, z)
    note_hold(m, z, H_FREES, 1)
    if order > PAGEBLOCK_ORDER and m.w[CFG_KEEPS_TYPE]:  # split_large_buddy
        for piece in range(pfn, pfn + (1 << order), 1 << PAGEBLOCK_ORDER):
            free_one_page(m, z, piece, PAGEBLOCK_ORDER, block_type(m, piece), False)
    else:
        free_one_page(m, z, pfn, order, block_type(m, pfn), False)
    zone_unlock(m, z)


@entry(Machine, int, int)
def free_to_tail(m, pfn, order):
    """Free a block past the per-CPU lists, to the tails of the buddy lists (FPI_TO_TAIL), pageblock by pageblock.

    For those who give back what they held back: no call of ``free_pages``, and no pageblock captures it.
    """
    set_info(m, pfn, HELD)
    m.c[PAGES_FREED] += 1 << order
    for piece in range(pfn, pfn + (1 << order), 1 << min(order, PAGEBLOCK_ORDER)):
        m.c[FREES_BUDDY] += 1
        z = zone_of(m, piece)
        zone_lock(m, z)
        note_hold(m, z, H_FREES, 1)
        free_one_page(m, z, piece, min(order, PAGEBLOCK_ORDER), block_type(m, piece), True)
        zone_unlock(m, z)


@inner
def capture_frees(m, pfn, on):
    """Have frees in a frame's pageblock go to CAPTURED_LIST from now on, or no longer."""
    at = (pfn >> PAGEBLOCK_ORDER) * B_WORDS + B_MAP
    m.pb[at] = m.pb[at] | MAP_CAPTURE if on else m.pb[at] & ~MAP_CAPTURE


@entry(Machine, int, int)
def capture(m, pfn, order):
    """Keep a freed block for the strategy that owns its pageblock, in its reserve, under a hold of its lock."""
    m.c[CACHE_LOCKS] += 1
    reserve_add(m, 1 << order)
    cache_put(m, CAPTURED_LIST, pfn, order, True)


@hot
def free_prepared(m, z, cpu, pfn, order):
    """Second half of a free: to the pcp lists where they hold the order and type, else to the buddy lists.

    Or to a strategy whose pageblock it is: the hook that such a cache has in ``free_pages_prepare``.
    """
    if m.pb[(pfn >> PAGEBLOCK_ORDER) * B_WORDS + B_MAP] & MAP_CAPTURE:
        capture(m, pfn, order)
        return
    m.c[PAGES_FREED] += 1 << order
    if order > 0:
        m.c[TAIL_PAGES_CHECKED] += (1 << order) - 1
    check_freed(m, 1 << order)
    if pcp_holds(m, order):
        mt = block_type(m, pfn)
        p = pcp_index_of_cpu(m, z, cpu)
        pcp_lock(m, p)
        pcp_push(m, z, p, pfn, order, mt)
    else:
        free_to_buddy(m, z, pfn, order)


@hot
def free_pages_here(m, cpu, pfn, order):
    """``free_pages``, inlined: for the one place where every event passes."""
    z = zone_of(m, pfn)
    if z < 0:
        report_error(m, ERROR_OUTSIDE, pfn)
        return
    info = get_info(m, pfn)
    if info & (INFO_STATE | INFO_ORDER) != USED | order:
        report_error(m, ERROR_BAD_FREE, pfn)
        return
    m.c[FREE_CALLS] += 1
    if info >> INFO_CPU_SHIFT != cpu:
        m.c[REMOTE_FREES] += 1
    if (info >> INFO_TYPE_SHIFT) & 7 == MIGRATE_MOVABLE:
        note_movable(m, pfn, order, -1)
    free_prepared(m, z, cpu, pfn, order)


@entry(Machine, int, int, int)
def free_pages(m, cpu, pfn, order):
    """Free a block that the machine handed out (``__free_pages``). A bad free is reported and changes nothing."""
    free_pages_here(m, cpu, pfn, order)


@inner
def is_held(m, pfn, order):
    """Whether an aligned block of this order is wholly in use since before the replay."""
    z = zone_of(m, pfn)
    if z < 0 or zone_of(m, pfn + (1 << order) - 1) != z or pfn & ((1 << order) - 1):
        return False
    for f in range(pfn, pfn + (1 << order)):
        if get_info(m, f) != HELD:
            return False
    for o in range(1, NR_PAGE_ORDERS):  # not inside a larger free, per-CPU, used or cached block
        head = pfn & ~((1 << o) - 1)
        info = get_info(m, head)
        if head != pfn and info & INFO_STATE != HELD and info & INFO_ORDER >= o:
            return False
    return True


@entry(Machine, int, int, int)
def free_held(m, cpu, pfn, order):
    """Free a block in use since before the replay: that of the trace where the machine holds it, else another.

    Initial placement is not known frame by frame, so the block that the trace frees may be free here already; then
    the next held block of the order stands for it. Returns the frame freed, or -1 when no such block is held.
    """
    if not is_held(m, pfn, order):
        pfn = next_held(m, order)
        if pfn < 0:
            return -1
    m.c[FREE_CALLS] += 1
    for block in range(pfn >> PAGEBLOCK_ORDER, (pfn + (1 << order) - 1 >> PAGEBLOCK_ORDER) + 1):
        at = block * B_WORDS + B_MOVABLE
        m.pb[at] = max(0, m.pb[at] - min(1 << order, 1 << PAGEBLOCK_ORDER))
    free_prepared(m, zone_of(m, pfn), cpu, pfn, order)
    return pfn


@inner
def next_held(m, order):
    """The next held block of an order, from the highest zone's start on, each looked at once. -1 at the end."""
    total = m.w[CFG_FRAMES] >> order
    start = m.w[(m.w[CFG_ZONES] - 1) * Z_WORDS + Z_START] >> order
    while m.w[CFG_HELD_CURSOR + order] < total:
        pfn = ((start + m.w[CFG_HELD_CURSOR + order]) % total) << order
        m.w[CFG_HELD_CURSOR + order] += 1
        if is_held(m, pfn, order):
            return pfn
    return -1
