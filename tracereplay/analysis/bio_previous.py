"""Each I/O beside the one before it of the same device, task or operation, streamed in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from tracereplay.analysis.bio_stage import Stage

BY: dict[str, tuple[str, ...]] = {
    "device": ("dev",),
    "op": ("dev", "op"),
    "comm": ("dev", "comm"),
    "thread": ("dev", "pid"),
}
"""Values of option ``by``: what one stream of I/Os is."""
_KEPT = ("ts_ns", "sector", "nr_sectors")


def with_previous(stage: Stage, by: str, op: str) -> Iterator[pl.DataFrame]:
    """Batches with the columns of ``BY[by]``, ``ts_ns sector nr_sectors`` (int64) and ``before_ns before_end``.

    These are time and end (sector) of the stream's I/O before, null for its first. At least one batch, which may be
    empty. Memory: a row a stream besides the batch.
    """
    keys = list(BY[by])
    columns = ["ts_ns", "pid"] if by in ("comm", "thread") else ["ts_ns"]
    last: pl.DataFrame | None = None
    for batch in stage.batches(columns, op):
        frame = stage.view.with_task(batch.lazy()).collect() if by == "comm" else batch
        rows = frame.select(*(pl.col(k).cast(pl.String) if k == "op" else pl.col(k) for k in keys), *map(_int, _KEPT))
        joined = rows if last is None else pl.concat([last, rows])
        after = joined.with_columns(
            pl.col("ts_ns").shift(1).over(keys).alias("before_ns"),
            (pl.col("sector") + pl.col("nr_sectors")).shift(1).over(keys).alias("before_end"),
        )
        yield after.slice(len(joined) - len(rows))
        last = joined.group_by(keys).last().select(joined.columns)


def _int(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Int64)
