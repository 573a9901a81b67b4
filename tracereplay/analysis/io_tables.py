"""What I/Os add up to: by device and layer, latencies, merges, what each layer of a stack adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracereplay.analysis.analysis import Answer
from tracereplay.analysis.io_rows import (
    STAGES,
    classes,
    device_column,
    io_rows,
    percentiles,
    stage_of,
    with_task,
)

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

UPPERMOST = "an I/O counts once, on the uppermost device of its stack"
EACH = "an I/O counts once on each layer: do not add devices of a stack up"
SHARES = {"p50_ns": 0.5, "p90_ns": 0.9, "p99_ns": 0.99, "p999_ns": 0.999, "max_ns": 1.0}


def io_summary(view: View, by: str) -> Answer:
    """``layer device [op] ios bytes iops bytes_per_s merged splits requeues errors unfinished`` and, for q2c, q2d and
    d2c, ``_mean_ns _p50_ns _p99_ns``."""
    rows = io_rows(view)
    keys = ["layer", "disk", *(["op"] if by == "op" else [])]
    rows = rows.with_columns(pl.col("op").cast(pl.String))
    frame = (
        rows.group_by(keys)
        .agg(
            pl.len().cast(pl.Int64).alias("ios"),
            pl.col("bytes").sum().cast(pl.Int64),
            pl.col("merged_into").count().cast(pl.Int64).alias("merged"),
            *(pl.col(n).sum().cast(pl.Int64) for n in ("splits", "requeues")),
            (pl.col("error") != 0).sum().cast(pl.Int64).alias("errors"),
            pl.col("c_ns").is_null().sum().cast(pl.Int64).alias("unfinished"),
            *(pl.col(f"{s}_ns").mean().round().cast(pl.Int64).alias(f"{s}_mean_ns") for s in STAGES),
        )
        .collect(engine="streaming")
    )
    method = ""
    for stage in STAGES:
        ranks, method = percentiles(rows, keys, f"{stage}_ns", {f"{stage}_p50_ns": 0.5, f"{stage}_p99_ns": 0.99})
        frame = frame.join(ranks, on=keys, how="left", nulls_equal=True)
    seconds = view.seconds or 1.0
    frame = device_column(view, frame).sort(*keys, nulls_last=True)
    frame = frame.select(
        "layer",
        "device",
        *keys[2:],
        "ios",
        "bytes",
        (pl.col("ios") / seconds).alias("iops"),
        (pl.col("bytes") / seconds).alias("bytes_per_s"),
        *("merged", "splits", "requeues", "errors", "unfinished"),
        *(f"{s}_{what}_ns" for s in STAGES for what in ("mean", "p50", "p99")),
    )
    return Answer(frame, f"counts and means exact; {method}", classes(rows), (EACH,) if _stacked(frame) else ())


def _stacked(frame: pl.DataFrame) -> bool:
    return bool(len(frame)) and bool((frame["layer"] > 0).any())


def grouped(view: View, rows: pl.LazyFrame, by: str) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """Rows with column ``by``, a text or a number, and what must be said of them."""
    if by == "device":
        return rows.with_columns(pl.col("disk").alias("by")), (EACH,)
    if by == "layer":
        return rows.with_columns(pl.col("layer").cast(pl.String).alias("by")), (EACH,)
    rows = rows.filter(pl.col("layer") == 0)
    if by in ("process", "cgroup"):
        return with_task(view, rows).with_columns(pl.col("comm" if by == "process" else by).alias("by")), (UPPERMOST,)
    if by == "size":
        return rows.with_columns(_power_of_two(pl.col("bytes").cast(pl.Int64)).alias("by")), (UPPERMOST,)
    name = pl.col("op").cast(pl.String) if by == "op" else pl.lit("all")
    return rows.with_columns(name.alias("by")), (UPPERMOST,)


def _power_of_two(value: pl.Expr) -> pl.Expr:
    """The greatest power of two that is not above a number; 0 for 0."""
    octave = (63 - value.bitwise_leading_zeros().cast(pl.Int64)).clip(lower_bound=0)
    return pl.when(value > 0).then(pl.lit(2, pl.Int64).pow(octave)).otherwise(0).cast(pl.Int64)


def latency_table(view: View, by: str, stage: str) -> Answer:
    """``by ios mean_ns p50_ns p90_ns p99_ns p999_ns max_ns``: times of one stage, most I/Os first."""
    whole = io_rows(view)
    column = stage_of(whole, stage)
    rows, notes = grouped(view, whole, by)
    rows = rows.filter(pl.col(column).is_not_null())
    ranks, method = percentiles(rows, ["by"], column, SHARES)
    means = rows.group_by("by").agg(
        pl.len().cast(pl.Int64).alias("ios"), pl.col(column).mean().round().cast(pl.Int64).alias("mean_ns")
    )
    frame = means.collect(engine="streaming").join(ranks, on="by", how="left", nulls_equal=True)
    frame = frame.sort("ios", "by", descending=[True, False], nulls_last=True)
    if by == "device":
        frame = device_column(view, frame, "by", "by")
    return Answer(
        frame.select("by", "ios", "mean_ns", *SHARES), f"{column.removesuffix('_ns')}; {method}", classes(whole), notes
    )


def latency_bins(view: View, by: str, stage: str) -> Answer:
    """``by low_ns high_ns ios share``: I/Os by powers of two of their time, ``share`` of its group."""
    whole = io_rows(view)
    column = stage_of(whole, stage)
    rows, notes = grouped(view, whole, by)
    frame = (
        rows.filter(pl.col(column).is_not_null())
        .group_by("by", _power_of_two(pl.col(column)).alias("low_ns"))
        .agg(pl.len().cast(pl.Int64).alias("ios"))
        .collect(engine="streaming")
        .sort("by", "low_ns", nulls_last=True)
    )
    if by == "device":
        frame = device_column(view, frame, "by", "by")
    frame = frame.select(
        "by",
        "low_ns",
        pl.max_horizontal(pl.col("low_ns") * 2, pl.lit(1)).alias("high_ns"),
        "ios",
        (pl.col("ios") / pl.col("ios").sum().over("by")).alias("share"),
    )
    return Answer(frame, f"{column.removesuffix('_ns')}; counts exact, in powers of two", classes(whole), notes)


def merge_table(view: View) -> Answer:
    """``layer device ios merged requests ios_per_request split splits requeues errors``: of I/Os that were queued,
    ``merged`` joined another's request, ``split`` were cut, into ``splits`` more parts; ``requests`` are what is left
    to be issued."""
    rows = io_rows(view)
    frame = (
        rows.filter(pl.col("q_ns").is_not_null())
        .group_by("layer", "disk")
        .agg(
            pl.len().cast(pl.Int64).alias("ios"),
            pl.col("merged_into").count().cast(pl.Int64).alias("merged"),
            (pl.col("splits") > 0).sum().cast(pl.Int64).alias("split"),
            *(pl.col(n).sum().cast(pl.Int64) for n in ("splits", "requeues")),
            (pl.col("error") != 0).sum().cast(pl.Int64).alias("errors"),
        )
        .collect(engine="streaming")
        .sort("layer", "disk")
    )
    requests = pl.col("ios") - pl.col("merged") + pl.col("splits")
    frame = device_column(view, frame).select(
        *("layer", "device", "ios", "merged"),
        requests.alias("requests"),
        (pl.col("ios") / requests).alias("ios_per_request"),
        *("split", "splits", "requeues", "errors"),
    )
    return Answer(frame, "exact: requests are I/Os less those merged, a split one counts by its parts", classes(rows))


def layer_table(view: View) -> Answer:
    """``layer device below ios q2c_mean_ns before_mean_ns below_mean_ns after_mean_ns own_share``.

    Of whole I/Os: ``before`` until they were handed to the layer below, or to the device; ``below`` there; ``after``
    from its completion to theirs. ``own_share`` is before and after, of q2c: what this layer adds.
    """
    from tracereplay.analysis.io import Devices

    rows = io_rows(view)
    whole = pl.col("q2c_ns").is_not_null()
    stacked = pl.col("below_c_ns").is_not_null() & pl.col("d_ns").is_not_null()
    device = pl.when(stacked).then(pl.col("below_c_ns") - pl.col("d_ns")).otherwise(pl.col("d2c_ns"))
    after = pl.when(stacked).then(pl.col("c_ns") - pl.col("below_c_ns")).otherwise(0)
    frame = (
        rows.filter(whole)
        .with_columns(device.alias("below_ns"), after.alias("after_ns"))
        .group_by("layer", "disk")
        .agg(
            pl.len().cast(pl.Int64).alias("ios"),
            *(
                pl.col(column).mean().round().cast(pl.Int64).alias(name)
                for column, name in (
                    ("q2c_ns", "q2c_mean_ns"),
                    ("q2d_ns", "before_mean_ns"),
                    ("below_ns", "below_mean_ns"),
                    ("after_ns", "after_mean_ns"),
                )
            ),
            (1 - pl.col("below_ns").sum() / pl.col("q2c_ns").filter(pl.col("below_ns").is_not_null()).sum()).alias(
                "own"
            ),
            pl.col("below_ns").is_not_null().any().alias("told"),
        )
        .collect(engine="streaming")
        .sort("layer", "disk")
    )
    beneath = Devices.of(view.trace).beneath()
    names = [", ".join(sorted(view.device_name(b) for b in beneath.get(d, ()))) or None for d in frame["disk"]]
    frame = device_column(view, frame).with_columns(pl.Series("below", names, pl.String))
    own = pl.when("told").then("own").alias("own_share")
    frame = frame.select(
        *("layer", "device", "below", "ios", "q2c_mean_ns", "before_mean_ns", "below_mean_ns", "after_mean_ns"), own
    )
    notes = () if _stacked(frame) else ("no stack of devices: no remap from one device to another was recorded",)
    return Answer(frame, "exact means over whole I/Os", classes(rows), notes)
