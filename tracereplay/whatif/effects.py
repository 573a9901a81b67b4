"""What a change of one tunable does to the costs of strategies and to their ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracereplay.whatif.ranking import Point, Row, Standing, point, standings
from tracereplay.whatif.steps import Change

COLUMNS = (
    *("tunable", "from", "to", "strategy", "effect_percent", "low95", "high95"),
    *("cheapest_before", "cheapest_after", "changes_ranking", "settled", "verdict"),
)
LEAST_PERCENT = 0.5
"""Effects below this are none that anybody would tune for."""
NO_EFFECT = "no effect"


@dataclass(frozen=True, slots=True)
class Here:
    """Strategies as things are."""

    points: list[Point]

    @property
    def best(self) -> tuple[str, Standing]:
        """The cheapest."""
        return best_of(self.points)


@dataclass(frozen=True, slots=True)
class Effect:
    """On one strategy's cost of a page, percent."""

    label: str
    percent: float
    low: float
    high: float

    @property
    def beyond(self) -> bool:
        """Whether it is one: the interval does not hold 0, and it is not too small to matter."""
        return (self.low > 0 or self.high < 0) and abs(self.percent) >= LEAST_PERCENT


def best_of(points: Sequence[Point]) -> tuple[str, Standing]:
    """Label and standing of the cheapest of some."""
    return next((p.label, s) for p, s in zip(points, standings(points), strict=True) if s.rank == 1)


def on_strategy(before: Point, after: Point) -> Effect | None:
    """Of two points of a strategy; None where it cost nothing before."""
    if before.cost.value <= 0:
        return None
    percent = 100 * (after.cost.value / before.cost.value - 1)
    low, high = percent, percent
    if before.cost.draws is not None and after.cost.draws is not None:
        from tracereplay.cost.intervals import middle

        paid = before.cost.draws > 0
        low, high = middle(100 * (after.cost.draws[paid] / before.cost.draws[paid] - 1), percent)
    return Effect(before.label, percent, low, high)


def effect_of(change: Change, here: Here, rows: Sequence[Row]) -> dict[str, Any]:
    """A row of COLUMNS. ``rows``: points of the strategies that the change concerns; the others stay as they are."""
    told: dict[str, Any] = dict.fromkeys(COLUMNS)
    told |= {"tunable": change.name, "from": change.before, "to": change.value, "changes_ranking": False}
    changed = {p.label: p for row in rows if "label" in row and (p := point(row))}
    if not changed:
        error = next((row["error"] for row in rows if row.get("error")), "nothing was targeted")
        return told | {"verdict": f"not run: {error}"}
    effects = [e for p in here.points if p.label in changed and (e := on_strategy(p, changed[p.label]))]
    before, was = here.best
    after, standing = best_of([changed.get(p.label, p) for p in here.points])
    most = max(effects, key=lambda e: (e.beyond, abs(e.percent)), default=None)
    if most is not None:
        told |= {"strategy": most.label, "effect_percent": most.percent, "low95": most.low, "high95": most.high}
    ranks = {"cheapest_before": before, "cheapest_after": after, "changes_ranking": before != after}
    verdict = _verdict(before, was, after, standing, most)
    return told | ranks | {"settled": standing.settled, "verdict": verdict}


def _verdict(before: str, was: Standing, after: str, now: Standing, most: Effect | None) -> str:
    if most is None or not most.beyond:
        return NO_EFFECT
    if before != after:
        return f"makes {after} cheapest" if now.settled else f"may make {after} cheapest"
    if was.settled and not now.settled:
        return f"leaves open whether {after} is cheapest"
    if now.settled and was.settled is False:
        return f"settles that {after} is cheapest"
    return f"{most.label} {'dearer' if most.percent > 0 else 'cheaper'}, same ranking"
