"""Seeded synthetic page events, for benchmarks and tests that need no recording.

Several CPUs, each with its own task, allocate and free in bursts on one zone. Nine of ten allocations are single
pages, the others blocks of order 1 to 9; once half of the zone is live, frees keep it there. Times, frames and
tasks are a function of the seed alone.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tracereplay.compiled import hot, kernel
from tracereplay.demand.state import Array
from tracereplay.kernel.constants import PAGE_SIZE
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.trace.writer import TraceWriter

_ALLOC, _FREE = PAGE_KINDS.index("alloc"), PAGE_KINDS.index("free")
_ORDERS = 10
_FIRST_PID = 1000
_STEP_NS = 400
_PAUSE_NS = 20_000
_BATCH, _HIGH = 63, 378

GFPS = (0xCC0, 0x800 | 0x2 | 0x2000 | 0x10000 | 0x80000, 0x100CCA | 0x100 | 0x40000, 0x140CCA | 0x1000, 0x820)
"""Masks of the tasks: kernel memory, a dm-crypt buffer, user faults, page cache, atomic."""


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Page events as columns."""

    ts_ns: Array
    cpu: Array
    kind: Array
    pfn: Array
    order: Array
    gfp: Array
    migratetype: Array
    pid: Array


@hot
def _random(state):
    x = state[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    state[0] = x
    return np.int64(x >> np.uint64(33))


@hot
def _pop(free, free_n, lists, c):
    """A single page for CPU ``c``: from its own list, which is filled from the common one."""
    n = np.int64(lists[c, 0])
    while n == 0:
        while n < _BATCH and free_n[0] > 0:
            free_n[0] -= 1
            n += 1
            lists[c, _BATCH + 1 - n] = free[0, free_n[0]]
        lists[c, 0] = n
        if n < _BATCH:  # what is left of a short fill moves to the bottom
            for k in range(n):
                lists[c, 1 + k] = lists[c, _BATCH + 1 - n + k]
        if n == 0:
            return -1
    lists[c, 0] = n - 1
    return np.int64(lists[c, n])


@hot
def _push(free, free_n, lists, c, p):
    """A single page comes back to a CPU's list; half of a full one goes to the common list."""
    n = np.int64(lists[c, 0])
    if n == _HIGH:
        half = _HIGH // 2
        for k in range(half):
            free[0, free_n[0]] = lists[c, 1 + k]
            free_n[0] += 1
            lists[c, 1 + k] = lists[c, 1 + half + k]
        n -= half
    lists[c, n + 1] = p
    lists[c, 0] = n + 1


@kernel
def _generate(events, cpus, free, free_n, lists, live, live_order, target, seed, gfps, out):
    """Fill the columns ``out``. ``free[k]`` is a stack of free blocks of order k."""
    ts, cpu, kind, pfn, order, gfp, pid = out
    clock = seed[1:]  # next event of each CPU, then its burst: left, freeing, order, task
    n_live = 0
    pages = 0
    for i in range(events):
        c = 0
        for k in range(1, cpus):
            if clock[k] < clock[c]:
                c = k
        t = np.int64(clock[c])
        left = np.int64(clock[cpus + c])
        if left == 0:
            r = _random(seed)
            freeing = n_live > 64 and (pages > target or r & 7 == 0)
            left = 1 + (_random(seed) & (255 if r & 0x300 == 0 else 31))
            clock[2 * cpus + c] = np.uint64(freeing)
            clock[3 * cpus + c] = np.uint64(_random(seed) & 7)
        freeing = clock[2 * cpus + c] != 0 and n_live > 0
        task = np.int64(clock[3 * cpus + c])
        k = np.int64(0)
        p = np.int64(-1)
        if not freeing:
            r = _random(seed)
            if r % 10 == 0:
                k = 1 + (r >> 8) % (_ORDERS - 1)
                if free_n[k] == 0:
                    k = np.int64(0)
            if k:
                free_n[k] -= 1
                p = np.int64(free[k, free_n[k]])
            else:
                p = _pop(free, free_n, lists, c)
                freeing = p < 0
        ts[i] = t
        cpu[i] = c
        pid[i] = _FIRST_PID + c * 8 + task
        if freeing:
            at = _random(seed) % n_live
            p = np.int64(live[at])
            k = np.int64(live_order[at])
            n_live -= 1
            live[at] = live[n_live]
            live_order[at] = live_order[n_live]
            if k:
                free[k, free_n[k]] = p
                free_n[k] += 1
            else:
                _push(free, free_n, lists, c, p)
            pages -= 1 << k
            kind[i] = _FREE
            gfp[i] = 0
        else:
            live[n_live] = p
            live_order[n_live] = k
            n_live += 1
            pages += 1 << k
            kind[i] = _ALLOC
            gfp[i] = gfps[task % gfps.shape[0]]
        pfn[i] = p
        order[i] = k
        pause = _PAUSE_NS if left == 1 else 0
        clock[c] = np.uint64(t + _STEP_NS + pause + (_random(seed) & 127))
        clock[cpus + c] = np.uint64(left - 1)


def make_events(count: int, *, seed: int = 1, cpus: int = 4, memory: int = 16 << 30) -> Synthetic:
    """``count`` page events on ``cpus`` CPUs and a zone of ``memory`` bytes."""
    frames = memory // PAGE_SIZE
    blocks = np.zeros((_ORDERS, frames), np.int32)
    counts = np.zeros(_ORDERS, np.int64)
    # half of the zone for single pages, the rest by order; frames of one order lie together
    base = 0
    for k in range(_ORDERS):
        share = frames // 2 if k == 0 else frames // 2 // (_ORDERS - 1)
        n = share >> k
        base = -(-base >> k) << k
        n = min(n, (frames - base) >> k)
        blocks[k, :n] = (base + (np.arange(n)[::-1] << k)).astype(np.int32)
        counts[k] = n
        base += n << k
    state = np.zeros(1 + 4 * cpus, np.uint64)
    state[0] = np.uint64((seed * 0x9E3779B97F4A7C15 + 1) % (1 << 64))
    state[1 : 1 + cpus] = np.arange(1, cpus + 1, dtype=np.uint64) * np.uint64(37) + np.uint64(1_000_000_000)
    out = (
        np.zeros(count, np.int64),
        np.zeros(count, np.uint16),
        np.zeros(count, np.int8),
        np.zeros(count, np.uint64),
        np.zeros(count, np.uint8),
        np.zeros(count, np.uint32),
        np.zeros(count, np.uint32),
    )
    live = np.zeros(frames, np.int32)
    live_order = np.zeros(frames, np.uint8)
    _generate(
        count,
        cpus,
        blocks,
        counts,
        np.zeros((cpus, _HIGH + 1), np.int32),
        live,
        live_order,
        frames // 2,
        state,
        np.array(GFPS, np.uint32),
        out,
    )
    ts, cpu, kind, pfn, order, gfp, pid = out
    mobility = ((gfp >> 3) & 3).astype(np.uint8)
    return Synthetic(ts, cpu, kind, pfn, order, gfp, np.where(mobility < 3, mobility, 0).astype(np.uint8), pid)


def write_trace(
    path: str | Path,
    *,
    events: int = 10_000_000,
    seed: int = 1,
    cpus: int = 4,
    memory: int = 16 << 30,
    force: bool = False,
) -> Path:
    """Write such events as a trace bundle; its path. Raises OutputExistsError."""
    made = make_events(events, seed=seed, cpus=cpus, memory=memory)
    metadata = TraceMetadata(
        source={"kind": "synthetic", "format": "tracereplay.demand.synthetic", "seed": seed, "events": events},
        host={"cpus": cpus, "page_size": PAGE_SIZE, "release": "6.12.0"},
        clock={"name": "mono", "resolution_ns": 1},
        events=["kmem:mm_page_alloc", "kmem:mm_page_free"],
    )
    freed = made.kind == _FREE
    with TraceWriter(path, metadata, force=force) as writer:
        for a in range(0, events, 1 << 20):
            rows = slice(a, a + (1 << 20))
            columns = {
                "ts_ns": made.ts_ns[rows],
                "cpu": made.cpu[rows],
                "kind": made.kind[rows],
                "pfn": made.pfn[rows],
                "order": made.order[rows],
                "gfp": pa.array(made.gfp[rows], mask=freed[rows]),
                "migratetype": pa.array(made.migratetype[rows], mask=freed[rows]),
                "pid": made.pid[rows],
            }
            writer.write("page_events", pa.table(columns))
        names = {_FIRST_PID + c * 8 + k: f"task{k}" for c in range(cpus) for k in range(8)}
        writer.write(
            "tasks",
            pa.table(
                {
                    "pid": pa.array(list(names), pa.uint32()),
                    "tgid": pa.array(list(names), pa.uint32()),
                    "comm": list(names.values()),
                }
            ),
        )
        writer.finish()
    return Path(path)
