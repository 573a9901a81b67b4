"""Strategies with a cache of pages per CPU, slow and obvious: one Python list a cache, the page put last at its end."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

from tests.reference.slow_machine import ACCOUNT, KSWAPD, MIN, MOVABLE, RECLAIM, UNMOVABLE, SlowMachine, migratetype
from tests.reference.slow_reclaim import Way
from tests.reference.slow_replay import Piece, Strategy
from tracereplay.demand.stream import REQUIRED

KERNEL, NORETRY, NOWARN, NOMEMALLOC = 0xCC0, 0x10000, 0x2000, 0x80000
RECLAIMABLE_MOVABLE = 0x18
US, MS = 1_000, 1_000_000


def pop_listed(m: SlowMachine, cpu: int, types: range) -> int | None:
    """``__rcu_alloc_page_lockless``."""
    m.count("alloc_calls")
    for z in m.zonelist(cpu, KERNEL):
        pcp = m.pcps[z, cpu]
        m.pcp_lock(pcp)
        for mt in types:
            if entries := pcp.lists[m.index(0, mt)]:
                return take_listed(m, cpu, z, entries, 0)
    m.count("failed_attempts", order=0)
    return None


def take_listed(m: SlowMachine, cpu: int, z: int, entries: list[tuple[int, int, int]], gfp: int) -> int:
    pfn = entries.pop(0)[0]
    m.pcps[z, cpu].count -= 1
    m.count("pcp_hits")
    m.prepare(pfn, cpu, 0, gfp)
    return pfn


def alloc_listed(m: SlowMachine, cpu: int, gfp: int) -> int | None:
    """The variant with a gfp flag."""
    m.count("alloc_calls")
    gfp &= ~RECLAIM
    way = Way(gfp, kswapd=bool(gfp & KSWAPD), cma=migratetype(gfp) == MOVABLE)
    for attempt in (way, m.desperate(0, replace(way, mark=MIN))):
        if attempt.mark == MIN and way.kswapd:
            m.wake_all_kswapds(cpu, 0, gfp)
        for z in m.zonelist(cpu, gfp):
            pcp = m.pcps[z, cpu]
            if m.passes(m.zones[z], 0, attempt):
                m.pcp_lock(pcp)
                pcp.free_factor >>= 1
                pcp.free_count >>= 1
                if entries := pcp.lists[m.index(0, migratetype(gfp))]:
                    return take_listed(m, cpu, z, entries, gfp)
    m.count("failed_attempts", order=0)
    return None


class PerCpu(Strategy):
    """What they share: requests by page, all or nothing; the caches; the worker's delay."""

    def __post_init__(self) -> None:
        self.caches: dict[int, list[int]] = defaultdict(list)
        self.rings: dict[int, list[int]] = defaultdict(list)
        self.cpus = range(len(self.machine.cpu_nodes))
        self.start()

    def start(self) -> None:
        """Prepare."""

    def page(self, cpu: int, gfp: int) -> int | None:
        """One page for a request."""
        raise NotImplementedError

    def give_back(self, cpu: int, pfn: int) -> None:
        """One page of a request that is over."""
        raise NotImplementedError

    def allocate(self, cpu: int, pages: int, order: int, gfp: int, flags: int) -> list[Piece] | None:
        if flags & REQUIRED and order > 0:
            return self.contiguous(cpu, order, gfp)
        blocks: list[Piece] = []
        for _ in range(pages):
            pfn = self.page(cpu, gfp)
            if pfn is None:
                break
            blocks.append((pfn, 0))
        self.asked(cpu)
        if len(blocks) == pages:
            return blocks
        for pfn, _ in blocks:
            self.give_back(cpu, pfn)
        return None

    def asked(self, cpu: int) -> None:
        """A request has taken what there was."""

    def release(self, cpu: int, block: Piece, flags: int) -> None:
        if block[1] > 0:
            self.machine.free(cpu, *block)
        else:
            self.give_back(cpu, block[0])

    def put(self, where: list[int], pfn: int) -> None:
        _, mt, _ = self.machine.used[pfn]
        if mt == MOVABLE:
            self.machine.note_movable(pfn, 0, -1)
        where.append(pfn)
        idle = sum(map(len, [*self.caches.values(), *self.rings.values()])) + len(self.pool.reserve)
        self.pool.idle_peak = max(self.pool.idle_peak, idle)

    def take(self, where: list[int], cpu: int, place: int = -1) -> int:
        pfn = where.pop(place)
        self.machine.used[pfn] = (0, UNMOVABLE, cpu)
        return pfn

    def hit(self, cpu: int, counter: str = "cache_hits") -> int | None:
        if self.caches[cpu]:
            self.machine.count(counter)
            return self.take(self.caches[cpu], cpu)
        self.machine.count("cache_misses")
        return None

    def recycle(self, home: int, cpu: int, pfn: int, room: int) -> bool:
        """Put a page into a cache that has room, else free it."""
        if len(self.caches[home]) < room:
            self.machine.count("cache_puts")
            self.put(self.caches[home], pfn)
            return True
        self.machine.free(cpu, pfn, 0)
        return False

    def drain(self, cpu: int, keep: int = 0) -> int:
        freed = 0
        while len(self.caches[cpu]) > keep:
            self.machine.free(cpu, self.take(self.caches[cpu], cpu), 0)
            freed += 1
        return freed

    # ------------------------------------------------------------------ workers
    def running_at(self, queued: int) -> int:
        low, high = self.params["scheduler_min"] * US, self.params["scheduler_max"] * US
        return queued + low + (self.machine.chance(high - low + 1) if high > low else 0)

    def queue_worker(self, cpu: int, delay: int | None = None) -> None:
        self.machine.count("worker_wakeups")
        delay = self.params["worker_delay"] * US if delay is None else delay
        self.timers[cpu] = self.running_at(self.clock.now + delay)

    def work(self, cpu: int, target: int, gfp: int) -> int:
        self.machine.count("worker_runs")
        before = len(self.caches[cpu])
        while len(self.caches[cpu]) < target:
            pfn = self.machine.alloc(cpu, 0, gfp)
            if pfn is None:
                break
            self.put(self.caches[cpu], pfn)
        added = len(self.caches[cpu]) - before
        self.machine.count("cache_refills", int(added > 0))
        return added

    def scan(self, pages: int) -> None:
        for cpu in self.cpus:
            if pages > 0:
                pages -= self.drain(cpu)


