"""Pricing: counters times coefficients. Linear, applied after the replay; re-pricing never re-runs anything.

Contention is not priced here: a lock costs what it costs uncontended (docs/cost-model.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tracereplay.cost.formula import evaluate
from tracereplay.cost.profile import Coefficient, Parameter, Profile
from tracereplay.errors import ProfileError
from tracereplay.machine.counters import NR_COUNTERS, slot

DRAWS = 4000
"""Monte Carlo draws behind an interval: the ends move by about 1 % of its width from seed to seed."""

NO_CORRELATION = 0.02
"""A matrix with an eigenvalue so far below 0 is none of correlations, beyond what rounding does to its figures."""

Floats = npt.NDArray[np.float64]


def price(counters: Mapping[str, int], profile: Profile) -> dict[str, float]:
    """Cost of a run by primitive, in the profile's unit. Counters that are absent count as 0."""
    return {c.name: c.value * sum(counters.get(counter, 0) for counter in c.counters) for c in profile.coefficients}


def total(counters: Mapping[str, int], profile: Profile) -> float:
    """Cost of a run in the profile's unit."""
    return math.fsum(price(counters, profile).values())


def unpriced(counters: Mapping[str, int], profile: Profile) -> dict[str, int]:
    """Work that happened and has no price in this profile; a total says nothing about it."""
    return {name: counters[name] for name in profile.unpriced if counters.get(name, 0)}


def price_vectors(vectors: npt.NDArray[Any], profile: Profile) -> Floats:
    """Cost of each row of ``vectors[v, >= NR_COUNTERS]`` (slots of ``machine/counters.py``)."""
    values = np.array([c.value for c in profile.coefficients])
    weights = weights_of(profile) @ values
    return np.asarray(np.asarray(vectors[:, :NR_COUNTERS], dtype=np.float64) @ weights)


def weights_of(profile: Profile) -> Floats:
    """How often a coefficient multiplies a counter, ``[NR_COUNTERS, coefficient]``."""
    weights = np.zeros((NR_COUNTERS, len(profile.coefficients)))
    for i, c in enumerate(profile.coefficients):
        for counter in c.counters:
            weights[slot(counter), i] += 1
    return weights


