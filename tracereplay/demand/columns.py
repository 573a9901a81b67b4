"""Arrow columns as plain arrays for the compiled passes: no copy where there are no nulls."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.demand.state import Array

PAGE_COLUMNS = ["ts_ns", "cpu", "kind", "pfn", "order", "gfp", "pid"]


def plain(column: pa.Array) -> Array:
    """Values of an integer column; nulls are 0."""
    if column.null_count:
        column = pc.fill_null(column, 0)
    values: Array = column.to_numpy(zero_copy_only=False)
    return values


@dataclass(frozen=True, slots=True)
class PageBatch:
    """A batch of page events as flat columns."""

    ts: Array
    cpu: Array
    kind: Array
    pfn: Array
    order: Array
    gfp: Array
    pid: Array
    stack: Array
    """Stack ids; empty when they are not wanted. Null is NO_STACK."""

    def __len__(self) -> int:
        return len(self.ts)

    def __getitem__(self, rows: slice) -> PageBatch:
        """Some of the rows: views."""
        return PageBatch(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def page_batch(batch: pa.RecordBatch, *, stacks: bool) -> PageBatch:
    """Columns of a record batch with PAGE_COLUMNS and, if wanted, ``stack_id``."""
    from tracereplay.demand.state import NO_STACK

    ts, cpu, kind, pfn, order, gfp, pid = (batch.column(i) for i in range(7))
    stack: Any = np.zeros(0, np.uint32)
    if stacks:
        stack = pc.fill_null(batch.column(7), pa.scalar(NO_STACK, pa.uint32())).to_numpy(zero_copy_only=False)
    return PageBatch(
        ts=plain(ts),
        cpu=plain(cpu),
        kind=plain(kind.indices),
        pfn=plain(pfn).view(np.int64),
        order=plain(order),
        gfp=plain(gfp),
        pid=plain(pid),
        stack=stack,
    )
