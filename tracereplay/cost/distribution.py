"""How the cost of requests is spread: percentiles, histogram, what the dearest hundredth takes.

Everything is exact: a *value* for each distinct counter vector, and how many requests had it. Nothing here knows which
unit the values have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.cost.price import Floats, percentiles, price_vectors
from tracereplay.cost.profile import Profile
from tracereplay.replay.engine import Outcome

SHARES = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
"""Percentiles that are given, besides the largest value."""
TOP = 0.01
"""The dearest requests whose part of the total is given."""
PER_DECADE = 10
"""Steps of the histogram in each power of ten."""

Counts = npt.NDArray[np.int64]


def share_of_top(values: Floats, counts: Counts, top: float = TOP) -> float | None:
    """Part of the sum of all values that the largest ``top`` of them (rounded up) have; None of nothing."""
    n, whole = int(counts.sum()), float(values @ counts)
    if n == 0 or whole <= 0:
        return None
    order = np.argsort(-values, kind="stable")
    left = -(-round(top * 1_000_000) * n // 1_000_000)
    taken = np.clip(left - (np.cumsum(counts[order]) - counts[order]), 0, counts[order])
    return float(values[order] @ taken) / whole


def edges_for(spreads: Sequence[tuple[Floats, Counts]]) -> list[float]:
    """Edges of a histogram, PER_DECADE to a power of ten, that hold all positive values of all ``spreads``."""
    seen = [values[(counts > 0) & (values > 0)] for values, counts in spreads]
    found = np.concatenate([np.zeros(0), *seen])
    if not len(found):
        return []
    low, high = (int(np.floor(np.log10(end) * PER_DECADE)) for end in (found.min(), found.max()))
    edges = [_edge(k) for k in range(low, high + 2)]
    if found.min() < edges[0]:  # where rounding went over an edge
        edges.insert(0, _edge(low - 1))
    if found.max() >= edges[-1]:
        edges.append(_edge(high + 2))
    return edges


def _edge(k: int) -> float:
    """An edge as it is written: four digits."""
    return float(f"{10 ** (k / PER_DECADE):.4g}")


def histogram(values: Floats, counts: Counts, edges: Sequence[float]) -> dict[str, Any]:
    """How many requests cost from one edge to below the next one; ``zero``: how many cost nothing."""
    positive = values > 0
    bins = np.zeros(max(len(edges) - 1, 0), np.int64)
    if len(bins):
        np.add.at(bins, np.searchsorted(edges, values[positive], side="right") - 1, counts[positive])
    return {"edges": list(edges), "requests": bins.tolist(), "zero": int(counts[~positive].sum())}


def spread(values: Floats, counts: Counts, edges: Sequence[float]) -> dict[str, Any]:
    """The distribution of a cost over requests, or bios, as plain values; what nothing has is None."""
    n = int(counts.sum())
    found = percentiles(values, counts, [*SHARES.values(), 1.0])
    return {
        "count": n,
        "mean": float(values @ counts) / n if n else None,
        "percentiles": dict(zip([*SHARES, "max"], found, strict=True)),
        "top1_percent_share": share_of_top(values, counts),
        "histogram": histogram(values, counts, edges),
    }


def median_vector(values: Floats, counts: Counts) -> int | None:
    """Row of a request of the median cost (nearest rank). None of nothing."""
    n = int(counts.sum())
    if n == 0:
        return None
    order = np.argsort(values, kind="stable")
    return int(order[np.searchsorted(np.cumsum(counts[order]), -(-n // 2))])


def distributions(outcomes: Sequence[Outcome], profile: Profile) -> list[dict[str, Any]]:
    """The ``distribution`` of each strategy's result: cost per request and per bio, in histograms of the same edges."""
    requests = [(price_vectors(outcome.vectors, profile), outcome.counts) for outcome in outcomes]
    bios = [(price_vectors(outcome.bio_vectors, profile), outcome.bio_counts) for outcome in outcomes]
    edges = edges_for([*requests, *bios])
    return [
        {
            "unit": profile.unit,
            "per_request": spread(*of_requests, edges),
            "per_bio": spread(*of_bios, edges) | _bios(outcome) if of_bios[1].sum() else None,
        }
        for outcome, of_requests, of_bios in zip(outcomes, requests, bios, strict=True)
    ]


def _bios(outcome: Outcome) -> dict[str, Any]:
    """How requests and bios belong together. ``pieces`` requests serve ``in_pieces`` bios, each other bio is a request.

    ``cut``: bios in pieces not all of which came by the end of the trace; they count with those that did.
    """
    pieces, in_pieces, cut = outcome.bio_pieces
    return {
        "pieces": pieces,
        "in_pieces": in_pieces,
        "cut": cut,
        "requests_without": int(outcome.counts.sum()) - pieces - int(outcome.bio_counts.sum()) + in_pieces,
    }
