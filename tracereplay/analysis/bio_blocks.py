"""Which blocks are used again: working sets, reuse distances, and the misses of an LRU cache of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracereplay.analysis.amounts import size_of, time_bin
from tracereplay.analysis.analysis import Analysis, Answer, Option, Picture
from tracereplay.analysis.bio_options import AT, BIN, BIOS, FILTERS, OP
from tracereplay.analysis.together import MOMENTS, Together
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.stack_distance import StackDistances
    from tracereplay.analysis.view import View

_BLOCK = Option("block", "4K", "size of a block; an I/O accesses each block that it touches")
_HOLD = Option(
    "hold", 1 << 22, "most distinct blocks held in memory at once (about 60 bytes each); beyond them: a sample"
)
_PER_OCTAVE = Option("per_octave", 1, "rows for each doubling: 1, 2, 4, 8 or 16")
_BY = Option("by", "device", "one cache for each device, or one for all", ("device", "all"))
_FEWEST = 1 << 10


def working_set(view: View, *, at: str, op: str, bin: str, block: str, hold: int) -> Answer:
    """Distinct blocks by window: ``device start_ns width_ns read_bytes written_bytes bytes new_bytes footprint_bytes
    footprint_read_bytes footprint_written_bytes``, as bytes of whole blocks.

    ``bytes``: touched in the window, read or written; ``new_bytes``: for the first time in the view; ``footprint``: all
    touched from the view's start to the window's end.
    """
    import numpy as np
    import polars as pl

    from tracereplay.analysis import working_set_pass as wp
    from tracereplay.analysis.bio_stage import stage_of, with_device
    from tracereplay.analysis.block_accesses import block_accesses
    from tracereplay.analysis.working_set import WorkingSet

    size = size_of("block", block)
    stage = stage_of(view, at)
    span = max(1, view.end_ns - view.start_ns)
    width = time_bin(bin, span, bins=20, series=len(stage.devices))
    windows = -(-span // width)
    devices = stage.devices
    found = WorkingSet(windows * len(devices), _enough(hold))
    seen = np.zeros(len(devices), np.bool_)
    for part in block_accesses(stage, op, size):
        window = (part.ts_ns - view.start_ns) // width
        found.feed(part.first, part.count, part.device * windows + window, window, part.write)
        seen[part.device] = True
    counts = found.counts().reshape(len(devices), windows, wp.COUNTS)[seen]
    totals = counts.cumsum(axis=1)
    columns = {
        "read_bytes": counts[..., wp.READ],
        "written_bytes": counts[..., wp.WRITTEN],
        "bytes": counts[..., wp.ANY],
        "new_bytes": counts[..., wp.NEW],
        "footprint_bytes": totals[..., wp.NEW],
        "footprint_read_bytes": totals[..., wp.NEW_READ],
        "footprint_written_bytes": totals[..., wp.NEW_WRITTEN],
    }
    starts = np.arange(windows, dtype=np.int64) * width + (view.start_ns - stage.first_ns())
    frame = pl.DataFrame(
        {
            "dev": pl.Series(np.repeat(np.array(devices)[seen], windows), dtype=pl.UInt32),
            "start_ns": np.tile(starts, int(seen.sum())),
            "width_ns": np.full(int(seen.sum()) * windows, width),
            **{name: np.rint(values.ravel()).astype(np.int64) * size for name, values in columns.items()},
        }
    )
    method = "exact" if found.rate == 1 else _sample(found.rate, found.counts()[:, wp.ANY].max())
    said = f"{method}; {stage.said}; blocks of {size:,} bytes, windows of {width:,} ns"
    return Answer(with_device(frame, view), said, stage.account, stage.notes)


def _sample(rate: float, largest: float) -> str:
    """How a count of blocks was sampled: its variance is that of a binomial one."""
    error = 1.96 * ((1 - rate) / max(1.0, largest * rate)) ** 0.5
    return (
        f"sampled, one block in {1 / rate:,.0f} by hash: 95 % interval of a window's n blocks"
        f" +-{1.96 * ((1 - rate) / rate) ** 0.5:.3g} * sqrt(n), {error:.1%} of the largest"
    )


def reuse_distance(view: View, *, at: str, op: str, by: str, block: str, hold: int, per_octave: int) -> Answer:
    """LRU stack distances: ``device distance_bytes accesses share cumulative_share``.

    An access's distance is what was touched of other blocks since its block's last access; ``distance_bytes`` is the
    least of its bin, null for first accesses.
    """
    import polars as pl

    from tracereplay.analysis.stack_distance import bin_edges, octave_edges

    size = size_of("block", block)
    stacks, method, account, notes = _stacks(view, at, op, by, size, hold)
    low = octave_edges(bin_edges(), _steps(per_octave)) * size
    frames = [_empty("distance_bytes", accesses=pl.Float64)]
    for name, stack in stacks.items():
        binned = pl.DataFrame({"distance_bytes": low, "accesses": stack.histogram()}).filter(pl.col("accesses") > 0)
        rows = binned.group_by("distance_bytes").agg(pl.col("accesses").sum()).sort("distance_bytes")
        cold = pl.DataFrame({"distance_bytes": [None], "accesses": [float(stack.distinct)]}, schema=rows.schema)
        frames.append(pl.concat([rows, cold]).select(pl.lit(name).alias("device"), pl.all()))
    share = pl.col("accesses") / pl.col("accesses").sum().over("device")
    frame = pl.concat(frames).with_columns(
        pl.col("accesses").round().cast(pl.Int64),
        share.alias("share"),
        share.cum_sum().over("device").alias("cumulative_share"),
    )
    return Answer(frame, method, account, notes)


def miss_ratio(view: View, *, at: str, op: str, by: str, block: str, hold: int, per_octave: int) -> Answer:
    """Miss ratio of an LRU cache by its size: ``device cache_bytes miss_ratio error95``, up to the size that holds
    everything, where only first accesses miss. Reads and writes both fill the cache. ``error95``: half the width of
    the 95 % interval, 0 when exact.
    """
    import polars as pl

    from tracereplay.analysis.stack_distance import miss_ratio_curve, octave_edges

    size = size_of("block", block)
    stacks, method, account, notes = _stacks(view, at, op, by, size, hold)
    steps = _steps(per_octave)
    frames = [_empty("cache_bytes", miss_ratio=pl.Float64, error95=pl.Float64)]
    for name, stack in stacks.items():
        curve = miss_ratio_curve(stack)
        kept = octave_edges(curve.blocks, steps) == curve.blocks
        kept[-1] = True  # the size that holds everything
        rows = {"cache_bytes": curve.blocks * size, "miss_ratio": curve.ratio, "error95": curve.error95}
        frames.append(pl.DataFrame(rows).filter(kept).select(pl.lit(name).alias("device"), pl.all()))
    return Answer(pl.concat(frames), method, account, notes)


def _empty(size: str, **columns: Any) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame(schema={"device": pl.String, size: pl.Int64, **columns})


def _stacks(
    view: View, at: str, op: str, by: str, size: int, hold: int
) -> tuple[dict[str, StackDistances], str, dict[str, int], tuple[str, ...]]:
    """LRU stacks by device, the method, the accounting, cautions."""
    from tracereplay.analysis.bio_stage import stage_of
    from tracereplay.analysis.block_accesses import block_accesses
    from tracereplay.analysis.stack_distance import Stacks

    stage = stage_of(view, at)
    found = Stacks(_enough(hold))
    for part in block_accesses(stage, op, size):
        found.feed(part.first, part.count, part.device if by == "device" else None)
    stacks = {
        view.device_name(stage.devices[number]) if by == "device" else "all": stack for number, stack in found.stacks()
    }
    account = {
        "block_accesses": sum(s.accesses for s in stacks.values()),
        "distinct_blocks": sum(s.distinct for s in stacks.values()),
        **stage.account,
    }
    least = min((s.rate for s in stacks.values()), default=1.0)
    if least == 1:
        how = "exact (Olken)"
    else:
        error = max(float(s.misses()[1].max()) / s.accesses for s in stacks.values())
        how = (
            f"sampled (SHARDS-adj), at least one block in {1 / least:,.0f} by hash; miss ratios and cumulative shares"
            f" +-{error:.3f} at most (95 %)"
        )
    return stacks, f"{how}; {stage.said}; blocks of {size:,} bytes", account, stage.notes if by == "all" else ()


def _enough(hold: int) -> int:
    if hold < _FEWEST:
        raise UsageError(f"hold={hold}: too few blocks", hint=f"at least {_FEWEST:,}")
    return hold


def _steps(per_octave: int) -> int:
    if per_octave not in (1, 2, 4, 8, 16):
        raise UsageError(f"per_octave={per_octave} is none of them", hint=_PER_OCTAVE.help)
    return per_octave


WORKING_SET = Analysis(
    "working-set",
    "distinct blocks read and written by window of time, and the footprint so far",
    "bios",
    working_set,
    (BIOS,),
    FILTERS,
    (AT, OP, BIN, _BLOCK, _HOLD),
    picture=Picture("lines", "start_ns", "bytes", group="device", title="Working set", unit="bytes"),
    together=MOMENTS,
)
REUSE_DISTANCE = Analysis(
    "reuse-distance",
    "LRU stack distances of block accesses",
    "bios",
    reuse_distance,
    (BIOS,),
    FILTERS,
    (AT, OP, _BY, _BLOCK, _HOLD, _PER_OCTAVE),
    picture=Picture("histogram", "distance_bytes", "accesses", group="device", title="Reuse distance"),
    together=Together(("device", "distance_bytes"), ("accesses",), {"share": "accesses"}, within=("device",)),
)
MISS_RATIO = Analysis(
    "miss-ratio",
    "miss ratio of an LRU cache by its size",
    "bios",
    miss_ratio,
    (BIOS,),
    FILTERS,
    (AT, OP, _BY, _BLOCK, _HOLD, _PER_OCTAVE),
    picture=Picture("lines", "cache_bytes", "miss_ratio", group="device", title="LRU miss ratio by cache size"),
    together="each host has its own cache",
)
ANALYSES = (WORKING_SET, REUSE_DISTANCE, MISS_RATIO)
