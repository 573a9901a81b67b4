"""Leak suspects: who holds more and more, how sure that is, and how much of it never came back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tracereplay.analysis.analysis import Answer
from tracereplay.analysis.lifetime_groups import Array, Groups, Sums
from tracereplay.analysis.live_course import Course, follow
from tracereplay.analysis.slopes import LEAST_STEPS, slope_interval
from tracereplay.analysis.spread import ranked
from tracereplay.kernel.constants import PAGE_SIZE

if TYPE_CHECKING:
    from tracereplay.analysis.view import View
    from tracereplay.demand.lifetime_pass import Rows

MOST = 200
"""Groups looked at: those that grew most."""
METHOD = (
    "Theil-Sen slope of live bytes at {} moments, 95 % interval by bootstrap over blocks of steps; "
    "suspect: the interval is above zero, most steps rise, and something is older than {:.3g} s"
)
SCHEMA = {
    "by": pl.String,
    "suspect": pl.Boolean,
    "slope_low_bytes_per_s": pl.Int64,
    "slope_bytes_per_s": pl.Int64,
    "slope_high_bytes_per_s": pl.Int64,
    "rising_share": pl.Float64,
    "live_bytes": pl.Int64,
    "old_bytes": pl.Int64,
    "age_p50_ns": pl.Int64,
    "taken_bytes": pl.Int64,
    "kept_share": pl.Float64,
    "why": pl.String,
}


def leak_table(view: View, by: str, bins: int, warmup: float, older_s: float) -> Answer:
    """Groups that grew, the surest first, with columns SCHEMA. ``taken_bytes`` were allocated in the time looked at,
    ``kept_share`` of them were still live at its end; ``old_bytes`` are live and older than ``older_s`` (0: a quarter
    of the time looked at).
    """
    groups = Groups(view, by)
    taken, kept = Sums(1), Sums(2)
    ages: list[tuple[Array, Array, Array]] = []
    end = min(view.end_ns, view.last_ns + 1)
    old_ns = round(older_s * 1e9) or max((end - view.start_ns) // 4, 1)

    def ended(group: Array, rows: Rows) -> None:
        mine = (rows.t_alloc >= view.start_ns) & (rows.t_free < end)
        taken.add(group[mine], np.int64(1) << rows.order[mine].astype(np.int64))

    def live(group: Array, rows: Rows) -> None:
        pages, age = np.int64(1) << rows.order.astype(np.int64), end - rows.t_alloc
        mine = rows.t_alloc >= view.start_ns
        taken.add(group[mine], pages[mine])
        kept.add(group, np.where(mine, pages, 0), np.where(age > old_ns, pages, 0))
        ages.append((group, age, pages))

    course = follow(view, groups, bins, ended=ended, live=live)
    numbers, labels = groups.merged()
    n = len(labels)
    group, age, weight = (np.concatenate([a[k] for a in ages] or [np.zeros(0, np.int64)]) for k in range(3))
    median = ranked(numbers[group], age, weight, n, (0.5,))[:, 0]
    all_taken, all_kept = taken.merged(numbers, n)[:, 0], kept.merged(numbers, n)
    first = int(len(course.edges) * warmup)
    rows = []
    for g in _grown(course, first):
        path = course.groups[first:, g] * PAGE_SIZE
        steps = np.diff(path)
        a_second = 1e9 * len(steps) / float(course.edges[-1] - course.edges[first])
        slope, low, high = (v * a_second for v in slope_interval(path))
        rising = float((steps > 0).sum() / max((steps != 0).sum(), 1))
        row: dict[str, Any] = {
            "by": labels[g],
            "slope_low_bytes_per_s": round(low),
            "slope_bytes_per_s": round(slope),
            "slope_high_bytes_per_s": round(high),
            "rising_share": rising,
            "live_bytes": int(path[-1]),
            "old_bytes": int(all_kept[g, 1]) * PAGE_SIZE,
            "age_p50_ns": int(median[g]) if median[g] >= 0 else None,
            "taken_bytes": int(all_taken[g]) * PAGE_SIZE,
            "kept_share": float(all_kept[g, 0] / max(all_taken[g], 1)),
        }
        against = _against(row)
        rows.append({**row, "suspect": not against, "why": against or _why(row)})
    frame = pl.DataFrame(rows, schema=SCHEMA)
    frame = frame.sort("suspect", "slope_low_bytes_per_s", "slope_bytes_per_s", descending=True)
    method = METHOD.format(len(course.edges) - first, old_ns / 1e9)
    return Answer(frame, method, {}, _notes(view, course, first, by))


def _grown(course: Course, first: int) -> list[int]:
    """Groups that hold more at the end than after the warm-up, most first."""
    if len(course.edges) - first <= LEAST_STEPS:
        return []
    growth = course.groups[-1] - course.groups[first]
    growth[0] = 0  # what was live before can only shrink
    order = np.argsort(-growth, kind="stable")[:MOST]
    return [g for g in order.tolist() if growth[g] > 0]


def _against(row: dict[str, Any]) -> str:
    """What speaks against a leak; empty: nothing."""
    if row["slope_low_bytes_per_s"] <= 0:
        return "growth is within its noise"
    if row["rising_share"] <= 0.5:
        return "falls as often as it rises"
    if not row["old_bytes"]:
        return "grows, but keeps nothing for long"
    return ""


def _why(row: dict[str, Any]) -> str:
    return f"keeps {row['kept_share']:.0%}, {row['old_bytes'] / max(row['live_bytes'], 1):.0%} is old"


def _notes(view: View, course: Course, first: int, by: str) -> tuple[str, ...]:
    notes = [
        f"the first {(course.edges[first] - course.edges[0]) / 1e9:.3g} s are left out: the trace starts with nothing "
        "known to be live, so that everything seems to grow",
        "a cache that fills looks the same; a longer trace tells them apart",
    ]
    if len(course.edges) - first <= LEAST_STEPS:
        notes.insert(0, "too few moments to judge growth: raise bins, or look at a longer time")
    if course.before:
        notes.append(
            f"{course.before:,} pages from before the trace were freed in it, and whose they were is not known: "
            f"a {by} that replaces them does not grow by as much as it seems"
        )
    return tuple(notes)
