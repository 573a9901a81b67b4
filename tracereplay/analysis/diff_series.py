"""What two traces are compared by: figures of one trace, cut into slices of equal time.

A slice holds sums, so that a figure can be had of any choice of slices: a quotient of two sums, or a quantile of a
histogram. Everything comes from one streaming pass over each table; memory is that of slices times bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from tracereplay.analysis.analysis import Need
from tracereplay.analysis.derived import Note, derived
from tracereplay.trace.schema import EVENT_TABLES

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

Floats = npt.NDArray[np.float64]
SLICES = 64
OCTAVE = 64
"""Bins of an octave: a quantile is that of its bin's middle, right to 0.6 %."""
HISTOGRAM_BINS = 64 * OCTAVE


@dataclass(frozen=True)
class Series:
    """A figure by slice."""

    name: str
    unit: str
    group: str
    above: Floats
    """[slice]: the quotient's sums; or [slice, bin]: counts of a histogram."""
    below: Floats | None = None
    """[slice]; None: a quantile."""
    share: float = 0.5
    """Of a quantile."""

    def values(self, times: Floats) -> Floats:
        """The figure of each draw, ``times`` a slice is in it [draw, slice]; NaN where there is nothing."""
        drawn = times @ self.above
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.below is not None:
                quotient: Floats = drawn / (times @ self.below)
                return quotient
            counts = drawn.cumsum(axis=1)
            total = counts[:, -1]
            rank = np.ceil(self.share * total)[:, None]
            found = (counts < np.maximum(rank, 0.5)).sum(axis=1)
            values: Floats = np.where(total > 0, 2 ** ((found + 0.5) / OCTAVE), np.nan)
            return values

    def weights(self) -> tuple[Floats, Floats]:
        """By slice what is summed and how much of it there is, for what makes neighbours alike."""
        if self.below is not None:
            return self.above, self.below
        counts = self.above.sum(axis=1)
        return self.above @ (np.arange(self.above.shape[1]) / OCTAVE), counts


class Cut:
    """A trace cut into slices of equal time."""

    def __init__(self, trace: Trace, note: Note | None = None) -> None:
        self.trace = trace
        self._note = note
        ranges = [r for t in EVENT_TABLES if (r := trace.sort_range(t)) is not None]
        self.start = min((r[0] for r in ranges), default=0)
        self.length = max((r[1] for r in ranges), default=0) - self.start + 1
        self.seconds: Floats = np.full(SLICES, self.length / SLICES / 1e9)

    def records(self, table: str, *kinds: str) -> bool:
        """The trace recorded such events."""
        return Need(table, kinds, "").met_by(self.trace)

    def slice_of(self, column: str) -> pl.Expr:
        """Slice of a time; those outside belong to the first or the last."""
        place = (pl.col(column) - self.start).cast(pl.Float64) * (SLICES / self.length)
        return place.floor().clip(0, SLICES - 1).cast(pl.Int64).alias("slice")

    def ready(self, name: str) -> pl.LazyFrame:
        """A ready-made table, dictionaries as strings."""
        return derived(self.trace, name, note=self._note).with_columns(pl.col(pl.Categorical).cast(pl.String))

    def sums(self, frame: pl.LazyFrame, time: str, by: str, **columns: pl.Expr) -> dict[str, dict[str, Floats]]:
        """Sums by slice of each column, by the values of ``by``."""
        sliced = frame.with_columns(self.slice_of(time)).group_by("slice", by)
        found = sliced.agg(**{n: e.cast(pl.Float64) for n, e in columns.items()}).collect(engine="streaming")
        made: dict[str, dict[str, Floats]] = {}
        for (key,), rows in found.group_by(by):
            filled = made.setdefault(str(key), {n: np.zeros(SLICES) for n in columns})
            for name in columns:
                filled[name][rows["slice"].to_numpy()] = rows[name].fill_null(0).to_numpy()
        return made

    def histogram(self, frame: pl.LazyFrame, time: str, value: str) -> Floats:
        """Counts of a column's values by slice and bin; nulls are left out."""
        place = (pl.col(value).clip(1).cast(pl.Float64).log(2) * OCTAVE).floor().cast(pl.Int64).alias("bin")
        found = (
            frame.filter(pl.col(value).is_not_null())
            .select(self.slice_of(time), place)
            .group_by("slice", "bin")
            .len()
            .collect(engine="streaming")
        )
        counts = np.zeros((SLICES, HISTOGRAM_BINS))
        counts[found["slice"].to_numpy(), found["bin"].to_numpy()] = found["len"].to_numpy()
        return counts[:, : int(np.flatnonzero(counts.any(axis=0)).max(initial=0)) + 1]


def none() -> dict[str, Floats]:
    """Sums of a value that the trace does not have."""
    return {name: np.zeros(SLICES) for name in ("n", "pages", "bytes", "remote", "errors")}
