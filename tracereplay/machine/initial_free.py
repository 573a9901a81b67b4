"""Free frames as buddy blocks: maximal aligned ones, as merging leaves them (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import inner, kernel
from tracereplay.kernel.constants import MAX_PAGE_ORDER, MIGRATE_PCPTYPES, PAGEBLOCK_ORDER
from tracereplay.machine.initial_scan import BUDDY, EARLY, IN_USE, NEVER, PCP, STATE

MAP_AGREES, MAP_FREE_USED, MAP_USED_FREE = range(3)
"""Frames first named after the map was read: it agrees, it says free and the event says in use, the other way round."""


@kernel
def apply_map(first, starts, lengths, free, counts):
    """Settle the state of every frame of the map's runs: by its first event where that came before the reading, else
    by the map. ``counts``: see MAP_AGREES and the following.
    """
    for i in range(starts.shape[0]):
        end = min(starts[i] + lengths[i], first.shape[0])
        for p in range(starts[i], end):
            state = first[p] & STATE
            if first[p] & EARLY:
                continue
            if free[i]:
                if state != NEVER:
                    counts[MAP_AGREES if state == BUDDY else MAP_FREE_USED] += 1
                first[p] = BUDDY
            elif state == NEVER:
                first[p] = IN_USE
            elif state == BUDDY:
                counts[MAP_USED_FREE] += 1
                first[p] = IN_USE
            else:
                counts[MAP_AGREES] += 1


@kernel
def keep_popped(first, popped, kept):
    """Which blocks that left CPU lists were on them at the start, by the settled state of their frames."""
    for i in range(popped.shape[0]):
        entry = popped[i]
        kept[i] = True
        for p in range(entry.pfn, entry.pfn + (1 << entry.order)):
            if first[p] & STATE != PCP:
                kept[i] = False


@inner
def mergeable(types, pfn, order):
    """Whether the halves of a block of this order merge by their pageblocks' types (section 2.4, rule 2c)."""
    if order <= PAGEBLOCK_ORDER:
        return True
    low = types[pfn >> PAGEBLOCK_ORDER]
    high = types[(pfn >> PAGEBLOCK_ORDER) + 1]
    return low == high or (low < MIGRATE_PCPTYPES and high < MIGRATE_PCPTYPES)


@kernel
def decompose(first, types, start, end, out):
    """Cut the free frames of a zone into maximal aligned blocks, ascending, into ``out`` (BLOCK records); how many.

    Nothing is written where ``out`` is empty. Blocks end at the zone's ends and where types do not merge.
    """
    n = 0
    pfn = start
    while pfn < end:
        if first[pfn] & STATE != BUDDY:
            pfn += 1
            continue
        order = 0
        size = 1
        while order < MAX_PAGE_ORDER and pfn & size == 0 and pfn + 2 * size <= end:
            p = pfn + size
            while p < pfn + 2 * size and first[p] & STATE == BUDDY:
                p += 1
            if p < pfn + 2 * size or not mergeable(types, pfn, order + 1):
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
def first_taken(blocks, taken, when):
    """For each block (ascending by frame) the place in ``taken`` at which its first piece left the buddy lists;
    ``when`` comes filled with a number beyond all."""
    for i in range(taken.shape[0]):
        pfn = taken[i]
        low = np.int64(0)
        high = np.int64(blocks.shape[0])
        while low < high:
            middle = (low + high) >> 1
            if blocks[middle].pfn <= pfn:
                low = middle + 1
            else:
                high = middle
        if low > 0:
            block = blocks[low - 1]
            if pfn < block.pfn + (1 << block.order) and when[low - 1] > i:
                when[low - 1] = i
