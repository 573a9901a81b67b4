"""One number at a time: how far a figure moves when it goes from the low to the high end of its range, the others at
their values, and where it would have to be for two strategies to cost the same.

Numbers that were fitted together follow: with one at its end, the others are where the correlation expects them then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracereplay.cost.bootstrap import Floats
from tracereplay.cost.formula import evaluate
from tracereplay.cost.profile import Coefficient, Parameter, Profile

ROWS = 8
"""Rows of a table."""
FAR = 100
"""Ranges beyond which a number is not said to turn anything."""
SAMPLING = "sampling"
"""Name of the row for the requests."""


@dataclass(frozen=True, slots=True, eq=False)
class Swing:
    """A number of a profile that has a range, and all prices with it at its value and at either end."""

    name: str
    unit: str
    value: float
    low: float
    high: float
    at_value: Floats
    """[coefficient]"""
    at_low: Floats
    at_high: Floats


def swings_of(profile: Profile) -> tuple[Swing, ...]:
    """Every parameter and every price without a formula whose range is not a point."""
    numbers: dict[str, Parameter | Coefficient] = {p.name: p for p in profile.parameters}
    numbers |= {c.name: c for c in profile.coefficients if not c.formula}
    values = _prices(profile, {})
    joint = _correlations(profile)
    found = []
    for n in numbers.values():
        if n.low is None or n.high is None or n.low == n.high:
            continue
        shares = {n.name: 1.0} | joint.get(n.name, {})
        low, high = (
            _prices(profile, {name: _moved(numbers[name], side * share) for name, share in shares.items()})
            for side in (-1, 1)
        )
        found.append(Swing(n.name, n.unit, n.value, n.low, n.high, values, low, high))
    return tuple(found)


def _correlations(profile: Profile) -> dict[str, dict[str, float]]:
    """Of each number that was fitted with others, its correlations with them and itself."""
    names, rows = profile.correlation or ((), ())
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for a, row in zip(names, rows, strict=True):
        for b, rho in zip(names, row, strict=False):
            found[a][b] = found[b][a] = rho
    return found


def _moved(number: Parameter | Coefficient, share: float) -> float:
    """A number that goes a share of the way to the high end of its range, or to the low end for a negative share."""
    end = number.high if share > 0 else number.low
    return max(number.value + abs(share) * ((number.value if end is None else end) - number.value), 0.0)


def _prices(profile: Profile, changed: Mapping[str, float]) -> Floats:
    """All prices with some numbers changed, [coefficient]."""
    table = {p.name: changed.get(p.name, p.value) for p in profile.parameters}
    return np.array(
        [evaluate(c.formula, table) if c.formula else changed.get(c.name, c.value) for c in profile.coefficients]
    )


def tornado(swings: Sequence[Swing], counts: Floats, sampling: tuple[float, float] | None) -> list[dict[str, Any]]:
    """The ROWS numbers that move ``counts`` times prices most, and the requests among them, largest span first."""
    rows: list[dict[str, Any]] = [
        {"name": s.name, "unit": s.unit, "value": s.value, "low": s.low, "high": s.high}
        | {"at_low": math.fsum(counts * s.at_low), "at_high": math.fsum(counts * s.at_high)}
        for s in swings
    ]
    if sampling is not None:
        empty = dict.fromkeys(("unit", "value", "low", "high"))
        rows.append({"name": SAMPLING, **empty, "at_low": sampling[0], "at_high": sampling[1]})
    rows = [row | {"span": abs(row["at_high"] - row["at_low"])} for row in rows]
    least = 1e-9 * max((row["span"] for row in rows), default=0.0)  # what is not rounding
    rows = [row for row in rows if row["span"] > least]
    return sorted(rows, key=lambda row: (-row["span"], row["name"]))[:ROWS]


def hinge(swings: Sequence[Swing], counts: Floats) -> dict[str, Any] | None:
    """The number that turns the sign of ``counts`` times prices with the smallest move, in parts of its own range.

    ``crossing``: its value there; ``within``: whether that is in its range. None when no number turns the sign.
    """
    turns = [(turn[0], s.name, turn[1], s) for s in swings if (turn := _turn(s, counts)) is not None]
    if not turns:
        return None
    reach, _, crossing, s = min(turns, key=lambda turn: turn[:2])
    return {"name": s.name, "unit": s.unit, "value": s.value, "low": s.low, "high": s.high} | {
        "crossing": crossing,
        "within": reach <= 1,
    }


def _turn(s: Swing, counts: Floats) -> tuple[float, float] | None:
    """How far a number must go until the figure is 0, in parts of the way to an end of its range, and what it is there.

    On the line from its value to that end and beyond: formulas are straight in each number they do not divide by. None
    where it goes the other way, a price would be negative, or the way is FAR.
    """
    figure = math.fsum(counts * s.at_value)
    found = []
    for end, prices in ((s.low, s.at_low), (s.high, s.at_high)):
        change = math.fsum(counts * (prices - s.at_value))
        if figure == 0 or figure * change >= 0 or end == s.value:
            continue
        reach = -figure / change
        crossing = s.value + reach * (end - s.value)
        if reach <= FAR and crossing >= 0 and bool((s.at_value + reach * (prices - s.at_value) >= -1e-9).all()):
            found.append((reach, crossing))
    return min(found, default=None)
