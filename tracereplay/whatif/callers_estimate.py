"""From some callers to all: ratio estimates of counters, and how far they may be off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracereplay.whatif.sampled_estimate import ENDS, larger

DRAWS = 1000
UNSEEN = 3

I64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Sums over all callers, [counter]."""

    values: Floats
    low: Floats
    """Ends of 95 % intervals."""
    high: Floats


def estimate(
    sizes: I64, counted: I64, totals: I64, callers: int, seed: int, *, fixed: Sequence[bool], heavy: int = 0
) -> Estimate:
    """Estimate the sums of all ``callers``, of which the ``heavy`` ones were taken and some of the others drawn, two at
    least.

    ``sizes``: requests and pages of each of these, the heavy ones first, [taken, 2]; ``counted``: its counters,
    [taken, counter], none of them above its pages; ``totals``: requests and pages of all, [2]; ``fixed``: whether a
    counter is one a page always, or none.

    A counter goes with requests or with pages, by whichever varies less; the interval holds those of both. It is a
    bootstrap over callers, made larger for so few by Student's t, smaller by the finite population. And callers that
    were not drawn may be as none of the drawn ones is (the rule of three): 3 in n + 3 of them may be as far from the
    ratio as the farthest seen, and so many of their pages may have none of the counter, or one each.
    """
    certain = counted[:heavy].sum(axis=0).astype(np.float64)
    totals, callers = totals - sizes[:heavy].sum(axis=0), callers - heavy
    sizes, counted = sizes[heavy:], counted[heavy:]
    n, seen = len(sizes), counted.sum(axis=0).astype(np.float64)
    if n == callers:
        return Estimate(certain + seen, certain + seen, certain + seen)
    random = np.random.default_rng([seed, n])
    times = random.multinomial(n, np.full(n, 1 / n), DRAWS)
    unseen = UNSEEN / (n + UNSEEN)
    found = []
    for size, total in zip(sizes.T.astype(np.float64), totals.tolist(), strict=True):
        ratio = seen / size.sum()
        again = (times @ counted) / (times @ size)[:, None]
        off = total * math.sqrt(1 - n / callers) * larger(again - ratio, n, 1)
        farthest = np.abs(counted - size[:, None] * ratio).max(axis=0)
        more = unseen * (callers - n) * farthest * np.array([[-1], [1]])
        found.append((total * ratio, off.std(axis=0), total * ratio + np.quantile(off, ENDS, axis=0) + more))
    by_request, by_page = found
    values = np.where(by_request[1] < by_page[1], by_request[0], by_page[0])
    rest, rest_pages = np.maximum(values - seen, 0), float(totals[1] - sizes[:, 1].sum())
    low = np.minimum(by_request[2][0], by_page[2][0]) - unseen * rest
    high = np.maximum(by_request[2][1], by_page[2][1]) + unseen * np.maximum(rest_pages - rest, 0)
    always = np.array(fixed)
    values = np.where(always, by_page[0], values)
    low, high = np.where(always, values, low), np.where(always, values, high)
    low, high = np.maximum(np.minimum(low, values), seen), np.maximum(high, values)
    return Estimate(certain + values, certain + low, certain + high)
