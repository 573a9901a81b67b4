"""One pass over the page events: what each frame, pageblock and per-CPU list was like before them (compiled).

The first event that names a frame tells its state before all events (page-allocator.md 7.3): freed: it was in use;
zone_locked or extfrag: free in the buddy lists; allocated without either: on that CPU's list; drained: the same. What
no event shows (compaction's targets, memory that is added) is not modelled.

Pageblock types: since 6.10 zone_locked and drain name the block's own type; before, the list's. A page that was freed
and then popped on the same CPU without passing the buddy lists lay on the list of its block's type at any time.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.compiled import hot, kernel
from tracereplay.kernel.constants import (
    MAX_PAGE_ORDER,
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    PAGEBLOCK_ORDER,
)
from tracereplay.machine.layout import NR_KERNEL_TYPES
from tracereplay.trace.schema import PAGE_KINDS

K_ALLOC = PAGE_KINDS.index("alloc")
K_FREE = PAGE_KINDS.index("free")
K_FREE_BATCHED = PAGE_KINDS.index("free_batched")
K_ZONE_LOCKED = PAGE_KINDS.index("zone_locked")
K_DRAIN = PAGE_KINDS.index("drain")
K_EXTFRAG = PAGE_KINDS.index("extfrag")

NEVER, IN_USE, BUDDY, PCP = range(4)
STATE = 3
EARLY = 4
"""First named before the page map was read there: the event decides, not the map."""

CLOSED, LISTS_MIXED = 1, 2
"""A pageblock whose type changed: later events tell nothing of the start. One whose free pages moved to lists of
another type (before 6.10): later list types tell nothing."""

POPPED = np.dtype([("pfn", np.int64), ("order", np.int8), ("mt", np.int8), ("cpu", np.int16), ("drained", np.int8)])
"""A block that was on a CPU's list at the start, in the order of leaving it."""

(
    S_POPPED,  # entries in ``popped``
    S_TAKEN,  # entries in ``taken``
    S_MALFORMED,
    S_SPLIT_PCP,  # blocks popped of which only a part was never named before
    S_KEEPS_TYPE,
    S_PCP_ORDERS,
    S_THP_LISTS,
    S_REFILLS,  # refills were recorded: what was popped without one was on the list before
    S_CPUS,
    S_UNEXPLAINED,  # blocks that no CPU list holds, allocated without having left the buddy lists
    S_NOW,  # time of the event at hand
) = range(11)
SCALARS = 11
NOT_RECORDED = 255
"""A migratetype that is null."""
RUNS = 8
"""Migratetypes for which runs of refilled frames are followed, per zone."""


class Tables(NamedTuple):
    """State of the pass. Per frame: ``first`` (state before the events), ``last`` (CPU and order of the free that was
    its last event, else 0), ``need`` (order of the block that a run from here was cut from). Per pageblock: the rest.
    """

    scalar: npt.NDArray[np.int64]
    first: npt.NDArray[np.uint8]
    last: npt.NDArray[np.uint16]
    need: npt.NDArray[np.uint8]
    strong: npt.NDArray[np.int8]
    weak: npt.NDArray[np.int8]
    closed: npt.NDArray[np.uint8]
    against: npt.NDArray[np.int32]
    """Later events that name another type, while nothing shows that it changed."""
    read_ns: npt.NDArray[np.int64]
    """When the page map had been read there; the least number: it was not."""
    zone: npt.NDArray[np.int8]
    """Zone number; -1 outside."""
    budget: npt.NDArray[np.int64]
    """Per (zone, CPU): pages that can have been on its lists at the start."""
    runs: npt.NDArray[np.int64]
    """Per (zone, type): first and next frame of the run of refilled frames."""
    popped: npt.NDArray[np.void]
    taken: npt.NDArray[np.int64]
    """First frames of blocks in the order in which they left the buddy lists."""


