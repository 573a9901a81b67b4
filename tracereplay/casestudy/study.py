"""Prices of the stored counters: cost per MiB with its interval, ratios, and what a verdict hinges on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.casestudy.cases import Case
from tracereplay.cost.price import counts_of, draw_prices, price, total
from tracereplay.cost.profile import Profile
from tracereplay.cost.tornado import hinge, swings_of

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

    def hinges(self, case: Case, strategy: str, baseline: str, profile: Profile, most: int = 3) -> list[dict[str, Any]]:
        """Numbers of the profile that turn the comparison round, nearest to doing so first (cost/tornado.py)."""
        a, b = (counts_of(self.row(case, s)["counters"], profile) for s in (strategy, baseline))
        swings = list(swings_of(profile))
        found: list[dict[str, Any]] = []
        while len(found) < most and (turn := hinge(swings, a - b)) is not None:
            found.append(turn)
            swings = [s for s in swings if s.name != turn["name"]]
        return found

    def _drawn(self, row: Mapping[str, Any], profile: Profile) -> Floats:
        """Cost of a row by each price list drawn."""
        if profile.sha256 not in self._prices:
            self._prices[profile.sha256] = draw_prices(profile, SEED)
        return np.asarray(self._prices[profile.sha256] @ counts_of(row["counters"], profile))


def _cost(value: float, drawn: Floats, scale: float = 1.0) -> Cost:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Cost(value * scale, float(low) * scale, float(high) * scale)


IDENTITY = ("trace", "largest", "survivors", "spare", "movable", "pcp_high", "copies", "zeroed", "seed")


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in IDENTITY)


def shares(counters: Mapping[str, int], profile: Profile) -> dict[str, float]:
    """Part of the cost by primitive, the largest first."""
    parts = price(counters, profile)
    whole = sum(parts.values())
    return dict(sorted(((name, x / whole) for name, x in parts.items() if x), key=lambda item: -item[1]))
