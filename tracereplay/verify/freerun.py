"""The twin left to itself: allocations and frees are recorded, where a page comes from is the machine's own affair.

No frame of a refill is told, and drains go to the machine's own buddy lists. The share of frames that are right all
the same says how much the order of the free lists, which is readable nowhere, decides. A recorded frame that the
machine had not at the head of its list changes places with the one that it had.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner, kernel
from tracereplay.kernel.constants import MIGRATE_MOVABLE, MIGRATE_PCPTYPES
from tracereplay.machine.buddy import (
    block_type,
    free_one_page,
    get_info,
    info_type,
    note_movable,
    set_info,
    zone_of,
)
from tracereplay.machine.layout import (
    CFG_CPUS,
    CFG_NODES,
    CFG_ZONES,
    HELD,
    INFO_CPU_SHIFT,
    INFO_ORDER,
    INFO_STATE,
    INFO_TYPE_SHIFT,
    P_COUNT,
    P_WORDS,
    PCP,
    PCP_LISTS,
    USED,
    Z_NOFRAGMENT,
    Z_WORDS,
)
from tracereplay.machine.lists import first, remove
from tracereplay.machine.page_free import free_to_buddy
from tracereplay.machine.pcp import note_pcp_alloc, pcp_head, pcp_holds, pcp_index, pcp_push, refill
from tracereplay.machine.vmstat import decay
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.verify import layout as at
from tracereplay.verify.displace import IN_BUDDY, ON_LIST, SINCE_BEFORE, cpu_of, free_block_with, take_anywhere

ALLOC, FREE = PAGE_KINDS.index("alloc"), PAGE_KINDS.index("free")


@inner
def fill(m, z, p, cpu, order, mt, head):
    """A refill from the machine's own buddy lists; its pages carry their CPU, so that each is found again."""
    refill(m, z, p, order, mt, m.w[z * Z_WORDS + Z_NOFRAGMENT])
    node = first(m.pg, head)
    while node != head:
        pfn = node - m.w[CFG_NODES]
        set_info(m, pfn, get_info(m, pfn) | (cpu << INFO_CPU_SHIFT))
        node = first(m.pg, node)


@inner
def change_places(m, z, p, pfn, order, head):
    """The kernel handed out ``pfn``, the machine would have handed out the head of its list."""
    top = first(m.pg, head)
    info = get_info(m, pfn)
    where = take_anywhere(m, z, pfn, order, -1)
    if top == head or (where == ON_LIST and same_list(m, info, p, head)):
        return  # it leaves the list that it was on: the count is right
    other = top - m.w[CFG_NODES]
    remove(m.pg, top)
    set_info(m, other, HELD)
    m.w[p * P_WORDS + P_COUNT] -= 1 << order
    if where == IN_BUDDY:
        free_one_page(m, z, other, order, block_type(m, other), False)


@inner
def same_list(m, info, p, head):
    """Whether an info word of a block on a per-CPU list names the list ``head`` of page set ``p``."""
    return (
        cpu_of(info) == p % m.w[CFG_CPUS] and pcp_head(m, p, pcp_index(m, info & INFO_ORDER, info_type(info))) == head
    )


@inner
def alloc(m, v, cpu, pfn, order, mt):
    """A recorded allocation: would the machine have handed out this frame?"""
    z = zone_of(m, pfn)
    if z < 0:
        return
    if pcp_holds(m, order):
        p = z * m.w[CFG_CPUS] + cpu
        index = pcp_index(m, order, mt)
        head = pcp_head(m, p, index)
        flag = v[at.VC_ELIGIBLE] + p * PCP_LISTS + index
        note_pcp_alloc(m, p)
        if first(m.pg, head) == head:
            fill(m, z, p, cpu, order, mt, head)
            v[flag] = 1
        v[at.PCP_ALLOCS] += 1
        v[at.ELIGIBLE] += v[flag]
        if first(m.pg, head) == m.w[CFG_NODES] + pfn:
            remove(m.pg, m.w[CFG_NODES] + pfn)
            m.w[p * P_WORDS + P_COUNT] -= 1 << order
            if get_info(m, pfn) & SINCE_BEFORE == 0:
                v[at.EXACT] += v[flag]
        else:
            change_places(m, z, p, pfn, order, head)
    else:
        take_anywhere(m, z, pfn, order, -1)
    set_info(m, pfn, USED | (cpu << INFO_CPU_SHIFT) | (mt << INFO_TYPE_SHIFT) | order)
    if mt == MIGRATE_MOVABLE:
        note_movable(m, pfn, order, 1)


@inner
def free(m, v, cpu, pfn, order):
    """A recorded free: the machine's own."""
    z = zone_of(m, pfn)
    if z < 0:
        return
    info = get_info(m, pfn)
    if info & INFO_STATE == USED:
        if info_type(info) == MIGRATE_MOVABLE:
            note_movable(m, pfn, info & INFO_ORDER, -1)
        set_info(m, pfn, HELD)
    elif info & INFO_STATE != HELD or free_block_with(m, pfn) >= 0:
        take_anywhere(m, z, pfn, order, -1)
    if not pcp_holds(m, order):
        free_to_buddy(m, z, pfn, order)
        return
    mt = block_type(m, pfn)
    if mt >= MIGRATE_PCPTYPES:
        mt = MIGRATE_MOVABLE
    p = z * m.w[CFG_CPUS] + cpu
    v[v[at.VC_ELIGIBLE] + p * PCP_LISTS + pcp_index(m, order, mt)] = 1
    pcp_push(m, z, p, pfn, order, mt)
    info = get_info(m, pfn)
    if info & INFO_STATE == PCP:
        set_info(m, pfn, info | (cpu << INFO_CPU_SHIFT))


@kernel
def run_free(m, v, controls, ts, cpus, kinds, pfns, orders, types):
    """Feed a batch of events to the machine left to itself. Columns as of ``loop.run_events``."""
    last_cpu = m.w[CFG_CPUS] - 1
    i_control = v[at.VC_CONTROL]
    for i in range(ts.shape[0]):
        cpu, kind = int(cpus[i]), int(kinds[i])
        while i_control < controls.shape[0] and controls[i_control, 0] <= ts[i]:
            if controls[i_control, 1] == at.CTL_TICK:
                for z in range(m.w[CFG_ZONES]):
                    decay(m, z, z * m.w[CFG_CPUS] + controls[i_control, 2])
            i_control += 1
        if cpu > last_cpu:
            continue
        if kind == ALLOC:
            alloc(m, v, cpu, int(pfns[i]), int(orders[i]), int(types[i]))
        elif kind == FREE:
            free(m, v, cpu, int(pfns[i]), int(orders[i]))
    v[at.VC_CONTROL] = i_control
