"""Where values lie along an axis of a picture, and which of them are named there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracereplay.report.svg import in_unit, marks

trimmed = in_unit("")
Mark = tuple[float, str]
"""A value and its name."""


@dataclass(frozen=True, slots=True)
class Scale:
    """From a value to its place, 0 at the low end of an axis and 1 at the high one."""

    low: float
    high: float
    marks: tuple[Mark, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Place of a value; one beyond an end lies there."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            return math.log(inside / self.low) / math.log(self.high / self.low)
        return (inside - self.low) / (self.high - self.low)


def linear(low: float, high: float, write: Callable[[float], str] = trimmed, least: int = 4) -> Scale:
    """From the round value below ``low`` to that above ``high``."""
    found = marks(low, high if high > low else low + 1.0, "", least)
    return Scale(found[0], found[-1], tuple((value, write(value)) for value in found))


def within(low: float, high: float, write: Callable[[float], str] = trimmed) -> Scale:
    """Exactly from one value to the other, with round values between."""
    high = high if high > low else low + 1.0
    found = [value for value in marks(low, high) if low <= value <= high]
    return Scale(low, high, tuple((value, write(value)) for value in found))


def logarithmic(low: float, high: float, write: Callable[[float], str] = trimmed) -> Scale:
    """1, 2 and 5 times powers of ten around two positive values; over three powers and more only the powers."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = (1.0,) if high / low > 300 else (1.0, 2.0, 5.0)
    found = [m * 10.0**e for e in exponents for m in steps]
    first = max(value for value in found if value <= low * (1 + 1e-9))
    last = min(value for value in found if value >= high * (1 - 1e-9) and value > first)
    return Scale(first, last, tuple((v, write(v)) for v in found if first <= v <= last), True)


def measured(values: Sequence[float], write: Callable[[float], str] = trimmed) -> Scale:
    """Of costs and the like: from 0, and logarithmic where they span more than a factor of 20."""
    positive = [v for v in values if v > 0]
    if positive and len(positive) == len(values) and max(positive) > 20 * min(positive):
        return logarithmic(min(positive), max(positive), write)
    return linear(min(0.0, min(values, default=0.0)), max(values, default=1.0), write)


def along(values: Sequence[float], names: Sequence[str]) -> Scale:
    """Of the points of an axis: logarithmic where they are positive and rise by factors, with a margin at both ends."""
    low, high = min(values), max(values)
    named = tuple(zip(values, names, strict=True))
    if low == high:
        return Scale(low - 1.0, high + 1.0, named)
    if low > 0 and len(values) > 2 and high / low >= 4:
        edge = (high / low) ** 0.04
        return Scale(low / edge, high * edge, named, True)
    edge = 0.04 * (high - low)
    return Scale(low - edge, high + edge, named)
