"""kvfree_rcu as a load: pointers queued at a rate become pages that hold them (strategies.md 7.1, 7.4).

Per CPU, pointers of one kind go into page-sized blocks of ``block`` pointers. The first pointer of a block asks for its
page, so p pointers queued before any drain need ceil(p / block) pages. The monitor (``kfree_rcu_monitor``) runs
``drain_ms`` after the first pointer of an empty CPU, or a jiffy after a whole block is pending. It frees blocks whose
last pointer is a grace period old (``kvfree_rcu_drain_ready``) and hands the others to one of two batches, which come
back when a grace period is over; while both are under way they stay where they are and the monitor runs again after a
jiffy, or after ``drain_ms`` when less than a block is pending.

Assumed: a grace period lasts ``grace_ms``; pages come back on the CPU that queued. Not modelled: that a request which
failed is made again by the next pointer (a failed request here stands for its block), sheaves of slab (v6.18), and the
channels of vmalloc pointers and of linked objects: add a second load for the former.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tracereplay.demand.load import SECOND, Asked, Load, load_field
from tracereplay.errors import ParameterError
from tracereplay.kernel.gfp import GFP_NOWAIT, GFP_NOWARN

BATCHES = 2
"""Batches a CPU may have under way (KFREE_N_BATCHES)."""
CHUNK = 1024
"""Blocks handed on at a time."""
MS, US = 1_000_000, 1_000


@dataclass(frozen=True)
class KvfreeLoad(Load):
    """Pointers queued to kvfree_rcu, evenly or in bursts."""

    name = "kvfree"
    gfp = GFP_NOWAIT | GFP_NOWARN

    pointers_per_s: int = load_field(
        1_000_000, unit="pointers/s", low=1, high=10**10, doc="pointers queued a second on all its CPUs together"
    )
    burst: int = load_field(1, unit="pointers", low=1, high=10**9, doc="pointers that a CPU queues in one go")
    spacing_ns: int = load_field(100, unit="ns", low=0, high=SECOND, doc="time between two pointers of a burst")
    block: int = load_field(
        507, unit="pointers", low=1, high=10**6, doc="pointers that one page holds; 510 with the header of 2020"
    )
    drain_ms: int = load_field(5000, unit="ms", low=1, high=10**6, doc="time until less than a block is drained")
    jiffy_us: int = load_field(4000, unit="us", low=1, high=10**6, doc="time until a whole block is drained")
    grace_ms: int = load_field(20, unit="ms", low=1, high=10**6, doc="length of a grace period: an assumption")

    def __post_init__(self) -> None:
        """Raises ParameterError: a value outside its range, a jiffy above drain, bursts that run into each other."""
        super().__post_init__()
        if self.jiffy_us * US > self.drain_ms * MS:
            raise ParameterError(
                f"load kvfree: jiffy_us {self.jiffy_us} is longer than drain_ms {self.drain_ms}",
                hint="a whole block is drained no later than less than one",
            )
        period = self.burst * SECOND * max(self.cpus, 1) // self.pointers_per_s
        if (self.burst - 1) * self.spacing_ns > period:
            raise ParameterError(
                f"load kvfree: a burst of {self.burst} pointers, {self.spacing_ns} ns apart, takes longer than the"
                f" {period} ns until the next",
                hint="lower burst, spacing_ns or pointers_per_s",
            )

    def queued_at(self, cpu: int, k: int) -> int:
        """When a CPU queues its pointer number ``k``, ns after the start."""
        number, place = divmod(k, self.burst)
        return self._burst_at(cpu, number) + place * self.spacing_ns

    def _burst_at(self, cpu: int, number: int) -> int:
        """Bursts come evenly, those of one CPU after those of the last."""
        return self.burst * SECOND * (number * self.cpus + cpu) // self.pointers_per_s

    def queued_by(self, cpu: int, t: int) -> int:
        """Pointers that a CPU has queued up to time ``t``, ns after the start."""
        # the bursts that began: number * cpus + cpu < (t + 1) * rate / (burst * SECOND)
        begun = -(-(t + 1) * self.pointers_per_s // (self.burst * SECOND))
        bursts = (begun - cpu + self.cpus - 1) // self.cpus if begun > cpu else 0
        if bursts <= 0:
            return 0
        rest = t - self._burst_at(cpu, bursts - 1)
        last = rest // self.spacing_ns + 1 if self.spacing_ns else self.burst
        return (bursts - 1) * self.burst + min(last, self.burst)

    def pages_per_s(self) -> int:
        """A page for each block, and more where blocks are drained before they are full."""
        return self.pointers_per_s // self.block + 1

    def asked(self, cpu: int, start_ns: int, end_ns: int) -> Iterator[Asked]:
        """One request of one page for each block."""
        blocks = self._blocks(cpu, end_ns - start_ns)
        while some := list(islice(blocks, CHUNK)):
            times = np.array(some, np.int64) + start_ns
            yield Asked(times[:, 0], times[:, 1:], np.full((len(some), 1), cpu, np.int16))

    def _blocks(self, cpu: int, end: int) -> Iterator[tuple[int, int]]:
        """When each block takes its page and when it gives it back, ns after the start."""
        grace, jiffy, drain = self.grace_ms * MS, self.jiffy_us * US, self.drain_ms * MS
        total = self.queued_by(cpu, end - 1)
        under_way: deque[int] = deque()  # when each batch's grace period is over
        k = 0  # pointers that left
        since = -1  # when the monitor last left pointers behind
        while k < total:
            base = self.queued_at(cpu, k) if since < 0 else since
            due = base + drain
            if k + self.block <= total:
                due = min(due, max(self.queued_at(cpu, k + self.block - 1), base) + jiffy)
            pending = min(self.queued_by(cpu, due), total)
            while k < pending and self._last_of(cpu, k, pending) + grace <= due:
                yield self.queued_at(cpu, k), due
                k = min(k + self.block, pending)
            while under_way and under_way[0] <= due:
                under_way.popleft()
            since = -1
            if k < pending and len(under_way) < BATCHES:
                under_way.append(due + grace)
                while k < pending:
                    yield self.queued_at(cpu, k), due + grace
                    k = min(k + self.block, pending)
            elif k < pending:
                since = due

    def _last_of(self, cpu: int, k: int, pending: int) -> int:
        """When the last pointer so far of the block that begins with pointer ``k`` was queued."""
        return self.queued_at(cpu, min(k + self.block, pending) - 1)
