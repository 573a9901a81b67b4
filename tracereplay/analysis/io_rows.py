"""I/Os of a view: rows of the ready-made table ``io`` that its filters keep, and percentiles over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tracereplay.analysis.derived import derived
from tracereplay.analysis.io_state import ENDINGS
from tracereplay.errors import EmptyTraceError

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

EXACT = 1 << 22
"""Up to so many I/Os percentiles are exact."""
SUB_BITS = 7
"""Else each octave of times has 2^7 bins, and the middle of a bin is told."""
EXACT_METHOD = "percentiles: nearest rank, exact"
BINNED_METHOD = "percentiles: nearest rank over log-linear bins, 128 an octave, relative error <= 0.4 %"
STAGES = ("q2c", "q2d", "d2c")
FIRST_SEEN = pl.coalesce("q_ns", "d_ns", "c_ns")


def io_rows(view: View) -> pl.LazyFrame:
    """Rows of ``io``, and ``at_ns``: since the trace's first event.

    Time is when an I/O was queued (or first seen), the task is the one that queued the uppermost I/O, the CPU that of
    the queue event; a device is the one that the bio names, or the whole one.
    """
    chosen = view.selection
    first = view.start_ns - (chosen.time[0] or 0)
    rows = derived(view.trace, "io").with_columns((FIRST_SEEN - first).alias("at_ns"))
    if chosen.time[0] is not None:
        rows = rows.filter(pl.col("at_ns") >= chosen.time[0])
    if chosen.time[1] is not None:
        rows = rows.filter(pl.col("at_ns") < chosen.time[1])
    if chosen.pid:
        rows = rows.filter(pl.col("root_pid").is_in(list(chosen.pid)))
    if chosen.cpu:
        rows = rows.filter(pl.col("cpu").is_in(list(chosen.cpu)))
    if chosen.device:
        devices = list(chosen.device)
        rows = rows.filter(pl.col("dev").is_in(devices) | pl.col("disk").is_in(devices))
    if chosen.comm or chosen.cgroup:
        kept = np.flatnonzero(view.task_index.matching(chosen.comm, chosen.cgroup)[:-1]).tolist()
        task = view.task_index.of("seen", "root_pid").cast(pl.Int64)
        rows = rows.with_columns(FIRST_SEEN.alias("seen")).filter(task.is_in(kept)).drop("seen")
    return rows


def with_task(view: View, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows with ``tgid comm cgroup`` of the task that queued the uppermost I/O."""
    return view.with_task(rows.with_columns(FIRST_SEEN.alias("seen")), ts="seen", pid="root_pid").drop("seen")


def classes(rows: pl.LazyFrame) -> dict[str, int]:
    """I/Os by class, for an answer's account."""
    found = rows.group_by(pl.col("class").cast(pl.String)).agg(pl.len()).collect(engine="streaming")
    counted = dict(found.iter_rows())
    return {name: counted[name] for name in ENDINGS if counted.get(name)}


def device_column(view: View, frame: pl.DataFrame, column: str = "disk", name: str = "device") -> pl.DataFrame:
    """A frame with a device's number told as ``major:minor``."""
    names = {d: view.device_name(d) for d in frame[column].unique().to_list()}
    told = frame[column].replace_strict(names, return_dtype=pl.String) if names else frame[column].cast(pl.String)
    return frame.with_columns(told.alias(name))


def stage_of(rows: pl.LazyFrame, stage: str) -> str:
    """The column of a stage: ``auto`` is q2c, or d2c where no bio's queueing was recorded. Raises EmptyTraceError."""
    known = (
        rows.select(pl.col(f"{s}_ns").count().alias(s) for s in STAGES).collect(engine="streaming").row(0, named=True)
    )
    wanted = [stage] if stage != "auto" else ["q2c", "d2c"]
    for name in wanted:
        if known[name]:
            return f"{name}_ns"
    others = [s for s in STAGES if known[s]]
    raise EmptyTraceError(
        f"no I/O of this selection has {' or '.join(wanted)}: its events were not recorded",
        hint=f"the trace has {', '.join(others)}: --set stage={others[0]}" if others else "capture --events bio",
    )


def percentiles(
    rows: pl.LazyFrame, keys: Sequence[str], value: str, shares: Mapping[str, float]
) -> tuple[pl.DataFrame, str]:
    """Nearest ranks of ``value`` by ``keys``, a column for each share; and the method. Null values do not count."""
    rows = rows.filter(pl.col(value).is_not_null())
    n = rows.select(pl.len()).collect(engine="streaming").item()
    known = pl.col(value) if n <= EXACT else _middle(pl.col(value))
    counted = (
        rows.group_by(*keys, known.alias("value"))
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .collect(engine="streaming")
        .sort(*keys, "value")
    )
    passed = pl.col("n").cum_sum()
    needed = {name: (pl.col("n").sum() * share - 1e-9).ceil().clip(lower_bound=1) for name, share in shares.items()}
    found = counted.group_by(*keys, maintain_order=True).agg(
        pl.col("value").filter(passed >= rank).first().alias(name) for name, rank in needed.items()
    )
    return found, EXACT_METHOD if n <= EXACT else BINNED_METHOD


def _middle(value: pl.Expr) -> pl.Expr:
    """The middle of a time's bin."""
    octave = 63 - value.cast(pl.Int64).bitwise_leading_zeros().cast(pl.Int64)
    step = pl.lit(2, pl.Int64).pow((octave - SUB_BITS).clip(lower_bound=0)).cast(pl.Int64)
    return value // step * step + step // 2
