"""dm-crypt's mempool, its quota and the strategies around them, slow and obvious (strategies.md 1 to 5).

A request is a generator: it yields what it sleeps on and until when, is resumed when that may have come about, and
returns its blocks, or None when it failed and holds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.reference.slow_machine import RECLAIM, SlowMachine
from tracereplay.demand.stream import ON_PATH, REQUIRED

IO, NORETRY, NOWARN, COMP, NOMEMALLOC = 0x40, 0x10000, 0x2000, 0x40000, 0x80000
NOWAIT_HIGHMEM = 0x802
KERNEL = 0xCC0
FIVE_SECONDS = 5 * 10**9
NEVER = 1 << 62
Piece = tuple[int, int]
"""First frame, order."""
Sleep = tuple[str, int]
"""What for (mutex, pool), until when."""
Wait = tuple[str, int, int]
"""The same, and blocks held meanwhile."""
Serving = Generator[Wait, None, list[Piece] | None]


@dataclass
class Ask:
    """What a request wants, and the blocks that it has so far."""

    cpu: int
    pages: int
    order: int
    gfp: int
    flags: int
    blocks: list[Piece] = field(default_factory=list)

    def take(self, frames: list[int]) -> None:
        self.blocks += [(pfn, 0) for pfn in frames]

    @property
    def missing(self) -> int:
        return self.pages - sum(1 << order for _, order in self.blocks)


@dataclass
class Quota:
    """A limit, and what is out of it: what all may see, and what each CPU keeps to itself."""

    limit: int | None
    batch: int = 0
    visible: int = 0
    hidden: dict[int, int] = field(default_factory=dict)

    def add(self, cpu: int, pages: int) -> None:
        self.hidden[cpu] = self.hidden.get(cpu, 0) + pages
        if abs(self.hidden[cpu]) >= self.batch:
            self.visible += self.hidden.pop(cpu)

    def exceeded_by(self, pages: int) -> bool:
        return max(0, self.visible) + pages > (self.limit or 0)

    @property
    def exact(self) -> int:
        return self.visible + sum(self.hidden.values())


@dataclass
class Pool:
    """A mempool of single pages with a quota."""

    machine: SlowMachine
    minimum: int
    quota: Quota
    gfp: int = NOWAIT_HIGHMEM
    reserve: list[int] = field(default_factory=list)
    idle_peak: int = 0
    refilled: Callable[[], None] = lambda: None
    """Called when an element came in."""
    now: Callable[[], int] = lambda: 0

    def allows(self, pages: int) -> bool:
        if self.quota.limit is None:
            return True
        self.machine.count("percpu_counter_ops")
        if self.quota.exceeded_by(pages):
            self.machine.count("quota_refusals")
            return False
        return True

    def charge(self, cpu: int, pages: int) -> None:
        if self.quota.limit is not None:
            self.machine.count("percpu_counter_ops")
            self.quota.add(cpu, pages)

    def callback(self, cpu: int, order: int, gfp: int) -> int | None:
        self.machine.count("callbacks")
        if gfp & NORETRY and not self.allows(1 << order):
            return None
        pfn = self.machine.alloc(cpu, order, gfp)
        if pfn is not None:
            self.charge(cpu, 1 << order)
        return pfn

    def push(self, pfn: int) -> None:
        self.reserve.append(pfn)
        self.idle_peak = max(self.idle_peak, len(self.reserve))

    def fill(self, cpu: int, gfp: int) -> None:
        while len(self.reserve) < self.minimum:
            pfn = self.callback(cpu, 0, gfp)
            assert pfn is not None
            self.push(pfn)

    def pop(self) -> int | None:
        self.machine.count("mempool_lock_acquisitions")
        if not self.reserve:
            return None
        self.machine.count("mempool_takes")
        return self.reserve.pop()

    def attempt(self, cpu: int, gfp: int) -> int | None:
        pfn = self.callback(cpu, 0, gfp)
        return self.pop() if pfn is None else pfn

    def alloc(self, cpu: int, gfp: int) -> Generator[Sleep, None, int | None]:
        """``mempool_alloc``."""
        self.machine.count("mempool_calls")
        full = gfp | NOMEMALLOC | NORETRY | NOWARN
        careful = full & ~(RECLAIM | IO)
        pfn = self.attempt(cpu, careful)
        if pfn is None and full != careful:
            pfn = self.attempt(cpu, full)
        if pfn is None and full & RECLAIM:
            yield self.sleep()
            pfn = yield from self.alloc_awake(cpu, gfp)
        return pfn

    def alloc_awake(self, cpu: int, gfp: int) -> Generator[Sleep, None, int | None]:
        """The same when it has slept."""
        full = gfp | NOMEMALLOC | NORETRY | NOWARN
        while True:
            pfn = self.attempt(cpu, full)
            if pfn is not None or not full & RECLAIM:
                return pfn
            yield self.sleep()

    def sleep(self) -> Sleep:
        self.machine.count("mempool_waits")
        return "pool", self.now() + FIVE_SECONDS

    def free(self, cpu: int, pfn: int) -> None:
        """``mempool_free``."""
        self.machine.count("mempool_calls")
        if len(self.reserve) < self.minimum:
            self.machine.count("mempool_lock_acquisitions")
            self.machine.count("mempool_puts")
            self.push(pfn)
            self.refilled()
        else:
            self.machine.count("callbacks")
            self.give_back(cpu, pfn, 0)

    def give_back(self, cpu: int, pfn: int, order: int) -> None:
        self.charge(cpu, -(1 << order))
        self.machine.free(cpu, pfn, order)

    def free_bulk(self, cpu: int, pages: list[int]) -> None:
        """``mempool_free_bulk``, then ``release_pages``."""
        self.machine.count("mempool_calls")
        room = self.minimum - len(self.reserve)
        if pages[:room]:
            self.machine.count("mempool_lock_acquisitions")
        for pfn in pages[:room]:
            self.machine.count("mempool_puts")
            self.push(pfn)
            self.refilled()
        for pfn in pages[room:]:
            self.machine.free(cpu, pfn, 0)
        if pages[room:]:
            self.charge(cpu, -len(pages[room:]))


@dataclass
class Strategy:
    """Base of all: what the slow replay asks of a strategy."""

    machine: SlowMachine
    pool: Pool
    params: dict[str, Any]
    mutex: int | None = None
    """Who holds it."""
    woken: set[str] = field(default_factory=set)
    """mutex, pool: what was let go since anybody looked."""
    timers: dict[int, int] = field(default_factory=dict)
    """When they are due, by number."""
    number: int = 0
    """Of the request that is being served, from 1."""
    clock: Any = None

    def __post_init__(self) -> None:
        """Prepare."""

    def serve(self, cpu: int, pages: int, order: int, gfp: int, flags: int) -> Serving:
        """Serve a request, yielding what it waits for."""
        return self.allocate(cpu, pages, order, gfp, flags)
        yield

    def allocate(self, cpu: int, pages: int, order: int, gfp: int, flags: int) -> list[Piece] | None:
        """Blocks in page order for one that does not wait; None: failed, and nothing is held."""
        return self.contiguous(cpu, order, gfp)

    def contiguous(self, cpu: int, order: int, gfp: int) -> list[Piece] | None:
        """One block."""
        pfn = self.machine.alloc(cpu, order, gfp)
        return None if pfn is None else [(pfn, order)]

    def release(self, cpu: int, block: Piece, flags: int) -> None:
        """The last page of a block was freed."""
        self.machine.free(cpu, *block)

    def timer(self, number: int) -> None:
        """A timer is due."""

    def shrink(self, pages: int) -> None:
        """Memory is reclaimed."""

    def finish(self) -> None:
        """The end."""


class PerPage(Strategy):
    """Single pages, through the mempool on the path, in two passes."""

    def __post_init__(self) -> None:
        self.pool.refilled = lambda: self.woken.add("pool")
        self.pool.now = lambda: int(self.clock.now)

    def serve(self, cpu: int, pages: int, order: int, gfp: int, flags: int) -> Serving:
        ask = Ask(cpu, pages, order, gfp, flags)
        for kind, until in self.sleeps(ask):
            yield kind, until, len(ask.blocks)
        if ask.missing:
            for block in ask.blocks:
                self.release(cpu, block, flags)
            return None
        return ask.blocks

    def sleeps(self, ask: Ask) -> Iterator[Sleep]:
        """Fill ``ask``, or not, yielding what is waited for."""
        if ask.flags & ON_PATH:
            yield from self.two_passes(ask)
        else:
            self.without_path(ask)

    def two_passes(self, ask: Ask) -> Iterator[Sleep]:
        yield from self.one_pass(ask, self.pool.gfp)
        if not ask.missing:
            return
        assert not self.pool.gfp & RECLAIM
        for block in ask.blocks:
            self.release(ask.cpu, block, ask.flags)
        ask.blocks = []
        self.machine.count("restarts")
        if self.params["mutex"]:
            while self.mutex is not None:
                yield "mutex", NEVER
            self.machine.count("mutex_acquisitions")
            self.mutex = self.number
        yield from self.one_pass(ask, self.pool.gfp | RECLAIM)
        if self.params["mutex"]:
            self.mutex = None
            self.woken.add("mutex")

    def release(self, cpu: int, block: Piece, flags: int) -> None:
        if flags & ON_PATH and not flags & REQUIRED and block[1] == 0:
            self.pool.free(cpu, block[0])
        else:
            self.machine.free(cpu, *block)

    def without_path(self, ask: Ask) -> None:
        while ask.missing:
            pfn = self.machine.alloc(ask.cpu, 0, ask.gfp)
            if pfn is None:
                return
            ask.take([pfn])

    def one_pass(self, ask: Ask, gfp: int) -> Iterator[Sleep]:
        while ask.missing:
            pfn = yield from self.pool.alloc(ask.cpu, gfp)
            if pfn is None:
                return
            ask.take([pfn])


class Bulk(PerPage):
    """Bulk calls while they bring something; on the path the mempool for the rest, the quota tested once a call."""

    def bulk(self, ask: Ask, gfp: int, counted: bool) -> None:
        p = self.params
        cap = p["batch_cap"] or ask.pages
        how = {name: p[name] for name in ("two_pass", "wmark_adds_count", "node_local_only", "fallback_single_page")}
        while ask.missing:
            size = min(cap, ask.missing)
            chunk: list[int] = []
            while len(chunk) < size:
                if counted and not self.pool.allows(1):
                    return
                before = chunk if p["form"] == "array" else []
                slots: list[int | None] = [*before, *[None] * (size - len(chunk))]
                self.machine.alloc_bulk(ask.cpu, gfp, slots, form=p["form"], **how)
                got = [pfn for pfn in slots[len(before) :] if pfn is not None]
                if not got:
                    return
                if counted:
                    self.pool.charge(ask.cpu, len(got))
                ask.take(got)
                chunk = chunk + got

    def without_path(self, ask: Ask) -> None:
        self.bulk(ask, ask.gfp, False)

    def one_pass(self, ask: Ask, gfp: int) -> Iterator[Sleep]:
        self.bulk(ask, gfp & ~RECLAIM, True)
        yield from super().one_pass(ask, gfp)


class Compound(PerPage):
    """Descending orders."""

    def without_path(self, ask: Ask) -> None:
        assert not list(self.descend(ask, ask.gfp, self.params["max_order"], False))

    def one_pass(self, ask: Ask, gfp: int) -> Iterator[Sleep]:
        again = gfp & RECLAIM and not self.pool.gfp & RECLAIM
        yield from self.descend(ask, gfp, self.params["retry_order" if again else "max_order"], True)

    def descend(self, ask: Ask, gfp: int, cap: int, path: bool) -> Iterator[Sleep]:
        while ask.missing:
            pfn = None
            order = min(cap, ask.missing.bit_length() - 1)
            while order > 0 and pfn is None:
                pfn = self.large(ask.cpu, order, gfp, path)
                if pfn is None:
                    order -= 1
                    if self.params["sticky_order"]:
                        cap = order
            if pfn is None:
                pfn = (yield from self.pool.alloc(ask.cpu, gfp)) if path else self.machine.alloc(ask.cpu, 0, gfp)
            if pfn is None:
                return
            ask.blocks.append((pfn, order))

    def large(self, cpu: int, order: int, gfp: int, path: bool) -> int | None:
        counted = path and self.params["account_large"]
        if counted and not self.pool.allows(1 << order):
            return None
        pfn = self.machine.alloc(cpu, order, gfp | NOMEMALLOC | NORETRY | NOWARN | COMP)
        if pfn is not None and counted:
            self.pool.charge(cpu, 1 << order)
        return pfn

    def release(self, cpu: int, block: Piece, flags: int) -> None:
        if flags & ON_PATH and not flags & REQUIRED and block[1] > 0 and self.params["account_large"]:
            self.pool.give_back(cpu, *block)
        else:
            super().release(cpu, block, flags)


class OwnReserve(PerPage):
    """Those that need a reserve: without a path they have one of their own, beside one they go past it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.own = self.pool.minimum == 0
        if self.own:
            self.pool.minimum = self.params["pool_pages"]
            self.pool.fill(0, KERNEL)

    def without_path(self, ask: Ask) -> None:
        """Bulk calls on the array while they bring something."""
        slots: list[int | None] = [None] * ask.pages
        got = -1
        while None in slots and slots.count(None) != got:
            got = slots.count(None)
            self.machine.alloc_bulk(ask.cpu, ask.gfp, slots)
        ask.take([pfn for pfn in slots if pfn is not None])

    def release(self, cpu: int, block: Piece, flags: int) -> None:
        if not flags & REQUIRED and (self.own or flags & ON_PATH):
            self.pool.free(cpu, block[0])
        else:
            self.machine.free(cpu, *block)


