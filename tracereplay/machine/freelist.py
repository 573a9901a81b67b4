"""The walk along the zonelist: watermarks, then per-CPU lists or buddy lists (page-allocator.md 4.2, 4.3).

Mimics ``get_page_from_freelist`` and ``rmqueue`` of mm/page_alloc.c. Not modelled: cpusets, dirty limits of
``__GFP_WRITE``, ``vm.zone_reclaim_mode``. Node distances are those of a ring: zonelists go up from the CPU's own node.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, hot, inner
from tracereplay.kernel.constants import MIGRATE_HIGHATOMIC
from tracereplay.machine.alloc_flags import (
    ALLOC_HIGHATOMIC,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_WMARK_MIN,
)
from tracereplay.machine.buddy import rmqueue_smallest
from tracereplay.machine.counters import ALLOCS_BUDDY, WATERMARK_CHECKS
from tracereplay.machine.fallback import MODE_NORMAL, rmqueue
from tracereplay.machine.highatomic import reserve_highatomic
from tracereplay.machine.holds import note_hold, zone_lock, zone_unlock
from tracereplay.machine.layout import (
    CFG_FROM_FREED,
    CFG_KEEPS_TYPE,
    CFG_PCP_RULE,
    CFG_SKIP_BUSY,
    H_ALLOCS,
    Z_BELOW_HIGH,
    Z_HIGH,
    Z_LOW,
    Z_MIN,
    Z_NODE,
    Z_SKIP,
    Z_WORDS,
    ZL_WORDS,
    Machine,
)
from tracereplay.machine.page_prep import check_leaving
from tracereplay.machine.pcp import note_pcp_alloc, pcp_holds, pcp_index_of_cpu, pcp_lock, pcp_pop
from tracereplay.machine.watermarks import watermark_ok
from tracereplay.machine.zonelist import highest_zone, zone_at, zonelist


@entry(Machine, int, int, int, int)
def rmqueue_buddy(m, z, order, mt, flags):
    """A block straight from the buddy lists (``rmqueue_buddy``). First frame or -1.

    HIGHATOMIC blocks come first for those who may use them, and since 6.10 last for those who cannot wait.
    """
    pfn = -1
    zone_lock(m, z)
    if flags & ALLOC_HIGHATOMIC:
        pfn = rmqueue_smallest(m, z, order, MIGRATE_HIGHATOMIC)
    if pfn < 0:
        pfn = rmqueue(m, z, order, mt, flags, MODE_NORMAL)[0]
    if pfn < 0 and flags & ALLOC_NON_BLOCK and m.w[CFG_KEEPS_TYPE]:
        pfn = rmqueue_smallest(m, z, order, MIGRATE_HIGHATOMIC)
    if pfn >= 0:
        note_hold(m, z, H_ALLOCS, 1)
    zone_unlock(m, z)
    if pfn >= 0:
        m.c[ALLOCS_BUDDY] += 1
        check_leaving(m, 1 << order)
    return pfn


@hot
def rmqueue_zone(m, z, cpu, order, mt, flags):
    """A block of one zone: per-CPU list, else (always up to 5.17 for orders without one) buddy lists. Frame or -1."""
    if pcp_holds(m, order):
        p = pcp_index_of_cpu(m, z, cpu)
        pcp_lock(m, p)
        note_pcp_alloc(m, p)
        pfn = pcp_pop(m, z, p, order, mt, flags)
        if pfn >= 0 or not m.w[CFG_FROM_FREED]:
            return pfn
    return rmqueue_buddy(m, z, order, mt, flags)


@hot
def zone_passes(m, z, order, top, flags):
    """Watermark test of one zone, with the HIGH test that clears the way since 6.7. Counts each test."""
    if m.w[CFG_PCP_RULE] == 2 and m.w[z * Z_WORDS + Z_BELOW_HIGH] == 0:
        m.c[WATERMARK_CHECKS] += 1
        if watermark_ok(m, z, order, m.w[z * Z_WORDS + Z_HIGH], top, flags):
            return True
        m.w[z * Z_WORDS + Z_BELOW_HIGH] = 1
    m.c[WATERMARK_CHECKS] += 1
    mark = m.w[z * Z_WORDS + Z_MIN] if flags & ALLOC_WMARK_MIN else m.w[z * Z_WORDS + Z_LOW]
    return watermark_ok(m, z, order, mark, top, flags)


@inner
def try_zone(m, z, cpu, order, mt, top, flags):
    """One step of the walk: the watermark test and, when it passes, a block. First frame or -1."""
    if not zone_passes(m, z, order, top, flags) and not flags & ALLOC_NO_WATERMARKS:
        return -1
    pfn = rmqueue_zone(m, z, cpu, order, mt, flags)
    if pfn >= 0 and flags & ALLOC_HIGHATOMIC:
        reserve_highatomic(m, z, pfn, order)
    return pfn


@entry(Machine, int, int, int, int, int, int)
def get_page(m, cpu, order, gfp, mt, flags, first):
    """Walk the CPU's zonelist from place ``first`` on (``get_page_from_freelist``). First frame or -1.

    With ALLOC_NOFRAGMENT only the preferred node is tried, then all once more without: fragmenting the local node is
    better than going to a remote one. Since 6.18 nodes whose kswapd runs are passed over while another one serves.
    ``__GFP_THISNODE`` never leaves the preferred node.
    """
    top = highest_zone(gfp)
    row = zonelist(m, cpu, gfp)
    home = m.w[m.w[row] * Z_WORDS + Z_NODE]
    skip = m.w[CFG_SKIP_BUSY] != 0
    while True:
        skipped = False
        leaves = False
        for k in range(first, ZL_WORDS):
            z = zone_at(m, row, k, gfp)
            if z < 0:
                break
            if flags & ALLOC_NOFRAGMENT and m.w[z * Z_WORDS + Z_NODE] != home:
                leaves = True
                break
            if skip and m.w[z * Z_WORDS + Z_SKIP]:
                skipped = True
                continue
            pfn = try_zone(m, z, cpu, order, mt, top, flags)
            if pfn >= 0:
                return pfn
        first = 0
        if skipped and not leaves:
            skip = False
        elif flags & ALLOC_NOFRAGMENT:
            flags &= ~ALLOC_NOFRAGMENT
        else:
            return -1
