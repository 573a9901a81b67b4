"""Recorded bulk allocations: pages that left a per-CPU list without an event of their own (page-allocator.md 5)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner
from tracereplay.machine.buddy import set_info, zone_of
from tracereplay.machine.layout import (
    CFG_CPUS,
    CFG_NODES,
    CN,
    HELD,
    NR_ZONE_TYPES,
    P_COUNT,
    P_WORDS,
    ZL,
    ZL_WORDS,
    ZONE_NORMAL,
)
from tracereplay.machine.lists import first, remove
from tracereplay.machine.pcp import pcp_head, pcp_index
from tracereplay.machine.pcp_sizes import refill_blocks
from tracereplay.verify import layout as at
from tracereplay.verify.journal import disagree
from tracereplay.verify.runs import FRAME_SHIFT, end_run, put_on_list


@inner
def on_bulk(m, v, cpu, mt, pages):
    """``__alloc_pages_bulk`` returned ``pages``: pops of order 0, with a refill for each time the list ran empty.

    The run before it holds the frames of those refills, and does not say where one ends: they match when the lengths
    that the twin predicts use it up, or none of them does.
    """
    matched, matched_here = v[at.REFILL_MATCHED], v[at.BY_REFILL_MATCHED]
    longer = v[at.REFILL_LENGTH]
    c = cpu * at.C_WORDS
    v[at.BULK_PAGES] += pages
    n = v[c + at.C_RUN_N]
    z = m.w[ZL + (m.w[CN + cpu] * NR_ZONE_TYPES + ZONE_NORMAL) * ZL_WORDS]
    if n > 0:
        z = zone_of(m, v[at.C_RUN + c] >> FRAME_SHIFT)
    p = z * m.w[CFG_CPUS] + cpu
    head = pcp_head(m, p, pcp_index(m, 0, mt))
    used = 0
    while pages > 0:
        if first(m.pg, head) == head:
            if used == n:
                break  # pages that the twin does not have: from another zone, or freed without an event
            used = refill_from_run(m, v, cpu, z, mt, used)
            continue
        node = first(m.pg, head)
        remove(m.pg, node)
        set_info(m, node - m.w[CFG_NODES], HELD)
        m.w[p * P_WORDS + P_COUNT] -= 1
        pages -= 1
    if used < n or v[at.REFILL_LENGTH] > longer:
        v[at.REFILL_MATCHED], v[at.BY_REFILL_MATCHED] = matched, matched_here
    if used < n:
        for i in range(used, n):
            v[at.C_RUN + c + i - used] = v[at.C_RUN + c + i]
        v[c + at.C_RUN_N] = n - used
        end_run(m, v, cpu)
    v[c + at.C_RUN_N] = 0


@inner
def refill_from_run(m, v, cpu, z, mt, used):
    """One refill of a bulk call, from the run's entry ``used`` on. Returns the entry after its last."""
    c = cpu * at.C_WORDS
    blocks = refill_blocks(m, z, z * m.w[CFG_CPUS] + cpu, 0)
    v[at.REFILL_KERNEL] += 1
    v[at.REFILL_TWIN] += 1
    v[at.BY_REFILL_KERNEL] += 1
    v[at.BY_REFILL_TWIN] += 1
    end = min(used + blocks, v[c + at.C_RUN_N])
    if end - used == blocks:
        v[at.REFILL_MATCHED] += 1
        v[at.BY_REFILL_MATCHED] += 1
    else:
        v[at.REFILL_LENGTH] += 1
        disagree(v, at.DIS_REFILL_LENGTH, cpu, v[at.C_RUN + c + used] >> FRAME_SHIFT, 0, mt, end - used, blocks)
    for i in range(used, end):
        entry = v[at.C_RUN + c + i]
        put_on_list(m, v, z, cpu, entry >> FRAME_SHIFT, entry & 0xF, (entry >> 8) & 0xF)
    return end
