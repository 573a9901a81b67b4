"""Bars and lines as inline SVG that stretches to its column; all text stays outside, in HTML, so that it
never shrinks."""

from __future__ import annotations

from collections.abc import Sequence

from tracereplay.report.data import Chart, Comparison, StrategyCost
from tracereplay.report.differences import Tornado
from tracereplay.report.markup import Markup, join, tag
from tracereplay.report.numbers import figure, seconds, span

WIDTH = 1000.0
PLOT_HEIGHT = 180.0
COLOURS = 8
"""Colours of the style sheet (``--c0`` ...)."""


def colour(index: int) -> str:
    """CSS colour of a series."""
    return f"var(--c{index % COLOURS})"


def cost_bars(data: Comparison) -> Markup:
    """Cost per page of each strategy, stacked by group of primitives, with its 95 % interval."""
    shown = [s for s in data.strategies if s.per_page is not None]
    if not shown or data.profile is None:
        return Markup("")
    groups = [g for g in data.profile.groups if any(s.groups.get(g, 0) > 0 for s in shown)]
    top = max(s.per_page or 0.0 for s in shown) or 1.0
    # an interval that reaches far beyond every bar is cut off and marked, or it would flatten them all
    reach = min(1.6 * top, max(top, *(s.interval[1] if s.interval else 0.0 for s in shown)))
    legend = tag(
        "ul",
        *(tag("li", _swatch(data.profile.groups.index(g)), g) for g in groups),
        class_="legend",
    )
    rows = [
        tag(
            "div",
            tag("span", s.label, class_="name"),
            tag("span", f"{figure(s.per_page)} {data.unit}", class_="value"),
            _bar(s, groups, data, reach),
            class_="bar",
        )
        for s in shown
    ]
    return tag(
        "figure",
        legend,
        *rows,
        tag(
            "figcaption",
            f"Cost per page in {data.unit}; the line is the 95 % interval. The table has the figures.",
        ),
    )


def _swatch(index: int) -> Markup:
    return tag("span", class_="swatch", style=f"background:{colour(index)}", aria_hidden="true")


def _bar(s: StrategyCost, groups: Sequence[str], data: Comparison, reach: float) -> Markup:
    scale = WIDTH / reach
    parts: list[Markup] = []
    x = 0.0
    order = data.profile.groups if data.profile else ()
    for group in groups:
        value = s.groups.get(group, 0.0)
        if value > 0:
            parts.append(tag("rect", x=_n(x), y=4, width=_n(value * scale), height=16, fill=colour(order.index(group))))
            x += value * scale
    if s.interval:
        low, high = (min(end * scale, WIDTH) for end in s.interval)
        cut = s.interval[1] > reach
        parts.append(tag("line", x1=_n(low), x2=_n(high), y1=12, y2=12, class_="whisker"))
        parts.append(tag("line", x1=_n(low), x2=_n(low), y1=7, y2=17, class_="whisker"))
        if not cut:
            parts.append(tag("line", x1=_n(high), x2=_n(high), y1=7, y2=17, class_="whisker"))
    told = ", ".join(f"{g} {figure(s.groups[g])}" for g in groups if s.groups.get(g, 0) > 0)
    label = f"{s.label}: {figure(s.per_page)} {data.unit} per page, 95 % {span(s.interval)}; {told}"
    return tag("svg", *parts, viewBox="0 0 1000 24", preserveAspectRatio="none", role="img", aria_label=label)


def _n(x: float) -> str:
    return f"{x:.1f}"


def line_chart(chart: Chart) -> Markup:
    """Rates over time."""
    top = max((max(line.values) for line in chart.lines), default=0.0) or 1.0
    bins = len(chart.lines[0].values)
    lines = []
    for i, line in enumerate(chart.lines):
        points = " ".join(
            f"{_n((k + 0.5) * WIDTH / bins)},{_n(PLOT_HEIGHT * (1 - value / top))}"
            for k, value in enumerate(line.values)
        )
        lines.append(tag("polyline", points=points, stroke=colour(i), class_="series"))
    grid = [
        tag("line", x1=0, x2=1000, y1=_n(PLOT_HEIGHT * k / 4), y2=_n(PLOT_HEIGHT * k / 4), class_="grid")
        for k in range(5)
    ]
    told = "; ".join(
        f"{line.name}: mean {figure(sum(line.values) / bins)}, peak {figure(max(line.values))} {chart.unit}"
        for line in chart.lines
    )
    duration = seconds(chart.bin_s * bins * 1e9)
    return tag(
        "figure",
        tag("ul", *(tag("li", _swatch(i), line.name) for i, line in enumerate(chart.lines)), class_="legend"),
        tag("div", tag("span", f"{figure(top)} {chart.unit}"), class_="axis"),
        tag(
            "svg", *grid, *lines, viewBox=f"0 0 1000 {PLOT_HEIGHT:.0f}", preserveAspectRatio="none", role="img",
            aria_label=f"{chart.title} over {duration}. {told}", class_="plot",
        ),
        tag("div", tag("span", "0 s"), tag("span", duration), class_="axis"),
        tag("figcaption", join(f"{chart.title} over time. {told}.")),
    )  # fmt: skip


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
