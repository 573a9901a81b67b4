"""unmapped-per-use: a cache of its own for each user of pages outside the direct map (strategies.md 6.7).

``mode=pool`` is secretmem's of 2020 (v8, dropped before the merge): a pool for each file, grown by a block of 2 MiB
when it has no room, which leaves the direct map in one ranged call with one flush. Freed pages return to that pool as
they are; all of it is cleared, mapped and given back when the file is gone. ``mode=page`` is what was merged: each page
leaves with a flush of its own when it is allocated, and is mapped and cleared when it is freed.

Whose a request is, is told by its caller: callers share ``users`` pools by their number. A file's end is in no trace;
the last page of a pool that is freed stands for it (``give_back=last``). The pool's blocks come from the page allocator
with the caller's flags where secretmem took them from CMA; its genalloc bitmap is a buddy system here. Shares of a
page, as bpf_prog_pack and execmem hand out, are not modelled.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.demand.stream import REQUIRED
from tracereplay.machine import counters, ops
from tracereplay.strategies.contract import (
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CALLER,
    REQ_CPU,
    REQ_FLAGS,
    REQ_GFP,
    REQ_ORDER,
    REQ_PAGES,
    Params,
    compiled,
    param,
)
from tracereplay.strategies.unmapped_lists import NR_LISTS, put_locked, take, unmap_all

MODE, USERS, BLOCK, GIVE_BACK = range(4)
LIVE = 4
"""First state word of pages in use, by pool."""
MAX_USERS = 64
POOL, PAGE = 0, 1
LAST, WHOLE, NEVER_BACK = 0, 1, 2
CACHE_HITS = counters.slot("cache_hits")
CACHE_MISSES = counters.slot("cache_misses")
CACHE_PUTS = counters.slot("cache_puts")
CACHE_REFILLS = counters.slot("cache_refills")
ALLOC_CALLS = counters.slot("alloc_calls")
FREE_CALLS = counters.slot("free_calls")


@dataclass(frozen=True)
class UnmappedPerUse(Params):
    """Parameters of the pools."""

    name = "unmapped-per-use"
    summary = "a cache of unmapped pages for each user, or none: page by page"
    mimics = "mm/secretmem.c as of v8 of 2020 (a gen_pool a file), and as merged in v5.14 (page by page)"
    leaves_out = "CMA, shares of a page (bpf_prog_pack, execmem), the end of files, NUMA"

    mode: str = param(
        "pool",
        unit="mode",
        choices=("pool", "page"),
        doc="a pool for each user, or each page by itself",
        source="secretmem v8 5/9 (2020-11); mm/secretmem.c since v5.14",
    )
    users: int = param(
        16,
        unit="pools",
        low=1,
        high=MAX_USERS,
        doc="pools; a request's is its caller's number modulo it",
        source="no such number exists: v8 has a pool for each file",
    )
    block_order: int = param(
        9, unit="order", low=6, high=9, doc="order of the blocks that a pool grows by", source="v8: PMD_SIZE, 2 MiB"
    )
    give_back: str = param(
        "last",
        unit="mode",
        choices=("last", "block", "never"),
        doc="when pages leave a pool: with the last one in use, in whole free blocks, or never",
        source="v8: when the file is destroyed; the others are study options",
    )

    def state_words(self) -> int:
        """Parameters, and pages in use for each pool."""
        return LIVE + MAX_USERS


def init(m, st):
    """The pools start empty."""


@compiled
def return_block(m, cpu, frame, order):
    """Clear and map a block that no list holds, and free it."""
    ops.zero_pages(m, 1 << order)
    ops.map_pages(m, frame, 1 << order)
    ops.free_pages(m, cpu, frame, order)


@compiled
def single(m, cpu, order, gfp):
    """A block from the allocator, out of the direct map by itself. Frame or -1."""
    frame = ops.alloc_pages(m, cpu, order, gfp)
    if frame >= 0 and not unmap_all(m, cpu, frame, order):
        ops.free_pages(m, cpu, frame, order)
        return -1
    return frame


@compiled
def grow(m, st, cpu, user, gfp):
    """A block for a user's pool. False: there is none."""
    order = st[BLOCK]
    frame = single(m, cpu, order, gfp)
    if frame < 0:
        return False
    ops.count(m, CACHE_REFILLS, 1)
    ops.cache_own(m, frame, order)
    ops.note_block(m, frame, order, user)
    put_locked(m, user * NR_LISTS, frame, order, order)
    return True


@compiled
def from_pool(m, st, cpu, user, order, gfp):
    """A block of a user's pool, which grows for it. Frame or -1."""
    ops.count(m, ALLOC_CALLS, 1)
    frame = take(m, user * NR_LISTS, cpu, order)
    if frame >= 0:
        ops.count(m, CACHE_HITS, 1)
    else:
        ops.count(m, CACHE_MISSES, 1)
        if order <= st[BLOCK] and grow(m, st, cpu, user, gfp):
            frame = take(m, user * NR_LISTS, cpu, order)
    if frame >= 0:
        st[LIVE + user] += 1 << order
    return frame


@compiled
def empty_list(m, cpu, lst, order):
    """Return all blocks of a list to the system."""
    frame = ops.cache_first(m, lst)
    while frame >= 0:
        ops.cache_lock(m)
        ops.cache_take(m, frame, order, cpu)
        ops.reserve_add(m, -(1 << order))
        ops.cache_unlock(m)
        return_block(m, cpu, frame, order)
        frame = ops.cache_first(m, lst)


@compiled
def to_pool(m, st, cpu, frame, order):
    """A block back into the pool that it came from, and what leaves the pool with it."""
    user = ops.noted(m, frame)
    st[LIVE + user] -= 1 << order
    whole = put_locked(m, user * NR_LISTS, frame, order, st[BLOCK]) == st[BLOCK]
    if (st[GIVE_BACK] == LAST and st[LIVE + user] == 0) or (st[GIVE_BACK] == WHOLE and whole):
        empty_list(m, cpu, user * NR_LISTS + st[BLOCK], st[BLOCK])


@compiled
def give(m, st, cpu, frame, order):
    """A block back, as the mode has it."""
    if st[MODE] == PAGE:
        return_block(m, cpu, frame, order)
    else:
        to_pool(m, st, cpu, frame, order)


def allocate(m, st, req, out):
    """Serve a request page by page, or with one block where contiguity is needed."""
    cpu, gfp = req[REQ_CPU], req[REQ_GFP]
    user = req[REQ_CALLER] % st[USERS]
    order = req[REQ_ORDER] if req[REQ_FLAGS] & REQUIRED else 0
    blocks = req[REQ_PAGES] >> order
    for i in range(blocks):
        paged = st[MODE] == PAGE
        frame = single(m, cpu, order, gfp) if paged else from_pool(m, st, cpu, user, order, gfp)
        if frame < 0:
            for k in range(i):
                give(m, st, cpu, out[2 * k], order)
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = order
    req[REQ_BLOCKS] = blocks
    return DONE


def release(m, st, block, cpu, now):
    """Back into its pool, or mapped, cleared and freed."""
    if st[MODE] == POOL:
        ops.count(m, FREE_CALLS, 1)
        ops.count(m, CACHE_PUTS, 1)
    give(m, st, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
