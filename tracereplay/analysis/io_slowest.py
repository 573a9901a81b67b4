"""The slowest I/Os with their context: queue depth, what the device did before, memory stalls, the caller's stack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from tracereplay.analysis.analysis import Answer
from tracereplay.analysis.derived import derived_file
from tracereplay.analysis.io_rows import classes, device_column, io_rows, stage_of, with_task

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

TOP = 20
_FLIGHT = ("disk", "d_ns", "c_ns", "op", "sector", "nr_sectors", "id", "merged_into")
_NEVER = np.iinfo(np.int64).max


def slowest_table(view: View, stage: str, top: int | None) -> Answer:
    """The ``top`` I/Os that took longest, the longest first: ``at_ns device layer op flags sector bytes q2c_ns q2d_ns
    d2c_ns comm pid merges splits requeues error depth before_ns before_op before_bytes seek_bytes stalls stall_ns
    stack``.

    ``depth``: I/Os of the device in flight when it was issued, itself among them. ``before_*``: the request issued
    before it on this device, how much earlier, and how far from its end this one begins. ``stalls``, ``stall_ns``:
    compactions and direct reclaims that ran meanwhile, of any task, and for how long. Merged I/Os are told by the
    first of their request.
    """
    rows = io_rows(view)
    column = stage_of(rows, stage)
    alone = rows.filter(pl.col(column).is_not_null() & pl.col("merged_into").is_null())
    frame = with_task(view, alone.top_k(top or TOP, by=column)).collect(engine="streaming")
    frame = frame.sort(column, "id", descending=[True, False])
    frame = frame.with_columns(*_before(view, frame), *_stalls(view, frame))
    stacks = view.callers().select("stack_id", pl.col("stack").list.join(";"))
    frame = device_column(view, frame.join(stacks, on="stack_id", how="left", maintain_order="left"))
    frame = frame.select(
        *("at_ns", "device", "layer"),
        *(pl.col(n).cast(pl.String) for n in ("op", "flags")),
        *("sector", "bytes", "q2c_ns", "q2d_ns", "d2c_ns", "comm", pl.col("root_pid").alias("pid")),
        *("merges", "splits", "requeues", "error"),
        *("depth", "before_ns", "before_op", "before_bytes", "seek_bytes", "stalls", "stall_ns", "stack"),
    )
    return Answer(frame, f"by {column.removesuffix('_ns')}, exact", classes(rows))


def _batches(view: View) -> Iterator[dict[str, Any]]:
    """The whole table ``io``, in pieces: what is in flight does not depend on filters."""
    with pq.ParquetFile(derived_file(view.trace, "io")) as file:
        for batch in file.iter_batches(1 << 18, columns=list(_FLIGHT)):
            part = pl.from_arrow(batch)
            assert isinstance(part, pl.DataFrame)
            part = part.filter(pl.col("d_ns").is_not_null() & pl.col("merged_into").is_null())
            yield {name: part[name] for name in part.columns}


def _before(view: View, frame: pl.DataFrame) -> list[pl.Series]:
    """Requests in flight at the device at each row's issue, and the one issued last before it."""
    n = len(frame)
    disk, issued = frame["disk"].to_numpy(), frame["d_ns"].to_list()
    depth = np.zeros(n, np.int64)
    last: list[tuple[int, str | None, int, int | None] | None] = [None] * n
    for part in _batches(view) if n else ():
        device, d = part["disk"].to_numpy(), part["d_ns"].to_numpy()
        c = part["c_ns"].fill_null(_NEVER).to_numpy()
        ids = part["id"].to_numpy()
        for k, t in enumerate(issued):
            if t is None:
                continue
            same = device == disk[k]
            depth[k] += np.count_nonzero(same & (d <= t) & (c > t))
            earlier = np.flatnonzero(same & (d <= t) & (ids != frame["id"][k]))
            if len(earlier):
                at = int(earlier[np.argmax(d[earlier])])
                known = last[k]
                if known is None or d[at] > known[0]:
                    sector, size = part["sector"][at], part["nr_sectors"][at]
                    last[k] = int(d[at]), part["op"][at], size * 512, None if sector is None else sector + size
    seek = [
        None if p is None or p[3] is None or s is None else (s - p[3]) * 512
        for p, s in zip(last, frame["sector"].to_list(), strict=True)
    ]
    gaps = [None if p is None or t is None else t - p[0] for p, t in zip(last, issued, strict=True)]
    known_depth = [None if t is None else x for x, t in zip(depth.tolist(), issued, strict=True)]
    return [
        pl.Series("depth", known_depth, pl.Int64),
        pl.Series("before_ns", gaps, pl.Int64),
        pl.Series("before_op", [p and p[1] for p in last], pl.String),
        pl.Series("before_bytes", [p and p[2] for p in last], pl.Int64),
        pl.Series("seek_bytes", seek, pl.Int64),
    ]


def _stalls(view: View, frame: pl.DataFrame) -> list[pl.Series]:
    """Compactions and direct reclaims that overlap each row's time: how many, and the time that they share with it."""
    events = (
        view.trace.mm_events.select("ts_ns", "pid", pl.col("kind").cast(pl.String))
        .filter(pl.col("kind").str.contains("_begin|_end"))
        .collect(engine="streaming")
    )
    spans = []
    open_: dict[tuple[str, int], int] = {}
    for ts, pid, kind in events.iter_rows():
        what, _, edge = kind.rpartition("_")
        if edge == "begin":
            open_[what, pid] = ts
        elif (what, pid) in open_:
            spans.append((open_.pop((what, pid)), ts))
    start, end = np.array(spans, np.int64).reshape(-1, 2).T
    counts: list[int | None] = []
    times: list[int | None] = []
    recorded = view.trace.rows("mm_events") > 0
    for q, d, c in frame.select("q_ns", "d_ns", "c_ns").iter_rows():
        begun = q if q is not None else d
        if not recorded or begun is None or c is None:
            counts.append(None)
            times.append(None)
            continue
        shared = np.minimum(end, c) - np.maximum(start, begun)
        counts.append(int(np.count_nonzero(shared > 0)))
        times.append(int(shared[shared > 0].sum()))
    return [pl.Series("stalls", counts, pl.Int64), pl.Series("stall_ns", times, pl.Int64)]
