"""The twin check, slow and obvious: Python lists, dicts and deques on the slow machine.

Rules and reasons are those of ``tracereplay.verify``; the machine's own rules (sizes of refills and drains, merges)
are ``slow_machine``'s. Of controls it knows the vmstat workers', of events all but bulk ones.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from tests.reference.kernel_events import Event
from tests.reference.slow_machine import MAX_ORDER, MOVABLE, PAGEBLOCK_ORDER, Pcp, SlowMachine, Way, Zone, clamp

TICK = -2
NEVER = -(1 << 62)
PENDING, OUTSTANDING, PATIENCE, PUSHES, DOUBT = 1 << 11, 16, 64, 64, 512
SKIPPED, PAUSE, TICK_PATIENCE = 750_000_000, 100_000_000, 120_000_000
TICK_CONTROL, REFRESH_CONTROL = 0, 1


@dataclass
class Page:
    """What is known of a block outside the buddy lists: listed, withheld, under way or used."""

    state: str
    order: int
    mt: int
    cpu: int = 0


@dataclass
class Prediction:
    """A drain that the kernel should do."""

    trigger: int
    pcp: tuple[int, int]
    frames: list[int]
    pages: int
    push: int
    time: int


@dataclass
class Cpu:
    """What is under way on a CPU."""

    trigger: int = -1
    trigger_pid: int = 0
    pending: deque[tuple[int, int, int]] = field(default_factory=deque)
    """Frame, order, type of frees that wait."""
    run: list[tuple[int, int, int]] = field(default_factory=list)
    """Frame, order, type of blocks that left the buddy lists."""
    fallbacks: list[int] = field(default_factory=lambda: [0, 0])
    """The kernel's, the twin's."""
    pushes: int = 0
    counts: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=PUSHES))
    """Frame and pages on its lists after each of the last pushes."""
    backoff: int = 0
    due: int = 0
    refresh: int = 0
    last_tick: int = NEVER
    silent: int = -1
    now: int = 0
    out: list[Prediction] = field(default_factory=list)
    drain: list[int] = field(default_factory=list)
    """Frames of the kernel's drain at hand."""
    drain_trigger: int = -1
    drain_zone: int = 0
    drain_pid: int = 0
    drained: int = 0
    """Pages of it."""
    strange: int = 0
    """Blocks of it that were not withheld."""


