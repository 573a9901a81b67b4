"""What kswapd, direct reclaim and direct compaction bring: stated models (page-allocator.md 4.8).

Which pages a kernel finds cold is in no trace. Here pages in use since before the replay (``HELD``) in movable
pageblocks stand for those that can be reclaimed or moved, each once, from the start of their zone on; frames that a
zone spans but does not own cannot be told from them. On a machine made from a trace all rates are 0: what was reclaimed
on the recorded host is in the trace as frees. kswapd then still wakes, holds its zones under reclaim and works off the
boost, at a stated pace.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE, PAGEBLOCK_ORDER
from tracereplay.kernel.gfp import GFP_IO
from tracereplay.machine.buddy import block_type, free_one_page, note_movable
from tracereplay.machine.counters import (
    COMPACTION_ATTEMPTS,
    COMPACTION_SUCCESSES,
    RECLAIM_ATTEMPTS,
    RECLAIMED_PAGES,
)
from tracereplay.machine.fallback import take_first
from tracereplay.machine.holds import zone_lock, zone_unlock
from tracereplay.machine.kswapd import KSWAPD_PERIOD_NS, concerns, node_balanced, stop_kswapd
from tracereplay.machine.layout import (
    B_MOVABLE,
    B_WORDS,
    CFG_COMPACTION_DUE,
    CFG_COMPACTION_SHARE,
    CFG_CPUS,
    CFG_KSWAPD_RATE,
    CFG_NOW,
    CFG_RECLAIM_PAGES,
    CFG_SHRINK,
    CFG_TIMER,
    CFG_ZONES,
    CN,
    COUNT_ONLY,
    KS_DONE,
    KS_GOAL,
    KS_HOPELESS,
    KS_SINCE,
    KS_TOP,
    KS_WORDS,
    Z_COMPACT_CURSOR,
    Z_END,
    Z_FREE,
    Z_HIGH,
    Z_NODE,
    Z_RECLAIM_CURSOR,
    Z_START,
    Z_WORDS,
    ZL_WORDS,
    Machine,
)
from tracereplay.machine.page_free import free_held, is_held
from tracereplay.machine.watermarks import nr_free
from tracereplay.machine.zonelist import zone_at, zonelist

KSWAPD_PACE = 256
"""Pages a ms (1 GiB/s) at which kswapd works off a boost where it frees nothing itself; an assumption."""
RECLAIM_STEP = 32
"""Pages after which kswapd looks whether the node is balanced (SWAP_CLUSTER_MAX)."""
WHOLE = 1_000_000
"""A share of one, in millionths."""


@inner
def next_reclaimable(m, z):
    """The next page of a zone that stands for a cold one; -1 when all were looked at."""
    while m.w[z * Z_WORDS + Z_START] + m.w[z * Z_WORDS + Z_RECLAIM_CURSOR] < m.w[z * Z_WORDS + Z_END]:
        pfn = m.w[z * Z_WORDS + Z_START] + m.w[z * Z_WORDS + Z_RECLAIM_CURSOR]
        m.w[z * Z_WORDS + Z_RECLAIM_CURSOR] += 1
        if block_type(m, pfn) == MIGRATE_MOVABLE and is_held(m, pfn, 0):
            return pfn
    return -1


@inner
def reclaim_zone(m, cpu, z, pages):
    """Free up to ``pages`` cold pages of a zone, one by one, on ``cpu``. Their number."""
    freed = 0
    while freed < pages:
        pfn = next_reclaimable(m, z)
        if pfn < 0:
            break
        free_held(m, cpu, pfn, 0)
        freed += 1
    m.c[RECLAIMED_PAGES] += freed
    return freed


@inner
def ask_shrinker(m, pages):
    """Have a strategy's shrinker asked for ``pages``, once the present operation is over; 0: it is only made to count.

    A model of ``shrink_slab``: as many as this reclaim wants itself while single pages are short, else none. The
    kernel asks for ``(freeable >> priority) * 4 / seeks`` in batches of 128: at the lowest urgency, which is that of a
    reclaim for the sake of a large block, a cache of less than 2^18 pages is counted and not scanned.
    """
    if pages > 0:
        m.w[CFG_SHRINK] = max(m.w[CFG_SHRINK], 0) + pages
    elif m.w[CFG_SHRINK] == 0:
        m.w[CFG_SHRINK] = COUNT_ONLY
    m.w[CFG_TIMER] = min(m.w[CFG_TIMER], m.w[CFG_NOW])


@inner
def short_of_pages(m, cpu, gfp):
    """Whether no zone that a request may use has more than HIGH free."""
    row = zonelist(m, cpu, gfp)
    for k in range(ZL_WORDS):
        z = zone_at(m, row, k, gfp)
        if z < 0:
            break
        if m.w[z * Z_WORDS + Z_FREE] > m.w[z * Z_WORDS + Z_HIGH]:
            return False
    return True


@entry(Machine, int, int)
def direct_reclaim(m, cpu, gfp):
    """One direct reclaim (``__perform_reclaim``): up to ``CFG_RECLAIM_PAGES`` along the zonelist. Pages freed."""
    m.c[RECLAIM_ATTEMPTS] += 1
    ask_shrinker(m, max(m.w[CFG_RECLAIM_PAGES], RECLAIM_STEP) if short_of_pages(m, cpu, gfp) else 0)
    freed = 0
    row = zonelist(m, cpu, gfp)
    for k in range(ZL_WORDS):
        z = zone_at(m, row, k, gfp)
        if z < 0 or freed >= m.w[CFG_RECLAIM_PAGES]:
            break
        here = reclaim_zone(m, cpu, z, m.w[CFG_RECLAIM_PAGES] - freed)
        if here > 0:  # kswapd_failures starts anew with any progress
            m.w[m.w[z * Z_WORDS + Z_NODE] * KS_WORDS + KS_HOPELESS] = 0
        freed += here
    return freed


@inner
def cpu_of_node(m, node):
    """First CPU of a node, where its kswapd runs; CPU 0 for a node without."""
    for cpu in range(m.w[CFG_CPUS]):
        if m.w[CN + cpu] == node:
            return cpu
    return 0


@inner
def reclaim_node(m, cpu, node, pages):
    """Free cold pages of the zones that kswapd of a node balances, the highest first. Their number."""
    freed = 0
    for i in range(m.w[CFG_ZONES]):
        z = m.w[CFG_ZONES] - 1 - i
        if freed < pages and concerns(m, z, node, m.w[node * KS_WORDS + KS_TOP]):
            freed += reclaim_zone(m, cpu, z, pages - freed)
    return freed


@inner
def run_kswapd(m, node):
    """What kswapd of a node does up to ``w[CFG_NOW]`` (``balance_pgdat``).

    It ends when some zone is above HIGH with its boost and, where one was so from the start, as many pages were gone
    through as the boost (or the order that woke it) asks for; or when nothing is left to free.
    """
    k = node * KS_WORDS
    periods = (m.w[CFG_NOW] - m.w[k + KS_SINCE]) // KSWAPD_PERIOD_NS
    m.w[k + KS_SINCE] += periods * KSWAPD_PERIOD_NS
    rate = m.w[CFG_KSWAPD_RATE]
    budget = periods * (rate if rate > 0 else KSWAPD_PACE)
    cpu = cpu_of_node(m, node)
    while True:
        balanced = node_balanced(m, node, 0, m.w[k + KS_TOP])
        if not balanced:
            m.w[k + KS_GOAL] = 0
        if balanced and m.w[k + KS_DONE] >= m.w[k + KS_GOAL]:
            stop_kswapd(m, node)
            return
        if budget <= 0:
            return
        step = min(budget, RECLAIM_STEP) if rate > 0 else budget
        budget -= step
        m.w[k + KS_DONE] += step
        ask_shrinker(m, 0 if balanced else step)
        if rate > 0 and reclaim_node(m, cpu, node, step) == 0:
            m.w[k + KS_HOPELESS] = 1
            stop_kswapd(m, node)
            return


@inner
def small_movable_pages(m, z, order):
    """Free pages on the movable lists of lower orders."""
    pages = 0
    for o in range(order):
        pages += nr_free(m, z, o, MIGRATE_MOVABLE) << o
    return pages


@inner
def next_clearable(m, z, order):
    """The next aligned block of a zone of nothing but movable pages in use; -1 at the zone's end, where it wraps."""
    while True:
        pfn = m.w[z * Z_WORDS + Z_START] + m.w[z * Z_WORDS + Z_COMPACT_CURSOR]
        pfn = (pfn + (1 << order) - 1) >> order << order
        if pfn + (1 << order) > m.w[z * Z_WORDS + Z_END]:
            m.w[z * Z_WORDS + Z_COMPACT_CURSOR] = 0
            return -1
        m.w[z * Z_WORDS + Z_COMPACT_CURSOR] = pfn + (1 << order) - m.w[z * Z_WORDS + Z_START]
        if block_type(m, pfn) != MIGRATE_MOVABLE or block_type(m, pfn + (1 << order) - 1) != MIGRATE_MOVABLE:
            continue
        if is_held(m, pfn, order):
            return pfn


