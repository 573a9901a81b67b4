"""The picture of an analysis: its data frame as an SVG file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tracereplay.report.answer_flame import flame
from tracereplay.report.answer_heat import heat
from tracereplay.report.answer_lines import bars, histogram, lines
from tracereplay.report.svg import document, label

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.analysis import Picture

DRAWN: dict[str, Callable[[pl.DataFrame, Picture, str], str]] = {
    "bars": bars,
    "histogram": histogram,
    "lines": lines,
    "heat": heat,
    "flame": flame,
}


def picture(frame: pl.DataFrame, spec: Picture, title: str) -> str:
    """The text of an SVG file. A frame without rows gives one that says so."""
    title = spec.title or title
    if not len(frame):
        return document(80, f"{title}: nothing", label(title, 20, 30, class_="head"), label("nothing to show", 20, 56))
    return DRAWN[spec.kind](frame, spec, title)