class SlowTwin(SlowMachine):
    """A slow machine that recorded events are fed to; ``totals`` and ``reasons`` by the names of the check."""

    def __init__(self, machine: SlowMachine) -> None:
        super().__init__(**{f.name: getattr(machine, f.name) for f in fields(machine) if f.init})
        self.pages: dict[int, Page] = {}
        self.withheld: list[int] = []
        self.unlisted: Counter[tuple[int, int]] = Counter()
        self.eligible: set[tuple[int, int, int]] = set()
        self.took_off: Counter[tuple[int, int]] = Counter()
        self.cpus = [Cpu() for _ in self.cpu_nodes]
        self.totals: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    # ------------------------------------------------------------------ where a block is
    def put(self, zone: Zone, pfn: int, order: int, mt: int, *, tail: bool) -> None:
        self.pages.pop(pfn, None)
        super().put(zone, pfn, order, mt, tail=tail)

    def zone_of(self, pfn: int) -> int:
        return next((z for z, zone in enumerate(self.zones) if zone.start <= pfn < zone.end), -1)

    def free_block_with(self, pfn: int) -> int | None:
        for order in range(MAX_ORDER + 1):
            head = pfn & -(1 << order)
            if head in self.free_blocks and self.free_blocks[head][0] >= order:
                return head if pfn < head + (1 << self.free_blocks[head][0]) else None
        return None

    def delist(self, pfn: int) -> None:
        page = self.pages.pop(pfn)
        pcp = self.pcps[self.zone_of(pfn), page.cpu]
        entries = pcp.lists[self.index(page.order, page.mt)]
        del entries[[p for p, _, _ in entries].index(pfn)]
        pcp.count -= 1 << page.order

    def take_anywhere(self, zone: Zone, pfn: int, order: int, leftovers: int | None = None) -> str:
        page = self.pages.get(pfn)
        if page and page.state == "listed" and page.order >= order:
            self.delist(pfn)
            return "list"
        if page and page.state in ("withheld", "under way"):
            del self.pages[pfn]
            return "held back"
        head = self.free_block_with(pfn)
        if head is not None and self.free_blocks[head][0] >= order:
            self.cut_out(zone, head, pfn, order, leftovers)
            return "buddy"
        found = False
        frame = pfn
        while order > 0 and frame < pfn + (1 << order):
            piece = self.pages.get(frame)
            if frame in self.free_blocks:
                pages = 1 << self.free_blocks[frame][0]
                self.take(zone, frame)
                zone.free_pages -= pages
            elif piece and piece.state == "listed":
                pages = 1 << piece.order
                self.delist(frame)
            else:
                self.pages.pop(frame, None)
                frame += 1
                continue
            found = True
            frame += pages
        if not found:
            self.pages.pop(pfn, None)
        return "buddy" if found else "nowhere"

    def cut_out(self, zone: Zone, head: int, pfn: int, order: int, leftovers: int | None) -> None:
        high, mt = self.free_blocks[head]
        self.take(zone, head)
        zone.free_pages -= 1 << order
        for half in range(high - 1, order - 1, -1):
            rest = head if pfn & 1 << half else head + (1 << half)
            self.put(zone, rest, half, mt if leftovers is None else leftovers, tail=False)
            head += (1 << half) if pfn & 1 << half else 0

    def own_lists_empty(self, zone: Zone, order: int, mt: int) -> bool:
        return not any(zone.lists.get((o, mt)) for o in range(order, MAX_ORDER + 1))

    def move_pageblock(self, zone: Zone, block: int, mt: int) -> None:
        frame, end = block << PAGEBLOCK_ORDER, (block + 1) << PAGEBLOCK_ORDER
        while frame < end:
            if frame not in self.free_blocks:
                frame += 1
                continue
            order, _ = self.free_blocks[frame]
            self.take(zone, frame)
            self.put(zone, frame, order, mt, tail=True)
            frame += 1 << order

    def learn_type(self, zone: Zone, pfn: int, order: int, mt: int) -> None:
        if self.block_types[pfn >> PAGEBLOCK_ORDER] == mt:
            return
        self.reasons["block_type"] += 1
        for block in range(pfn >> PAGEBLOCK_ORDER, (pfn + (1 << order) - 1 >> PAGEBLOCK_ORDER) + 1):
            self.block_types[block] = mt
            if self.rules.exact_types and order < MAX_ORDER:
                self.move_pageblock(zone, block, mt)

    # ------------------------------------------------------------------ drains that the twin predicts
    def drain_under_one_lock(self, zone: Zone, pcp: Pcp, pages: int, index: int) -> None:
        key = next(k for k, p in self.pcps.items() if p is pcp)
        super().drain_under_one_lock(zone, pcp, min(pages, pcp.count - self.unlisted[key]), index)

    def drain_tail(self, zone: Zone, pcp: Pcp, index: int) -> int:
        pfn, order, _ = pcp.lists[index].pop()
        pcp.count -= 1 << order
        self.pages[pfn].state = "withheld"
        self.withheld.append(pfn)
        return 1 << order

    def note_prediction(self, cpu: int, key: tuple[int, int], trigger: int) -> None:
        frames, self.withheld = self.withheld, []
        if not frames:
            return
        c = self.cpus[cpu]
        while len(c.out) == OUTSTANDING:
            self.take_back(cpu, c.out[0], retune=False)
        pages = sum(1 << self.pages[pfn].order for pfn in frames)
        c.out.append(Prediction(trigger, key, frames, pages, c.pushes, c.now))
        self.totals["drain_twin"] += 1
        self.totals["tick_drain_twin"] += trigger == TICK

    def put_back(self, prediction: Prediction) -> int:
        pages = 0
        for pfn in reversed(prediction.frames):
            page = self.pages.get(pfn)
            if page and page.state == "withheld" and page.cpu == prediction.pcp[1]:
                page.state = "listed"
                self.pcps[prediction.pcp].lists[self.index(page.order, page.mt)].append((pfn, page.order, page.mt))
                pages += 1 << page.order
        self.pcps[prediction.pcp].count += pages
        return pages

    def take_back(self, cpu: int, prediction: Prediction, *, retune: bool) -> None:
        c, pcp = self.cpus[cpu], self.pcps[prediction.pcp]
        pages = self.put_back(prediction)
        c.out.remove(prediction)
        self.reasons["drain_not_seen"] += 1
        if not retune or pages == 0:
            return
        if self.rules.tuning != "auto":
            if not self.zones[prediction.pcp[0]].reclaim_active:
                fewer = pcp.count - pcp.high + (4 << min(c.backoff, 8))
                c.backoff += 1
                self.move_count(prediction.pcp, -max(fewer, 0))
        elif c.silent >= 0 and c.now - c.silent < TICK_PATIENCE:
            for z in range(len(self.zones)):
                self.pcps[z, cpu].high += self.took_off[z, cpu]
            c.due, c.silent = c.silent, -1
            self.reasons["tick_seen"] += 1
        else:
            step = 16 << min(c.backoff, 6)
            c.backoff += 1
            pcp.high = clamp(max(pcp.high, pcp.count + step), pcp.high_min, pcp.high_max)

    def move_count(self, key: tuple[int, int], missing: int) -> None:
        if missing:
            self.reasons["count_moved"] += 1
            self.unlisted[key] += missing
            self.pcps[key].count += missing

    def expire(self, cpu: int) -> None:
        c = self.cpus[cpu]
        for prediction in list(c.out):
            late = c.now - prediction.time > TICK_PATIENCE
            if late if prediction.trigger == TICK else c.pushes - prediction.push > PATIENCE:
                self.take_back(cpu, prediction, retune=prediction.trigger != TICK)

    # ------------------------------------------------------------------ frees
    def on_free(self, e: Event) -> None:
        z, c = self.zone_of(e.pfn), self.cpus[e.cpu]
        if z < 0:
            self.totals["outside_zones"] += 1
            return
        c.trigger, c.trigger_pid = e.pfn, e.pid
        page = self.pages.get(e.pfn)
        if page and page.state == "used":
            if page.mt == MOVABLE:
                self.note_movable(e.pfn, page.order, -1)
            del self.pages[e.pfn]
        else:
            self.totals["unmatched_frees"] += 1
            if page or self.free_block_with(e.pfn) is not None:
                self.reasons["freed_while_free"] += 1
                self.take_anywhere(self.zones[z], e.pfn, e.order)
        if not self.on_pcp(e.order):
            piece = min(e.order, PAGEBLOCK_ORDER) if self.rules.exact_types else e.order
            for frame in range(e.pfn, e.pfn + (1 << e.order), 1 << piece):
                self.free_one_page(self.zones[z], frame, piece, self.block_types[frame >> PAGEBLOCK_ORDER])
            return
        mt = self.block_types[e.pfn >> PAGEBLOCK_ORDER]
        self.pages[e.pfn] = Page("under way", e.order, mt)
        if len(c.pending) == PENDING:
            self.push(e.cpu, 1)
        c.pending.append((e.pfn, e.order, mt))

    def push(self, cpu: int, n: int | None = None) -> None:
        c = self.cpus[cpu]
        for _ in range(len(c.pending) if n is None else n):
            pfn, order, mt = c.pending.popleft()
            if pfn not in self.pages or self.pages[pfn].state != "under way":
                continue
            mt = min(mt, MOVABLE) if mt > 2 else mt
            key = self.zone_of(pfn), cpu
            zone, pcp, index = self.zones[key[0]], self.pcps[key], self.index(order, mt)
            self.eligible.add((*key, index))
            c.pushes += 1
            pcp.alloc_factor >>= 1
            pcp.lists[index].insert(0, (pfn, order, mt))
            pcp.count += 1 << order
            c.counts.append((pfn, pcp.count))
            self.pages[pfn] = Page("listed", order, mt, cpu)
            rule = {"fixed": self.drain_fixed, "free_factor": self.drain_by_factor, "auto": self.drain_auto}
            if (pages := rule[self.rules.tuning](zone, pcp, order)) > 0:
                self.drain(zone, pcp, pages, index)
            self.note_prediction(cpu, key, pfn)
        self.expire(cpu)

    def push_up_to(self, cpu: int, pfn: int) -> None:
        frames = [p for p, _, _ in self.cpus[cpu].pending]
        if pfn in frames:
            self.push(cpu, frames.index(pfn) + 1)

    # ------------------------------------------------------------------ the kernel's drains
    def on_drain(self, e: Event) -> None:
        c, z = self.cpus[e.cpu], self.zone_of(e.pfn)
        if not c.drain and c.trigger >= 0:
            self.push_up_to(e.cpu, c.trigger)
        if z < 0:
            self.totals["outside_zones"] += 1
            return
        zone = self.zones[z]
        if zone.below_high:
            for other in range(len(self.cpus)):
                if other != e.cpu:
                    self.push(other)
        if c.drain and (c.drain_zone, c.drain_pid) != (z, e.pid):
            self.end_drain(e.cpu)
        if not c.drain:
            c.drain_trigger = c.trigger if c.trigger_pid == e.pid else -1
            if c.drain_trigger < 0 and c.due > 0:
                self.run_tick(e.cpu)
            c.drain_zone, c.drain_pid, c.strange = z, e.pid, 0
            c.drained = 0
        c.drain.append(e.pfn)
        c.drained += 1 << e.order
        page = self.pages.get(e.pfn)
        if page and page.state == "listed":
            self.delist(e.pfn)
            c.strange += 1
        elif self.free_block_with(e.pfn) is not None:
            self.reasons["drain_in_use"] += 1
            return
        elif not page or page.state != "withheld":
            self.reasons["drain_in_use"] += 1
            c.strange += 1
            if self.unlisted[z, e.cpu] >= 1 << e.order:
                self.unlisted[z, e.cpu] -= 1 << e.order
                self.pcps[z, e.cpu].count -= 1 << e.order
        self.pages.pop(e.pfn, None)
        if self.rules.exact_types:
            self.learn_type(zone, e.pfn, e.order, e.migratetype)
        self.free_one_page(zone, e.pfn, e.order, e.migratetype)
        if c.drain_trigger >= 0 and zone.below_high and self.watermark_ok(zone, 0, zone.marks["high"], Way(0xA)):
            zone.below_high = False

    def end_drain(self, cpu: int) -> None:
        c = self.cpus[cpu]
        frames, c.drain = c.drain, []
        key, away = (c.drain_zone, cpu), c.drain_trigger < 0
        self.totals["drain_kernel"] += 1
        self.totals["drain_away_from_free"] += away
        wanted = TICK if away else c.drain_trigger
        found = [p for p in c.out if p.pcp == key and p.trigger == wanted]
        matched = bool(found) and found[-1].frames == frames
        if found:
            self.put_back(found[-1])
            c.out.remove(found[-1])
        if matched:
            self.totals["drain_matched"] += 1
            self.totals["tick_drain_matched"] += away
            c.backoff = 0
        else:
            self.totals["drain_other_frames"] += bool(found)
            self.reasons["drain_unpredicted"] += c.strange > 0
        if away:
            self.follow_tick(cpu, self.pcps[key], matched=matched)
        elif not found:
            self.follow_drain(cpu, key)

    def follow_tick(self, cpu: int, pcp: Pcp, *, matched: bool) -> None:
        c = self.cpus[cpu]
        if self.rules.tuning != "auto":
            return
        if c.now - c.refresh > TICK_PATIENCE:
            c.last_tick = c.now
        if c.due <= c.now:
            c.due = 0
        c.silent = -1
        high = clamp(pcp.count, pcp.high_min, pcp.high_max)
        if not matched and high != pcp.high:
            self.reasons["tick_seen"] += 1
            pcp.high = high

    def follow_drain(self, cpu: int, key: tuple[int, int]) -> None:
        c, pcp = self.cpus[cpu], self.pcps[key]
        early = [p for p in c.out if p.pcp == key and p.trigger != TICK]
        for prediction in early:
            self.take_back(cpu, prediction, retune=False)
        counts = [count for pfn, count in c.counts if pfn == c.drain_trigger]
        if not counts:
            return
        count = counts[-1] + sum(p.pages for p in early)
        tuned = self.rules.tuning == "auto"
        if tuned and count >= pcp.high_min:
            self.reasons["high_moved"] += 1
            pcp.high = clamp(count, pcp.high_min, pcp.high_max)
            return
        if self.rules.tuning == "free_factor":
            self.follow_factor(key, c.drained)
        if self.zones[key[0]].reclaim_active or abs(pcp.high_min - count) > DOUBT:
            return
        self.move_count(key, pcp.high_min - count)
        if tuned:
            pcp.high = pcp.high_min

    def follow_factor(self, key: tuple[int, int], pages: int) -> None:
        pcp = self.pcps[key]
        factor = next(f for f in range(64) if pcp.batch << f >= pages)
        if pcp.batch << factor == pages:
            factor += 1
        elif pcp.count <= self.unlisted[key]:
            self.move_count(key, -pcp.count)
            self.unlisted[key] = 0
            factor = max(1, pcp.free_factor)
        else:
            return
        if factor != pcp.free_factor:
            self.reasons["refill_size"] += 1
            pcp.free_factor = factor

    # ------------------------------------------------------------------ the vmstat worker
    def run_tick(self, cpu: int) -> None:
        c = self.cpus[cpu]
        if c.due != c.refresh:
            c.last_tick = c.now
        c.due, c.silent = 0, c.now
        for z, zone in enumerate(self.zones):
            pcp = self.pcps[z, cpu]
            before = pcp.high
            if self.rules.decay != "none":
                self.decay(zone, pcp)
            self.took_off[z, cpu] = before - pcp.high
            if self.withheld:
                c.silent = -1
                self.note_prediction(cpu, (z, cpu), TICK)

    def tick_drains(self, cpu: int) -> bool:
        for z in range(len(self.zones)):
            pcp, high = self.pcps[z, cpu], self.pcps[z, cpu].high
            if high > pcp.high_min:
                high = max(pcp.count - (pcp.batch << self.scale_max), high - high // 8, pcp.high_min)
            if pcp.count > high:
                return True
        return False

    def before_event(self, cpu: int, kind: str, now: int) -> None:
        c = self.cpus[cpu]
        if c.drain and (kind != "drain" or now - c.now > PAUSE):
            self.end_drain(cpu)
        c.now = now
        if c.due > 0:
            if c.due != c.refresh and c.due - c.last_tick <= SKIPPED:
                c.due = 0
            elif now - c.due > TICK_PATIENCE or not self.tick_drains(cpu):
                self.push(cpu)
                self.run_tick(cpu)

    def control(self, when: int, what: int, cpu: int) -> None:
        for other in [cpu] if what == TICK_CONTROL else range(len(self.cpus)):
            c = self.cpus[other]
            if c.due > 0 and (what == REFRESH_CONTROL or c.due == c.refresh):
                self.push(other)
                self.run_tick(other)
            c.due = when
            if what == REFRESH_CONTROL:
                c.refresh = when

    # ------------------------------------------------------------------ runs
    def left_buddy(self, e: Event, leftovers: int | None) -> None:
        where = self.take_anywhere(self.zones[self.zone_of(e.pfn)], e.pfn, e.order, leftovers)
        self.reasons["refill_on_list"] += where in ("list", "held back")
        self.reasons["refill_in_use"] += where == "nowhere"
        self.pages[e.pfn] = Page("under way", e.order, e.migratetype)
        self.cpus[e.cpu].run.append((e.pfn, e.order, e.migratetype))

    def on_zone_locked(self, e: Event) -> None:
        zone = self.zones[self.zone_of(e.pfn)]
        self.cpus[e.cpu].fallbacks[1] += self.own_lists_empty(zone, e.order, e.migratetype)
        if self.rules.exact_types:
            self.learn_type(zone, e.pfn, e.order, e.migratetype)
        self.left_buddy(e, None if self.rules.exact_types else e.migratetype)

    def on_extfrag(self, e: Event) -> None:
        zone, c, mt = self.zones[self.zone_of(e.pfn)], self.cpus[e.cpu], e.migratetype
        c.fallbacks[0] += 1
        block, whole = e.pfn >> PAGEBLOCK_ORDER, e.fallback_order >= PAGEBLOCK_ORDER
        empty = self.own_lists_empty(zone, e.order, mt)
        if not self.rules.exact_types:
            if e.change_ownership or whole:
                for b in range(block, block + max(1, 1 << e.fallback_order >> PAGEBLOCK_ORDER)):
                    self.block_types[b] = mt
            if not whole and self.may_claim(e.fallback_order, mt):
                self.move_pageblock(zone, block, mt)
            elif e.pfn in self.free_blocks:
                order, _ = self.free_blocks[e.pfn]
                self.take(zone, e.pfn)
                self.put(zone, e.pfn, order, mt, tail=True)
            c.fallbacks[1] += empty and not self.own_lists_empty(zone, e.order, mt)
        elif e.change_ownership and not whole:
            self.block_types[block] = mt
            self.move_pageblock(zone, block, mt)
        else:
            c.fallbacks[1] += empty
            if e.change_ownership:
                for frame in range(e.pfn & -(1 << e.fallback_order), e.pfn | (1 << e.fallback_order) - 1, 512):
                    self.block_types[frame >> PAGEBLOCK_ORDER] = mt
            else:
                self.learn_type(zone, e.pfn, e.order, e.fallback_migratetype)
            self.left_buddy(e, mt if e.change_ownership else None)

    def list_run(self, cpu: int) -> None:
        """Append the blocks of a run to the lists, and compare its fallbacks."""
        c = self.cpus[cpu]
        for pfn, order, mt in c.run:
            if self.on_pcp(order) and mt < 3 and pfn in self.pages and self.pages[pfn].state == "under way":
                key = self.zone_of(pfn), cpu
                self.pages[pfn] = Page("listed", order, mt, cpu)
                self.pcps[key].lists[self.index(order, mt)].append((pfn, order, mt))
                self.pcps[key].count += 1 << order
                self.eligible.add((*key, self.index(order, mt)))
        c.run = []
        self.end_fallbacks(c)

    def end_fallbacks(self, c: Cpu) -> None:
        for name, n in zip(("kernel", "twin", "matched"), (*c.fallbacks, min(c.fallbacks)), strict=True):
            self.totals[f"extfrag_{name}"] += n
        c.fallbacks = [0, 0]

    def end_run(self, cpu: int) -> None:
        if len(self.cpus[cpu].run) > 1:
            self.totals["refill_without_allocation"] += 1
            self.totals["refill_kernel"] += 1
            self.reasons["refill_alone"] += 1
        self.list_run(cpu)

    # ------------------------------------------------------------------ allocations
    def on_alloc(self, e: Event) -> None:
        z, c = self.zone_of(e.pfn), self.cpus[e.cpu]
        if z < 0:
            self.totals["outside_zones"] += 1
            return
        zone = self.zones[z]
        if self.rules.tuning == "auto" and not zone.below_high:
            before = zone.free_pages + sum(1 << order for pfn, order, _ in c.run if self.zone_of(pfn) == z)
            if before - (1 << e.order) + 1 <= zone.marks["high"]:
                for other in range(len(self.cpus)):
                    self.push(other)
                zone.below_high = True
        if self.on_pcp(e.order):
            self.pop(e, (z, e.cpu))
        elif [pfn for pfn, _, _ in c.run] == [e.pfn]:
            c.run = []
            self.end_fallbacks(c)
        else:
            if c.run:
                self.end_run(e.cpu)
            where = self.take_anywhere(zone, e.pfn, e.order)
            reason = {"buddy": "free_in_twin", "nowhere": "in_use_in_twin"}.get(where, "other_type")
            self.reasons[reason] += 1
        self.pages[e.pfn] = Page("used", e.order, e.migratetype, e.cpu)
        if e.migratetype == MOVABLE:
            self.note_movable(e.pfn, e.order, 1)

    def pop(self, e: Event, key: tuple[int, int]) -> None:
        zone, pcp, c = self.zones[key[0]], self.pcps[key], self.cpus[e.cpu]
        index = self.index(e.order, e.migratetype)
        entries = pcp.lists[index]
        pcp.free_factor >>= 1
        pcp.free_count >>= 1
        straight = bool(c.run) and self.refill_from_run(e, key)
        withheld = e.pfn in self.pages and self.pages[e.pfn].state == "withheld"
        if not straight and (not entries or withheld):
            for prediction in [p for p in c.out if p.pcp == key]:
                if prediction in c.out:
                    self.take_back(e.cpu, prediction, retune=True)
        if not entries and not straight:
            high, factor = pcp.high, pcp.alloc_factor
            self.refill_blocks(zone, pcp, e.order)
            pcp.high, pcp.alloc_factor = high, factor
            self.totals["refill_twin"] += 1
        known = (*key, index) in self.eligible
        self.totals["pcp_allocations"] += 1
        self.totals["eligible"] += known
        if straight:
            return
        if entries and entries[0][0] == e.pfn:
            self.delist(e.pfn)
            self.totals["exact"] += known
        else:
            self.pop_elsewhere(e, zone, entries)

    def refill_from_run(self, e: Event, key: tuple[int, int]) -> bool:
        """The run before an allocation; whether it was this page alone, past its list."""
        zone, pcp, c = self.zones[key[0]], self.pcps[key], self.cpus[e.cpu]
        entries = pcp.lists[self.index(e.order, e.migratetype)]
        mine = sum(b[1:] == (e.order, e.migratetype) and self.zone_of(b[0]) == key[0] for b in c.run)
        if c.run == [(e.pfn, e.order, e.migratetype)] and entries:
            c.run = []
            self.reasons["buddy_path"] += 1
            self.end_fallbacks(c)
            return True
        if mine:
            self.totals["refill_kernel"] += 1
            surplus = bool(entries)
            for pfn, _, _ in list(entries):
                self.delist(pfn)
            blocks = self.refill_blocks(zone, pcp, e.order)
            if surplus:
                self.reasons["surplus"] += 1
            else:
                self.totals["refill_twin"] += 1
                self.totals["refill_matched" if blocks == mine else "refill_other_length"] += 1
            if blocks != mine and e.order == 0 and self.rules.tuning == "auto":
                self.reasons["refill_size"] += 1
                pcp.high = clamp(pcp.high + mine - blocks, pcp.high_min, pcp.high_max)
                doubled = next((f for f in range(self.scale_max) if pcp.batch << f >= mine), self.scale_max)
                pcp.alloc_factor = min(doubled + 1, self.scale_max)
        self.list_run(e.cpu)
        return False

    def pop_elsewhere(self, e: Event, zone: Zone, entries: list[tuple[int, int, int]]) -> None:
        page = self.pages.get(e.pfn)
        if e.pfn in [pfn for pfn, _, _ in entries]:
            while entries[0][0] != e.pfn:
                self.delist(entries[0][0])
            self.delist(e.pfn)
            self.reasons["passed_over"] += 1
            return
        where = self.take_anywhere(zone, e.pfn, e.order)
        if where == "list" and page:
            self.reasons["other_cpu" if page.cpu != e.cpu else "other_type"] += 1
            if page.cpu == e.cpu and page.order == e.order < PAGEBLOCK_ORDER:
                self.learn_type(zone, e.pfn, e.order, e.migratetype)
            return
        self.reasons[{"held back": "withheld", "buddy": "free_in_twin", "nowhere": "in_use_in_twin"}[where]] += 1

    # ------------------------------------------------------------------ all of it
    def feed(self, events: Sequence[Event], controls: Sequence[Sequence[int]]) -> None:
        """Events, and rows (time, what, CPU, ...) of controls in time order."""
        due = deque(controls)
        for e in events:
            while due and due[0][0] <= e.ts:
                self.control(*due.popleft()[:3])
            self.before_event(e.cpu, e.kind, e.ts)
            c = self.cpus[e.cpu]
            if e.kind == "free":
                if c.run:
                    self.end_run(e.cpu)
                self.totals.update(frees=1, pages_freed=1 << e.order)
                self.on_free(e)
            elif e.kind == "free_batched":
                c.trigger, c.trigger_pid = e.pfn, e.pid
                self.push_up_to(e.cpu, e.pfn)
            elif e.kind == "drain":
                self.on_drain(e)
            else:
                if c.pending:
                    self.push(e.cpu)
                c.trigger = -1
                if e.kind == "alloc":
                    self.totals.update(allocations=1, pages_allocated=1 << e.order)
                    self.on_alloc(e)
                elif e.kind != "alloc_failed" and self.zone_of(e.pfn) < 0:
                    self.totals["outside_zones"] += 1
                elif e.kind == "zone_locked":
                    self.on_zone_locked(e)
                elif e.kind == "extfrag":
                    self.on_extfrag(e)
        for cpu, c in enumerate(self.cpus):
            if c.drain:
                self.end_drain(cpu)
            if c.run:
                self.end_run(cpu)
            self.push(cpu)
            for prediction in list(c.out):
                if prediction in c.out:
                    self.take_back(cpu, prediction, retune=prediction.trigger != TICK)
