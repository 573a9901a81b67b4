"""Line charts with intervals as bands, as SVG files that stand alone and follow the reader's light or dark scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tracereplay.report.markup import Markup, tag
from tracereplay.report.svg import WIDTH, document, legend, look
from tracereplay.report.svg import n as _n

LEFT, RIGHT, GAP = 62, 14, 56
HEIGHT = 300
INSET = 30
"""Between a panel's edge and its first place, so that names of places have room."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series: for each place on the x axis a value and its interval, or None."""

    name: str
    points: Sequence[tuple[float, float, float] | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """One coordinate system."""

    title: str
    ticks: Sequence[str]
    """Names of the places on the x axis."""
    lines: Sequence[Line]
    places: Sequence[float] = ()
    """Where on the x axis they are; else evenly spaced."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels side by side with one legend and one logarithmic y axis. Intervals that are not empty are bands."""

    title: str
    x_label: str
    y_label: str
    panels: Sequence[Panel]
    even: float | None = None
    """A value that is drawn as a dashed line across."""
    legend: Sequence[str] = ()
    """Names of the lines in order; else as they first appear."""


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that enclose a range; two at least."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    below = max(s for s in steps if s <= low)
    above = min((s for s in steps if s >= high and s > below), default=steps[-1])
    return [s for s in steps if below <= s <= above]


def svg(chart: Chart) -> str:
    """The chart as the text of an SVG file."""
    names = list(chart.legend) or list(dict.fromkeys(line.name for panel in chart.panels for line in panel.lines))
    values = [v for panel in chart.panels for line in panel.lines for p in line.points if p for v in p if v > 0]
    ticks = log_ticks(min(values), max(values))
    named, rows = legend(names, LEFT, WIDTH - RIGHT, 44)
    top = 58 + 22 * rows
    height = top + HEIGHT + 58
    width = (WIDTH - LEFT - RIGHT - GAP * (len(chart.panels) - 1)) / len(chart.panels)
    parts = [
        tag("text", chart.title, x=LEFT, y=22, class_="head"),
        *named,
    ]
    for k, panel in enumerate(chart.panels):
        parts += _panel(panel, Frame(LEFT + k * (width + GAP), top, width, ticks, names, chart.even))
    turned = f"translate(16 {_n(top + HEIGHT / 2)}) rotate(-90)"
    parts.append(tag("text", chart.y_label, class_="soft", transform=turned, text_anchor="middle"))
    middle = _n((LEFT + WIDTH - RIGHT) / 2)
    parts.append(tag("text", chart.x_label, class_="soft", x=middle, y=height - 10, text_anchor="middle"))
    told = f"{chart.title}: {chart.y_label} by {chart.x_label}. The tables of the page have the figures."
    return document(height, told, *parts)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a panel lies, and what it shares with the others."""

    left: float
    top: float
    width: float
    ticks: Sequence[float]
    names: Sequence[str]
    even: float | None

    def y(self, value: float) -> str:
        """Height of a value on the page."""
        low, high = math.log(self.ticks[0]), math.log(self.ticks[-1])
        inside = min(max(math.log(max(value, 1e-12)), low), high)
        return _n(self.top + HEIGHT * (1 - (inside - low) / (high - low)))

    def across(self, value: float, class_: str) -> Markup:
        """A line across the panel."""
        y = self.y(value)
        return tag("line", class_=class_, x1=_n(self.left), x2=_n(self.left + self.width), y1=y, y2=y)


def _panel(panel: Panel, frame: Frame) -> list[Markup]:
    places = list(panel.places) or list(range(len(panel.ticks)))
    step = (frame.width - 2 * INSET) / max(places[-1] - places[0], 1)
    across = [_n(frame.left + INSET + (place - places[0]) * step) for place in places]
    parts = [tag("text", panel.title, x=_n(frame.left), y=_n(frame.top - 10), class_="head")]
    for tick in frame.ticks:
        parts.append(frame.across(tick, "grid"))
        y = _n(float(frame.y(tick)) + 5)
        parts.append(tag("text", f"{tick:g}", class_="soft", x=_n(frame.left - 7), y=y, text_anchor="end"))
    if frame.even is not None:
        parts.append(frame.across(frame.even, "even"))
    y = _n(frame.top + HEIGHT + 20)
    for x, name in zip(across, panel.ticks, strict=True):
        parts.append(tag("text", name, class_="soft", x=x, y=y, text_anchor="middle"))
    for line in panel.lines:
        drawn = look(frame.names.index(line.name))
        shown = [(x, p) for x, p in zip(across, line.points, strict=True) if p is not None]
        over = " ".join(f"{x},{frame.y(high)}" for x, (_, _, high) in shown)
        under = " ".join(f"{x},{frame.y(low)}" for x, (_, low, _) in reversed(shown))
        middle = " ".join(f"{x},{frame.y(value)}" for x, (value, _, _) in shown)
        if any(low < high for _, (_, low, high) in shown):
            parts.append(tag("polygon", class_="band", points=f"{over} {under}", fill=drawn["stroke"]))
        parts.append(tag("polyline", class_="series", points=middle, **drawn))
        parts += [tag("circle", cx=x, cy=frame.y(p[0]), r=3, fill=drawn["stroke"]) for x, p in shown]
    return parts
