"""Heat maps of an analysis: how many fell into each cell of two axes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from tracereplay.report.answer_lines import axis_name
from tracereplay.report.markup import Markup, tag
from tracereplay.report.svg import WIDTH, document, in_unit, label, n, unit_of

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.analysis import Picture

LEFT, RIGHT, TOP, HEIGHT = 100, 20, 74, 360
FAINTEST = 0.12
"""Opacity of the least cell that is not empty: one I/O must be seen."""


def heat(frame: pl.DataFrame, spec: Picture, title: str) -> str:
    """Cells by their low edges; the shade rises with the logarithm of the value."""
    sums: dict[tuple[float, float], float] = {}
    for x, y, v in frame.select(spec.x, spec.y, spec.value).iter_rows():
        if x is not None and y is not None:
            sums[x, y] = sums.get((x, y), 0.0) + float(v or 0)
    rows = [(x, y, v) for (x, y), v in sums.items()]
    xs, ys = _axis([r[0] for r in rows]), _axis([r[1] for r in rows])
    wide, high = (WIDTH - LEFT - RIGHT) / len(xs), HEIGHT / len(ys)
    column, row = {x: k for k, x in enumerate(xs)}, {y: k for k, y in enumerate(ys)}
    top = max(sums.values(), default=0.0) or 1.0
    bottom = TOP + HEIGHT
    cells = [
        tag(
            "rect", x=n(LEFT + column[x] * wide), y=n(bottom - (row[y] + 1) * high), width=n(wide + 0.2),
            height=n(high + 0.2), fill="var(--c4)", fill_opacity=f"{_shade(v, top):.2f}",
        )
        for x, y, v in rows
        if v
    ]  # fmt: skip
    parts: list[Markup] = [
        label(title, 20, 26, class_="head"),
        *_scale(top, in_unit(unit_of(spec.value, spec.unit))),
        *cells,
    ]
    frame_line = {"x": LEFT, "y": TOP, "width": WIDTH - LEFT - RIGHT, "height": HEIGHT}
    parts.append(tag("rect", fill="none", stroke="var(--line)", **frame_line))
    middle = high / 2 - 5 if high > 14 else 0
    parts += [
        label(in_unit(unit_of(spec.y))(ys[k]), LEFT - 8, bottom - k * high - middle, "end")
        for k in _marked(len(ys), 10)
    ]
    parts += [label(in_unit(unit_of(spec.x))(xs[k]), LEFT + k * wide, bottom + 20) for k in _marked(len(xs), 8)]
    below = f"{axis_name(spec.x)} across, {axis_name(spec.y)} up; low edges of cells"
    parts.append(label(below, (LEFT + WIDTH - RIGHT) / 2, bottom + 44, "middle"))
    return document(bottom + 56, f"{title}: {len(rows)} cells, at most {top:,.0f}", *parts)


def _axis(values: list[float]) -> list[float]:
    """Low edges in order, with the cells between them that nothing fell into: powers of two, or evenly spaced ones."""
    edges = sorted(set(values))
    if len(edges) < 3:
        return edges or [0]
    if all(e > 0 for e in edges) and all(math.log2(e).is_integer() for e in edges):
        return [2.0**k if 2**k not in edges else 2**k for k in range(_log(edges[0]), _log(edges[-1]) + 1)]
    gap = min(b - a for a, b in pairwise(edges))
    count = round((edges[-1] - edges[0]) / gap) + 1
    even = all(abs((e - edges[0]) / gap - round((e - edges[0]) / gap)) < 1e-6 for e in edges)
    if even and count <= 2000:
        at = {round((e - edges[0]) / gap): e for e in edges}
        return [at.get(k, edges[0] + k * gap) for k in range(count)]
    return edges


def _log(edge: float) -> int:
    return int(math.log2(edge))


def _shade(value: float, top: float) -> float:
    return FAINTEST + (1 - FAINTEST) * (math.log1p(value) / math.log1p(top))


def _scale(top: float, write: object) -> list[Markup]:
    """What shades mean: a strip from 1 to the most."""
    assert callable(write)
    parts = [label("least", LEFT - 8, 57, "end")]
    for k in range(20):
        shade = FAINTEST + (1 - FAINTEST) * k / 19
        parts.append(
            tag("rect", x=n(LEFT + 8 * k), y=44, width=n(8.2), height=16, fill="var(--c4)", fill_opacity=f"{shade:.2f}")
        )
    return [*parts, label(f"{write(top)}, logarithmic", LEFT + 168, 57)]


def _marked(count: int, most: int) -> range:
    return range(0, count, max(1, -(-count // most)))
