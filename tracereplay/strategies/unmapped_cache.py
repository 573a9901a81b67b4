"""unmapped-cache: Mike Rapoport's cache of pages out of the direct map (RFC of 2023-03-08; strategies.md 6.2 to 6.4).

One cache for all nodes and CPUs, a buddy system of its own that starts empty, under one spinlock. A request takes the
smallest cached block that fits and puts the upper halves back. When none fits, the cache takes a 2 MiB block from the
page allocator (smaller when there is none), unmaps it page by page (split of its direct-map entry, one flush) and
zeroes it. Frees go back to the cache and merge there; only the shrinker maps blocks again and returns them. The
caller's ``alloc_pages`` and ``free_pages`` are calls as ever, whether the cache or the allocator serves them.

``mode=described`` follows the RFC's cover letter. ``mode=posted`` follows the patches where they differ: a refill
unmaps as many pages as were asked for and leaves the rest of its block mapped in the cache; a split that fails is
ignored; and a refill flags its pageblock, whose other pages fall to the cache when their users free them, also after
the shrinker gave back a block smaller or larger than the pageblock, which leaves the flag. The posted shrinker takes
other locks than the others do; here no two run at once, so that this changes no number.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import REQUIRED
from tracereplay.kernel.constants import PAGEBLOCK_ORDER
from tracereplay.kernel.gfp import GFP_THISNODE, GFP_ZERO
from tracereplay.machine import counters, ops
from tracereplay.machine.layout import CAPTURED_LIST, CN, MAX_NODES
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
from tracereplay.strategies.unmapped_lists import LARGEST, NR_LISTS, REFILL_FROM, put, put_locked, take, unmap_all

MODE, REFILL_ORDER, MIN_REFILL, ZERO, PER_NODE, SHRINKER, COLLAPSE = range(7)
DESCRIBED, POSTED = 0, 1
ZERO_AT_REFILL, ZERO_ALWAYS, ZERO_NEVER = 0, 1, 2
ASCENDING, DESCENDING = 0, 1
CACHE_HITS = counters.slot("cache_hits")
CACHE_MISSES = counters.slot("cache_misses")
CACHE_PUTS = counters.slot("cache_puts")
CACHE_REFILLS = counters.slot("cache_refills")
CACHE_MAPPED_PAGES = counters.slot("cache_mapped_pages")
SHRUNK_PAGES = counters.slot("shrunk_pages")
FREE_CALLS = counters.slot("free_calls")
ALLOC_CALLS = counters.slot("alloc_calls")


@dataclass(frozen=True)
class UnmappedCache(Params):
    """Parameters of the cache."""

    name = "unmapped-cache"
    summary = "a 2 MiB-wise cache of pages that left the direct map"
    mimics = "unmapped_alloc of '[RFC PATCH 0/5] Prototype for direct map awareness in page allocator', 2023-03-08"
    leaves_out = "races between CPUs on the cache; the posted shrinker's other locks; widened pageblock flags"

    mode: str = param(
        "described",
        unit="mode",
        choices=("described", "posted"),
        doc="the cover letter's cache, or the patches with their deviations",
        source="RFC 0/5 against 1/5 to 5/5",
    )
    refill_order: int = param(
        9, unit="order", low=0, high=9, doc="order asked first on a refill", source="RFC 1/5: starts at 9, never 10"
    )
    min_refill: int = param(
        0,
        unit="order",
        low=0,
        high=9,
        doc="smallest block a refill accepts, where the request is no larger",
        source="RFC 1/5: down to the request's order; a study option",
    )
    zero: str = param(
        "refill",
        unit="mode",
        choices=("refill", "always", "never"),
        doc="when pages are zeroed: at refill, at refill and each allocation, or never",
        source="RFC 1/5 zeroes at refill; 'always' is Rapoport's stated intent (P4), 'never' Christopherson's wish",
    )
    per_node: bool = param(
        False,
        unit="flag",
        doc="a cache for each NUMA node, refilled from its own memory first",
        source="study option: an extension that P4 calls simple but more costly in memory",
    )
    shrinker: str = param(
        "ascending",
        unit="mode",
        choices=("ascending", "descending"),
        doc="order in which the shrinker takes blocks: smallest or largest first",
        source="RFC 1/5: ascending; descending is a study option",
    )
    collapse_on_release: bool = param(
        False,
        unit="flag",
        doc="a 2 MiB entry is put together again once the shrinker has mapped all of it",
        source="study option: the RFC never collapses",
    )


def init(m, st):
    """The cache starts empty."""


@compiled
def lists_of(m, st, frame):
    """First list of the cache that a frame belongs to."""
    return ops.node_of(m, frame) * NR_LISTS if st[PER_NODE] else 0


@compiled
def absorb(m, st):
    """Put what the free path captured into the cache: it came with a hold of the lock each (posted)."""
    frame = ops.cache_first(m, CAPTURED_LIST)
    while frame >= 0:
        order = ops.cache_free_order(m, frame)
        ops.cache_take(m, frame, order, 0)
        ops.reserve_add(m, -(1 << order))
        put(m, lists_of(m, st, frame), frame, order, LARGEST)
        frame = ops.cache_first(m, CAPTURED_LIST)


@compiled
def unmap(m, st, cpu, frame, refilled, order):
    """Take a refilled block out of the direct map. False: not possible, and the block is not used."""
    if st[MODE] == DESCRIBED:
        return unmap_all(m, cpu, frame, refilled)
    for i in range(1 << order):
        ops.unmap_pages(m, cpu, frame + i, 1)
    ops.flush_range(m, 1 << order)
    ops.capture_frees(m, frame, True)
    return True


@compiled
def refill(m, st, cpu, order, gfp):
    """A block from the page allocator into the cache, unmapped. First list of its cache, or -1."""
    zero = GFP_ZERO if st[ZERO] != ZERO_NEVER else 0
    least = max(order, st[MIN_REFILL])
    for o in range(min(max(st[REFILL_ORDER], least), REFILL_FROM), least - 1, -1):
        frame = ops.alloc_pages(m, cpu, o, gfp & ~GFP_ZERO | zero)
        if frame >= 0:
            if not unmap(m, st, cpu, frame, o, order):
                ops.free_pages(m, cpu, frame, o)
                return -1
            ops.count(m, CACHE_REFILLS, 1)
            ops.cache_own(m, frame, o)
            lists = lists_of(m, st, frame)
            put_locked(m, lists, frame, o, LARGEST)
            return lists
    return -1


@compiled
def after_refill(m, st, cpu, order, gfp):
    """Refill and take a block. Frame or -1. With a cache a node: own memory, other caches, any memory."""
    if st[PER_NODE]:
        lists = refill(m, st, cpu, order, gfp | GFP_THISNODE)
        if lists >= 0:
            return take(m, lists, cpu, order)
        if gfp & GFP_THISNODE:
            return -1
        for distance in range(1, MAX_NODES):
            frame = take(m, (m.w[CN + cpu] + distance) % MAX_NODES * NR_LISTS, cpu, order)
            if frame >= 0:
                return frame
    lists = refill(m, st, cpu, order, gfp)
    return take(m, lists, cpu, order) if lists >= 0 else -1


@compiled
def one_block(m, st, cpu, order, gfp):
    """One block of ``order``. Frame or -1."""
    ops.count(m, ALLOC_CALLS, 1)
    frame = take(m, m.w[CN + cpu] * NR_LISTS if st[PER_NODE] else 0, cpu, order)
    if frame >= 0:
        ops.count(m, CACHE_HITS, 1)
    else:
        ops.count(m, CACHE_MISSES, 1)
        frame = after_refill(m, st, cpu, order, gfp)
    if frame >= 0:
        if st[ZERO] == ZERO_ALWAYS:
            ops.zero_pages(m, 1 << order)
        ops.charge_if_accounted(m, gfp)
        if st[MODE] == POSTED:
            ops.count(m, CACHE_MAPPED_PAGES, (1 << order) - ops.unmapped_pages(m, frame, 1 << order))
    return frame


def allocate(m, st, req, out):
    """Serve a request with single pages from the cache, or with one block where contiguity is needed."""
    absorb(m, st)
    order = req[REQ_ORDER] if req[REQ_FLAGS] & REQUIRED else 0
    blocks = req[REQ_PAGES] >> order
    for i in range(blocks):
        frame = one_block(m, st, req[REQ_CPU], order, req[REQ_GFP])
        if frame < 0:
            for k in range(i):
                put_locked(m, lists_of(m, st, out[2 * k]), out[2 * k], order, LARGEST)
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = order
    req[REQ_BLOCKS] = blocks
    return DONE


def release(m, st, block, cpu, now):
    """Back to the cache: still unmapped, nothing is flushed."""
    absorb(m, st)
    ops.count(m, FREE_CALLS, 1)
    ops.count(m, CACHE_PUTS, 1)
    frame = block[BLOCK_FRAME]
    put_locked(m, lists_of(m, st, frame), frame, block[BLOCK_ORDER], LARGEST)


@compiled
def give_back(m, st, frame, order):
    """Map a block again and free it to the tail of the buddy list. The flag goes with exactly a pageblock."""
    if order == PAGEBLOCK_ORDER:
        ops.capture_frees(m, frame, False)
    ops.map_pages(m, frame, 1 << order)
    ops.count(m, SHRUNK_PAGES, 1 << order)
    if st[COLLAPSE]:
        for page in range(frame, frame + (1 << order), 1 << PAGEBLOCK_ORDER):
            ops.collapse_block(m, 0, page)
    ops.free_to_tail(m, frame, order)


def shrink(m, st, pages):
    """The shrinker's scan: blocks of one order after another, until so many pages are back."""
    absorb(m, st)
    left = pages
    caches = MAX_NODES if st[PER_NODE] else 1
    for k in range(NR_LISTS):
        order = k if st[SHRINKER] == ASCENDING else LARGEST - k
        for cache in range(caches):
            while left > 0:
                frame = ops.cache_first(m, cache * NR_LISTS + order)
                if frame < 0:
                    break
                ops.cache_lock(m)
                ops.cache_take(m, frame, order, 0)
                ops.reserve_add(m, -(1 << order))
                ops.cache_unlock(m)
                give_back(m, st, frame, order)
                left -= 1 << order
