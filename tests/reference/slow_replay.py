"""The replay loop and its strategies, slow and obvious: one object a block, one Counter a request.

The oracle for ``tracereplay.replay`` and the built-in strategies, on the slow machine. It keeps the stated rules: a
request is all or nothing; a strategy's block is released when its last page is freed, and pages freed before that are
waste; a background block freed in pieces is cut into single pages, and such pages that go back together as one aligned
block go back as one block. Time, waits and timers are in ``slow_waiting.py``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.reference.slow_crypt import CRYPT, Piece, Strategy
from tests.reference.slow_waiting import Clock, Parked
from tracereplay.demand.stream import ALLOC, FIRST, FREE, OF_BIO, ON_PATH, PIECE, REQUIRED, TARGETED, UNSEEN


@dataclass
class Request:
    """A targeted request with its blocks."""

    flags: int
    time_bin: int
    counters: Counter[str] = field(default_factory=Counter)
    by_order: Counter[tuple[str, int]] = field(default_factory=Counter)
    live_blocks: int = 0
    delay: int | None = None
    """How long it waited, ns."""
    arrival: int = 0
    pages: int = 0
    bio: int | None = None
    """The bio in pieces that it is a piece of."""


@dataclass
class Block:
    """A block that serves some keys."""

    frame: int
    order: int
    request: Request | None
    keys: set[int] = field(default_factory=set)
    """Those that the trace has not freed."""
    live: int = 0
    """Pages not freed here."""


STRATEGIES: dict[str, type[Strategy]] = CRYPT


# ---------------------------------------------------------------- the loop
@dataclass
class SlowReplay(Clock):
    """A stream of operations through a strategy on a machine."""

    cpus: int = 1
    bin_ns: int = 1
    bins: int = 1
    served: dict[int, Block] = field(default_factory=dict)
    """Blocks by key."""
    ended: list[Request] = field(default_factory=list)
    live: list[Request] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)
    waste: int = 0
    waste_peak: int = 0
    background: Counter[str] = field(default_factory=Counter)
    background_by_order: Counter[tuple[str, int]] = field(default_factory=Counter)
    series: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Background by time bin."""
    noted: Counter[str] = field(default_factory=Counter)
    piece: int | None = None
    """The bio whose piece the next request of a bio is."""
    to_come: dict[int, int] = field(default_factory=dict)
    """Pieces to come, by bio."""

    def feed(self, ops: np.ndarray[Any, Any]) -> None:
        rows = [dict(zip(ops.dtype.names, row, strict=True)) for row in ops.tolist()]
        i = 0
        while i < len(rows):
            op = rows[i]
            op["cpu"] %= self.cpus
            extents = [op]
            if op["kind"] == ALLOC and op["flags"] & (TARGETED | UNSEEN):
                while i + len(extents) < len(rows):
                    more = rows[i + len(extents)]
                    if more["kind"] != ALLOC or more["flags"] & FIRST:
                        break
                    extents.append(more)
            self.on_background()
            self.catch_up(op["ts_ns"])
            self.machine.pass_time(op["cpu"], op["ts_ns"])
            self.one(op, extents)
            i += len(extents)

    def on_background(self) -> None:
        self.machine.counters, self.machine.by_order = self.background, self.background_by_order

    def close_bins(self, when: int | None) -> None:
        """The background's counters up to now are those of the present bin; ``None``: the end."""
        if when is None or self.bin_of(when) != self.bin_of(self.now):
            self.series[self.bin_of(self.now)] += self.background - self.noted
            self.noted = self.background.copy()

    def bin_of(self, ts_ns: int) -> int:
        return min((ts_ns - self.start_ns) // self.bin_ns, self.bins - 1)

    def one(self, op: dict[str, int], extents: list[dict[str, int]]) -> None:
        if op["kind"] == FREE:
            self.free(op["pfn"], op["order"], op["cpu"])
        elif op["kind"] == PIECE:
            self.piece = op["pfn"]
            self.to_come[op["pfn"]] = op["pages"]
        elif op["kind"] != ALLOC:
            self.facts["held_frees"] += 1
            frame = self.machine.free_held(op["cpu"], op["pfn"], op["order"])
            self.facts["held_missing"] += frame is None
            self.facts["held_elsewhere"] += frame is not None and frame != op["pfn"]
        else:
            if op["flags"] & FIRST:
                self.facts["requests"] += 1
                self.facts["pages"] += op["pages"]
            bio = None
            if op["flags"] & FIRST and op["flags"] & OF_BIO:
                bio, self.piece = self.piece, None
            if op["flags"] & TARGETED:
                self.targeted(op, extents, bio)
            elif op["flags"] & UNSEEN:
                self.unseen(op, extents)
            else:
                frame = self.machine.alloc(op["cpu"], op["order"], op["gfp"])
                if frame is None:
                    self.background_failure()
                else:
                    keys = range(op["pfn"], op["pfn"] + (1 << op["order"]))
                    self.enter(Block(frame, op["order"], None), keys)

    def background_failure(self) -> None:
        self.machine.count("failures")
        self.facts["background_failed"] += 1

    def enter(self, block: Block, keys: Any) -> None:
        block.keys = set(keys)
        block.live = len(block.keys)
        for key in keys:
            self.served[key] = block

    def charge(self, request: Request) -> None:
        self.machine.counters, self.machine.by_order = request.counters, request.by_order

    def targeted(self, op: dict[str, int], extents: list[dict[str, int]], bio: int | None) -> None:
        request = Request(op["flags"], self.bin_of(op["ts_ns"]), arrival=op["ts_ns"], pages=op["pages"], bio=bio)
        self.facts["targeted_requests"] += 1
        self.facts["targeted_pages"] += op["pages"]
        self.charge(request)
        if op["flags"] & REQUIRED:
            blocks: list[Piece] | None = []
            for extent in extents:
                found = self.strategy.allocate(op["cpu"], 1 << extent["order"], extent["order"], op["gfp"], op["flags"])
                if found is None:
                    for block in blocks or []:
                        self.strategy.release(op["cpu"], block, op["flags"])
                    blocks = None
                    break
                assert blocks is not None
                blocks += found
        keys = [k for extent in extents for k in range(extent["pfn"], extent["pfn"] + (1 << extent["order"]))]
        number = self.facts["targeted_requests"]
        work = self.strategy.serve(op["cpu"], op["pages"], 0, op["gfp"], op["flags"])
        parked = Parked(number, request, work, keys, op["cpu"], self.now)
        if op["flags"] & REQUIRED:
            self.serve(parked, blocks)
        else:
            self.begin(parked)

    def serve(self, parked: Parked, blocks: list[Piece] | None) -> None:
        """A request has got its blocks, or none."""
        request = parked.request
        if blocks is None:
            self.machine.count("failures")
            self.facts["failed"] += 1
            self.ended.append(request)
            return
        at = 0
        for frame, order in blocks:
            places = range(at, min(at + (1 << order), len(parked.keys)))
            at += 1 << order
            assert places
            block = Block(frame, order, request)
            self.enter(block, [parked.keys[p] for p in places if p not in parked.freed])
            block.live = len(places)
            for place in places:
                if place in parked.freed:
                    when, cpu = parked.freed[place]
                    self.put_off(block, when + (request.delay or 0), cpu)
            self.note_waste((1 << order) - len(places))
        if request.flags & ON_PATH:
            request.counters["bios"] += 1
            request.counters["bvec_arrays"] += request.pages > 4
            request.counters["bio_vecs"] += len(blocks)
        request.live_blocks = len(blocks)
        self.live.append(request)

    def unseen(self, op: dict[str, int], extents: list[dict[str, int]]) -> None:
        self.facts["unseen_pages"] += op["pages"]
        slots: list[int | None] = [None] * op["pages"]
        if self.machine.rules.bulk == "none":
            for i in range(len(slots)):
                slots[i] = self.machine.alloc(op["cpu"], 0, op["gfp"])
                if slots[i] is None:
                    break
        while None in slots and self.machine.rules.bulk != "none":
            before = slots.count(None)
            self.machine.alloc_bulk(op["cpu"], op["gfp"], slots)
            if slots.count(None) == before:
                break
        keys = [k for extent in extents for k in range(extent["pfn"], extent["pfn"] + (1 << extent["order"]))]
        for key, frame in zip(keys, slots, strict=True):
            if frame is None:
                self.background_failure()
            else:
                self.enter(Block(frame, 0, None), [key])

    def free(self, first: int, order: int, cpu: int) -> None:
        keys = range(first, first + (1 << order))
        block = self.served.get(first)
        if block and block.request is None and len(block.keys) > len(keys):
            self.cut(block)
        blocks = [self.served.get(key) for key in keys]
        if order and self.lie_together(blocks, order):
            # pieces of one block that go back as one
            owners = [b.frame for b in blocks if b]
            _, mt, owner = self.machine.used[owners[0]]
            for frame in owners:
                del self.machine.used[frame]
            self.machine.used[owners[0]] = (order, mt, owner)
            for key in keys:
                del self.served[key]
            self.machine.free(cpu, owners[0], order)
            return
        for key in keys:
            block = self.served.pop(key, None)
            if key in self.parked_keys:
                parked, place = self.parked_keys.pop(key)
                parked.freed[place] = self.now, cpu
            elif block is None:
                self.facts["orphans"] += 1
            elif block.request is not None and block.request.delay is not None:
                block.keys.discard(key)
                self.put_off(block, self.now + block.request.delay, cpu)
            else:
                block.keys.discard(key)
                self.free_page(block, cpu)
        self.waste_peak = max(self.waste_peak, self.waste)

    def free_page(self, block: Block, cpu: int) -> None:
        """One page of a block is free; the last one frees the block."""
        block.live -= 1
        if block.request is not None:
            self.waste += 1
        if not block.live and block.request is None:
            self.machine.free(cpu, block.frame, block.order)
        elif not block.live:
            self.waste -= 1 << block.order
            self.progress = self.now
            self.release(block, cpu)

    def lie_together(self, blocks: list[Block | None], order: int) -> bool:
        """Single background pages of one kind in a row of aligned frames."""
        if any(b is None or b.request is not None or b.order > 0 for b in blocks):
            return False
        frames = [b.frame for b in blocks if b]
        kinds = {self.machine.used[frame] for frame in frames}
        return (
            frames[0] % (1 << order) == 0 and frames == [*range(frames[0], frames[0] + len(frames))] and len(kinds) == 1
        )

    def cut(self, block: Block) -> None:
        """``split_page``."""
        _, mt, owner = self.machine.used.pop(block.frame)
        for i, key in enumerate(sorted(block.keys)):
            self.machine.used[block.frame + i] = (0, mt, owner)
            self.enter(Block(block.frame + i, 0, None), [key])

    def note_waste(self, pages: int) -> None:
        self.waste += pages
        self.waste_peak = max(self.waste_peak, self.waste)

    def release(self, block: Block, cpu: int) -> None:
        request = block.request
        assert request is not None
        self.charge(request)
        self.strategy.release(cpu, (block.frame, block.order), request.flags)
        self.machine.counters, self.machine.by_order = self.background, self.background_by_order
        request.live_blocks -= 1
        if request.live_blocks == 0:
            self.live.remove(request)
            self.ended.append(request)
