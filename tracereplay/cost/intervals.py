"""95 % intervals of priced figures, and comparisons: draws of the prices (cost/price.py) times draws of the requests
(cost/bootstrap.py), draw by draw, the same for all strategies.

Three intervals are told apart: over both, over the prices alone (the trace's requests as they are), over the requests
alone (each price at its value). A figure itself always lies in its interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracereplay.cost.bootstrap import Floats, Resampling, Sample, resampling
from tracereplay.cost.price import DRAWS, draw_prices, percentiles, weights_of
from tracereplay.cost.profile import Profile
from tracereplay.cost.tornado import Swing, hinge, swings_of, tornado

PERCENTILE_DRAWS = 512
ENOUGH_FOR_P99 = 368
"""Of fewer requests, the largest is below the 99th percentile of their kind with a probability of more than 2.5 %."""
CLASSES = 512
"""Percentiles are drawn from so many classes of requests at most: neighbours in price are put together."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Pricing:
    """A profile's numbers, ready to be multiplied."""

    profile: Profile
    seed: int
    matrix: Floats
    """Which counters a coefficient multiplies, [counter, coefficient]."""
    values: Floats
    """[coefficient]"""
    prices: Floats
    """[draw, coefficient]"""
    swings: tuple[Swing, ...]


def pricing(profile: Profile, seed: int, draws: int = DRAWS) -> Pricing:
    """Draws of a profile's prices for one seed."""
    return Pricing(
        profile=profile,
        seed=seed,
        matrix=weights_of(profile),
        values=np.array([c.value for c in profile.coefficients]),
        prices=draw_prices(profile, seed, draws),
        swings=swings_of(profile),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A figure: a sum of counts times prices."""

    counts: Floats
    """[coefficient]"""
    draws: Floats
    """The counts in each draw of the requests, [draw, coefficient]; [1, coefficient] where sampling is not judged."""

    def value(self, p: Pricing) -> float:
        """At the values of the prices."""
        return math.fsum(self.counts * p.values)

    def both(self, p: Pricing) -> Floats:
        """Draws over prices and requests."""
        return np.asarray((self.draws * p.prices).sum(axis=1))

    def interval(self, p: Pricing) -> Interval:
        """Over prices and requests."""
        return middle(self.both(p), self.value(p))

    def of_prices(self, p: Pricing) -> Interval:
        """Over the prices alone."""
        return middle((self.counts * p.prices).sum(axis=1), self.value(p))

    def of_sampling(self, p: Pricing) -> Interval | None:
        """Over the requests alone. None where that is not judged."""
        return middle((self.draws * p.values).sum(axis=1), self.value(p)) if len(self.draws) > 1 else None


def middle(draws: Floats, value: float) -> Interval:
    """Middle 95 % of ``draws``, ``value`` included."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return min(float(low), value), max(float(high), value)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A strategy's sample, resampled."""

    sample: Sample
    resampling: Resampling
    page: Drawn | None
    """Cost of a page; None without pages."""
    request: Drawn | None
    """Cost of a request, the strategy's own work apart; None without requests."""


def judged(sample: Sample, p: Pricing) -> Judged:
    """A sample with its resampled counts."""
    drawn = resampling(sample, p.seed, len(p.prices))
    of_requests = sample.counters @ p.matrix
    pages = int(sample.pages.sum())
    page = None
    if pages:
        page = _per(of_requests + sample.worker @ p.matrix, sample.pages, drawn)
        end = sample.end @ p.matrix / pages
        page = Drawn(page.counts + end, page.draws + end)
    request = _per(of_requests, sample.requests, drawn) if sample.requests.sum() else None
    return Judged(sample, drawn, page, request)


def _per(amounts: Floats, divisors: Any, drawn: Resampling) -> Drawn:
    """Amounts by slice over divisors by slice, in each draw."""
    whole = amounts.sum(axis=0) / divisors.sum()
    if not drawn.judged:
        return Drawn(whole, whole[None])
    used = amounts.any(axis=0)  # most of what a profile prices does not happen
    found = (drawn.times @ amounts[:, used]) / (drawn.times @ divisors)[:, None]
    draws = np.zeros((len(drawn.times), len(whole)))
    draws[:, used] = np.maximum(whole[used] + drawn.stretch * (found - whole[used]), 0.0)
    return Drawn(whole, draws)


def cost_intervals(strategy: Judged, p: Pricing) -> dict[str, Any]:
    """What ``cost`` of a result holds beside the figures, in the profile's unit. Without pages: zeros or None."""
    pages = int(strategy.sample.pages.sum())
    page = strategy.page
    nothing = {"interval95": [0.0, 0.0], "interval95_prices": [0.0, 0.0], "interval95_sampling": None}
    if page is None:
        return nothing | {"per_page_interval95": None, "by_primitive_interval95": {}, "tornado": []} | told(strategy)
    both, prices, sampling = page.interval(p), page.of_prices(p), page.of_sampling(p)
    parts = np.quantile(page.draws * p.prices, [0.025, 0.975], axis=0)
    values = page.counts * p.values
    low, high = np.minimum(parts[0], values), np.maximum(parts[1], values)
    return {
        "interval95": _scaled(both, pages),
        "interval95_prices": _scaled(prices, pages),
        "interval95_sampling": None if sampling is None else _scaled(sampling, pages),
        "per_page_interval95": list(both),
        "by_primitive_interval95": {
            c.name: [float(low[i]) * pages, float(high[i]) * pages]
            for i, c in enumerate(p.profile.coefficients)
            if values[i]
        },
        "tornado": tornado(p.swings, page.counts, sampling),
        **told(strategy),
    }


def told(strategy: Judged) -> dict[str, Any]:
    """``sampling``: how the requests were resampled, also in words."""
    r = strategy.resampling
    requests = int(strategy.sample.requests.sum())
    many = (
        f"{requests:,} request{'s' if requests != 1 else ''} in {r.slices} slice{'s' if r.slices != 1 else ''} of time"
    )
    how = f"resampled in blocks of {r.length}" if r.judged else "too few to judge"
    note = f"{many}, {how}" if requests else "no requests"
    if r.judged and requests < ENOUGH_FOR_P99:
        note += "; too few for the upper end of p99"
    found = {"judged": r.judged, "requests": requests, "slices": r.slices, "block": r.length, "note": note}
    return {"sampling": found}


def _scaled(ends: Interval, factor: float) -> list[float]:
    return [ends[0] * factor, ends[1] * factor]


def percentile_intervals(strategy: Judged, p: Pricing, shares: Sequence[float]) -> list[Interval | None]:
    """95 % intervals of nearest-rank percentiles of the cost of a request. None where the requests are not known.

    No resample holds a request that the trace does not: of fewer than 368 requests, an interval of the 99th percentile
    ends too low.
    """
    sample, r = strategy.sample, strategy.resampling
    requests = int(sample.requests.sum())
    if sample.vectors is None or not requests:
        return [None for _ in shares]
    vectors = sample.vectors @ p.matrix
    every, counts = vectors @ p.values, sample.counts
    vectors, cells = classes(vectors, sample.cells, p.values)
    places = cells[:, 1] * len(vectors) + cells[:, 0]
    in_slice = np.bincount(places, cells[:, 2], r.slices * len(vectors)).reshape(r.slices, -1)
    draws = min(PERCENTILE_DRAWS, len(p.prices))
    costs = p.prices[:draws] @ vectors.T
    order = np.argsort(costs, axis=1)
    costs = np.take_along_axis(costs, order, axis=1)
    own = in_slice.sum(axis=0) / requests
    drawn = own[None]
    if r.judged:
        drawn = r.times[:draws] @ in_slice
        drawn = np.maximum(own + r.stretch * (drawn / drawn.sum(axis=1, keepdims=True) - own), 0.0)
    upto = np.take_along_axis(np.broadcast_to(drawn, costs.shape), order, axis=1).cumsum(axis=1)
    found: list[Interval | None] = []
    for share, own_value in zip(shares, percentiles(every, counts, shares), strict=True):
        places = (upto < (share - 1e-9) * upto[:, -1:]).sum(axis=1)
        found.append(middle(costs[np.arange(draws), places], own_value or 0.0))
    return found


def classes(vectors: Floats, cells: Any, values: Floats) -> tuple[Floats, Any]:
    """At most CLASSES distinct requests: neighbours in price as one, about as many requests each, with mean counts."""
    if len(vectors) <= CLASSES:
        return vectors, cells
    counts = np.bincount(cells[:, 0], cells[:, 2], len(vectors))
    order = np.argsort(vectors @ values, kind="stable")
    before = counts[order].cumsum() - counts[order]
    firsts = np.unique(np.searchsorted(before, np.arange(CLASSES) * (counts.sum() / CLASSES)))
    sizes = np.add.reduceat(counts[order], firsts)
    merged = np.add.reduceat(vectors[order] * counts[order, None], firsts, axis=0) / sizes[:, None]
    class_of = np.empty(len(vectors), np.int64)
    class_of[order] = np.searchsorted(firsts, np.arange(len(vectors)), side="right") - 1
    return merged, np.stack([class_of[cells[:, 0]], cells[:, 1], cells[:, 2]], axis=1)


def compared(label: str, strategy: Judged, baseline_label: str, baseline: Judged, p: Pricing) -> dict[str, Any]:
    """One row of ``comparison``: cost of a page against the baseline's, drawn with the same prices and requests.

    ``judged``: whether the interval covers the requests too. ``beyond``: it does not hold 0. ``hinges_on``: the number
    that has to change least, for its range, until both cost the same.
    """
    row: dict[str, Any] = {"label": label, "baseline": baseline_label, "judged": strategy.resampling.judged}
    a, b = strategy.page, baseline.page
    if a is None or b is None:
        names = ("difference", "difference_interval95", "ratio", "ratio_interval95")
        return row | dict.fromkeys(names) | {"beyond": False, "hinges_on": None, "tornado": []}
    ours, theirs = a.both(p), b.both(p)
    cost, base = a.value(p), b.value(p)
    difference = middle(ours - theirs, cost - base)
    paid = theirs > 0  # a draw may make the little that it does free
    ratio = middle(ours[paid] / theirs[paid], cost / base) if base > 0 else None
    apart = Drawn(a.counts - b.counts, a.draws - b.draws)
    rows = tornado(p.swings, apart.counts, apart.of_sampling(p))
    return row | {
        "difference": cost - base,
        "difference_interval95": list(difference),
        "ratio": cost / base if base > 0 else None,
        "ratio_interval95": None if ratio is None else list(ratio),
        "beyond": difference[0] > 0 or difference[1] < 0,
        "hinges_on": hinge(p.swings, apart.counts),
        "tornado": rows,
    }
