"""The strategies of pages outside the direct map, slow and obvious: lists of blocks, a set of pages that are out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.reference.slow_direct_map import SlowDirectMap
from tests.reference.slow_machine import MOVABLE, UNMOVABLE, WANTS_UNMAPPED, ZERO
from tests.reference.slow_replay import Piece, Strategy
from tracereplay.demand.stream import REQUIRED

THISNODE, ACCOUNT = 0x200000, 0x400000
NODES = 8


@dataclass
class Unmapped(Strategy):
    """Base: caches of blocks, each with lists by order, the head first."""

    direct_map: SlowDirectMap = field(default=None)  # type: ignore[arg-type]
    lists: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    """By (cache, order)."""

    @property
    def cached(self) -> int:
        lists = sum(len(found) << order for (_, order), found in self.lists.items())
        return lists + sum(1 << order for _, order in self.machine.captured)

    @property
    def largest(self) -> int:
        """Order up to which blocks merge."""
        return int(self.params.get("block_order", 10))

    def put(self, cache: int, pfn: int, order: int) -> None:
        """Into a cache, merging; the lock is held."""
        while order < self.largest and pfn ^ (1 << order) in self.lists[cache, order]:
            self.lists[cache, order].remove(pfn ^ (1 << order))
            pfn &= ~(1 << order)
            order += 1
        self.lists[cache, order].insert(0, pfn)
        self.pool.idle_peak = max(self.pool.idle_peak, self.cached + len(self.pool.reserve))

    def take(self, cache: int, order: int) -> int | None:
        self.machine.count("cache_locks")
        for larger in range(order, 11):
            if self.lists[cache, larger]:
                pfn = self.lists[cache, larger].pop(0)
                for half in range(larger - 1, order - 1, -1):
                    self.lists[cache, half].insert(0, pfn + (1 << half))
                return pfn
        return None

    def put_locked(self, cache: int, pfn: int, order: int) -> None:
        self.machine.count("cache_locks")
        self.put(cache, pfn, order)

    def unmap_all(self, cpu: int, pfn: int, order: int) -> bool:
        out = self.direct_map.unmap(cpu, pfn, 1 << order)
        if out < 1 << order:
            self.direct_map.map(pfn, out)
            return False
        self.direct_map.flush(1 << order)
        return True

    def own(self, pfn: int) -> None:
        """A block from the machine is for a cache: its pages are no movable ones, whatever got it."""
        order, mt, cpu = self.machine.used[pfn]
        if mt == MOVABLE:
            self.machine.note_movable(pfn, order, -1)
            self.machine.used[pfn] = (order, UNMOVABLE, cpu)

    def finish(self) -> None:
        """The end of the stream."""

    def node(self, pfn: int) -> int:
        return next(zone.node for zone in self.machine.zones if zone.start <= pfn < zone.end)


@dataclass
class UnmappedCache(Unmapped):
    """Rapoport's cache, described or posted."""

    def cache_of(self, pfn: int) -> int:
        return self.node(pfn) if self.params["per_node"] else 0

    def absorb(self) -> None:
        self.pool.idle_peak = max(self.pool.idle_peak, self.cached + len(self.pool.reserve))
        while self.machine.captured:
            pfn, order = self.machine.captured.pop(0)
            self.put(self.cache_of(pfn), pfn, order)

    def refill(self, cpu: int, order: int, gfp: int) -> int | None:
        """The cache that got a block."""
        zero = 0 if self.params["zero"] == "never" else ZERO
        least = max(order, self.params["min_refill"])
        for larger in range(min(9, max(self.params["refill_order"], least)), least - 1, -1):
            pfn = self.machine.alloc(cpu, larger, gfp & ~ZERO | zero)
            if pfn is None:
                continue
            if self.params["mode"] == "posted":
                for page in range(pfn, pfn + (1 << order)):
                    self.direct_map.unmap_page(cpu, page)
                self.direct_map.flush(1 << order)
                self.machine.capturing.add(pfn >> 9)
            elif not self.unmap_all(cpu, pfn, larger):
                self.machine.free(cpu, pfn, larger)
                return None
            self.machine.count("cache_refills")
            self.own(pfn)
            cache = self.cache_of(pfn)
            self.put_locked(cache, pfn, larger)
            return cache
        return None

    def one(self, cpu: int, order: int, gfp: int) -> int | None:
        home = self.machine.cpu_nodes[cpu] if self.params["per_node"] else 0
        others = [(home + d) % NODES for d in range(1, NODES)] if self.params["per_node"] else []
        pfn = self.take(home, order)
        if pfn is not None:
            self.machine.count("cache_hits")
            return pfn
        self.machine.count("cache_misses")
        if self.params["per_node"]:
            cache = self.refill(cpu, order, gfp | THISNODE)
            if cache is not None:
                return self.take(cache, order)
            if gfp & THISNODE:
                return None
        for other in others:
            pfn = self.take(other, order)
            if pfn is not None:
                return pfn
        cache = self.refill(cpu, order, gfp)
        return None if cache is None else self.take(cache, order)

    def allocate(self, cpu: int, pages: int, order: int, gfp: int, flags: int) -> list[Piece] | None:
        self.absorb()
        size = order if flags & REQUIRED else 0
        blocks: list[Piece] = []
        for _ in range(pages >> size):
            self.machine.count("alloc_calls")
            pfn = self.one(cpu, size, gfp)
            if pfn is None:
                for block in blocks:
                    self.put_locked(self.cache_of(block[0]), *block)
                return None
            if self.params["zero"] == "always":
                self.machine.count("zeroed_pages", 1 << size)
            if gfp & ACCOUNT:
                self.machine.count("memcg_charges")
            if self.params["mode"] == "posted":
                mapped = set(range(pfn, pfn + (1 << size))) - self.direct_map.absent
                self.machine.count("cache_mapped_pages", len(mapped))
            blocks.append((pfn, size))
        return blocks

    def release(self, cpu: int, block: Piece, flags: int) -> None:
        self.absorb()
        self.machine.count("free_calls")
        self.machine.count("cache_puts")
        self.put_locked(self.cache_of(block[0]), *block)

    def finish(self) -> None:
        self.absorb()

    def shrink(self, pages: int) -> None:
        """Give back at least so many pages, as far as there are any."""
        self.absorb()
        for order in sorted(range(11), reverse=self.params["shrinker"] == "descending"):
            for cache in range(NODES):
                while pages > 0 and self.lists[cache, order]:
                    pfn = self.lists[cache, order].pop(0)
                    pages -= 1 << order
                    self.machine.count("cache_locks")
                    if order == 9:
                        self.machine.capturing.discard(pfn >> 9)
                    self.direct_map.map(pfn, 1 << order)
                    self.machine.count("shrunk_pages", 1 << order)
                    if self.params["collapse_on_release"]:
                        for page in range(pfn, pfn + (1 << order), 512):
                            self.direct_map.collapse(0, page)
                    self.machine.free_to_tail(pfn, order)


