"""Refills and pops: what an allocation should find on its per-CPU list, and what the kernel found.

Events of blocks that leave the buddy lists come before the allocation that caused them and are kept as the CPU's
*run*. At the allocation the twin predicts from its lists alone whether there is a refill and how long it is
(``nr_pcp_alloc``); then the frames of the run, whose order on the buddy lists is readable nowhere, are put on the list.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE, MIGRATE_PCPTYPES, PAGEBLOCK_ORDER
from tracereplay.machine.buddy import (
    get_info,
    note_movable,
    set_info,
    zone_of,
)
from tracereplay.machine.layout import (
    CACHED,
    CFG_CPUS,
    CFG_NODES,
    CFG_PCP_RULE,
    CFG_SCALE_MAX,
    HELD,
    INFO_CPU_SHIFT,
    INFO_ORDER,
    INFO_STATE,
    INFO_TYPE_SHIFT,
    P_ALLOC_FACTOR,
    P_BATCH,
    P_COUNT,
    P_HIGH,
    P_HIGH_MAX,
    P_HIGH_MIN,
    P_WORDS,
    PCP,
    PCP_LISTS,
    USED,
    Z_BELOW_HIGH,
    Z_FREE,
    Z_HIGH,
    Z_WORDS,
)
from tracereplay.machine.lists import first, remove
from tracereplay.machine.pcp import note_pcp_alloc, pcp_head, pcp_holds, pcp_index
from tracereplay.machine.pcp_sizes import clamp, refill_blocks
from tracereplay.verify import layout as at
from tracereplay.verify.displace import (
    HELD_BACK,
    IN_BUDDY,
    ON_LIST,
    SINCE_BEFORE,
    cpu_of,
    learn_type,
    list_of,
    take_anywhere,
)
from tracereplay.verify.frees import push_all
from tracereplay.verify.journal import disagree
from tracereplay.verify.predictions import take_back_all
from tracereplay.verify.runs import FRAME_SHIFT, end_fallbacks, end_run, put_on_list


# ---------------------------------------------------------------- the allocation
@inner
def refill_list(m, v, z, cpu, pfn, order, mt):
    """A run before an allocation of a per-CPU order: the blocks of its list are a refill. Returns whether the page
    came straight from the buddy lists instead (the pcp lock was busy)."""
    c = cpu * at.C_WORDS
    n = v[c + at.C_RUN_N]
    p = z * m.w[CFG_CPUS] + cpu
    head = pcp_head(m, p, pcp_index(m, order, mt))
    empty = first(m.pg, head) == head
    wanted = (mt << 8) | order
    mine = 0
    for i in range(n):
        entry = v[at.C_RUN + c + i]
        if entry & 0xFFF == wanted and zone_of(m, entry >> FRAME_SHIFT) == z:
            mine += 1
    if mine == 1 and n == 1 and not empty and v[at.C_RUN + c] >> FRAME_SHIFT == pfn:
        v[c + at.C_RUN_N] = 0
        v[at.RS + at.RS_BUDDY_PATH] += 1
        end_fallbacks(v, cpu)
        return True
    if mine > 0:
        by = order * at.BY_WORDS
        v[at.REFILL_KERNEL] += 1
        v[by + at.BY_REFILL_KERNEL] += 1
        if empty:
            v[at.REFILL_TWIN] += 1
            v[by + at.BY_REFILL_TWIN] += 1
            blocks = refill_blocks(m, z, p, order)
            if blocks == mine:
                v[at.REFILL_MATCHED] += 1
                v[by + at.BY_REFILL_MATCHED] += 1
            else:
                v[at.REFILL_LENGTH] += 1
                disagree(v, at.DIS_REFILL_LENGTH, cpu, pfn, order, mt, mine, blocks)
                follow_refill(m, v, p, order, mine, blocks)
        else:
            surplus = 0
            while first(m.pg, head) != head:
                node = first(m.pg, head)
                remove(m.pg, node)
                set_info(m, node - m.w[CFG_NODES], HELD)
                m.w[p * P_WORDS + P_COUNT] -= 1 << order
                surplus += 1
            v[at.RS + at.RS_SURPLUS] += 1
            disagree(v, at.DIS_REFILL_MISSED, cpu, pfn, order, mt, mine, surplus)
            blocks = refill_blocks(m, z, p, order)
            if blocks != mine:
                follow_refill(m, v, p, order, mine, blocks)
    v[c + at.C_RUN_N] = 0
    for i in range(n):
        entry = v[at.C_RUN + c + i]
        if pcp_holds(m, entry & 0xF) and (entry >> 8) & 0xF < MIGRATE_PCPTYPES:
            frame = entry >> FRAME_SHIFT
            put_on_list(m, v, zone_of(m, frame), cpu, frame, entry & 0xF, (entry >> 8) & 0xF)
    end_fallbacks(v, cpu)
    return False


@inner
def follow_refill(m, v, p, order, kernel, twin):
    """Take over what a refill of another length shows of ``alloc_factor`` and ``high``."""
    if order > 0 or m.w[CFG_PCP_RULE] < 2:
        return
    w = p * P_WORDS
    v[at.RS + at.RS_REFILL_SIZE] += 1
    m.w[w + P_HIGH] = clamp(m.w[w + P_HIGH] + kernel - twin, m.w[w + P_HIGH_MIN], m.w[w + P_HIGH_MAX])
    factor = 0
    while m.w[w + P_BATCH] << factor < kernel and factor < m.w[CFG_SCALE_MAX]:
        factor += 1
    m.w[w + P_ALLOC_FACTOR] = min(factor + 1, m.w[CFG_SCALE_MAX])


@inner
def expect_refill(m, v, z, cpu, pfn, order, mt):
    """The list is empty and the kernel had no refill: the prediction counts, its effects are not kept."""
    p = z * m.w[CFG_CPUS] + cpu
    w = p * P_WORDS
    high, factor = m.w[w + P_HIGH], m.w[w + P_ALLOC_FACTOR]
    blocks = refill_blocks(m, z, p, order)
    m.w[w + P_HIGH], m.w[w + P_ALLOC_FACTOR] = high, factor
    v[at.REFILL_TWIN] += 1
    v[order * at.BY_WORDS + at.BY_REFILL_TWIN] += 1
    disagree(v, at.DIS_REFILL_FALSE, cpu, pfn, order, mt, blocks, get_info(m, pfn))


@inner
def pop_elsewhere(m, v, z, cpu, pfn, order, mt, head):
    """The kernel handed out another page than the head of the twin's list: bring the twin to where it is."""
    info = get_info(m, pfn)
    node = m.w[CFG_NODES] + pfn
    here = info & INFO_STATE == PCP and info & INFO_ORDER == order and cpu_of(info) == cpu
    if here and list_of(m, info) == pcp_index(m, order, mt):
        passed = 0
        while first(m.pg, head) != node:
            other = first(m.pg, head)
            remove(m.pg, other)
            set_info(m, other - m.w[CFG_NODES], HELD)
            m.w[(z * m.w[CFG_CPUS] + cpu) * P_WORDS + P_COUNT] -= 1 << order
            passed += 1
        take_anywhere(m, z, pfn, order, -1)
        v[at.RS + at.RS_PASSED] += 1
        disagree(v, at.DIS_POP, cpu, pfn, order, mt, passed, 0)
        return
    where = take_anywhere(m, z, pfn, order, -1)
    if where == ON_LIST:
        if cpu_of(info) != cpu:
            v[at.RS + at.RS_OTHER_CPU] += 1
        else:
            v[at.RS + at.RS_OTHER_TYPE] += 1
            if info & INFO_ORDER == order and order < PAGEBLOCK_ORDER:
                learn_type(m, v, z, pfn, order, mt)
    elif where == HELD_BACK:
        v[at.RS + at.RS_WITHHELD] += 1
    elif where == IN_BUDDY:
        v[at.RS + at.RS_FREE] += 1
    else:
        v[at.RS + at.RS_IN_USE] += 1
    disagree(v, at.DIS_ELSEWHERE, cpu, pfn, order, mt, where, info)


