# SPDX-License-Identifier: GPL-2.0-only
"""Load shedding: when recording costs more than it may, less is recorded, in a stated order.

Stages: 0 everything; 1 a stack for one event in 16 (of those that had one); 2 no stacks; 3 to 12 page events of
one caller in 2, 4 ... 1024. A caller is a task within a slice of time (programs.py), so that bursts stay whole.

The decision is a leaky bucket: what goes beyond the limit fills it, what stays below drains it, and it trips
when it holds half a second's allowance and the load is still above. So a limit far exceeded acts within a third
of a second, a limit slightly exceeded within ten, and a short peak not at all. The jump is as large as the
excess asks for, counting on nothing but that a stage halves the cost; what a program costs that only looks and
leaves remains at every stage, so a limit may be out of reach, which the last stage says.

A task that makes many events is recorded in 134 ms out of many, so what is recorded and what that costs swings
widely around its mean. It is the mean that is judged: what a level lets through of the events seen, and the cost
less what the chance of this moment adds or spares, by the cost of a recorded event as it was last observed.

Coming down takes five quiet seconds below half of the limit, at most three stages at a time, and never to a
stage of which it is known (cost of an event there, times today's rate) that it would exceed the limit again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STACK_STEP = 16
SAMPLES = tuple(2**k for k in range(1, 11))
LAST_STAGE = 2 + len(SAMPLES)

BURST_S = 0.5
"""The bucket trips when it holds the limit's allowance of so many seconds ..."""
EVIDENCE_S = 0.3
"""... gathered over at least so long."""
SETTLE_S = 0.5
"""After a change nothing is judged for so long: the writer still works on what came before."""
MAX_RATIO = 16.0
"""An excess counts as at most this for one jump; the next one follows soon."""
SMOOTH_S = 1.0
QUIET_S = 5.0
RELAPSE_S = 10.0
"""Up again so soon after coming down: the next quiet time is twice as long ..."""
MAX_QUIET_S = 60.0
"""... up to this, and normal again after as long without coming down."""
MAX_DESCENT = 3
SPLIT_S = 30.0
LEARNED_S = 300.0
"""How long the cost of an event at a stage is believed."""
HEADROOM = 0.9
"""A stage is come down to when it is expected to take at most this part of the limit."""

_GAIN = (1.0, 4.0, 1.25, *(2.0 for _ in SAMPLES))
"""By what a stage divides the cost of the one before, at most: stacks in one event of 16 instead of all, none
instead of those, half of the callers."""


@dataclass(frozen=True)
class Level:
    """What is recorded from now on."""

    stage: int
    stacks: int
    """A stack for one event in so many; 0: none."""
    sample: int
    """Page events of one caller in so many; 1: all."""
    reason: str


class _Gauge:
    """A quantity that has a limit (0: none)."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.smooth = 0.0
        self._excess = 0.0
        self._excess_s = 0.0
        self._value = 0.0

    def restart(self) -> None:
        """Forget the excess: it led to a change."""
        self._excess = self._excess_s = 0.0

    def add(self, value: float, seconds: float, *, judged: bool) -> None:
        """Take the mean of the last interval."""
        self._value = value
        self.smooth += (value - self.smooth) * -math.expm1(-seconds / SMOOTH_S)
        if not (self.limit and judged):
            return
        self._excess += (value - self.limit) * seconds
        if self._excess <= 0:
            self.restart()
        else:
            self._excess_s += seconds

    @property
    def tripped(self) -> bool:
        """Whether the limit is exceeded, and not by a peak that is over."""
        enough = self._excess >= BURST_S * self.limit and self._excess_s >= EVIDENCE_S * 0.99
        return bool(self.limit) and enough and self._value > self.limit

    @property
    def ratio(self) -> float:
        """Mean over the limit since it is exceeded."""
        return 1 + self._excess / (self.limit * self._excess_s)

    @property
    def quiet(self) -> bool:
        """Whether half of the limit is not used."""
        return not self.limit or self.smooth < self.limit / 2


class _Split:
    """Cost of a recorded event, apart from that of a look: least squares over the last half minute or so of
    overhead = a x seen + b x recorded."""

    def __init__(self) -> None:
        self._sums = [0.0] * 5

    def add(self, seen: float, recorded: float, overhead: float, seconds: float) -> None:
        """Take an interval's rates."""
        keep = math.exp(-seconds / SPLIT_S)
        products = (seen * seen, seen * recorded, recorded * recorded, seen * overhead, recorded * overhead)
        self._sums = [keep * old + seconds * new for old, new in zip(self._sums, products)]

    @property
    def recorded(self) -> float:
        """Core seconds for an event recorded rather than just looked at; 0 while all are alike in that."""
        ss, sr, rr, so, ro = self._sums
        determinant = ss * rr - sr * sr
        if determinant <= 1e-3 * ss * rr:
            return 0.0
        return max(0.0, (ss * ro - sr * so) / determinant)


