"""Event streams of a kernel whose whole state is known, for the twin check: random tasks on several CPUs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.machine_samples import TYPED, marks
from tests.reference.kernel_events import SECOND, WORKER, Event, TracedKernel
from tests.reference.machine_driver import slow_twin
from tests.reference.slow_machine import migratetype
from tracereplay.machine import layout as machine_at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.verify import layout as at
from tracereplay.verify.loop import finish, run_events

GENERATIONS = ("6.1", "6.7", "6.12", "6.18", "6.19")
GFPS = (0xCC0, 0x100CCA, 0xC50)
"""GFP_KERNEL, GFP_HIGHUSER_MOVABLE, reclaimable: requests that reach no reserve."""
DMA32 = 0xCC4
TYPES_OF_BLOCKS = tuple(tuple(3 * n for n in row) for row in TYPED)
BLOCKS = tuple(map(sum, zip(*TYPES_OF_BLOCKS, strict=True)))
KERNELS = {
    "roomy": MachineConfig(
        zones=(ZoneConfig("Normal", 0, 32768, watermarks=marks(300)),), cpus=3, occupancy=0.1, pcp_batch=15
    ),
    "mixed types": MachineConfig(
        zones=(
            ZoneConfig("Normal", 0, 40000, watermarks=marks(120), free_blocks=BLOCKS, free_by_type=TYPES_OF_BLOCKS),
        ),
        cpus=2,
        pcp_batch=7,
        llc_pages_per_cpu=16,
    ),
    "near the watermark": MachineConfig(
        zones=(ZoneConfig("Normal", 0, 16384, watermarks=Watermarks((0, 0, 0, 0), 80, 100, 6000)),),
        cpus=2,
        occupancy=0.2,
        fragmentation=0.1,
        pcp_batch=7,
    ),
    "two zones": MachineConfig(
        zones=(
            ZoneConfig("DMA32", 0, 8192, watermarks=marks(100)),
            ZoneConfig("Normal", 8192, 24576, watermarks=marks(200)),
        ),
        cpus=2,
        occupancy=0.2,
        pcp_batch=7,
    ),
}


@dataclass
class Stream:
    """Events in time order, and what happened beside them."""

    config: MachineConfig
    events: list[Event]
    controls: list[tuple[int, ...]]
    kernel: TracedKernel

    def rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The controls as the twin takes them."""
        return np.array(sorted(self.controls), np.int64).reshape(-1, at.CONTROL_WORDS)


def kernel_stream(
    config: MachineConfig, rng: random.Random, bursts: int, *, bulk: float = 0.0, probed: bool = False
) -> Stream:
    """``bursts`` of allocations, frees and batches of frees; ``bulk``: share of bursts that take pages in bulk, unseen
    or ``probed``: then a bulk event has their number in place of a frame."""
    kernel = TracedKernel(slow_twin(build_machine(config), config))
    kernel.boost_factor = 0  # which the check does not know of
    stream = Stream(config, kernel.events, [], kernel)
    live: list[tuple[int, int]] = []
    due = [SECOND] * config.cpus
    kernel.clock = SECOND // 10
    for burst in range(bursts):
        cpu, pid = rng.randrange(config.cpus), rng.randrange(100, 104)
        if rng.random() < 0.1 or kernel.clock % SECOND > 4 * SECOND // 10:
            kernel.clock = kernel.clock // SECOND * SECOND + SECOND * rng.choice((1, 1, 1, 3)) + 20_000_000
        if due[cpu] <= kernel.clock:
            kernel.tick_on(cpu)
            due[cpu] = kernel.clock // SECOND * SECOND + SECOND
        before = len(kernel.events)
        share_freed = 0.8 if burst // 25 % 2 else 0.3
        what = rng.random()
        if what < 0.03 and min(due) > kernel.clock and not resting(kernel):
            stream.controls.append((kernel.clock + 1, at.CTL_REFRESH, 0, 0, 0, 0))
            for c in range(config.cpus):
                kernel.tick_on(c)
        elif rng.random() < bulk and room_for(kernel, 0, GFPS[0]):
            taken = kernel.bulk_on(cpu, rng.choice((2, 16, 100)), GFPS[0], pid)
            live += [(pfn, 0) for pfn in taken]
            if probed:
                kernel.emit("bulk", len(taken), 0, migratetype(GFPS[0]))
        elif rng.random() < share_freed:
            free_some(kernel, rng, live, cpu, pid)
        else:
            orders = rng.choice(((0,), (0,), (0, 1, 2, 3), (3, 4, 5), (0, 9), (10,)))
            gfp = rng.choice(GFPS + (DMA32,) * (config.zones[0].name == "DMA32"))
            for _ in range(rng.choice((3, 30, 100, 300))):
                order = rng.choice(orders)
                if room_for(kernel, order, gfp) and (pfn := kernel.alloc_on(cpu, order, gfp, pid)) is not None:
                    live.append((pfn, order))
        if len(kernel.events) == before:  # the check takes a CPU without page events for an idle one
            kernel.cpu, kernel.pid = cpu, pid
            kernel.free_held(cpu, rng.randrange(kernel.zones[0].end), 0)
        kernel.clock += 300_000
    for cpu in range(config.cpus):  # a worker shows at its CPU's next event
        if due[cpu] <= kernel.clock:
            kernel.tick_on(cpu)
        kernel.cpu, kernel.pid = cpu, 100
        kernel.free_held(cpu, kernel.zones[0].start, 0)
    last = kernel.clock // SECOND
    stream.controls += [(s * SECOND, at.CTL_TICK, c, 0, 0, 0) for s in range(1, last + 1) for c in range(config.cpus)]
    return stream


