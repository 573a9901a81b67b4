"""Place a given number of free blocks per migratetype and order into a zone (initial state)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner, kernel
from tracereplay.kernel.constants import MAX_PAGE_ORDER, MIGRATE_MOVABLE, NR_PAGE_ORDERS, PAGEBLOCK_ORDER
from tracereplay.machine.buddy import put_free
from tracereplay.machine.layout import B_MOVABLE, B_TYPE, B_WORDS, Z_FREE, Z_WORDS


@kernel
def place_free_blocks(m, z, wanted, regions, edges, stack):
    """Put ``wanted[mt, order]`` free blocks into zone ``z`` (counted down). Returns pages that did not fit.

    ``regions``: first frames of the zone's blocks of the largest order, shuffled; whole ones are dealt out in that
    order. ``edges``: (frame, order) of what is left at the zone's ends. ``stack[order]``: room for region stacks.
    A region of order k+1 that gives a block of order k keeps its other half for smaller blocks, where at least one
    page stays in use, so nothing placed here merges.
    """
    unplaced = 0
    dealt = 0
    for mt in (MIGRATE_MOVABLE, 0, 2):
        depth = stack[:, 0]
        depth[:] = 0
        if mt == MIGRATE_MOVABLE:
            for i in range(edges.shape[0]):
                order = edges[i, 1]
                if wanted[mt, order] > 0:  # its buddy lies partly outside the zone, so it may be free whole
                    wanted[mt, order] -= 1
                    put_free(m, z, edges[i, 0], order, mt, True)
                    m.w[z * Z_WORDS + Z_FREE] += 1 << order
                    note_free(m, edges[i, 0], order)
                else:
                    depth[order] += 1
                    stack[order, depth[order]] = edges[i, 0]
        for i in range(wanted[mt, MAX_PAGE_ORDER]):
            if dealt >= regions.shape[0]:
                unplaced += (wanted[mt, MAX_PAGE_ORDER] - i) << MAX_PAGE_ORDER
                break
            set_region(m, regions[dealt], mt)
            put_free(m, z, regions[dealt], MAX_PAGE_ORDER, mt, True)
            m.w[z * Z_WORDS + Z_FREE] += 1 << MAX_PAGE_ORDER
            note_free(m, regions[dealt], MAX_PAGE_ORDER)
            dealt += 1
        for order in range(MAX_PAGE_ORDER - 1, -1, -1):
            for i in range(wanted[mt, order]):
                k = order + 1
                while k < NR_PAGE_ORDERS and depth[k] == 0:
                    k += 1
                if k == NR_PAGE_ORDERS:
                    if dealt >= regions.shape[0]:
                        unplaced += (wanted[mt, order] - i) << order
                        break
                    set_region(m, regions[dealt], mt)
                    k = MAX_PAGE_ORDER
                    depth[k] = 1
                    stack[k, 1] = regions[dealt]
                    dealt += 1
                pfn = stack[k, depth[k]]
                depth[k] -= 1
                while k > order + 1:
                    k -= 1
                    depth[k] += 1
                    stack[k, depth[k]] = pfn + (1 << k)
                depth[order] += 1
                stack[order, depth[order]] = pfn + (1 << order)
                put_free(m, z, pfn, order, mt, True)
                m.w[z * Z_WORDS + Z_FREE] += 1 << order
                note_free(m, pfn, order)
    return unplaced


@inner
def set_region(m, pfn, mt):
    """Type of the pageblocks of a region; pages in use there are movable ones where the type is."""
    for block in range(pfn >> PAGEBLOCK_ORDER, (pfn + (1 << MAX_PAGE_ORDER)) >> PAGEBLOCK_ORDER):
        m.pb[block * B_WORDS + B_TYPE] = mt
        m.pb[block * B_WORDS + B_MOVABLE] = 1 << PAGEBLOCK_ORDER if mt == MIGRATE_MOVABLE else 0


@inner
def note_free(m, pfn, order):
    """Take a free block's pages off the movable pages in use."""
    for block in range(pfn >> PAGEBLOCK_ORDER, ((pfn + (1 << order) - 1) >> PAGEBLOCK_ORDER) + 1):
        pages = min(1 << order, 1 << PAGEBLOCK_ORDER)
        m.pb[block * B_WORDS + B_MOVABLE] = max(0, m.pb[block * B_WORDS + B_MOVABLE] - pages)
