"""What callers wanted, one row per request of the demand stream: the ready-made table ``requests``.

A request is what one caller wanted at one time: pages in one or several blocks (demand/stream.py). Rows come in the
order in which requests ended, those that still hold pages last, by time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tracereplay.analysis.request_rows import (
    DONE_FULL,
    MARGIN,
    MORE,
    ROW,
    S_AT,
    S_DONE,
    S_SPARE,
    SCALARS,
    Array,
    Rows,
    follow,
)
from tracereplay.demand.reconstruct import open_demand
from tracereplay.demand.stream import BATCH, FROM_BIO, OF_BIO, REQUIRED, SYNTHETIC, TARGETED, UNSEEN

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

_text = pa.dictionary(pa.int32(), pa.string())
_name = pa.dictionary(pa.int8(), pa.string())
ORIGINS = ("traced", "bio", "unseen", "synthetic")
CONTIGUITY = ("none", "required")

REQUESTS = pa.schema(
    [
        pa.field("request_id", pa.int64(), nullable=False),
        pa.field("ts_ns", pa.int64(), nullable=False),
        pa.field("cpu", pa.uint16(), nullable=False),
        pa.field("caller", _text),
        pa.field("gfp", pa.uint32(), nullable=False),
        pa.field("migratetype", pa.uint8(), nullable=False),
        pa.field("pages", pa.uint32(), nullable=False),
        pa.field("extents", pa.uint32(), nullable=False),
        pa.field("order", pa.uint8(), nullable=False),
        pa.field("contiguity", _name, nullable=False),
        pa.field("origin", _name, nullable=False),
        pa.field("batch", pa.bool_(), nullable=False),
        pa.field("targeted", pa.bool_(), nullable=False),
        pa.field("of_bio", pa.bool_(), nullable=False),
        pa.field("pages_freed", pa.uint32(), nullable=False),
        pa.field("released_ns", pa.int64()),
        pa.field("hold_ns", pa.int64()),
        pa.field("page_ns", pa.int64()),
    ]
)

_OPEN = 1 << 16
_DONE = 1 << 18


def requests(trace: Trace) -> Iterator[pa.RecordBatch]:
    """Requests of a trace as record batches of REQUESTS; targets are those of ``--target batches``.

    Raises EmptyTraceError, TraceError. Memory: that of the demand, four bytes a frame that the trace touches, and 72
    bytes for each request that holds pages.
    """
    stream = open_demand(trace, target="batches")
    work = Rows(
        owner=np.zeros(stream.info.frames, np.int32),
        table=np.zeros(_OPEN, ROW),
        spare=np.arange(_OPEN, dtype=np.int32),
        done=np.zeros(_DONE + MARGIN, ROW),
        scalar=np.zeros(SCALARS, np.int64),
    )
    work.scalar[S_SPARE] = _OPEN
    for ops in stream:
        while (status := follow(work, ops)) != MORE:
            if status == DONE_FULL:
                yield _batch(_taken(work), stream.callers.labels)
            else:
                work = _grown(work)
        work.scalar[S_AT] = 0
    yield _batch(_taken(work), stream.callers.labels)
    live = work.table[work.table["open"] == 1]
    live = live[np.argsort(live["id"])]
    for start in range(0, len(live), _DONE):
        yield _batch(live[start : start + _DONE], stream.callers.labels)


def _taken(work: Rows) -> Array:
    rows = work.done[: int(work.scalar[S_DONE])].copy()
    work.scalar[S_DONE] = 0
    return rows


def _grown(work: Rows) -> Rows:
    """Twice the room for open requests; the new slots are free."""
    n = len(work.table)
    table = np.zeros(2 * n, ROW)
    table[:n] = work.table
    spare = np.zeros(2 * n, np.int32)
    spare[:n] = np.arange(n, 2 * n)
    work.scalar[S_SPARE] = n
    return work._replace(table=table, spare=spare)


def _batch(rows: Array, labels: list[str]) -> pa.RecordBatch:
    flags = rows["flags"]

    def has(flag: int) -> Array:
        found: Array = (flags & flag) != 0
        return found

    origin = np.select([has(SYNTHETIC), has(UNSEEN), has(FROM_BIO)], [3, 2, 1], 0).astype(np.int8)
    unseen = has(UNSEEN)  # when they were allocated nobody saw
    whole = (rows["freed"] == rows["pages"]) & ~unseen
    named = (rows["caller"] >= 0) & (rows["caller"] < len(labels))
    made = {
        "request_id": pa.array(rows["id"]),
        "ts_ns": pa.array(rows["ts_ns"]),
        "cpu": pa.array(rows["cpu"].astype(np.uint16)),
        "caller": pa.DictionaryArray.from_arrays(
            pa.array(rows["caller"], pa.int32(), mask=~named), pa.array(labels, pa.string())
        ),
        "gfp": pa.array(rows["gfp"]),
        "migratetype": pa.array(rows["migratetype"]),
        "pages": pa.array(rows["pages"].astype(np.uint32)),
        "extents": pa.array(rows["extents"].astype(np.uint32)),
        "order": pa.array(rows["order"]),
        "contiguity": pa.DictionaryArray.from_arrays(
            pa.array(has(REQUIRED).astype(np.int8)), pa.array(CONTIGUITY, pa.string())
        ),
        "origin": pa.DictionaryArray.from_arrays(pa.array(origin), pa.array(ORIGINS, pa.string())),
        "batch": pa.array(has(BATCH)),
        "targeted": pa.array(has(TARGETED)),
        "of_bio": pa.array(has(OF_BIO)),
        "pages_freed": pa.array(rows["freed"].astype(np.uint32)),
        "released_ns": pa.array(rows["released_ns"], mask=rows["freed"] != rows["pages"]),
        "hold_ns": pa.array(rows["released_ns"] - rows["ts_ns"], mask=~whole),
        "page_ns": pa.array(rows["page_ns"], mask=unseen),
    }
    return pa.RecordBatch.from_pydict(made, schema=REQUESTS)
