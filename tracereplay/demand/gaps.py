"""Thresholds between bursts, read from the distribution of gaps.

Each caller has a histogram of gaps in a task's own time between consecutive allocations (bursts.charge says what is
not counted: refills, tracing, other tasks, interrupts), as if for one page. Gaps within a burst cost one allocation
and one tracing; the tight loops of frees in the same trace tell how long such a step takes here (the *unit*).

1. Where a caller has gaps of at most EIGHT units, the densest bin among them is the mode of its loop. From there
   upwards the first octave that is nearly empty ends the mode; the next octave that fills again begins what lies
   between bursts. The threshold is their geometric mean, within 2 to 64 times the end of the mode, and not
   below the floor: eight units, or 24 where refills were not recorded, since one then hides in a gap.
2. Where it has none (every burst is one page), the floor.

Two dm-crypt buffers of one worker are separated by the encryption of the first, so for dm-crypt the floor stays at
eight units and the threshold grows with the burst: at least three quarters of the time that its pages took.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tracereplay.demand.state import BINS, Array

METHOD = "valley of log-gaps in the task's own time, from the unit of tight free loops"
EIGHT = 8
UNRECORDED_REFILLS = 24
_ENOUGH = 16
_DEFAULT_UNIT_NS = 500.0


@dataclass(frozen=True, slots=True)
class Threshold:
    """A caller's threshold and what it was read from."""

    ns: int
    gaps: int
    """Gaps in the histogram."""
    mode_ns: int | None
    """Densest gap of the caller's loop; None: no loop was seen."""


def bin_start(b: float) -> float:
    """Nanoseconds at which a histogram bin begins (four bins an octave)."""
    if b < 8:
        return float(b)
    octave, part = divmod(b, 4)
    return float(2 ** int(octave) * (1 + part / 4))


def unit_ns(units: Array, resolution_ns: int) -> float:
    """Duration of one step of a tight loop with its tracing: the lower quartile between adjacent frees.

    With too few of them, 500 ns. Never below the clock's resolution.
    """
    total = int(units.sum())
    if total < _ENOUGH:
        return max(_DEFAULT_UNIT_NS, float(resolution_ns))
    quartile = int(np.searchsorted(np.cumsum(units), total / 4))
    return max(bin_start(quartile + 0.5), float(resolution_ns), 50.0)


def _bin(ns: float) -> int:
    if ns < 4:
        return int(ns)
    octave = int(math.log2(ns))
    return min(BINS - 1, octave * 4 + int((ns / 2**octave - 1) * 4))


def threshold(gaps: Array, unit: float, units: int = EIGHT) -> Threshold:
    """Threshold of one caller, with a floor of so many units (module docstring)."""
    total = int(gaps.sum())
    floor = units * unit
    loop = _bin(EIGHT * unit)
    within = int(gaps[: loop + 1].sum())
    if within == 0 or within * 200 < total:
        return Threshold(round(floor), total, None)
    smooth = np.convolve(gaps, np.ones(4), mode="full")[3:]  # octave that starts at each bin
    smooth = np.append(smooth, np.zeros(BINS - len(smooth)))
    mode = int(gaps[: loop + 1].argmax())
    thin = max(1.0, 0.004 * within)
    edge = next((b for b in range(mode, BINS) if smooth[b] < thin), BINS - 1)
    refill = max(3.0, 4 * thin / 4)
    rise = next((b for b in range(edge + 1, BINS) if smooth[b] >= refill and smooth[b] > smooth[edge]), None)
    end = max(bin_start(edge), 1.0)
    upper = 64 * end
    nxt = bin_start(rise + 3) if rise is not None else upper
    best = math.sqrt(end * max(nxt, end))
    return Threshold(round(max(floor, min(max(best, 2 * end), upper))), total, round(bin_start(mode)))


def floors(crypt: Array, refills_recorded: bool) -> Array:
    """Floor of each caller in units."""
    return np.where(crypt | refills_recorded, EIGHT, UNRECORDED_REFILLS)


def thresholds(gaps: Array, units: Array, resolution_ns: int, floor: Array) -> tuple[Array, Array, float]:
    """Thresholds of all callers, the time a page takes in their loops (0 unknown), and the unit; in ns."""
    unit = unit_ns(units, resolution_ns)
    limits = np.rint(floor * unit).astype(np.int64)
    loops = np.zeros(len(gaps), np.int64)
    for caller in np.flatnonzero(gaps.any(axis=1)):
        found = threshold(gaps[caller], unit, int(floor[caller]))
        limits[caller], loops[caller] = found.ns, found.mode_ns or 0
    return limits, loops, unit
