"""What passes by at one stage: operations and their flags, sizes, rates over time, who asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.amounts import time_bin
from tracereplay.analysis.analysis import Analysis, Answer, Option, Picture
from tracereplay.analysis.bio_options import AT, BIN, BIOS, FILTERS, OP, OP_ALL
from tracereplay.analysis.together import MOMENTS, Together

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.view import View

_BY = Option("by", "device", "what lines are for", ("device", "op", "all"))
_TASKS = Option("by", "comm", "what a row is", ("comm", "process", "thread", "cgroup"))
UNKNOWN = "(unknown)"
"""Who did an I/O of a task that the trace does not name."""
_SIZES = Option("sizes", "log2", "bins of sizes: powers of two, or every size by itself", ("log2", "exact"))


def ops(view: View, *, at: str) -> Answer:
    """Operations by device, with the flags of their rwbs string: ``device op ios bytes share`` and, of the I/Os,
    ``sync meta readahead fua preflush atomic`` (null where no flags were recorded).

    Flags as blk_fill_rwbs (kernel/trace/blktrace.c) writes them: F before the operation is a preflush, after it FUA.
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import stage_of, with_device

    stage = stage_of(view, at)
    found = (
        stage.rows()
        .group_by("dev", "op", "flags")
        .agg(pl.len().cast(pl.Int64).alias("ios"), pl.col("bytes").sum())
        .collect(engine="streaming")
    )
    op = pl.col("op").fill_null("")
    tail = (
        pl.col("flags")
        .str.strip_prefix(pl.when(_preflush()).then(pl.lit("F")).otherwise(pl.lit("")))
        .str.strip_prefix(op)
    )
    flags = {"sync": "S", "meta": "M", "readahead": "A", "fua": "F", "atomic": "U"}
    counted = [pl.when(tail.str.contains(letter)).then("ios").otherwise(0).alias(n) for n, letter in flags.items()]
    preflush = pl.when(_preflush()).then("ios").otherwise(0).alias("preflush")
    names = [*flags, "preflush"]
    told = pl.col("flags").is_not_null()
    by_op = (
        found.with_columns(*counted, preflush, told.alias("told"))
        .group_by("dev", "op")
        .agg(
            pl.col("ios", "bytes").sum(),
            *(pl.when(pl.col("told").any()).then(pl.col(n).sum()).alias(n) for n in names),
        )
        .with_columns((pl.col("ios") / pl.col("ios").sum()).alias("share"))
        .sort("ios", "dev", "op", descending=[True, False, False])
        .select("dev", "op", "ios", "share", "bytes", *names)
    )
    return Answer(with_device(by_op, view), f"exact; {stage.said}", stage.account, stage.notes)


def _preflush() -> pl.Expr:
    import polars as pl

    flags, op = pl.col("flags"), pl.col("op").fill_null("")
    return pl.when(op == "F").then(flags.str.starts_with("FF")).otherwise(flags.str.starts_with("F"))


