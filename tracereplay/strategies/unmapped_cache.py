"""unmapped-cache: Mike Rapoport's cache of pages that left the direct map (RFC of 2023-03-08; strategies.md section 6).

One cache for all nodes and CPUs, a buddy system of its own that starts empty. A request takes the smallest cached block
that fits and puts the upper halves back. When none fits, the cache takes a 2 MiB block from the page allocator (smaller
when there is none), unmaps it (split of its direct-map entry, one flush) and zeroes it. Frees go back to the cache and
merge there; nothing returns to the system, since only the shrinker does that and it is not simulated yet. The caller's
``alloc_pages`` and ``free_pages`` are calls as ever, whether the cache or the allocator serves them.

This is the RFC as its cover letter describes it; where the posted patches differ (strategies.md 6.4) a later
parameter will tell.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import REQUIRED
from tracereplay.kernel.gfp import GFP_ZERO
from tracereplay.machine import counters, ops
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
    param,
)

REFILL_ORDER, ZERO = 0, 1
ZERO_AT_REFILL, ZERO_ALWAYS, ZERO_NEVER = 0, 1, 2
LARGEST = 10
LARGEST_REFILL = 9
CACHE_HITS = counters.slot("cache_hits")
CACHE_REFILLS = counters.slot("cache_refills")
ZEROED_PAGES = counters.slot("zeroed_pages")
FREE_CALLS = counters.slot("free_calls")
ALLOC_CALLS = counters.slot("alloc_calls")


@dataclass(frozen=True)
class UnmappedCache(Params):
    """Parameters of the cache."""

    name = "unmapped-cache"
    summary = "a 2 MiB-wise cache of pages that left the direct map"
    mimics = "unmapped_alloc of '[RFC PATCH 0/5] Prototype for direct map awareness in page allocator', 2023-03-08"
    leaves_out = "the shrinker, the posted patches' deviations from their cover letter, NUMA placement"

    refill_order: int = param(
        9, unit="order", low=0, high=9, doc="order asked first on a refill", source="RFC 1/5: starts at 9, never 10"
    )
    zero: str = param(
        "refill",
        unit="mode",
        choices=("refill", "always", "never"),
        doc="when pages are zeroed: at refill, at refill and each allocation, or never",
        source="RFC 1/5 zeroes at refill; 'always' is Rapoport's stated intent (P4), 'never' Christopherson's wish",
    )


def init(m, st):
    """The cache starts empty."""


@compiled
def put(m, frame, order):
    """Put a block into the cache, merging with free buddies up to order 10."""
    while order < LARGEST and ops.cache_free_order(m, frame ^ (1 << order)) == order:
        frame = ops.cache_join(m, frame, order)
        order += 1
    ops.cache_put(m, order, frame, order, False)


@compiled
def take(m, cpu, order):
    """The smallest cached block that fits, cut to ``order``. Frame or -1."""
    for o in range(order, LARGEST + 1):
        frame = ops.cache_first(m, o)
        if frame >= 0:
            ops.cache_take(m, frame, order, cpu)
            while o > order:
                o -= 1
                ops.cache_put(m, o, frame + (1 << o), o, False)
            ops.reserve_add(m, -(1 << order))
            return frame
    return -1


@compiled
def refill(m, st, cpu, order, gfp):
    """One block from the page allocator into the cache, unmapped. False when there is none of ``order`` or more."""
    zero = GFP_ZERO if st[ZERO] != ZERO_NEVER else 0
    for o in range(min(max(st[REFILL_ORDER], order), LARGEST_REFILL), order - 1, -1):
        frame = ops.alloc_pages(m, cpu, o, gfp & ~GFP_ZERO | zero)
        if frame >= 0:
            ops.count(m, CACHE_REFILLS, 1)
            ops.unmap_block(m, frame, o)
            ops.reserve_add(m, 1 << o)
            put(m, frame, o)
            return True
    return False


@compiled
def one_block(m, st, cpu, order, gfp):
    """One block of ``order``. Frame or -1."""
    ops.count(m, ALLOC_CALLS, 1)
    frame = take(m, cpu, order)
    if frame >= 0:
        ops.count(m, CACHE_HITS, 1)
    elif refill(m, st, cpu, order, gfp):
        frame = take(m, cpu, order)
    if frame >= 0 and st[ZERO] == ZERO_ALWAYS:
        ops.count(m, ZEROED_PAGES, 1 << order)
    return frame


def allocate(m, st, req, out):
    """Serve a request with single pages from the cache, or with one block where contiguity is needed."""
    order = req[REQ_ORDER] if req[REQ_FLAGS] & REQUIRED else 0
    blocks = req[REQ_PAGES] >> order
    for i in range(blocks):
        frame = one_block(m, st, req[REQ_CPU], order, req[REQ_GFP])
        if frame < 0:
            for k in range(i):
                ops.reserve_add(m, 1 << order)
                put(m, out[2 * k], order)
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = order
    req[REQ_BLOCKS] = blocks
    return DONE


def release(m, st, block, cpu, now):
    """Back to the cache: still unmapped, nothing is flushed."""
    ops.count(m, FREE_CALLS, 1)
    ops.reserve_add(m, 1 << block[BLOCK_ORDER])
    put(m, block[BLOCK_FRAME], block[BLOCK_ORDER])
