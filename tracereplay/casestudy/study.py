"""Prices of the stored counters: cost per MiB with its interval, ratios, and what a verdict hinges on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.casestudy.cases import Case
from tracereplay.cost.price import draw_prices, price, total
from tracereplay.cost.profile import Parameter, Profile

Floats = npt.NDArray[np.float64]
MIB = 256
"""Pages."""
SEED = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """A figure with its 95 % interval over the prices."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Hinge:
    """A price, and what it would have to be for two strategies to cost the same, all others as they are."""

    name: str
    value: float
    low: float
    high: float
    even: float | None
    """None: no price above 0 makes them equal."""
    evidence: str

    @property
    def widths(self) -> float:
        """How far the even price lies outside the 95 % range, in half widths of that side; below 1 is inside."""
        if self.even is None:
            return float("inf")
        half = self.high - self.value if self.even > self.value else self.value - self.low
        return abs(self.even - self.value) / half if half else float("inf")


class Study:
    """Rows of the study (run.py), found by case and strategy."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.rows = {(_identity(row), str(row["strategy"])): row for row in rows}
        self._prices: dict[str, Floats] = {}

    def row(self, case: Case, strategy: str) -> Mapping[str, Any]:
        """What one strategy did in a case."""
        return self.rows[_identity(case.key()), strategy]

    def per_mib(self, case: Case, strategy: str, profile: Profile) -> Cost:
        """Cost of 1 MiB of requests, in the profile's unit."""
        row = self.row(case, strategy)
        drawn = self._drawn(row, profile)
        return _cost(total(row["counters"], profile), drawn, MIB / row["pages"])

    def ratio(self, case: Case, strategy: str, baseline: str, profile: Profile) -> Cost:
        """Cost of one strategy over that of another, priced with the same draws."""
        a, b = (self.row(case, s) for s in (strategy, baseline))
        ratio = total(a["counters"], profile) / total(b["counters"], profile)
        return _cost(ratio, self._drawn(a, profile) / self._drawn(b, profile))

    def chance(self, case: Case, strategy: str, baseline: str, profile: Profile) -> float:
        """Share of the price lists drawn by which ``strategy`` costs less."""
        a, b = (self._drawn(self.row(case, s), profile) for s in (strategy, baseline))
        return float((a < b).mean())

    def _drawn(self, row: Mapping[str, Any], profile: Profile) -> Floats:
        """Cost of a row by each price list drawn."""
        if profile.sha256 not in self._prices:
            self._prices[profile.sha256] = draw_prices(profile, SEED)
        counts = [float(sum(row["counters"].get(name, 0) for name in c.counters)) for c in profile.coefficients]
        return np.asarray(self._prices[profile.sha256] @ np.array(counts))

    def hinges(self, case: Case, strategy: str, baseline: str, profile: Profile) -> list[Hinge]:
        """Every figure of the profile that can turn the comparison round, nearest to doing so first."""
        a, b = (self.row(case, s)["counters"] for s in (strategy, baseline))
        gap = total(a, profile) - total(b, profile)
        found = []
        for figure in figures(profile):
            step = figure.value or 1.0
            moved = with_figure(profile, figure, figure.value + step)
            slope = (
                total(a, moved) - total(b, moved) - gap
            ) / step  # formulas of the profiles are linear in each figure
            even = figure.value - gap / slope if slope else None
            if slope:
                found.append(
                    Hinge(
                        figure.name, figure.value, figure.low, figure.high, even if even and even > 0 else None,
                        figure.evidence,
                    )
                )  # fmt: skip
        return sorted(found, key=lambda h: h.widths)


def _cost(value: float, drawn: Floats, scale: float = 1.0) -> Cost:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Cost(value * scale, float(low) * scale, float(high) * scale)


IDENTITY = ("trace", "largest", "survivors", "spare", "movable", "pcp_high", "copies", "zeroed", "seed")


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in IDENTITY)


def figures(profile: Profile) -> list[Parameter]:
    """The numbers that a profile rests on: its parameters, and coefficients that are no formula."""
    plain = [
        Parameter(c.name, c.value, c.value if c.low is None else c.low, c.value if c.high is None else c.high, c.unit,
                  c.evidence, c.source)
        for c in profile.coefficients
        if c.formula is None
    ]  # fmt: skip
    return [*profile.parameters, *plain]


def with_figure(profile: Profile, figure: Parameter, value: float) -> Profile:
    """The profile with one of its figures changed."""
    if any(p.name == figure.name for p in profile.parameters):
        return profile.with_parameters(**{figure.name: value})
    coefficients = tuple(replace(c, value=value) if c.name == figure.name else c for c in profile.coefficients)
    return replace(profile, coefficients=coefficients)


def shares(counters: Mapping[str, int], profile: Profile) -> dict[str, float]:
    """Part of the cost by primitive, the largest first."""
    parts = price(counters, profile)
    whole = sum(parts.values())
    return dict(sorted(((name, x / whole) for name, x in parts.items() if x), key=lambda item: -item[1]))
