"""Fit a profile to measured cases: non-negative least squares of what the machine counts against what a kernel took.

Allocation and release of a case are an equation each. Errors are relative, and an equation far off the others weighs
less (Huber): a case whose free lists were not as assumed takes a few splits more, whatever a split costs. A primitive
that the cases do not tell apart from another one shares with it in the ratio of ROUGH figures; one that they never
use keeps that of the base profile, as an assumption.

Intervals are the middle 95 % of refits to rows drawn anew (with replacement), with rough figures drawn anew as well:
what only those decide has the width of what is known of them, a factor of three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracereplay.cost.cases import Outcome
from tracereplay.cost.primitives import FACTOR, PRIMITIVES, Primitive
from tracereplay.cost.rows import Row
from tracereplay.machine.counters import slot

Floats = npt.NDArray[np.float64]


TIMERS = ("alloc", "free")
ROUGH_TIMER = 45.0
"""Instructions of the time stamps and of the loop around them."""

ROUGH_WEIGHT = 0.01
"""Of a rough figure, against an equation: it moves nothing that the rows decide."""
HUBER = 1.5
LEAST_SCALE = 0.005
"""Relative errors below this are not told apart."""
ITERATIONS = 20
REFITS = 400


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted profile's numbers."""

    names: tuple[str, ...]
    """Primitives that the rows use, then the two timers."""
    values: Floats
    low: Floats
    high: Floats
    correlation: Floats
    decided: tuple[bool, ...]
    """Whether the rows decide the value, or the rough figure beside another primitive does."""
    scale: float
    """Unit of the rows for a rough instruction: 1 where rows are instructions."""
    relative_errors: Floats
    """``[2 * rows]``: (predicted - measured) / measured of allocations, then releases."""


def fit_rows(rows: Sequence[Row], outcomes: Sequence[Outcome], seed: int = 0, *, refits: int = REFITS) -> Fit:
    """Fit all rows, which are of one kernel. ``outcomes``: what the machine counted in their cases.

    ``refits``: how many make the intervals; values do not hang on them.
    """
    used = [p for p in PRIMITIVES if any(_count(p, o.alloc) + _count(p, o.free) > 0 for o in outcomes)]
    design, measured, weights = _equations(used, rows, outcomes)
    rough = np.array([p.rough for p in used] + [ROUGH_TIMER] * len(TIMERS))
    scale = 1.0 if rows[0].unit == "instructions" else float(np.median(measured / (design @ rough)))
    rough *= scale
    values = _solve(design, measured, weights, rough)
    names = (*(p.name for p in used), *(f"timer_{t}" for t in TIMERS))
    drawn = _refits(design, measured, weights, rough, seed, refits)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    spread = np.log(FACTOR) / 1.96
    decided = tuple(bool(s < spread * v / 2) or v == 0 for s, v in zip(drawn.std(axis=0), values, strict=True))
    return Fit(
        names, values, np.minimum(low, values), np.maximum(high, values), _correlation(drawn), decided, scale,
        (design @ values - measured) / measured,
    )  # fmt: skip


def _count(primitive: Primitive, counters: Floats) -> float:
    return float(sum(counters[slot(name)] for name in primitive.counters))


def _equations(
    used: Sequence[Primitive], rows: Sequence[Row], outcomes: Sequence[Outcome]
) -> tuple[Floats, Floats, Floats]:
    """Counts ``[2 * rows, primitives + timers]``, measured figures, and weights: 1 / figure, at least a tenth of the
    buffer's whole cost."""
    halves = []
    for index in range(len(TIMERS)):
        timer = np.eye(len(TIMERS))[index]
        counted = [(o.alloc, o.free)[index] for o in outcomes]
        halves.append(np.array([[*(_count(p, c) for p in used), *timer] for c in counted]))
    measured = np.array([row.alloc for row in rows] + [row.free for row in rows])
    totals = np.tile([row.total for row in rows], 2)
    return np.concatenate(halves), measured, 1 / np.maximum(measured, totals / 10)


def _solve(design: Floats, measured: Floats, weights: Floats, rough: Floats) -> Floats:
    """Non-negative coefficients by iteratively reweighted least squares."""
    from scipy.optimize import nnls

    pull = np.diag(ROUGH_WEIGHT / rough)
    target = np.full(len(rough), ROUGH_WEIGHT)
    trust = np.ones(len(measured))
    values = rough
    for _ in range(ITERATIONS):
        factor = (np.sqrt(trust) * weights)[:, None]
        values = nnls(np.concatenate([design * factor, pull]), np.concatenate([measured * factor[:, 0], target]))[0]
        error = np.abs(design @ values - measured) * weights
        limit = HUBER * max(float(np.median(error)) / 0.6745, LEAST_SCALE)
        trust = np.minimum(1.0, limit / np.maximum(error, 1e-12))
    return np.asarray(values, dtype=np.float64)


def _refits(design: Floats, measured: Floats, weights: Floats, rough: Floats, seed: int, refits: int) -> Floats:
    """``[refits, coefficients]``: fits to rows drawn anew, with rough figures drawn anew."""
    rng = np.random.default_rng(seed)
    half = len(measured) // 2
    found = []
    for _ in range(refits):
        chosen = rng.integers(0, half, half)
        both = np.concatenate([chosen, chosen + half])
        drawn = rough * np.exp(rng.standard_normal(len(rough)) * np.log(FACTOR) / 1.96)
        found.append(_solve(design[both], measured[both], weights[both], drawn))
    return np.array(found)


def _correlation(refits: Floats) -> Floats:
    """Correlation of the coefficients over the refits; what does not vary is correlated with nothing."""
    deviation = refits - refits.mean(axis=0)
    width = np.sqrt((deviation**2).sum(axis=0))
    fixed = width == 0
    deviation[:, ~fixed] /= width[~fixed]
    matrix = deviation.T @ deviation
    np.fill_diagonal(matrix, 1.0)
    return np.asarray(matrix, dtype=np.float64)
