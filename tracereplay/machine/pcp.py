"""Per-CPU page lists: pop, refill, push and drain, by generation (page-allocator.md section 3).

Mimics ``rmqueue_pcplist``, ``rmqueue_bulk``, ``free_unref_page_commit`` (6.14 on ``free_frozen_page_commit``),
``free_pcppages_bulk`` and ``drain_all_pages`` of mm/page_alloc.c. Allocation and free take the head, refills append and
drains take the tail. How many pages a refill or drain moves is in pcp_sizes.py, the periodic work in vmstat.py. No lock
is ever busy here: what a kernel does when a trylock fails (section 3.9) is not modelled.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, hot, inner
from tracereplay.kernel.constants import (
    MIGRATE_CMA,
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_UNMAPPED,
    PAGE_ALLOC_COSTLY_ORDER,
    PAGEBLOCK_ORDER,
)
from tracereplay.machine.buddy import (
    block_type,
    free_one_page_here,
    get_info,
    info_type,
    rmqueue_smallest_here,
    set_info,
)
from tracereplay.machine.counters import (
    FALLBACK_BLOCK_MOVES,
    FALLBACKS,
    FREES_PCP,
    PCP_DRAIN_BLOCKS,
    PCP_DRAIN_PAGES,
    PCP_DRAINS,
    PCP_HITS,
    PCP_LOCK_ACQUISITIONS,
    PCP_REFILL_BLOCKS,
    PCP_REFILL_PAGES,
    PCP_REFILLS,
    SPLITS,
)
from tracereplay.machine.fallback import MODE_NORMAL, rmqueue
from tracereplay.machine.holds import note_hold, zone_lock, zone_unlock
from tracereplay.machine.layout import (
    CACHED,
    CFG_CHUNKED,
    CFG_CPU,
    CFG_CPUS,
    CFG_DRAIN_ALL_CHUNKED,
    CFG_FROM_FREED,
    CFG_KEEPS_TYPE,
    CFG_NODES,
    CFG_PCP_BASE,
    CFG_PCP_ORDERS,
    CFG_PCP_OTHERS,
    CFG_PCP_RULE,
    CFG_SCALE_MAX,
    CFG_THP_LISTS,
    CFG_WITHHOLD,
    CFG_ZONES,
    DM_UNMAPPED_TYPE,
    H_DRAIN_BLOCKS,
    H_DRAIN_PAGES,
    H_REFILL_BLOCKS,
    H_REFILL_PAGES,
    HELD,
    INFO_ORDER,
    INFO_STATE,
    INFO_TYPE_SHIFT,
    P_ALLOC_FACTOR,
    P_BATCH,
    P_COUNT,
    P_FREE_COUNT,
    P_FREE_FACTOR,
    P_HIGH,
    P_HIGH_MAX,
    P_HIGH_MIN,
    P_LOCKS,
    P_LONGEST,
    P_PREV_HIGH_ORDER,
    P_UNLISTED,
    P_WORDS,
    PCP,
    PCP_LISTS,
    SECTION_DRAIN,
    SECTION_REFILL,
    UNMAPPED_PCP_LIST,
    Z_BELOW_HIGH,
    Z_CMA,
    Z_HIGH,
    Z_RECLAIM_ACTIVE,
    Z_WORDS,
    ZONE_MOVABLE,
    Machine,
)
from tracereplay.machine.lists import add_head, add_tail, first, last, remove
from tracereplay.machine.page_prep import check_leaving
from tracereplay.machine.pcp_sizes import drain_pages_fixed, drain_pages_tuned, refill_blocks
from tracereplay.machine.sections import note_section
from tracereplay.machine.watermarks import watermark_ok

THP_LIST = MIGRATE_PCPTYPES * (PAGE_ALLOC_COSTLY_ORDER + 1)


@hot
def pcp_holds(m, order):
    """Whether blocks of this order live on per-CPU lists (``pcp_allowed_order``)."""
    return order < m.w[CFG_PCP_ORDERS] or (order == PAGEBLOCK_ORDER and m.w[CFG_THP_LISTS] > 0)


@hot
def pcp_index(m, order, mt):
    """Number of the list for an order and type (``order_to_pindex``)."""
    if mt == MIGRATE_UNMAPPED:
        return UNMAPPED_PCP_LIST + min(order, PAGE_ALLOC_COSTLY_ORDER + 1)
    if order < PAGEBLOCK_ORDER:
        return MIGRATE_PCPTYPES * order + mt
    lists = m.w[CFG_THP_LISTS]
    if lists == 1:
        return THP_LIST
    if lists == 2:
        return THP_LIST + (1 if mt == MIGRATE_MOVABLE else 0)
    return THP_LIST + mt


@hot
def pcp_head(m, p, index):
    """List head of list ``index`` of page set ``p`` (zone * cpus + cpu)."""
    return m.w[CFG_PCP_BASE] + p * PCP_LISTS + index


@hot
def pcp_lock(m, p):
    """Take the pcp lock (or what protects the lists in this generation)."""
    m.c[PCP_LOCK_ACQUISITIONS] += 1
    m.w[p * P_WORDS + P_LOCKS] += 1


@entry(Machine, int, int, int, int, int)
def refill(m, z, p, order, mt, flags):
    """Fill an empty list from the buddy lists under one zone-lock hold (``rmqueue_bulk``). Returns blocks moved.

    ``flags`` are ALLOC_* of the request. Each block keeps the type of the list that it came from.
    """
    wanted = refill_blocks(m, z, p, order)
    head = pcp_head(m, p, pcp_index(m, order, mt))
    mode = MODE_NORMAL
    plain = m.w[z * Z_WORDS + Z_CMA] == 0  # else CMA pages may come before those of the own type
    got = 0
    splits, fallbacks, moves = m.c[SPLITS], m.c[FALLBACKS], m.c[FALLBACK_BLOCK_MOVES]
    zone_lock(m, z)
    while got < wanted:
        pfn = rmqueue_smallest_here(m, z, order, mt) if plain and mode == MODE_NORMAL else -1
        if pfn < 0:
            pfn, mode = rmqueue(m, z, order, mt, flags, mode)
            if pfn < 0:
                break
        source = mt if plain or block_type(m, pfn) != MIGRATE_CMA else MIGRATE_CMA
        set_info(m, pfn, PCP | (source << INFO_TYPE_SHIFT) | order)
        add_tail(m.pg, head, m.w[CFG_NODES] + pfn)
        got += 1
    note_hold(m, z, H_REFILL_BLOCKS, got)
    note_hold(m, z, H_REFILL_PAGES, got << order)
    zone_unlock(m, z)
    splits, fallbacks, moves = m.c[SPLITS] - splits, m.c[FALLBACKS] - fallbacks, m.c[FALLBACK_BLOCK_MOVES] - moves
    note_section(m, SECTION_REFILL, 1, got, splits, fallbacks, moves, 0, 0, 0)
    m.w[p * P_WORDS + P_COUNT] += got << order
    m.c[PCP_REFILLS] += 1
    m.c[PCP_REFILL_BLOCKS] += got
    m.c[PCP_REFILL_PAGES] += got << order
    check_leaving(m, got << order)
    return got


@hot
def pcp_pop(m, z, p, order, mt, flags):
    """A block from a per-CPU list, refilled when empty (``__rmqueue_pcplist``). First frame or -1. Lock held."""
    head = pcp_head(m, p, pcp_index(m, order, mt))
    node = first(m.pg, head)
    if node == head:
        refill(m, z, p, order, mt, flags)
        node = first(m.pg, head)
        if node == head:
            return -1
    else:
        m.c[PCP_HITS] += 1
    remove(m.pg, node)
    m.w[p * P_WORDS + P_COUNT] -= 1 << order
    return node - m.w[CFG_NODES]


@hot
def note_pcp_alloc(m, p):
    """What a single allocation, but not a bulk one, does to the free-side scaling (``rmqueue_pcplist``)."""
    m.w[p * P_WORDS + P_FREE_FACTOR] >>= 1
    m.w[p * P_WORDS + P_FREE_COUNT] >>= 1


@hot
def drain_one(m, z, head):
    """Move the coldest block of a list to the buddy lists. Zone lock held. Returns its pages."""
    node = last(m.pg, head)
    remove(m.pg, node)
    pfn = node - m.w[CFG_NODES]
    info = get_info(m, pfn)
    order = info & INFO_ORDER
    if m.w[CFG_WITHHOLD]:  # the twin check waits for the kernel's own drain
        set_info(m, pfn, info & ~INFO_STATE | CACHED)
        add_tail(m.pg, m.w[CFG_WITHHOLD], node)
        return 1 << order
    mt = block_type(m, pfn) if m.w[CFG_KEEPS_TYPE] else info_type(info)
    set_info(m, pfn, HELD)
    free_one_page_here(m, z, pfn, order, mt, False)
    return 1 << order


@inner
def drain_lists(m, z, p, pages, index):
    """Take ``pages`` base pages off the lists of ``p``, from list ``index`` on (``free_pcppages_bulk``).

    One zone-lock hold. Since 5.18 a list is emptied before the next is looked at; before, round robin with a share
    of one block for each list visited, empty ones too. Returns pages moved; the last block may overshoot.
    """
    lists = MIGRATE_PCPTYPES * m.w[CFG_PCP_ORDERS]
    if m.w[CFG_THP_LISTS] > 0:
        lists = THP_LIST + m.w[CFG_THP_LISTS]
    if m.w[DM_UNMAPPED_TYPE]:
        lists = PCP_LISTS
    pages = min(pages, m.w[p * P_WORDS + P_COUNT] - m.w[p * P_WORDS + P_UNLISTED])
    moved = 0
    blocks = 0
    zone_lock(m, z)
    from_freed = m.w[CFG_FROM_FREED] != 0
    if not from_freed:
        index = 0
    share = 0
    while moved < pages:
        head = pcp_head(m, p, index)
        if from_freed:
            visited = 0
            while last(m.pg, head) == head and visited < lists:
                index = index + 1 if index + 1 < lists else 0
                head = pcp_head(m, p, index)
                visited += 1
            share = pages
        else:
            while True:
                share += 1
                index = index + 1 if index + 1 < lists else 0
                head = pcp_head(m, p, index)
                if last(m.pg, head) != head or share > lists:
                    break
            if share == lists:  # the only list with pages: take everything from here
                share = pages
        if last(m.pg, head) == head:  # fewer pages than count: only in the twin check
            break
        while True:
            moved += drain_one(m, z, head)
            blocks += 1
            share -= 1
            if moved >= pages or share == 0 or last(m.pg, head) == head:
                break
    note_hold(m, z, H_DRAIN_BLOCKS, blocks)
    note_hold(m, z, H_DRAIN_PAGES, moved)
    zone_unlock(m, z)
    m.w[p * P_WORDS + P_COUNT] -= moved
    m.w[p * P_WORDS + P_LONGEST] = max(m.w[p * P_WORDS + P_LONGEST], moved)
    m.w[SECTION_DRAIN] = max(m.w[SECTION_DRAIN], moved)
    m.c[PCP_DRAIN_BLOCKS] += blocks
    m.c[PCP_DRAIN_PAGES] += moved
    return moved


@entry(Machine, int, int, int, int)
def drain(m, z, p, pages, index):
    """One drain of ``pages`` after a free, pcp lock held: a single hold of the zone lock, or (6.19) ``batch`` pages a
    hold and the pcp lock let go in between. Returns pages moved.
    """
    m.c[PCP_DRAINS] += 1
    if not m.w[CFG_CHUNKED]:
        return drain_lists(m, z, p, pages, index)
    batch = m.w[p * P_WORDS + P_BATCH]
    moved = drain_lists(m, z, p, min(batch, pages), index)
    pages -= batch
    while pages > 0 and m.w[p * P_WORDS + P_COUNT] > 0:
        pcp_lock(m, p)
        moved += drain_lists(m, z, p, min(batch, pages), index)
        pages -= batch
    return moved


@entry(Machine, int, int)
def drain_zone(m, z, p):
    """Empty the lists of a page set (``drain_pages_zone``), from the first list on. Returns pages moved.

    Since 6.12 ``batch << scale_max`` pages a hold of the pcp lock; before, all in one.
    """
    moved = 0
    if m.w[p * P_WORDS + P_COUNT] > 0:
        m.c[PCP_DRAINS] += 1
    if m.w[CFG_DRAIN_ALL_CHUNKED]:
        chunk = m.w[p * P_WORDS + P_BATCH] << m.w[CFG_SCALE_MAX]
        while True:
            pcp_lock(m, p)
            count = m.w[p * P_WORDS + P_COUNT]
            got = drain_lists(m, z, p, min(count, chunk), 0) if count > 0 else 0
            moved += got
            # counted down, not read again: a THP may have left nothing for the next round
            if count <= chunk or got == 0:
                return moved
    # 5.10 and 5.14 disable interrupts to look; 6.1 takes the lock only when there is something
    if not m.w[CFG_FROM_FREED] or m.w[p * P_WORDS + P_COUNT] > 0:
        pcp_lock(m, p)
    if m.w[p * P_WORDS + P_COUNT] > 0:
        moved = drain_lists(m, z, p, m.w[p * P_WORDS + P_COUNT], 0)
    return moved


@inner
def drain_cpu(m, cpu):
    """Empty a CPU's lists of every zone (``drain_pages``): also what taking a CPU offline does. Returns pages moved."""
    moved = 0
    for z in range(m.w[CFG_ZONES]):
        moved += drain_zone(m, z, pcp_index_of_cpu(m, z, cpu))
    return moved