class Controller:
    """Decides what to leave out. Pure logic: the caller measures and carries out.

    ``max_overhead``: share of one core (0: no limit). ``max_rate``: recorded events per second (0: no limit).
    ``stacks``: whether stacks are taken at all; ``stack_sample``: for one event in how many at stage 0.
    """

    def __init__(self, max_overhead: float, max_rate: float, stacks: bool, stack_sample: int = 1) -> None:
        self._overhead = _Gauge(max_overhead)
        self._rate = _Gauge(max_rate)
        self._stack_sample = stack_sample if stacks else 0
        self._ladder = range(LAST_STAGE + 1) if stacks else (0, *range(3, LAST_STAGE + 1))
        self._at = 0
        self._last_ns: int | None = None
        self._now = 0.0
        self._changed = -math.inf
        self._descended = -math.inf
        self._quiet_since: float | None = None
        self._quiet_s = QUIET_S
        self._hopeless = False
        self._measured = [0.0, 0.0, 0.0]
        """Seconds, core seconds and events since the stage is measured."""
        self._split = _Split()
        self._seen = self._fixed = 0.0
        """Events per second that the programs see, and those of them that are always recorded, smoothed."""
        self._costs: dict[int, tuple[float, float]] = {}
        """Position -> (core seconds for an event seen, when that was measured)."""

    @property
    def level(self) -> Level:
        """What is recorded now."""
        return self._level("")

    def decide(
        self, now_ns: int, overhead: float, rate: float, recorded: float | None = None, fixed: float = 0.0
    ) -> Level | None:
        """The level from now on, when it changes.

        Means since the last call, about ten calls a second: ``overhead`` (share of a core), ``rate`` (events per
        second that the programs saw, recorded or left out), ``recorded`` (those recorded; None: as many as the
        level lets through), ``fixed`` (those that no level leaves out). At the last stage, when even that
        exceeds the limit, the same level comes once more with that as its reason.
        """
        last, self._last_ns = self._last_ns, now_ns
        if last is None or now_ns <= last:
            return None
        seconds = (now_ns - last) / 1e9
        self._now += seconds
        weight = -math.expm1(-seconds / SMOOTH_S)
        self._seen += (rate - self._seen) * weight
        self._fixed += (fixed - self._fixed) * weight
        expected = fixed + max(0.0, rate - fixed) / self._sample(self._at)
        if recorded is not None:
            self._split.add(rate, recorded, overhead, seconds)
            overhead -= self._split.recorded * (recorded - expected)
        overhead = max(0.0, overhead)
        judged = self._now - self._changed >= SETTLE_S
        self._overhead.add(overhead, seconds, judged=judged)
        self._rate.add(expected, seconds, judged=judged)
        if judged:
            self._measure(overhead, rate, seconds)
        if self._overhead.tripped or self._rate.tripped:
            return self._up()
        return self._down()

    # ------------------------------------------------------------ inner
    def _sample(self, at: int) -> int:
        stage = self._ladder[at]
        return SAMPLES[stage - 3] if stage > 2 else 1

    def _gain(self, at: int) -> float:
        return _GAIN[self._ladder[at]]

    def _level(self, reason: str) -> Level:
        stage = self._ladder[self._at]
        stacks = (self._stack_sample, self._stack_sample * STACK_STEP, 0)[min(stage, 2)]
        return Level(stage, stacks, self._sample(self._at), reason)

    def _measure(self, overhead: float, rate: float, seconds: float) -> None:
        """Learn what an event costs at this stage."""
        if self._measured[0] >= QUIET_S:
            self._measured = [0.0, 0.0, 0.0]
        self._measured[0] += seconds
        self._measured[1] += overhead * seconds
        self._measured[2] += rate * seconds
        if self._measured[0] >= EVIDENCE_S and self._measured[2] > 0:
            self._costs[self._at] = (self._measured[1] / self._measured[2], self._now)

    def _change(self, at: int, reason: str) -> Level:
        if self._ladder[at] < 2 or self._ladder[self._at] < 2:
            self._split = _Split()  # events with stacks cost something else
        self._at = at
        self._changed = self._now
        self._quiet_since = None
        self._measured = [0.0, 0.0, 0.0]
        self._overhead.restart()
        self._rate.restart()
        return self._level(reason)

    def _up(self) -> Level | None:
        reasons = []
        at, last = self._at, len(self._ladder) - 1
        if self._overhead.tripped:
            ratio = self._overhead.ratio
            reasons.append(f"overhead {ratio * self._overhead.limit:.3g} of a core, limit {self._overhead.limit:g}")
            at = self._divide_by(ratio)
        if self._rate.tripped:
            ratio = self._rate.ratio
            reasons.append(f"{ratio * self._rate.limit:.3g} events/s recorded, limit {self._rate.limit:g}")
            at = max(at, self._thin_out(ratio))
        reason = "; ".join(reasons)
        if self._at == last:
            if self._hopeless:
                return None
            self._hopeless = True
            return self._change(last, f"{reason}; it cannot be kept: each event costs a look, and bios are not sampled")
        if self._now - self._descended < RELAPSE_S:
            self._quiet_s = min(MAX_QUIET_S, 2 * self._quiet_s)
        return self._change(at, reason)

    def _divide_by(self, ratio: float) -> int:
        """The first place that may divide the cost by so much; at least the next one."""
        at, left = self._at, min(ratio, MAX_RATIO)
        while at < len(self._ladder) - 1 and (left > 1 or at == self._at):
            at += 1
            left /= self._gain(at)
        return at

    def _thin_out(self, ratio: float) -> int:
        """The first place that leaves out so much of the events; stacks do not count for that."""
        wanted = self._sample(self._at) * max(2.0, ratio)
        places = range(self._at + 1, len(self._ladder))
        return next((at for at in places if self._sample(at) >= wanted), len(self._ladder) - 1)

    def _down(self) -> Level | None:
        if self._now - self._descended > MAX_QUIET_S:
            self._quiet_s = QUIET_S
        if self._at == 0 or not (self._overhead.quiet and self._rate.quiet):
            self._quiet_since = None
            return None
        if self._quiet_since is None:
            self._quiet_since = self._now
        if self._now - self._quiet_since < self._quiet_s:
            return None
        lowest = max(0, self._at - MAX_DESCENT)
        fitting = [at for at in range(lowest, self._at) if self._fits(at)]
        if not fitting:
            return None
        self._descended = self._now
        self._hopeless = False
        return self._change(fitting[0], f"below half of the limit for {self._quiet_s:g} s")

    def _fits(self, at: int) -> bool:
        """Whether the limits are expected to hold at a lower place, at today's rate of events."""
        recorded = self._fixed + max(0.0, self._seen - self._fixed) / self._sample(at)
        if self._rate.limit and recorded > HEADROOM * self._rate.limit:
            return False
        cost, when = self._costs.get(at, (0.0, -math.inf))
        if self._now - when <= LEARNED_S:
            expected = cost * self._seen
        else:
            expected = self._overhead.smooth * math.prod(self._gain(i) for i in range(at + 1, self._at + 1))
        return not self._overhead.limit or expected <= HEADROOM * self._overhead.limit
