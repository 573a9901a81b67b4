"""The slow, obvious reconstruction: dicts and lists, one page at a time. The oracle of tracereplay.demand.

It reads a list of :class:`Event` and gives what demand/scan.py must give: where every event went, and the
requests.
Left out: bios, stacks, failed attempts of dm-crypt, and keys (stream_check.py holds the stream itself).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

GFP_HIGH, GFP_DIRECT_RECLAIM = 0x20, 0x400
CLASS = 0xFFFFFF & ~(0x40000 | 0x80000 | 0x10000 | 0x2000)


@dataclass(frozen=True)
class Event:
    ts: int
    cpu: int
    kind: str
    pfn: int = 0
    order: int = 0
    gfp: int = 0
    pid: int = 1

    @property
    def frames(self) -> range:
        return range(self.pfn, self.pfn + (1 << self.order))


@dataclass
class Block:
    """An allocation; the frames of it that are still live."""

    ts: int
    frames: set[int]


@dataclass
class Known:
    """A frame known not to be allocated: since when, at least, and on which CPU it was last freed or refilled."""

    ts: int
    since: int
    cpu: int


@dataclass
class Request:
    arrival: int
    cpu: int
    caller: str
    frames: list[int]
    required: bool = False
    unseen: bool = False


@dataclass
class Burst:
    request: Request
    seen: int
    own: int


@dataclass
class Task:
    own: int = 0
    last: int = 0
    cpu: int = -1
    bursts: dict[str, Burst] = field(default_factory=dict)


@dataclass
class Clock:
    ts: int
    pid: int | None = None
    kind: str = ""


class SlowDemand:
    """Run over events once; read ``counts`` and ``requests``."""

    def __init__(
        self, events: list[Event], *, limits: dict[str, int], slack: int = 0, losses: Sequence[tuple[int, int]] = ()
    ) -> None:
        """``limits``: gap in ns that ends a burst, by caller. ``slack``: ns that leaving the allocator's locked part
        takes. ``losses``: intervals, any CPU, page events.
        """
        self.slack = slack
        self.limits = limits
        self.losses = losses
        self.start = events[0].ts - 1 if events else 0
        self.owner: dict[int, Block] = {}
        self.known: dict[int, Known] = {}
        self.tasks: dict[int, Task] = {}
        self.clocks: dict[int, Clock] = {}
        self.counts: Counter[str] = Counter()
        self.requests: list[Request] = []
        for event in events:
            self.step(event)
        blocks = {id(b): b for b in self.owner.values()}
        self.live_blocks = sum(len(aligned(sorted(b.frames))) for b in blocks.values())

    def step(self, e: Event) -> None:
        self.counts["events"] += 1
        task = self.charge(e)
        if e.kind == "alloc":
            self.alloc(e, task)
        elif e.kind == "alloc_failed":
            self.counts["failed"] += 1
            self.enter(task, e.gfp)
        elif e.kind == "free":
            self.free(e, task)
        else:
            self.counts[e.kind] += 1
            if e.kind in ("zone_locked", "drain"):
                for f in e.frames:
                    if f not in self.owner:
                        ts = self.known[f].ts if f in self.known else self.start
                        self.known[f] = Known(ts, ts + (e.ts - ts) // 1024 * 1024, e.cpu)

    def charge(self, e: Event) -> Task:
        """Own time of a task: intervals on its CPU with one end of its own, but for those inside the allocator."""
        clock = self.clocks.setdefault(e.cpu, Clock(self.start))
        task = self.tasks.setdefault(e.pid, Task(last=self.start))
        allocator = ("free_batched", "zone_locked", "drain", "extfrag")
        within = clock.pid == e.pid and task.cpu == e.cpu and clock.kind in allocator
        if not (e.kind in allocator and within):
            on_cpu = e.ts - clock.ts - (self.slack if clock.kind in allocator else 0)
            if clock.pid == e.pid and task.cpu == e.cpu:
                task.own += max(on_cpu, 0)
            else:
                task.own += max(min(on_cpu, e.ts - task.last), 0) if task.cpu == e.cpu else e.ts - task.last
                other = self.tasks.get(clock.pid) if clock.pid not in (None, e.pid) else None
                if other is not None and other.cpu == e.cpu:
                    other.own += max(on_cpu, 0)
        clock.ts, clock.pid, clock.kind = e.ts, e.pid, e.kind
        task.last, task.cpu = e.ts, e.cpu
        return task

    def enter(self, task: Task, gfp: int) -> str:
        """Which of the task's bursts an allocation belongs to, after closing what it ends."""
        if gfp & GFP_HIGH and not gfp & GFP_DIRECT_RECLAIM:
            which = "atomic"
        else:
            which = "normal"
            task.bursts.pop("atomic", None)
            task.bursts.pop("unseen", None)
        if which in task.bursts and task.bursts[which].request.caller != caller(gfp):
            del task.bursts[which]
        return which

    def alloc(self, e: Event, task: Task) -> None:
        self.counts["allocations"] += 1
        self.counts["allocated_pages"] += len(e.frames)
        old = [f for f in e.frames if f in self.owner]
        if old:
            oldest = min(self.owner[f].ts for f in old)
            self.counts["reused_lost" if self.lost(oldest, e.ts) else "reused"] += 1
            self.counts["reused_pages"] += len(old)
            for f in old:
                self.release(f, e)
        which = self.enter(task, e.gfp)
        name = caller(e.gfp)
        burst = task.bursts.get(which)
        single = e.order > 0 or name == "fault"
        if single:
            task.bursts.pop(which, None)
            self.requests.append(Request(e.ts, e.cpu, name, list(e.frames), required=e.order > 0))
        else:
            if burst and (task.own - burst.own) * 4 // 5 > self.limits[name]:
                burst = None
            if burst is None:
                burst = Burst(Request(e.ts, e.cpu, name, []), e.ts, task.own)
                self.requests.append(burst.request)
                task.bursts[which] = burst
            burst.request.frames.append(e.pfn)
            burst.seen, burst.own = e.ts, task.own
        block = Block(e.ts, set(e.frames))
        for f in e.frames:
            self.owner[f] = block
            self.known.pop(f, None)

    def release(self, f: int, e: Event) -> None:
        self.owner.pop(f).frames.discard(f)
        self.known[f] = Known(e.ts, e.ts, e.cpu)

    def free(self, e: Event, task: Task) -> None:
        self.counts["frees"] += 1
        task.bursts.pop("normal", None)
        task.bursts.pop("atomic", None)
        kinds: Counter[str] = Counter()
        for f in e.frames:
            if f in self.owner:
                kinds["matched"] += 1
                self.release(f, e)
            elif f not in self.known:
                kinds["left_censored"] += 1
                self.known[f] = Known(e.ts, e.ts, e.cpu)
            else:
                known = self.known[f]
                kinds["lost" if self.lost(known.since, e.ts) else "unseen"] += 1
                self.infer(f, known.cpu, e, task)
                self.known[f] = Known(e.ts, e.ts, e.cpu)
        if set(kinds) == {"matched"}:
            task.bursts.pop("unseen", None)
        for kind, n in kinds.items():
            self.counts[f"{kind}_pages"] += n
        worst = next(k for k in ("lost", "unseen", "left_censored", "matched") if kinds[k])
        self.counts[{"lost": "lost_frees", "unseen": "unseen_frees"}.get(worst, worst)] += 1

    def infer(self, f: int, cpu: int, e: Event, task: Task) -> None:
        burst = task.bursts.get("unseen")
        if burst and (burst.request.cpu != cpu or task.own - burst.own > self.limits["unseen"]):
            burst = None
        if burst is None:
            burst = Burst(Request(e.ts, cpu, "unseen", [], unseen=True), e.ts, task.own)
            self.requests.append(burst.request)
            task.bursts["unseen"] = burst
        burst.request.frames.append(f)
        burst.own = task.own

    def lost(self, since: int, now: int) -> bool:
        return any(t0 < now and t1 > since for t0, t1 in self.losses)


def caller(gfp: int) -> str:
    """Class of a mask; faults of user pages are a request each."""
    user = 0x2 | 0x8 | 0x100000
    if gfp & user == user and not gfp & (0x1000 | 0x10000):
        return "fault"
    return hex(gfp & CLASS)


def aligned(frames: list[int]) -> list[tuple[int, int]]:
    """Largest aligned blocks (first frame, order) that make up a set of frames."""
    left = set(frames)
    made = []
    for f in frames:
        if f not in left:
            continue
        k = 0
        while f % (2 << k) == 0 and all(g in left for g in range(f, f + (2 << k))):
            k += 1
        left -= set(range(f, f + (1 << k)))
        made.append((f, k))
    return made