@entry(Machine)
def drain_all(m):
    """Empty all per-CPU lists (``drain_all_pages``): CPU by CPU, those without pages left alone. Pages moved."""
    moved = 0
    for cpu in range(m.w[CFG_CPUS]):
        held = 0
        for z in range(m.w[CFG_ZONES]):
            held += m.w[pcp_index_of_cpu(m, z, cpu) * P_WORDS + P_COUNT]
        if held > 0:
            moved += drain_cpu(m, cpu)
            if m.w[CFG_FROM_FREED] and cpu != m.w[CFG_CPU]:  # before, each CPU drained its own
                m.w[CFG_PCP_OTHERS] += 1
    return moved


@inner
def after_free(m, z, p, order, index):
    """What a free into the pcp may trigger: a drain, and with it the end of BELOW_HIGH.

    The bit goes when the zone is above HIGH for a request that could use the highest zone type (``zone_watermark_ok``
    with ZONE_MOVABLE): boost, lowmem reserve and what is set aside count. This test is not among ``watermark_checks``.
    """
    pages = drain_pages_fixed(m, z, p, order) if m.w[CFG_PCP_RULE] < 2 else drain_pages_tuned(m, z, p, order)
    if pages > 0:
        drain(m, z, p, pages, index)
        high = m.w[z * Z_WORDS + Z_HIGH]
        if m.w[z * Z_WORDS + Z_BELOW_HIGH] and watermark_ok(m, z, 0, high, ZONE_MOVABLE, 0):
            m.w[z * Z_WORDS + Z_BELOW_HIGH] = 0


