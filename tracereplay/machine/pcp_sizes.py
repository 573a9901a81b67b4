"""How many pages a refill takes and a free gives back, by generation (page-allocator.md 3.5, 3.6 and 3.8 a).

Mimics ``nr_pcp_alloc``, ``nr_pcp_high``, ``nr_pcp_free`` and the first half of ``decay_pcp_high`` of mm/page_alloc.c:
arithmetic on the words of a page set, no page moves here. In each of them ``high`` is what the step before returned:
``nr_pcp_free`` gets the *threshold* of ``nr_pcp_high``, which under pressure is not ``pcp->high``.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import PAGE_ALLOC_COSTLY_ORDER
from tracereplay.machine.layout import (
    CFG_FREE_HIGH_ADD,
    CFG_FROM_FREED,
    CFG_PCP_RULE,
    CFG_SCALE_MAX,
    P_ALLOC_FACTOR,
    P_BATCH,
    P_COUNT,
    P_FREE_COUNT,
    P_FREE_FACTOR,
    P_FREE_HIGH_BATCH,
    P_HIGH,
    P_HIGH_MAX,
    P_HIGH_MIN,
    P_PREV_HIGH_ORDER,
    P_WORDS,
    Z_BELOW_HIGH,
    Z_RECLAIM_ACTIVE,
    Z_WORDS,
)


@hot
def clamp(value, low, high):
    """``clamp`` of the kernel: the upper bound wins."""
    return min(max(value, low), high)


@inner
def refill_blocks(m, z, p, order):
    """How many blocks a refill asks for (``nr_pcp_alloc``; up to 6.6 the start of ``__rmqueue_pcplist``)."""
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
def drain_pages_fixed(m, z, p, order):
    """Pages to drain after a free, generations with a fixed high (up to 6.6); 0 for none.

    5.10 knows neither reclaim nor orders. From 5.14 on kswapd at work on the zone lowers the threshold to 4 batches,
    and 6.1 drains everything after a free of order 1 to 3 when another drain came just before (``free_high``). Its
    drains double up to ``batch << CONFIG_PCP_BATCH_SCALE_MAX``: so they do in Debian's 6.1 (traces/mixed-6.1: five of
    2,016 pages, none of 4,032), while 6.1.0 had no limit yet.
    """
    batch, high, count = m.w[p * P_WORDS + P_BATCH], m.w[p * P_WORDS + P_HIGH], m.w[p * P_WORDS + P_COUNT]
    if m.w[CFG_PCP_RULE] == 0:
        return batch if count >= high else 0
    if m.w[CFG_FROM_FREED] and 0 < order <= PAGE_ALLOC_COSTLY_ORDER and m.w[p * P_WORDS + P_FREE_FACTOR] > 0:
        return count
    if m.w[z * Z_WORDS + Z_RECLAIM_ACTIVE]:
        high = min(4 * batch, high)  # a high of 0 stays 0
    if count < high:
        return 0
    if high < batch:
        return 1
    factor = m.w[p * P_WORDS + P_FREE_FACTOR]
    pages = batch << factor
    if pages < high - batch and (factor < m.w[CFG_SCALE_MAX] or not m.w[CFG_FROM_FREED]):
        m.w[p * P_WORDS + P_FREE_FACTOR] += 1
    return clamp(pages, batch, high - batch)


@inner
def drain_threshold(m, z, p, free_high):
    """Pages at which a free drains, auto-tuned generations; moves ``high`` on the way (``nr_pcp_high``, 6.7 on)."""
    batch, free_count = m.w[p * P_WORDS + P_BATCH], m.w[p * P_WORDS + P_FREE_COUNT]
    low, top = m.w[p * P_WORDS + P_HIGH_MIN], m.w[p * P_WORDS + P_HIGH_MAX]
    high = clamp(m.w[p * P_WORDS + P_HIGH], low, top)
    m.w[p * P_WORDS + P_HIGH] = high
    if high == 0:
        return 0
    if free_high:
        m.w[p * P_WORDS + P_HIGH] = max(high - (batch << m.w[CFG_SCALE_MAX]), low)
        return 0
    if m.w[z * Z_WORDS + Z_RECLAIM_ACTIVE]:  # before the test for a fixed high: pcp->high falls to high_min at most
        m.w[p * P_WORDS + P_HIGH] = max(high - max(free_count, batch), low)
        return min(4 * batch, m.w[p * P_WORDS + P_HIGH])
    if low == top:
        return high
    if m.w[z * Z_WORDS + Z_BELOW_HIGH]:
        m.w[p * P_WORDS + P_HIGH] = max(high - max(free_count, batch), low)
        return max(m.w[p * P_WORDS + P_COUNT], low)
    if m.w[p * P_WORDS + P_COUNT] >= high and high < free_count + batch:
        m.w[p * P_WORDS + P_HIGH] = clamp(free_count + batch, low, top)
    return high


@inner
def drain_pages_tuned(m, z, p, order):
    """Pages to drain after a free, auto-tuned generations (``nr_pcp_free``, 6.7 on); 0 for none."""
    batch, count = m.w[p * P_WORDS + P_BATCH], m.w[p * P_WORDS + P_COUNT]
    limit = batch << m.w[CFG_SCALE_MAX]
    free_high = False
    if 0 < order <= PAGE_ALLOC_COSTLY_ORDER:
        needed = batch + (m.w[p * P_WORDS + P_HIGH_MIN] // 2 if m.w[CFG_FREE_HIGH_ADD] else 0)
        free_high = m.w[p * P_WORDS + P_PREV_HIGH_ORDER] != 0 and m.w[p * P_WORDS + P_FREE_COUNT] >= needed
        free_high = free_high and (m.w[p * P_WORDS + P_FREE_HIGH_BATCH] == 0 or count >= batch)
        m.w[p * P_WORDS + P_PREV_HIGH_ORDER] = 1
    else:
        m.w[p * P_WORDS + P_PREV_HIGH_ORDER] = 0
    if m.w[p * P_WORDS + P_FREE_COUNT] < limit:
        m.w[p * P_WORDS + P_FREE_COUNT] += 1 << order
    threshold = drain_threshold(m, z, p, free_high)
    if count < threshold:
        return 0
    if free_high:
        return min(count, limit)
    if threshold < batch:
        return 1
    return clamp(m.w[p * P_WORDS + P_FREE_COUNT], batch, threshold - batch)


@inner
def decay_high(m, p):
    """Lower an auto-tuned high as the vmstat worker does (``decay_pcp_high``). Pages that exceed it then."""
    high, low = m.w[p * P_WORDS + P_HIGH], m.w[p * P_WORDS + P_HIGH_MIN]
    if high > low:
        most = m.w[p * P_WORDS + P_COUNT] - (m.w[p * P_WORDS + P_BATCH] << m.w[CFG_SCALE_MAX])
        high = max(max(most, high - (high >> 3)), low)
        m.w[p * P_WORDS + P_HIGH] = high
    return max(m.w[p * P_WORDS + P_COUNT] - high, 0)
