"""Reserves, kswapd, reclaim and compaction of the slow machine: what a request meets once memory is short.

A part of ``SlowMachine``, kept apart for its length. Reclaim and compaction are the project's stated models: pages in
use since before the replay in movable pageblocks stand for cold ones, each once, from the start of their zone on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.reference.slow_machine import SlowMachine, Zone

MAX_ORDER, PAGEBLOCK_ORDER = 10, 9
PAGEBLOCK = 1 << PAGEBLOCK_ORDER
MOVABLE, HIGHATOMIC = 1, 3
IO = 0x40
MILLISECOND = 1_000_000


@dataclass(frozen=True)
class Way:
    """What a request may do on its way through the zones."""

    gfp: int
    mark: str = "low"
    nofragment: bool = False
    kswapd: bool = False
    cma: bool = False
    high: bool = False
    """Half of the MIN reserve."""
    non_block: bool = False
    """Another quarter of what is left (6.3)."""
    harder: bool = False
    """The same before."""
    highatomic: bool = False
    """HIGHATOMIC blocks, to use and to make."""
    unboosted: bool = False
    """At order 0 and MIN the boost does not count."""
    ignore_marks: bool = False


@dataclass
class Kswapd:
    """kswapd of a node at work."""

    top: int
    """Highest zone type it balances."""
    since: int
    """Up to when it has worked, ns."""
    goal: int
    """Pages to go through even where the node is balanced."""
    boosts: dict[int, int]
    """Boost of each zone when it started."""
    done: int = 0


class Reclaim:
    """kswapd, direct reclaim, compaction and HIGHATOMIC blocks."""

    # ------------------------------------------------------------------ HIGHATOMIC (section 4.6)
    def reserve(self: SlowMachine, zone: Zone, pfn: int, order: int) -> None:
        """``reserve_highatomic_pageblock``."""
        percent = zone.managed // 100
        if self.rules.tuning == "auto":
            most = -(-percent // PAGEBLOCK) * PAGEBLOCK if percent >= PAGEBLOCK else 0
        else:
            most = percent + PAGEBLOCK
        if zone.highatomic >= most:
            return
        self.lock(zone)
        if self.block_types[pfn >> PAGEBLOCK_ORDER] <= 2:
            if self.rules.exact_types and order >= PAGEBLOCK_ORDER:
                self.retype(pfn, order, HIGHATOMIC)
                zone.highatomic += 1 << order
                self.count("highatomic_reserved")
            elif not self.rules.exact_types or self.first_to_move(zone, pfn) is not None:
                self.move_chunks(zone, pfn, HIGHATOMIC)
                self.block_types[pfn >> PAGEBLOCK_ORDER] = HIGHATOMIC
                zone.highatomic += PAGEBLOCK
                self.count("highatomic_reserved")
        self.unlock(zone)

    def unreserve(self: SlowMachine, cpu: int, gfp: int, mt: int, *, force: bool) -> bool:
        """``unreserve_highatomic_pageblock``: one block, to the type that asks."""
        for z in self.zonelist(cpu, gfp):
            zone = self.zones[z]
            if zone.highatomic <= PAGEBLOCK and not force:
                continue
            self.lock(zone)
            done = any(
                self.release(zone, order, mt) for order in range(MAX_ORDER + 1) if zone.lists.get((order, HIGHATOMIC))
            )
            self.unlock(zone)
            if done:
                return True
        return False

    def release(self: SlowMachine, zone: Zone, order: int, mt: int) -> bool:
        pfn = zone.lists[order, HIGHATOMIC][0]
        self.count("highatomic_released")
        if self.rules.exact_types:
            zone.highatomic = max(0, zone.highatomic - max(PAGEBLOCK, 1 << order))
            if order >= PAGEBLOCK_ORDER:
                self.take(zone, pfn)
                self.put(zone, pfn, order, mt, tail=True)
                self.retype(pfn, order, mt)
                return True
        elif self.block_types[pfn >> PAGEBLOCK_ORDER] == HIGHATOMIC:
            zone.highatomic = max(0, zone.highatomic - PAGEBLOCK)
        self.block_types[pfn >> PAGEBLOCK_ORDER] = mt
        return self.move_chunks(zone, pfn, mt) > 0

    # ------------------------------------------------------------------ kswapd (sections 4.7, 4.8)
    def zones_up_to(self: SlowMachine, node: int, top: int) -> dict[int, Zone]:
        return {z: zone for z, zone in enumerate(self.zones) if zone.node == node and zone.type <= top}

    def balanced(self: SlowMachine, node: int, order: int, top: int) -> bool:
        plain = Way(GFP_OF_TOP[top])
        zones = self.zones_up_to(node, top).values()
        return any(self.watermark_ok(zone, order, zone.marks["high"], plain) for zone in zones)

    def wake_kswapd(self: SlowMachine, node: int, order: int, top: int) -> None:
        if node in self.kswapd or node in self.hopeless:
            return
        zones = self.zones_up_to(node, top)
        boost = sum(zone.boost for zone in zones.values())
        if not boost and self.balanced(node, order, top):
            return
        self.count("kswapd_wakes")
        goal = max(boost, 2 << order if order else 0)
        self.kswapd[node] = Kswapd(top, self.now, goal, {z: zone.boost for z, zone in zones.items()})
        for zone in zones.values():
            zone.reclaim_active = True

    def wake_all_kswapds(self: SlowMachine, cpu: int, order: int, gfp: int) -> None:
        for node in dict.fromkeys(self.zones[z].node for z in self.zonelist(cpu, gfp)):
            self.wake_kswapd(node, order, self.highest_zone(gfp))

    def boost_watermark(self: SlowMachine, zone: Zone, way: Way) -> None:
        """``boost_watermark`` and what follows from it in ``rmqueue``."""
        most = zone.marks["high"] * self.boost_factor // 10000
        if most == 0 or zone.managed < 4 * PAGEBLOCK:
            return
        self.count("watermark_boosts")
        zone.boost = min(zone.boost + PAGEBLOCK, max(most, PAGEBLOCK))
        if way.kswapd:
            self.wake_kswapd(zone.node, 0, zone.type)

    def background(self: SlowMachine, now: int) -> None:
        """Time has come to ``now``: kswapd of each node does what it had time for, in whole milliseconds."""
        self.now = now
        for node in sorted(self.kswapd):
            if now - self.kswapd[node].since >= MILLISECOND and self.work(node):
                self.sleep(node)

    def work(self: SlowMachine, node: int) -> bool:
        """Whether kswapd is done."""
        job = self.kswapd[node]
        periods = (self.now - job.since) // MILLISECOND
        job.since += periods * MILLISECOND
        left = periods * (self.kswapd_rate or 256)
        cpu = self.cpu_nodes.index(node) if node in self.cpu_nodes else 0
        while True:
            balanced = self.balanced(node, 0, job.top)
            if not balanced:
                job.goal = 0
            if balanced and job.done >= job.goal:
                return True
            if not left:
                return False
            step = min(left, 32) if self.kswapd_rate else left
            self.ask_shrinker(0 if balanced else step)
            left -= step
            job.done += step
            if self.kswapd_rate:
                freed = 0
                for z in sorted(self.zones_up_to(node, job.top), reverse=True):
                    freed += self.reclaim(cpu, z, step - freed)
                if not freed:
                    self.hopeless.add(node)
                    return True

    def sleep(self: SlowMachine, node: int) -> None:
        for z, seen in self.kswapd.pop(node).boosts.items():
            self.zones[z].boost -= min(self.zones[z].boost, seen)
            self.zones[z].reclaim_active = False

    # ------------------------------------------------------------------ what it frees
    def reclaim(self: SlowMachine, cpu: int, z: int, pages: int) -> int:
        """Free cold pages of a zone one by one; their number."""
        zone = self.zones[z]
        freed = 0
        while freed < pages and zone.start + self.reclaimed[z] < zone.end:
            pfn = zone.start + self.reclaimed[z]
            self.reclaimed[z] += 1
            if pfn in self.held and self.block_types[pfn >> PAGEBLOCK_ORDER] == MOVABLE:
                self.free_held(cpu, pfn, 0)
                freed += 1
        self.count("reclaimed_pages", freed)
        return freed

    def ask_shrinker(self: SlowMachine, pages: int) -> None:
        self.shrink_asked = (self.shrink_asked or 0) + pages

    def direct_reclaim(self: SlowMachine, cpu: int, gfp: int) -> int:
        self.count("reclaim_attempts")
        short = all(self.zones[z].free_pages <= self.zones[z].marks["high"] for z in self.zonelist(cpu, gfp))
        self.ask_shrinker(max(self.reclaim_pages, 32) if short else 0)
        freed = 0
        for z in self.zonelist(cpu, gfp):
            here = self.reclaim(cpu, z, self.reclaim_pages - freed)
            if here:
                self.hopeless.discard(self.zones[z].node)
            freed += here
        return freed

    # ------------------------------------------------------------------ compaction
    def direct_compact(self: SlowMachine, cpu: int, order: int, gfp: int) -> bool:
        if not gfp & IO:
            return False
        self.count("compaction_attempts")
        self.compaction_due += self.compaction_share
        if self.compaction_due < 1_000_000:
            return False
        self.compaction_due -= 1_000_000
        if any(self.clear_block(z, order) for z in self.zonelist(cpu, gfp)):
            self.count("compaction_successes")
            return True
        return False

    def clear_block(self: SlowMachine, z: int, order: int) -> bool:
        """Move the pages of a block into smaller free ones."""
        zone = self.zones[z]

        def small() -> Iterator[int]:
            return (o for (o, mt), frames in zone.lists.items() for _ in frames if mt == MOVABLE and o < order)

        if sum(1 << o for o in small()) < 1 << order:
            return False
        block = self.next_clearable(z, order)
        if block is None:
            return False
        self.lock(zone)
        for _ in range(1 << order):
            target = self.take_and_cut(zone, zone.lists[min(small()), MOVABLE][0], 0, MOVABLE)
            self.held.add(target)
            self.note_movable(target, 0, +1)
        frames = range(block, block + (1 << order))
        self.held -= set(frames)
        for pageblock, pages in Counter(frame >> PAGEBLOCK_ORDER for frame in frames).items():
            self.movable[pageblock] = max(0, self.movable[pageblock] - pages)
        self.free_one_page(zone, block, order, MOVABLE)
        self.unlock(zone)
        return True

    def next_clearable(self: SlowMachine, z: int, order: int) -> int | None:
        """The next block of movable pages in use; at the zone's end the search starts anew."""
        zone, size = self.zones[z], 1 << order
        while True:
            pfn = -(-(zone.start + self.cleared[z]) // size) * size
            if pfn + size > zone.end:
                self.cleared[z] = 0
                return None
            self.cleared[z] = pfn + size - zone.start
            types = {self.block_types[frame >> PAGEBLOCK_ORDER] for frame in (pfn, pfn + size - 1)}
            if types == {MOVABLE} and self.is_held(pfn, order):
                return pfn


GFP_OF_TOP = (0x1, 0x4, 0x0, 0xA)
"""A mask whose highest zone is DMA, DMA32, Normal, Movable."""