@dataclass
class UnmappedMigratetype(Unmapped):
    """Pageblocks of a type of their own; pages leave the direct map at allocation and return at free."""

    def __post_init__(self) -> None:
        for pcp in self.machine.pcps.values():
            pcp.lists += [[] for _ in range(20 - len(pcp.lists))]

    def allocate(self, cpu: int, pages: int, order: int, gfp: int, flags: int) -> list[Piece] | None:
        size = order if flags & REQUIRED else 0
        blocks: list[Piece] = []
        for _ in range(pages >> size):
            pfn = self.machine.alloc(cpu, size, gfp | WANTS_UNMAPPED)
            if pfn is not None and not self.unmap_all(cpu, pfn, size):
                self.machine.free(cpu, pfn, size)
                pfn = None
            if pfn is None:
                for block in blocks:
                    self.release(cpu, block, flags)
                return None
            blocks.append((pfn, size))
        return blocks

    def release(self, cpu: int, block: Piece, flags: int) -> None:
        self.direct_map.map(block[0], 1 << block[1])
        self.machine.free(cpu, *block)


@dataclass
class UnmappedPerUse(Unmapped):
    """A pool for one user (streams here name one caller), or page by page."""

    live: int = 0

    def single(self, cpu: int, order: int, gfp: int) -> int | None:
        pfn = self.machine.alloc(cpu, order, gfp)
        if pfn is not None and not self.unmap_all(cpu, pfn, order):
            self.machine.free(cpu, pfn, order)
            return None
        return pfn

    def one(self, cpu: int, order: int, gfp: int) -> int | None:
        if self.params["mode"] == "page":
            return self.single(cpu, order, gfp)
        size = self.params["block_order"]
        self.machine.count("alloc_calls")
        pfn = self.take(0, order)
        if pfn is not None:
            self.machine.count("cache_hits")
        else:
            self.machine.count("cache_misses")
            grown = self.single(cpu, size, gfp) if order <= size else None
            if grown is not None:
                self.machine.count("cache_refills")
                self.machine.count("cache_locks")
                self.own(grown)
                self.put(0, grown, size)
                pfn = self.take(0, order)
        if pfn is not None:
            self.live += 1 << order
        return pfn

    def allocate(self, cpu: int, pages: int, order: int, gfp: int, flags: int) -> list[Piece] | None:
        size = order if flags & REQUIRED else 0
        blocks: list[Piece] = []
        for _ in range(pages >> size):
            pfn = self.one(cpu, size, gfp)
            if pfn is None:
                for block in blocks:
                    self.give(cpu, block)
                return None
            blocks.append((pfn, size))
        return blocks

    def give(self, cpu: int, block: Piece) -> None:
        pfn, order = block
        if self.params["mode"] == "page":
            self.give_to_system(cpu, pfn, order)
            return
        size = self.params["block_order"]
        self.live -= 1 << order
        before = len(self.lists[0, size])
        self.put_locked(0, pfn, order)
        whole = len(self.lists[0, size]) > before
        if {"last": self.live == 0, "block": whole, "never": False}[self.params["give_back"]]:
            while self.lists[0, size]:
                self.machine.count("cache_locks")
                taken = self.lists[0, size].pop(0)
                self.machine.used[taken] = (size, UNMOVABLE, cpu)  # whoever takes it off the list has it
                self.give_to_system(cpu, taken, size)

    def give_to_system(self, cpu: int, pfn: int, order: int) -> None:
        self.machine.count("zeroed_pages", 1 << order)
        self.direct_map.map(pfn, 1 << order)
        self.machine.free(cpu, pfn, order)

    def release(self, cpu: int, block: Piece, flags: int) -> None:
        if self.params["mode"] == "pool":
            self.machine.count("free_calls")
            self.machine.count("cache_puts")
        self.give(cpu, block)


STRATEGIES: dict[str, type[Strategy]] = {
    "unmapped-cache": UnmappedCache,
    "unmapped-migratetype": UnmappedMigratetype,
    "unmapped-per-use": UnmappedPerUse,
}
