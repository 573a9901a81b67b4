"""A published claim, the simulator's figures for it, and the rule that makes a verdict of both.

*input*: the simulator was given the figure, so that it says nothing about the simulator.
*reproduced*: a claim that can be compared in numbers (class A), and every figure is within its tolerance.
*consistent*: every figure that is not within its tolerance has the published value in its 95 % interval, or has the
published effect's sign and a size within a factor of ten of it. Claims of class B get no better than this.
*not explained*: all else.
"""

from __future__ import annotations

from dataclasses import dataclass

REPRODUCED = "reproduced"
CONSISTENT = "consistent"
NOT_EXPLAINED = "not explained"
INPUT = "input"
TOLERANCE = 0.05
"""Share of the published value."""
FACTOR = 10.0
"""What an order of magnitude is."""
BOUNDS = ("", "at least", "at most")


@dataclass(frozen=True, slots=True)
class Figure:
    """One published number beside the simulator's."""

    label: str
    published: float
    unit: str
    value: float
    interval: tuple[float, float] | None = None
    """95 %, by the ranges of the prices; None where the figure hangs on no price."""
    neutral: float = 0.0
    """What it would be without an effect: 0 of a saving, 1 of a ratio. Sign and size count from there."""
    bound: str = ""
    """``at least`` or ``at most``: the published number is an end, not a value."""
    absolute: float | None = None
    """Tolerance in units of the figure, where a share of the published value means nothing."""
    given: bool = False
    """The simulator was given this number."""
    hangs_on: str = ""
    """Number of the profile whose range moves the simulator's figure most."""

    def __post_init__(self) -> None:
        """Raises ValueError: no such bound."""
        if self.bound not in BOUNDS:
            raise ValueError(f"bound {self.bound!r} is not one of {BOUNDS}")

    @property
    def deviation(self) -> float | None:
        """Share of the published value by which the simulator's differs; None where that is 0."""
        return self.value / self.published - 1 if self.published else None

    def within(self, tolerance: float) -> bool:
        """Whether the figure is as published, give or take ``tolerance``, or keeps the bound."""
        if self.bound == "at least" and self.value >= self.published:
            return True
        if self.bound == "at most" and self.value <= self.published:
            return True
        if self.absolute is not None:
            return abs(self.value - self.published) <= self.absolute
        return abs(self.value - self.published) <= tolerance * abs(self.published)

    @property
    def plausible(self) -> bool:
        """Whether the interval has the published value, or sign and order of magnitude are right."""
        if self.interval is not None and self.interval[0] <= self.published <= self.interval[1]:
            return True
        ours, theirs = self.value - self.neutral, self.published - self.neutral
        return ours * theirs > 0 and 1 / FACTOR <= ours / theirs <= FACTOR


@dataclass(frozen=True, slots=True)
class Claim:
    """A row of strategies.md section 10."""

    row: str
    """Its number there, with a letter where we add to it."""
    claim: str
    grade: str
    """``A``: comparable in numbers; ``B``: sign and order of magnitude only."""
    machine: str
    source: str
    figures: tuple[Figure, ...]
    why: str
    """What the figure hangs on, and what was put in."""
    tolerance: float = TOLERANCE

    @property
    def verdict(self) -> str:
        """By the rule of this module."""
        judged = [f for f in self.figures if not f.given]
        if not judged:
            return INPUT
        if self.grade == "A" and all(f.within(self.tolerance) for f in judged):
            return REPRODUCED
        if all(f.within(self.tolerance) or f.plausible for f in judged):
            return CONSISTENT
        return NOT_EXPLAINED

    @property
    def worst(self) -> Figure:
        """The figure that deviates most, of those that count if any does."""
        judged = [f for f in self.figures if not f.given] or list(self.figures)
        return max(judged, key=lambda f: abs(f.deviation or 0.0))
