"""Pictures of a sweep: costs along each axis with intervals and crossings, and the cheapest by two axes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tracereplay.report.heatmap import heat_svg
from tracereplay.report.markup import tag
from tracereplay.report.numbers import figure, span
from tracereplay.report.picture import Picture
from tracereplay.report.plot import Plane, ending
from tracereplay.report.scale import Scale, along, measured
from tracereplay.report.svg import n
from tracereplay.report.sweep import (
    MEASURES,
    Course,
    Heat,
    Multiple,
    Sweep,
    Value,
    number_at,
)
from tracereplay.report.sweep_words import crossing_text, point_count, text_of

ASIDE = 0.012
ROWS = 300
"""Points told beneath a curve; the sweep's file has all."""
MARKED = 3
"""Crossings drawn in one picture; the figures have all."""


def sweep_pictures(sweep: Sweep) -> dict[str, list[Picture]]:
    """By the part of the page they belong to: ``axis NAME`` for each axis, ``heat``."""
    found = {
        f"axis {multiple.axis}": [_curve(sweep, multiple, course, i) for i, course in enumerate(multiple.courses)]
        for multiple in sweep.multiples
    }
    found["heat"] = [_heat(sweep, heat) for heat in sweep.heats if heat.cells]
    return {key: [p for p in members if p] for key, members in found.items()}


def _file(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")


def _curve(sweep: Sweep, multiple: Multiple, course: Course, index: int) -> Picture:
    what = MEASURES[sweep.measure].capitalize()
    title = f"{what} by {multiple.axis}"
    rows = []
    for label, points in course.lines.items():
        for p in points:
            told = p.error or "failed" if p.value is None else ""
            ends = None if p.low is None or p.high is None or p.low == p.high else (p.low, p.high)
            rows.append((label, text_of(p.x), figure(p.value), span(ends), told))
    rows += [("crossing", figure(c.at), "", "", crossing_text(c)) for c in course.crossings]
    unit = f"{sweep.unit}/page" if sweep.unit else what.lower()
    return Picture(
        f"{_file(multiple.axis)}{f'-{index + 1}' if index else ''}", title,
        partial(_curve_svg, sweep, multiple, course, title),
        ("strategy", multiple.axis, unit, "95 %", "remark"), tuple(rows[:ROWS]), _note(course), small=True,
        costs=bool(sweep.unit),
    )  # fmt: skip


REACH = 1.5
"""An interval that reaches further than so many times the highest cost is cut off, or it would flatten the curves."""


def _note(course: Course) -> str:
    said = [f"At {course.setting}." if course.setting else ""]
    said += [f"{crossing_text(c).capitalize()}." for c in course.crossings]
    known = [p for members in course.lines.values() for p in members if p.value is not None]
    reach = REACH * max((p.value or 0.0 for p in known), default=0.0)
    if any((p.high or 0.0) > reach for p in known):
        said.append("Intervals that reach beyond the axis are cut off there.")
    failed = sum(p.value is None for members in course.lines.values() for p in members)
    if failed:
        said.append(f"Crosses at the bottom: {point_count(failed)} failed.")
    if course.missing:
        said.append(f"Not run: {point_count(course.missing)}.")
    return " ".join(filter(None, said))


def _curve_svg(sweep: Sweep, multiple: Multiple, course: Course, title: str, width: int, below: Sequence[str]) -> str:
    x = _places(multiple, width)
    at = {v: number_at(v) if multiple.numeric else float(i) for i, v in enumerate(multiple.values)}
    # names have room beside them: there the intervals stand next to each other
    aside = 0.0 if multiple.numeric else ASIDE * (x.high - x.low)
    known = {
        label: [
            (at[p.x] + aside * i, p.value, p.low or p.value, p.high or p.value) for p in points if p.value is not None
        ]
        for i, (label, points) in enumerate(course.lines.items())
    }
    costs = [value for points in known.values() for _, value, _, _ in points] or [0.0, 1.0]
    ends = [end for points in known.values() for _, _, *both in points for end in both]
    y = measured([*costs, *(min(end, REACH * max(costs)) for end in ends)])
    unit = f"{sweep.unit} a page" if sweep.unit else MEASURES[sweep.measure]
    plane = Plane(title, x, y, width, multiple.axis + (", logarithmic" if x.log else ""), unit, sweep.labels)
    for c in course.crossings[:MARKED]:
        plane.upright(x.low if c.low is None else c.low, x.high if c.high is None else c.high, "range")
        plane.wall(c.at, "cross")
    for label, found in known.items():
        index = sweep.labels.index(label)
        for points in [found] if multiple.numeric else [[p] for p in found]:
            if any(low != high for _, _, low, high in points):
                plane.band([(place, low, high) for place, _, low, high in points], index)
        plane.line([(place, value) for place, value, _, _ in found], index, dots=True, straight=True)
        for p in course.lines[label]:
            if p.value is None:
                _failed(plane, at[p.x], index, len(sweep.labels))
    told = "; ".join(f"{label} {figure(p[0][1])} to {figure(p[-1][1])}" for label, p in known.items() if p)
    crossed = " ".join(f"{crossing_text(c)}." for c in course.crossings)
    return plane.svg(f"{title}. {told}. {crossed}", *below)


def _places(multiple: Multiple, width: int) -> Scale:
    names = [text_of(v) for v in multiple.values]
    if multiple.numeric:
        return along([number_at(v) for v in multiple.values], names)
    names = [ending(name, (width - 90) / max(len(names), 1)) for name in names]
    last = max(len(names) - 1, 1)
    return Scale(-0.1 * last, 1.1 * last, tuple((float(i), name) for i, name in enumerate(names)))


def _failed(plane: Plane, place: float, index: int, count: int) -> None:
    """A cross at the bottom, those of different strategies beside each other."""
    x, y = plane.across(place) + 9 * (index - (count - 1) / 2), plane.bottom - 8
    path = f"M{n(x - 4)} {n(y - 4)}l8 8m0 -8l-8 8"
    plane.parts.append(tag("path", d=path, stroke=f"var(--c{index % 8})", stroke_width=2, fill="none"))


def _heat(sweep: Sweep, heat: Heat) -> Picture:
    several = len(sweep.labels) > 1
    title = f"{'Cheapest strategy' if several else MEASURES[sweep.measure].capitalize()} by {heat.x} and {heat.y}"

    def cell(x: Value, y: Value) -> str:
        if (x, y) not in heat.cells:
            return "not run"
        found = heat.cells[x, y]
        if found is None:
            return "failed"
        return f"{found.label} {figure(found.value)}{'' if found.settled or not several else ' (not settled)'}"

    rows = tuple((text_of(y), *(cell(x, y) for x in heat.xs)) for y in reversed(heat.ys))
    said = [
        f"At {heat.setting}." if heat.setting else "",
        "Some values of long axes are shown." if heat.thinned else "",
    ]
    if several:
        said.append("Faint, with a question mark: not settled beyond the intervals.")
    return Picture(
        f"{_file(heat.x)}-by-{_file(heat.y)}", title, partial(heat_svg, heat, sweep.labels, title, sweep.unit),
        (f"{heat.y} \\ {heat.x}", *map(text_of, heat.xs)), rows, " ".join(filter(None, said)),
        costs=bool(sweep.unit),
    )  # fmt: skip
