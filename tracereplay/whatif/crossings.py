"""Where along an axis the cheaper of two strategies changes.

Between two neighbours at which the difference of two costs has opposite signs it is taken for straight, and so are the
ends of its interval: they give the range in which the comparison is not settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

from tracereplay.machine.options import parse_size
from tracereplay.whatif.ranking import SETTING, Point, own_axes, point, standings

if TYPE_CHECKING:
    import polars as pl

NAMES = ("generation",)
"""Axes whose values look like numbers and are names: 6.12 comes after 6.7."""


Apart = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Two strategies' costs meet along an axis."""

    below: str
    """The cheaper one below."""
    above: str
    at: float
    low: float | None
    """The range in which it is not settled which is cheaper; None where that goes on to the end of the axis."""
    high: float | None
    left: float
    """Last point that was run below, and the first above."""
    right: float
    best: bool
    """Whether these two are the cheapest of all at either point."""


def number_of(value: Any) -> float | None:
    """Number of an axis's value, bytes of a size; None of a name."""
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        return float(parse_size(str(value)))
    except ValueError:
        return None


def is_numeric(axis: str, values: Sequence[Any]) -> bool:
    """Whether an axis has an order in which values lie between others."""
    return axis not in NAMES and bool(values) and all(number_of(value) is not None for value in values)


def crossings(frame: pl.DataFrame, axis: str, axes: Sequence[str]) -> pl.DataFrame:
    """Every crossing along ``axis``, a row each: the other axes' values, then the fields of Crossing.

    ``axes``: all axes of the sweep. ``axis`` may belong to one strategy (``bulk.batch_cap``): the others' costs are
    then the same all along it. An axis of names has no crossings.
    """
    import polars as pl

    rows = frame.to_dicts()
    own = own_axes(axes, sorted({str(row["label"]) for row in rows}))
    of_strategies = {name for names in own.values() for name in names}
    keys = [*SETTING, *(name for name in axes if name != axis and name not in of_strategies)]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    found = []
    if is_numeric(axis, [row[axis] for row in rows if row.get(axis) is not None]):
        for setting, members in groups.items():
            told = dict(zip(keys, setting, strict=True))
            found += [told | _columns(c) for c in _of_setting(members, axis, own)]
    schema = {key: frame.schema.get(key, pl.String) for key in keys}
    fields = {"below": pl.String, "above": pl.String, "best": pl.Boolean}
    fields |= dict.fromkeys(("at", "low", "high", "left", "right"), pl.Float64)
    return pl.DataFrame(found, schema=schema | {name: fields[name] for name in Crossing.__slots__})


def _columns(crossing: Crossing) -> dict[str, Any]:
    return {name: getattr(crossing, name) for name in Crossing.__slots__}


def _of_setting(rows: Sequence[Mapping[str, Any]], axis: str, own: Mapping[str, Sequence[str]]) -> list[Crossing]:
    """Between all lines of one setting: a line is a strategy with its own axes, ``axis`` apart."""
    lines: dict[str, dict[float, Point]] = {}
    steady: dict[str, Point] = {}
    for row in rows:
        p = point(row, [name for name in own.get(str(row["label"]), ()) if name != axis])
        if p is None:
            continue
        x = number_of(row.get(axis))
        if x is None:
            steady[p.name] = p
        else:
            lines.setdefault(p.name, {})[x] = p
    places = sorted({x for line in lines.values() for x in line})
    lines |= {name: dict.fromkeys(places, p) for name, p in steady.items()}
    best = {}
    for x in places:
        points = [line[x] for line in lines.values() if x in line]
        best[x] = next(p.name for p, s in zip(points, standings(points), strict=True) if s.rank == 1)
    found = []
    for (a, line_a), (b, line_b) in combinations(sorted(lines.items()), 2):
        common = [x for x in places if x in line_a and x in line_b]
        found += _between((a, b), common, [_apart(line_a[x], line_b[x]) for x in common], best)
    return sorted(found, key=lambda c: (not c.best, c.at, c.below, c.above))


def _apart(a: Point, b: Point) -> Apart:
    """Lower end, value and upper end of the difference of two costs."""
    difference, (low, high) = a.cost.minus(b.cost)
    return low, difference, high


def _between(
    names: tuple[str, str], places: Sequence[float], apart: Sequence[Apart], best: Mapping[float, str]
) -> list[Crossing]:
    """Crossings of two lines. ``apart``: the first less the second at ``places``, which rise."""
    signed = [i for i, (_, difference, _) in enumerate(apart) if difference]
    found = []
    for i, j in pairwise(signed):
        if (apart[i][1] > 0) == (apart[j][1] > 0):
            continue
        (below, above), rising = (names, apart) if apart[i][1] < 0 else (names[::-1], [_negative(d) for d in apart])
        # equal at points between: the middle of them
        at = _zero(places, rising, i, 1) if j == i + 1 else (places[i + 1] + places[j - 1]) / 2
        last = next((k for k in range(i, -1, -1) if rising[k][2] < 0), None)
        first = next((k for k in range(j, len(places)) if rising[k][0] > 0), None)
        found.append(
            Crossing(
                below=below,
                above=above,
                at=at,
                low=None if last is None else _zero(places, rising, last, 2),
                high=None if first is None else _zero(places, rising, first - 1, 0),
                left=places[i],
                right=places[j],
                best=best[places[i]] == below and best[places[j]] == above,
            )
        )
    return found


def _negative(apart: Apart) -> Apart:
    return -apart[2], -apart[1], -apart[0]


def _zero(places: Sequence[float], apart: Sequence[Apart], i: int, part: int) -> float:
    """Where a part of the difference is 0 between a place and the next, straight between them."""
    y0, y1 = apart[i][part], apart[i + 1][part]
    return places[i] + (places[i + 1] - places[i]) * (y0 / (y0 - y1))
