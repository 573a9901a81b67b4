"""Calls of the bulk page allocator -> rows of ``page_events``, and their place among the other rows.

A row says how many pages a call asked for and returned (entries that the caller's array held before taken off), with
the caller as a stack of one frame. A call that returned one page fetched it the ordinary way, which has an ``alloc``
row of its own: unseen are the pages of calls that returned more (collectors/bulkprobe.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tracereplay.trace.decode import Records, RingLayout
from tracereplay.trace.event_batches import StackIds, kind_codes, kind_column
from tracereplay.trace.schema import PAGE_KINDS

FLAG_NO_ENTRY = 0x02
"""The call's entry was not seen: what it asked for, and its mask, are not known."""


class BulkBatches:
    """Records of the ring ``bulk`` -> ``page_events``."""

    def __init__(
        self, layout: RingLayout, probes: Sequence[Mapping[str, Any]], caller_ids: StackIds | None = None
    ) -> None:
        """``caller_ids``: from addresses to ids of stacks of one frame (StackTable.ids_of_addresses)."""
        self._codes = kind_codes(probes, PAGE_KINDS)
        self._caller_ids = caller_ids

    def batch(self, records: Records) -> pa.RecordBatch:
        """A batch in time order. Which frames the pages are is not known; all are of order 0, and ``order`` is null
        since a row stands for many."""
        entered = (records.column("flags") & FLAG_NO_ENTRY) == 0
        codes = self._codes[records.column("kind")]
        columns = {
            "ts_ns": pa.array(records.ts),
            "cpu": pa.array(records.cpus()),
            "kind": kind_column(codes, PAGE_KINDS),
            "order": pa.nulls(len(records), pa.uint8()),
            "gfp": pa.array(records.column("gfp"), mask=~entered),
            "pid": pa.array(records.column("pid")),
            "requested": pa.array(records.column("requested"), mask=~entered),
            "returned": pa.array(records.column("returned")),
        }
        if self._caller_ids is not None:
            ids, known = self._caller_ids(records.column("caller"))
            columns["stack_id"] = pa.array(ids, mask=~known)
        return pa.RecordBatch.from_pydict(columns)


def merged(first: pa.RecordBatch, second: pa.RecordBatch) -> pa.RecordBatch:
    """Two batches of one table, each in time order, as one; at equal times ``first`` comes first.

    Columns that one of them lacks are null there. Meant for a few rows among many: the rows of ``first`` are
    copied in runs.
    """
    names = list(dict.fromkeys([*first.schema.names, *second.schema.names]))
    fields = [first.schema.field(n) if n in first.schema.names else second.schema.field(n) for n in names]
    schema = pa.schema([field.with_nullable(True) for field in fields])
    a, b = (_widened(batch, schema) for batch in (first, second))
    times = [np.asarray(batch.column("ts_ns")) for batch in (a, b)]
    places, starts = np.unique(np.searchsorted(times[0], times[1], side="right"), return_index=True)
    parts = []
    before = 0
    ends = [*starts.tolist(), b.num_rows][1:]
    for place, start, end in zip(places.tolist(), starts.tolist(), ends, strict=True):
        parts += [a.slice(before, place - before), b.slice(start, end - start)]
        before = place
    return pa.concat_batches([*parts, a.slice(before)])


def _widened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    present = set(batch.schema.names)
    columns = [
        batch.column(f.name) if f.name in present else pa.nulls(batch.num_rows, f.type)  # of the other's type
        for f in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
