"""The slow machine as a traced kernel: what it does comes out as the page events that a kernel of its generation emits.

Only the tracepoints are added here (page-allocator.md 7.2 and 7.3); what happens is ``slow_machine``. Modelled for 6.1
and later, where ``__rmqueue_smallest`` itself emits ``mm_page_alloc_zone_locked``.
"""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

from tests.reference.slow_machine import CMA, MOVABLE, Pcp, SlowMachine, Way, Zone, migratetype

SECOND = 1_000_000_000
WORKER = 9000
"""Pids of the kworkers, by CPU from here on."""
NO_FRAME = (1 << 64) - 1


class Event(NamedTuple):
    """A row of ``page_events``; ``order`` and ``migratetype`` of an extfrag are the request's."""

    ts: int
    cpu: int
    kind: str
    pfn: int
    order: int = 0
    migratetype: int = 0
    pid: int = 0
    fallback_order: int = 0
    fallback_migratetype: int = 0
    change_ownership: bool = False


class TracedKernel(SlowMachine):
    """A slow machine that keeps its events in ``events``, on ``cpu`` by ``pid`` at ``clock`` (ns)."""

    def __init__(self, machine: SlowMachine) -> None:
        super().__init__(**{f.name: getattr(machine, f.name) for f in fields(machine) if f.init})
        self.events: list[Event] = []
        self.clock = self.cpu = self.pid = 0

    def emit(self, kind: str, pfn: int, order: int = 0, mt: int = 0, *fallback: int) -> None:
        """Add an event of the present CPU and task; each takes a microsecond."""
        self.clock += 1000
        self.events.append(Event(self.clock, self.cpu, kind, pfn, order, mt, self.pid, *fallback))  # type: ignore[arg-type]

    # ------------------------------------------------------------------ blocks leave the buddy lists
    def rmqueue_smallest(self, zone: Zone, order: int, mt: int) -> int | None:
        pfn = super().rmqueue_smallest(zone, order, mt)
        if pfn is not None:
            self.emit("zone_locked", pfn, order, mt)
        return pfn

    def extfrag(self, pfn: int, order: int, mt: int, found: int, other: int) -> None:
        """After the fact: change_ownership tells whether the pageblock has the requester's type now."""
        self.emit("extfrag", pfn, order, mt, found, other, int(self.block_types[pfn >> 9] == mt))

    def bring_foreign(self, zone: Zone, order: int, mt: int, way: Way) -> bool:
        pfn = self.find_foreign(zone, order, mt, way)
        if pfn is None:
            return False
        found, other = self.free_blocks[pfn]
        super().bring_foreign(zone, order, mt, way)
        self.extfrag(pfn, order, mt, found, other)
        return True

    def claim_block(self, zone: Zone, pfn: int, order: int, mt: int, way: Way) -> int | None:
        found, other = self.free_blocks[pfn]
        taken = super().claim_block(zone, pfn, order, mt, way)
        if taken is not None:
            self.extfrag(taken, order, mt, found, other)
        return taken

    def fallback(self, zone: Zone, order: int, mt: int, way: Way) -> int | None:
        pfn = self.find_foreign(zone, order, mt, way)
        found, other = self.free_blocks[pfn] if pfn is not None else (0, 0)
        before = len(self.events)
        taken = super().fallback(zone, order, mt, way)
        if taken is not None and not any(e.kind == "extfrag" for e in self.events[before:]):
            self.extfrag(taken, order, mt, found, other)
        return taken

    def steal(self, zone: Zone, order: int, mt: int) -> int | None:
        smallest = (self.foreign(zone, found, mt) for found in range(order, 11))
        pfn = next((p for p in smallest if p is not None), None)
        found, other = self.free_blocks[pfn] if pfn is not None else (0, 0)
        taken = super().steal(zone, order, mt)
        if taken is not None:
            self.extfrag(taken, order, mt, found, other)
        return taken

    # ------------------------------------------------------------------ calls
    def alloc_on(self, cpu: int, order: int, gfp: int, pid: int) -> int | None:
        """``__alloc_pages`` by a task."""
        self.cpu, self.pid = cpu, pid
        pfn = self.alloc(cpu, order, gfp)
        if pfn is None:
            self.emit("alloc_failed", NO_FRAME, order, migratetype(gfp))
        else:
            self.emit("alloc", pfn, order, migratetype(gfp))
        return pfn

    def bulk_on(self, cpu: int, n: int, gfp: int, pid: int) -> list[int]:
        """``alloc_pages_bulk`` by a task: no event names its pages."""
        self.cpu, self.pid = cpu, pid
        slots: list[int | None] = [None] * n
        self.alloc_bulk(cpu, gfp, slots)
        return [pfn for pfn in slots if pfn is not None]

    def free_on(self, cpu: int, pfn: int, order: int, pid: int) -> None:
        """``__free_pages`` by a task."""
        self.cpu, self.pid = cpu, pid
        self.free(cpu, pfn, order)

    def free_prepared(self, cpu: int, pfn: int, order: int) -> None:
        self.emit("free", pfn, order)
        super().free_prepared(cpu, pfn, order)

    def free_batch_on(self, cpu: int, blocks: list[tuple[int, int]], pid: int) -> None:
        """``free_unref_folios``: all are prepared, then each is pushed. Orders that per-CPU lists hold."""
        self.cpu, self.pid = cpu, pid
        for pfn, order in blocks:
            _, mt, _ = self.used.pop(pfn)
            if mt == MOVABLE:
                self.note_movable(pfn, order, -1)
            self.emit("free", pfn, order)
        for pfn, order in blocks:
            self.emit("free_batched", pfn)
            z = next(z for z, zone in enumerate(self.zones) if zone.start <= pfn < zone.end)
            self.pcp_free(self.zones[z], self.pcps[z, cpu], pfn, order)

    def drain_tail(self, zone: Zone, pcp: Pcp, index: int) -> int:
        pfn, order, mt = pcp.lists[index][-1]
        if self.rules.exact_types:
            mt = self.block_types[pfn >> 9]
        pages = super().drain_tail(zone, pcp, index)
        assert mt < CMA
        self.emit("drain", pfn, order, mt)
        return pages

    def tick_on(self, cpu: int) -> None:
        """The vmstat worker of a CPU runs."""
        self.cpu, self.pid = cpu, WORKER + cpu
        self.vmstat_update(cpu)
