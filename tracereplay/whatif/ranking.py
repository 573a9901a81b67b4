"""Which strategy is cheapest at each setting of a sweep, whether that is settled, and where it changes.

A *setting* is a value of every axis that all strategies share, of one trace, seed and profile. At it compete all points
there are: one of each strategy, or several where an axis belongs to one strategy (``bulk.batch_cap``). A point is
compared with the cheapest of another strategy, or of its own where there is no other, draw by draw; the ranking is
*settled* where the 95 % interval of that difference does not hold 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracereplay.machine.options import KEYS
from tracereplay.whatif.prices import PageCost, page_cost

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, Any]

COLUMNS = ("rank", "versus", "difference_per_page", "difference_low95", "difference_high95", "settled")
"""What a table gains at its end."""
MORE_FAILURES = 0.001
"""Share of requests by which a strategy may fail more often than the best and still be compared by its price."""
SETTING = ("trace_id", "profile", "seed")
"""Columns that are equal among points that compete, beside the shared axes."""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A row of the table that has a price, among those that compete with it."""

    row: Row
    name: str
    """Label, and the values of the strategy's own axes: ``bulk[batch_cap=16]``."""
    cost: PageCost
    failed: float
    """Share of its requests that got nothing, or still waited at the end."""

    @property
    def label(self) -> str:
        """The strategy's."""
        return str(self.row["label"])


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a point stands at its setting; nothing is known of one without a price."""

    rank: int | None = None
    """1 is the cheapest of those that serve about as many requests as the best does, then those that do not."""
    versus: str | None = None
    difference: float | None = None
    """Cost of a page less that of ``versus``."""
    interval: tuple[float, float] | None = None
    settled: bool | None = None
    """Whether the interval does not hold 0, or one of both leaves requests unserved; None without a rival."""

    @property
    def unsettledness(self) -> float:
        """0 where settled, up to 1 where 0 is the middle of the difference's interval.

        0 also of those that cost the same in every draw: no further point tells them apart.
        """
        if self.settled or self.interval is None or self.interval[0] == self.interval[1]:
            return 0.0
        low, high = self.interval
        return 2 * min(-low, high) / (high - low)

    def columns(self) -> dict[str, Any]:
        """As COLUMNS."""
        low, high = self.interval or (None, None)
        return dict(
            zip(COLUMNS, (self.rank, self.versus, self.difference, low, high, self.settled), strict=True),
        )


def own_axes(axes: Sequence[str], labels: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Axes that belong to one strategy, by its label: those called ``LABEL.PARAMETER``."""
    own = {label: tuple(a for a in axes if a not in KEYS and a.startswith(f"{label}.")) for label in labels}
    return {label: names for label, names in own.items() if names}


def point(row: Row, own: Sequence[str] = ()) -> Point | None:
    """Of a row; None without a price. ``own``: the strategy's own axes."""
    cost = page_cost(row)
    if cost is None:
        return None
    told = ",".join(f"{axis.partition('.')[2]}={row[axis]}" for axis in own if row.get(axis) is not None)
    name = str(row["label"]) + (f"[{told}]" if told else "")
    lost = (row.get("failed") or 0) + (row.get("waiting") or 0)
    return Point(row, name, cost, lost / max(row.get("requests") or 0, lost, 1))


def standings(points: Sequence[Point]) -> list[Standing]:
    """Of points that compete, in their order."""
    least = min((p.failed for p in points), default=0.0) + MORE_FAILURES
    order = sorted(points, key=lambda p: (p.failed > least, p.cost.value, p.name))
    found = []
    for p in points:
        rank = order.index(p) + 1
        rival = next((o for o in order if o.label != p.label), None) or next((o for o in order if o is not p), None)
        if rival is None:
            found.append(Standing(rank))
            continue
        difference, interval = p.cost.minus(rival.cost)
        apart = (p.failed > least) != (rival.failed > least) or interval[0] > 0 or interval[1] < 0
        found.append(Standing(rank, rival.name, difference, interval, apart))
    return found


def rank_rows(rows: Sequence[Row], axes: Sequence[str]) -> list[dict[str, Any]]:
    """COLUMNS for each row, in their order. Holds the draws of one setting at a time."""
    own = own_axes(axes, sorted({str(row["label"]) for row in rows}))
    shared = [axis for axis in axes if not any(axis in names for names in own.values())]
    settings: dict[tuple[Any, ...], list[int]] = {}
    for i, row in enumerate(rows):
        settings.setdefault(tuple(row.get(name) for name in (*SETTING, *shared)), []).append(i)
    found = [Standing() for _ in rows]
    for places in settings.values():
        points = {i: p for i in places if (p := point(rows[i], own.get(str(rows[i]["label"]), ())))}
        for i, standing in zip(points, standings(list(points.values())), strict=True):
            found[i] = standing
    return [standing.columns() for standing in found]


def with_ranks(frame: pl.DataFrame, axes: Sequence[str]) -> pl.DataFrame:
    """The table with COLUMNS at its end (replaced where it has them)."""
    import polars as pl

    kinds = (pl.Int64, pl.String, pl.Float64, pl.Float64, pl.Float64, pl.Boolean)
    ranks = pl.DataFrame(rank_rows(frame.to_dicts(), axes), schema=dict(zip(COLUMNS, kinds, strict=True)))
    return pl.concat([frame.drop(COLUMNS, strict=False), ranks], how="horizontal")
