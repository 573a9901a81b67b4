"""What a report says about differences between strategies: how large, how sure, and what they hinge on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracereplay.report.numbers import figure, span

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Swing:
    """One number of the profile, or the requests: the figure with it at the low and at the high end of its range."""

    name: str
    range: str
    """With its unit; of the requests, what that is."""
    at_low: float
    at_high: float


@dataclass(frozen=True, slots=True)
class Tornado:
    """A figure per page and what moves it most, most first."""

    title: str
    value: float
    swings: tuple[Swing, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Cost of a page against another strategy's."""

    label: str
    baseline: str
    value: float
    interval: Interval
    ratio: float | None
    ratio_interval: Interval | None
    beyond: bool
    """0 is not in the interval."""
    judged: bool
    """The interval covers the requests too, not the prices alone."""
    hinge: str
    """The number on which the sign depends and where it turns, in words; empty when none does in its range."""
    tornado: Tornado

    @property
    def sure(self) -> str:
        """``beyond the uncertainty``, or that it is not."""
        what = "the uncertainty" if self.judged else "the uncertainty of the prices"
        return f"beyond {what}" if self.beyond else f"within {what}, they cannot be told apart"

    @property
    def mover(self) -> str:
        """What moves it most."""
        first = self.tornado.swings[0].name if self.tornado.swings else "nothing"
        return "the requests in the trace" if first == "sampling" else first

    def sentence(self, unit: str) -> str:
        """``bulk costs 24.8 ns less per page than per-page (21.0 to 27.9): beyond the uncertainty; ...``"""
        if self.value == 0 and self.interval == (0.0, 0.0):
            return f"{self.label} costs the same as {self.baseline}."
        sign = -1 if self.value < 0 else 1
        low, high = sorted(sign * end for end in self.interval)
        more = "less" if self.value < 0 else "more"
        hinge = f"hinges on {self.hinge}" if self.hinge else f"moved most by {self.mover}"
        return (
            f"{self.label} costs {figure(abs(self.value))} {unit} {more} per page than {self.baseline} "
            f"({figure(low)} to {figure(high)}): {self.sure}; {hinge}."
        )


def differences(rows: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    """Of the ``comparison`` of a result."""
    return tuple(
        Difference(
            label=row["label"],
            baseline=row["baseline"],
            value=row["difference"],
            interval=_ends(row["difference_interval95"]),
            ratio=row["ratio"],
            ratio_interval=None if row["ratio_interval95"] is None else _ends(row["ratio_interval95"]),
            beyond=row["beyond"],
            judged=row["judged"],
            hinge=_hinge(row["hinges_on"]),
            tornado=tornado_of(f"{row['label']} - {row['baseline']}", row["difference"], row["tornado"]),
        )
        for row in rows
        if row["difference"] is not None
    )


def _ends(interval: Sequence[float]) -> Interval:
    return interval[0], interval[1]


def _hinge(found: Mapping[str, Any] | None) -> str:
    if found is None or not found["within"]:
        return ""
    ends = span((found["low"], found["high"]))
    return f"{found['name']}: they cost the same at {figure(found['crossing'])} {found['unit']} (its range is {ends})"


def tornado_of(title: str, value: float, rows: Sequence[Mapping[str, Any]]) -> Tornado:
    """Of a ``tornado`` of a result."""
    return Tornado(
        title,
        value,
        tuple(
            Swing(
                row["name"],
                "which requests came" if row["low"] is None else f"{span((row['low'], row['high']))} {row['unit']}",
                row["at_low"],
                row["at_high"],
            )
            for row in rows
        ),
    )


def tornado_lines(tornado: Tornado) -> list[tuple[str, ...]]:
    """Rows of a table: number, its range, the figure at both ends, its span."""
    return [
        (s.name, s.range, figure(s.at_low), figure(s.at_high), figure(abs(s.at_high - s.at_low)))
        for s in tornado.swings
    ]