class MempoolBulk(OwnReserve):
    """Yang Shi's four steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.params["reserve_counted"]:
            self.pool.quota.visible = 0
            self.pool.quota.hidden.clear()

    def sleeps(self, ask: Ask) -> Iterator[Sleep]:
        if self.own:
            yield from self.one_pass(ask, ask.gfp)
        else:
            yield from super().sleeps(ask)

    def one_pass(self, ask: Ask, gfp: int) -> Iterator[Sleep]:
        self.machine.count("mempool_calls")
        full = gfp | NOMEMALLOC | NORETRY | NOWARN
        careful = full & ~(RECLAIM | IO)
        self.steps_1_and_2(ask, careful)
        if ask.missing and full != careful:
            self.steps_1_and_2(ask, full)
        while ask.missing and full & RECLAIM:
            yield self.pool.sleep()
            self.steps_1_and_2(ask, full)

    def steps_1_and_2(self, ask: Ask, gfp: int) -> None:
        count, p, quota = self.machine.count, self.params, self.pool.quota
        callback = p["form"] == "callback"
        count("callbacks")
        if self.pool.allows(1):
            wanted = ask.missing
            if p["quota_check"] == "per_page" and quota.limit is not None:
                count("percpu_counter_ops")
                wanted = min(wanted, quota.limit - max(0, quota.visible))
            slots: list[int | None] = [None] * wanted
            if not callback:
                slots = [pfn for pfn, _ in ask.blocks] + slots
            self.machine.alloc_bulk(ask.cpu, gfp, slots, form=p["form"])
            got = [pfn for pfn in slots[len(slots) - wanted :] if pfn is not None]
            if got:
                self.pool.charge(ask.cpu, len(got))
            ask.take(got)
        if not ask.missing:
            return
        count("mempool_lock_acquisitions")
        while ask.missing and self.pool.reserve:
            count("mempool_takes")
            ask.take([self.pool.reserve.pop()])
            if callback:
                count("callbacks")
            if p["pop_lock_per_page"]:
                count("mempool_lock_acquisitions")


class MempoolBulkAtomic(OwnReserve):
    """All or nothing."""

    def serve(self, cpu: int, pages: int, order: int, gfp: int, flags: int) -> Serving:
        ask = Ask(cpu, pages, order, gfp, flags)
        for kind, until in self.sleeps(ask):
            yield kind, until, len(ask.blocks)
        if not ask.missing:
            return ask.blocks
        if self.own or flags & ON_PATH:
            self.pool.free_bulk(cpu, [pfn for pfn, _ in ask.blocks])
        else:
            for pfn, _ in ask.blocks:
                self.machine.free(cpu, pfn, 0)
        return None

    def sleeps(self, ask: Ask) -> Iterator[Sleep]:
        if not self.own and not ask.flags & ON_PATH:
            return self.without_path(ask)
        gfp = self.pool.gfp | RECLAIM if ask.flags & ON_PATH else ask.gfp
        while ask.missing:
            end = max(0, ask.missing - self.pool.minimum)
            slots: list[int | None] = [None] * (ask.missing - end)
            if self.pool.allows(1):
                self.machine.alloc_bulk(ask.cpu, gfp & ~(RECLAIM | IO), slots)
                got = [pfn for pfn in slots if pfn is not None]
                if got:
                    self.pool.charge(ask.cpu, len(got))
                ask.take(got)
            if ask.missing > end:
                yield from self.alloc_bulk(ask, gfp, end)
            if ask.missing > end:
                return None
        return None

    def alloc_bulk(self, ask: Ask, gfp: int, end: int) -> Iterator[Sleep]:
        """``mempool_alloc_bulk``: until only ``end`` pages are missing."""
        self.machine.count("mempool_calls")
        full = gfp | NOMEMALLOC | NORETRY | NOWARN
        if self.singly(ask, full & ~(RECLAIM | IO), end) or self.take(ask, end):
            return
        while full & RECLAIM:
            if self.singly(ask, full, end) or self.take(ask, end):
                return
            deadline = self.pool.now() + FIVE_SECONDS
            while self.pool.now() < deadline:
                self.machine.count("mempool_waits")
                yield "pool", deadline
                if self.take(ask, end):
                    return

    def singly(self, ask: Ask, gfp: int, end: int) -> bool:
        while ask.missing > end:
            pfn = self.pool.callback(ask.cpu, 0, gfp)
            if pfn is None:
                return False
            ask.take([pfn])
        return True

    def take(self, ask: Ask, end: int) -> bool:
        self.machine.count("mempool_lock_acquisitions")
        missing = ask.missing - end
        if len(self.pool.reserve) < missing:
            return False
        self.machine.count("mempool_takes", missing)
        ask.take([self.pool.reserve.pop() for _ in range(missing)])
        return True


CRYPT: dict[str, type[Strategy]] = {
    "per-page": PerPage,
    "bulk": Bulk,
    "compound": Compound,
    "mempool-bulk": MempoolBulk,
    "mempool-bulk-atomic": MempoolBulkAtomic,
}
