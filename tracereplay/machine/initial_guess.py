"""Free blocks where no page map says which frames are free: those that events prove, then counted ones (compiled).

Frames that leave the buddy lists before anything else happens to them were free, all at the same time, so they are
merged as far as they go (``initial_free.decompose``). A run of refilled frames proves the block that it was cut from.
Where events prove more blocks of an order than the snapshot counts, the last taken ones were parts of larger blocks:
small blocks leave first (``__rmqueue_smallest``). What is then still missing lies at random among frames that no event
names, each block beside a page in use, so that nothing merges.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tracereplay.compiled import inner, kernel
from tracereplay.kernel.constants import MAX_PAGE_ORDER, MIGRATE_MOVABLE, NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.machine.initial import EVIDENCE_NONE, I8, Records
from tracereplay.machine.initial_free import mergeable
from tracereplay.machine.initial_scan import BUDDY, NEVER, STATE
from tracereplay.machine.layout import NR_KERNEL_TYPES

FREE_BY_RUN, FREE_BY_GROWTH, FREE_BY_COUNT = range(3)
"""Pages that are taken to be free, by reason."""


@kernel
def fill_runs(first, need, start, end):
    """Mark what is left of the blocks that runs were cut from as free, and clear ``need``; pages marked."""
    pages = 0
    for pfn in range(start, end):
        if need[pfn] == 0:
            continue
        for p in range(pfn, min(pfn + (1 << need[pfn]), end)):
            if first[p] & STATE == NEVER:
                first[p] = BUDDY
                pages += 1
        need[pfn] = 0
    return pages


@inner
def may_be_free(first, pfn, size):
    """Whether nothing shows that one of these frames was not free."""
    for p in range(pfn, pfn + size):
        state = first[p] & STATE
        if state not in (NEVER, BUDDY):
            return False
    return True


@inner
def join_buddies(heads, types, have, pfn, order, start, end):
    """Merge a block with free buddies of its order, as far as it goes."""
    while order < MAX_PAGE_ORDER:
        buddy = pfn ^ (1 << order)
        low = min(pfn, buddy)
        if low < start or low + (2 << order) > end or heads[buddy] != order + 1 or not mergeable(types, low, order + 1):
            break
        for p in (pfn, buddy):
            have[types[p >> PAGEBLOCK_ORDER], order] -= 1
            heads[p] = 0
        pfn = low
        order += 1
        heads[pfn] = order + 1
        have[types[pfn >> PAGEBLOCK_ORDER], order] += 1


@kernel
def grow(first, heads, types, have, wanted, blocks, start, end):
    """Make larger blocks of those that are too many of their order, where larger ones are missing. Returns pages that
    became free by that.

    ``heads``: order + 1 at the first frame of a free block, else 0. ``have`` and ``wanted``: blocks by (type, order).
    ``blocks``: in the order in which they are to grow.
    """
    pages = 0
    for order in range(MAX_PAGE_ORDER):
        for i in range(blocks.shape[0]):
            pfn = blocks[i].pfn >> order << order  # the block, or what it has become by now
            mt = types[pfn >> PAGEBLOCK_ORDER]
            if heads[pfn] != order + 1 or have[mt, order] <= wanted[mt, order]:
                continue
            larger = False
            for k in range(order + 1, NR_PAGE_ORDERS):
                larger = larger or have[mt, k] < wanted[mt, k]
            if not larger:
                continue
            size = 1 << order
            buddy = pfn ^ size
            low = min(pfn, buddy)
            if low < start or low + 2 * size > end or not mergeable(types, low, order + 1):
                continue
            if not may_be_free(first, buddy, size):
                continue
            for p in range(buddy, buddy + size):
                if heads[p] > 0:
                    have[types[p >> PAGEBLOCK_ORDER], heads[p] - 1] -= 1
                    heads[p] = 0
                if first[p] & STATE == NEVER:
                    first[p] = BUDDY
                    pages += 1
            heads[pfn] = 0
            have[mt, order] -= 1
            heads[low] = order + 2
            have[types[low >> PAGEBLOCK_ORDER], order + 1] += 1
            join_buddies(heads, types, have, low, order + 1, start, end)
    return pages


@kernel
def unnamed_regions(first, types, start, end, out):
    """Maximal aligned regions of frames that no event names, ascending, into ``out`` (BLOCK records, with the type of
    their pageblock); how many. None reaches over pageblocks of two types. Nothing is written to an empty ``out``."""
    n = 0
    pfn = start
    while pfn < end:
        if first[pfn] & STATE != NEVER:
            pfn += 1
            continue
        order = 0
        size = 1
        while order < MAX_PAGE_ORDER and pfn & size == 0 and pfn + 2 * size <= end:
            p = pfn + size
            while p < pfn + 2 * size and first[p] & STATE == NEVER:
                p += 1
            if p < pfn + 2 * size or types[pfn >> PAGEBLOCK_ORDER] != types[(pfn + 2 * size - 1) >> PAGEBLOCK_ORDER]:
                break
            order += 1
            size *= 2
        if out.shape[0] > 0:
            out[n].pfn = pfn
            out[n].order = order
            out[n].mt = types[pfn >> PAGEBLOCK_ORDER]
        n += 1
        pfn += size
    return n


@kernel
def fill_counts(first, heads, types, have, wanted, mt, regions, stack, depth):
    """Place what is missing of type ``mt`` in ``regions``, the last ones first. Returns pages placed.

    ``stack[order]``: room for regions; ``depth``: zeros. A region is used whole where its buddy is no free block of the
    same order; else a larger one is cut, and its other half is kept for smaller blocks.
    """
    for i in range(regions.shape[0]):
        order = regions[i].order
        stack[order, depth[order]] = regions[i].pfn
        depth[order] += 1
    pages = 0
    for order in range(MAX_PAGE_ORDER, -1, -1):
        blocked = 0
        while have[mt, order] < wanted[mt, order]:
            k = order
            if depth[k] <= blocked:
                k += 1
                while k < NR_PAGE_ORDERS and depth[k] == 0:
                    k += 1
                if k == NR_PAGE_ORDERS:
                    break
            depth[k] -= 1
            pfn = np.int64(stack[k, depth[k]])
            if k == order and order < MAX_PAGE_ORDER and heads[pfn ^ (1 << order)] == order + 1:
                stack[k, depth[k]] = stack[k, blocked]  # put it aside, below what is still to be looked at
                stack[k, blocked] = pfn
                blocked += 1
                depth[k] += 1
                continue
            while k > order:
                k -= 1
                stack[k, depth[k]] = pfn + (1 << k)
                depth[k] += 1
            heads[pfn] = order + 1
            have[mt, order] += 1
            pages += 1 << order
            for block in range(pfn >> PAGEBLOCK_ORDER, (pfn + (1 << order) - 1 >> PAGEBLOCK_ORDER) + 1):
                types[block] = mt
            for p in range(pfn, pfn + (1 << order)):
                first[p] = BUDDY
    return pages


@kernel
def mark_heads(blocks, heads, have):
    """Enter blocks into ``heads`` and ``have``."""
    for i in range(blocks.shape[0]):
        heads[blocks[i].pfn] = blocks[i].order + 1
        have[int(blocks[i].mt), int(blocks[i].order)] += 1


@kernel
def collect_heads(heads, types, start, end, out):
    """Blocks of ``heads``, ascending, into ``out`` (BLOCK records)."""
    n = 0
    for pfn in range(start, end):
        if heads[pfn] > 0:
            out[n].pfn = pfn
            out[n].order = heads[pfn] - 1
            out[n].mt = types[pfn >> PAGEBLOCK_ORDER]
            heads[pfn] = 0
            n += 1


def complete_zone(
    first: npt.NDArray[np.uint8],
    heads: npt.NDArray[np.uint8],
    types: I8,
    evidence: I8,
    proven: Records,
    wanted: npt.NDArray[np.int64],
    span: tuple[int, int, int],
    rng: np.random.Generator,
    pages: npt.NDArray[np.int64],
) -> Records:
    """Free blocks of a zone, ascending by frame: ``proven`` ones and what ``wanted[type, order]`` counts beyond.

    ``proven``: maximal free blocks in the order in which events take them. ``span``: first frame, end, and the end of
    what was handed to the allocator. ``heads``: zeros, left so. Types of pageblocks of which nothing is known may
    change. ``pages`` is raised by reason (FREE_BY_GROWTH, FREE_BY_COUNT).
    """
    start, end, handed = span
    have = np.zeros((NR_KERNEL_TYPES, NR_PAGE_ORDERS), np.int64)
    mark_heads(proven, heads, have)
    pages[FREE_BY_GROWTH] += grow(first, heads, types, have, wanted, proven[::-1], start, end)
    for mt in (0, 2, *range(3, NR_KERNEL_TYPES), MIGRATE_MOVABLE):
        for spare in (False, True):  # first where the type is known to be this one, then where nothing is known
            missing = (wanted[mt] - have[mt]).clip(min=0)
            if not missing.any() or (spare and mt not in (0, 2)):
                continue
            regions = np.zeros(unnamed_regions(first, types, start, handed, proven[:0]), proven.dtype)
            unnamed_regions(first, types, start, handed, regions)
            if spare:
                blank = evidence[regions["pfn"] >> PAGEBLOCK_ORDER] == EVIDENCE_NONE
                regions = rng.permutation(regions[blank & (regions["mt"] == MIGRATE_MOVABLE)])
            else:
                regions = rng.permutation(regions[regions["mt"] == mt])
            stack = np.zeros((NR_PAGE_ORDERS, len(regions) + int(missing.sum()) + 1), np.int32)
            depth = np.zeros(NR_PAGE_ORDERS, np.int64)
            pages[FREE_BY_COUNT] += fill_counts(first, heads, types, have, wanted, mt, regions, stack, depth)
    found = np.zeros(int(have.sum()), proven.dtype)
    collect_heads(heads, types, start, end, found)
    return found
