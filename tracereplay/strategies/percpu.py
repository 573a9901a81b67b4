"""What strategies with a cache of single pages for each CPU share: state words, the worker's delay, requests by page.

State: the parameters, then ``CPU_WORDS`` words for each CPU from ``st[CPUS_AT]`` on; the pages themselves lie on the
machine's list of the CPU's number (machine/page_stack.py).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

from tracereplay.errors import ParameterError
from tracereplay.machine import counters, ops
from tracereplay.machine.layout import MAX_CPUS
from tracereplay.strategies.contract import Params, compiled, inlined, param

CPUS_AT = 32
CPU_WORDS = 5
COUNT, DRY_SINCE = 0, 4
"""First and last word of each CPU: pages in its cache; the time of the first miss since it had pages, ns + 1, else 0.
The words between are the strategy's own."""
WORKER_DELAY, SCHEDULER_MIN, SCHEDULER_MAX = 0, 1, 2
US, MS = 1_000, 1_000_000

CACHE_HITS = counters.slot("cache_hits")
CACHE_MISSES = counters.slot("cache_misses")
CACHE_PUTS = counters.slot("cache_puts")
WORKER_WAKEUPS = counters.slot("worker_wakeups")
_SCHEDULER = "strategies.md 11: between 50 us and 10 ms, evenly; nobody published a distribution"


@dataclass(frozen=True)
class WorkerParams(Params):
    """Parameters of a worker that fills a CPU's cache: their words come first."""

    worker_delay: int = param(
        0, unit="us", low=0, high=100_000_000, doc="wait before the worker is queued", source="hrtimer of 0 delay, 7.4"
    )
    scheduler_min: int = param(
        50, unit="us", low=0, high=10_000_000, doc="shortest time from queued to running", source=_SCHEDULER
    )
    scheduler_max: int = param(
        10_000, unit="us", low=0, high=10_000_000, doc="longest time from queued to running", source=_SCHEDULER
    )

    def __post_init__(self) -> None:
        """Raises ParameterError when the shortest delay is longer than the longest, as for any bad value."""
        super().__post_init__()
        if self.scheduler_min > self.scheduler_max:
            raise ParameterError(
                f"scheduler_min {self.scheduler_min} is above scheduler_max {self.scheduler_max}",
                hint="give both, in microseconds",
            )

    def state_words(self) -> int:
        """Words of state: parameters and the CPUs' words."""
        return CPUS_AT + MAX_CPUS * CPU_WORDS


@inlined
def words_of(cpu):
    """Place of a CPU's words in the state."""
    return CPUS_AT + cpu * CPU_WORDS


@compiled
def running_at(m, st, queued):
    """When a worker queued at a time runs, ns: the scheduler's delay by chance."""
    low = st[SCHEDULER_MIN] * US
    span = st[SCHEDULER_MAX] * US - low
    return queued + low + (ops.chance(m, span + 1) if span > 0 else 0)


@compiled
def start_worker(m, st, cpu, delay):
    """Queue a CPU's worker, ``delay`` ns from now: timer ``cpu`` is set."""
    ops.count(m, WORKER_WAKEUPS, 1)
    ops.set_timer(m, cpu, running_at(m, st, ops.time_now(m) + delay))


@compiled
def push(m, st, cpu, frame):
    """Put a page into a CPU's cache, which ends a dry spell."""
    c = words_of(cpu)
    st[c + COUNT] += 1
    if st[c + DRY_SINCE] > 0:
        ops.dry_spell(m, ops.time_now(m) - st[c + DRY_SINCE] + 1)
        st[c + DRY_SINCE] = 0
    ops.stack_push(m, cpu, frame, False)


@compiled
def miss(m, st, cpu):
    """A page was wanted that the CPU's cache does not have: a dry spell begins, unless one did."""
    ops.count(m, CACHE_MISSES, 1)
    if st[words_of(cpu) + DRY_SINCE] == 0:
        st[words_of(cpu) + DRY_SINCE] = ops.time_now(m) + 1


@compiled
def pop(m, st, cpu):
    """The page put last into a CPU's cache, which has one."""
    st[words_of(cpu) + COUNT] -= 1
    return ops.stack_pop(m, cpu, cpu)


@compiled
def fill(m, st, cpu, target, gfp):
    """A worker's loop: single pages until the cache holds ``target`` or one fails. Pages added."""
    added = 0
    while st[words_of(cpu) + COUNT] < target:
        frame = ops.alloc_pages(m, cpu, 0, gfp)
        if frame < 0:
            break
        push(m, st, cpu, frame)
        added += 1
    return added


@compiled
def drain(m, st, cpu, keep):
    """Free a CPU's cached pages down to ``keep``. Pages freed."""
    freed = 0
    while st[words_of(cpu) + COUNT] > keep:
        ops.free_pages(m, cpu, pop(m, st, cpu), 0)
        freed += 1
    return freed
