"""Cost of a page of a point with its draws, so that two points at the same settings can be compared draw by draw.

Draws of prices and of requests are those of cost/intervals.py: equal for points of one seed, profile and demand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tracereplay.whatif.task import FAILED, pricing_of

if TYPE_CHECKING:
    from tracereplay.cost.bootstrap import Floats
    from tracereplay.cost.intervals import Interval, Pricing

DRAWS = 1000
"""The first so many of the draws behind a cost's own interval: ends move by 2 % of the width from seed to seed."""


@dataclass(frozen=True, slots=True, eq=False)
class PageCost:
    """Cost of a page, in the profile's unit."""

    value: float
    draws: Floats | None
    """[draw]; None where the point kept no sample."""
    interval: Interval
    off: Interval = (0.0, 0.0)
    """By how much a figure that was estimated from part of the trace may be too high, and too low (95 %)."""

    def minus(self, other: PageCost) -> tuple[float, Interval]:
        """Difference and its 95 % interval; without draws of both, the widest that their own intervals leave.

        What two estimates are off by is taken for independent, of each other and of the draws.
        """
        difference = self.value - other.value
        if self.draws is None or other.draws is None:
            return difference, (self.interval[0] - other.interval[1], self.interval[1] - other.interval[0])
        from tracereplay.cost.intervals import middle

        low, high = middle(self.draws - other.draws, difference)
        below = math.hypot(difference - low, self.off[0], other.off[1])
        above = math.hypot(high - difference, self.off[1], other.off[0])
        return difference, (difference - below, difference + above)


def page_cost(row: Mapping[str, Any]) -> PageCost | None:
    """Of a row of a sweep's table; None for a failed point and for one without pages or prices."""
    value = row.get("per_page")
    if row.get("status") == FAILED or value is None:
        return None
    low, high = row.get("per_page_low95"), row.get("per_page_high95")
    interval = (value if low is None else low, value if high is None else high)
    draws = None
    if row.get("sample"):
        draws = _draws(row["sample"], str(row["profile"]), row.get("machine"), int(row["seed"]))
    return PageCost(float(value), draws, interval, _off(row, value))


def _off(row: Mapping[str, Any], value: float) -> Interval:
    """What a sampled point says of itself in ``intervals``."""
    ends = json.loads(row["intervals"]).get("per_page") if row.get("intervals") else None
    return (max(value - ends[0], 0.0), max(ends[1] - value, 0.0)) if ends else (0.0, 0.0)


@lru_cache(maxsize=2048)
def _draws(sample: str, profile: str, machine: str | None, seed: int) -> Floats | None:
    """Of a stored sample. Ranks, crossings and text ask for it one after another."""
    from tracereplay.cost.bootstrap import Sample
    from tracereplay.cost.intervals import judged
    from tracereplay.whatif.fleet_rows import cost_of_parts

    told = json.loads(sample)
    if "parts" in told:  # a row of a fleet
        draws = cost_of_parts(told["parts"], profile, seed).draws(0)
        return None if draws is None else draws[:DRAWS]
    p = _pricing(profile, json.loads(machine or "{}")["cpus"], seed)
    page = judged(Sample.from_json(told), p).page
    return None if page is None else page.both(p)


@lru_cache(maxsize=16)
def _pricing(profile: str, cpus: int, seed: int) -> Pricing:
    p = pricing_of(profile, seed, cpus)
    return replace(p, prices=p.prices[:DRAWS])
