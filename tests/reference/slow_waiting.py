"""Simulated time of the slow replay: who waits, what is due when, frees that come later because their request waited.

The rules of architecture.md section 3, rule 4, with a plain heap. At one time: frees that were put off, then what they
and others let go on (the shrinker, the first for the mutex, all for the pool), then timers by number, then deadlines,
then the trace's own operation.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.reference.slow_crypt import Piece, Strategy
    from tests.reference.slow_replay import Block, Request

NEVER = 1 << 62
RELEASE, DEADLINE = 0, 2
PATIENCE = 10_000_000_000
Wait = tuple[str, int, int]
"""What for (mutex, pool, time), until when, blocks held meanwhile."""


@dataclass
class Parked:
    """A request that waits."""

    number: int
    request: Request
    work: Generator[Wait, None, list[Piece] | None]
    keys: list[int]
    cpu: int
    arrival: int
    kind: str = ""
    until: int = NEVER
    sequence: int = 0
    held: int = 0
    """Blocks it has."""
    freed: dict[int, tuple[int, int]] = field(default_factory=dict)
    """When and on which CPU the trace freed a page, by its place in the request."""


@dataclass
class Clock:
    """What is on the agenda, and who waits. The part of ``SlowReplay`` that knows about time."""

    machine: Any
    strategy: Strategy
    start_ns: int
    now: int = field(init=False)
    end_ns: int = 0
    sequence: int = 0
    agenda: list[tuple[int, int, int, int, Any]] = field(default_factory=list)
    waiting: list[Parked] = field(default_factory=list)
    """In the order in which they began to."""
    ready: list[Parked] = field(default_factory=list)
    parked_keys: dict[int, tuple[Parked, int]] = field(default_factory=dict)
    worker: Counter[str] = field(default_factory=Counter)
    worker_by_order: Counter[tuple[str, int]] = field(default_factory=Counter)
    waits: list[int] = field(default_factory=list)
    """How long each request waited, ns."""
    stuck: list[Parked] = field(default_factory=list)
    """At the end: those that wait for mutex or pool."""
    progress: int = 0

    def __post_init__(self) -> None:
        self.now = self.start_ns
        self.strategy.clock = self

    # ------------------------------------------------------------------ time
    def pass_time(self, when: int) -> None:
        """Nothing happens up to ``when``; kswapd may have worked by then."""
        self.close_bins(when)
        self.now = when
        self.on_background()
        self.machine.background(when)

    def next_due(self) -> int:
        while self.agenda and self.agenda[0][1] == DEADLINE and not self.still_waits(self.agenda[0]):
            heapq.heappop(self.agenda)
        return min([entry[0] for entry in self.agenda[:1]] + [*self.strategy.timers.values()], default=NEVER)

    def catch_up(self, now: int) -> None:
        while self.step(now):
            pass
        if self.now < now:
            self.pass_time(now)
            while self.step(now):
                pass
        self.on_background()

    def step(self, until: int) -> bool:
        """The next thing due by ``until``."""
        machine, strategy = self.machine, self.strategy
        if self.agenda and self.agenda[0][0] <= self.now and self.agenda[0][1] == RELEASE:
            _, _, cpu, _, block = heapq.heappop(self.agenda)
            self.free_page(block, cpu)
            if not (self.agenda and self.agenda[0][0] <= self.now and self.agenda[0][1] == RELEASE):
                self.note_waste(0)
            return True
        if machine.shrink_asked is not None:
            pages, machine.shrink_asked = machine.shrink_asked, None
            self.as_worker(lambda: strategy.shrink(pages))
            return True
        self.wake()
        if self.ready:
            self.go_on(self.ready.pop(0))
            return True
        when = self.next_due()
        if when > until:
            return False
        if when > self.now:
            self.pass_time(when)
            return True
        timers = sorted((at, number) for number, at in strategy.timers.items() if at <= self.now)
        if timers:
            number = timers[0][1]
            del strategy.timers[number]
            self.as_worker(lambda: strategy.timer(number))
            return True
        *_, parked = heapq.heappop(self.agenda)
        self.waiting.remove(parked)
        self.ready.append(parked)
        return True

    def still_waits(self, entry: tuple[int, int, int, int, Any]) -> bool:
        """Whether a deadline is that of the wait that is on."""
        when, _, _, sequence, parked = entry
        return parked in self.waiting and (when, sequence) == (parked.until, parked.sequence)

    def as_worker(self, what: Any) -> None:
        self.machine.counters, self.machine.by_order = self.worker, self.worker_by_order
        what()
        self.on_background()

    def wake(self) -> None:
        """Those that an element or the mutex's release lets go on."""
        woken, self.strategy.woken = self.strategy.woken, set()
        if "pool" in woken:
            self.ready += [p for p in self.waiting if p.kind == "pool"]
            self.waiting = [p for p in self.waiting if p.kind != "pool"]
        if "mutex" in woken and self.strategy.mutex is None:
            for p in self.waiting:
                if p.kind == "mutex":
                    self.waiting.remove(p)
                    self.ready.insert(0, p)
                    break

    # ------------------------------------------------------------------ requests
    def begin(self, parked: Parked) -> None:
        """First call of a request. It may be over at once."""
        self.go_on(parked)

    def go_on(self, parked: Parked) -> None:
        """Call a request (again)."""
        again = bool(parked.kind)
        self.charge(parked.request)
        self.strategy.number = parked.number
        try:
            before = parked.kind, parked.held
            parked.kind, parked.until, parked.held = next(parked.work)
        except StopIteration as over:
            if again:
                self.end_wait(parked, over.value is not None)
            self.serve(parked, over.value)
        else:
            self.wake()
            if not again:
                for place, key in enumerate(parked.keys):
                    self.parked_keys[key] = parked, place
            if (parked.kind, parked.held) != before:  # who was called and got nothing keeps its place
                self.sequence += 1
                parked.sequence = self.sequence
            self.waiting.append(parked)
            self.waiting.sort(key=lambda p: p.sequence)
            if parked.until < NEVER:
                heapq.heappush(self.agenda, (parked.until, DEADLINE, parked.cpu, parked.sequence, parked))
        if again and self.strategy.mutex is None and any(p.kind == "mutex" for p in self.waiting):
            self.strategy.woken.add("mutex")
        self.on_background()

    def end_wait(self, parked: Parked, served: bool) -> None:
        """A request that waited is through: its pages' frees come later by as much."""
        parked.request.delay = self.now - parked.arrival
        self.waits.append(parked.request.delay)
        self.progress = self.now
        self.forget(parked)
        if not served:
            self.facts["orphans"] += len(parked.freed)

    def forget(self, parked: Parked) -> None:
        for key in [k for k, (p, _) in self.parked_keys.items() if p is parked]:
            del self.parked_keys[key]

    def put_off(self, block: Block, when: int, cpu: int) -> None:
        self.sequence += 1
        heapq.heappush(self.agenda, (when, RELEASE, cpu, self.sequence, block))

    # ------------------------------------------------------------------ the end
    def wind_up(self) -> None:
        """What is still due after the last operation."""
        self.end_ns = self.now
        while True:
            frees = any(entry[1] == RELEASE for entry in self.agenda)
            waits = bool(self.waiting or self.ready)
            if not waits:
                self.strategy.timers.clear()
            until = NEVER - 1 if frees else self.end_ns
            if waits and not frees:
                until = max(self.end_ns, self.progress) + PATIENCE
            if not self.step(until):
                break
        self.stuck = [p for p in self.waiting if p.kind != "time"]
        for parked in self.waiting:
            self.facts["orphans"] += len(parked.freed)
            self.ended.append(parked.request)
        self.as_worker(self.strategy.finish)
        self.close_bins(None)
