"""Drawing between two axes, at any width: what pictures of the page and SVG files are made with.

Nothing here is longer than its place: titles and names wrap or are cut, and marks that would touch are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tracereplay.report.markup import Child, Markup, tag
from tracereplay.report.scale import Mark, Scale
from tracereplay.report.svg import document, n

LINE = 20
SLIM, BROAD = "iljI|.,:;!' ", "mwMW@%\u2026"
BOLD = 1.08
"""How much wider bold text is."""
PALETTE = 8
DENSE = 60
"""A line of more points shows no dots, and needs none between."""
STEPS = 6
"""Points drawn between two of a line on a logarithmic axis."""
DASHES = ("none", "7 3", "2 3", "9 3 2 3")
STYLE = """
:root { --c6: #7a6c00; --c7: #3f51b5; }
@media (prefers-color-scheme: dark) { :root { --c6: #c9b73a; --c7: #8c9eff; } }
.span { fill-opacity: 0.08; stroke-opacity: 0.45; stroke-width: 1; }
.lost { fill: var(--c4); opacity: 0.25; } .whisker { stroke: var(--ink); stroke-width: 1.5; }
.cross { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; } .range { fill: var(--ink); opacity: 0.1; }
.edge { stroke: var(--back); stroke-width: 1; }
"""


def colour(index: int) -> str:
    """Of a series."""
    return f"var(--c{index % PALETTE})"


def look(index: int) -> dict[str, str]:
    """Colour and dashes of a line: two lines of one colour differ in their dashes, neighbours in both."""
    return {"stroke": colour(index), "stroke_dasharray": DASHES[index % len(DASHES)]}


def length(text: str) -> float:
    """Width of a text at 14 px in the widest of the usual fonts (DejaVu Sans), about."""
    return sum(
        4.6 if c in "iljI|.,:;!' " else 12.0 if c in "mwMW@%\u2026" else 9.7 if c.isupper() else 8.7 for c in text
    )


def fitted(text: str, room: float) -> str:
    """The text, cut so that it fits."""
    if length(text) <= room:
        return text
    while text and length(text) + 12 > room:
        text = text[:-1]
    return f"{text}\u2026"


def ending(text: str, room: float) -> str:
    """The text, cut at its front: names of traces and files differ at their ends."""
    if length(text) <= room:
        return text
    while text and length(text) + 12 > room:
        text = text[1:]
    return f"\u2026{text}"


def wrapped(text: str, room: float) -> list[str]:
    """The text in lines that fit."""
    lines: list[str] = []
    for word in text.split():
        if lines and length(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(fitted(word, room))
    return lines


def text_at(text: str, x: float, y: float, anchor: str = "start", class_: str | None = "soft") -> Markup:
    """A text at a place."""
    return tag("text", text, class_=class_, x=n(x), y=n(y), text_anchor=None if anchor == "start" else anchor)


def heading(text: str, width: float, y: float = 22) -> tuple[list[Markup], float]:
    """A title in as many lines as it takes: its parts, and where what follows may begin."""
    lines = wrapped(text, (width - 16) / BOLD)[:4]
    return [text_at(line, 8, y + LINE * i, class_="head") for i, line in enumerate(lines)], y + LINE * len(lines)


def legend(names: Mapping[int, str], width: float, y: float, *, boxes: bool = False) -> tuple[list[Markup], float]:
    """Names of series by their number, with their colours, and where what follows may begin."""
    parts: list[Markup] = []
    x, at, offset = 8.0, y, 20 if boxes else 32
    for index, name in names.items():
        shown = fitted(name, width - 50)
        wide = offset + 2 + length(shown) + 14
        if x > 8 and x + wide - 14 > width - 4:
            x, at = 8.0, at + LINE
        if boxes:
            parts.append(tag("rect", x=n(x), y=n(at - 6), width=14, height=12, fill=colour(index)))
        else:
            parts.append(tag("line", class_="series", x1=n(x), x2=n(x + 26), y1=n(at), y2=n(at), **look(index)))
        parts.append(text_at(shown, x + offset, at + 5, class_=None))
        x += wide
    return parts, at + LINE + 4 if names else y


@dataclass(slots=True)
class Plane:
    """Two axes at a width, and what is drawn between them."""

    title: str
    x: Scale
    y: Scale
    width: int
    x_name: str
    y_name: str
    names: Sequence[str] = ()
    """Of the lines; a single one needs no legend."""
    height: float = 230.0
    parts: list[Child] = field(default_factory=list)
    top: float = 0.0
    left: float = 0.0
    right: float = 0.0

    def __post_init__(self) -> None:
        head, y = heading(self.title, self.width)
        named, y = legend(dict(enumerate(self.names)), self.width, y + 2) if len(self.names) > 1 else ([], y)
        self.parts += [*head, *named, text_at(fitted(self.y_name, self.width - 16), 8, y + 4)]
        self.top = y + 18
        self.left = 14 + max((length(name) for _, name in self.y.marks), default=8.0)
        self.right = self.width - 14
        for value, name in _apart(self.y.marks, lambda v: self.height * self.y.at(v), 16):
            at = self.down(value)
            self.parts.append(tag("line", class_="grid", x1=n(self.left), x2=n(self.right), y1=n(at), y2=n(at)))
            self.parts.append(text_at(name, self.left - 6, at + 5, "end"))

    def across(self, value: float) -> float:
        """Place of a value of the x axis."""
        return self.left + (self.right - self.left) * self.x.at(value)

    def down(self, value: float) -> float:
        """Place of a value of the y axis."""
        return self.top + self.height * (1 - self.y.at(value))

    @property
    def bottom(self) -> float:
        """Where the x axis is."""
        return self.top + self.height

    def line(
        self, points: Sequence[tuple[float, float]], index: int, *, dots: bool = False, straight: bool = False
    ) -> None:
        """A series; each point a dot where ``dots``, or where there is one only. ``straight``: in its values, also on a
        logarithmic axis, as :meth:`band`."""
        places = [(self.across(x), self.down(y)) for x, y in points]
        if len(places) > 1:
            drawn = self._straight(points) if straight else points
            path = " ".join(f"{n(self.across(x))},{n(self.down(y))}" for x, y in drawn)
            self.parts.append(tag("polyline", class_="series", points=path, **look(index)))
        if (dots and len(places) <= DENSE) or len(places) == 1:
            self.parts += [tag("circle", cx=n(x), cy=n(y), r=3.5, fill=colour(index)) for x, y in places]

    def band(self, points: Sequence[tuple[float, float, float]], index: int) -> None:
        """An interval around a series: x, low end, high end, straight in its values; at a single x a whisker."""
        if len(points) == 1:
            (x, low, high) = points[0]
            at = n(self.across(x))
            line = {"x1": at, "x2": at, "y1": n(self.down(low)), "y2": n(self.down(high))}
            self.parts.append(tag("line", stroke=colour(index), stroke_width=1.5, **line))
            return
        over, under = (
            [f"{n(self.across(x))},{n(self.down(y))}" for x, y in self._straight([(p[0], p[k]) for p in points])]
            for k in (2, 1)
        )
        under.reverse()
        shape = " ".join([*over, *under])
        self.parts.append(tag("polygon", class_="span", points=shape, fill=colour(index), stroke=colour(index)))

    def _straight(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """A series with points between, so that it is straight in its values, as crossings take it, on any axis."""
        if not (self.x.log or self.y.log) or len(points) > DENSE:
            return list(points)
        found = [
            (x0 + (x1 - x0) * k / STEPS, y0 + (y1 - y0) * k / STEPS)
            for (x0, y0), (x1, y1) in pairwise(points)
            for k in range(STEPS)
        ]
        return [*found, points[-1]]

    def upright(self, low: float, high: float, class_: str) -> None:
        """A part of the x axis over the whole height, at least a pixel wide."""
        x = self.across(low)
        wide = max(self.across(high) - x, 1.0)
        self.parts.append(tag("rect", class_=class_, x=n(x), y=n(self.top), width=n(wide), height=n(self.height)))

    def wall(self, value: float, class_: str) -> None:
        """A line up from a value of the x axis."""
        x = n(self.across(value))
        self.parts.append(tag("line", class_=class_, x1=x, x2=x, y1=n(self.top), y2=n(self.bottom)))

    def svg(self, told: str, *below: str) -> str:
        """The file. ``told`` is read out in place of it; ``below``: lines of text beneath the axis."""
        shown = _level(self.x.marks, self.across, self.left - 30, self.width - 2.0)
        parts = [text_at(name, at, self.bottom + 20, "middle") for at, name in shown]
        y = self.bottom + 42
        lines = [fitted(self.x_name, self.width - 16)]
        for text in below:
            lines += wrapped(text, self.width - 16)
        middle = (self.left + self.right) / 2
        wide = length(lines[0]) / 2
        parts.append(text_at(lines[0], min(max(middle, wide + 8), self.width - wide - 4), y, "middle"))
        parts += [text_at(text, 8, y + 2 + LINE * (i + 1)) for i, text in enumerate(lines[1:])]
        end = y + LINE * (len(lines) - 1) + 14
        return document(end, told, *self.parts, *parts, style=STYLE, width=self.width)


def _apart(marks: Sequence[Mark], at: object, least: float) -> list[Mark]:
    """Those that are at least so far from each other, from the low end on."""
    assert callable(at)
    found: list[Mark] = []
    for mark in marks:
        if not found or abs(at(mark[0]) - at(found[-1][0])) >= least:
            found.append(mark)
    return found


def _level(marks: Sequence[Mark], across: object, first: float, last: float) -> list[tuple[float, str]]:
    """Names along the x axis, each at its middle, that neither touch nor leave the picture. The ends come first."""
    assert callable(across)
    order = [marks[0], marks[-1], *marks[1:-1]] if len(marks) > 1 else list(marks)
    taken: list[tuple[float, float]] = []
    found = []
    for value, name in order:
        half = length(name) / 2 + 4
        at = min(max(across(value), first + half), last - half)
        if abs(at - across(value)) < half and all(at + half <= low or at - half >= high for low, high in taken):
            taken.append((at - half, at + half))
            found.append((at, name))
    return found
