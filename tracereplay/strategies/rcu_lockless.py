"""rcu-lockless: pages off the per-CPU lists alone, never a lock above them, never a refill (strategies.md 7.2).

What Rezki proposed for kvfree_rcu, whose callers may hold raw spinlocks: a request takes its pages one by one from the
CPU's lists and fails when they are empty, which is often. ``types=any`` is his first version: any migratetype, no
watermark. ``types=own`` takes unmovable pages only. ``watermark=true`` is Babka's variant, a gfp flag that is looked at
once the list is found empty: the request's own type, watermarks as ever.

``refill_worker`` is its companion: RCU keeps up to ``cached`` pages per CPU, asks that cache first, and starts a worker
when it runs dry, whose allocations (GFP_KERNEL, one after another) refill the per-CPU lists on the way. Pages are freed
to the page allocator.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.kernel.gfp import GFP_KERNEL, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine import counters, ops
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
    compiled,
    param,
)
from tracereplay.strategies.parts import one_block
from tracereplay.strategies.percpu import (
    CACHE_HITS,
    COUNT,
    US,
    WORKER_DELAY,
    WorkerParams,
    drain,
    fill,
    miss,
    pop,
    start_worker,
    words_of,
)

TYPES, WATERMARK, REFILL_WORKER, CACHED = 3, 4, 5, 6
ANY = 0
WORKER_GFP = GFP_KERNEL | GFP_NORETRY | GFP_NOWARN
CACHE_REFILLS = counters.slot("cache_refills")
WORKER_RUNS = counters.slot("worker_runs")


@dataclass(frozen=True)
class RcuLockless(WorkerParams):
    """Parameters; their words follow those of the worker."""

    name = "rcu-lockless"
    summary = "pages off the per-CPU lists alone: no zone lock, no refill, and failure when they are empty"
    mimics = "__rcu_alloc_page_lockless of '[RFC-PATCH 2/4] mm: Add __rcu_alloc_page_lockless() func.', 2020-09-18"
    leaves_out = "what a caller does without its page; a pcp lock that is busy"

    types: str = param(
        "any",
        unit="migratetypes",
        choices=("any", "own"),
        doc="lists that pages come from",
        source="first version; Babka",
    )
    watermark: bool = param(
        False, unit="flag", doc="Babka's variant: watermarks and the request's own type", source="strategies.md 7.2"
    )
    refill_worker: bool = param(
        True, unit="flag", doc="a cache per CPU, asked first, that a worker fills when it is empty", source="RFC 1/4"
    )
    cached: int = param(
        5, unit="pages per CPU", low=1, high=4096, doc="pages of that cache", source="rcu_min_cached_objs"
    )


def init(m, st):
    """The cache starts empty."""


@compiled
def listed_page(m, st, cpu, gfp):
    """A page off the per-CPU lists. Frame or -1."""
    if st[WATERMARK]:
        return ops.alloc_listed(m, cpu, gfp)
    return ops.pop_listed(m, cpu, st[TYPES] == ANY)


@compiled
def one_page(m, st, cpu, gfp):
    """A page from the cache, where there is one, else off the per-CPU lists. Frame or -1."""
    if st[REFILL_WORKER] == 0:
        return listed_page(m, st, cpu, gfp)
    if st[words_of(cpu) + COUNT] > 0:
        ops.count(m, CACHE_HITS, 1)
        return pop(m, st, cpu)
    miss(m, st, cpu)
    if ops.timer_set(m, cpu) == 0:
        start_worker(m, st, cpu, st[WORKER_DELAY] * US)
    return listed_page(m, st, cpu, gfp)


def allocate(m, st, req, out):
    """Serve a request page by page; one that needs a larger block gets it from the page allocator."""
    cpu = req[REQ_CPU]
    if req[REQ_ORDER] > 0:
        return one_block(m, req, out)
    for i in range(req[REQ_PAGES]):
        frame = one_page(m, st, cpu, req[REQ_GFP])
        if frame < 0:
            for k in range(i):
                ops.free_pages(m, cpu, out[2 * k], 0)
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = 0
    req[REQ_BLOCKS] = req[REQ_PAGES]
    return DONE


def release(m, st, block, cpu, now):
    """To the page allocator."""
    ops.free_pages(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])


def timer(m, st, number, now):
    """The worker of CPU ``number``: single pages until the cache is full or one fails."""
    ops.count(m, WORKER_RUNS, 1)
    if fill(m, st, number, st[CACHED], WORKER_GFP) > 0:
        ops.count(m, CACHE_REFILLS, 1)


def shrink(m, st, pages):
    """The shrinker empties cache after cache until ``pages`` are freed."""
    for cpu in range(ops.cpus(m)):
        if pages <= 0:
            break
        pages -= drain(m, st, cpu, 0)