@hot
def on_alloc(m, v, cpu, pfn, order, mt):
    """``mm_page_alloc`` of a block: predict, compare, take over."""
    z = zone_of(m, pfn)
    if z < 0:
        v[at.OUTSIDE] += 1
        return
    zone = z * Z_WORDS
    if (
        m.w[zone + Z_FREE] - (1 << order) < m.w[zone + Z_HIGH]
        and m.w[CFG_PCP_RULE] == 2
        and not m.w[zone + Z_BELOW_HIGH]
    ):
        test_high(m, v, z, cpu, order)
    c = cpu * at.C_WORDS
    if pcp_holds(m, order):
        p = z * m.w[CFG_CPUS] + cpu
        index = pcp_index(m, order, mt)
        head = pcp_head(m, p, index)
        note_pcp_alloc(m, p)
        straight = False
        if v[c + at.C_RUN_N] > 0:
            straight = refill_list(m, v, z, cpu, pfn, order, mt)
        top = first(m.pg, head)
        if (
            v[c + at.C_OUT_N] > 0 and not straight and (top == head or get_info(m, pfn) & INFO_STATE == CACHED)
        ):  # the kernel still has what the twin drained
            take_back_all(m, v, cpu, p)
            top = first(m.pg, head)
        if top == head and not straight:
            expect_refill(m, v, z, cpu, pfn, order, mt)
        eligible = v[v[at.VC_ELIGIBLE] + p * PCP_LISTS + index]
        by = order * at.BY_WORDS
        v[by + at.BY_ALLOCS] += 1
        v[by + at.BY_ELIGIBLE] += eligible
        if straight:
            pass  # its zone_locked event took it
        elif top == m.w[CFG_NODES] + pfn:
            remove(m.pg, top)
            m.w[p * P_WORDS + P_COUNT] -= 1 << order
            if get_info(m, pfn) & SINCE_BEFORE:
                v[at.INITIAL_POPS] += 1
            else:
                v[by + at.BY_EXACT] += eligible
        else:
            pop_elsewhere(m, v, z, cpu, pfn, order, mt, head)
    else:
        alloc_from_buddy(m, v, z, cpu, pfn, order)
    set_info(m, pfn, USED | (cpu << INFO_CPU_SHIFT) | (mt << INFO_TYPE_SHIFT) | order)
    if mt == MIGRATE_MOVABLE:
        note_movable(m, pfn, order, 1)


