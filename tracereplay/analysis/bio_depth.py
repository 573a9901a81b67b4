"""How deep queues are, over time and in the distribution, and how latency goes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.amounts import AUTO, time_bin
from tracereplay.analysis.analysis import Analysis, Answer, Need, Option, Picture
from tracereplay.analysis.bio_options import BIN, BIOS
from tracereplay.analysis.together import MOMENTS, Together
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.view import View

_FROM = Option(
    "at",
    AUTO,
    "where an I/O's time in flight begins: issue (in the device) or queue (in the kernel too); auto: issue if recorded",
    (AUTO, "issue", "queue"),
)
_PER_OCTAVE = Option("per_octave", 1, "rows of the map for each doubling of latency: 1, 2, 4 or 8")
_DONE = Need("bio_events", ("complete", "bio_complete"), "capture --events bio")
_FILTERS = frozenset({"time", "device"})
_LATENCY_STEPS = 128
"""Bins of latency in a doubling: what is reported is the middle of one, at most 1 / 256 off."""
_DEPTH_STEPS = 4
_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


def queue_depth(view: View, *, at: str) -> Answer:
    """Time spent at each queue depth: ``device depth time_ns share cumulative_share mean_depth``.

    ``share`` is that of the view's length; ``mean_depth`` the device's, by time.
    """
    import numpy as np
    import polars as pl

    from tracereplay.analysis.bio_stage import with_device
    from tracereplay.analysis.in_flight import InFlight

    span = max(1, view.end_ns - view.start_ns)
    flight = InFlight(view, at)
    flight.drain()
    held = flight.held_ns()
    device, depth = np.nonzero(held)
    share = pl.col("time_ns") / span
    weighted = (pl.col("depth") * pl.col("time_ns")).sum().over("dev") / span
    frame = pl.DataFrame(
        {
            "dev": pl.Series([flight.devices.numbers[d] for d in device], dtype=pl.UInt32),
            "depth": depth.astype(np.int64),
            "time_ns": held[device, depth],
        }
    ).with_columns(
        share.alias("share"), share.cum_sum().over("dev").alias("cumulative_share"), weighted.alias("mean_depth")
    )
    return Answer(with_device(frame, view), f"exact; {flight.said}", flight.account, flight.notes)


def depth_over_time(view: View, *, at: str, bin: str) -> Answer:
    """Queue depth over time: ``device start_ns width_ns mean_depth peak_depth``.

    The mean is by time; ``start_ns`` counts from the trace's first event.
    """
    import numpy as np
    import polars as pl

    from tracereplay.analysis.bio_stage import with_device
    from tracereplay.analysis.in_flight import InFlight

    span = max(1, view.end_ns - view.start_ns)
    flight = InFlight(view, at, bin)
    width = flight.width_ns
    flight.drain()
    n = len(flight.devices.numbers)
    starts = np.arange(flight.bins, dtype=np.int64) * width
    lengths = np.minimum(width, span - starts)
    first = view.start_ns - (view.selection.time[0] or 0)
    frame = pl.DataFrame(
        {
            "dev": pl.Series(np.repeat(np.array(flight.devices.numbers, np.uint32), flight.bins), dtype=pl.UInt32),
            "start_ns": np.tile(starts + (view.start_ns - first), n),
            "width_ns": np.full(n * flight.bins, width),
            "mean_depth": (flight.area() / lengths).ravel(),
            "peak_depth": flight.peak().ravel(),
        }
    )
    method = f"exact; {flight.said}; bins of {width:,} ns"
    return Answer(with_device(frame, view), method, flight.account, flight.notes)


def latency_heatmap(view: View, *, at: str, bin: str, per_octave: int) -> Answer:
    """I/Os by time of completion and latency: ``device start_ns latency_ns ios``; bins without an I/O are absent.

    ``latency_ns`` is the least of its bin; ``start_ns`` counts from the trace's first event.
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import with_device
    from tracereplay.analysis.in_flight import InFlight
    from tracereplay.analysis.stack_distance import octave_edges

    if per_octave not in (1, 2, 4, 8):
        raise UsageError(f"per_octave={per_octave} is none of them", hint=_PER_OCTAVE.help)
    span = max(1, view.end_ns - view.start_ns)
    width = time_bin(bin, span, bins=100)
    flight = InFlight(view, at)
    keys = ["dev", "start_ns", "latency_ns"]
    end = pl.col("start_ns") + pl.col("latency_ns")
    offset = view.selection.time[0] or 0
    total = pl.DataFrame(schema={"dev": pl.UInt32, "start_ns": pl.Int64, "latency_ns": pl.Int64, "ios": pl.Int64})
    for part in flight.ended():
        low = pl.Series("latency_ns", octave_edges(part["latency_ns"].to_numpy(), per_octave))
        made = part.select("dev", ((end - view.start_ns) // width * width + offset).alias("start_ns"), low)
        total = _sum(total, made.group_by(keys).agg(pl.len().cast(pl.Int64).alias("ios")), keys)
    method = f"exact; {flight.said}; bins of {width:,} ns"
    return Answer(with_device(total.sort(keys), view), method, flight.account, flight.notes)


def concurrency(view: View, *, at: str) -> Answer:
    """Latency by queue depth at the start: ``device depth ios latency_mean_ns latency_p50_ns latency_p90_ns
    latency_p99_ns latency_max_ns``; ``depth``: I/Os of the device in flight already, least of its bin (exact below 8).
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import with_device
    from tracereplay.analysis.in_flight import InFlight
    from tracereplay.analysis.stack_distance import octave_edges

    flight = InFlight(view, at)
    flight.drain()  # first, so that I/Os without a recorded end do not count as depth
    keys = ["dev", "depth", "low"]
    schema = {"dev": pl.UInt32, "depth": pl.Int64, "low": pl.Int64, "ios": pl.Int64, "sum": pl.Int64, "max": pl.Int64}
    total = pl.DataFrame(schema=schema)
    for part in flight.ended():
        latency = part["latency_ns"]
        made = part.select(
            "dev",
            pl.Series("depth", octave_edges(part["depth"].to_numpy(), _DEPTH_STEPS)),
            pl.Series("low", octave_edges(latency.to_numpy(), _LATENCY_STEPS)),
            "latency_ns",
        )
        value = pl.col("latency_ns")
        counted = made.group_by(keys).agg(
            pl.len().cast(pl.Int64).alias("ios"), value.sum().alias("sum"), value.max().alias("max")
        )
        total = (
            pl.concat([total, counted.select(total.columns)])
            .group_by(keys)
            .agg(pl.col("ios").sum(), pl.col("sum").sum(), pl.col("max").max())
        )
    frame = (
        total.with_columns(_middle(total["low"]))
        .sort(keys)
        .with_columns(pl.col("ios").cum_sum().over("dev", "depth").alias("upto"))
        .group_by("dev", "depth", maintain_order=True)
        .agg(
            pl.col("ios").sum(),
            (pl.col("sum").sum() / pl.col("ios").sum()).alias("latency_mean_ns"),
            *(_rank(p).alias(f"latency_{name}_ns") for name, p in _PERCENTILES.items()),
            pl.col("max").max().alias("latency_max_ns"),
        )
    )
    method = f"percentiles: nearest rank in bins, relative error <= 0.4 %; {flight.said}"
    return Answer(with_device(frame, view), method, flight.account, flight.notes)


def _rank(percent: int) -> pl.Expr:
    """Middle of the bin that holds the nearest rank of a percentile."""
    import polars as pl

    needed = (pl.col("ios").sum() * percent + 99) // 100
    return pl.col("middle").filter(pl.col("upto") >= needed).first()


def _middle(low: pl.Series) -> pl.Series:
    """Middles of bins of latency, by their low edges."""
    from tracereplay.analysis.bio_stage import power_of_two

    return (low + power_of_two(low) // (2 * _LATENCY_STEPS)).alias("middle")


def _sum(total: pl.DataFrame, part: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    import polars as pl

    return pl.concat([total, part.select(total.columns)]).group_by(keys).agg(pl.col("ios").sum()).select(total.columns)


ANALYSES = (
    Analysis(
        "queue-depth",
        "time spent at each queue depth, by device",
        "bios",
        queue_depth,
        (BIOS, _DONE),
        _FILTERS,
        (_FROM,),
        picture=Picture("histogram", "depth", "share", group="device", title="Share of time by queue depth"),
        together=Together(("device", "depth"), ("time_ns",), {"share": "time_ns"}, within=("device",)),
    ),
    Analysis(
        "depth-over-time",
        "mean and peak queue depth over time, by device",
        "bios",
        depth_over_time,
        (BIOS, _DONE),
        _FILTERS,
        (_FROM, BIN),
        picture=Picture("lines", "start_ns", "mean_depth", group="device", title="Queue depth"),
        together=MOMENTS,
    ),
    Analysis(
        "latency-heatmap",
        "heat map of I/Os by time and latency",
        "bios",
        latency_heatmap,
        (BIOS, _DONE),
        _FILTERS,
        (_FROM, BIN, _PER_OCTAVE),
        picture=Picture("heat", "start_ns", "latency_ns", "ios", "device", "I/Os by time and latency"),
        together=MOMENTS,
    ),
    Analysis(
        "concurrency",
        "latency by queue depth when the I/O began",
        "bios",
        concurrency,
        (BIOS, _DONE),
        _FILTERS,
        (_FROM,),
        picture=Picture("lines", "depth", "latency_p50_ns", "", "device", "Median latency by queue depth", "ns"),
        together=Together(("device", "depth"), ("ios",), means={"latency_mean_ns": "ios"}, most=("latency_max_ns",)),
    ),
)
