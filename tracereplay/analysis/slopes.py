"""How fast something grows, with confidence: Theil and Sen's slope, and an interval by bootstrap over blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
RESAMPLES = 300
LEAST_STEPS = 8
"""Fewer steps tell nothing."""


def theil_sen(paths: Array) -> Array:
    """Median of the slopes between all pairs of points of each path [paths, points], in units a step.

    Sen (1968), "Estimates of the regression coefficient based on Kendall's tau", JASA 63. Up to 29 % of the points may
    be anything.
    """
    i, j = np.triu_indices(paths.shape[1], 1)
    slopes: Array = np.median((paths[:, j] - paths[:, i]) / (j - i), axis=1)
    return slopes


def slope_interval(path: Array, seed: int = 1) -> tuple[float, float, float]:
    """Slope of a path in units a step, and its 95 % interval.

    Steps of a live set are not independent, so blocks of them are drawn (Kunsch 1989, "The jackknife and the bootstrap
    for general stationary observations", Annals of Statistics 17), strung together to paths, and those paths' slopes
    ranked. A path that wanders without a drift has an interval around zero, and so has one that jumped once.
    """
    steps = np.diff(path.astype(np.float64))
    n = len(steps)
    size = max(2, round(n ** (1 / 3)))
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, n - size + 1, (RESAMPLES, -(-n // size)))
    drawn = steps[(starts[:, :, None] + np.arange(size)).reshape(RESAMPLES, -1)[:, :n]]
    paths = np.concatenate([np.zeros((RESAMPLES, 1)), np.cumsum(drawn, axis=1)], axis=1)
    low, high = np.percentile(theil_sen(paths), (2.5, 97.5))
    return float(theil_sen(path[None, :].astype(np.float64))[0]), float(low), float(high)
