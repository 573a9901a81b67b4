"""What is live over time, who held it at the peak, and who holds more and more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.analysis import FREES, PAGE_FILTERS, PAGES, Analysis, Answer, Option, Picture
from tracereplay.analysis.lifetimes import by
from tracereplay.analysis.together import MOMENTS
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

MOST_BINS = 100_000
MOST_STEPS = 300
"""Of a slope: its pairs grow with the square."""


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise UsageError(f"{name}={value} cannot be", hint=f"it is between {least:g} and {most:g}")


def _live(view: View, *, by: str, bins: int, series: int) -> Answer:
    from tracereplay.analysis.live_course import live_table

    _within("bins", bins, 1, MOST_BINS)
    _within("series", series, 1, MOST_BINS)
    return live_table(view, by, bins, series)


def _peak(view: View, *, by: str) -> Answer:
    from tracereplay.analysis.live_course import peak_table

    return peak_table(view, by)


def _leaks(view: View, *, by: str, bins: int, warmup: float, older_s: float) -> Answer:
    from tracereplay.analysis.leak_table import leak_table

    _within("bins", bins, 1, MOST_STEPS)
    _within("warmup", warmup, 0, 0.9)
    _within("older_s", older_s, 0, 1e9)
    return leak_table(view, by, bins, warmup, older_s)


LIVE = Analysis(
    name="live",
    title="pages that are live over time, with the high-water mark",
    group="lifetimes",
    compute=_live,
    needs=(PAGES, FREES),
    filters=PAGE_FILTERS,
    options=(
        by("none"),
        Option("bins", 100, "moments, evenly over the time"),
        Option("series", 9, "rows of so many groups, the others together"),
    ),
    picture=Picture("lines", "t_ns", "bytes", group="by", title="Live memory over time", unit="bytes"),
    together=MOMENTS,
)
PEAK = Analysis(
    name="peak",
    title="who held memory when most was live",
    group="lifetimes",
    compute=_peak,
    needs=(PAGES, FREES),
    filters=PAGE_FILTERS,
    options=(by("caller"),),
    ranked=True,
    picture=Picture("bars", "by", "bytes", title="Memory held at the peak", unit="bytes"),
    together="hosts have their peaks at different moments",
)
LEAKS = Analysis(
    name="leaks",
    title="leak suspects: whose live memory grows, by slope with its 95 % interval",
    group="lifetimes",
    compute=_leaks,
    needs=(PAGES, FREES),
    filters=PAGE_FILTERS,
    options=(
        by("caller"),
        Option("bins", 60, "moments at which live bytes are taken"),
        Option("warmup", 0.2, "share of the time that is left out at its beginning"),
        Option("older_s", 0.0, "what counts as old, in seconds; 0: a quarter of the time"),
    ),
    ranked=True,
    picture=Picture("bars", "by", "slope_low_bytes_per_s", title="Growth, lower end of its interval", unit="bytes"),
    together="a slope and its interval are those of one host",
)
ANALYSES = (LIVE, PEAK, LEAKS)
