"""One number at a time: how far a figure moves when it goes from the low to the high end of its range, the others at
their values, and where it would have to be for two strategies to cost the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracereplay.cost.bootstrap import Floats
from tracereplay.cost.profile import Profile

ROWS = 8
"""Rows of a table."""
SAMPLING = "sampling"
"""Name of the row for the requests."""


@dataclass(frozen=True, slots=True, eq=False)
class Swing:
    """A number of a profile that has a range, and the prices with it at either end."""

    name: str
    unit: str
    value: float
    low: float
    high: float
    at_low: Floats
    """[coefficient]"""
    at_high: Floats


def swings_of(profile: Profile) -> tuple[Swing, ...]:
    """Every parameter and every price without a formula whose range is not a point."""
    values = np.array([c.value for c in profile.coefficients])
    found = []
    for p in profile.parameters:
        if p.low < p.high:
            ends = [profile.with_parameters(**{p.name: end}) for end in (p.low, p.high)]
            prices = (np.array([c.value for c in end.coefficients]) for end in ends)
            found.append(Swing(p.name, p.unit, p.value, p.low, p.high, *prices))
    for i, c in enumerate(profile.coefficients):
        if c.low is not None and c.high is not None and c.low < c.high:
            rows = np.tile(values, (2, 1))
            rows[:, i] = c.low, c.high
            found.append(Swing(c.name, c.unit, c.value, c.low, c.high, *rows))
    return tuple(found)


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
    best: tuple[float, Swing, float] | None = None
    for s in swings:
        crossing = _crossing(s, counts)
        if crossing is None:
            continue
        room = s.high - s.value if crossing > s.value else s.value - s.low
        reach = abs(crossing - s.value) / room if room > 0 else math.inf
        if best is None or reach < best[0]:
            best = reach, s, crossing
    if best is None or math.isinf(best[0]):
        return None
    _, s, crossing = best
    within = s.low <= crossing <= s.high
    return {"name": s.name, "unit": s.unit, "value": s.value, "low": s.low, "high": s.high} | {
        "crossing": crossing,
        "within": within,
    }


def _crossing(s: Swing, counts: Floats) -> float | None:
    """Where the figure is 0, on the line through both ends: formulas are straight in each number they do not divide by.

    None where no price that is not negative does it.
    """
    low, high = math.fsum(counts * s.at_low), math.fsum(counts * s.at_high)
    if math.isclose(low, high, rel_tol=1e-12, abs_tol=1e-12):
        return None
    share = low / (low - high)
    crossing = s.low + share * (s.high - s.low)
    possible = crossing >= 0 and bool((s.at_low + share * (s.at_high - s.at_low) >= -1e-9).all())
    return crossing if possible else None
