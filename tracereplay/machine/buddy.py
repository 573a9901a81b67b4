"""Buddy lists of a zone: split, merge, head and tail placement (page-allocator.md section 2).

Mimics ``expand``, ``__rmqueue_smallest`` and ``__free_one_page`` of mm/page_alloc.c. The caller holds the zone lock
(holds.py); every block moved, split or merged under it is one work unit of the hold.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import MAX_PAGE_ORDER, MIGRATE_PCPTYPES, NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.machine.counters import (
    MERGES,
    MERGES_BY_ORDER,
    SPLITS,
    SPLITS_BY_ORDER,
)
from tracereplay.machine.holds import note_hold
from tracereplay.machine.layout import (
    B_MOVABLE,
    B_TYPE,
    B_WORDS,
    B_ZONE,
    BUDDY,
    CFG_BLOCKS,
    CFG_KEEPS_TYPE,
    CFG_MERGES_RESERVED,
    CFG_NODES,
    H_MERGES,
    H_SPLITS,
    HELD,
    INFO,
    INFO_ORDER,
    INFO_STATE,
    INFO_TYPE,
    INFO_TYPE_SHIFT,
    NF,
    NODE_WORDS,
    NR_TYPES,
    Z_END,
    Z_FREE,
    Z_START,
    Z_WORDS,
    Z_WORK,
)
from tracereplay.machine.lists import add_head, add_tail, first, remove


@hot
def buddy_head(z, order, mt):
    """List head of the buddy list of a zone, order and migratetype."""
    return (z * NR_PAGE_ORDERS + order) * NR_TYPES + mt


@hot
def get_info(m, pfn):
    """Info word of a frame."""
    return np.int64(m.pg[NODE_WORDS * (m.w[CFG_NODES] + pfn) + INFO])


@hot
def set_info(m, pfn, info):
    """Replace the info word of a frame."""
    m.pg[NODE_WORDS * (m.w[CFG_NODES] + pfn) + INFO] = info


@hot
def set_owner(m, pfn, owner, tag):
    """Leave two words with a page in use: its links are idle until it is freed."""
    at = NODE_WORDS * (m.w[CFG_NODES] + pfn)
    m.pg[at] = owner
    m.pg[at + 1] = tag


@hot
def owner_of(m, pfn):
    """The two words that ``set_owner`` left."""
    at = NODE_WORDS * (m.w[CFG_NODES] + pfn)
    return np.int64(m.pg[at]), np.int64(m.pg[at + 1])


@hot
def put_free(m, z, pfn, order, mt, tail):
    """Link a free block into a buddy list (``__add_to_free_list``)."""
    set_info(m, pfn, BUDDY | (mt << INFO_TYPE_SHIFT) | order)
    node = m.w[CFG_NODES] + pfn
    if tail:
        add_tail(m.pg, buddy_head(z, order, mt), node)
    else:
        add_head(m.pg, buddy_head(z, order, mt), node)
    m.w[NF + (z * NR_PAGE_ORDERS + order) * NR_TYPES + mt] += 1


@hot
def take_free(m, z, pfn, order, mt):
    """Unlink a free block from its buddy list (``del_page_from_free_list``)."""
    remove(m.pg, m.w[CFG_NODES] + pfn)
    set_info(m, pfn, HELD)
    m.w[NF + (z * NR_PAGE_ORDERS + order) * NR_TYPES + mt] -= 1


@inner
def expand(m, z, pfn, low, high, mt):
    """Cut a block down to ``low``: each upper half goes to the head of its list (``expand``)."""
    note_hold(m, z, H_SPLITS, high - low)
    m.w[z * Z_WORDS + Z_WORK] += high - low
    while high > low:
        m.c[SPLITS] += 1
        m.c[SPLITS_BY_ORDER + high] += 1
        high -= 1
        put_free(m, z, pfn + (1 << high), high, mt, False)


@hot
def rmqueue_smallest_here(m, z, order, mt):
    """``rmqueue_smallest``, inlined: for refills."""
    for o in range(order, NR_PAGE_ORDERS):
        head = buddy_head(z, o, mt)
        node = first(m.pg, head)
        if node != head:
            pfn = node - m.w[CFG_NODES]
            take_free(m, z, pfn, o, mt)
            m.w[z * Z_WORDS + Z_FREE] -= 1 << order
            m.w[z * Z_WORDS + Z_WORK] += 1
            if o > order:
                expand(m, z, pfn, order, o, mt)
            return pfn
    return -1


@inner
def rmqueue_smallest(m, z, order, mt):
    """First frame of a block of ``order`` from the smallest non-empty list of ``mt``; -1 when there is none."""
    return rmqueue_smallest_here(m, z, order, mt)


@hot
def is_free_block(m, z, pfn, order):
    """Whether a frame heads a free block of exactly ``order`` in this zone (``page_is_buddy``)."""
    if pfn < m.w[z * Z_WORDS + Z_START] or pfn >= m.w[z * Z_WORDS + Z_END]:
        return False
    return get_info(m, pfn) & (INFO_STATE | INFO_ORDER) == BUDDY | order


@hot
def info_type(info):
    """Migratetype in an info word."""
    return (info >> INFO_TYPE_SHIFT) & INFO_TYPE


@hot
def free_one_page_here(m, z, pfn, order, mt, tail):
    """Give a block to the buddy lists, merging as far as it goes (``__free_one_page``). Inlined: for drains.

    ``mt`` is the list's type. Blocks below a pageblock merge whatever their types; at or above it both types must be
    mergeable (section 2.4, rule 2c; up to 5.15 only ISOLATE, of which there is none here, keeps blocks apart).
    ``tail`` forces tail placement (FPI_TO_TAIL).
    """
    m.w[z * Z_WORDS + Z_FREE] += 1 << order
    before = order
    while order < MAX_PAGE_ORDER:
        buddy = pfn ^ (1 << order)
        if not is_free_block(m, z, buddy, order):
            break
        buddy_type = info_type(get_info(m, buddy))
        if order >= PAGEBLOCK_ORDER and buddy_type != mt:
            if (buddy_type >= MIGRATE_PCPTYPES or mt >= MIGRATE_PCPTYPES) and not m.w[CFG_MERGES_RESERVED]:
                break
            if m.w[CFG_KEEPS_TYPE]:
                for block in range(buddy >> PAGEBLOCK_ORDER, (buddy + (1 << order)) >> PAGEBLOCK_ORDER):
                    m.pb[block * B_WORDS + B_TYPE] = mt
        take_free(m, z, buddy, order, buddy_type)
        m.c[MERGES] += 1
        m.c[MERGES_BY_ORDER + order] += 1
        pfn &= buddy
        order += 1
    note_hold(m, z, H_MERGES, order - before)
    m.w[z * Z_WORDS + Z_WORK] += 1 + order - before
    if not tail and order < MAX_PAGE_ORDER - 1:
        # buddy_merge_likely: our buddy is in use but the next larger pair's other half is free
        tail = is_free_block(m, z, (pfn & ~(1 << order)) ^ (1 << (order + 1)), order + 1)
    put_free(m, z, pfn, order, mt, tail)


@inner
def free_one_page(m, z, pfn, order, mt, tail):
    """``free_one_page_here``, out of line."""
    free_one_page_here(m, z, pfn, order, mt, tail)


@hot
def block_type(m, pfn):
    """Migratetype of the pageblock of a frame."""
    return np.int64(m.pb[(pfn >> PAGEBLOCK_ORDER) * B_WORDS + B_TYPE])


@hot
def note_movable(m, pfn, order, sign):
    """Note pages in use that were asked for as movable, or their end, with their pageblocks (order 10 has two)."""
    at = (pfn >> PAGEBLOCK_ORDER) * B_WORDS + B_MOVABLE
    m.pb[at] += sign * min(1 << order, 1 << PAGEBLOCK_ORDER)
    if order > PAGEBLOCK_ORDER:
        m.pb[at + B_WORDS] += sign << PAGEBLOCK_ORDER


@hot
def zone_of(m, pfn):
    """Zone number of a frame; -1 outside."""
    if pfn < 0 or pfn >> PAGEBLOCK_ORDER >= m.w[CFG_BLOCKS]:
        return -1
    z = np.int64(m.pb[(pfn >> PAGEBLOCK_ORDER) * B_WORDS + B_ZONE])
    if z < 0 or pfn < m.w[z * Z_WORDS + Z_START] or pfn >= m.w[z * Z_WORDS + Z_END]:
        return -1
    return z
