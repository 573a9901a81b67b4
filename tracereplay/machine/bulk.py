"""``alloc_pages_bulk``: many order-0 pages of one zone under one pcp lock (page-allocator.md section 5).

Mimics the array form of ``__alloc_pages_bulk`` (6.12 on ``alloc_pages_bulk_noprof``), mm/page_alloc.c, 5.14 to 6.19.
What it does not do as single allocations do: wake kswapd, test HIGH or set BELOW_HIGH, keep types apart
(ALLOC_NOFRAGMENT), use reserves, reclaim, or halve ``free_factor`` or ``free_count``. Memory accounting is on,
page_owner is off, and no pcp lock is ever busy. 5.10 has no such call: asking for it there is reported as misuse.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE
from tracereplay.kernel.gfp import GFP_ACCOUNT
from tracereplay.machine.counters import BULK_CALLS, WATERMARK_CHECKS
from tracereplay.machine.layout import (
    BULK_EARLY,
    BULK_NONE,
    CFG_BULK,
    ERROR_NO_BULK,
    I64,
    Z_LOW,
    Z_NODE,
    Z_TYPE,
    Z_WORDS,
    ZL_WORDS,
    Machine,
)
from tracereplay.machine.page_alloc import alloc_pages, prepare
from tracereplay.machine.page_free import report_error
from tracereplay.machine.pcp import pcp_index_of_cpu, pcp_lock, pcp_pop
from tracereplay.machine.watermarks import watermark_ok
from tracereplay.machine.zonelist import migratetype, zonelist


@inner
def bulk_zone(m, cpu, gfp, wanted, flags):
    """Zone for a bulk request: the first of the preferred node that stays above LOW + ``wanted``; -1 when none does.

    ``wanted`` is the whole array, filled slots included, and the lowmem reserve is that against requests for the type
    of the *preferred zone*, not for the highest that the gfp mask allows as in single allocations.
    """
    row = zonelist(m, cpu, gfp)
    preferred = m.w[row]
    for k in range(ZL_WORDS):
        z = m.w[row + k]
        if z < 0 or m.w[z * Z_WORDS + Z_NODE] != m.w[preferred * Z_WORDS + Z_NODE]:
            break
        m.c[WATERMARK_CHECKS] += 1
        if watermark_ok(m, z, 0, m.w[z * Z_WORDS + Z_LOW] + wanted, m.w[preferred * Z_WORDS + Z_TYPE], flags):
            return z
    return -1


@entry(Machine, int, int, int, I64)
def alloc_pages_bulk(m, cpu, gfp, wanted, slots):
    """Fill the empty slots (frame -1) among the first ``wanted`` (frame, order) pairs. Returns the slots passed.

    Steps of section 5.2: slots are filled from the first empty one on, filled ones in between stay and count; where no
    page is left the call ends and returns how far it came, which counts no filled slots behind. Nothing taken at all,
    a single slot after the filled first ones, an accounted request (but see below) and no zone above LOW + ``wanted``
    go the ordinary way, which brings one page at most.

    5.14 serves accounted requests in bulk and does not charge them, and goes the ordinary way only when the array is
    empty. 5.15, which the generation stands for too, has the later rules.
    """
    m.c[BULK_CALLS] += 1
    if m.w[CFG_BULK] == BULK_NONE:
        report_error(m, ERROR_NO_BULK, 0)
        return 0
    at = 0
    while at < wanted and slots[2 * at] >= 0:
        at += 1
    if at >= wanted:
        return at
    early = m.w[CFG_BULK] == BULK_EARLY
    if wanted - at > 1 and (early or not gfp & GFP_ACCOUNT):
        mt = migratetype(gfp)
        flags = (mt & MIGRATE_MOVABLE) << 2  # ALLOC_CMA, and nothing else
        z = bulk_zone(m, cpu, gfp, wanted, flags)
        if z >= 0:
            p = pcp_index_of_cpu(m, z, cpu)
            taken = 0
            pcp_lock(m, p)
            while at < wanted:
                if slots[2 * at] < 0:
                    pfn = pcp_pop(m, z, p, 0, mt, flags)
                    if pfn < 0:
                        break
                    prepare(m, cpu, pfn, 0, gfp & ~GFP_ACCOUNT, mt)
                    slots[2 * at] = pfn
                    slots[2 * at + 1] = 0
                    taken += 1
                at += 1
            if taken > 0 or (early and at > 0):
                return at
    pfn = alloc_pages(m, cpu, 0, gfp)
    if pfn >= 0:
        slots[2 * at] = pfn
        slots[2 * at + 1] = 0
        at += 1
    return at
