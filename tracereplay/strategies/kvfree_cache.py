"""kvfree-cache: the page cache of kvfree_rcu, what mainline did (strategies.md 7.4).

Per CPU a stack of at most ``cached`` pages that starts empty. A request takes its pages one by one: from the cache;
where that is empty and the caller may sleep (``form=one_arg``) from the page allocator; where there is still none the
request fails and the CPU's worker is started, if it is not under way. Failing is what the two-argument form answers by
linking objects through their own heads, and the one-argument form by ``synchronize_rcu``. The worker runs after the
scheduler's delay and fills the cache, or takes one page ``backoff`` after a shrinker has counted. A page that comes
back goes to the cache of the CPU that took it while that is not full, else to the page allocator.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.kernel.gfp import GFP_KERNEL, GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWARN
from tracereplay.machine import counters, ops
from tracereplay.strategies.contract import (
    BLOCK_FRAME,
    BLOCK_ORDER,
    DONE,
    FAIL,
    REQ_BLOCKS,
    REQ_CPU,
    REQ_ORDER,
    REQ_PAGES,
    compiled,
    param,
)
from tracereplay.strategies.parts import one_block
from tracereplay.strategies.percpu import (
    CACHE_HITS,
    CACHE_PUTS,
    COUNT,
    MS,
    US,
    WORKER_DELAY,
    WorkerParams,
    drain,
    fill,
    miss,
    pop,
    push,
    start_worker,
    words_of,
)

CACHED, BACKOFF, BACKOFF_TARGET, FORM = 3, 4, 5, 6
ONE_ARG = 1
IN_PROGRESS, BACKED_OFF = 1, 2
GFP = GFP_KERNEL | GFP_NORETRY | GFP_NOMEMALLOC | GFP_NOWARN
CACHE_REFILLS = counters.slot("cache_refills")
WORKER_RUNS = counters.slot("worker_runs")


@dataclass(frozen=True)
class KvfreeCache(WorkerParams):
    """Parameters of the cache; their words follow those of the worker."""

    name = "kvfree-cache"
    summary = "kvfree_rcu's cache: 5 pages per CPU, filled by a worker after a miss"
    mimics = "get_cached_bnode, run_page_cache_worker, fill_page_cache_func and the shrinker of mm/slab_common.c, v6.14"
    leaves_out = "the lock; what a caller does without its page; a shrinker that counts and does not scan"

    cached: int = param(
        5,
        unit="pages per CPU",
        low=0,
        high=4096,
        doc="pages kept; 0: no cache",
        source="rcu_min_cached_objs, 2 to 5.10",
    )
    backoff: int = param(
        5000,
        unit="ms",
        low=0,
        high=100_000,
        doc="wait for the worker after a shrinker has counted",
        source="rcu_delay_page_cache_fill_msec",
    )
    backoff_target: int = param(
        1, unit="pages", low=0, high=4096, doc="pages that the worker then fills up to", source="fill_page_cache_func"
    )
    form: str = param(
        "two_arg",
        unit="form",
        choices=("two_arg", "one_arg"),
        doc="whether the caller may sleep, and so allocate, on a miss",
        source="kvfree_rcu(ptr, head) or kvfree_rcu_mightsleep(ptr)",
    )


def init(m, st):
    """The cache starts empty (boot-time prefill was removed in v5.11)."""


@compiled
def run_worker(m, st, cpu):
    """``run_page_cache_worker``: start the worker unless there is no cache or it is under way."""
    c = words_of(cpu)
    if st[CACHED] == 0 or st[c + IN_PROGRESS]:
        return
    st[c + IN_PROGRESS] = 1
    start_worker(m, st, cpu, st[BACKOFF] * MS if st[c + BACKED_OFF] else st[WORKER_DELAY] * US)


@compiled
def one_page(m, st, cpu):
    """A page from the cache, else (if the caller may sleep) from the page allocator. Frame or -1."""
    if st[words_of(cpu) + COUNT] > 0:
        ops.count(m, CACHE_HITS, 1)
        return pop(m, st, cpu)
    miss(m, st, cpu)
    frame = ops.alloc_pages(m, cpu, 0, GFP) if st[FORM] == ONE_ARG else -1
    if frame < 0:
        run_worker(m, st, cpu)
    return frame


@compiled
def give_back(m, st, cpu, frame):
    """Into the cache of the CPU that took the page, while it has room (``put_cached_bnode``), else free it."""
    home = ops.taken_on(m, frame)
    if st[words_of(home) + COUNT] < st[CACHED]:
        ops.count(m, CACHE_PUTS, 1)
        push(m, st, home, frame)
    else:
        ops.free_pages(m, cpu, frame, 0)


def allocate(m, st, req, out):
    """Serve a request page by page; one that needs a larger block gets it from the page allocator."""
    cpu = req[REQ_CPU]
    if req[REQ_ORDER] > 0:
        return one_block(m, req, out)
    for i in range(req[REQ_PAGES]):
        frame = one_page(m, st, cpu)
        if frame < 0:
            for k in range(i):
                give_back(m, st, cpu, out[2 * k])
            return FAIL
        out[2 * i] = frame
        out[2 * i + 1] = 0
    req[REQ_BLOCKS] = req[REQ_PAGES]
    return DONE


def release(m, st, block, cpu, now):
    """An emptied block after its grace period."""
    if block[BLOCK_ORDER] > 0:
        ops.free_pages(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
    else:
        give_back(m, st, cpu, block[BLOCK_FRAME])


def timer(m, st, number, now):
    """The worker of CPU ``number`` (``fill_page_cache_func``): up to ``cached`` pages, or one under backoff."""
    c = words_of(number)
    ops.count(m, WORKER_RUNS, 1)
    target = min(st[BACKOFF_TARGET], st[CACHED]) if st[c + BACKED_OFF] else st[CACHED]
    if fill(m, st, number, target, GFP) > 0:
        ops.count(m, CACHE_REFILLS, 1)
    st[c + IN_PROGRESS] = 0
    st[c + BACKED_OFF] = 0


def shrink(m, st, pages):
    """The shrinker: the count sets backoff on every CPU, the scan empties cache after cache until ``pages`` are freed.

    A scan of 0 pages is a count alone.
    """
    for cpu in range(ops.cpus(m)):
        st[words_of(cpu) + BACKED_OFF] = 1
    for cpu in range(ops.cpus(m)):
        if pages <= 0:
            break
        pages -= drain(m, st, cpu, 0)
