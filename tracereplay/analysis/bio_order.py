"""In which order I/Os come: sequential or not, how far a seek goes, how long runs are, how I/Os bunch in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tracereplay.analysis.analysis import Analysis, Answer, Option, Picture
from tracereplay.analysis.bio_options import AT, BIOS, FILTERS, OP
from tracereplay.analysis.together import Together

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.view import View

_BY = Option(
    "by",
    "device",
    "one stream of I/Os is a device's, or those of one operation or task on it",
    ("device", "op", "comm", "thread"),
)
_SCALES_NS = tuple(10**k for k in range(5, 12))
"""Windows of burstiness: 100 us .. 100 s."""
_FEWEST_WINDOWS = 10


def sequential(view: View, *, at: str, op: str, by: str) -> Answer:
    """How sequential each stream is: ``device [op|comm|pid] ios bytes sequential_ios sequential_share
    sequential_byte_share runs run_ios_mean run_bytes_mean seek_bytes_mean``, most I/Os first.

    An I/O is sequential when it starts where the one before it in its stream ended; a run is an I/O that is not, with
    the sequential ones behind it. ``seek_bytes_mean``: mean absolute distance of those that are neither sequential nor
    the stream's first.
    """
    import polars as pl

    from tracereplay.analysis.bio_previous import BY, with_previous
    from tracereplay.analysis.bio_stage import SECTOR, stage_of, with_device

    stage = stage_of(view, at)
    keys = list(BY[by])
    gap = pl.col("sector") - pl.col("before_end")
    follows = (gap == 0).fill_null(False)
    sums = _added(
        (
            batch.group_by(keys).agg(
                pl.len().cast(pl.Int64).alias("ios"),
                pl.col("nr_sectors").sum().alias("sectors"),
                follows.sum().cast(pl.Int64).alias("sequential_ios"),
                pl.col("nr_sectors").filter(follows).sum().alias("sequential_sectors"),
                (gap != 0).sum().cast(pl.Int64).alias("seeks"),
                gap.abs().cast(pl.Float64).sum().alias("sought"),
            )
            for batch in with_previous(stage, by, op)
        ),
        keys,
    )
    runs = pl.col("ios") - pl.col("sequential_ios")
    frame = sums.sort("ios", *keys, descending=[True, *[False] * len(keys)], nulls_last=True).select(
        *keys,
        "ios",
        (pl.col("sectors") * SECTOR).alias("bytes"),
        "sequential_ios",
        (pl.col("sequential_ios") / pl.col("ios")).alias("sequential_share"),
        (pl.col("sequential_sectors") / pl.col("sectors")).alias("sequential_byte_share"),
        runs.alias("runs"),
        (pl.col("ios") / runs).alias("run_ios_mean"),
        (pl.col("sectors") * SECTOR / runs).alias("run_bytes_mean"),
        pl.when(pl.col("seeks") > 0).then(pl.col("sought") * SECTOR / pl.col("seeks")).alias("seek_bytes_mean"),
    )
    return Answer(with_device(frame, view), f"exact; {stage.said}", stage.account, stage.notes)


def seeks(view: View, *, at: str, op: str, by: str) -> Answer:
    """Distances between the end of an I/O and the start of the next: ``device [op|comm|pid] direction seek_bytes ios
    share``; ``seek_bytes`` is the least distance of its bin (a power of two), 0 with direction ``none`` is a sequential
    I/O, ``share`` is that of the stream's I/Os but its first.
    """
    import polars as pl

    from tracereplay.analysis.bio_previous import BY, with_previous
    from tracereplay.analysis.bio_stage import SECTOR, power_of_two, stage_of, with_device

    stage = stage_of(view, at)
    keys = [*BY[by], "direction", "seek_bytes"]
    gap = pl.col("sector") - pl.col("before_end")
    direction = (
        pl.when(gap > 0).then(pl.lit("forward")).when(gap < 0).then(pl.lit("backward")).otherwise(pl.lit("none"))
    )

    def binned() -> Iterator[pl.DataFrame]:
        for batch in with_previous(stage, by, op):
            known = batch.filter(pl.col("before_end").is_not_null())
            made = known.with_columns(direction.alias("direction"), (gap.abs() * SECTOR).alias("seek_bytes"))
            made = made.with_columns(power_of_two(made["seek_bytes"]))
            yield made.group_by(keys).agg(pl.len().cast(pl.Int64).alias("ios"))

    share = (pl.col("ios") / pl.col("ios").sum().over(BY[by])).alias("share")
    frame = _added(binned(), keys).sort(keys, nulls_last=True).with_columns(share)
    return Answer(with_device(frame, view), f"exact; {stage.said}", stage.account, stage.notes)


def run_lengths(view: View, *, at: str, op: str, by: str) -> Answer:
    """Runs of sequential I/Os by length: ``device [op|comm|pid] run_bytes runs ios bytes byte_share``; ``run_bytes`` is
    the least length of its bin (a power of two). A run that the view's end cuts counts as long as it got.
    """
    import polars as pl

    from tracereplay.analysis.bio_previous import BY, with_previous
    from tracereplay.analysis.bio_stage import SECTOR, power_of_two, stage_of, with_device

    stage = stage_of(view, at)
    keys = list(BY[by])
    starts = (pl.col("sector") != pl.col("before_end")).fill_null(True)

    def closed(runs: pl.DataFrame) -> pl.DataFrame:
        made = runs.with_columns((pl.col("sectors") * SECTOR).alias("bytes"))
        grouped = made.with_columns(power_of_two(made["bytes"]).alias("run_bytes")).group_by(*keys, "run_bytes")
        return grouped.agg(pl.len().cast(pl.Int64).alias("runs"), pl.col("ios", "bytes").sum())

    def binned() -> Iterator[pl.DataFrame]:
        cut: list[pl.DataFrame] = []
        for batch in with_previous(stage, by, op):
            pieces = (
                batch.with_columns(starts.cast(pl.Int64).cum_sum().over(keys).alias("run"))
                .group_by(*keys, "run")
                .agg(pl.len().cast(pl.Int64).alias("ios"), pl.col("nr_sectors").sum().alias("sectors"))
            )
            # run 0 goes on where the batch before was cut
            runs = pl.concat([*cut, pieces]).group_by(*keys, "run").agg(pl.col("ios", "sectors").sum())
            is_last = pl.col("run") == pl.col("run").max().over(keys)
            yield closed(runs.filter(~is_last))
            cut = [runs.filter(is_last).with_columns(pl.lit(0, pl.Int64).alias("run")).select(pieces.columns)]
        for rest in cut:
            yield closed(rest)

    share = (pl.col("bytes") / pl.col("bytes").sum().over(keys)).alias("byte_share")
    frame = _added(binned(), [*keys, "run_bytes"]).sort(*keys, "run_bytes", nulls_last=True).with_columns(share)
    return Answer(with_device(frame, view), f"exact; {stage.said}", stage.account, stage.notes)


def interarrival(view: View, *, at: str, op: str, by: str) -> Answer:
    """Times between successive I/Os of a stream: ``device [op|comm|pid] gap_ns ios share cumulative_share``.

    ``gap_ns`` is the least gap of its bin (a power of two).
    """
    import polars as pl

    from tracereplay.analysis.bio_previous import BY, with_previous
    from tracereplay.analysis.bio_stage import power_of_two, stage_of, with_device

    stage = stage_of(view, at)
    keys = [*BY[by], "gap_ns"]

    def binned() -> Iterator[pl.DataFrame]:
        for batch in with_previous(stage, by, op):
            known = batch.filter(pl.col("before_ns").is_not_null())
            gaps = known.with_columns((pl.col("ts_ns") - pl.col("before_ns")).alias("gap_ns"))
            gaps = gaps.with_columns(power_of_two(gaps["gap_ns"]))
            yield gaps.group_by(keys).agg(pl.len().cast(pl.Int64).alias("ios"))

    share = (pl.col("ios") / pl.col("ios").sum().over(BY[by])).alias("share")
    frame = (
        _added(binned(), keys)
        .sort(keys, nulls_last=True)
        .with_columns(share)
        .with_columns(pl.col("share").cum_sum().over(BY[by]).alias("cumulative_share"))
    )
    return Answer(with_device(frame, view), f"exact; {stage.said}", stage.account, stage.notes)


def burstiness(view: View, *, at: str, op: str) -> Answer:
    """How arrivals bunch, by length of window: ``device window_ns windows ios_mean ios_peak peak_to_mean dispersion``.

    ``dispersion`` is the index of dispersion for counts, variance over mean of the I/Os in a window: 1 for a Poisson
    stream, 0 for a metronome; one that grows with the window is bursty at all scales (Gusella, IEEE JSAC 9(2), 1991).
    Windows of 100 us to 100 s of which at least ten whole ones fit into the view; what remains of it is left out.
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import stage_of, with_device

    stage = stage_of(view, at)
    span = view.end_ns - view.start_ns
    finest = _SCALES_NS[0]
    widths = [w for w in _SCALES_NS if span // w >= _FEWEST_WINDOWS]
    cut = {w: pl.DataFrame(schema={"dev": pl.UInt32, "window": pl.Int64, "ios": pl.Int64}) for w in widths}

    def windows(width: int, counted: pl.DataFrame, upto: int) -> pl.DataFrame:
        """Sums over the windows before the one that holds ``upto``, which may go on in the next batch."""
        number = (pl.col("window") * finest // width).alias("window")
        joined = pl.concat([cut[width], counted.select("dev", number, "ios")])
        every = joined.group_by("dev", "window").agg(pl.col("ios").sum())
        cut[width] = every.filter(pl.col("window") >= upto // width)
        whole = every.filter(pl.col("window") < min(upto, span) // width)
        return whole.group_by("dev", pl.lit(width, pl.Int64).alias("window_ns")).agg(
            pl.col("ios").sum(), (pl.col("ios") ** 2).sum().alias("squares"), pl.col("ios").max().alias("peak")
        )

    def sums() -> Iterator[pl.DataFrame]:
        window = ((pl.col("ts_ns") - view.start_ns) // finest).alias("window")
        for batch in stage.batches(["ts_ns"], op, addressed=False):
            if len(batch):
                counted = batch.group_by("dev", window).agg(pl.len().cast(pl.Int64).alias("ios"))
                yield from (windows(w, counted, batch["ts_ns"][-1] - view.start_ns) for w in widths)
        yield from (windows(w, cut[w].clear(), span + w) for w in widths)

    found = pl.DataFrame(schema={"dev": pl.UInt32} | dict.fromkeys(("window_ns", "ios", "squares", "peak"), pl.Int64))
    for part in sums():
        grouped = pl.concat([found, part]).group_by("dev", "window_ns")
        found = grouped.agg(pl.col("ios", "squares").sum(), pl.col("peak").max())
    mean = pl.col("ios") / pl.col("windows")
    variance = pl.col("squares") / pl.col("windows") - mean**2
    frame = (
        found.with_columns((span // pl.col("window_ns")).alias("windows"))
        .sort("dev", "window_ns")
        .select(
            "dev",
            "window_ns",
            "windows",
            mean.alias("ios_mean"),
            pl.col("peak").alias("ios_peak"),
            (pl.col("peak") / mean).alias("peak_to_mean"),
            (variance / mean).alias("dispersion"),
        )
    )
    notes = stage.notes if widths else (f"the view is shorter than {_FEWEST_WINDOWS} windows of 100 us",)
    return Answer(with_device(frame, view), f"exact; {stage.said}", stage.account, notes)


def _added(parts: Iterator[pl.DataFrame], keys: list[str]) -> pl.DataFrame:
    """Sums of all other columns by ``keys``, keeping no more than the sum so far and one part. There is one part."""
    import polars as pl

    total = next(parts)
    for part in parts:
        total = pl.concat([total, part]).group_by(keys).agg(pl.exclude(keys).sum())
    return total


def _analysis(
    name: str, title: str, compute: Callable[..., Answer], options: tuple[Option, ...], **more: Any
) -> Analysis:
    return Analysis(name, title, "bios", compute, (BIOS,), FILTERS, (AT, OP, *options), **more)


_GROUP = "device"
_STREAM = ("device", "op", "comm", "pid")
"""Columns that may name a stream."""
_SHARE = Picture("bars", "device", "sequential_share", title="Share of sequential I/Os")
ANALYSES = (
    _analysis(
        "sequential",
        "share of sequential I/Os by device, operation or task",
        sequential,
        (_BY,),
        ranked=True,
        picture=_SHARE,
        together=Together(
            _STREAM,
            ("ios", "bytes", "sequential_ios", "runs"),
            ratios={
                "sequential_share": ("sequential_ios", "ios"),
                "run_ios_mean": ("ios", "runs"),
                "run_bytes_mean": ("bytes", "runs"),
            },
            rank="ios",
        ),
    ),
    _analysis(
        "seeks",
        "distances between the end of an I/O and the start of the next",
        seeks,
        (_BY,),
        picture=Picture("histogram", "seek_bytes", "ios", group="direction", title="Seek distances"),
        together=Together((*_STREAM, "direction", "seek_bytes"), ("ios",), {"share": "ios"}, within=_STREAM),
    ),
    _analysis(
        "run-lengths",
        "lengths of runs of sequential I/Os",
        run_lengths,
        (_BY,),
        picture=Picture("histogram", "run_bytes", "runs", group=_GROUP, title="Sequential runs"),
        together=Together((*_STREAM, "run_bytes"), ("runs", "ios", "bytes"), {"byte_share": "bytes"}, within=_STREAM),
    ),
    _analysis(
        "interarrival",
        "times between successive I/Os",
        interarrival,
        (_BY,),
        picture=Picture("histogram", "gap_ns", "ios", group=_GROUP, title="Times between I/Os"),
        together=Together((*_STREAM, "gap_ns"), ("ios",), {"share": "ios"}, within=_STREAM),
    ),
    _analysis(
        "burstiness",
        "index of dispersion and peak to mean of arrivals, by length of window",
        burstiness,
        (),
        picture=Picture("lines", "window_ns", "dispersion", group=_GROUP, title="Index of dispersion for counts"),
        together="a fleet's arrivals are not those of one queue",
    ),
)
