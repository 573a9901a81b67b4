"""The page allocator, slow and obvious: lists, dicts and sets, one method a kernel function.

The oracle for ``tracereplay.machine``, written from the facts about mm/page_alloc.c and not from the compiled code.
It is the model that the project states: nobody else ever holds a lock, movable pages in use are known only by what was
asked for, and reclaim is that of ``slow_reclaim``.

Counters, beside those that speak for themselves: a *watermark check* is one test of one zone, a *hit* a block that
was on its per-CPU list, a *drain* one decision to give back (6.19 cuts it into chunks), a *fallback* a
block of a foreign type (a *block move* when its pageblock changed type), a *failed attempt* a call without a result.
Work under the zone lock: one for each block taken, given back, moved to another type, merged or cut.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from tests.reference.slow_reclaim import Kswapd, Reclaim, Way

MAX_ORDER, PAGEBLOCK_ORDER, COSTLY_ORDER = 10, 9, 3
PAGEBLOCK = 1 << PAGEBLOCK_ORDER
UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC, CMA, UNMAPPED = 0, 1, 2, 3, 4, 6
FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE, UNMAPPED),
    MOVABLE: (RECLAIMABLE, UNMOVABLE, UNMAPPED),
    RECLAIMABLE: (UNMOVABLE, MOVABLE, UNMAPPED),
    UNMAPPED: (UNMOVABLE, RECLAIMABLE, MOVABLE),
}
WANTS_UNMAPPED = 1 << 40
"""A flag of its own for requests of MIGRATE_UNMAPPED."""
ZONES = ("DMA", "DMA32", "Normal", "Movable")
GFP_ZONES = {
    0x0: "Normal",
    0x1: "DMA",
    0x2: "Normal",
    0x4: "DMA32",
    0x8: "Normal",
    0x9: "DMA",
    0xA: "Movable",
    0xC: "DMA32",
}
"""Low four bits of a mask (section 1.2)."""
NORMAL, FROM_CMA, STEAL = "normal", "cma", "steal"
LOW, MIN = "low", "min"
HIGH_, ZERO, ATOMIC, RECLAIM = 0x20, 0x100, 0x200, 0x400
KSWAPD, MAYFAIL, NORETRY, MEMALLOC = 0x800, 0x4000, 0x10000, 0x20000
COMP, NOMEMALLOC, THISNODE, ACCOUNT = 0x40000, 0x80000, 0x200000, 0x400000


@dataclass(frozen=True)
class Rules:
    """What one generation does its own way."""

    thp_lists: int
    """Lists for blocks of pageblock order; 0: none, and none for orders 1 to 3 either."""
    tuning: str
    """Sizes of per-CPU lists: fixed, free_factor or auto."""
    buddy_after_pcp: bool
    """A request that the per-CPU lists do not serve goes on to the buddy lists of the zone (6.1)."""
    drain_from_freed: bool
    """A drain starts at the list just freed to (5.18), not round robin at list 1."""
    free_all_high: bool
    """Freeing orders 1 to 3 in a row drains everything (6.1)."""
    exact_types: bool
    """A free block is on the list of its pageblock's type (6.10)."""
    claim_then_steal: bool = False
    """Fallback in two phases (6.15), and the higher threshold for freeing all of a burst (6.18)."""
    chunks: bool = False
    """Drains let go of both locks every ``batch`` pages (6.19)."""
    bulk: str = "charges"
    """alloc_pages_bulk: "none" (5.10), the "early" one (5.14), or that which "charges" accounted requests (5.15)."""
    decay: str = "none"
    """The vmstat worker drains what exceeds high: not at all, "whole" (6.7), or in "batches" (6.18)."""
    drain_all: str = "irqs off"
    """drain_all_pages: with interrupts off, all under "one lock" (6.1), or in "chunks" of batch << scale (6.12)."""


RULES = {
    "5.10": Rules(0, "fixed", False, False, False, False, bulk="none"),
    "5.14": Rules(3, "free_factor", False, False, False, False, bulk="early"),
    "6.1": Rules(1, "free_factor", True, True, True, False, drain_all="one lock"),
    "6.7": Rules(1, "auto", True, True, True, False, decay="whole", drain_all="one lock"),
    "6.12": Rules(2, "auto", True, True, True, True, decay="whole", drain_all="chunks"),
    "6.18": Rules(2, "auto", True, True, True, True, True, decay="batches", drain_all="chunks"),
    "6.19": Rules(2, "auto", True, True, True, True, True, True, decay="batches", drain_all="chunks"),
}


@dataclass
class Zone:
    """A zone: its limits and its buddy lists, ``lists[order, type]`` with the head first."""

    name: str
    node: int
    start: int
    end: int
    marks: dict[str, int]
    reserve: list[int]
    """lowmem_reserve by highest zone of the request."""
    nofragment: bool
    """Requests that prefer this zone rather go elsewhere than mix types."""
    lists: dict[tuple[int, int], list[int]]
    free_pages: int
    managed: int
    below_high: bool = False
    boost: int = 0
    highatomic: int = 0
    """Pages in HIGHATOMIC blocks, as accounted."""
    reclaim_active: bool = False
    """kswapd is at work on it."""
    locks: int = 0
    work: int = 0
    longest: int = 0

    @property
    def type(self) -> int:
        """Place of its name in ZONES."""
        return ZONES.index(self.name)

    def free_of(self, mt: int) -> int:
        """Free pages on the lists of a type."""
        return sum(len(frames) << order for (order, of), frames in self.lists.items() if of == mt)


@dataclass
class Pcp:
    """Per-CPU lists of a zone: (first frame, order, type at entry), the head first."""

    batch: int
    high: int
    high_min: int
    high_max: int
    free_high_batch: bool
    lists: list[list[tuple[int, int, int]]]
    count: int = 0
    alloc_factor: int = 0
    free_factor: int = 0
    free_count: int = 0
    prev_high_order: bool = False
    locks: int = 0
    longest: int = 0
    """Most pages given back under one hold of the locks."""
    expire: int = 0
    """Ticks until the pages of another node's zone go back; 0: not counting."""
    used_before: int = 0
    """``locks`` at the last tick."""


