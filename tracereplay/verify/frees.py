"""Frees: pushed onto the per-CPU lists when the kernel pushed them, which for a batch is later than their events.

``free_unref_folios`` emits mm_page_free for all pages of a batch and then, page by page, mm_page_free_batched and the
push (page-allocator.md section 6). So frees wait: a batched event pushes those up to its page, a drain those up to
the free that triggered it, any other event of the CPU all of them.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE, MIGRATE_PCPTYPES
from tracereplay.machine.buddy import block_type, get_info, info_type, note_movable, set_info, zone_of
from tracereplay.machine.layout import (
    CFG_CPUS,
    HELD,
    INFO_CPU_SHIFT,
    INFO_ORDER,
    INFO_STATE,
    P_COUNT,
    P_WORDS,
    PCP_LISTS,
    USED,
    Z_BELOW_HIGH,
    Z_WORDS,
)
from tracereplay.machine.page_free import free_to_buddy
from tracereplay.machine.pcp import pcp_holds, pcp_index, pcp_push
from tracereplay.verify import layout as at
from tracereplay.verify.displace import TRANSIT, free_block_with, take_anywhere
from tracereplay.verify.predictions import expire, note_prediction, predicted

PENDING_MASK = at.PENDING_ROOM - 1


@inner
def push(m, v, cpu, pfn, block):
    """Put a freed block on its per-CPU list, by the machine's own rules, and keep the drain that they call for.

    ``block``: order, and from bit 4 on the type that its pageblock had at its event: another CPU may have claimed the
    pageblock since.
    """
    if get_info(m, pfn) & INFO_STATE != TRANSIT:
        return  # another event has named it since
    z = zone_of(m, pfn)
    order, mt = block & 0xF, block >> 4
    if mt >= MIGRATE_PCPTYPES:
        mt = MIGRATE_MOVABLE
    c = cpu * at.C_WORDS
    p = z * m.w[CFG_CPUS] + cpu
    v[v[at.VC_ELIGIBLE] + p * PCP_LISTS + pcp_index(m, order, mt)] = 1
    slot = c + at.C_PUSHED + 2 * (v[c + at.C_PUSHES] & (at.PUSH_ROOM - 1))
    v[slot] = pfn
    v[slot + 1] = m.w[p * P_WORDS + P_COUNT] + (1 << order)
    v[c + at.C_PUSHES] += 1
    below = m.w[z * Z_WORDS + Z_BELOW_HIGH]
    pcp_push(m, z, p, pfn, order, mt)
    m.w[z * Z_WORDS + Z_BELOW_HIGH] = below  # it ends with the kernel's own drain
    set_info(m, pfn, get_info(m, pfn) | (cpu << INFO_CPU_SHIFT))
    if predicted(m, v):
        note_prediction(m, v, cpu, p, pfn)


@inner
def push_first(m, v, cpu, n):
    """Push the ``n`` frees that have waited longest."""
    c = cpu * at.C_WORDS
    oldest = v[c + at.C_PENDING_AT]
    for i in range(n):
        slot = c + at.C_PENDING + 2 * ((oldest + i) & PENDING_MASK)
        push(m, v, cpu, v[slot], v[slot + 1])
    v[c + at.C_PENDING_AT] = (oldest + n) & PENDING_MASK
    v[c + at.C_PENDING_N] -= n
    if v[c + at.C_OUT_N] > 0:
        expire(m, v, cpu, v[c + at.C_NOW])


@inner
def push_all(m, v, cpu):
    """Push all frees that wait."""
    push_first(m, v, cpu, v[cpu * at.C_WORDS + at.C_PENDING_N])


@inner
def push_up_to(m, v, cpu, pfn):
    """Push the frees that wait, up to that of a frame; none when it is not among them."""
    c = cpu * at.C_WORDS
    oldest = v[c + at.C_PENDING_AT]
    for i in range(v[c + at.C_PENDING_N]):
        if v[c + at.C_PENDING + 2 * ((oldest + i) & PENDING_MASK)] == pfn:
            push_first(m, v, cpu, i + 1)
            return


@hot
def on_free(m, v, cpu, pfn, order, pid):
    """``mm_page_free``: to the buddy lists at once, or to wait for its push."""
    z = zone_of(m, pfn)
    if z < 0:
        v[at.OUTSIDE] += 1
        return
    c = cpu * at.C_WORDS
    v[c + at.C_TRIGGER] = pfn
    v[c + at.C_TRIGGER_PID] = pid
    info = get_info(m, pfn)
    if info & INFO_STATE == USED:
        if info_type(info) == MIGRATE_MOVABLE:
            note_movable(m, pfn, info & INFO_ORDER, -1)
        set_info(m, pfn, HELD)
    else:
        free_unmatched(m, v, z, pfn, order, info)
    if not pcp_holds(m, order):
        free_to_buddy(m, z, pfn, order)
        return
    set_info(m, pfn, TRANSIT)
    if v[c + at.C_PENDING_N] == at.PENDING_ROOM:
        push_first(m, v, cpu, 1)
    slot = c + at.C_PENDING + 2 * ((v[c + at.C_PENDING_AT] + v[c + at.C_PENDING_N]) & PENDING_MASK)
    v[slot] = pfn
    v[slot + 1] = block_type(m, pfn) << 4 | order
    v[c + at.C_PENDING_N] += 1


@inner
def free_unmatched(m, v, z, pfn, order, info):
    """A free of a page whose allocation the trace does not show; it may be free in the twin."""
    v[at.UNMATCHED_FREES] += 1
    state = info & INFO_STATE
    if state != HELD or free_block_with(m, pfn) >= 0:
        v[at.RS + at.RS_FREED_FREE] += 1
        take_anywhere(m, z, pfn, order, -1)


@hot
def on_batched(m, v, cpu, pfn, pid):
    """``mm_page_free_batched``: the push of one page of a batch."""
    c = cpu * at.C_WORDS
    v[c + at.C_TRIGGER] = pfn
    v[c + at.C_TRIGGER_PID] = pid
    if v[c + at.C_PENDING_N] > 0:
        slot = c + at.C_PENDING + 2 * v[c + at.C_PENDING_AT]
        if v[slot] == pfn and v[c + at.C_OUT_N] == 0:  # the next of its batch
            v[c + at.C_PENDING_AT] = (v[c + at.C_PENDING_AT] + 1) & PENDING_MASK
            v[c + at.C_PENDING_N] -= 1
            push(m, v, cpu, pfn, v[slot + 1])
        else:
            push_up_to(m, v, cpu, pfn)
