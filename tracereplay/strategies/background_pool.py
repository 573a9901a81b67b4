"""background-pool: Hocko's pool of pages per CPU that a worker fills, with Gorman's refinement (strategies.md 7.3).

A request takes its pages one by one from the CPU's stack. At ``low`` pages the worker is started, which allocates
GFP_KERNEL pages up to ``high``. An empty pool is an emergency: the request fails or (``on_empty=allocate``) goes to the
page allocator, and what the pool may hold, and the worker fills it to, doubles up to ``most``, once until pages come.
After each ``idle`` ms in which nobody took a page it halves, down to ``base``, and pages above go back. The shrinker
empties all pools and holds the workers off for ``inhibit`` ms. A page that comes back goes to the pool of the CPU that
gives it back while there is room.

Nobody wrote this pool: the forms are those of strategies.md 7.3 and 11, and all figures are assumptions.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.errors import ParameterError
from tracereplay.kernel.gfp import GFP_KERNEL
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
    inlined,
    param,
)
from tracereplay.strategies.parts import one_block
from tracereplay.strategies.percpu import (
    CACHE_HITS,
    CACHE_PUTS,
    COUNT,
    CPUS_AT,
    MS,
    US,
    WORKER_DELAY,
    WorkerParams,
    drain,
    fill,
    miss,
    pop,
    push,
    running_at,
    start_worker,
    words_of,
)

BASE, LOW, HIGH, MOST, IDLE, INHIBIT, ON_EMPTY, PREFILL = 3, 4, 5, 6, 7, 8, 9, 10
ALLOCATE = 1
INHIBITED_UNTIL = CPUS_AT - 1
CAP, EMERGENCY, LAST_USE = 1, 2, 3
"""Words of a CPU: what its pool may hold, whether the present emptiness has doubled it, when it was used last, ns."""
CACHE_REFILLS = counters.slot("cache_refills")
WORKER_RUNS = counters.slot("worker_runs")
_OURS = "strategies.md 11 (ours, after 7.3)"


@dataclass(frozen=True)
class BackgroundPool(WorkerParams):
    """Parameters of the pool; their words follow those of the worker."""

    name = "background-pool"
    summary = "a pool of pages per CPU that a worker fills, grown after emergencies"
    mimics = "the pool proposed by Hocko and Gorman in '[RFC-PATCH 2/4] mm: Add __rcu_alloc_page_lockless()', 2020-09"
    leaves_out = "the lock; which CPU the shrinker runs on (each pool's pages are freed on its own)"

    base: int = param(32, unit="pages per CPU", low=1, high=16384, doc="pages a quiet pool may hold", source=_OURS)
    low: int = param(8, unit="pages per CPU", low=0, high=16384, doc="at this many the worker is started", source=_OURS)
    high: int = param(
        32, unit="pages per CPU", low=1, high=16384, doc="the worker fills a pool of base size to this", source=_OURS
    )
    most: int = param(512, unit="pages per CPU", low=1, high=16384, doc="pages a grown pool may hold", source=_OURS)
    idle: int = param(
        1000, unit="ms", low=1, high=100_000, doc="time without use that halves a grown pool", source=_OURS
    )
    inhibit: int = param(
        5000, unit="ms", low=0, high=100_000, doc="time after the shrinker in which no worker runs", source=_OURS
    )
    on_empty: str = param(
        "fail",
        unit="way",
        choices=("fail", "allocate"),
        doc="what a request does that finds the pool empty",
        source="7.1: the caller holds a raw spinlock and cannot allocate; others can",
    )
    prefill: bool = param(True, unit="flag", doc="all workers run once at the start", source=_OURS)

    def __post_init__(self) -> None:
        """Raises ParameterError when the marks are not low < high <= base <= most."""
        super().__post_init__()
        if not self.low < self.high <= self.base <= self.most:
            raise ParameterError(
                f"a pool of low={self.low}, high={self.high}, base={self.base}, most={self.most}",
                hint="it takes low < high <= base <= most",
            )


def init(m, st):
    """All pools at their base; with prefill, their workers are due at once."""
    for cpu in range(ops.cpus(m)):
        st[words_of(cpu) + CAP] = st[BASE]
        if st[PREFILL]:
            ops.set_timer(m, cpu, 1)


@inlined
def idle_timer(m, cpu):
    """Number of the timer that looks whether a CPU's pool is idle; the worker's is that of the CPU."""
    return ops.cpus(m) + cpu


@compiled
def full(st, cpu):
    """Pages that the worker fills a pool to: ``high``, and as much more as the pool has grown."""
    cap = st[words_of(cpu) + CAP]
    return min(cap, st[HIGH] * cap // st[BASE])


@compiled
def want_worker(m, st, cpu):
    """Start the worker where the pool is low and none is on its way; not before the shrinker's time is over."""
    if st[words_of(cpu) + COUNT] <= st[LOW] and ops.timer_set(m, cpu) == 0:
        held = max(st[INHIBITED_UNTIL] - ops.time_now(m), 0)
        start_worker(m, st, cpu, max(held, st[WORKER_DELAY] * US))