HOLD_COUNTERS = ("splits", "merges", "fallbacks", "fallback_block_moves")


@dataclass
class Hold:
    """One hold of a zone lock."""

    now: int
    cpu: int
    zone: int
    work: int
    done: dict[str, int]


@dataclass
class SlowMachine(Reclaim):
    """The whole machine."""

    generation: str
    zones: list[Zone]
    pcps: dict[tuple[int, int], Pcp]
    """By (zone number, CPU)."""
    cpu_nodes: list[int]
    block_types: dict[int, int]
    movable: dict[int, int]
    """Pages in use that were asked for as movable, by pageblock."""
    scale_max: int = 5
    init_on_alloc: bool = False
    random: int = 0
    """State of splitmix64."""
    boost_factor: int = 0
    kswapd_rate: int = 0
    shrink_asked: int | None = None
    """Pages that reclaim asked a shrinker for since anybody looked; None: it did not ask."""
    """Pages a ms."""
    reclaim_pages: int = 0
    compaction_share: int = 0
    """Millionths."""
    compaction_due: int = 0
    now: int = 0
    kswapd: dict[int, Kswapd] = field(default_factory=dict)
    """Those at work, by node."""
    hopeless: set[int] = field(default_factory=set)
    """Nodes whose kswapd found nothing to free."""
    reclaimed: Counter[int] = field(default_factory=Counter)
    cleared: Counter[int] = field(default_factory=Counter)
    """Frames of each zone that were looked at for a page to reclaim, for a block to clear."""
    vmstat_interval_ns: int = 0
    next_tick: dict[int, int] = field(default_factory=dict)
    """When each CPU's vmstat worker is to run next."""
    used: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """Blocks handed out: order, type, CPU."""
    held: set[int] = field(default_factory=set)
    """Frames in use since before the replay."""
    looked_at: Counter[int] = field(default_factory=Counter)
    """Blocks of each order that were looked at for a held one."""
    counters: Counter[str] = field(default_factory=Counter)
    by_order: Counter[tuple[str, int]] = field(default_factory=Counter)
    capturing: set[int] = field(default_factory=set)
    """Pageblocks whose frees go to ``captured``, as (frame, order)."""
    captured: list[tuple[int, int]] = field(default_factory=list)
    cpu: int = 0
    """Of the operation that is being done."""
    holds: list[Hold] = field(default_factory=list)
    """Every hold of a zone lock."""

    def __post_init__(self) -> None:
        self.rules = RULES[self.generation]
        self.free_blocks = {pfn: key for zone in self.zones for key, frames in zone.lists.items() for pfn in frames}
        """Order and list type of each free block."""

    def count(self, name: str, n: int = 1, order: int | None = None) -> None:
        self.counters[name] += n
        if order is not None:
            self.by_order[name, order] += n

    def chance(self, below: int) -> int:
        """A number from 0 to ``below`` - 1 (splitmix64)."""
        self.random = (self.random + 0x9E3779B97F4A7C15) % 2**64
        z = self.random
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return (z ^ z >> 31) % 2**63 % below

    # ------------------------------------------------------------------ buddy lists (section 2)
    def lock(self, zone: Zone) -> None:
        self.count("zone_lock_acquisitions")
        zone.locks += 1
        zone.work = 0
        self.before = Counter(self.counters)

    def unlock(self, zone: Zone) -> None:
        zone.longest = max(zone.longest, zone.work)
        done = {name: self.counters[name] - self.before[name] for name in HOLD_COUNTERS}
        self.holds.append(Hold(self.now, self.cpu, self.zones.index(zone), zone.work, done))

    def put(self, zone: Zone, pfn: int, order: int, mt: int, *, tail: bool) -> None:
        frames = zone.lists.setdefault((order, mt), [])
        frames.insert(len(frames) if tail else 0, pfn)
        self.free_blocks[pfn] = (order, mt)

    def take(self, zone: Zone, pfn: int) -> None:
        zone.lists[self.free_blocks.pop(pfn)].remove(pfn)

    def is_free(self, zone: Zone, pfn: int, order: int) -> bool:
        return zone.start <= pfn < zone.end and self.free_blocks.get(pfn, (-1, -1))[0] == order

    def expand(self, zone: Zone, pfn: int, low: int, high: int, mt: int) -> None:
        for order in range(high - 1, low - 1, -1):
            self.count("splits", order=order + 1)
            zone.work += 1
            self.put(zone, pfn + (1 << order), order, mt, tail=False)

    def take_and_cut(self, zone: Zone, pfn: int, wanted: int, leftovers: int) -> int:
        order, _ = self.free_blocks[pfn]
        self.take(zone, pfn)
        zone.work += 1
        zone.free_pages -= 1 << wanted
        self.expand(zone, pfn, wanted, order, leftovers)
        return pfn

    def rmqueue_smallest(self, zone: Zone, order: int, mt: int) -> int | None:
        for larger in range(order, MAX_ORDER + 1):
            if frames := zone.lists.get((larger, mt)):
                return self.take_and_cut(zone, frames[0], order, mt)
        return None

    def free_one_page(self, zone: Zone, pfn: int, order: int, mt: int, *, tail: bool = False) -> None:
        zone.free_pages += 1 << order
        zone.work += 1
        while order < MAX_ORDER and self.is_free(zone, pfn ^ (1 << order), order):
            buddy = pfn ^ (1 << order)
            reserved = {mt, self.free_blocks[buddy][1]} - {UNMOVABLE, MOVABLE, RECLAIMABLE}
            apart = order >= PAGEBLOCK_ORDER and reserved and mt != self.free_blocks[buddy][1]
            if apart and self.rules.drain_from_freed:  # before 5.18 only isolated blocks stay apart: there are none
                break
            self.take(zone, buddy)
            if order >= PAGEBLOCK_ORDER and self.rules.exact_types:
                self.retype(buddy, order, mt)
            self.count("merges", order=order)
            zone.work += 1
            pfn &= buddy
            order += 1
        larger = pfn & ~(1 << order)
        merge_likely = order < MAX_ORDER - 1 and self.is_free(zone, larger ^ (2 << order), order + 1)
        self.put(zone, pfn, order, mt, tail=tail or merge_likely)

    def retype(self, pfn: int, order: int, mt: int) -> None:
        for block in range(pfn >> PAGEBLOCK_ORDER, (pfn + (1 << order)) >> PAGEBLOCK_ORDER):
            self.block_types[block] = mt

    # ------------------------------------------------------------------ fallback (section 4.4)
    def rmqueue(self, zone: Zone, order: int, mt: int, way: Way, mode: str = NORMAL) -> tuple[int | None, str]:
        """A block and the mode that the rest of this lock hold goes on in."""
        if mt == UNMAPPED:
            return self.rmqueue_unmapped(zone, order, way), NORMAL
        mostly_cma = way.cma and zone.free_of(CMA) > zone.free_pages // 2
        if mostly_cma and (pfn := self.rmqueue_smallest(zone, order, CMA)) is not None:
            return pfn, mode
        if mode == NORMAL and (pfn := self.rmqueue_smallest(zone, order, mt)) is not None:
            return pfn, NORMAL
        if mode in (NORMAL, FROM_CMA) and way.cma and (pfn := self.rmqueue_smallest(zone, order, CMA)) is not None:
            return pfn, FROM_CMA if self.rules.claim_then_steal else NORMAL
        if not self.rules.exact_types:
            if self.bring_foreign(zone, order, mt, way):
                return self.rmqueue(zone, order, mt, replace(way, cma=False))
            return None, NORMAL
        if not self.rules.claim_then_steal:
            return self.fallback(zone, order, mt, way), NORMAL
        if mode != STEAL and (pfn := self.claim(zone, order, mt, way)) is not None:
            return pfn, NORMAL
        if not way.nofragment and (pfn := self.steal(zone, order, mt)) is not None:
            return pfn, STEAL
        return None, NORMAL

    def rmqueue_unmapped(self, zone: Zone, order: int, way: Way) -> int | None:
        """Own lists; else the pageblock of the largest foreign block, whatever is in use there."""
        pfn = self.rmqueue_smallest(zone, order, UNMAPPED)
        if pfn is not None:
            return pfn
        for found in range(MAX_ORDER, self.least(order, way) - 1, -1):
            pfn = self.foreign(zone, found, UNMAPPED)
            if pfn is None or (found < PAGEBLOCK_ORDER and self.first_to_move(zone, pfn) is None):
                continue
            self.count("fallbacks")
            self.count("fallback_block_moves")
            if found >= PAGEBLOCK_ORDER:
                self.retype(pfn, found, UNMAPPED)
                return self.take_and_cut(zone, pfn, order, UNMAPPED)
            self.boost_watermark(zone, way)
            self.move_chunks(zone, pfn, UNMAPPED)
            self.block_types[pfn >> PAGEBLOCK_ORDER] = UNMAPPED
            return self.rmqueue_smallest(zone, order, UNMAPPED)
        return None

    def least(self, order: int, way: Way) -> int:
        """Smaller foreign blocks are left alone; before 5.18 NOFRAGMENT lowers that for orders above a pageblock."""
        if way.nofragment and (order < PAGEBLOCK_ORDER or not self.rules.drain_from_freed):
            return PAGEBLOCK_ORDER
        return order

    @staticmethod
    def may_claim(found: int, mt: int) -> bool:
        return found >= PAGEBLOCK_ORDER // 2 or mt != MOVABLE

    def foreign(self, zone: Zone, order: int, mt: int) -> int | None:
        """First frame of the foreign block of just this order that comes first; None where there is none."""
        return next((frames[0] for other in FALLBACKS[mt] if (frames := zone.lists.get((order, other)))), None)

    def find_foreign(self, zone: Zone, order: int, mt: int, way: Way) -> int | None:
        """Generations A and B: the largest foreign block, or the smallest where a whole block may not be taken."""
        for found in range(MAX_ORDER, self.least(order, way) - 1, -1):
            pfn = self.foreign(zone, found, mt)
            if pfn is None:
                continue
            if self.may_claim(found, mt):
                return pfn
            smallest = (self.foreign(zone, smaller, mt) for smaller in range(order, MAX_ORDER + 1))
            return next(p for p in smallest if p is not None)
        return None

    def bring_foreign(self, zone: Zone, order: int, mt: int, way: Way) -> bool:
        """Generation A: a foreign block, or all free ones of its pageblock, come to our lists."""
        pfn = self.find_foreign(zone, order, mt, way)
        if pfn is None:
            return False
        found, _ = self.free_blocks[pfn]
        old = self.block_types[pfn >> PAGEBLOCK_ORDER]
        self.count("fallbacks")
        if old != HIGHATOMIC:
            if found >= PAGEBLOCK_ORDER:
                self.retype(pfn, found, mt)
                self.count("fallback_block_moves")
            else:
                self.boost_watermark(zone, way)
                ours = self.mostly_ours(zone, pfn, mt, old)
                if self.may_claim(found, mt) and self.move_chunks(zone, pfn, mt):
                    if ours:
                        self.block_types[pfn >> PAGEBLOCK_ORDER] = mt
                        self.count("fallback_block_moves")
                    return True
        self.take(zone, pfn)
        self.put(zone, pfn, found, mt, tail=True)
        zone.work += 1
        return True

    def fallback(self, zone: Zone, order: int, mt: int, way: Way) -> int | None:
        """Generation B: the pageblock of the block found, or a piece of that block."""
        pfn = self.find_foreign(zone, order, mt, way)
        if pfn is None:
            return None
        found, other = self.free_blocks[pfn]
        if self.may_claim(found, mt):
            taken = self.claim_block(zone, pfn, order, mt, way)
            if taken is not None:
                return taken
        else:
            self.boost_watermark(zone, way)
        self.count("fallbacks")
        return self.take_and_cut(zone, pfn, order, other)

    def claim(self, zone: Zone, order: int, mt: int, way: Way) -> int | None:
        """Generation C, first phase."""
        for found in range(MAX_ORDER, self.least(order, way) - 1, -1):
            if not self.may_claim(found, mt):
                return None
            pfn = self.foreign(zone, found, mt)
            if pfn is not None and (taken := self.claim_block(zone, pfn, order, mt, way)) is not None:
                return taken
        return None

    def steal(self, zone: Zone, order: int, mt: int) -> int | None:
        """Generation C, second phase."""
        for found in range(order, MAX_ORDER + 1):
            if (pfn := self.foreign(zone, found, mt)) is not None:
                self.count("fallbacks")
                return self.take_and_cut(zone, pfn, order, self.free_blocks[pfn][1])
        return None

    def claim_block(self, zone: Zone, pfn: int, order: int, mt: int, way: Way) -> int | None:
        """Generations B and C: the pageblock of a free block becomes ours where most of it is; else None."""
        found, other = self.free_blocks[pfn]
        if found >= PAGEBLOCK_ORDER:
            self.retype(pfn, found, mt)
            taken: int | None = self.take_and_cut(zone, pfn, order, mt)
        else:
            self.boost_watermark(zone, way)
            if self.first_to_move(zone, pfn) is None or not self.mostly_ours(zone, pfn, mt, other):
                return None
            self.move_chunks(zone, pfn, mt)
            self.block_types[pfn >> PAGEBLOCK_ORDER] = mt
            taken = self.rmqueue_smallest(zone, order, mt)
        self.count("fallbacks")
        self.count("fallback_block_moves")
        return taken

    def first_to_move(self, zone: Zone, pfn: int) -> int | None:
        """Where the free blocks that move with one at ``pfn`` start: their pageblock; None where none do.

        A pageblock that leaves the zone stays as it is; before 6.10 one that starts outside moves from ``pfn`` on.
        """
        start = pfn & -PAGEBLOCK
        if start + PAGEBLOCK > zone.end:
            return None
        if start < zone.start:
            return None if self.rules.exact_types else pfn
        return start

    def chunks(self, zone: Zone, pfn: int) -> list[int]:
        """Free blocks that would move, ascending."""
        start = self.first_to_move(zone, pfn)
        if start is None:
            return []
        return [p for p in range(start, (pfn & -PAGEBLOCK) + PAGEBLOCK) if p in self.free_blocks]

    def mostly_ours(self, zone: Zone, pfn: int, mt: int, old: int) -> bool:
        """At least half of the pageblock is free or of our kind."""
        block = pfn >> PAGEBLOCK_ORDER
        free = sum(1 << self.free_blocks[p][0] for p in self.chunks(zone, pfn))
        alike = 0
        if mt == MOVABLE:
            alike = self.movable[block]
        elif old == MOVABLE:
            alike = PAGEBLOCK - free - self.movable[block]
        return free + alike >= PAGEBLOCK // 2

    def move_chunks(self, zone: Zone, pfn: int, mt: int) -> int:
        """``move_freepages_block``: pages moved."""
        moved = 0
        for chunk in self.chunks(zone, pfn):
            order, _ = self.free_blocks[chunk]
            self.take(zone, chunk)
            self.put(zone, chunk, order, mt, tail=True)
            zone.work += 1
            moved += 1 << order
        return moved

    # ------------------------------------------------------------------ per-CPU lists (section 3)
    def on_pcp(self, order: int) -> bool:
        if self.rules.thp_lists == 0:
            return order == 0
        return order <= COSTLY_ORDER or order == PAGEBLOCK_ORDER

    def index(self, order: int, mt: int) -> int:
        if mt == UNMAPPED:
            return 15 + min(order, COSTLY_ORDER + 1)
        if order <= COSTLY_ORDER:
            return 3 * order + mt
        return 12 + {1: 0, 2: int(mt == MOVABLE), 3: mt}[self.rules.thp_lists]

    def pcp_lock(self, pcp: Pcp) -> None:
        self.count("pcp_lock_acquisitions")
        pcp.locks += 1

    def refill_blocks(self, zone: Zone, pcp: Pcp, order: int) -> int:
        batch = pcp.batch
        if self.rules.tuning == "fixed":
            return batch
        if self.rules.tuning == "free_factor":
            return max(batch >> order, 2) if batch > 1 else 1
        pcp.high = clamp(pcp.high, pcp.high_min, pcp.high_max)
        if pcp.high < batch:
            return 1
        blocks = batch if order > 0 else batch << pcp.alloc_factor
        if pcp.high_min != pcp.high_max and not zone.below_high:
            pcp.high = min(pcp.high + blocks, pcp.high_max)
        if order == 0:
            most = max(pcp.high - pcp.count - batch, batch)
            if blocks <= most and pcp.alloc_factor < self.scale_max:
                pcp.alloc_factor += 1
            blocks = min(blocks, most)
        return max(blocks >> order, 2) if blocks > 1 else blocks

    def pcp_take(self, zone: Zone, pcp: Pcp, order: int, mt: int, way: Way) -> int | None:
        """The block at the head of its list, refilled when empty."""
        entries = pcp.lists[self.index(order, mt)]
        if entries:
            self.count("pcp_hits")
        else:
            mode = NORMAL
            wanted = self.refill_blocks(zone, pcp, order)
            self.lock(zone)
            for _ in range(wanted):
                pfn, mode = self.rmqueue(zone, order, mt, way, mode)
                if pfn is None:
                    break
                from_cma = self.block_types[pfn >> PAGEBLOCK_ORDER] == CMA
                entries.append((pfn, order, CMA if from_cma else mt))
            self.unlock(zone)
            pcp.count += len(entries) << order
            self.count("pcp_refills")
            self.count("pcp_refill_pages", len(entries) << order)
            self.count("pcp_refill_blocks", len(entries))
            if self.rules.tuning != "auto":
                self.count("new_pages_checked", len(entries) << order)
        if not entries:
            return None
        pcp.count -= 1 << order
        return entries.pop(0)[0]

    def pcp_free(self, zone: Zone, pcp: Pcp, pfn: int, order: int) -> None:
        mt = self.block_types[pfn >> PAGEBLOCK_ORDER]
        index = self.index(order, mt if mt <= RECLAIMABLE or mt == UNMAPPED else MOVABLE)
        pcp.alloc_factor >>= 1
        pcp.lists[index].insert(0, (pfn, order, mt))
        pcp.count += 1 << order
        self.count("frees_pcp")
        drain = {"fixed": self.drain_fixed, "free_factor": self.drain_by_factor, "auto": self.drain_auto}
        pages = drain[self.rules.tuning](zone, pcp, order)
        if pages > 0:
            self.drain(zone, pcp, pages, index)
            if zone.below_high and self.watermark_ok(zone, 0, zone.marks["high"], Way(0xA)):
                zone.below_high = False

    def drain_fixed(self, zone: Zone, pcp: Pcp, order: int) -> int:
        return pcp.batch if pcp.count >= pcp.high else 0

    def drain_by_factor(self, zone: Zone, pcp: Pcp, order: int) -> int:
        if self.rules.free_all_high and 1 <= order <= COSTLY_ORDER and pcp.free_factor > 0:
            return pcp.count
        high = min(4 * pcp.batch, pcp.high) if zone.reclaim_active else pcp.high
        if pcp.count < high:
            return 0
        if high < pcp.batch:
            return 1
        pages = pcp.batch << pcp.free_factor
        if pages < high - pcp.batch and (pcp.free_factor < self.scale_max or not self.rules.drain_from_freed):
            pcp.free_factor += 1
        return clamp(pages, pcp.batch, high - pcp.batch)

    def drain_auto(self, zone: Zone, pcp: Pcp, order: int) -> int:
        batch, limit = pcp.batch, pcp.batch << self.scale_max
        free_high = False
        if 1 <= order <= COSTLY_ORDER:
            burst = batch + (pcp.high_min // 2 if self.rules.claim_then_steal else 0)
            free_high = pcp.prev_high_order and pcp.free_count >= burst
            free_high = free_high and (not pcp.free_high_batch or pcp.count >= batch)
        pcp.prev_high_order = 1 <= order <= COSTLY_ORDER
        if pcp.free_count < limit:
            pcp.free_count += 1 << order
        threshold = self.drain_threshold(zone, pcp, free_high)
        if pcp.count < threshold:
            return 0
        if free_high:
            return min(pcp.count, limit)
        return 1 if threshold < batch else clamp(pcp.free_count, batch, threshold - batch)

    def drain_threshold(self, zone: Zone, pcp: Pcp, free_high: bool) -> int:
        high = pcp.high = clamp(pcp.high, pcp.high_min, pcp.high_max)
        if high == 0:
            return 0
        if free_high:
            pcp.high = max(high - (pcp.batch << self.scale_max), pcp.high_min)
            return 0
        if zone.reclaim_active:
            pcp.high = max(high - max(pcp.free_count, pcp.batch), pcp.high_min)
            return min(4 * pcp.batch, pcp.high)
        if pcp.high_min == pcp.high_max:
            return high
        if zone.below_high:
            pcp.high = max(high - max(pcp.free_count, pcp.batch), pcp.high_min)
            return max(pcp.count, pcp.high_min)
        need = pcp.free_count + pcp.batch
        if pcp.count >= high and pcp.high < need:
            pcp.high = clamp(need, pcp.high_min, pcp.high_max)
        return high

    def drain(self, zone: Zone, pcp: Pcp, pages: int, index: int) -> None:
        self.count("pcp_drains")
        chunk = pcp.batch if self.rules.chunks else pages
        first = True
        while pages > 0 and pcp.count > 0:
            if not first:
                self.pcp_lock(pcp)
            self.drain_under_one_lock(zone, pcp, min(chunk, pages), index)
            pages -= chunk
            first = False

    def drain_under_one_lock(self, zone: Zone, pcp: Pcp, pages: int, index: int) -> None:
        pages = min(pages, pcp.count)
        before = pcp.count
        self.lock(zone)
        while pages > 0:
            if self.rules.drain_from_freed:
                while not pcp.lists[index]:
                    index = (index + 1) % len(pcp.lists)
                pages -= self.drain_tail(zone, pcp, index)
            else:
                pages = self.drain_round_robin(zone, pcp, pages)
        self.unlock(zone)
        pcp.longest = max(pcp.longest, before - pcp.count)

    def drain_round_robin(self, zone: Zone, pcp: Pcp, pages: int) -> int:
        """Up to 5.17: a list gives one block for every list visited since it was last empty-handed."""
        index = share = 0
        while pages > 0:
            share += 1
            index = (index + 1) % len(pcp.lists)
            while not pcp.lists[index]:
                share += 1
                index = (index + 1) % len(pcp.lists)
            if share == len(pcp.lists):  # all others are empty
                share = pages
            while pages > 0:
                pages -= self.drain_tail(zone, pcp, index)
                share -= 1
                if share == 0 or not pcp.lists[index]:
                    break
        return pages

    def drain_tail(self, zone: Zone, pcp: Pcp, index: int) -> int:
        pfn, order, mt = pcp.lists[index].pop()
        pcp.count -= 1 << order
        self.count("pcp_drain_pages", 1 << order)
        self.count("pcp_drain_blocks")
        if self.rules.exact_types:
            mt = self.block_types[pfn >> PAGEBLOCK_ORDER]
        self.free_one_page(zone, pfn, order, mt)
        return 1 << order

    # ------------------------------------------------------------------ drains from elsewhere (section 3.8)
    def drain_all(self) -> None:
        """``drain_all_pages``."""
        for cpu in range(len(self.cpu_nodes)):
            if any(self.pcps[z, cpu].count for z in range(len(self.zones))):
                self.drain_cpu(cpu)

    def drain_cpu(self, cpu: int) -> None:
        """``drain_pages``; a CPU that goes offline does the same."""
        for z, zone in enumerate(self.zones):
            pcp = self.pcps[z, cpu]
            self.count("pcp_drains", pcp.count > 0)
            if self.rules.drain_all == "chunks":
                again = True
                while again:
                    again = pcp.count > pcp.batch << self.scale_max
                    self.pcp_lock(pcp)
                    if pcp.count:
                        self.drain_under_one_lock(zone, pcp, pcp.batch << self.scale_max, 0)
                continue
            if pcp.count or self.rules.drain_all == "irqs off":
                self.pcp_lock(pcp)
            if pcp.count:
                self.drain_under_one_lock(zone, pcp, pcp.count, 0)

    def vmstat_update(self, cpu: int) -> None:
        """The vmstat worker of a CPU runs."""
        for z, zone in enumerate(self.zones):
            pcp = self.pcps[z, cpu]
            if pcp.locks > pcp.used_before:
                pcp.expire = 3
            pcp.used_before = pcp.locks
            if self.rules.decay != "none":
                self.decay(zone, pcp)
            if pcp.expire and pcp.count:
                if zone.node == self.cpu_nodes[cpu]:
                    pcp.expire = 0
                    continue
                pcp.expire -= 1
                if pcp.expire == 0:
                    self.count("pcp_drains")
                    self.pcp_lock(pcp)
                    self.drain_under_one_lock(zone, pcp, pcp.batch, 0)

    def pass_time(self, cpu: int, now: int) -> None:
        """A CPU is awake at ``now``: its vmstat worker runs if it should have."""
        if not self.vmstat_interval_ns or now < self.next_tick.get(cpu, 0):
            return
        if cpu in self.next_tick:
            self.vmstat_update(cpu)
        second, skew = 1_000_000_000, 3 * 4_000_000 * cpu  # each CPU 3 jiffies before the last, at 250 Hz
        seconds, rest = divmod(now + self.vmstat_interval_ns + skew, second)
        at = (seconds + (rest >= second // 4)) * second - skew
        self.next_tick[cpu] = at if at > now else now + self.vmstat_interval_ns

    def decay(self, zone: Zone, pcp: Pcp) -> None:
        """``decay_pcp_high``."""
        if pcp.high > pcp.high_min:
            pcp.high = max(pcp.count - (pcp.batch << self.scale_max), pcp.high - pcp.high // 8, pcp.high_min)
        excess = pcp.count - pcp.high
        self.count("pcp_drains", excess > 0)
        chunk = pcp.batch if self.rules.decay == "batches" else max(excess, 1)
        for done in range(0, excess, chunk):
            self.pcp_lock(pcp)
            self.drain_under_one_lock(zone, pcp, min(chunk, excess - done), 0)

    # ------------------------------------------------------------------ allocation (section 4)
    def highest_zone(self, gfp: int) -> int:
        """Highest zone that a mask allows, as an index of ZONES: Normal for what this machine does not have."""
        name = GFP_ZONES[gfp & 0xF]
        present = {zone.name for zone in self.zones} | {"Normal", "Movable"}
        return ZONES.index(name if name in present else "Normal")

    def zonelist(self, cpu: int, gfp: int) -> list[int]:
        """Zone numbers to try, in order: the CPU's node, then the others; in each from the highest allowed down."""
        top = self.highest_zone(gfp)
        nodes = max(self.cpu_nodes + [zone.node for zone in self.zones]) + 1
        found = []
        for distance in range(nodes):
            node = (self.cpu_nodes[cpu] + distance) % nodes
            here = [z for z, zone in enumerate(self.zones) if zone.node == node]
            here = [z for z in here if ZONES.index(self.zones[z].name) <= top]
            found += sorted(here, key=lambda z: -ZONES.index(self.zones[z].name))
        if gfp & THISNODE:
            found = [z for z in found if self.zones[z].node == self.zones[found[0]].node]
        return found

    def watermark_ok(self, zone: Zone, order: int, mark: int, way: Way) -> bool:
        """A zone stays above a mark (``zone_watermark_fast``)."""
        if self.stays_above(zone, order, mark + zone.boost, way):
            return True
        if order == 0 and way.unboosted and way.mark == MIN:
            return self.stays_above(zone, 0, zone.marks["min"], way)
        return False

    def stays_above(self, zone: Zone, order: int, mark: int, way: Way, top: int | None = None) -> bool:
        free = zone.free_pages - ((1 << order) - 1)
        tuned = self.rules.tuning == "auto"
        if not (way.high or way.non_block or way.highatomic if tuned else way.harder):
            free -= zone.free_of(HIGHATOMIC) if self.rules.exact_types else zone.highatomic
        if not way.cma:
            free -= zone.free_of(CMA)
        if way.high:
            mark -= mark // 2
        if way.harder or (way.high and way.non_block):
            mark -= mark // 4
        if free <= mark + zone.reserve[self.highest_zone(way.gfp) if top is None else top]:
            return False
        types = [UNMOVABLE, MOVABLE, RECLAIMABLE, UNMAPPED] + [CMA] * way.cma + [HIGHATOMIC] * way.highatomic
        return order == 0 or any(zone.lists.get((o, mt)) for o in range(order, MAX_ORDER + 1) for mt in types)

    def passes(self, zone: Zone, order: int, way: Way) -> bool:
        if self.rules.tuning == "auto" and not zone.below_high:
            self.count("watermark_checks")
            if self.watermark_ok(zone, order, zone.marks["high"], way):
                return True
            zone.below_high = True
        self.count("watermark_checks")
        return self.watermark_ok(zone, order, zone.marks[way.mark], way) or way.ignore_marks

    def get_page(self, cpu: int, order: int, way: Way) -> int | None:
        """``get_page_from_freelist``."""
        zonelist = self.zonelist(cpu, way.gfp)
        home = self.zones[zonelist[0]].node
        avoid_busy = self.rules.claim_then_steal and len({zone.node for zone in self.zones}) > 1
        while True:
            skipped = left = False
            for z in zonelist:
                zone = self.zones[z]
                if way.nofragment and zone.node != home:
                    left = True  # rather mix types at home than leave
                    break
                if avoid_busy and zone.node in self.kswapd:
                    skipped = True
                elif self.passes(zone, order, way):
                    pfn = self.rmqueue_zone(z, cpu, order, way)
                    if pfn is not None:
                        if way.highatomic:
                            self.reserve(zone, pfn, order)
                        return pfn
            if skipped and not left:
                avoid_busy = False
            elif way.nofragment:
                way = replace(way, nofragment=False)
            else:
                return None

    def rmqueue_zone(self, z: int, cpu: int, order: int, way: Way) -> int | None:
        zone, mt = self.zones[z], migratetype(way.gfp)
        if self.on_pcp(order):
            pcp = self.pcps[z, cpu]
            self.pcp_lock(pcp)
            pcp.free_factor >>= 1
            pcp.free_count >>= 1
            pfn = self.pcp_take(zone, pcp, order, mt, way)
            if pfn is not None or not self.rules.buddy_after_pcp:
                return pfn
        self.lock(zone)
        pfn = self.rmqueue_smallest(zone, order, HIGHATOMIC) if way.highatomic else None
        if pfn is None:
            pfn, _ = self.rmqueue(zone, order, mt, way)
        if pfn is None and way.non_block and self.rules.exact_types:
            pfn = self.rmqueue_smallest(zone, order, HIGHATOMIC)
        self.unlock(zone)
        if pfn is not None:
            self.count("allocs_buddy")
            if self.rules.tuning != "auto":
                self.count("new_pages_checked", 1 << order)
        return pfn

    def alloc(self, cpu: int, order: int, gfp: int) -> int | None:
        """``__alloc_pages``: first frame, or None."""
        self.count("alloc_calls")
        preferred = self.zones[self.zonelist(cpu, gfp)[0]]
        way = Way(gfp, kswapd=bool(gfp & KSWAPD), cma=migratetype(gfp) == MOVABLE)
        pfn = self.get_page(cpu, order, replace(way, nofragment=preferred.nofragment))
        if pfn is None:
            pfn = self.slow_path(cpu, order, self.desperate(order, replace(way, mark=MIN)))
        if pfn is None:
            self.count("failed_attempts", order=order)
            return None
        self.prepare(pfn, cpu, order, gfp)
        return pfn

    def desperate(self, order: int, way: Way) -> Way:
        """The reserves that a request has access to (``gfp_to_alloc_flags``, section 4.6)."""
        high = bool(way.gfp & HIGH_)
        if self.rules.tuning == "auto":
            non_block = not way.gfp & (RECLAIM | NOMEMALLOC)
            highatomic = non_block and order > 0 and (high or not self.rules.claim_then_steal)
            return replace(way, high=high, unboosted=high, non_block=non_block, highatomic=highatomic)
        atomic = bool(way.gfp & ATOMIC)
        harder = atomic and not way.gfp & NOMEMALLOC
        return replace(way, high=high, unboosted=atomic, harder=harder, highatomic=harder and order > 0)

    def slow_path(self, cpu: int, order: int, way: Way) -> int | None:
        gfp, mt, costly = way.gfp, migratetype(way.gfp), order > COSTLY_ORDER
        memalloc = bool(gfp & MEMALLOC) and not gfp & NOMEMALLOC
        if way.kswapd:
            self.wake_all_kswapds(cpu, order, gfp)
        if (pfn := self.get_page(cpu, order, way)) is not None:
            return pfn
        if gfp & RECLAIM and not memalloc and (costly or (order > 0 and mt != MOVABLE)):
            if self.direct_compact(cpu, order, gfp):
                if (pfn := self.get_page(cpu, order, way)) is not None:
                    return pfn
            elif costly and gfp & NORETRY:
                return None
        if memalloc:
            way = Way(gfp, MIN, kswapd=way.kswapd, cma=way.cma, ignore_marks=True)
        rounds = 0
        while True:
            if way.kswapd:
                self.wake_all_kswapds(cpu, order, gfp)
            pfn = self.get_page(cpu, order, way)
            if pfn is not None or not gfp & RECLAIM:
                return pfn
            freed = self.direct_reclaim(cpu, gfp)
            if freed and (pfn := self.get_page(cpu, order, way)) is None:
                self.unreserve(cpu, gfp, mt, force=False)
                self.drain_all()
                pfn = self.get_page(cpu, order, way)
            if pfn is None and order > 0 and self.direct_compact(cpu, order, gfp):
                pfn = self.get_page(cpu, order, way)
            if pfn is not None:
                return pfn
            if gfp & NORETRY or (costly and not gfp & MAYFAIL):
                return None
            rounds = 0 if freed and not costly else rounds + 1
            if not (freed and rounds <= 16) and not self.unreserve(cpu, gfp, mt, force=True):
                return None

    def prepare(self, pfn: int, cpu: int, order: int, gfp: int) -> None:
        mt = migratetype(gfp)
        self.used[pfn] = (order, mt, cpu)
        if mt == MOVABLE:
            self.note_movable(pfn, order, +1)
        pages = 1 << order
        self.counters["pages_allocated"] += pages
        self.by_order["pages_allocated", order] += pages
        if gfp & ZERO or self.init_on_alloc:
            self.count("zeroed_pages", pages)
        if self.init_on_alloc and self.rules.tuning == "auto":
            self.count("new_pages_checked", pages)
        if gfp & COMP and order > 0:
            self.count("compound_preps")
            self.count("tail_pages_prepared", pages - 1)
        if gfp & ACCOUNT:
            self.count("memcg_charges")

    def note_movable(self, pfn: int, order: int, sign: int) -> None:
        for frame in range(pfn, pfn + (1 << order), PAGEBLOCK):
            self.movable[frame >> PAGEBLOCK_ORDER] += sign * min(1 << order, PAGEBLOCK)

    # ------------------------------------------------------------------ bulk (section 5)
    def alloc_bulk(
        self,
        cpu: int,
        gfp: int,
        slots: list[int | None],
        *,
        form: str = "array",
        two_pass: bool = False,
        wmark_adds_count: bool = True,
        node_local_only: bool = True,
        fallback_single_page: bool = True,
    ) -> int:
        """``__alloc_pages_bulk``: fill empty slots from the first on. How far it came."""
        empty = slots.count(None)
        came = self.bulk_steps(cpu, gfp, slots, two_pass, wmark_adds_count, node_local_only, fallback_single_page)
        if form != "array":
            self.count("pages_listed" if form == "list" else "callbacks", empty - slots.count(None))
        return came

    def bulk_steps(
        self, cpu: int, gfp: int, slots: list[int | None], two_pass: bool, adds: bool, local: bool, single: bool
    ) -> int:
        """The same without what the forms add."""
        self.count("bulk_calls")
        assert self.rules.bulk != "none"
        filled = next((i for i, frame in enumerate(slots) if frame is None), len(slots))
        if filled == len(slots):
            return filled
        charged = gfp & ACCOUNT and self.rules.bulk == "charges"
        if len(slots) - filled > 1 and not charged:
            way = Way(gfp, cma=migratetype(gfp) == MOVABLE)
            z = self.bulk_zone(cpu, way, len(slots) if adds else 0, local)
            if z is not None:
                done = self.bulk_from(z, cpu, way, slots, two_pass)
                if done > filled or (filled > 0 and self.rules.bulk == "early"):
                    return done
            if not single:
                return filled
        slots[filled] = self.alloc(cpu, 0, gfp)
        return filled + (slots[filled] is not None)

    def bulk_from(self, z: int, cpu: int, way: Way, slots: list[int | None], two_pass: bool) -> int:
        """The loop under the pcp lock; with two passes pages are prepared when it was let go."""
        pcp = self.pcps[z, cpu]
        self.pcp_lock(pcp)
        later = []
        work = -self.counters["pcp_refill_pages"]
        done = len(slots)
        for i, frame in enumerate(slots):
            if frame is None:
                slots[i] = self.pcp_take(self.zones[z], pcp, 0, migratetype(way.gfp), way)
                if slots[i] is None:
                    done = i
                    break
                work += 1
                if two_pass:
                    later.append(slots[i])
                else:
                    self.prepare(slots[i], cpu, 0, way.gfp & ~ACCOUNT)
                    work += 1
        pcp.longest = max(pcp.longest, work + self.counters["pcp_refill_pages"])
        for pfn in later:
            self.prepare(pfn, cpu, 0, way.gfp & ~ACCOUNT)
            self.count("pages_prepared_unlocked")
        return done

    def bulk_zone(self, cpu: int, way: Way, wanted: int, local: bool) -> int | None:
        zonelist = self.zonelist(cpu, way.gfp)
        preferred = self.zones[zonelist[0]]
        for z in zonelist:
            zone = self.zones[z]
            if local and zone.node != preferred.node:
                return None
            self.count("watermark_checks")
            if self.stays_above(zone, 0, zone.marks["low"] + wanted + zone.boost, way, ZONES.index(preferred.name)):
                return z
        return None

    # ------------------------------------------------------------------ frees (section 6)
    def free(self, cpu: int, pfn: int, order: int) -> None:
        """``__free_pages`` of a block handed out."""
        was, mt, owner = self.used.pop(pfn)
        assert was == order
        self.count("free_calls")
        if owner != cpu:
            self.count("remote_frees")
        if mt == MOVABLE:
            self.note_movable(pfn, order, -1)
        self.free_prepared(cpu, pfn, order)

    def free_prepared(self, cpu: int, pfn: int, order: int) -> None:
        if pfn >> PAGEBLOCK_ORDER in self.capturing:
            self.count("cache_locks")
            self.captured.append((pfn, order))
            return
        z = next(z for z, zone in enumerate(self.zones) if zone.start <= pfn < zone.end)
        self.count("pages_freed", 1 << order)
        self.count("tail_pages_checked", (1 << order) - 1)
        if self.init_on_alloc and self.rules.tuning == "auto":
            self.count("freed_pages_checked", 1 << order)
        if self.on_pcp(order):
            self.pcp_lock(self.pcps[z, cpu])
            self.pcp_free(self.zones[z], self.pcps[z, cpu], pfn, order)
            return
        self.count("frees_buddy")
        self.lock(self.zones[z])
        piece = min(order, PAGEBLOCK_ORDER) if self.rules.exact_types else order
        for frame in range(pfn, pfn + (1 << order), 1 << piece):
            self.free_one_page(self.zones[z], frame, piece, self.block_types[frame >> PAGEBLOCK_ORDER])
        self.unlock(self.zones[z])

    def free_to_tail(self, pfn: int, order: int) -> None:
        """Past the per-CPU lists, to the tails of the buddy lists."""
        self.count("pages_freed", 1 << order)
        size = min(order, PAGEBLOCK_ORDER)
        for frame in range(pfn, pfn + (1 << order), 1 << size):
            zone = next(zone for zone in self.zones if zone.start <= frame < zone.end)
            self.count("frees_buddy")
            self.lock(zone)
            self.free_one_page(zone, frame, size, self.block_types[frame >> PAGEBLOCK_ORDER], tail=True)
            self.unlock(zone)

    def free_held(self, cpu: int, pfn: int, order: int) -> int | None:
        """Free a block in use since before the replay: the one named, else the next that is wholly held."""
        if not self.is_held(pfn, order):
            total = -(-max(zone.end for zone in self.zones) // 1024) * 1024 >> order
            start = self.zones[-1].start >> order
            while True:
                if self.looked_at[order] == total:
                    return None
                pfn = (start + self.looked_at[order]) % total << order
                self.looked_at[order] += 1
                if self.is_held(pfn, order):
                    break
        self.held -= set(range(pfn, pfn + (1 << order)))
        self.count("free_calls")
        for frame in range(pfn, pfn + (1 << order), PAGEBLOCK):
            block = frame >> PAGEBLOCK_ORDER
            self.movable[block] = max(0, self.movable[block] - min(1 << order, PAGEBLOCK))
        self.free_prepared(cpu, pfn, order)
        return pfn

    def is_held(self, pfn: int, order: int) -> bool:
        return pfn % (1 << order) == 0 and self.held.issuperset(range(pfn, pfn + (1 << order)))


def clamp(value: int, low: int, high: int) -> int:
    """As the kernel's: the upper bound wins."""
    return min(max(value, low), high)


def migratetype(gfp: int) -> int:
    """Type that a mask asks for (section 1.3)."""
    if gfp & WANTS_UNMAPPED:
        return UNMAPPED
    return {0x00: UNMOVABLE, 0x08: MOVABLE, 0x10: RECLAIMABLE, 0x18: UNMOVABLE}[gfp & 0x18]
