"""How far a sweep is and when it will be done, from the seconds that points took."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

RECENT = 32
"""Points by which the rest is judged: the first ones compile and reconstruct."""


class Pace:
    """Points done of all; the time to finish is that of the points to come at the recent seconds of a point."""

    def __init__(self, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """``done``: points that were there before."""
        self.total = total
        """Points that are wanted by now; all there are, unless an answer may come sooner."""
        self.most = total
        self.done = done
        self.workers = 1
        self._clock = clock
        self._started = clock()
        self._run = 0
        self._seconds: deque[float] = deque(maxlen=RECENT)

    def point(self, seconds: float | None) -> None:
        """One more is done, and took so long in its worker."""
        self.done += 1
        self._run += 1
        if seconds is not None:
            self._seconds.append(seconds)

    @property
    def left_s(self) -> float | None:
        """Seconds to finish; None while nothing is known."""
        if not self._seconds:
            return None
        return max(self.total - self.done, 0) * sum(self._seconds) / len(self._seconds) / self.workers

    @property
    def rate(self) -> float:
        """Points a second since the start."""
        return self._run / max(self._clock() - self._started, 1e-9)

    def line(self) -> str:
        """``37 of 100 points, 2.1 a second, 30 s to finish``."""
        left = self.left_s
        early = self.total < self.most
        said = f"{self.done:,} of {self.total:,} points"
        said += f" so far, {self.most:,} at most" if early else ""
        if self._run:
            rate = self.rate
            said += f", {rate:.1f} a second" if rate >= 0.5 else f", {60 * rate:.1f} a minute"
        to = "to the next answer" if early else "to finish"
        return said + (f", {clock_text(left)} {to}" if left is not None else "")


def clock_text(seconds: float) -> str:
    """``40 s``, ``3 min``, ``2 h 5 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
