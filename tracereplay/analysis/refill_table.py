"""Refills summed up: a frame by CPU, list, process or size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracereplay.analysis.analysis import Answer
from tracereplay.analysis.page_frames import migratetype_name
from tracereplay.analysis.refills import COLUMNS, follow_refills

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

_KEYS = {"cpu": ["cpu"], "order": ["order", "migratetype"], "process": ["comm"], "size": ["blocks"]}
_EACH = ("refills", "pages", "fallbacks", "time_ns")


def refill_table(view: View, by: str) -> Answer:
    """``by``, what a row is, and ``refills blocks pages fallbacks blocks_mean blocks_p50 blocks_max time_ns``, by
    ``by``. Percentiles are nearest rank and exact. Raises TraceError.
    """
    kept = view.selection
    parts: list[pl.DataFrame] = []
    cut = 0
    for batch, so_far in follow_refills(view.trace, view.batches("page_events", COLUMNS)):
        cut = so_far
        rows = pl.DataFrame(pl.from_arrow(batch)).lazy()
        for column, values in (("cpu", kept.cpu), ("order", kept.order), ("pid", kept.pid)):
            if values:
                rows = rows.filter(pl.col(column).cast(pl.Int64).is_in(values))
        if by == "process" or kept.comm or kept.cgroup:
            rows = view.with_task(rows, ts="t0_ns")
            if kept.comm or kept.cgroup:
                index = view.task_index
                wanted = index.frame["row"].filter(pl.Series(index.matching(kept.comm, kept.cgroup)[:-1])).to_list()
                rows = rows.filter(index.of("t0_ns", "pid").is_in(wanted))
        keys = dict.fromkeys([*_KEYS[by], "blocks"])
        counted = rows.group_by(list(keys)).agg(
            pl.len().cast(pl.Int64).alias("refills"),
            pl.col("pages", "fallbacks").cast(pl.Int64).sum(),
            (pl.col("t1_ns") - pl.col("t0_ns")).sum().alias("time_ns"),
        )
        parts = [pl.concat([*parts, counted.collect()]).group_by(list(keys)).agg(pl.col(_EACH).sum())]
    method = "exact; percentiles: nearest rank"
    account = {"refills cut by lost events": cut} if cut else {}
    if not parts:
        return Answer(pl.DataFrame(schema=_SCHEMA), method, account)
    found = parts[0].with_columns(pl.col("blocks").cast(pl.Int64))
    if by == "order":
        found = found.sort(_KEYS[by]).with_columns(
            by=pl.format("order {} {}", "order", migratetype_name(view)), rank=pl.struct("order", "migratetype")
        )
    else:
        found = found.with_columns(by=pl.col(_KEYS[by]).cast(pl.String).fill_null("?"), rank=pl.struct(_KEYS[by]))
    n = pl.col("refills")
    size = pl.col("blocks").sort_by("blocks")
    half = size.filter(n.sort_by("blocks").cum_sum() >= (n.sum() + 1) // 2).first()
    frame = (
        found.group_by("by", "rank")
        .agg(
            n.sum(),
            (pl.col("blocks") * n).sum().alias("blocks"),
            pl.col("pages", "fallbacks").sum(),
            ((pl.col("blocks") * n).sum() / n.sum()).alias("blocks_mean"),
            half.alias("blocks_p50"),
            pl.col("blocks").max().alias("blocks_max"),
            pl.col("time_ns").sum(),
        )
        .sort("rank")
        .select(*_SCHEMA)
    )
    return Answer(frame, method, account)


_SCHEMA = {
    "by": pl.String, "refills": pl.Int64, "blocks": pl.Int64, "pages": pl.Int64, "fallbacks": pl.Int64,
    "blocks_mean": pl.Float64, "blocks_p50": pl.Int64, "blocks_max": pl.Int64, "time_ns": pl.Int64,
}  # fmt: skip