@hot
def note_type(t, pfn, order, mt, weak):
    """An event names the type of a block's pageblocks; ``weak``: of the list on which it lay."""
    if mt >= NR_KERNEL_TYPES:
        return
    for block in range(pfn >> PAGEBLOCK_ORDER, ((pfn + (1 << order) - 1) >> PAGEBLOCK_ORDER) + 1):
        if t.closed[block] & CLOSED or (weak and t.closed[block]):
            continue
        if weak:
            if t.weak[block] < 0:
                t.weak[block] = mt
            elif t.weak[block] != mt:
                t.against[block] += t.strong[block] < 0
        elif t.strong[block] < 0:
            t.strong[block] = mt
            t.against[block] = 0
        elif t.strong[block] != mt:
            t.against[block] += 1


@hot
def note_popped_type(t, pfn, order, mt):
    """A block lay on the list for ``mt`` by its pageblock's type; types that have no list lie on the movable one."""
    if order >= PAGEBLOCK_ORDER and (t.scalar[S_THP_LISTS] == 1 or mt != MIGRATE_MOVABLE):
        return
    block = pfn >> PAGEBLOCK_ORDER
    if mt == MIGRATE_MOVABLE and t.strong[block] >= MIGRATE_PCPTYPES:
        return
    note_type(t, pfn, order, mt, False)


@hot
def name_frames(t, pfn, order, state, early):
    """Note the state of a block's frames that no event named before; how many those are."""
    fresh = 0
    for p in range(pfn, pfn + (1 << order)):
        if p > pfn and p & ((1 << PAGEBLOCK_ORDER) - 1) == 0:  # order 10: each pageblock was read by itself
            early = EARLY if t.scalar[S_NOW] < t.read_ns[p >> PAGEBLOCK_ORDER] else 0
        if t.first[p] == NEVER:
            t.first[p] = state | early
            fresh += 1
        t.last[p] = 0
    return fresh


@hot
def follow_run(t, pfn, order, mt):
    """Frames that leave a list in ascending order, from one that is aligned, were cut from one block (section 2.2)."""
    z = np.int64(t.zone[pfn >> PAGEBLOCK_ORDER])
    if z < 0 or mt >= RUNS:
        return
    r = 2 * (z * RUNS + mt)
    start = t.runs[r]
    end = pfn + (1 << order)
    if start < 0 or t.runs[r + 1] != pfn or end > start + (start & -start) or end > start + (1 << MAX_PAGE_ORDER):
        start = pfn
        t.runs[r] = pfn
    t.runs[r + 1] = end
    k = 0
    while (1 << k) < end - start:
        k += 1
    t.need[start] = k


@hot
def pop_block(t, cpu, pfn, order, mt, drained, early):
    """A block leaves a CPU's list and no event put it there: it was there at the start."""
    z = np.int64(t.zone[pfn >> PAGEBLOCK_ORDER])
    state = PCP
    if z < 0 or cpu >= t.scalar[S_CPUS] or mt >= MIGRATE_PCPTYPES:
        state = BUDDY
    elif not drained and not t.scalar[S_REFILLS]:
        left = t.budget[z * t.scalar[S_CPUS] + cpu] - (1 << order)
        if left < 0:
            state = BUDDY
        else:
            t.budget[z * t.scalar[S_CPUS] + cpu] = left
    fresh = name_frames(t, pfn, order, state, early)
    if state != PCP:
        return
    if fresh < 1 << order:
        t.scalar[S_SPLIT_PCP] += 1
        return
    n = t.scalar[S_POPPED]
    t.scalar[S_POPPED] = n + 1
    entry = t.popped[n]
    entry.pfn = pfn
    entry.order = order
    entry.mt = mt
    entry.cpu = cpu
    entry.drained = drained


