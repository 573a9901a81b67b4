"""The demand stream as one row per request, with how long its pages were held (compiled).

Each key of the stream (stream.py) names its request while it is live: four bytes a key, touched only where the trace
goes. Open requests are records in a table that grows; a request leaves it when its last page came back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tracereplay.compiled import kernel
from tracereplay.demand.stream import ALLOC, FIRST, FREE
from tracereplay.kernel.constants import MAX_PAGE_ORDER

Array = np.ndarray[Any, np.dtype[Any]]

ROW = np.dtype(
    [
        ("id", np.int64),
        ("ts_ns", np.int64),
        ("released_ns", np.int64),  # when the last page so far came back
        ("page_ns", np.int64),  # sum over the pages that came back of how long each was held
        ("gfp", np.uint32),
        ("pages", np.int32),
        ("freed", np.int32),  # pages that came back
        ("extents", np.int32),
        ("caller", np.int32),
        ("cpu", np.int16),
        ("flags", np.uint16),
        ("order", np.uint8),  # of the largest extent
        ("migratetype", np.uint8),
        ("open", np.uint8),
        ("pad", np.uint8),
    ],
    align=True,
)

# scalars
S_NEXT = 0  # id of the next request
S_CURRENT = 1  # slot of the request whose extents come
S_SPARE = 2  # slots on the stack of free ones
S_DONE = 3  # finished rows
S_AT = 4  # next operation of the batch
SCALARS = 5

MORE, OPEN_FULL, DONE_FULL = 0, 1, 2
MARGIN = 1 << MAX_PAGE_ORDER
"""Most requests that one operation finishes: one a page."""


class Rows(NamedTuple):
    """State of the pass."""

    owner: Array
    """int32 by key: 1 + slot of the request that holds it, 0: none."""
    table: Array
    """Requests that hold pages, ROW."""
    spare: Array
    """Stack of free slots."""
    done: Array
    """Finished requests, ROW."""
    scalar: Array


@kernel
def follow(w: Rows, ops: Array) -> int:
    """Take a batch of operations, or as many as there is room for."""
    n = w.scalar[S_DONE]
    for i in range(w.scalar[S_AT], len(ops)):
        op = ops[i]
        if op.kind == ALLOC:
            if op.flags & FIRST:
                if w.scalar[S_SPARE] == 0:
                    w.scalar[S_AT] = i
                    w.scalar[S_DONE] = n
                    return OPEN_FULL
                w.scalar[S_SPARE] -= 1
                slot = w.spare[w.scalar[S_SPARE]]
                w.scalar[S_CURRENT] = slot
                row = w.table[slot]
                row.id = w.scalar[S_NEXT]
                w.scalar[S_NEXT] += 1
                row.ts_ns = op.ts_ns
                row.released_ns = op.ts_ns
                row.page_ns = 0
                row.gfp = op.gfp
                row.pages = op.pages
                row.freed = 0
                row.extents = 0
                row.caller = op.caller
                row.cpu = op.cpu
                row.flags = op.flags
                row.order = 0
                row.migratetype = op.migratetype
                row.open = 1
            slot = w.scalar[S_CURRENT]
            row = w.table[slot]
            row.extents += 1
            row.order = max(row.order, op.order)
            for p in range(op.pfn, op.pfn + (1 << op.order)):
                w.owner[p] = slot + 1
        elif op.kind == FREE:
            if n + MARGIN > len(w.done):
                w.scalar[S_AT] = i
                w.scalar[S_DONE] = n
                return DONE_FULL
            for p in range(op.pfn, op.pfn + (1 << op.order)):
                slot = w.owner[p] - 1
                if slot < 0:
                    continue
                w.owner[p] = 0
                row = w.table[slot]
                row.freed += 1
                row.page_ns += op.ts_ns - row.ts_ns
                row.released_ns = op.ts_ns
                if row.freed == row.pages:
                    w.done[n] = row
                    n += 1
                    row.open = 0
                    w.spare[w.scalar[S_SPARE]] = slot
                    w.scalar[S_SPARE] += 1
    w.scalar[S_AT] = 0
    w.scalar[S_DONE] = n
    return MORE
