"""Bars, histograms and lines of an analysis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tracereplay.report.markup import Markup, tag
from tracereplay.report.svg import COLOURS, WIDTH, document, in_unit, label, legend, look, marks, n, powers, unit_of

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.analysis import Picture

LEFT, RIGHT, HEIGHT = 90, 20, 300
MOST_BARS = 40
MOST_SERIES = COLOURS
_NAME = 42
TIMES = ("t_ns", "start_ns")
"""Columns that are times of the trace, since its first event."""
WIDE = 100
"""A range that spans more than so many times its low end is drawn on a logarithmic axis."""


def bars(frame: pl.DataFrame, spec: Picture, title: str) -> str:
    """A bar for each row, best first."""
    shown = frame.head(MOST_BARS)
    write = in_unit(unit_of(spec.y, spec.unit))
    values = [float(v or 0) for v in shown[spec.y]]
    names = [_cut(" ".join(str(v) for v in row)) for row in _names(shown, spec)]
    top = max(values) or 1.0
    left, right = 30 + 8.4 * max(map(len, names)), 110.0
    scale = (WIDTH - left - right) / top
    parts = [label(title, 20, 26, class_="head")]
    for k, (name, value) in enumerate(zip(names, values, strict=True)):
        y = 44 + 24 * k
        parts.append(label(name, left - 8, y + 14, "end", None))
        parts.append(tag("rect", x=n(left), y=n(y), width=n(max(value * scale, 0.5)), height=18, fill="var(--c0)"))
        parts.append(label(write(value), left + value * scale + 6, y + 14))
    told = "; ".join(f"{name}: {write(value)}" for name, value in list(zip(names, values, strict=True))[:5])
    if len(frame) > MOST_BARS:
        parts.append(label(f"and {len(frame) - MOST_BARS:,} more", left, 44 + 24 * MOST_BARS + 14))
    return document(60 + 24 * (len(values) + (len(frame) > MOST_BARS)), f"{title}. {told}", *parts)


def histogram(frame: pl.DataFrame, spec: Picture, title: str) -> str:
    """Columns over the low edges of bins; with a group, a line for each of them."""
    edges = sorted({v for v in frame[spec.x] if v is not None})
    place = {edge: k for k, edge in enumerate(edges)}
    groups = _groups(frame, spec)
    step = (WIDTH - LEFT - RIGHT) / max(len(edges), 1)
    values = {g: [0.0] * len(edges) for g in groups}
    for name, x, y in _points(frame, spec):
        if name in values and x is not None:
            values[name][place[x]] += float(y or 0)
    top = max((max(v) for v in values.values()), default=0.0)
    unit = "" if spec.unit in ("ns", "bytes") else spec.unit
    plot = _Plot(title, groups, top, unit_of(spec.y, unit))
    for index, counts in enumerate(values.values()):
        if len(groups) == 1:
            plot.parts += [
                tag(
                    "rect", x=n(LEFT + k * step + 1), y=n(plot.y(v)), width=n(step - 2), fill="var(--c0)",
                    height=n(plot.bottom - plot.y(v)),
                )
                for k, v in enumerate(counts)
                if v
            ]  # fmt: skip
        else:
            plot.line([(LEFT + (k + 0.5) * step, v) for k, v in enumerate(counts)], index)
    write = in_unit(unit_of(spec.x))
    every = -(-len(edges) * 62 // (WIDTH - LEFT - RIGHT))
    for k, edge in list(enumerate(edges))[:: max(1, every)]:
        plot.parts.append(label(write(edge), LEFT + k * step, plot.bottom + 20, "middle" if k else "start"))
    named = axis_name(spec.x)
    return plot.document("low edges of bins" if named == "low" else f"{named}, low edges of bins")


def lines(frame: pl.DataFrame, spec: Picture, title: str) -> str:
    """Values over time or another number, a line for each group."""
    groups = _groups(frame, spec)
    points: dict[Any, list[tuple[float, float]]] = {g: [] for g in groups}
    for name, x, y in _points(frame, spec):
        if name in points and x is not None and y is not None:
            points[name].append((float(x), float(y)))
    xs = [x for members in points.values() for x, _ in members] or [0.0]
    low, high = min(xs), max(xs)
    top = max((y for members in points.values() for _, y in members), default=0.0)
    plot = _Plot(title, groups, top, unit_of(spec.y, spec.unit))
    unit = unit_of(spec.x)
    logarithmic = spec.x not in TIMES and 0 < low * WIDE < high
    along = math.log if logarithmic else float
    scale = (WIDTH - LEFT - RIGHT) / ((along(high) - along(low)) or 1.0)
    for index, members in enumerate(points.values()):
        plot.line([(LEFT + (along(x) - along(low)) * scale, y) for x, y in sorted(members)], index)
    for x in (powers if logarithmic else marks)(low, high, unit):
        if low <= x <= high:
            across = LEFT + (along(x) - along(low)) * scale
            plot.parts.append(label(in_unit(unit)(x), across, plot.bottom + 20, "middle"))
    return plot.document(axis_name(spec.x))


def axis_name(column: str) -> str:
    """What a column stands for, beside an axis."""
    name = column.removesuffix("_ns").removesuffix("_bytes").replace("_", " ")
    return "time since the first event" if column in TIMES else name


class _Plot:
    """Axes with a legend, and what is drawn between them."""

    def __init__(self, title: str, groups: list[Any], top: float, unit: str) -> None:
        names = [_cut(str(g)) for g in groups]
        made, rows = legend(names, LEFT, WIDTH - RIGHT, 50) if len(groups) > 1 else ([], 0)
        self.top = 44.0 + 22 * rows
        self.bottom = self.top + HEIGHT
        self.parts: list[Markup] = [label(title, 20, 26, class_="head"), *made]
        heights = marks(0.0, top, unit)
        self._title, self._names, self._high = title, names, heights[-1]
        for mark in heights:
            y = n(self.y(mark))
            self.parts.append(tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
            self.parts.append(label(in_unit(unit)(mark), LEFT - 8, self.y(mark) + 5, "end"))

    def y(self, value: float) -> float:
        """Height of a value on the page."""
        return self.top + HEIGHT * (1 - value / self._high)

    def line(self, points: list[tuple[float, float]], index: int) -> None:
        """A series."""
        if len(points) == 1:
            x, y = points[0]
            self.parts.append(tag("circle", cx=n(x), cy=n(self.y(y)), r=3, fill=look(index)["stroke"]))
        else:
            path = " ".join(f"{n(x)},{n(self.y(y))}" for x, y in points)
            self.parts.append(tag("polyline", class_="series", points=path, **look(index)))

    def document(self, below: str) -> str:
        """The file, with what is on the axis below."""
        middle = (LEFT + WIDTH - RIGHT) / 2
        told = f"{self._title}: {', '.join(self._names) if len(self._names) > 1 else 'one series'} by {below}"
        return document(self.bottom + 54, told, *self.parts, label(below, middle, self.bottom + 42, "middle"))


def _points(frame: pl.DataFrame, spec: Picture) -> list[tuple[Any, Any, Any]]:
    """(group, x, y) of each row."""
    if spec.group:
        return [(g, x, y) for g, x, y in frame.select(spec.group, spec.x, spec.y).iter_rows()]
    return [("", x, y) for x, y in frame.select(spec.x, spec.y).iter_rows()]


def _groups(frame: pl.DataFrame, spec: Picture) -> list[Any]:
    """The greatest groups, as many as there are colours."""
    if not spec.group:
        return [""]
    totals: dict[Any, float] = {}
    for name, _, y in _points(frame, spec):
        totals[name] = totals.get(name, 0.0) + float(y or 0)
    return sorted(totals, key=lambda name: -totals[name])[:MOST_SERIES]


def _names(frame: pl.DataFrame, spec: Picture) -> list[tuple[Any, ...]]:
    columns = [spec.x, spec.group] if spec.group else [spec.x]
    return frame.select(columns).rows()


def _cut(text: str) -> str:
    return text if len(text) <= _NAME else f"{text[: _NAME - 3]}..."
