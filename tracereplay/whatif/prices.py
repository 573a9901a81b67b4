"""Cost of a page of a point with its draws, so that two points at the same settings can be compared draw by draw.

Draws of prices and of requests are those of cost/intervals.py: equal for points of one seed, profile and demand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

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

    def minus(self, other: PageCost) -> tuple[float, Interval]:
        """Difference and its 95 % interval; without draws of both, the widest that their own intervals leave."""
        difference = self.value - other.value
        if self.draws is None or other.draws is None:
            return difference, (self.interval[0] - other.interval[1], self.interval[1] - other.interval[0])
        from tracereplay.cost.intervals import middle

        return difference, middle(self.draws - other.draws, difference)


def page_cost(row: Mapping[str, Any]) -> PageCost | None:
    """Of a row of a sweep's table; None for a failed point and for one without pages or prices."""
    value = row.get("per_page")
    if row.get("status") == "failed" or value is None:
        return None
    low, high = row.get("per_page_low95"), row.get("per_page_high95")
    interval = (value if low is None else low, value if high is None else high)
    draws = None
    if row.get("sample"):
        from tracereplay.cost.bootstrap import Sample
        from tracereplay.cost.intervals import judged

        p = _pricing(str(row["profile"]), _cpus(row), int(row.get("seed") or 0))
        page = judged(Sample.from_json(json.loads(row["sample"])), p).page
        draws = None if page is None else page.both(p)
    return PageCost(float(value), draws, interval)


def _cpus(row: Mapping[str, Any]) -> int | None:
    machine = row.get("machine")
    return json.loads(machine).get("cpus") if machine else None


@lru_cache(maxsize=16)
def _pricing(name: str, cpus: int | None, seed: int) -> Pricing:
    from tracereplay.cost.intervals import pricing
    from tracereplay.cost.profile import load_profile

    profile = load_profile(name)
    if cpus and any(number.name == "cpus" for number in profile.parameters):
        profile = profile.with_parameters(cpus=cpus)
    return pricing(profile, seed, DRAWS)
