"""What follows when no zone is above LOW: ``__alloc_pages_slowpath`` of mm/page_alloc.c (page-allocator.md 4.6, 4.8).

kswapd wakes, MIN and its reserves count, compaction and reclaim bring what reclaim.py says, and what is still not there
is a failure. Not modelled: the OOM killer and its look at HIGH before, ``__GFP_NOFAIL`` (it fails here), task states
(PF_MEMALLOC, real-time tasks, OOM victims), cpusets, compaction that captures a block, and retries that the kernel
makes because it believes that more could be reclaimed than one attempt brought.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE, PAGE_ALLOC_COSTLY_ORDER
from tracereplay.kernel.gfp import (
    GFP_DIRECT_RECLAIM,
    GFP_HARDER,
    GFP_HIGH,
    GFP_MEMALLOC,
    GFP_NOMEMALLOC,
    GFP_NORETRY,
    GFP_RETRY_MAYFAIL,
)
from tracereplay.machine.alloc_flags import (
    ALLOC_HARDER,
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NON_BLOCK,
    ALLOC_UNBOOSTED,
    ALLOC_WMARK_MIN,
)
from tracereplay.machine.freelist import get_page
from tracereplay.machine.highatomic import unreserve_highatomic
from tracereplay.machine.kswapd import wake_all_kswapds
from tracereplay.machine.layout import CFG_CLAIM_STEAL, CFG_PCP_RULE, Machine
from tracereplay.machine.pcp import drain_all
from tracereplay.machine.reclaim import direct_compact, direct_reclaim

MAX_RECLAIM_RETRIES = 16
"""Rounds without progress, or of a costly order, before the request gives up."""


@inner
def slow_flags(m, order, gfp, mt):
    """ALLOC_* of a request below LOW (``gfp_to_alloc_flags``)."""
    flags = ALLOC_WMARK_MIN | gfp & ALLOC_KSWAPD | (mt & MIGRATE_MOVABLE) << 2
    if gfp & GFP_HIGH:
        flags |= ALLOC_MIN_RESERVE
    if m.w[CFG_PCP_RULE] == 2:
        if gfp & GFP_HIGH:
            flags |= ALLOC_UNBOOSTED
        if not gfp & (GFP_DIRECT_RECLAIM | GFP_NOMEMALLOC):
            flags |= ALLOC_NON_BLOCK
            if order > 0 and (gfp & GFP_HIGH or not m.w[CFG_CLAIM_STEAL]):
                flags |= ALLOC_HIGHATOMIC
    elif gfp & GFP_HARDER:  # __GFP_ATOMIC
        flags |= ALLOC_UNBOOSTED
        if not gfp & GFP_NOMEMALLOC:
            flags |= ALLOC_HARDER
            if order > 0:
                flags |= ALLOC_HIGHATOMIC
    return flags


@entry(Machine, int, int, int, int)
def slow_path(m, cpu, order, gfp, mt):
    """Serve a request that found no zone above LOW. First frame or -1."""
    flags = slow_flags(m, order, gfp, mt)
    costly = order > PAGE_ALLOC_COSTLY_ORDER
    memalloc = gfp & (GFP_MEMALLOC | GFP_NOMEMALLOC) == GFP_MEMALLOC
    if flags & ALLOC_KSWAPD:
        wake_all_kswapds(m, cpu, order, gfp)
    pfn = get_page(m, cpu, order, gfp, mt, flags, 0)
    if pfn >= 0:
        return pfn
    if gfp & GFP_DIRECT_RECLAIM and not memalloc and (costly or (order > 0 and mt != MIGRATE_MOVABLE)):
        if direct_compact(m, cpu, order, gfp):
            pfn = get_page(m, cpu, order, gfp, mt, flags, 0)
            if pfn >= 0:
                return pfn
        elif costly and gfp & GFP_NORETRY:
            return -1
    if memalloc:
        flags = flags & (ALLOC_KSWAPD | ALLOC_WMARK_MIN | MIGRATE_MOVABLE << 2) | ALLOC_NO_WATERMARKS
    rounds = 0
    while True:
        if flags & ALLOC_KSWAPD:
            wake_all_kswapds(m, cpu, order, gfp)
        pfn = get_page(m, cpu, order, gfp, mt, flags, 0)
        if pfn >= 0 or not gfp & GFP_DIRECT_RECLAIM:
            return pfn
        freed = direct_reclaim(m, cpu, gfp)
        if freed > 0:
            pfn = after_reclaim(m, cpu, order, gfp, mt, flags)
        if pfn < 0 and order > 0 and direct_compact(m, cpu, order, gfp):
            pfn = get_page(m, cpu, order, gfp, mt, flags, 0)
        if pfn >= 0:
            return pfn
        if gfp & GFP_NORETRY or (costly and not gfp & GFP_RETRY_MAYFAIL):
            return -1
        rounds = 0 if freed > 0 and not costly else rounds + 1
        if freed > 0 and rounds <= MAX_RECLAIM_RETRIES:
            continue
        if not unreserve_highatomic(m, cpu, gfp, mt, True):
            return -1


@inner
def after_reclaim(m, cpu, order, gfp, mt, flags):
    """The free lists after reclaim that brought something (``__alloc_pages_direct_reclaim``). Frame or -1.

    What it freed may lie on per-CPU lists or in reserved blocks: these are given back once.
    """
    pfn = get_page(m, cpu, order, gfp, mt, flags, 0)
    if pfn < 0:
        unreserve_highatomic(m, cpu, gfp, mt, False)
        drain_all(m)
        pfn = get_page(m, cpu, order, gfp, mt, flags, 0)
    return pfn
