"""Put free blocks into a machine: a given number per migratetype and order, or those of a known state."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import inner, kernel
from tracereplay.kernel.constants import (
    MAX_PAGE_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    NR_PAGE_ORDERS,
    PAGEBLOCK_ORDER,
)
from tracereplay.machine.buddy import put_free, set_info, zone_of
from tracereplay.machine.initial import InitialState
from tracereplay.machine.layout import (
    B_MOVABLE,
    B_TYPE,
    B_WORDS,
    B_ZONE,
    CFG_BLOCKS,
    CFG_CPUS,
    CFG_NODES,
    INFO_TYPE_SHIFT,
    P_COUNT,
    P_WORDS,
    PCP,
    Z_FREE,
    Z_HIGHATOMIC,
    Z_SET_ASIDE,
    Z_WORDS,
    Machine,
)
from tracereplay.machine.lists import add_tail
from tracereplay.machine.pcp import pcp_head, pcp_holds, pcp_index


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


@kernel
def place_whole_blocks(m, z, start, end, mt):
    """Fill a range of whole blocks of the largest order with free ones of a type."""
    for pfn in range(start, end, 1 << MAX_PAGE_ORDER):
        put_free(m, z, pfn, MAX_PAGE_ORDER, mt, True)
        m.w[z * Z_WORDS + Z_FREE] += 1 << MAX_PAGE_ORDER
        note_free(m, pfn, MAX_PAGE_ORDER)


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


def place_initial(machine: Machine, state: InitialState) -> int:
    """Put a known state into a machine that has no free blocks yet; pages that have no place in it.

    Those outside its zones, and on lists that its CPUs do not have. What the state does not name is in use.
    """
    return int(place_state(machine, state.blocks, state.pcp, state.block_types, state.movable))


@kernel
def place_state(m, blocks, pcp, types, movable):
    """``place_initial`` with the arrays of a state."""
    known = min(types.shape[0], m.w[CFG_BLOCKS])
    for block in range(known):
        at = block * B_WORDS
        m.pb[at + B_TYPE] = types[block]
        if types[block] == MIGRATE_HIGHATOMIC and m.pb[at + B_ZONE] >= 0:
            z = m.pb[at + B_ZONE]
            m.w[z * Z_WORDS + Z_HIGHATOMIC] += 1 << PAGEBLOCK_ORDER
            m.w[z * Z_WORDS + Z_SET_ASIDE] += 1 << PAGEBLOCK_ORDER
        m.pb[at + B_MOVABLE] = 1 << PAGEBLOCK_ORDER if types[block] == MIGRATE_MOVABLE else 0
        if movable[block] >= 0:
            m.pb[at + B_MOVABLE] = movable[block]
    unplaced = 0
    for i in range(blocks.shape[0]):
        pfn, order, mt = blocks[i].pfn, int(blocks[i].order), int(blocks[i].mt)
        z = zone_of(m, pfn)
        if z < 0 or zone_of(m, pfn + (1 << order) - 1) != z:
            unplaced += 1 << order
            continue
        put_free(m, z, pfn, order, mt, True)
        m.w[z * Z_WORDS + Z_FREE] += 1 << order
        if movable[pfn >> PAGEBLOCK_ORDER] < 0:
            note_free(m, pfn, order)
    for i in range(pcp.shape[0]):
        pfn, order, mt, cpu = pcp[i].pfn, int(pcp[i].order), int(pcp[i].mt), int(pcp[i].cpu)
        z = zone_of(m, pfn)
        if z < 0 or cpu >= m.w[CFG_CPUS] or not pcp_holds(m, order):
            unplaced += 1 << order
            continue
        p = z * m.w[CFG_CPUS] + cpu
        set_info(m, pfn, PCP | (mt << INFO_TYPE_SHIFT) | order)
        add_tail(m.pg, pcp_head(m, p, pcp_index(m, order, mt)), m.w[CFG_NODES] + pfn)
        m.w[p * P_WORDS + P_COUNT] += 1 << order
        if movable[pfn >> PAGEBLOCK_ORDER] < 0:
            note_free(m, pfn, order)
    return unplaced
