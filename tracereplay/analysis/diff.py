"""Two traces side by side: the same figures of both, their ratio, and whether it is more than chance.

Figures are per second, per page or per I/O, so that traces of different length compare. Each trace is cut into SLICES
slices of equal time; the interval of a ratio is that of a circular block bootstrap over them (cost/bootstrap.py), drawn
for both traces independently: it says how much figures of *such* traces vary, not what else differed between the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tracereplay.analysis.diff_figures import CALLERS, GROUPS
from tracereplay.analysis.diff_series import SLICES, Cut, Floats, Series
from tracereplay.cost.bootstrap import MIN_BLOCKS, Resampling, Sample, resampling
from tracereplay.errors import EmptyTraceError, UsageError, nearest
from tracereplay.machine.counters import NR_COUNTERS
from tracereplay.trace.hosts import one_host

if TYPE_CHECKING:
    from tracereplay.analysis.derived import Note
    from tracereplay.trace.reader import Trace

DRAWS = 1000
UNDEFINED = 0.01
"""Share of draws that may have no figure at all (no I/O in it, say); with more there is no interval."""
SCHEMA = {
    "group": pl.String,
    "figure": pl.String,
    "unit": pl.String,
    "a": pl.Float64,
    "b": pl.Float64,
    "ratio": pl.Float64,
    "ratio_low": pl.Float64,
    "ratio_high": pl.Float64,
    "verdict": pl.String,
}
"""``ratio`` is b / a, with its 95 % interval; ``verdict`` is ``beyond`` where that does not hold 1, ``within`` where it
does, null where nothing can be said."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two traces compared."""

    frame: pl.DataFrame
    """Columns of SCHEMA, a row a figure."""
    notes: tuple[str, ...]
    """What could not be compared, and what to be careful with."""


def diff(a: Trace, b: Trace, *, only: Sequence[str] = (), seed: int = 0, note: Note | None = None) -> Difference:
    """Compare two traces. ``only``: names of groups of figures (GROUPS).

    Raises UsageError for a name that there is not, EmptyTraceError when there is nothing to compare, SeveralHostsError.
    """
    for name in only:
        if name not in GROUPS:
            guess = nearest(name, GROUPS)
            listing = f"groups: {', '.join(GROUPS)}"
            raise UsageError(
                f"no group of figures {name!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing
            )
    for trace in (a, b):
        one_host(trace, "a comparison")
    cuts = (Cut(a, note), Cut(b, note))
    rows: list[dict[str, Any]] = []
    notes = []
    for group, figures in GROUPS.items():
        if only and group not in only:
            continue
        ours, theirs = ({s.name: s for s in figures(cut)} for cut in cuts)
        if not ours or not theirs:
            if ours or theirs or only:
                lacking = " and ".join(n for n, found in (("A", ours), ("B", theirs)) if not found)
                notes.append(f"{group}: {lacking} did not record the events")
            continue
        if group == "callers":
            ours, theirs = _first(ours, theirs)
        else:
            alone = sorted(ours.keys() ^ theirs.keys())
            notes += [f"{name}: only {'A' if name in ours else 'B'} recorded it" for name in alone]
        rows += [_row(s, theirs[name], seed) for name, s in ours.items() if name in theirs]
    if not rows:
        raise EmptyTraceError(
            f"{a.location} and {b.location} have no events of the same kind",
            hint=notes[0] if notes else "tracereplay info says what each holds",
        )
    return Difference(pl.DataFrame(rows, schema=SCHEMA), (*notes, *_cautions(a, b, cuts, rows)))


def _first(ours: dict[str, Series], theirs: dict[str, Series]) -> tuple[dict[str, Series], dict[str, Series]]:
    """The callers with the most pages of either trace, in both; a caller that one does not have made none."""
    chosen: dict[str, Series] = {}
    for found in (ours, theirs):
        best = sorted(found.values(), key=lambda s: (-float(s.above.sum()), s.name))[:CALLERS]
        chosen |= {s.name: s for s in best}

    def all_of(found: dict[str, Series]) -> dict[str, Series]:
        below = next(iter(found.values())).below
        return {
            n: found.get(n) or Series(n, s.unit, s.group, np.zeros(SLICES), below) for n, s in chosen.items()
        }  # fmt: skip

    return all_of(ours), all_of(theirs)


