"""page-pool: the recycling pool of network drivers, net/core/page_pool.c (strategies.md section 8).

A pool for each receive queue, and each CPU is one queue. A request takes its pages one by one from the queue's stack of
at most ``cache`` pages. When that is empty, up to ``refill`` pages come from the queue's ring, the oldest first; a page
of a foreign node among them is freed and ends that. When none came, one bulk call asks for ``refill`` pages. A request
fails when that brings nothing: the packet is dropped.

A page freed on its queue's own CPU goes to the stack, as in the queue's NAPI context; where that is full, or freed on
another CPU, to the ring; where that is full too, back to the page allocator.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.kernel.gfp import GFP_ACCOUNT, GFP_MOVABLE, GFP_RECLAIMABLE
from tracereplay.machine import counters, ops
from tracereplay.machine.layout import MAX_CPUS
from tracereplay.strategies.contract import (
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_GFP,
    REQ_ORDER,
    REQ_PAGES,
    Params,
    compiled,
    param,
)
from tracereplay.strategies.parts import one_block
from tracereplay.strategies.percpu import CACHE_PUTS, COUNT, CPU_WORDS, CPUS_AT, miss, pop, push, words_of

CACHE, REFILL, RING, NUMA_MATCH = 0, 1, 2, 3
RING_COUNT = 1
"""Word of a CPU: pages in its ring."""
LARGEST_REFILL = 1024
SLOTS = CPUS_AT + MAX_CPUS * CPU_WORDS
"""The array of a bulk call: pairs of frame and order."""
PLAIN = ~(GFP_ACCOUNT | GFP_MOVABLE | GFP_RECLAIMABLE)
"""A pool's pages are unmovable and charged to nobody: what remains of the request's gfp."""
CACHE_REFILLS = counters.slot("cache_refills")
UNLOCKED_HITS = counters.slot("unlocked_hits")
UNLOCKED_PUTS = counters.slot("unlocked_puts")


@dataclass(frozen=True)
class PagePool(Params):
    """Parameters of a pool."""

    name = "page-pool"
    summary = "network drivers' recycling pool: a stack of 128 and a ring of 1024 pages a queue, refilled by 64 in bulk"
    mimics = "page_pool_alloc_pages and page_pool_put_page, net/core/page_pool.c"
    leaves_out = "DMA mapping, fragments, the ring's locks, pages in flight, pools of higher orders"

    cache: int = param(
        128, unit="pages", low=1, high=16384, doc="most pages in a queue's stack", source="PP_ALLOC_CACHE_SIZE"
    )
    refill: int = param(
        64,
        unit="pages",
        low=1,
        high=LARGEST_REFILL,
        doc="pages of one refill, from the ring or in bulk",
        source="PP_ALLOC_CACHE_REFILL",
    )
    ring: int = param(
        1024, unit="pages", low=0, high=32768, doc="most pages in a queue's ring", source="pool_size, 1024 by default"
    )
    numa_match: bool = param(
        True, unit="flag", doc="a foreign page in the ring is freed and ends the refill", source="page_pool_refill"
    )

    def state_words(self) -> int:
        """Words of state: parameters, the CPUs' words, the array of the bulk call."""
        return SLOTS + 2 * LARGEST_REFILL


def init(m, st):
    """Pools start empty."""


@compiled
def refill_from_ring(m, st, cpu):
    """Move pages from a queue's ring to its stack (``page_pool_refill_alloc_cache``)."""
    c = words_of(cpu)
    moved = 0
    while moved < st[REFILL] and st[c + RING_COUNT] > 0:
        frame = ops.stack_pop(m, MAX_CPUS + cpu, cpu)
        st[c + RING_COUNT] -= 1
        if st[NUMA_MATCH] and not ops.is_local(m, cpu, frame):
            ops.free_pages(m, cpu, frame, 0)
            break
        push(m, st, cpu, frame)
        moved += 1


@compiled
def refill_in_bulk(m, st, cpu, gfp):
    """One bulk call for the stack (``__page_pool_alloc_pages_slow``)."""
    wanted = min(st[REFILL], st[CACHE])
    slots = st[SLOTS : SLOTS + 2 * LARGEST_REFILL]
    for i in range(wanted):
        slots[2 * i] = -1
    got = ops.alloc_pages_bulk(m, cpu, gfp & PLAIN, wanted, slots)
    for i in range(got):
        push(m, st, cpu, slots[2 * i])
    if got > 0:
        ops.count(m, CACHE_REFILLS, 1)


@compiled
def one_page(m, st, cpu, gfp):
    """A page of the CPU's queue. Frame or -1."""
    c = words_of(cpu)
    if st[c + COUNT] == 0:
        refill_from_ring(m, st, cpu)
    if st[c + COUNT] > 0:
        ops.count(m, UNLOCKED_HITS, 1)
        return pop(m, st, cpu)
    miss(m, st, cpu)
    refill_in_bulk(m, st, cpu, gfp)
    return pop(m, st, cpu) if st[c + COUNT] > 0 else -1


@compiled
def recycle(m, st, cpu, frame):
    """A page comes back: to its queue's stack, else to its ring, else to the page allocator."""
    home = ops.taken_on(m, frame)
    c = words_of(home)
    if home == cpu and st[c + COUNT] < st[CACHE]:
        ops.count(m, UNLOCKED_PUTS, 1)
        push(m, st, home, frame)
    elif st[c + RING_COUNT] < st[RING]:
        ops.count(m, CACHE_PUTS, 1)
        st[c + RING_COUNT] += 1
        ops.stack_push(m, MAX_CPUS + home, frame, True)
    else:
        ops.free_pages(m, cpu, frame, 0)


def allocate(m, st, req, out):
    """Serve a request page by page; one that needs a larger block gets it from the page allocator."""
    cpu = req[REQ_CPU]
    if req[REQ_ORDER] > 0:
        return one_block(m, req, out)
    for i in range(req[REQ_PAGES]):
        frame = one_page(m, st, cpu, req[REQ_GFP])
        if frame < 0:
            for k in range(i):
                recycle(m, st, cpu, out[2 * k])
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = 0
    req[REQ_BLOCKS] = req[REQ_PAGES]
    return DONE


def release(m, st, block, cpu, now):
    """A page into the pool that it came from, a larger block to the page allocator."""
    if block[BLOCK_ORDER] > 0:
        ops.free_pages(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
    else:
        recycle(m, st, cpu, block[BLOCK_FRAME])
