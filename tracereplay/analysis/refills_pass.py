"""Runs of blocks that leave the buddy lists, followed over page events (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, attr-defined"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.compiled import hot, kernel
from tracereplay.kernel.constants import MIGRATE_PCPTYPES, PAGEBLOCK_ORDER
from tracereplay.trace.schema import PAGE_KINDS

ZONE_LOCKED = PAGE_KINDS.index("zone_locked")
EXTFRAG = PAGE_KINDS.index("extfrag")
NOT_SAID = 2
"""``percpu_refill`` of an event that does not have it."""
HIGHEST_PCP_ORDER = 3
"""Blocks of higher orders are not put on per-CPU lists, but for transparent huge pages (include/linux/mmzone.h)."""

RUN = np.dtype(
    [
        ("t0", np.int64),
        ("t1", np.int64),
        ("blocks", np.int32),
        ("fallbacks", np.int32),
        ("pid", np.uint32),
        ("cpu", np.uint16),
        ("order", np.uint8),
        ("migratetype", np.uint8),
    ],
    align=True,
)
"""A refill; on a CPU it is open while ``blocks`` + ``fallbacks`` > 0."""


class Runs(NamedTuple):
    """State of the pass."""

    open: npt.NDArray[np.void]
    """RUN by CPU."""
    found: npt.NDArray[np.void]
    """RUNs that ended, in the order in which that was seen."""
    loss0: npt.NDArray[np.int64]
    loss1: npt.NDArray[np.int64]
    loss_cpu: npt.NDArray[np.int64]
    """Gaps by their end: last time before, first time after, CPU (-1: any)."""
    counts: npt.NDArray[np.int64]
    """[runs in ``found``, gaps passed, runs that a gap cut, in-place fallbacks count as blocks]"""


class Events(NamedTuple):
    """A batch of page events, nulls 0."""

    ts: npt.NDArray[np.int64]
    cpu: npt.NDArray[np.uint16]
    kind: npt.NDArray[np.int8]
    order: npt.NDArray[np.uint8]
    migratetype: npt.NDArray[np.uint8]
    pid: npt.NDArray[np.uint32]
    percpu_refill: npt.NDArray[np.uint8]
    """0, 1 or NOT_SAID."""
    alloc_order: npt.NDArray[np.uint8]
    fallback_order: npt.NDArray[np.uint8]
    change_ownership: npt.NDArray[np.uint8]


@hot
def _close(w, cpu):
    run = w.open[cpu]
    if run.blocks > 0:
        out = w.found[w.counts[0]]
        out.t0, out.t1, out.blocks, out.fallbacks = run.t0, run.t1, run.blocks, run.fallbacks
        out.pid, out.cpu, out.order, out.migratetype = run.pid, cpu, run.order, run.migratetype
        w.counts[0] += 1
    run.blocks = 0
    run.fallbacks = 0


@kernel
def close_all(w: Runs) -> None:
    """End every open run."""
    for cpu in range(len(w.open)):
        _close(w, cpu)


@kernel
def follow(w: Runs, events: Events, first: int) -> int:
    """Take events from ``first`` on, until ``found`` may be full. Returns the number of the next event."""
    for i in range(first, len(events.ts)):
        if w.counts[0] + len(w.open) >= len(w.found):
            return i
        ts, cpu, kind = events.ts[i], events.cpu[i], events.kind[i]
        while w.counts[1] < len(w.loss1) and ts >= w.loss1[w.counts[1]]:
            gap = w.counts[1]
            for c in range(len(w.open)):
                hit = w.loss_cpu[gap] < 0 or w.loss_cpu[gap] == c
                if w.open[c].blocks + w.open[c].fallbacks > 0 and hit and w.open[c].t1 <= w.loss0[gap]:
                    w.counts[2] += 1
                    _close(w, c)
            w.counts[1] += 1
        order, block, fallback = events.order[i], 0, 0
        if events.migratetype[i] < MIGRATE_PCPTYPES:
            if kind == ZONE_LOCKED:
                said = events.percpu_refill[i]
                block = 1 if said == 1 or (said == NOT_SAID and order == 0) else 0
            elif kind == EXTFRAG and events.alloc_order[i] <= HIGHEST_PCP_ORDER:
                order = events.alloc_order[i]
                moved = events.change_ownership[i] and events.fallback_order[i] < PAGEBLOCK_ORDER
                block = 1 if w.counts[3] and not moved else 0
                fallback = 1
        run = w.open[cpu]
        if run.blocks + run.fallbacks > 0 and (
            block + fallback == 0
            or run.order != order
            or run.migratetype != events.migratetype[i]
            or run.pid != events.pid[i]
        ):
            _close(w, cpu)
        if block + fallback == 0:
            continue
        if run.blocks + run.fallbacks == 0:
            run.t0 = ts
            run.order = order
            run.migratetype = events.migratetype[i]
            run.pid = events.pid[i]
        run.t1 = ts
        run.blocks += block
        run.fallbacks += fallback
    return len(events.ts)
