"""A small model of dm-crypt writes: page and bio events of submitters, kcryptd workers, the writer thread, interrupts.

Knows which request each page belongs to, so that reconstruction can be held against the truth.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from tests.demand_samples import MemoryTrace, trace_of
from tests.reference.slow_demand import Event

PAGE_GFP = 0x800 | 0x2 | 0x2000 | 0x10000 | 0x80000
COMPOUND_GFP = PAGE_GFP | 0x40000
DM, LOWER = 253 << 20, 8 << 20
FIO, WRITER, WORKER = 500, 200, 30


@dataclass(frozen=True)
class Workload:
    """Times in ns. The defaults are those of a server with AES-NI under a tracer."""

    sizes: tuple[int, ...] = (256,)
    """Pages of each write, drawn at random."""
    writes: int = 40
    depth: int = 4
    cpus: int = 2
    compound: bool = False
    cap: int = 256
    """Largest request in pages: larger writes are split."""
    page_ns: int = 450
    encrypt_ns: int = 1300
    device_ns: int = 60_000
    interrupts: bool = True
    """Completions come as interrupts, on any CPU, in the context of whatever runs there."""
    refills: bool = True
    """Refills are recorded; they take time either way."""
    resolution_ns: int = 1
    seed: int = 1


def crypt_trace(w: Workload, *, bios: bool = True) -> tuple[MemoryTrace, list[int]]:
    """A trace, and the pages of each request that it holds, sorted."""
    rng = random.Random(w.seed)
    pages: list[Event] = []
    blocks: list[dict[str, Any]] = []
    truth: list[int] = []
    free_at = [1_000_000] * w.cpus  # when each CPU's worker is done with its last buffer
    refill_in = [63] * w.cpus
    next_pfn = 4096
    sector = 0
    finished: list[int] = []
    writer_free = 0
    stolen: list[tuple[int, int, int, int]] = []  # CPU, start, duration, number of each interrupt
    inside: dict[int, int] = {}  # event -> interrupt

    def bio(ts: int, cpu: int, kind: str, dev: int, pid: int, at: int, n: int, **more: Any) -> None:
        blocks.append(
            {"ts_ns": ts, "cpu": cpu, "kind": kind, "dev": dev, "sector": at, "nr_sectors": n, "op": "W"}
            | {"flags": "WS", "pid": pid}
            | more
        )

    for i in range(w.writes):
        n = rng.choice(w.sizes)
        queued = 1_000_000 + i * 2_000 if i < w.depth else finished[i - w.depth] + 5_000
        bio(queued, w.cpus + 1, "queue", DM, FIO, sector, n * 8)
        parts = [min(w.cap, n - a) for a in range(0, n, w.cap)]
        for k in range(1, len(parts)):
            cut = sector + k * w.cap * 8
            bio(queued + 300 * k, w.cpus + 1, "split", DM, FIO, cut, 0, new_sector=cut)
        done = queued
        for k, part in enumerate(parts):
            at = sector + k * w.cap * 8
            cpu = min(range(w.cpus), key=lambda c: free_at[c])
            t = max(free_at[cpu], queued + 300 * len(parts) + 3_000)
            held = []
            left = part
            while left:
                order = left.bit_length() - 1 if w.compound else 0
                t += round(w.page_ns * (1 + (1 << order) / 4) / 1.25 * rng.uniform(0.8, 1.6))
                if not w.compound:
                    refill_in[cpu] -= 1
                    if refill_in[cpu] < 0:
                        refill_in[cpu] = 62
                        step = w.page_ns // 3
                        if w.refills:
                            pages += [
                                Event(t + z * step, cpu, "zone_locked", 1 << 20, 0, 0, WORKER + cpu) for z in range(63)
                            ]
                        t += (63 * step) if w.refills else 63 * 60
                pages.append(Event(t, cpu, "alloc", next_pfn, order, COMPOUND_GFP if order else PAGE_GFP, WORKER + cpu))
                held.append((next_pfn, order))
                next_pfn += 512
                left -= 1 << order
            truth.append(part)
            t += round(w.encrypt_ns * part * rng.uniform(0.95, 1.1)) + 1_500
            free_at[cpu] = t
            writer_free = max(writer_free, t + 2_000) + 1_000
            bio(writer_free, w.cpus, "remap", LOWER, WRITER, at, part * 8, old_dev=DM, old_sector=at)
            bio(writer_free + 300, w.cpus, "queue", LOWER, WRITER, at, part * 8)
            t = writer_free + round(w.device_ns * rng.uniform(0.5, 2))
            on = rng.randrange(w.cpus) if w.interrupts else w.cpus
            context = WORKER + on if w.interrupts else WRITER
            start, first_free, first_bio = t, len(pages), len(blocks)
            bio(t, on, "complete", LOWER, context, at, part * 8)
            for pfn, order in held:
                t += w.page_ns // 2
                pages.append(Event(t, on, "free", pfn, order, 0, context))
            t += 200
            done = max(done, t)
            if k == len(parts) - 1:
                bio(done, on, "bio_complete", DM, context, at, part * 8)
            if w.interrupts:
                stolen.append((on, start, done - start + 500, len(stolen)))
                inside |= {(id(e)): len(stolen) - 1 for e in pages[first_free:]}
                inside |= {id(b): len(stolen) - 1 for b in blocks[first_bio:]}
        finished.append(done)
        sector += n * 8
    pages, blocks = _interrupted(pages, blocks, stolen, inside)
    r = w.resolution_ns
    pages.sort(key=lambda e: e.ts)
    blocks.sort(key=lambda b: b["ts_ns"])
    pages = [Event(e.ts // r * r, e.cpu, e.kind, e.pfn, e.order, e.gfp, e.pid) for e in pages]
    for b in blocks:
        b["ts_ns"] = b["ts_ns"] // r * r
    comms = {FIO: "fio", WRITER: "dmcrypt_write/2"} | {WORKER + c: f"kworker/u8:{c}" for c in range(w.cpus)}
    trace = trace_of(pages, bios=blocks if bios else (), comms=comms, resolution_ns=r)
    if not w.refills:
        trace.metadata.events = [e for e in trace.metadata.events if "zone_locked" not in e]
    return trace, sorted(truth)


def _interrupted(
    pages: list[Event],
    blocks: list[dict[str, Any]],
    stolen: list[tuple[int, int, int, int]],
    inside: dict[int, int],
) -> tuple[list[Event], list[dict[str, Any]]]:
    """Let interrupts run to completion: what else happens on their CPU later is that much later."""
    by_cpu: dict[int, list[tuple[int, int, int]]] = {}
    for cpu, start, duration, number in sorted(stolen, key=lambda s: s[1]):
        by_cpu.setdefault(cpu, []).append((start, duration, number))

    def delay(cpu: int, ts: int, own: int | None) -> int:
        return sum(
            d
            for start, d, number in by_cpu.get(cpu, ())
            if start < ts and number != own and not (own is not None and start >= stolen[own][1])
        )

    moved = [
        Event(e.ts + delay(e.cpu, e.ts, inside.get(id(e))), e.cpu, e.kind, e.pfn, e.order, e.gfp, e.pid) for e in pages
    ]
    for b in blocks:
        b["ts_ns"] += delay(b["cpu"], b["ts_ns"], inside.get(id(b)))
    return moved, blocks