@inner
def compact_zone(m, z, order):
    """Clear one block of ``order`` by moving its pages into free blocks of lower orders. Whether that was possible.

    All under one hold of the zone lock; the kernel isolates and frees in clusters of 32 pages.
    """
    if small_movable_pages(m, z, order) < 1 << order:
        return False
    block = next_clearable(m, z, order)
    if block < 0:
        return False
    zone_lock(m, z)
    o = 0
    for _ in range(1 << order):
        while nr_free(m, z, o, MIGRATE_MOVABLE) == 0:
            o += 1
        target = take_first(m, z, 0, o, MIGRATE_MOVABLE, MIGRATE_MOVABLE)
        note_movable(m, target, 0, 1)
        o = 0
    for b in range(block >> PAGEBLOCK_ORDER, (block + (1 << order) - 1 >> PAGEBLOCK_ORDER) + 1):
        movable = m.pb[b * B_WORDS + B_MOVABLE] - min(1 << order, 1 << PAGEBLOCK_ORDER)
        m.pb[b * B_WORDS + B_MOVABLE] = max(0, movable)
    free_one_page(m, z, block, order, MIGRATE_MOVABLE, False)
    zone_unlock(m, z)
    return True


@entry(Machine, int, int, int)
def direct_compact(m, cpu, order, gfp):
    """One direct compaction (``try_to_compact_pages``). Whether it yielded a block of ``order``.

    The given share of attempts is due to yield one, in turn, not at random. Requests without ``__GFP_IO`` may not
    compact.
    """
    if not gfp & GFP_IO:
        return False
    m.c[COMPACTION_ATTEMPTS] += 1
    m.w[CFG_COMPACTION_DUE] += m.w[CFG_COMPACTION_SHARE]
    if m.w[CFG_COMPACTION_DUE] < WHOLE:
        return False
    m.w[CFG_COMPACTION_DUE] -= WHOLE
    row = zonelist(m, cpu, gfp)
    for k in range(ZL_WORDS):
        z = zone_at(m, row, k, gfp)
        if z < 0:
            break
        if compact_zone(m, z, order):
            m.c[COMPACTION_SUCCESSES] += 1
            return True
    return False
