"""Horizontal bars, stacked or single, with intervals: a name and a value above each, so that both have room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracereplay.report.markup import Child, tag
from tracereplay.report.plot import BOLD, LINE, STYLE, colour, fitted, heading, legend, length, text_at, wrapped
from tracereplay.report.svg import document, n

BAR = 18
STEP = 46
REACH = 1.6
"""An interval that reaches further than so many times the longest bar is cut off, or it would flatten them all."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line: parts in the order of the legend."""

    name: str
    value: str
    parts: tuple[float, ...]
    interval: tuple[float, float] | None = None


def bars_svg(
    title: str, bars: Sequence[Bar], names: Sequence[str], width: int, told: str, below: Sequence[str] = ()
) -> str:
    """The text of an SVG file. ``names``: of the parts; ``below``: lines of text beneath."""
    head, y = heading(title, width)
    used = {i: name for i, name in enumerate(names) if any(bar.parts[i] > 0 for bar in bars)}
    named, y = legend(used, width, y + 2, boxes=True) if used else ([], y)
    top = max((sum(bar.parts) for bar in bars), default=0.0) or 1.0
    reach = min(REACH * top, max([top, *(bar.interval[1] for bar in bars if bar.interval)]))
    scale = (width - 20) / reach
    parts: list[Child] = [*head, *named]
    for bar in bars:
        room = width - 24 - BOLD * length(bar.value)
        parts.append(text_at(fitted(bar.name, room), 8, y + 14, class_=None))
        parts.append(text_at(bar.value, width - 8, y + 14, "end", class_="head"))
        parts += _drawn(bar, y + 20, scale, width)
        y += STEP
    lines = [line for text in below for line in wrapped(text, width - 16)]
    parts += [text_at(line, 8, y + 12 + LINE * i) for i, line in enumerate(lines)]
    return document(y + LINE * len(lines) + 8, told, *parts, style=STYLE, width=width)


def _drawn(bar: Bar, y: float, scale: float, width: int) -> list[Child]:
    parts: list[Child] = []
    x = 8.0
    for index, value in enumerate(bar.parts):
        if value > 0:
            wide = max(value * scale, 0.5)
            parts.append(tag("rect", class_="edge", x=n(x), y=n(y), width=n(wide), height=BAR, fill=colour(index)))
            x += wide
    if bar.interval:
        low, high = (min(8 + end * scale, width - 8.0) for end in bar.interval)
        cut = 8 + bar.interval[1] * scale > width - 8.0
        middle = y + BAR / 2
        parts.append(tag("line", class_="whisker", x1=n(low), x2=n(high), y1=n(middle), y2=n(middle)))
        ends = (low,) if cut else (low, high)
        parts += [tag("line", class_="whisker", x1=n(e), x2=n(e), y1=n(y + 3), y2=n(y + BAR - 3)) for e in ends]
    return parts
