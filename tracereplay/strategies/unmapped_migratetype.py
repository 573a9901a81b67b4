"""unmapped-migratetype: pages outside the direct map in pageblocks of a type of their own (strategies.md 6.5).

Mike Rapoport's first form of 2022: MIGRATE_UNMAPPED has buddy and per-CPU lists like any other type. Where it has
nothing it takes whole pageblocks, of UNMOVABLE before RECLAIMABLE before MOVABLE ones, with all their free pages; the
other types fall back to it last. A page leaves the direct map at each allocation, with a flush, and is mapped again at
each free, without one: one split a pageblock, but one flush an allocation.

The type is one of the machine's: buddy lists, per-CPU lists and fallback are those of all requests. What differs from
the patches: the entry is split when the pageblock's first page leaves the map, not by a probe when the pageblock is
taken (where no page table can be had, that page goes back and the request fails); free blocks of a pageblock or more do
not merge with those of other types; and drains of generations that go round the lists pass some that stay empty.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import REQUIRED
from tracereplay.kernel.constants import MIGRATE_UNMAPPED
from tracereplay.machine import ops
from tracereplay.machine.layout import DM_UNMAPPED_TYPE
from tracereplay.strategies.contract import (
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_ORDER,
    REQ_PAGES,
    Params,
    compiled,
)
from tracereplay.strategies.unmapped_lists import unmap_all


@dataclass(frozen=True)
class UnmappedMigratetype(Params):
    """No parameters."""

    name = "unmapped-migratetype"
    summary = "pageblocks of a type of their own, unmapped at each allocation"
    mimics = "'[RFC PATCH 0/3] Prototype for direct map awareness in page allocator', 2022-01-27: MIGRATE_UNMAPPED"
    leaves_out = "compaction capture, the bulk allocator (not supported there either), collapse (a stub there)"


def init(m, st):
    """The machine has the type from now on."""
    m.w[DM_UNMAPPED_TYPE] = 1


@compiled
def give_back(m, cpu, frame, order):
    """Map a block and free it: no flush."""
    ops.map_pages(m, frame, 1 << order)
    ops.free_pages(m, cpu, frame, order)


@compiled
def one_block(m, cpu, order, gfp):
    """A block of the type, out of the direct map. Frame or -1."""
    frame = ops.alloc_of_type(m, cpu, order, gfp, MIGRATE_UNMAPPED)
    if frame >= 0 and not unmap_all(m, cpu, frame, order):
        ops.free_pages(m, cpu, frame, order)
        return -1
    return frame


def allocate(m, st, req, out):
    """Serve a request page by page, or with one block where contiguity is needed."""
    order = req[REQ_ORDER] if req[REQ_FLAGS] & REQUIRED else 0
    blocks = req[REQ_PAGES] >> order
    for i in range(blocks):
        frame = one_block(m, req[REQ_CPU], order, req[REQ_GFP])
        if frame < 0:
            for k in range(i):
                give_back(m, req[REQ_CPU], out[2 * k], order)
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = order
    req[REQ_BLOCKS] = blocks
    return DONE


def release(m, st, block, cpu, now):
    """Map the block again and free it."""
    give_back(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