@inner
def alloc_from_buddy(m, v, z, cpu, pfn, order):
    """An allocation of an order that lists do not hold: its zone_locked event took it out of the buddy lists."""
    c = cpu * at.C_WORDS
    if v[c + at.C_RUN_N] == 1 and v[at.C_RUN + c] >> FRAME_SHIFT == pfn:
        v[c + at.C_RUN_N] = 0
        end_fallbacks(v, cpu)
        return
    if v[c + at.C_RUN_N] > 0:
        end_run(m, v, cpu)
    where = take_anywhere(m, z, pfn, order, -1)
    if where in (ON_LIST, HELD_BACK):
        v[at.RS + at.RS_OTHER_TYPE] += 1
    elif where == IN_BUDDY:  # compaction captured it, or its event is missing
        v[at.RS + at.RS_FREE] += 1
    else:
        v[at.RS + at.RS_IN_USE] += 1


@inner
def test_high(m, v, z, cpu, order):
    """The HIGH watermark test before a pop, with the free pages before its refill (``get_page_from_freelist``)."""
    if m.w[z * Z_WORDS + Z_BELOW_HIGH]:
        return
    c = cpu * at.C_WORDS
    pages = 0
    for i in range(v[c + at.C_RUN_N]):
        entry = v[at.C_RUN + c + i]
        if zone_of(m, entry >> FRAME_SHIFT) == z:
            pages += 1 << (entry & 0xF)
    if m.w[z * Z_WORDS + Z_FREE] + pages - (1 << order) + 1 <= m.w[z * Z_WORDS + Z_HIGH]:
        for other in range(m.w[CFG_CPUS]):  # frees that wait came before, and drain at another count
            push_all(m, v, other)
        m.w[z * Z_WORDS + Z_BELOW_HIGH] = 1