@hot
def pcp_push(m, z, p, pfn, order, mt):
    """Free a block into the pcp (``free_unref_page_commit``). ``mt``: type of its pageblock, which the block keeps.

    HIGHATOMIC and CMA have no lists: such blocks lie among the movable ones.
    """
    m.w[p * P_WORDS + P_ALLOC_FACTOR] >>= 1
    set_info(m, pfn, PCP | (mt << INFO_TYPE_SHIFT) | order)
    index = pcp_index(m, order, mt if mt < MIGRATE_PCPTYPES or mt == MIGRATE_UNMAPPED else MIGRATE_MOVABLE)
    add_head(m.pg, pcp_head(m, p, index), m.w[CFG_NODES] + pfn)
    m.w[p * P_WORDS + P_COUNT] += 1 << order
    m.c[FREES_PCP] += 1
    # the common free of order 0 far below high needs none of the rules
    rule = m.w[CFG_PCP_RULE]
    if (
        order == 0
        and m.w[p * P_WORDS + P_COUNT] < m.w[p * P_WORDS + P_HIGH]
        and m.w[z * Z_WORDS + Z_BELOW_HIGH] | m.w[z * Z_WORDS + Z_RECLAIM_ACTIVE] == 0
    ):
        if (
            rule == 2
            and m.w[p * P_WORDS + P_HIGH] <= m.w[p * P_WORDS + P_HIGH_MAX]
            and m.w[p * P_WORDS + P_HIGH] >= m.w[p * P_WORDS + P_HIGH_MIN]
        ):
            m.w[p * P_WORDS + P_PREV_HIGH_ORDER] = 0
            if m.w[p * P_WORDS + P_FREE_COUNT] < m.w[p * P_WORDS + P_BATCH] << m.w[CFG_SCALE_MAX]:
                m.w[p * P_WORDS + P_FREE_COUNT] += 1
            return
        if rule < 2:
            return
    after_free(m, z, p, order, index)


@hot
def pcp_index_of_cpu(m, z, cpu):
    """Page set number of (zone, CPU)."""
    return z * m.w[CFG_CPUS] + cpu
