"""Takes a block out of wherever the twin has it: a per-CPU list, the buddy lists, a drain that was held back.

The kernel's events name frames; where the twin has such a frame elsewhere, it is moved (architecture.md 3: the twin
check). A page on a per-CPU list carries its CPU in its info word, so that its list is found without a search.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import MAX_PAGE_ORDER, NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.machine.buddy import block_type, get_info, info_type, put_free, set_info, take_free, zone_of
from tracereplay.machine.fallback import move_block
from tracereplay.machine.layout import (
    B_TYPE,
    B_WORDS,
    BUDDY,
    CACHED,
    CFG_CPUS,
    CFG_KEEPS_TYPE,
    CFG_NODES,
    HELD,
    INFO_CPU_SHIFT,
    INFO_ORDER,
    INFO_STATE,
    NF,
    NR_TYPES,
    P_COUNT,
    P_WORDS,
    PCP,
    Z_FREE,
    Z_WORDS,
)
from tracereplay.machine.lists import remove
from tracereplay.machine.pcp import pcp_index
from tracereplay.verify.layout import RS, RS_BLOCK_TYPE

SINCE_BEFORE = 0x80
"""Bit of an info word: a page that lay on its per-CPU list when the trace began."""
TRANSIT = 0x500
"""State of a block between its event and its list: a free that waits for its push, a block of a run."""
NOWHERE, ON_LIST, IN_BUDDY, HELD_BACK = range(4)


@hot
def cpu_of(info):
    """CPU in an info word."""
    return (info >> INFO_CPU_SHIFT) & 0xFFFF


@hot
def list_of(m, info):
    """Number of the per-CPU list that an info word of a block on one names."""
    return pcp_index(m, info & INFO_ORDER, info_type(info))


@inner
def take_from_list(m, pfn, info):
    """Take a block off its per-CPU list."""
    remove(m.pg, m.w[CFG_NODES] + pfn)
    set_info(m, pfn, HELD)
    p = zone_of(m, pfn) * m.w[CFG_CPUS] + cpu_of(info)
    m.w[p * P_WORDS + P_COUNT] -= 1 << (info & INFO_ORDER)


@hot
def free_block_with(m, pfn):
    """First frame of the free block that a frame lies in; -1 when it is not free."""
    for order in range(NR_PAGE_ORDERS):
        head = pfn & ~((1 << order) - 1)
        info = get_info(m, head)
        if info & INFO_STATE == BUDDY and info & INFO_ORDER >= order:
            return head if pfn < head + (1 << (info & INFO_ORDER)) else -1
    return -1


@inner
def extract(m, z, pfn, order, leftovers):
    """Take a block out of the free block that holds it, as ``expand`` leaves the rest: upper halves at list heads.

    ``leftovers``: migratetype of the lists for the rest; -1: that of the block.
    """
    head = free_block_with(m, pfn)
    info = get_info(m, head)
    high, mt = info & INFO_ORDER, info_type(info)
    take_free(m, z, head, high, mt)
    if leftovers >= 0:
        mt = leftovers
    m.w[z * Z_WORDS + Z_FREE] -= 1 << order
    while high > order:
        high -= 1
        if pfn & (1 << high):
            put_free(m, z, head, high, mt, False)
            head += 1 << high
        else:
            put_free(m, z, head + (1 << high), high, mt, False)


@inner
def take_pieces(m, z, pfn, order):
    """Take what is free or on lists within a block that the twin does not have whole. Returns whether there was any."""
    found = False
    end = pfn + (1 << order)
    while pfn < end:
        info = get_info(m, pfn)
        state, pages = info & INFO_STATE, 1 << (info & INFO_ORDER)
        if state == BUDDY:
            take_free(m, z, pfn, info & INFO_ORDER, info_type(info))
            m.w[z * Z_WORDS + Z_FREE] -= pages
        elif state == PCP:
            take_from_list(m, pfn, info)
        else:
            set_info(m, pfn, HELD)
            pfn += 1
            continue
        found = True
        pfn += pages
    return found


@inner
def take_anywhere(m, z, pfn, order, leftovers):
    """Take a block from wherever the twin has it. Returns where that was; NOWHERE: it was in use."""
    info = get_info(m, pfn)
    if info & INFO_STATE == PCP and info & INFO_ORDER >= order:
        take_from_list(m, pfn, info)
        return ON_LIST
    if info & INFO_STATE == CACHED or info & INFO_STATE == TRANSIT:
        set_info(m, pfn, HELD)
        return HELD_BACK
    head = free_block_with(m, pfn)
    if head >= 0 and get_info(m, head) & INFO_ORDER >= order:
        extract(m, z, pfn, order, leftovers)
        return IN_BUDDY
    if order > 0 and take_pieces(m, z, pfn, order):
        return IN_BUDDY
    set_info(m, pfn, HELD)
    return NOWHERE


@inner
def own_lists_empty(m, z, order, mt):
    """Whether no free block of this type is large enough: the kernel would fall back to another type."""
    for o in range(order, NR_PAGE_ORDERS):  # noqa: SIM110 -- compiled code has no generators
        if m.w[NF + (z * NR_PAGE_ORDERS + o) * NR_TYPES + mt] > 0:
            return False
    return True


@inner
def learn_type(m, v, z, pfn, order, mt):
    """Give a pageblock the type that an event names, since 6.10 with its free pages (every free page is on the list
    of its pageblock's type, page-allocator.md 4.4)."""
    if block_type(m, pfn) == mt:
        return
    v[RS + RS_BLOCK_TYPE] += 1
    last = max(pfn, pfn + (1 << order) - 1)
    for block in range(pfn >> PAGEBLOCK_ORDER, (last >> PAGEBLOCK_ORDER) + 1):
        m.pb[block * B_WORDS + B_TYPE] = mt
        if m.w[CFG_KEEPS_TYPE] and order < MAX_PAGE_ORDER:
            move_block(m, z, block << PAGEBLOCK_ORDER, mt)
