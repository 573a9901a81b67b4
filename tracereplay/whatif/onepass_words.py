"""Steps of the per-CPU lists, as one-pass sweeps read them: what a demand does to the lists whatever their sizes are.

A step is one 32-bit word of the stream of its page set (zone * cpus + cpu): kind, class, list and how often. Imports no
Numba.
"""

from __future__ import annotations

from tracereplay.kernel.constants import MIGRATE_PCPTYPES, NR_PAGE_ORDERS, PAGEBLOCK_ORDER

# ---- kinds of steps
ALLOC = 0
"""So many single allocations of a list, one after another."""
FREE = 1
REQUEST = 2
"""A request for so many order-0 pages that the strategy serves."""
UNSEEN = 3
"""The same of the background, served in bulk where there is such a call."""
TICK = 4
"""A run of the CPU's vmstat worker."""
KIND_BITS = 3
# ---- whose it is
BACKGROUND, TARGETED, SETUP, CLASSES = 0, 1, 2, 3
"""SETUP is counted for nobody: what fills a path's reserve before the first operation."""
CLASS_SHIFT = 3
ACCOUNTED = 1 << 5
"""The request is charged to a memory cgroup, which alloc_pages_bulk hands to the ordinary way from 5.15 on."""
LIST_SHIFT = 6
"""List: order code * 3 + migratetype."""
HEAD_BITS = 10
MOST = (1 << 32 - HEAD_BITS) - 1
"""Repeats of one word."""
LIST_ORDERS = (0, 1, 2, 3, PAGEBLOCK_ORDER)
"""Order of each order code: those that any generation has lists for."""
LISTS = len(LIST_ORDERS) * MIGRATE_PCPTYPES
NETS = NR_PAGE_ORDERS * MIGRATE_PCPTYPES
"""Sorts of blocks in a zone: order * 3 + migratetype."""

# ---- a block in the frame map of the recorder
E_PRESENT = 1
E_ORDER_SHIFT = 1
E_TYPE_SHIFT = 5
E_ZONE_SHIFT = 7
E_TARGETED = 1 << 12
E_PATH = 1 << 13
"""It came through the path's mempool."""
E_SPREAD = 1 << 14
"""A single page of a background block that was cut up; of which order is in the bits above."""
E_SPREAD_SHIFT = 15
E_BITS = 19
LEFT_BITS = 11
"""``left`` of a targeted block that comes back in pieces: pages that are not back yet, below its entry."""

# ---- scalars of the recorder
(
    S_WORDS,  # words written
    S_REASON,  # why it stopped: RECORDED or FLUSH
    S_STEPS,  # pages or blocks that passed the lists
    S_PATH_LIVE,  # pages out through the path
    S_PATH_PEAK,
    S_TOGETHER_NS,  # when blocks were freed as one of which no one knows whether they lie together; -1: never
    S_BAD_TYPE_NS,  # when a page came back whose pageblock has no list of its own; -1: never
    S_SMALL,  # only order 0 has lists (5.10)
    S_ROOM,  # words that fit
    S_WORDS_END,
) = range(10)
RECORDED, FLUSH = 0, 1
SPARE_WORDS = 1 << 15
"""More than the words of one operation: every block of the largest request on its own, and a tick for every zone."""

# ---- what the recorder keeps for each zone (z * ZF_WORDS)
(
    ZF_ASKED,  # the most that an allocation wanted above the watermark: its lowmem reserve and its pages
    ZF_ASKED_NS,
    ZF_ORDERS,  # bits of the orders that were asked for
    ZF_THP,  # bits of the types of pageblock-sized blocks that were seen
    ZF_THP_BACK,  # such blocks that were in use at the start and came back
    ZF_CUT_NS,  # when one was first cut up; -1: never
    ZF_WORDS,
) = range(7)
