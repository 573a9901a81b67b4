"""Refills of per-CPU lists: runs of blocks that left the buddy lists together, streamed.

``rmqueue_bulk`` (mm/page_alloc.c) takes a batch of blocks under the zone lock and emits mm_page_alloc_zone_locked for
each. Nothing else happens on that CPU meanwhile, so a refill is a run of such events of one order, type and task,
without another page event of the CPU in between but fallbacks (mm_page_alloc_extfrag), which belong to it.

- ``percpu_refill`` of an event is a statement on order and type only: a block that a busy list's lock sent to the buddy
  lists says it too, and is a run of one block here. Kernels before 6.1 do not record it; of those, order 0 counts.
- Since 6.10 a fallback that leaves the pageblock its type emits no zone_locked: the extfrag event is the block.
- Refills that follow each other within one call of the bulk allocator have no event between them and are one run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.analysis.refills_pass import NOT_SAID, RUN, Events, Runs, close_all, follow
from tracereplay.demand.columns import plain
from tracereplay.demand.opening import losses
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine.from_trace import generation_of
from tracereplay.trace.hosts import one_host

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

REFILLS = pa.schema(
    [
        pa.field("t0_ns", pa.int64(), nullable=False),  # first and last event of the run
        pa.field("t1_ns", pa.int64(), nullable=False),
        pa.field("cpu", pa.uint16(), nullable=False),
        pa.field("order", pa.uint8(), nullable=False),
        pa.field("migratetype", pa.uint8(), nullable=False),
        pa.field("blocks", pa.uint32(), nullable=False),
        pa.field("pages", pa.uint64(), nullable=False),  # blocks << order
        pa.field("fallbacks", pa.uint32(), nullable=False),  # extfrag events in the run
        pa.field("pid", pa.uint32(), nullable=False),  # task on whose behalf
    ]
)
REFILL_NOTES = {
    "t0_ns": "first block left the buddy lists",
    "t1_ns": "last block left them",
    "cpu": "CPU whose list was refilled",
    "order": "blocks of 2^order pages",
    "migratetype": "list that was refilled (by number)",
    "blocks": "blocks of the run",
    "pages": "blocks times 2^order",
    "fallbacks": "blocks of another type broken for it",
    "pid": "thread id of the task that waited",
}
"""Meaning and unit of each column."""
COLUMNS = (
    "ts_ns", "cpu", "kind", "order", "migratetype", "pid",
    "percpu_refill", "alloc_order", "fallback_order", "change_ownership",
)  # fmt: skip
_ROOM = 1 << 16


def refills(trace: Trace) -> Iterator[pa.RecordBatch]:
    """Refills of a trace as record batches of REFILLS, in the order in which they ended on their CPUs.

    Raises TraceError. Memory: a few batches of events.
    """
    for found, _ in follow_refills(trace, trace.batches("page_events", COLUMNS)):
        yield found


def follow_refills(trace: Trace, batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Refills in batches of ``trace``'s page events with COLUMNS, and how many runs were cut by lost events so far."""
    one_host(trace, "table refills")
    bounds = trace.bounds("page_events", "cpu")
    if bounds is None:
        return
    t0, t1, cpus = losses(trace)
    in_place = GENERATIONS[generation_of(trace)].fallback_keeps_type
    by_end = np.argsort(t1, kind="stable")
    w = Runs(
        open=np.zeros(bounds[1] + 1, RUN),
        found=np.zeros(_ROOM + bounds[1] + 1, RUN),
        loss0=t0[by_end],
        loss1=t1[by_end],
        loss_cpu=cpus[by_end].astype(np.int64),
        counts=np.array([0, 0, 0, in_place], np.int64),
    )
    for batch in batches:
        events = _events(batch)
        taken = 0
        while taken < batch.num_rows:
            taken = follow(w, events, taken)
            if w.counts[0] + len(w.open) >= len(w.found):
                yield _taken(w)
    close_all(w)
    if w.counts[0]:
        yield _taken(w)


def _events(batch: pa.RecordBatch) -> Events:
    said = pc.fill_null(batch.column(6).cast(pa.uint8()), pa.scalar(NOT_SAID, pa.uint8()))
    ts, cpu, kind, order, migratetype, pid = (batch.column(i) for i in range(6))
    moved = batch.column(9).cast(pa.uint8())
    columns = (ts, cpu, kind.indices, order, migratetype, pid, said, batch.column(7), batch.column(8), moved)
    return Events._make(plain(column) for column in columns)


def _taken(w: Runs) -> tuple[pa.RecordBatch, int]:
    rows = w.found[: w.counts[0]]
    made = {
        "t0_ns": rows["t0"],
        "t1_ns": rows["t1"],
        "cpu": rows["cpu"],
        "order": rows["order"],
        "migratetype": rows["migratetype"],
        "blocks": rows["blocks"].astype(np.uint32),
        "pages": rows["blocks"].astype(np.uint64) << rows["order"].astype(np.uint64),
        "fallbacks": rows["fallbacks"].astype(np.uint32),
        "pid": rows["pid"],
    }
    batch = pa.RecordBatch.from_arrays([pa.array(np.ascontiguousarray(made[n])) for n in REFILLS.names], schema=REFILLS)
    w.counts[0] = 0
    return batch, int(w.counts[2])
