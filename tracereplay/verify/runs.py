"""A CPU's run: the blocks that left the buddy lists under the zone lock since its last allocation.

Their events come before the allocation that caused them, and fallbacks with them; what the allocation makes of its run
is in refills.py. A run that no allocation follows lies on the CPU's lists, or was handed out unseen.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE, MIGRATE_PCPTYPES, PAGEBLOCK_ORDER
from tracereplay.machine.buddy import (
    block_type,
    get_info,
    info_type,
    put_free,
    set_info,
    take_free,
    zone_of,
)
from tracereplay.machine.fallback import move_block
from tracereplay.machine.layout import (
    B_TYPE,
    B_WORDS,
    BUDDY,
    CFG_CPUS,
    CFG_KEEPS_TYPE,
    CFG_NODES,
    INFO_CPU_SHIFT,
    INFO_ORDER,
    INFO_STATE,
    INFO_TYPE_SHIFT,
    P_COUNT,
    P_WORDS,
    PCP,
    PCP_LISTS,
)
from tracereplay.machine.lists import add_tail
from tracereplay.machine.pcp import pcp_head, pcp_holds, pcp_index
from tracereplay.verify import layout as at
from tracereplay.verify.displace import (
    HELD_BACK,
    NOWHERE,
    ON_LIST,
    TRANSIT,
    learn_type,
    own_lists_empty,
    take_anywhere,
)
from tracereplay.verify.journal import disagree

FRAME_SHIFT = 12
"""A run's entry: frame << 12 | migratetype << 8 | order."""


@inner
def left_buddy(m, v, cpu, z, pfn, order, mt, leftovers):
    """A block left the buddy lists under the zone lock: take it out of the twin's, append it to the CPU's run."""
    c = cpu * at.C_WORDS
    where = take_anywhere(m, z, pfn, order, leftovers)
    if where in (ON_LIST, HELD_BACK):
        v[at.RS + at.RS_REFILL_ON_LIST] += 1
    elif where == NOWHERE:
        v[at.RS + at.RS_REFILL_IN_USE] += 1
    if v[c + at.C_RUN_N] == at.RUN_ROOM:
        end_run(m, v, cpu)
    set_info(m, pfn, TRANSIT)
    v[at.C_RUN + c + v[c + at.C_RUN_N]] = (pfn << FRAME_SHIFT) | (mt << 8) | order
    v[c + at.C_RUN_N] += 1


@inner
def on_zone_locked(m, v, cpu, pfn, order, mt):
    """``mm_page_alloc_zone_locked``: a block of the list of ``mt`` left the buddy lists."""
    z = zone_of(m, pfn)
    if z < 0:
        v[at.OUTSIDE] += 1
        return
    c = cpu * at.C_WORDS
    if own_lists_empty(m, z, order, mt):
        v[c + at.C_RUN_TWIN_EXTFRAG] += 1
    if m.w[CFG_KEEPS_TYPE]:
        learn_type(m, v, z, pfn, order, mt)
    left_buddy(m, v, cpu, z, pfn, order, mt, -1 if m.w[CFG_KEEPS_TYPE] else mt)


@inner
def on_extfrag(m, v, cpu, pfn, order, mt, fallback_order, fallback_mt, changed):
    """``mm_page_alloc_extfrag``: a request of type ``mt`` was served from a block of another type.

    Since 6.10 its frame is the page handed out, and no zone_locked event follows unless a whole pageblock was claimed;
    before, it is the start of the block that was found, and zone_locked names the page (page-allocator.md 7.2).
    """
    z = zone_of(m, pfn)
    if z < 0:
        v[at.OUTSIDE] += 1
        return
    c = cpu * at.C_WORDS
    v[c + at.C_RUN_KERNEL_EXTFRAG] += 1
    block = pfn >> PAGEBLOCK_ORDER
    if not m.w[CFG_KEEPS_TYPE]:
        if changed or fallback_order >= PAGEBLOCK_ORDER:
            for b in range(block, block + max(1, (1 << fallback_order) >> PAGEBLOCK_ORDER)):
                m.pb[b * B_WORDS + B_TYPE] = mt
        bring_foreign(m, v, cpu, z, pfn, order, mt, fallback_order)
        return
    if changed and fallback_order < PAGEBLOCK_ORDER:
        m.pb[block * B_WORDS + B_TYPE] = mt
        move_block(m, z, block << PAGEBLOCK_ORDER, mt)
        return  # the page itself came from the requester's list, with a zone_locked event before this one
    if own_lists_empty(m, z, order, mt):
        v[c + at.C_RUN_TWIN_EXTFRAG] += 1
    if changed:
        first_block = (pfn & ~((1 << fallback_order) - 1)) >> PAGEBLOCK_ORDER
        for b in range(first_block, first_block + ((1 << fallback_order) >> PAGEBLOCK_ORDER)):
            m.pb[b * B_WORDS + B_TYPE] = mt
    elif block_type(m, pfn) != fallback_mt:
        learn_type(m, v, z, pfn, order, fallback_mt)
    left_buddy(m, v, cpu, z, pfn, order, mt, mt if changed else -1)


