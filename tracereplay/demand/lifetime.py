"""How long pages live: one row for each block that was released or is still live, streamed.

Columns: ``pfn order pages t_alloc_ns t_free_ns lifetime_ns alloc_cpu free_cpu pid gfp caller class``. Times
are those of the trace clock, in ns; what was not seen is null. A block that came back in pieces
gives a row per piece. ``class``:

- ``complete``: allocation and free were seen;
- ``left_censored``: live when the trace began; ``right_censored``: still live when it ended;
- ``broken``: one end was not seen although the trace was running (reuse without a free, or lost events);
- ``unseen``: the free proves an allocation without an event (bulk allocator); when it happened is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tracereplay.demand.reconstruct import Reconstruction, open_demand
from tracereplay.demand.state import BROKEN, CENSORING, COMPLETE, Array

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

_names = pa.dictionary(pa.int8(), pa.string())
LIFETIMES = pa.schema(
    [
        pa.field("pfn", pa.uint64(), nullable=False),
        pa.field("order", pa.uint8(), nullable=False),
        pa.field("pages", pa.uint32(), nullable=False),
        pa.field("t_alloc_ns", pa.int64()),
        pa.field("t_free_ns", pa.int64()),
        pa.field("lifetime_ns", pa.int64()),
        pa.field("alloc_cpu", pa.uint16()),
        pa.field("free_cpu", pa.uint16()),
        pa.field("pid", pa.uint32()),
        pa.field("gfp", pa.uint32()),
        pa.field("caller", pa.dictionary(pa.int32(), pa.string())),
        pa.field("class", _names, nullable=False),
    ]
)


def lifetimes(trace: Trace) -> Iterator[pa.RecordBatch]:
    """Lifetimes of a trace as record batches of LIFETIMES, those that ended first in order of their end.

    Raises EmptyTraceError, TraceError. Memory: 28 bytes a frame that the trace touches.
    """
    stream = open_demand(trace, target="none", lifetimes=True)
    for _ in stream:
        for rows in stream.take_lifetimes():
            yield _batch(rows, stream)
    for rows in stream.take_lifetimes():
        yield _batch(rows, stream)
    for rows in stream.live_blocks():
        yield _batch(rows, stream)


def _batch(rows: Array, stream: Reconstruction) -> pa.RecordBatch:
    reused = (rows["censoring"] == BROKEN) & (rows["t_alloc"] >= 0)
    seen = rows["t_alloc"] >= 0
    freed = (rows["t_free"] >= 0) & ~reused
    labels = pa.array(stream.callers.labels, pa.string())
    made = {
        "pfn": pa.array(rows["pfn"].astype(np.uint64)),
        "order": pa.array(rows["order"]),
        "pages": pa.array(np.uint32(1) << rows["order"].astype(np.uint32)),
        "t_alloc_ns": pa.array(rows["t_alloc"], mask=~seen),
        "t_free_ns": pa.array(rows["t_free"], mask=~freed),
        "lifetime_ns": pa.array(rows["t_free"] - rows["t_alloc"], mask=rows["censoring"] != COMPLETE),
        "alloc_cpu": pa.array(rows["cpu_alloc"].astype(np.uint16), mask=rows["cpu_alloc"] < 0),
        "free_cpu": pa.array(rows["cpu_free"].astype(np.uint16), mask=~freed),
        "pid": pa.array(rows["pid"], mask=~seen),
        "gfp": pa.array(rows["gfp"], mask=~seen),
        "caller": pa.DictionaryArray.from_arrays(pa.array(rows["caller"], pa.int32(), mask=~seen), labels),
        "class": pa.DictionaryArray.from_arrays(
            pa.array(rows["censoring"].astype(np.int8)), pa.array(CENSORING, pa.string())
        ),
    }
    return pa.RecordBatch.from_pydict(made, schema=LIFETIMES)
