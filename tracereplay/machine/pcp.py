"""Per-CPU page lists: pop, refill, push and drain, by generation (page-allocator.md section 3).

Mimics ``rmqueue_pcplist``, ``nr_pcp_alloc``, ``rmqueue_bulk``, ``free_unref_page_commit``, ``nr_pcp_high``,
``nr_pcp_free`` and ``free_pcppages_bulk``. Allocation and free take the head, refills append and drains take the tail.
The periodic decay of the vmstat worker and zones under reclaim are not modelled.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import MIGRATE_MOVABLE, MIGRATE_PCPTYPES, PAGE_ALLOC_COSTLY_ORDER, PAGEBLOCK_ORDER
from tracereplay.machine.buddy import (
    block_type,
    free_one_page_here,
    get_info,
    info_type,
    rmqueue_smallest_here,
    set_info,
    zone_lock,
    zone_unlock,
)
from tracereplay.machine.counters import (
    FREES_PCP,
    PCP_DRAIN_PAGES,
    PCP_DRAINS,
    PCP_HITS,
    PCP_LOCK_ACQUISITIONS,
    PCP_REFILL_PAGES,
    PCP_REFILLS,
)
from tracereplay.machine.fallback import MODE_NORMAL, rmqueue
from tracereplay.machine.layout import (
    CFG_CHUNKED,
    CFG_CPUS,
    CFG_FREE_HIGH_ADD,
    CFG_FROM_FREED,
    CFG_KEEPS_TYPE,
    CFG_NODES,
    CFG_PCP_BASE,
    CFG_PCP_ORDERS,
    CFG_PCP_RULE,
    CFG_SCALE_MAX,
    CFG_THP_LISTS,
    HELD,
    INFO_ORDER,
    INFO_TYPE_SHIFT,
    P_ALLOC_FACTOR,
    P_BATCH,
    P_COUNT,
    P_FREE_COUNT,
    P_FREE_FACTOR,
    P_FREE_HIGH_BATCH,
    P_HIGH,
    P_HIGH_MAX,
    P_HIGH_MIN,
    P_LOCKS,
    P_LONGEST,
    P_PREV_HIGH_ORDER,
    P_WORDS,
    PCP,
    PCP_LISTS,
    Z_BELOW_HIGH,
    Z_FREE,
    Z_HIGH,
    Z_WORDS,
)
from tracereplay.machine.lists import add_head, add_tail, first, last, remove

THP_LIST = MIGRATE_PCPTYPES * (PAGE_ALLOC_COSTLY_ORDER + 1)


@hot
def pcp_holds(m, order):
    """Whether blocks of this order live on per-CPU lists (``pcp_allowed_order``)."""
    return order < m.w[CFG_PCP_ORDERS] or (order == PAGEBLOCK_ORDER and m.w[CFG_THP_LISTS] > 0)


@hot
def pcp_index(m, order, mt):
    """Number of the list for an order and type (``order_to_pindex``)."""
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


@hot
def clamp(value, low, high):
    """``clamp`` of the kernel: the upper bound wins."""
    return min(max(value, low), high)


@inner
def refill_blocks(m, z, p, order):
    """How many blocks a refill asks for (section 3.5)."""
    batch = m.w[p * P_WORDS + P_BATCH]
    rule = m.w[CFG_PCP_RULE]
    if rule == 0:
        return batch
    if rule == 1:
        return max(batch >> order, 2) if batch > 1 else batch
    low, top = m.w[p * P_WORDS + P_HIGH_MIN], m.w[p * P_WORDS + P_HIGH_MAX]
    high = clamp(m.w[p * P_WORDS + P_HIGH], low, top)
    m.w[p * P_WORDS + P_HIGH] = high
    if high < batch:
        return 1
    blocks = batch if order > 0 else batch << m.w[p * P_WORDS + P_ALLOC_FACTOR]
    if low != top and not m.w[z * Z_WORDS + Z_BELOW_HIGH]:
        high = min(high + blocks, top)
        m.w[p * P_WORDS + P_HIGH] = high
    if order == 0:
        room = max(high - m.w[p * P_WORDS + P_COUNT] - batch, batch)
        if blocks <= room and m.w[p * P_WORDS + P_ALLOC_FACTOR] < m.w[CFG_SCALE_MAX]:
            m.w[p * P_WORDS + P_ALLOC_FACTOR] += 1
        blocks = min(blocks, room)
    if blocks > 1:
        blocks = max(blocks >> order, 2)
    return blocks


@inner
def refill(m, z, p, order, mt, nofragment):
    """Fill an empty list from the buddy lists under one zone-lock hold (``rmqueue_bulk``). Returns blocks moved."""
    wanted = refill_blocks(m, z, p, order)
    head = pcp_head(m, p, pcp_index(m, order, mt))
    mode = MODE_NORMAL
    got = 0
    zone_lock(m, z)
    while got < wanted:
        pfn = rmqueue_smallest_here(m, z, order, mt) if mode == MODE_NORMAL else -1
        if pfn < 0:
            pfn, mode = rmqueue(m, z, order, mt, nofragment, mode)
            if pfn < 0:
                break
        set_info(m, pfn, PCP | (mt << INFO_TYPE_SHIFT) | order)
        add_tail(m.pg, head, m.w[CFG_NODES] + pfn)
        got += 1
    zone_unlock(m, z)
    m.w[p * P_WORDS + P_COUNT] += got << order
    m.c[PCP_REFILLS] += 1
    m.c[PCP_REFILL_PAGES] += got << order
    return got


@hot
def pcp_pop(m, z, p, order, mt, nofragment):
    """A block from a per-CPU list, refilled when empty (``__rmqueue_pcplist``). First frame or -1. Lock held."""
    head = pcp_head(m, p, pcp_index(m, order, mt))
    node = first(m.pg, head)
    if node == head:
        refill(m, z, p, order, mt, nofragment)
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
    pages = min(pages, m.w[p * P_WORDS + P_COUNT])
    moved = 0
    zone_lock(m, z)
    from_freed = m.w[CFG_FROM_FREED] != 0
    if not from_freed:
        index = 0
    share = 0
    while moved < pages:
        head = pcp_head(m, p, index)
        if from_freed:
            while last(m.pg, head) == head:
                index = index + 1 if index + 1 < lists else 0
                head = pcp_head(m, p, index)
            share = pages
        else:
            while True:
                share += 1
                index = index + 1 if index + 1 < lists else 0
                head = pcp_head(m, p, index)
                if last(m.pg, head) != head:
                    break
            if share == lists:  # the only list with pages: take everything from here
                share = pages
        while True:
            moved += drain_one(m, z, head)
            share -= 1
            if moved >= pages or share == 0 or last(m.pg, head) == head:
                break
    zone_unlock(m, z)
    m.w[p * P_WORDS + P_COUNT] -= moved
    m.c[PCP_DRAIN_PAGES] += moved
    return moved


@inner
def drain(m, z, p, pages, index):
    """One drain of ``pages``: a single hold of the zone lock, or chunks of ``batch`` and the pcp lock anew (6.19)."""
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


@inner
def drain_pages_fixed(m, p, order):
    """Pages to drain after a free, generations with a fixed high (section 3.6, up to 6.6); 0 for none."""
    batch, high, count = m.w[p * P_WORDS + P_BATCH], m.w[p * P_WORDS + P_HIGH], m.w[p * P_WORDS + P_COUNT]
    if m.w[CFG_PCP_RULE] == 0:
        return batch if count >= high else 0
    if m.w[CFG_FROM_FREED] and 0 < order <= PAGE_ALLOC_COSTLY_ORDER and m.w[p * P_WORDS + P_FREE_FACTOR] > 0:
        return count
    if count < high:
        return 0
    if high < batch:
        return 1
    pages = batch << m.w[p * P_WORDS + P_FREE_FACTOR]
    if pages < high - batch:
        m.w[p * P_WORDS + P_FREE_FACTOR] += 1
    return clamp(pages, batch, high - batch)


@inner
def drain_pages_tuned(m, z, p, order):
    """Pages to drain after a free, auto-tuned generations (section 3.6, 6.7 on); 0 for none."""
    batch, count = m.w[p * P_WORDS + P_BATCH], m.w[p * P_WORDS + P_COUNT]
    limit = batch << m.w[CFG_SCALE_MAX]
    low, top = m.w[p * P_WORDS + P_HIGH_MIN], m.w[p * P_WORDS + P_HIGH_MAX]
    free_high = False
    if 0 < order <= PAGE_ALLOC_COSTLY_ORDER:
        needed = batch + (low // 2 if m.w[CFG_FREE_HIGH_ADD] else 0)
        free_high = m.w[p * P_WORDS + P_PREV_HIGH_ORDER] != 0 and m.w[p * P_WORDS + P_FREE_COUNT] >= needed
        free_high = free_high and (m.w[p * P_WORDS + P_FREE_HIGH_BATCH] == 0 or count >= batch)
        m.w[p * P_WORDS + P_PREV_HIGH_ORDER] = 1
    else:
        m.w[p * P_WORDS + P_PREV_HIGH_ORDER] = 0
    if m.w[p * P_WORDS + P_FREE_COUNT] < limit:
        m.w[p * P_WORDS + P_FREE_COUNT] += 1 << order
    high = clamp(m.w[p * P_WORDS + P_HIGH], low, top)
    threshold = high
    if high == 0:
        threshold = 0
    elif free_high:
        m.w[p * P_WORDS + P_HIGH] = max(high - limit, low)
        threshold = 0
    elif low == top:
        threshold = high
    elif m.w[z * Z_WORDS + Z_BELOW_HIGH]:
        m.w[p * P_WORDS + P_HIGH] = max(high - max(m.w[p * P_WORDS + P_FREE_COUNT], batch), low)
        threshold = max(count, low)
    elif count >= high:
        need = m.w[p * P_WORDS + P_FREE_COUNT] + batch
        if m.w[p * P_WORDS + P_HIGH] < need:
            m.w[p * P_WORDS + P_HIGH] = clamp(need, low, top)
    if count < threshold:
        return 0
    if free_high:
        return min(count, limit)
    if threshold < batch:
        return 1
    return clamp(m.w[p * P_WORDS + P_FREE_COUNT], batch, threshold - batch)


@inner
def after_free(m, z, p, order, index):
    """What a free into the pcp may trigger: a drain, and with it the end of BELOW_HIGH."""
    pages = drain_pages_fixed(m, p, order) if m.w[CFG_PCP_RULE] < 2 else drain_pages_tuned(m, z, p, order)
    if pages > 0:
        before = m.w[z * Z_WORDS + Z_FREE]
        drain(m, z, p, pages, index)
        m.w[p * P_WORDS + P_LONGEST] = max(m.w[p * P_WORDS + P_LONGEST], m.w[z * Z_WORDS + Z_FREE] - before)
        if m.w[z * Z_WORDS + Z_BELOW_HIGH] and m.w[z * Z_WORDS + Z_FREE] > m.w[z * Z_WORDS + Z_HIGH]:
            m.w[z * Z_WORDS + Z_BELOW_HIGH] = 0


@hot
def pcp_push(m, z, p, pfn, order, mt):
    """Free a block into the pcp (``free_unref_page_commit``). ``mt``: type of its pageblock, 0 to 2."""
    m.w[p * P_WORDS + P_ALLOC_FACTOR] >>= 1
    set_info(m, pfn, PCP | (mt << INFO_TYPE_SHIFT) | order)
    index = pcp_index(m, order, mt)
    add_head(m.pg, pcp_head(m, p, index), m.w[CFG_NODES] + pfn)
    m.w[p * P_WORDS + P_COUNT] += 1 << order
    m.c[FREES_PCP] += 1
    # the common free of order 0 far below high needs none of the rules
    rule = m.w[CFG_PCP_RULE]
    if order == 0 and m.w[p * P_WORDS + P_COUNT] < m.w[p * P_WORDS + P_HIGH] and not m.w[z * Z_WORDS + Z_BELOW_HIGH]:
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
