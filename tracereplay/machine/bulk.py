"""``alloc_pages_bulk``: many order-0 pages of one zone under one pcp lock (page-allocator.md section 5).

Mimics ``__alloc_pages_bulk`` (6.12 on ``alloc_pages_bulk_noprof``), mm/page_alloc.c, 5.14 to 6.19, in its array form;
the list form of kernels before 6.14, the callback form and the second pass of preparation of the patches that were not
merged (strategies.md 3.3, 4.1), and study options, are bits of ``how``.
What it does not do as single allocations do: wake kswapd, test HIGH or set BELOW_HIGH, keep types apart
(ALLOC_NOFRAGMENT), use reserves, reclaim, or halve ``free_factor`` or ``free_count``. Memory accounting is on,
page_owner is off, and no pcp lock is ever busy. 5.10 has no such call: asking for it there is reported as misuse.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, hot, inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE
from tracereplay.kernel.gfp import GFP_ACCOUNT
from tracereplay.machine.counters import (
    BULK_CALLS,
    CALLBACKS,
    FALLBACK_BLOCK_MOVES,
    FALLBACKS,
    PAGES_LISTED,
    PAGES_PREPARED_UNLOCKED,
    PCP_REFILL_PAGES,
    PCP_REFILLS,
    SPLITS,
    WATERMARK_CHECKS,
    ZEROED_PAGES,
)
from tracereplay.machine.layout import (
    ANY_NODE,
    AS_CALLBACK,
    AS_LIST,
    BULK_EARLY,
    BULK_NONE,
    CFG_BULK,
    ERROR_NO_BULK,
    I64,
    LOW_ONLY,
    NO_SINGLE,
    P_LONGEST,
    P_WORDS,
    SECTION_BULK,
    TWO_PASS,
    Z_LOW,
    Z_NODE,
    Z_TYPE,
    Z_WORDS,
    ZL_WORDS,
    Machine,
)
from tracereplay.machine.misuse import report_error
from tracereplay.machine.page_alloc import alloc_pages, prepare
from tracereplay.machine.pcp import pcp_index_of_cpu, pcp_lock, pcp_pop
from tracereplay.machine.sections import note_section
from tracereplay.machine.watermarks import watermark_ok
from tracereplay.machine.zonelist import migratetype, zone_at, zonelist

NOT_PREPARED = -1
"""In a slot's order: unlinked in this call, and not prepared yet."""


@inner
def bulk_zone(m, cpu, gfp, wanted, flags, how):
    """Zone for a bulk request: the first of the preferred node that stays above LOW + ``wanted``; -1 when none does.

    ``wanted`` is the whole array, filled slots included, and the lowmem reserve is that against requests for the type
    of the *preferred zone*, not for the highest that the gfp mask allows as in single allocations.
    """
    row = zonelist(m, cpu, gfp)
    preferred = m.w[row]
    if how & LOW_ONLY:
        wanted = 0
    for k in range(ZL_WORDS):
        z = zone_at(m, row, k, gfp)
        if z < 0 or (m.w[z * Z_WORDS + Z_NODE] != m.w[preferred * Z_WORDS + Z_NODE] and not how & ANY_NODE):
            break
        m.c[WATERMARK_CHECKS] += 1
        if watermark_ok(m, z, 0, m.w[z * Z_WORDS + Z_LOW] + wanted, m.w[preferred * Z_WORDS + Z_TYPE], flags):
            return z
    return -1


@hot
def deliver(m, how, pages):
    """What the list and callback forms do with a page beyond storing it."""
    if how & AS_LIST:
        m.c[PAGES_LISTED] += pages
    if how & AS_CALLBACK:
        m.c[CALLBACKS] += pages


@hot
def prepare_slot(m, cpu, gfp, slots, k):
    """``prep_new_page`` of the page in slot ``k``; bulk calls charge no memory cgroup."""
    prepare(m, cpu, slots[2 * k], 0, gfp & ~GFP_ACCOUNT, migratetype(gfp))
    slots[2 * k + 1] = 0