def sizes(view: View, *, at: str, op: str, sizes: str) -> Answer:
    """Sizes of I/Os: ``device op size_bytes ios share bytes``; ``size_bytes`` is the least size of its bin. ``share``
    is that of the device's and operation's I/Os.
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import power_of_two, stage_of, with_device

    stage = stage_of(view, at)
    by_size = (
        stage.rows(op)
        .group_by("dev", "op", pl.col("bytes").alias("size_bytes"))
        .agg(pl.len().cast(pl.Int64).alias("ios"), pl.col("bytes").sum())
        .collect(engine="streaming")
    )
    if sizes == "log2":
        by_size = by_size.with_columns(power_of_two(by_size["size_bytes"]))
        by_size = by_size.group_by("dev", "op", "size_bytes").agg(pl.col("ios", "bytes").sum())
    share = (pl.col("ios") / pl.col("ios").sum().over("dev", "op")).alias("share")
    frame = by_size.sort("dev", "op", "size_bytes").select("dev", "op", "size_bytes", "ios", share, "bytes")
    return Answer(with_device(frame, view), f"exact; {stage.said}", stage.account, stage.notes)


def throughput(view: View, *, at: str, op: str, by: str, bin: str) -> Answer:
    """I/Os and bytes over time: ``of start_ns width_ns ios bytes iops bytes_per_s``, every bin from the first to the
    last of the view, empty ones too. ``of``: the device or the operation; ``start_ns``: since the trace's first event.
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import stage_of

    stage = stage_of(view, at)
    span = max(1, view.end_ns - view.start_ns)
    width = time_bin(bin, span, bins=100, series=len(stage.devices))
    keys = {"device": pl.col("dev"), "op": pl.col("op"), "all": pl.lit("all")}
    counted = (
        stage.rows(op)
        .group_by(keys[by].alias("of"), ((pl.col("ts_ns") - view.start_ns) // width).alias("bin"))
        .agg(pl.len().cast(pl.Int64).alias("ios"), pl.col("bytes").sum())
        .collect(engine="streaming")
    )
    bins = pl.DataFrame({"bin": range(-(-span // width))}, schema={"bin": pl.Int64})
    every = counted.select(pl.col("of").unique()).join(bins, how="cross")
    start = pl.col("bin") * width
    seconds = pl.min_horizontal(pl.lit(width), span - start) / 1e9  # the last bin may be cut
    frame = (
        every.join(counted, on=["of", "bin"], how="left", nulls_equal=True)
        .with_columns(pl.col("ios", "bytes").fill_null(0))
        .sort("of", "bin")
        .select(
            pl.col("of").map_elements(view.device_name, pl.String, skip_nulls=False) if by == "device" else "of",
            (start + (view.start_ns - stage.first_ns())).alias("start_ns"),
            pl.lit(width, pl.Int64).alias("width_ns"),
            "ios",
            "bytes",
            (pl.col("ios") / seconds).alias("iops"),
            (pl.col("bytes") / seconds).alias("bytes_per_s"),
        )
    )
    method = f"exact; {stage.said}; bins of {width:,} ns"
    return Answer(frame, method, stage.account, stage.notes if by != "device" else ())


def processes_io(view: View, *, at: str, op: str, by: str) -> Answer:
    """Who did the I/O: ``who ios reads writes bytes read_bytes write_bytes share``, most bytes first; ``share`` of all
    bytes. ``who`` is what ``by`` says, processes and threads with their number.
    """
    import polars as pl

    from tracereplay.analysis.bio_stage import READS, WRITES, stage_of

    stage = stage_of(view, at)
    who = {
        "comm": pl.col("comm"),
        "process": pl.format("{} {}", "tgid", "comm"),
        "thread": pl.format("{} {}", "pid", pl.col("comm").fill_null("?")),
        "cgroup": pl.col("cgroup"),
    }[by]
    read, write = pl.col("op").is_in(READS), pl.col("op").is_in(WRITES)
    frame = (
        view.with_task(stage.rows(op))
        .group_by(who.fill_null(UNKNOWN).alias("who"))
        .agg(
            pl.len().cast(pl.Int64).alias("ios"),
            read.sum().cast(pl.Int64).alias("reads"),
            write.sum().cast(pl.Int64).alias("writes"),
            pl.col("bytes").sum(),
            pl.col("bytes").filter(read).sum().alias("read_bytes"),
            pl.col("bytes").filter(write).sum().alias("write_bytes"),
        )
        .collect(engine="streaming")
        .with_columns((pl.col("bytes") / pl.col("bytes").sum()).alias("share"))
        .sort("bytes", "ios", "who", descending=[True, True, False], nulls_last=True)
    )
    cautions = () if stage.name == "queue" else (f"at {stage.name} the task is often a kernel worker or an interrupt",)
    return Answer(frame, f"exact; {stage.said}", stage.account, (*cautions, *stage.notes))


OPS_TABLE = Analysis(
    "ops",
    "operations by device, with sync, metadata, readahead, FUA and preflush shares",
    "bios",
    ops,
    (BIOS,),
    FILTERS,
    (AT,),
    ranked=True,
    picture=Picture("bars", "op", "ios", title="I/Os by operation"),
    together=Together(
        ("device", "op"),
        ("ios", "bytes", "sync", "meta", "readahead", "fua", "atomic", "preflush"),
        {"share": "ios"},
        rank="ios",
    ),
)
SIZES = Analysis(
    "sizes",
    "histogram of I/O sizes by device and operation",
    "bios",
    sizes,
    (BIOS,),
    FILTERS,
    (AT, OP_ALL, _SIZES),
    picture=Picture("histogram", "size_bytes", "ios", group="op", title="I/O sizes"),
    together=Together(("device", "op", "size_bytes"), ("ios", "bytes"), {"share": "ios"}, within=("device", "op")),
)
THROUGHPUT = Analysis(
    "throughput",
    "I/Os and bytes per second over time, by device or operation",
    "bios",
    throughput,
    (BIOS,),
    FILTERS,
    (AT, OP, _BY, BIN),
    picture=Picture("lines", "start_ns", "bytes_per_s", group="of", title="Throughput, bytes per second", unit="bytes"),
    together=MOMENTS,
)
PROCESSES_IO = Analysis(
    "processes-io",
    "I/Os and bytes by task name, process, thread or cgroup",
    "bios",
    processes_io,
    (BIOS,),
    FILTERS,
    (AT, OP, _TASKS),
    ranked=True,
    picture=Picture("bars", "who", "bytes", title="Bytes by task", unit="bytes"),
    together=Together(
        ("who",),
        ("ios", "reads", "writes", "bytes", "read_bytes", "write_bytes"),
        {"share": "bytes"},
        rank="bytes",
    ),
)
ANALYSES = (OPS_TABLE, SIZES, THROUGHPUT, PROCESSES_IO)