@kernel
def scan(t, ts, cpus, kinds, pfns, orders, types, gfps, alloc_orders, fallback_orders, fallback_types, changed, i):
    """Work through a batch from event ``i`` on; the event at which a log was full, or the number of events."""
    n = ts.shape[0]
    frames = t.first.shape[0]
    keeps = t.scalar[S_KEEPS_TYPE] != 0
    while i < n:
        if t.scalar[S_POPPED] >= t.popped.shape[0] or t.scalar[S_TAKEN] >= t.taken.shape[0]:
            return i
        kind = np.int64(kinds[i])
        pfn = pfns[i]
        order = np.int64(orders[i])
        mt = np.int64(types[i])
        cpu = np.int64(cpus[i])
        if kind == K_EXTFRAG:
            order = np.int64(alloc_orders[i])
        elif kind not in (K_ALLOC, K_FREE, K_FREE_BATCHED, K_ZONE_LOCKED, K_DRAIN):
            i += 1
            continue
        if order > MAX_PAGE_ORDER or pfn < 0 or pfn + (1 << order) > frames:
            t.scalar[S_MALFORMED] += 1
            i += 1
            continue
        state = t.first[pfn] & STATE
        t.scalar[S_NOW] = ts[i]
        early = EARLY if ts[i] < t.read_ns[pfn >> PAGEBLOCK_ORDER] else 0
        if kind == K_FREE:
            name_frames(t, pfn, order, IN_USE, early)
            t.last[pfn] = (cpu + 1) << 4 | order
        elif kind == K_FREE_BATCHED:
            if state == NEVER:  # its free itself was lost
                t.first[pfn] = IN_USE | early
        elif kind == K_ALLOC:
            if mt == NOT_RECORDED:
                mt = (np.int64(gfps[i]) & 0x18) >> 3
            held = order < t.scalar[S_PCP_ORDERS] or (order == PAGEBLOCK_ORDER and t.scalar[S_THP_LISTS] > 0)
            if state == NEVER:
                if held:
                    pop_block(t, cpu, pfn, order, mt, 0, early)
                    note_type(t, pfn, order, mt, True)
                else:
                    t.scalar[S_UNEXPLAINED] += 1
                    name_frames(t, pfn, order, BUDDY, early)
            else:
                if t.last[pfn] == ((cpu + 1) << 4 | order) and held:
                    note_popped_type(t, pfn, order, mt)
                name_frames(t, pfn, order, BUDDY, early)
        elif kind == K_ZONE_LOCKED:
            if state == NEVER:
                n_taken = t.scalar[S_TAKEN]
                t.taken[n_taken] = pfn
                t.scalar[S_TAKEN] = n_taken + 1
                follow_run(t, pfn, order, mt)
            name_frames(t, pfn, order, BUDDY, early)
            note_type(t, pfn, order, mt, not keeps and mt < MIGRATE_PCPTYPES)
        elif kind == K_DRAIN:
            if state == NEVER:
                pop_block(t, cpu, pfn, order, mt if mt < MIGRATE_PCPTYPES else MIGRATE_MOVABLE, 1, early)
            else:
                name_frames(t, pfn, order, BUDDY, early)
            note_type(t, pfn, order, mt, not keeps and mt < MIGRATE_PCPTYPES)
        else:
            if state == NEVER:
                n_taken = t.scalar[S_TAKEN]
                t.taken[n_taken] = pfn
                t.scalar[S_TAKEN] = n_taken + 1
            name_frames(t, pfn, order, BUDDY, early)
            whole = MAX_PAGE_ORDER if fallback_orders[i] == MAX_PAGE_ORDER else PAGEBLOCK_ORDER
            base = pfn & ~((1 << whole) - 1)
            note_type(t, base, whole, np.int64(fallback_types[i]), not keeps)
            for block in range(base >> PAGEBLOCK_ORDER, (base + (1 << whole)) >> PAGEBLOCK_ORDER):
                if changed[i]:
                    t.closed[block] |= CLOSED
                elif not keeps:
                    t.closed[block] |= LISTS_MIXED
        i += 1
    return n
