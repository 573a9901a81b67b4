"""A page off the per-CPU lists alone: no zone lock, no refill (strategies.md 7.2).

``pop_listed`` mimics ``__rcu_alloc_page_lockless`` of "[RFC-PATCH 2/4] mm: Add __rcu_alloc_page_lockless() func.",
2020-09-18: the lists of order 0 of each zone for GFP_KERNEL, by type from unmovable on, and no watermark.
``alloc_listed`` mimics what was proposed instead, a gfp flag (``__GFP_NO_LOCKS``) that is looked at only once the list
is found empty: an ordinary allocation in everything before, its type and the watermarks included.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE, MIGRATE_PCPTYPES, MIGRATE_UNMOVABLE
from tracereplay.kernel.gfp import GFP_DIRECT_RECLAIM, GFP_KERNEL, GFP_KSWAPD_RECLAIM
from tracereplay.machine.alloc_flags import ALLOC_KSWAPD
from tracereplay.machine.counters import (
    ALLOC_CALLS,
    FAILED_ATTEMPTS,
    FAILED_ATTEMPTS_BY_ORDER,
    PCP_HITS,
)
from tracereplay.machine.freelist import zone_passes
from tracereplay.machine.kswapd import wake_all_kswapds
from tracereplay.machine.layout import CFG_NODES, P_COUNT, P_WORDS, ZL_WORDS, Machine
from tracereplay.machine.lists import first, remove
from tracereplay.machine.page_alloc import prepare
from tracereplay.machine.pcp import note_pcp_alloc, pcp_head, pcp_index, pcp_index_of_cpu, pcp_lock
from tracereplay.machine.slow_path import slow_flags
from tracereplay.machine.zonelist import highest_zone, migratetype, zone_at, zonelist


@inner
def unlink_listed(m, p, mt):
    """The page at the head of a list of order 0; -1 when it is empty. Lock held."""
    node = first(m.pg, pcp_head(m, p, pcp_index(m, 0, mt)))
    if node < m.w[CFG_NODES]:  # the head itself
        return -1
    m.c[PCP_HITS] += 1
    remove(m.pg, node)
    m.w[p * P_WORDS + P_COUNT] -= 1
    return node - m.w[CFG_NODES]


@entry(Machine, int, bool)
def pop_listed(m, cpu, any_type):
    """A page off the CPU's lists: unmovable ones, or (``any_type``) of any type. First frame or -1.

    Interrupts are off once for each zone looked at, counted as a pcp lock.
    """
    m.c[ALLOC_CALLS] += 1
    row = zonelist(m, cpu, GFP_KERNEL)
    for k in range(ZL_WORDS):
        z = m.w[row + k]
        if z < 0:
            break
        p = pcp_index_of_cpu(m, z, cpu)
        pcp_lock(m, p)
        for mt in range(MIGRATE_PCPTYPES if any_type else 1):
            pfn = unlink_listed(m, p, mt)
            if pfn >= 0:
                prepare(m, cpu, pfn, 0, 0, MIGRATE_UNMOVABLE)
                return pfn
    m.c[FAILED_ATTEMPTS] += 1
    m.c[FAILED_ATTEMPTS_BY_ORDER] += 1
    return -1


@inner
def walk_listed(m, cpu, gfp, mt, flags):
    """Zones that pass the watermark of ``flags``, in order; a page off the CPU's list of the type there, or -1."""
    row = zonelist(m, cpu, gfp)
    for k in range(ZL_WORDS):
        z = zone_at(m, row, k, gfp)
        if z < 0:
            break
        if zone_passes(m, z, 0, highest_zone(gfp), flags):
            p = pcp_index_of_cpu(m, z, cpu)
            pcp_lock(m, p)
            note_pcp_alloc(m, p)
            pfn = unlink_listed(m, p, mt)
            if pfn >= 0:
                return pfn
    return -1


@entry(Machine, int, int)
def alloc_listed(m, cpu, gfp):
    """An allocation of one page that gives up where it would take the zone lock. First frame or -1.

    LOW is tried, then kswapd wakes (``__GFP_KSWAPD_RECLAIM``) and MIN is; nothing is reclaimed. Zones whose kswapd runs
    and types kept apart (ALLOC_NOFRAGMENT) make no difference here: no list is ever refilled from another type.
    """
    m.c[ALLOC_CALLS] += 1
    gfp &= ~GFP_DIRECT_RECLAIM
    mt = migratetype(gfp)
    pfn = walk_listed(m, cpu, gfp, mt, gfp & ALLOC_KSWAPD | (mt & MIGRATE_MOVABLE) << 2)
    if pfn < 0:
        if gfp & GFP_KSWAPD_RECLAIM:
            wake_all_kswapds(m, cpu, 0, gfp)
        pfn = walk_listed(m, cpu, gfp, mt, slow_flags(m, 0, gfp, mt))
    if pfn < 0:
        m.c[FAILED_ATTEMPTS] += 1
        m.c[FAILED_ATTEMPTS_BY_ORDER] += 1
        return -1
    prepare(m, cpu, pfn, 0, gfp, mt)
    return pfn