def _row(a: Series, b: Series, seed: int) -> dict[str, Any]:
    whole = np.ones((1, SLICES))
    at, bt = float(a.values(whole)[0]), float(b.values(whole)[0])
    row: dict[str, Any] = {"group": a.group, "figure": a.name, "unit": a.unit}
    row |= {"a": None if np.isnan(at) else at, "b": None if np.isnan(bt) else bt}
    row |= dict.fromkeys(("ratio", "ratio_low", "ratio_high", "verdict"))
    if np.isnan(at) or np.isnan(bt):
        return row
    draws, others = _resampled(a, 2 * seed), _resampled(b, 2 * seed + 1)
    judged = draws.judged and others.judged and min(_told(a), _told(b)) >= MIN_BLOCKS
    if at > 0 and bt > 0:
        row["ratio"] = bt / at
        # of logarithms: a ratio and its inverse have the same interval
        apart = _deviations(b, bt, others) - _deviations(a, at, draws) if judged else np.full(1, np.nan)
        if np.isfinite(apart).mean() >= 1 - UNDEFINED:
            low, high = np.nanquantile(apart, (0.025, 0.975))
            row["ratio_low"], row["ratio_high"] = bt / at * np.exp(low), bt / at * np.exp(high)
            row["verdict"] = "within" if row["ratio_low"] <= 1 <= row["ratio_high"] else "beyond"
    elif judged:
        row["verdict"] = "within" if at == bt else _against_none(a if at > 0 else b, draws if at > 0 else others)
    return row


def _told(series: Series) -> int:
    """Slices that say something of the figure."""
    return int((series.weights()[1] > 0).sum())


def _resampled(series: Series, seed: int) -> Resampling:
    weights: Any = series.weights()
    nothing = np.zeros((SLICES, NR_COUNTERS), np.int64)
    # the bootstrap's own rule for the length of blocks: what makes neighbouring slices alike
    sample = Sample(
        requests=np.maximum(weights[1], 1e-9),
        pages=weights[0],
        counters=nothing,
        worker=nothing,
        end=nothing[0],
        vectors=None,
        cells=np.zeros((0, 3), np.int64),
    )
    return resampling(sample, seed, DRAWS)


def _deviations(series: Series, value: float, drawn: Resampling) -> Floats:
    """Of the logarithms of draws from that of the trace's own figure, made as large as those of its source."""
    values = series.values(drawn.times)
    told = np.isfinite(values) & (values > 0)
    apart: Floats = np.log(np.where(told, values, np.nan) / value) * drawn.stretch
    return apart


def _against_none(series: Series, drawn: Resampling) -> str:
    """Whether a figure differs from nothing at all: not when it comes from a few slices."""
    present = float((series.values(drawn.times) > 0).mean())
    return "beyond" if present >= 0.975 else "within"


def _cautions(a: Trace, b: Trace, cuts: tuple[Cut, Cut], rows: list[dict[str, Any]]) -> list[str]:
    said = []
    judged = [r for r in rows if r["verdict"] is not None]
    beyond = sum(r["verdict"] == "beyond" for r in judged)
    said.append(
        f"{beyond} of {len(judged)} figures differ beyond their 95 % interval; "
        f"by chance about {len(judged) / 20:.0f} would"
    )
    seconds = [cut.length / 1e9 for cut in cuts]
    if max(seconds) > 1.5 * min(seconds) and any(r["group"] == "lifetimes" for r in rows):
        said.append(
            f"A lasts {seconds[0]:.3g} s and B {seconds[1]:.3g} s: the longer one sees "
            "longer lifetimes; compare equal lengths"
        )
    kernels = [t.metadata.host.get("release") for t in (a, b)]
    if kernels[0] != kernels[1]:
        said.append(f"kernels: A {kernels[0]}, B {kernels[1]}")
    return said
