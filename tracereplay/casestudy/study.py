"""Prices of the stored counters: cost per MiB with its interval, ratios, and what a verdict hinges on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tracereplay.casestudy.cases import Case
from tracereplay.cost.price import draw_prices, interval95, price, ratio_interval95, total
from tracereplay.cost.profile import Parameter, Profile

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

    def row(self, case: Case, strategy: str) -> Mapping[str, Any]:
        """What one strategy did in a case."""
        return self.rows[_identity(case.key()), strategy]

    def per_mib(self, case: Case, strategy: str, profile: Profile) -> Cost:
        """Cost of 1 MiB of requests, in the profile's unit."""
        row = self.row(case, strategy)
        scale = MIB / row["pages"]
        low, high = interval95(row["counters"], profile, SEED)
        return Cost(total(row["counters"], profile) * scale, low * scale, high * scale)

    def ratio(self, case: Case, strategy: str, baseline: str, profile: Profile) -> Cost:
        """Cost of one strategy over that of another, priced with the same draws."""
        a, b = (self.row(case, s)["counters"] for s in (strategy, baseline))
        ends = ratio_interval95(a, b, profile, SEED) or (0.0, float("inf"))
        return Cost(total(a, profile) / total(b, profile), *ends)

    def chance(self, case: Case, strategy: str, baseline: str, profile: Profile) -> float:
        """Share of the price lists drawn by which ``strategy`` costs less."""
        a, b = (self.row(case, s)["counters"] for s in (strategy, baseline))
        more = [float(sum(a.get(c, 0) - b.get(c, 0) for c in co.counters)) for co in profile.coefficients]
        return float((draw_prices(profile, SEED) @ np.array(more) < 0).mean())

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


IDENTITY = ("trace", "largest", "survivors", "spare", "pcp_high", "zeroed", "seed")


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
