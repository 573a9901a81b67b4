"""From a trace's own clock to wall-clock time, by the instants at which both were read.

A capture reads CLOCK_MONOTONIC, CLOCK_BOOTTIME and CLOCK_REALTIME together at its start and at its end (collectors/
hostfacts.py): monotonic before and after, the others in between. Between two such instants the difference of the
clocks is interpolated, outside of them it is that of the nearest one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.errors import MergeError

Times = npt.NDArray[np.int64]

_PLACE = {"monotonic": 0, "mono": 0, "boottime": 1, "boot": 1}
"""Names of clocks as captures and ftrace (Documentation/trace/ftrace.rst) give them, and their place in a triple."""
WALL = ("realtime", "tai")
MOST_DRIFT = 500e-6
"""How far the kernel slews a clock at most: MAXFREQ, include/linux/timex.h. Away from the only instant that is known,
that much may be wrong."""


@dataclass(frozen=True)
class ClockMap:
    """Adds a difference that changes linearly between knots."""

    at: Times
    """Knots, on the trace's clock, rising."""
    add: Times
    """Difference at each knot, ns."""
    uncertainty_ns: int
    """How wrong a converted time may be against the host's own wall clock."""

    def __call__(self, ts: Times) -> Times:
        """Times on the common clock; their order is kept."""
        if len(self.at) == 1:
            return ts + int(self.add[0])
        base = int(self.at[0])
        more = np.interp((ts - base).astype(np.float64), self.at - base, self.add - self.add[0])
        moved: Times = ts + (self.add[0] + np.floor(more).astype(np.int64))
        return moved

    def plus(self, ns: int) -> ClockMap:
        """The same, and ``ns`` more."""
        return ClockMap(self.at, self.add + ns, self.uncertainty_ns)


def shift(ns: int, uncertainty_ns: int = 0) -> ClockMap:
    """Adds the same everywhere."""
    return ClockMap(np.zeros(1, np.int64), np.array([ns], np.int64), uncertainty_ns)


def to_wall_clock(clock: dict[str, Any], first_ns: int, last_ns: int, what: object) -> ClockMap:
    """The map from a trace's clock to wall-clock ns since 1970; ``first_ns`` and ``last_ns``: of its events.

    Raises MergeError when its metadata do not tell.
    """
    name = str(clock.get("name", "unknown"))
    resolution = int(clock.get("resolution_ns") or 1)
    if name in WALL[:1]:
        return shift(0, resolution)
    triples = clock.get("triples") or []
    if name not in _PLACE or not triples:
        why = "no instant at which it and the wall clock were read" if name in _PLACE else "no wall-clock counterpart"
        raise MergeError(
            f"{what}: its clock {name!r} has {why}",
            hint="--offset NAME=NS adds a known difference to its times; --align start lets all traces begin at 0",
        )
    known = sorted({int(t[_PLACE[name]]): int(t[2]) for t in triples}.items())
    at = np.array([k for k, _ in known], np.int64)
    add = np.array([wall - k for k, wall in known], np.int64)
    if (np.diff(at) + np.diff(add) < 0).any():
        raise MergeError(
            f"{what}: its wall clock was set back while it was recorded",
            hint="--offset NAME=NS adds a known difference to its times instead",
        )
    outside = max(0, int(at[0]) - first_ns, last_ns - int(at[-1]))
    steps = int(np.abs(np.diff(add)).max(initial=0))
    return ClockMap(at, add, resolution + steps + round(outside * MOST_DRIFT))