class KvfreeCache(PerCpu):
    """Mainline's."""

    gfp = KERNEL | NORETRY | NOMEMALLOC | NOWARN

    def start(self) -> None:
        self.backed_off: set[int] = set()

    def page(self, cpu: int, gfp: int) -> int | None:
        pfn = self.hit(cpu)
        if pfn is None and self.params["form"] == "one_arg":
            pfn = self.machine.alloc(cpu, 0, self.gfp)
        if pfn is None and self.params["cached"] and cpu not in self.timers:
            self.queue_worker(cpu, self.params["backoff"] * MS if cpu in self.backed_off else None)
        return pfn

    def give_back(self, cpu: int, pfn: int) -> None:
        self.recycle(self.machine.used[pfn][2], cpu, pfn, self.params["cached"])

    def timer(self, number: int) -> None:
        few = min(self.params["backoff_target"], self.params["cached"])
        self.work(number, few if number in self.backed_off else self.params["cached"], self.gfp)
        self.backed_off.discard(number)

    def shrink(self, pages: int) -> None:
        self.backed_off = set(self.cpus)
        self.scan(pages)


class BackgroundPool(PerCpu):
    """Hocko's and Gorman's."""

    def start(self) -> None:
        self.caps = dict.fromkeys(self.cpus, self.params["base"])
        self.empty: set[int] = set()
        self.used_at: Counter[int] = Counter()
        self.inhibited_until = 0
        if self.params["prefill"]:
            self.timers.update(dict.fromkeys(self.cpus, 1))

    def page(self, cpu: int, gfp: int) -> int | None:
        self.used_at[cpu] = self.clock.now
        pfn = self.hit(cpu)
        if pfn is not None:
            return pfn
        if cpu not in self.empty:
            self.empty.add(cpu)
            self.caps[cpu] = min(2 * self.caps[cpu], self.params["most"])
            if self.caps[cpu] > self.params["base"]:
                self.timers.setdefault(len(self.cpus) + cpu, self.clock.now + self.params["idle"] * MS)
        return self.machine.alloc(cpu, 0, gfp) if self.params["on_empty"] == "allocate" else None

    def asked(self, cpu: int) -> None:
        if len(self.caches[cpu]) <= self.params["low"] and cpu not in self.timers:
            self.queue_worker(cpu, max(self.inhibited_until - self.clock.now, self.params["worker_delay"] * US))

    def give_back(self, cpu: int, pfn: int) -> None:
        if self.recycle(cpu, cpu, pfn, self.caps[cpu]):
            self.empty.discard(cpu)

    def timer(self, number: int) -> None:
        now, cpu = self.clock.now, number % len(self.cpus)
        if number == cpu:
            if now < self.inhibited_until:
                self.timers[cpu] = self.running_at(self.inhibited_until)
            elif self.work(cpu, self.params["high"] * self.caps[cpu] // self.params["base"], KERNEL):
                self.empty.discard(cpu)
            return
        again = self.used_at[cpu] + self.params["idle"] * MS
        if again <= now:
            self.caps[cpu] = max(self.caps[cpu] // 2, self.params["base"])
            self.drain(cpu, self.caps[cpu])
            again = now + self.params["idle"] * MS
        if self.caps[cpu] > self.params["base"]:
            self.timers[number] = again

    def shrink(self, pages: int) -> None:
        self.inhibited_until = self.clock.now + self.params["inhibit"] * MS
        for cpu in self.cpus:
            self.drain(cpu)


class RcuLockless(PerCpu):
    """Rezki's."""

    def page(self, cpu: int, gfp: int) -> int | None:
        if self.params["refill_worker"]:
            pfn = self.hit(cpu)
            if pfn is not None:
                return pfn
            if cpu not in self.timers:
                self.queue_worker(cpu)
        if self.params["watermark"]:
            return alloc_listed(self.machine, cpu, gfp)
        return pop_listed(self.machine, cpu, range(3 if self.params["types"] == "any" else 1))

    def give_back(self, cpu: int, pfn: int) -> None:
        self.machine.free(cpu, pfn, 0)

    def timer(self, number: int) -> None:
        self.work(number, self.params["cached"], KERNEL | NORETRY | NOWARN)

    def shrink(self, pages: int) -> None:
        self.scan(pages)


class PagePool(PerCpu):
    """The drivers'. In a ring the oldest page comes first."""

    def page(self, cpu: int, gfp: int) -> int | None:
        if not self.caches[cpu]:
            self.refill_from_ring(cpu)
        pfn = self.hit(cpu, "unlocked_hits")
        if pfn is not None:
            return pfn
        slots: list[int | None] = [None] * min(self.params["refill"], self.params["cache"])
        got = self.machine.alloc_bulk(cpu, gfp & ~(ACCOUNT | RECLAIMABLE_MOVABLE), slots)
        for frame in slots[:got]:
            assert frame is not None
            self.put(self.caches[cpu], frame)
        self.machine.count("cache_refills", int(got > 0))
        return self.take(self.caches[cpu], cpu) if got else None

    def refill_from_ring(self, cpu: int) -> None:
        zones = self.machine.zones
        for _ in range(min(self.params["refill"], len(self.rings[cpu]))):
            pfn = self.take(self.rings[cpu], cpu, 0)
            node = next(zone.node for zone in zones if zone.start <= pfn < zone.end)
            if self.params["numa_match"] and node != self.machine.cpu_nodes[cpu]:
                self.machine.free(cpu, pfn, 0)
                return
            self.put(self.caches[cpu], pfn)

    def give_back(self, cpu: int, pfn: int) -> None:
        home = self.machine.used[pfn][2]
        own = home == cpu and len(self.caches[home]) < self.params["cache"]
        if own or len(self.rings[home]) < self.params["ring"]:
            self.machine.count("unlocked_puts" if own else "cache_puts")
            self.put(self.caches[home] if own else self.rings[home], pfn)
        else:
            self.machine.free(cpu, pfn, 0)


CACHES: dict[str, type[Strategy]] = {
    "kvfree-cache": KvfreeCache,
    "background-pool": BackgroundPool,
    "rcu-lockless": RcuLockless,
    "page-pool": PagePool,
}
