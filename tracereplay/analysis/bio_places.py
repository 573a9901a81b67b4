"""Where I/Os go and when: heat maps of addresses and of offsets within a second, and the regions used most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.amounts import duration_of, size_of, time_bin
from tracereplay.analysis.analysis import Analysis, Answer, Option, Picture
from tracereplay.analysis.bio_options import AT, BIN, BIOS, FILTERS, OP
from tracereplay.analysis.together import MOMENTS
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

_ROWS = Option("rows", 64, "most bins of addresses, or of offsets")
_PERIOD = Option("period", "1s", "length of a column; 1s makes it a subsecond-offset heat map")
_REGION = Option("region", "1M", "size of a region")
_BY = Option("by", "bytes", "what makes a region hot", ("bytes", "ios"))
MOST_REGIONS = 1 << 25
"""Distinct regions counted at once (about 100 bytes each)."""


def lba_heatmap(view: View, *, at: str, op: str, bin: str, rows: int) -> Answer:
    """I/Os by time and address: ``device start_ns lba_bytes ios bytes reads writes``; bins without an I/O are absent.

    ``start_ns``: since the trace's first event; ``lba_bytes``: least offset of the bin, which is ``region_bytes`` long,
    a power of two. An I/O counts where it starts.
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import READS, SECTOR, WRITES, stage_of, with_device

    _positive("rows", rows)
    stage = stage_of(view, at)
    width = time_bin(bin, max(1, view.end_ns - view.start_ns), bins=100)
    frame = stage.addressed(op)
    ends = frame.group_by("dev").agg(pl.col("sector").min().alias("low"), pl.col("sector").max().alias("high"))
    spans = ends.collect(engine="streaming")
    region = [_region(low, high, rows) for low, high in spans.select("low", "high").iter_rows()]
    sizes = spans.select("dev", pl.Series("size", region, pl.Int64))
    size, time = pl.col("size"), ((pl.col("ts_ns") - view.start_ns) // width).alias("bin")
    counted = (
        frame.join(sizes.lazy(), on="dev")
        .group_by("dev", "size", time, pl.col("sector") // size * size)
        .agg(
            pl.len().cast(pl.Int64).alias("ios"),
            pl.col("bytes").sum(),
            pl.col("op").is_in(READS).sum().cast(pl.Int64).alias("reads"),
            pl.col("op").is_in(WRITES).sum().cast(pl.Int64).alias("writes"),
        )
        .collect(engine="streaming")
        .sort("dev", "bin", "sector")
    )
    made = counted.select(
        "dev",
        (pl.col("bin") * width + (view.start_ns - stage.first_ns())).alias("start_ns"),
        (pl.col("sector") * SECTOR).alias("lba_bytes"),
        (size * SECTOR).alias("region_bytes"),
        *["ios", "bytes", "reads", "writes"],
    )
    method = f"exact, an I/O counts where it starts; {stage.said}; bins of {width:,} ns"
    return Answer(with_device(made, view), method, stage.account, stage.notes)


def _region(low: int, high: int, rows: int) -> int:
    """The least power of two of sectors of which ``rows``, aligned, hold both sectors."""
    size = 1
    while high // size - low // size >= rows:
        size *= 2
    return size


def subsecond(view: View, *, at: str, op: str, period: str, rows: int) -> Answer:
    """I/Os by second and offset within it (Gregg's subsecond-offset heat map): ``start_ns offset_ns ios bytes``, bins
    without an I/O absent. Both count from the trace's first event; stripes at one offset are timers.
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import stage_of

    _positive("rows", rows)
    stage = stage_of(view, at)
    column = duration_of("period", period)
    height = max(1, -(-column // rows))
    since = pl.col("ts_ns") - stage.first_ns()
    frame = (
        stage.rows(op)
        .group_by((since // column * column).alias("start_ns"), (since % column // height * height).alias("offset_ns"))
        .agg(pl.len().cast(pl.Int64).alias("ios"), pl.col("bytes").sum())
        .collect(engine="streaming")
        .sort("start_ns", "offset_ns")
    )
    method = f"exact; {stage.said}; columns of {column:,} ns, rows of {height:,} ns"
    return Answer(frame, method, stage.account, stage.notes)


def hot_regions(view: View, *, at: str, op: str, region: str, by: str) -> Answer:
    """Regions by what was read and written in them: ``device lba_bytes ios reads writes bytes share cumulative_share``,
    hottest first. An I/O that crosses regions counts in each, with its bytes there. ``share`` of all bytes (or I/Os),
    ``cumulative_share`` from the first row on.

    Raises UsageError when more regions than MOST_REGIONS may have to be counted.
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import MAX_SECTOR, MAX_SECTORS, READS, SECTOR, WRITES, stage_of, with_device

    stage = stage_of(view, at)
    size = size_of("region", region) // SECTOR
    frame = stage.addressed(op).with_columns(
        (pl.col("sector") // size).alias("first"),
        ((pl.col("sector") + pl.col("nr_sectors") - 1) // size).alias("last"),
    )
    bounds = view.trace.bounds("bio_events", "sector")
    per_io = min(stage.recorded.longest, MAX_SECTORS) // size + 2
    disk = min(bounds[1], MAX_SECTOR) // size + per_io if bounds else 0
    most = min(disk * len(stage.devices), view.trace.rows("bio_events") * per_io)
    if most > MOST_REGIONS or per_io > 64:  # the bound is too coarse: count
        pieces = (pl.col("last") - pl.col("first") + 1).sum()
        span = (pl.col("last").max() - pl.col("first").min() + 1).alias("span")
        found = frame.group_by("dev").agg(span, pieces.alias("pieces")).collect(engine="streaming")
        most = max(found.select(pl.min_horizontal("span", "pieces").sum()).item(), int(found["pieces"].sum()) >> 6)
    if most > MOST_REGIONS:
        raise UsageError(
            f"up to {most:,} regions of {region} may have to be counted, {MOST_REGIONS:,} are allowed",
            hint="choose larger regions (--set region=16M), one device or a stretch of time",
        )
    crossing = pl.col("last") > pl.col("first")
    index = pl.int_ranges("first", pl.col("last") + 1).alias("region")
    end = pl.col("sector") + pl.col("nr_sectors")
    inside = pl.min_horizontal(end, (pl.col("region") + 1) * size) - pl.max_horizontal(
        "sector", pl.col("region") * size
    )
    parts = pl.concat(
        [
            frame.filter(~crossing).select("dev", "op", pl.col("first").alias("region"), "bytes"),
            frame.filter(crossing)
            .with_columns(index)
            .explode("region")
            .select("dev", "op", "region", (inside * SECTOR).alias("bytes")),
        ]
    )
    counted = (
        parts.group_by("dev", "region")
        .agg(
            pl.len().cast(pl.Int64).alias("ios"),
            pl.col("op").is_in(READS).sum().cast(pl.Int64).alias("reads"),
            pl.col("op").is_in(WRITES).sum().cast(pl.Int64).alias("writes"),
            pl.col("bytes").sum(),
        )
        .collect(engine="streaming")
        .sort(by, "dev", "region", descending=[True, False, False])
        .with_columns((pl.col(by) / pl.col(by).sum()).alias("share"))
        .with_columns(pl.col("share").cum_sum().alias("cumulative_share"))
        .select(
            "dev",
            (pl.col("region") * size * SECTOR).alias("lba_bytes"),
            *["ios", "reads", "writes", "bytes", "share", "cumulative_share"],
        )
    )
    return Answer(
        with_device(counted, view),
        f"exact; {stage.said}; regions of {size * SECTOR:,} bytes, {len(counted):,} touched",
        stage.account,
        stage.notes,
    )


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name}={value}: at least 1 is needed")


LBA_HEATMAP = Analysis(
    "lba-heatmap",
    "heat map of I/Os by time and address",
    "bios",
    lba_heatmap,
    (BIOS,),
    FILTERS,
    (AT, OP, BIN, _ROWS),
    picture=Picture("heat", "start_ns", "lba_bytes", "bytes", "device", "Bytes by time and address", "bytes"),
    together=MOMENTS,
)
SUBSECOND = Analysis(
    "subsecond",
    "heat map of I/Os by second and offset within the second",
    "bios",
    subsecond,
    (BIOS,),
    FILTERS,
    (AT, OP, _PERIOD, _ROWS),
    picture=Picture("heat", "start_ns", "offset_ns", "ios", title="I/Os by second and offset within it"),
    together=MOMENTS,
)
HOT_REGIONS = Analysis(
    "hot-regions",
    "regions of a device by bytes or I/Os",
    "bios",
    hot_regions,
    (BIOS,),
    FILTERS,
    (AT, OP, _REGION, _BY),
    ranked=True,
    picture=Picture("bars", "lba_bytes", "bytes", title="Hottest regions", unit="bytes"),
    together="addresses are those of one host's disks",
)
ANALYSES = (LBA_HEATMAP, SUBSECOND, HOT_REGIONS)
