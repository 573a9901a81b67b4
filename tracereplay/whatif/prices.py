"""Cost of a page of a point with its draws, so that two points at the same settings can be compared draw by draw.

Draws of prices and of requests are those of cost/intervals.py: equal for points of one seed, profile and demand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
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
        from tracereplay.cost.bootstrap import Sample
        from tracereplay.cost.intervals import judged

        sample = json.loads(row["sample"])
        if "parts" in sample:  # a row of a fleet
            return PageCost(float(value), _fleet_draws(row, sample["parts"]), interval, (0.0, 0.0))
        p = _pricing(str(row["profile"]), json.loads(row["machine"])["cpus"], int(row["seed"]))
        page = judged(Sample.from_json(sample), p).page
        draws = None if page is None else page.both(p)
    return PageCost(float(value), draws, interval, _off(row, value))


def _off(row: Mapping[str, Any], value: float) -> Interval:
    """What a sampled point says of itself in ``intervals``."""
    ends = json.loads(row["intervals"]).get("per_page") if row.get("intervals") else None
    return (max(value - ends[0], 0.0), max(ends[1] - value, 0.0)) if ends else (0.0, 0.0)


def _fleet_draws(row: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> Floats | None:
    from tracereplay.whatif.fleet_rows import cost_of_parts

    draws = cost_of_parts(parts, str(row["profile"]), int(row["seed"])).draws(0)
    return None if draws is None else draws[:DRAWS]


@lru_cache(maxsize=16)
def _pricing(profile: str, cpus: int, seed: int) -> Pricing:
    p = pricing_of(profile, seed, cpus)
    return replace(p, prices=p.prices[:DRAWS])
