"""Thresholds between bursts, read from the distribution of gaps.

Each caller has a histogram of gaps in a task's own time between consecutive allocations (bursts.charge says what is
not counted: refills, tracing, other tasks, interrupts), as if for one page. Gaps within a burst cost one allocation
and one tracing; the tight loops of frees in the same trace tell how long such a step takes here (the *unit*).

1. Where a tenth of a caller's gaps are of at most LOOP units (or the clock's resolution), the densest bin among them
   is the mode of its loop. From there upwards the histogram falls to a valley and rises again; the threshold is the
   middle of the valley's floor, at most 64 times its start and not below the floor: eight units, or 24 where refills
   were not recorded, since one then hides in a gap.
2. Otherwise (nearly every burst is one page) it is the floor.

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
LOOP = 5
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
    """Mean duration of one step of a tight loop with its tracing; 500 ns where there are too few.

    Over the steps of up to four times their lower fifth (or the clock's resolution): a coarse clock shows most steps
    as 0 and some as one tick, and the mean is right all the same.
    """
    total = int(units.sum())
    if total < _ENOUGH:
        return _DEFAULT_UNIT_NS
    low = int(np.searchsorted(np.cumsum(units), total / 5))
    limit = _bin(4 * max(bin_start(low + 0.5), float(resolution_ns)))
    starts = np.array([bin_start(b) if b < 8 or resolution_ns > 1 else bin_start(b + 0.5) for b in range(limit + 1)])
    return max(float((starts * units[: limit + 1]).sum() / units[: limit + 1].sum()), 50.0)


def _bin(ns: float) -> int:
    if ns < 4:
        return int(ns)
    octave = int(math.log2(ns))
    return min(BINS - 1, octave * 4 + int((ns / 2**octave - 1) * 4))


def threshold(gaps: Array, unit: float, units: int = EIGHT, resolution_ns: int = 1) -> Threshold:
    """Threshold of one caller, with a floor of so many units (module docstring)."""
    total = int(gaps.sum())
    floor = units * unit
    loop = _bin(max(LOOP * unit, resolution_ns))
    within = int(gaps[: loop + 1].sum())
    if within < _ENOUGH or within * 10 < total:
        return Threshold(round(floor), total, None)
    mode = int(gaps[: loop + 1].argmax())
    smooth = np.convolve(gaps, np.ones(3), mode="same")
    least, first, last = smooth[mode], mode, mode
    for b in range(mode + 1, BINS):
        if smooth[b] < least:
            least, first, last = smooth[b], b, b
        elif smooth[b] == least and last == b - 1:
            last = b
        elif smooth[b] >= max(3.0, 4 * least, 0.003 * total):
            break
    valley = math.sqrt(max(bin_start(first), 1.0) * max(bin_start(last + 1), 1.0))
    upper = 64 * max(bin_start(first), 1.0)
    return Threshold(round(max(floor, min(valley, upper))), total, round(bin_start(mode)))


def floors(crypt: Array, refills_recorded: bool) -> Array:
    """Floor of each caller in units."""
    return np.where(crypt | refills_recorded, EIGHT, UNRECORDED_REFILLS)


def thresholds(gaps: Array, units: Array, resolution_ns: int, floor: Array) -> tuple[Array, Array, float]:
    """Thresholds of all callers, the time a page takes in their loops (0 unknown), and the unit; in ns."""
    unit = unit_ns(units, resolution_ns)
    limits = np.rint(floor * unit).astype(np.int64)
    loops = np.zeros(len(gaps), np.int64)
    for caller in np.flatnonzero(gaps.any(axis=1)):
        found = threshold(gaps[caller], unit, int(floor[caller]), resolution_ns)
        limits[caller], loops[caller] = found.ns, found.mode_ns or 0
    return limits, loops, unit
