"""Compiled pieces that strategies share: the one block of a contiguous request, dm-crypt's pages and its restart."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.demand.stream import ON_PATH, REQUIRED
from tracereplay.kernel.gfp import GFP_HIGHMEM, GFP_NOWAIT
from tracereplay.machine import counters, ops
from tracereplay.strategies.contract import (
    BLOCK_FLAGS,
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_GFP,
    REQ_ORDER,
    compiled,
    inlined,
)

CRYPT_GFP = GFP_NOWAIT | GFP_HIGHMEM
"""gfp of the first pass of ``crypt_alloc_buffer``; the second adds direct reclaim."""
MUTEX = counters.slot("mutex_acquisitions")
RESTARTS = counters.slot("restarts")


@compiled
def one_block(m, req, out):
    """A request that needs contiguity: one block of its order with the recorded gfp. DONE or FAIL."""
    frame = ops.alloc_pages(m, req[REQ_CPU], req[REQ_ORDER], req[REQ_GFP])
    if frame < 0:
        return FAIL
    out[0] = frame
    out[1] = req[REQ_ORDER]
    req[REQ_BLOCKS] = 1
    return DONE


@compiled
def restart_under_mutex(m):
    """dm-crypt's second pass: the buffer starts again with the mutex held."""
    ops.count(m, RESTARTS, 1)
    ops.count(m, MUTEX, 1)


@inlined
def from_pool(block):
    """Whether a block is a single page that the path's mempool gave."""
    flags = block[BLOCK_FLAGS]
    return flags & ON_PATH != 0 and flags & REQUIRED == 0 and block[BLOCK_ORDER] == 0


@inlined
def free_page(m, block, cpu):
    """Give a block back: through the mempool where it came from there."""
    if from_pool(block):
        ops.pool_free(m, cpu, block[BLOCK_FRAME])
    else:
        ops.free_pages_here(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