def percentiles(values: Floats, counts: npt.NDArray[Any], shares: Sequence[float]) -> list[float | None]:
    """For each share the smallest value that this part of all counts does not exceed (nearest rank). None: nothing."""
    n = int(counts.sum())
    if n == 0:
        return [None] * len(shares)
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(counts[order])
    # ceil(share * n) in integers: 0.99 * 100 is not 99 in binary
    ranks = [max(1, -(-round(share * 1_000_000) * n // 1_000_000)) for share in shares]
    return [float(values[order[at]]) for at in np.searchsorted(upto, ranks)]


def percentile(values: Floats, counts: npt.NDArray[Any], share: float) -> float | None:
    """One of :func:`percentiles`."""
    return percentiles(values, counts, [share])[0]


def price_by_counter(profile: Profile) -> dict[str, float]:
    """What one more of a counter costs, for those that have a price."""
    found: dict[str, float] = {}
    for c in profile.coefficients:
        for counter in c.counters:
            found[counter] = found.get(counter, 0.0) + c.value
    return found


def draw_prices(profile: Profile, seed: int, draws: int = DRAWS) -> Floats:
    """Random coefficients inside their ranges: ``[draws, coefficient]``, in the profile's order.

    Each number comes from a normal of its own width on either side of the value (median = value, 2.5 % below
    ``low``, 2.5 % above ``high``), never below 0. Numbers that the profile's ``correlation`` names are correlated
    as it says, the others independent; coefficients with a formula follow their parameters. Two strategies priced
    with one seed see the same draws, so their ratio has an interval as well.
    """
    joint = _joint_normals(profile, seed, draws)

    def draw(number: Parameter | Coefficient) -> Floats:
        low = number.value if number.low is None else number.low
        high = number.value if number.high is None else number.high
        z = joint[number.name] if number.name in joint else _normals(number.name, seed, draws)
        return _draw(z, number.value, low, high)

    parameters = {p.name: draw(p) for p in profile.parameters}
    columns = [
        np.broadcast_to(np.asarray(evaluate(c.formula, parameters), dtype=np.float64), (draws,))
        if c.formula
        else draw(c)
        for c in profile.coefficients
    ]
    return np.stack(columns, axis=1)


def _normals(name: str, seed: int, draws: int) -> Floats:
    """Standard normals for one number; they depend on seed and name only, not on what else the profile holds."""
    return np.random.default_rng([seed, crc32(name.encode())]).standard_normal(draws)


def _joint_normals(profile: Profile, seed: int, draws: int) -> dict[str, Floats]:
    """Normals of the numbers that were fitted together, correlated (a Gaussian copula)."""
    if profile.correlation is None:
        return {}
    names, rows = profile.correlation
    matrix = np.zeros((len(names), len(names)))
    for i, row in enumerate(rows):
        matrix[i, : i + 1] = matrix[: i + 1, i] = row
    # rounded figures, or numbers that determine each other: brought as near to the unit matrix as a root needs
    lacking = 1e-9 - 1.001 * min(float(np.linalg.eigvalsh(matrix)[0]), 0.0)
    if lacking > NO_CORRELATION:
        raise ProfileError(f"profile {profile.name!r}: its correlation is that of no random numbers")
    factor = np.linalg.cholesky((matrix + lacking * np.eye(len(names))) / (1 + lacking))
    independent = np.stack([_normals(name, seed, draws) for name in names])
    return dict(zip(names, factor @ independent, strict=True))


def _draw(z: Floats, value: float, low: float, high: float) -> Floats:
    width = np.where(z < 0, value - low, high - value) / 1.959964
    return np.maximum(value + z * width, 0.0)


def coefficient_intervals95(profile: Profile, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % range of each coefficient; of those with a formula, over their parameters."""
    low, high = np.quantile(draw_prices(profile, seed), [0.025, 0.975], axis=0)
    given = zip(profile.coefficients, low.tolist(), high.tolist(), strict=True)
    return {c.name: (a if c.low is None else c.low, b if c.high is None else c.high) for c, a, b in given}


def counts_of(counters: Mapping[str, int], profile: Profile) -> Floats:
    """What each price of a profile is multiplied by, ``[coefficient]``."""
    return np.array(
        [float(sum(counters.get(counter, 0) for counter in c.counters)) for c in profile.coefficients],
        dtype=np.float64,
    )


def interval95(counters: Mapping[str, int], profile: Profile, seed: int) -> tuple[float, float]:
    """Middle 95 % of the cost of a run over the uncertainty of the profile, and of nothing else."""
    costs = draw_prices(profile, seed) @ counts_of(counters, profile)
    low, high = np.quantile(costs, [0.025, 0.975])
    return float(low), float(high)


def ratio_interval95(
    counters: Mapping[str, int], baseline: Mapping[str, int], profile: Profile, seed: int
) -> tuple[float, float] | None:
    """Middle 95 % of cost / cost of ``baseline``, priced with the same draws. None if that is free."""
    prices = draw_prices(profile, seed)
    base = prices @ counts_of(baseline, profile)
    if not (base > 0).all():
        return None
    low, high = np.quantile(prices @ counts_of(counters, profile) / base, [0.025, 0.975])
    return float(low), float(high)


def cost_block(
    totals: Mapping[str, int],
    vectors: npt.NDArray[Any],
    counts: npt.NDArray[Any],
    profile: Profile,
    *,
    pages: int,
    requests: int,
    seed: int,
    worker: Mapping[str, int] | None = None,
    known: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The ``cost`` object of a result (architecture.md section 5), in the profile's unit.

    ``totals``: counters of the targeted requests and of the strategy's own work, ``worker``, which ``per_request``
    leaves out. ``vectors[v, slots]`` and ``counts[v]``: distinct
    per-request counter rows and how many requests had each. Percentiles are nearest-rank. What has no
    denominator is None. ``known``: the total's interval; else it is drawn, over the prices alone.
    """
    by_primitive = price(totals, profile)
    whole = math.fsum(by_primitive.values())
    of_requests = whole - math.fsum(price(worker or {}, profile).values())
    p50, p99 = percentiles(price_vectors(vectors, profile), counts, [0.50, 0.99])
    return {
        "unit": profile.unit,
        "total": whole,
        "per_page": whole / pages if pages else None,
        "per_request": {
            "mean": of_requests / requests if requests else None,
            "p50": p50,
            "p99": p99,
        },
        "interval95": list(known or interval95(totals, profile, seed)),
        "by_primitive": by_primitive,
    }
