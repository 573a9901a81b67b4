"""Compare a profile with measured cases: what the machine counts in each, at the profile's prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracereplay.cost.cases import Outcome, run_cases
from tracereplay.cost.price import price_vectors
from tracereplay.cost.profile import Profile
from tracereplay.cost.rows import Row
from tracereplay.errors import RowsError


@dataclass(frozen=True, slots=True)
class Checked:
    """A row beside what the profile predicts for it."""

    row: Row
    outcome: Outcome
    alloc: float
    """Predicted allocation, time stamps included."""
    free: float
    """Predicted release."""

    @property
    def error(self) -> float:
        """Relative error of allocation and release together; positive where the prediction is too high."""
        return (self.alloc + self.free) / self.row.total - 1

    def to_json(self) -> dict[str, Any]:
        """One entry of ``rows`` (architecture.md section 5)."""
        return self.row.case() | {
            "line": self.row.number,
            "measured": self.row.total,
            "predicted": self.alloc + self.free,
            "error": self.error,
            "measured_alloc": self.row.alloc,
            "predicted_alloc": self.alloc,
            "measured_free": self.row.free,
            "predicted_free": self.free,
            "measured_failed": self.row.failed / self.row.samples,
            "predicted_failed": self.outcome.failed,
            "counters": self.outcome.counters(),
        }


def check_rows(rows: Sequence[Row], profile: Profile) -> list[Checked]:
    """Each row's case run on the machine and priced. Raises RowsError where unit and profile do not fit."""
    for row in rows:
        if row.unit != profile.unit:
            raise RowsError(
                f"line {row.number} is measured in {row.unit}, profile {profile.name!r} prices in {profile.unit}",
                hint="choose a profile of that unit: tracereplay profiles",
            )
    outcomes = run_cases(rows)
    alloc = price_vectors(np.array([o.alloc for o in outcomes]), profile)
    free = price_vectors(np.array([o.free for o in outcomes]), profile)
    timers = profile.timers or (0.0, 0.0)
    return [
        Checked(row, outcome, float(a) + timers[0], float(f) + timers[1])
        for row, outcome, a, f in zip(rows, outcomes, alloc, free, strict=True)
    ]


def summary(checked: Sequence[Checked]) -> dict[str, Any]:
    """Rows, and median, 95th percentile and maximum of the absolute relative errors."""
    errors = np.abs([c.error for c in checked])
    return {
        "rows": len(checked),
        "median_error": float(np.median(errors)),
        "p95_error": float(np.quantile(errors, 0.95)),
        "max_error": float(errors.max()),
        "within_10_percent": int((errors <= 0.1).sum()),
    }


def rows_for(rows: Sequence[Row], profile: Profile) -> tuple[list[Row], int]:
    """Those of the profile's kernel, and how many others there are; all where it names none or no row is of it."""
    same = [row for row in rows if row.kernel == profile.kernel]
    return (same, len(rows) - len(same)) if same else (list(rows), 0)
