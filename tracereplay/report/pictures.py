"""Bars beside text, as inline SVG that stretches to its column; all text stays outside, in HTML, so that it
never shrinks."""

from __future__ import annotations

from tracereplay.report.differences import Tornado
from tracereplay.report.markup import Markup, tag
from tracereplay.report.numbers import figure

WIDTH = 1000.0
COLOURS = 8
"""Colours of the style sheet (``--c0`` ...)."""


def colour(index: int) -> str:
    """CSS colour of a series."""
    return f"var(--c{index % COLOURS})"


def _swatch(index: int) -> Markup:
    return tag("span", class_=f"swatch s{index % COLOURS}", aria_hidden="true")


def _n(x: float) -> str:
    return f"{x:.1f}"


def tornado_chart(tornado: Tornado, unit: str) -> Markup:
    """A bar for each number from the figure with it at its low end to that at its high end; a line at the figure."""
    ends = [end for s in tornado.swings for end in (s.at_low, s.at_high)]
    low, high = min(*ends, tornado.value), max(*ends, tornado.value)
    scale = WIDTH / ((high - low) or 1.0)

    def place(value: float) -> str:
        return _n((value - low) * scale)

    zero = [tag("line", x1=place(0), x2=place(0), y1=0, y2=24, class_="zero")] if low < 0 < high else []
    rows = []
    for s in tornado.swings:
        told = f"{s.name}: {figure(s.at_low)} at its low end, {figure(s.at_high)} at its high end, {unit} per page"
        middle = min(max(tornado.value, min(s.at_low, s.at_high)), max(s.at_low, s.at_high))
        halves = [
            tag(
                "rect", x=place(min(end, middle)), y=4, width=_n(abs(end - middle) * scale), height=16, fill=colour(i)
            )
            for i, end in enumerate((s.at_low, s.at_high))
        ]  # fmt: skip
        line = tag("line", x1=place(tornado.value), x2=place(tornado.value), y1=0, y2=24, class_="whisker")
        rows.append(
            tag(
                "div",
                tag("span", f"{s.name} ", tag("span", s.range, class_="soft"), class_="name"),
                tag("span", f"{figure(s.at_low)} | {figure(s.at_high)}", class_="value"),
                tag(
                    "svg", *zero, *halves, line, viewBox="0 0 1000 24", preserveAspectRatio="none", role="img",
                    aria_label=told,
                ),
                class_="bar tornado",
            )
        )  # fmt: skip
    return tag(
        "figure",
        tag("figcaption", f"{tornado.title}: {figure(tornado.value)} {unit} per page"),
        *rows,
    )


def tornado_legend() -> Markup:
    """What the two colours of :func:`tornado_chart` are."""
    ends = ("one number at the low end of its range", "at the high end; the others at their values")
    return tag("ul", *(tag("li", _swatch(i), text) for i, text in enumerate(ends)), class_="legend")


def share_bar(part: float, whole: float) -> Markup:
    """A thin bar for one cell of a table."""
    width = WIDTH * part / whole if whole else 0.0
    return tag(
        "svg", tag("rect", x=0, y=0, width=_n(width), height=8, fill=colour(0)), viewBox="0 0 1000 8",
        preserveAspectRatio="none", aria_hidden="true", class_="share",
    )  # fmt: skip