def resting(kernel: TracedKernel) -> bool:
    """The last event of some CPU is a worker's."""
    last = {e.cpu: e.pid for e in kernel.events}
    return any(pid >= WORKER for pid in last.values())


def room_for(kernel: TracedKernel, order: int, gfp: int) -> bool:
    """A request is served whole: no watermark fails, and no refill ends early for want of blocks."""
    zone = kernel.zones[kernel.zonelist(0, gfp)[0]]
    pcp = kernel.pcps[kernel.zones.index(zone), 0]
    wanted = pcp.batch << kernel.scale_max if order == 0 else max(pcp.batch >> order, 2)
    if zone.free_pages <= zone.marks["low"] + 2 * (wanted << order):
        return False
    found = sum(
        len(frames) << larger - order
        for (larger, mt), frames in zone.lists.items()
        if larger >= order and (larger >= 9 or mt == migratetype(gfp) or not zone.nofragment)
    )
    return found > 2 * wanted


def free_some(kernel: TracedKernel, rng: random.Random, live: list[tuple[int, int]], cpu: int, pid: int) -> None:
    """Free old or new blocks, singly or as batches; now and then one from before the trace."""
    newest = rng.random() < 0.5
    for _ in range(rng.choice((1, 5, 30))):
        batch: list[tuple[int, int]] = []
        for _ in range(min(rng.choice((1, 1, 15, 31)), len(live))):
            block = live.pop() if newest else live.pop(rng.randrange(len(live)))
            batch.append(block)
        held = [(p, o) for p, o in batch if kernel.on_pcp(o) and (o == 0 or kernel.rules.exact_types)]
        if len(batch) == 1 or not held:
            for pfn, order in batch:
                kernel.free_on(cpu, pfn, order, pid)
        else:
            for pfn, order in set(batch) - set(held):
                kernel.free_on(cpu, pfn, order, pid)
            kernel.free_batch_on(cpu, held, pid)
    if rng.random() < 0.2:
        kernel.cpu, kernel.pid = cpu, pid
        kernel.free_held(cpu, rng.randrange(kernel.zones[0].end), rng.choice((0, 0, 1, 3)))


# ---------------------------------------------------------------- the compiled check
def twin_machine(config: MachineConfig) -> machine_at.Machine:
    """The machine in its first state, which holds predicted drains back."""
    machine = build_machine(replace(config, vmstat_interval=0))
    machine.w[machine_at.CFG_WITHHOLD] = machine.w[machine_at.CFG_STRATEGY_LIST]
    return machine


def check(
    config: MachineConfig, events: Sequence[Event], controls: np.ndarray[Any, Any], room: int = 0
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The numbers of the compiled check after the events."""
    return twin_after(config, events, controls, room)[1]


def twin_after(
    config: MachineConfig, events: Sequence[Event], controls: np.ndarray[Any, Any], room: int = 0
) -> tuple[machine_at.Machine, np.ndarray[Any, np.dtype[np.int64]]]:
    """The twin's machine and numbers after the events."""
    machine = twin_machine(config)
    v = at.new_state(len(config.zones), config.cpus, room)
    v[at.VC_WITHHELD] = machine.w[machine_at.CFG_STRATEGY_LIST]
    run_events(machine, v, controls, *columns(events))
    finish(machine, v)
    return machine, v


def columns(events: Sequence[Event]) -> list[np.ndarray[Any, Any]]:
    """Events in the types of a trace's columns."""
    kinds = [PAGE_KINDS.index(e.kind) for e in events]
    return [
        np.array([e.ts for e in events], np.int64),
        np.array([e.cpu for e in events], np.uint16),
        np.array(kinds, np.uint8),
        np.array([e.pfn for e in events], np.uint64).view(np.int64),
        np.array([e.order for e in events], np.uint8),
        np.array([e.migratetype for e in events], np.uint8),
        np.array([e.pid for e in events], np.uint32),
        np.array([e.fallback_order for e in events], np.uint8),
        np.array([e.fallback_migratetype for e in events], np.uint8),
        np.array([e.change_ownership for e in events], np.uint8),
    ]


def totals(v: np.ndarray[Any, Any]) -> dict[str, int]:
    """Totals that are not 0, by name."""
    return {name: int(v[i]) for i, name in enumerate(at.TOTALS) if v[i]}


def reasons(v: np.ndarray[Any, Any]) -> dict[str, int]:
    """Resynchronisations that are not 0, by reason."""
    return {name: int(v[at.RS + i]) for i, name in enumerate(at.REASONS) if v[at.RS + i]}


def disagreements(v: np.ndarray[Any, Any]) -> list[tuple[int, str, list[int]]]:
    """The first disagreements: number of the event, kind, and its numbers."""
    n = min(int(v[at.VC_LOGGED]), int(v[at.VC_ROOM]))
    rows = v[len(v) - int(v[at.VC_ROOM]) * at.LOG_WORDS :].reshape(-1, at.LOG_WORDS)[:n]
    return [(int(r[0]), at.DISAGREEMENTS[int(r[1])], r[2:].tolist()) for r in rows]
