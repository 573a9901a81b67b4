"""Lists of free blocks that a strategy keeps for itself, on the machine's page records.

A block is taken from the machine with ``alloc_pages`` and stays in use there; while it lies on a strategy's list its
head is marked CACHED with the list and an order of the strategy's choosing, so that buddies can be found and merged.

A strategy that protects its lists with a lock of its own says so: each hold is counted (``cache_locks``), and blocks
put, taken and joined under it are its work units; the longest hold is kept.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner
from tracereplay.kernel.constants import GIB_ORDER, MIGRATE_MOVABLE, PAGEBLOCK_ORDER
from tracereplay.machine.buddy import get_info, info_type, note_movable, set_info
from tracereplay.machine.counters import CACHE_LOCKS
from tracereplay.machine.layout import (
    CACHE_LONGEST,
    CACHE_WORK,
    CACHED,
    CFG_BLOCKS,
    CFG_FRAMES,
    CFG_NODES,
    CFG_STRATEGY_LIST,
    DM_ABSENT,
    DM_ABSENT_WORDS,
    ERROR_NOT_HELD,
    HELD,
    INFO_CPU_SHIFT,
    INFO_ORDER,
    INFO_STATE,
    INFO_TYPE,
    INFO_TYPE_SHIFT,
    USED,
)
from tracereplay.machine.lists import add_head, add_tail, first, remove
from tracereplay.machine.misuse import has_block, has_list, report_error


@hot
def count(m, counter, n):
    """Charge ``n`` to a counter."""
    m.c[counter] += n


@hot
def cache_lock(m):
    """Take the lock of a strategy's lists: counted, and its work starts at nothing."""
    m.c[CACHE_LOCKS] += 1
    m.w[CACHE_WORK] = 0


@hot
def cache_unlock(m):
    """Let go of it: the longest hold is kept, in work units."""
    m.w[CACHE_LONGEST] = max(m.w[CACHE_LONGEST], m.w[CACHE_WORK])


@inner
def cache_put(m, lst, pfn, order, tail):
    """Put a block on list ``lst`` (0 to STRATEGY_LISTS - 1)."""
    if not has_block(m, pfn, order) or not has_list(m, lst):
        return
    set_info(m, pfn, CACHED | (lst << INFO_CPU_SHIFT) | order)
    m.w[CACHE_WORK] += 1
    head = m.w[CFG_STRATEGY_LIST] + lst
    if tail:
        add_tail(m.pg, head, m.w[CFG_NODES] + pfn)
    else:
        add_head(m.pg, head, m.w[CFG_NODES] + pfn)


@inner
def cache_take(m, pfn, order, cpu):
    """Take a block off its list, to be in use with ``order`` (a part of it when smaller than it was)."""
    if cache_free_order(m, pfn) < order:
        report_error(m, ERROR_NOT_HELD, pfn)
        return
    remove(m.pg, m.w[CFG_NODES] + pfn)
    m.w[CACHE_WORK] += 1
    set_info(m, pfn, USED | (cpu << INFO_CPU_SHIFT) | order)


@inner
def cache_join(m, pfn, order):
    """Take the cached buddy of a block off its list and make both one. First frame of the larger block."""
    buddy = pfn ^ (1 << order)
    if cache_free_order(m, buddy) != order:
        report_error(m, ERROR_NOT_HELD, buddy)
        return pfn
    m.w[CACHE_WORK] += 1
    remove(m.pg, m.w[CFG_NODES] + buddy)
    set_info(m, pfn | buddy, HELD)  # the upper half heads nothing any more
    return pfn & buddy


@inner
def cache_first(m, lst):
    """First frame of the block at the head of a list; -1 when it is empty."""
    if not has_list(m, lst):
        return -1
    head = m.w[CFG_STRATEGY_LIST] + lst
    node = first(m.pg, head)
    return -1 if node == head else node - m.w[CFG_NODES]


@inner
def cache_free_order(m, pfn):
    """Order of the cached block that starts at a frame; -1 when none does."""
    if pfn < 0 or pfn >= m.w[CFG_FRAMES]:
        return -1
    info = get_info(m, pfn)
    return info & INFO_ORDER if info & INFO_STATE == CACHED else -1


@inner
def cache_own(m, pfn, order):
    """Make a block that was just allocated the strategy's: whatever flags got it, its pages are no movable ones."""
    info = get_info(m, pfn)
    if info_type(info) == MIGRATE_MOVABLE:
        note_movable(m, pfn, order, -1)
        set_info(m, pfn, info & ~(INFO_TYPE << INFO_TYPE_SHIFT))


@hot
def note_at(m, pfn):
    """Place in ``w`` of the note on a frame's 64 pages (``layout.notes_from``)."""
    blocks = m.w[CFG_BLOCKS]
    return DM_ABSENT + blocks * (DM_ABSENT_WORDS + 1) + (blocks >> GIB_ORDER - PAGEBLOCK_ORDER) + 1 + (pfn >> 6)


@inner
def note_block(m, pfn, order, note):
    """Note something with a block of at least 64 pages: whose it is."""
    for page in range(pfn, pfn + (1 << order), 64):
        m.w[note_at(m, page)] = note


@hot
def noted(m, pfn):
    """What was noted last with the block that a frame belongs to; 0: nothing."""
    return m.w[note_at(m, pfn)]


@inner
def cache_list(m, pfn):
    """List on which the block that starts at a frame lies; -1 when none does."""
    if pfn < 0 or pfn >= m.w[CFG_FRAMES]:
        return -1
    info = get_info(m, pfn)
    return info >> INFO_CPU_SHIFT if info & INFO_STATE == CACHED else -1