@inner
def bulk_batch(m, cpu, z, gfp, at, wanted, slots, how):
    """The loop under the pcp lock: fill empty slots from ``at`` on with pages of zone ``z``. Slot it came to.

    Work under the lock, as its longest hold counts it: pages moved by refills, unlinked, and prepared.
    """
    p = pcp_index_of_cpu(m, z, cpu)
    mt = migratetype(gfp)
    first = at
    taken = 0
    refills, refilled, splits = m.c[PCP_REFILLS], m.c[PCP_REFILL_PAGES], m.c[SPLITS]
    fallbacks, moves, zeroed = m.c[FALLBACKS], m.c[FALLBACK_BLOCK_MOVES], m.c[ZEROED_PAGES]
    pcp_lock(m, p)
    while at < wanted:
        if slots[2 * at] < 0:
            pfn = pcp_pop(m, z, p, 0, mt, (mt & MIGRATE_MOVABLE) << 2)
            if pfn < 0:
                break
            slots[2 * at] = pfn
            slots[2 * at + 1] = NOT_PREPARED
            taken += 1
            if not how & TWO_PASS:
                prepare_slot(m, cpu, gfp, slots, at)
        at += 1
    prepared = 0 if how & TWO_PASS else taken
    refills, refilled, splits = m.c[PCP_REFILLS] - refills, m.c[PCP_REFILL_PAGES] - refilled, m.c[SPLITS] - splits
    fallbacks, moves = m.c[FALLBACKS] - fallbacks, m.c[FALLBACK_BLOCK_MOVES] - moves
    zeroed = m.c[ZEROED_PAGES] - zeroed
    note_section(m, SECTION_BULK, refills, refilled, splits, fallbacks, moves, taken, prepared, zeroed)
    work = refilled + taken + prepared
    m.w[p * P_WORDS + P_LONGEST] = max(m.w[p * P_WORDS + P_LONGEST], work)
    if how & TWO_PASS:
        m.c[PAGES_PREPARED_UNLOCKED] += taken
        for k in range(first, at):
            if slots[2 * k + 1] == NOT_PREPARED:
                prepare_slot(m, cpu, gfp, slots, k)
    deliver(m, how, taken)
    return at


@entry(Machine, int, int, int, I64, int)
def bulk_call(m, cpu, gfp, wanted, slots, how):
    """Fill the empty slots (frame -1) among the first ``wanted`` (frame, order) pairs. Returns the slots passed.

    Steps of section 5.2: slots are filled from the first empty one on, filled ones in between stay and count; where no
    page is left the call ends and returns how far it came, which counts no filled slots behind. Nothing taken at all,
    a single slot after the filled first ones, an accounted request (but see below) and no zone above LOW + ``wanted``
    go the ordinary way, which brings one page at most.

    5.14 serves accounted requests in bulk and does not charge them, and goes the ordinary way only when the array is
    empty. 5.15, which the generation stands for too, has the later rules. ``how``: bits of layout.py. The list and
    callback forms know no filled slots: their callers pass empty ones, and ask for what is missing.
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
        flags = (migratetype(gfp) & MIGRATE_MOVABLE) << 2  # ALLOC_CMA, and nothing else
        z = bulk_zone(m, cpu, gfp, wanted, flags, how)
        if z >= 0:
            came = bulk_batch(m, cpu, z, gfp, at, wanted, slots, how)
            if came > at or (early and at > 0):
                return came
        if how & NO_SINGLE:
            return at
    pfn = alloc_pages(m, cpu, 0, gfp)
    if pfn >= 0:
        slots[2 * at] = pfn
        slots[2 * at + 1] = 0
        deliver(m, how, 1)
        at += 1
    return at


@hot
def alloc_pages_bulk(m, cpu, gfp, wanted, slots):
    """The array form as every kernel since 5.14 has it: ``bulk_call`` without study options."""
    return bulk_call(m, cpu, gfp, wanted, slots, 0)