@compiled
def emergency(m, st, cpu):
    """The pool is empty: once until pages come, it may hold twice as many."""
    c = words_of(cpu)
    miss(m, st, cpu)
    if st[c + EMERGENCY] == 0:
        st[c + EMERGENCY] = 1
        st[c + CAP] = max(min(2 * st[c + CAP], st[MOST]), st[BASE])
        if st[c + CAP] > st[BASE] and ops.timer_set(m, idle_timer(m, cpu)) == 0:
            ops.set_timer(m, idle_timer(m, cpu), ops.time_now(m) + st[IDLE] * MS)


@compiled
def one_page(m, st, cpu, gfp):
    """A page from the pool, else as ``on_empty`` says. Frame or -1."""
    c = words_of(cpu)
    if st[c + COUNT] > 0:
        ops.count(m, CACHE_HITS, 1)
        return pop(m, st, cpu)
    emergency(m, st, cpu)
    return ops.alloc_pages(m, cpu, 0, gfp) if st[ON_EMPTY] == ALLOCATE else -1


@compiled
def give_back(m, st, cpu, frame):
    """Into the pool of ``cpu`` while it has room, else free the page."""
    c = words_of(cpu)
    if st[c + COUNT] < st[c + CAP]:
        ops.count(m, CACHE_PUTS, 1)
        push(m, st, cpu, frame)
        st[c + EMERGENCY] = 0
    else:
        ops.free_pages(m, cpu, frame, 0)


def allocate(m, st, req, out):
    """Serve a request page by page; one that needs a larger block gets it from the page allocator."""
    cpu = req[REQ_CPU]
    if req[REQ_ORDER] > 0:
        return one_block(m, req, out)
    st[words_of(cpu) + LAST_USE] = ops.time_now(m)
    served = 0
    while served < req[REQ_PAGES]:
        frame = one_page(m, st, cpu, req[REQ_GFP])
        if frame < 0:
            break
        out[2 * served] = frame
        out[2 * served + 1] = 0
        served += 1
    want_worker(m, st, cpu)
    if served < req[REQ_PAGES]:
        for k in range(served):
            give_back(m, st, cpu, out[2 * k])
        return FAIL
    req[REQ_BLOCKS] = served
    return DONE


def release(m, st, block, cpu, now):
    """A page back into the pool, a larger block to the page allocator."""
    if block[BLOCK_ORDER] > 0:
        ops.free_pages(m, cpu, block[BLOCK_FRAME], block[BLOCK_ORDER])
    else:
        give_back(m, st, cpu, block[BLOCK_FRAME])


@compiled
def work(m, st, cpu):
    """The worker: fill the pool, unless the shrinker came while it waited."""
    now = ops.time_now(m)
    if now < st[INHIBITED_UNTIL]:
        ops.set_timer(m, cpu, running_at(m, st, st[INHIBITED_UNTIL]))
        return
    ops.count(m, WORKER_RUNS, 1)
    if fill(m, st, cpu, full(st, cpu), GFP_KERNEL) > 0:
        ops.count(m, CACHE_REFILLS, 1)
        st[words_of(cpu) + EMERGENCY] = 0


@compiled
def decay(m, st, cpu, now):
    """Halve a grown pool that was idle, and look again later while it is still grown."""
    c = words_of(cpu)
    idle_until = st[c + LAST_USE] + st[IDLE] * MS
    if idle_until <= now:
        st[c + CAP] = max(st[c + CAP] // 2, st[BASE])
        drain(m, st, cpu, st[c + CAP])
        idle_until = now + st[IDLE] * MS
    if st[c + CAP] > st[BASE]:
        ops.set_timer(m, idle_timer(m, cpu), idle_until)


def timer(m, st, number, now):
    """A CPU's worker, or the look whether its pool is idle."""
    if number < ops.cpus(m):
        work(m, st, number)
    else:
        decay(m, st, number - ops.cpus(m), now)


def shrink(m, st, pages):
    """The shrinker takes everything, and no worker runs for ``inhibit``."""
    st[INHIBITED_UNTIL] = ops.time_now(m) + st[INHIBIT] * MS
    for cpu in range(ops.cpus(m)):
        drain(m, st, cpu, 0)
