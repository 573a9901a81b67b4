"""From some blocks to the whole: what a point's counters come to, and how far that may be off.

What is known of every block is what the baseline paid there. A point's counters are estimated by their difference from
it: the baseline's sum, and for each block the drawn ones' mean difference, or that which a line through them has there
(difference and regression estimators; Cochran, Sampling Techniques, 3rd ed., 7.1 to 7.4), whichever varies less. So
where a point pays what the baseline pays, any blocks give the exact figure. Two errors are told apart.

*Sampling.* Blocks are drawn without replacement: a bootstrap over the drawn ones, its deviations made larger by
Student's t for so few, smaller by the finite population (sqrt(1 - n/N)); the interval holds those of both estimators.
Differences come in bursts, and the blocks that were not drawn may hold larger ones than all drawn: three more as far
off as the farthest that was seen anywhere count on either side.

*Warm-up.* A block is replayed from a state that the baseline left, which some blocks of the trace's beginning show by
their exact counters: there the point itself was replayed from the start. The interval is widened by their mean
difference, to the end of its own 95 % interval; to that side only to which it points. The estimate stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracereplay.cost.bootstrap import student

NORMAL = 1.959964
"""97.5 % quantile of the normal distribution."""
ENDS = (0.025, 0.975)
MORE_BURSTS = 3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """What was measured on drawn blocks."""

    known: Floats
    """What the baseline paid in all blocks that could be drawn, [figure]."""
    blocks: int
    """How many these are."""
    base: Floats
    """What it paid in the drawn ones, [drawn, figure]."""
    off: Floats
    """What the point paid beyond that, [drawn, figure]."""
    farthest: Floats
    """By how much a block was seen to differ from the baseline, at most, [figure]."""
    left: Floats
    """What the warm-up left out in blocks whose exact counters are known, [judged, figure]."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Sums over all blocks that could be drawn."""

    values: Floats
    """[figure]"""
    draws: Floats
    """Of the bootstrap, [draw, figure]."""
    low: Floats
    """95 % interval of both errors, [figure]."""
    high: Floats
    warmup: Floats
    """What of it is the warm-up's: to the low side and to the high, [2, figure]."""


def estimate(drawn: Drawn, draws: int, seed: int) -> Estimate:
    """Estimate the sums of all blocks. At least 3 drawn and 2 judged ones are needed."""
    random = np.random.default_rng([seed, len(drawn.off)])
    n = len(drawn.off)
    rest = drawn.blocks * math.sqrt(max(1 - n / drawn.blocks, 0.0))
    times = random.multinomial(n, np.full(n, 1 / n), draws) / n
    whole = np.full((1, n), 1 / n)
    plain = drawn.off.mean(axis=0)
    along = regression(whole, drawn)[0]
    by_mean = rest * larger(times @ drawn.off - plain, n, 1)
    by_line = rest * larger(regression(times, drawn) - along, n, 2)
    farthest = MORE_BURSTS * drawn.farthest * (drawn.blocks - n) / (n + MORE_BURSTS)
    judged = len(drawn.left)
    again = random.multinomial(judged, np.full(judged, 1 / judged), draws) / judged
    mean_left = drawn.left.mean(axis=0)
    left = mean_left + np.quantile(larger(again @ drawn.left - mean_left, judged, 1), ENDS, axis=0)
    warmup = drawn.blocks * np.stack([np.minimum(left[0], 0), np.maximum(left[1], 0)])
    line = by_line.std(axis=0) < by_mean.std(axis=0)
    values = drawn.known + drawn.blocks * np.where(line, along, plain)
    ends = [
        drawn.known + drawn.blocks * mean + np.quantile(deviations, ENDS, axis=0)
        for mean, deviations in ((plain, by_mean), (along, by_line))
    ]
    return Estimate(
        values=values,
        draws=values + np.where(line, by_line, by_mean),
        low=np.minimum(np.minimum(ends[0][0], ends[1][0]), values) - farthest + warmup[0],
        high=np.maximum(np.maximum(ends[0][1], ends[1][1]), values) + farthest + warmup[1],
        warmup=warmup,
    )


def regression(times: Floats, drawn: Drawn) -> Floats:
    """The mean difference of all blocks by a line through those drawn, by how often each counts, [draw, figure]."""
    x = drawn.base - drawn.known / drawn.blocks
    mean_x, mean_y = times @ x, times @ drawn.off
    square, product = times @ x**2 - mean_x**2, times @ (x * drawn.off) - mean_x * mean_y
    enough = square > 1e-9 * (x**2).mean(axis=0)
    slope = np.where(enough, product / np.where(enough, square, 1), 0)
    return np.asarray(mean_y - slope * mean_x)


def larger(deviations: Floats, n: int, taken: int) -> Floats:
    """A bootstrap's deviations of a mean of ``n``, as large as those of its source; ``taken``: parameters estimated."""
    freedom = n - taken
    return deviations * (student(freedom) / NORMAL * math.sqrt(n / freedom))