@inner
def bring_foreign(m, v, cpu, z, pfn, order, mt, fallback_order):
    """What a fallback up to 6.9 brings to the requester's lists (``steal_suitable_fallback``): all free blocks of the
    pageblock where the kernel may take it whole (``can_steal_fallback``), if its type changes or not; else the block
    found."""
    called_for = own_lists_empty(m, z, order, mt)
    if fallback_order < PAGEBLOCK_ORDER and (mt != MIGRATE_MOVABLE or fallback_order >= PAGEBLOCK_ORDER // 2):
        move_block(m, z, pfn >> PAGEBLOCK_ORDER << PAGEBLOCK_ORDER, mt)
    else:
        info = get_info(m, pfn)
        if info & INFO_STATE == BUDDY:
            take_free(m, z, pfn, info & INFO_ORDER, info_type(info))
            put_free(m, z, pfn, info & INFO_ORDER, mt, True)
    if called_for and not own_lists_empty(m, z, order, mt):  # else it counts at the zone_locked event
        v[cpu * at.C_WORDS + at.C_RUN_TWIN_EXTFRAG] += 1


@inner
def put_on_list(m, v, z, cpu, pfn, order, mt):
    """Append a block of a run to a per-CPU list, unless another event has named it since."""
    if get_info(m, pfn) & INFO_STATE != TRANSIT:
        return
    p = z * m.w[CFG_CPUS] + cpu
    index = pcp_index(m, order, mt)
    set_info(m, pfn, PCP | (cpu << INFO_CPU_SHIFT) | (mt << INFO_TYPE_SHIFT) | order)
    add_tail(m.pg, pcp_head(m, p, index), m.w[CFG_NODES] + pfn)
    m.w[p * P_WORDS + P_COUNT] += 1 << order
    v[v[at.VC_ELIGIBLE] + p * PCP_LISTS + index] = 1


@inner
def end_run(m, v, cpu):
    """A run that no allocation followed: its blocks lie on the lists of the CPU, or were handed out unseen."""
    c = cpu * at.C_WORDS
    n = v[c + at.C_RUN_N]
    v[c + at.C_RUN_N] = 0
    for i in range(n):
        entry = v[at.C_RUN + c + i]
        pfn, order, mt = entry >> FRAME_SHIFT, entry & 0xF, (entry >> 8) & 0xF
        if pcp_holds(m, order) and mt < MIGRATE_PCPTYPES:
            put_on_list(m, v, zone_of(m, pfn), cpu, pfn, order, mt)
    if n > 1:
        v[at.REFILL_ALONE] += 1
        v[at.REFILL_KERNEL] += 1
        v[at.RS + at.RS_REFILL_ALONE] += 1
    end_fallbacks(v, cpu)


@inner
def end_fallbacks(v, cpu):
    """Compare the fallbacks of a run with those that the twin's lists called for."""
    c = cpu * at.C_WORDS
    kernel, twin = v[c + at.C_RUN_KERNEL_EXTFRAG], v[c + at.C_RUN_TWIN_EXTFRAG]
    if kernel + twin > 0:
        v[at.EXTFRAG_KERNEL] += kernel
        v[at.EXTFRAG_TWIN] += twin
        v[at.EXTFRAG_MATCHED] += min(kernel, twin)
        v[c + at.C_RUN_KERNEL_EXTFRAG] = 0
        v[c + at.C_RUN_TWIN_EXTFRAG] = 0
        if kernel != twin:
            disagree(v, at.DIS_EXTFRAG, cpu, 0, kernel, twin, 0, 0)
