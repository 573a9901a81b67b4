"""Costs as rates: per second of the trace, the busiest second of it, CPU-seconds a day; reserve and waste in bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tracereplay.cost.price import price_vectors, total
from tracereplay.cost.profile import Profile
from tracereplay.demand.opening import losses, time_range
from tracereplay.kernel.constants import PAGE_SIZE
from tracereplay.replay import layout as at
from tracereplay.replay.engine import Outcome, PathConfig

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

Entry = TypeVar("Entry", bound=Mapping[str, Any])
DAY_S = 86_400
NANOSECOND = 1e-9
NEEDS_NS = "CPU time needs a profile in ns"


@dataclass(frozen=True, slots=True)
class Covered:
    """How much of a trace's time its events cover."""

    span_ns: int
    """From the first to the last event."""
    lost_ns: float
    """Of that, time in which events were lost, on average over the CPUs."""

    @property
    def seconds(self) -> float:
        """Time that rates divide by."""
        return (self.span_ns - self.lost_ns) * NANOSECOND

    def at_rate(self, rate: float) -> Covered:
        """The same at so many times the recorded rate (demand/rate.py)."""
        return Covered(round(self.span_ns / rate), self.lost_ns / rate)

    def to_json(self) -> dict[str, float]:
        """Plain values, in seconds."""
        return {"span_s": self.span_ns * NANOSECOND, "lost_s": self.lost_ns * NANOSECOND, "covered_s": self.seconds}


def covered_time(trace: Trace) -> Covered:
    """Time of a trace without that of its losses: a CPU's loss counts for that CPU, one of no CPU for all of them."""
    start, end = time_range(trace)
    tables = [name for name in ("page_events", "bio_events") if trace.rows(name)]
    cpus = 1 + max((found[1] for name in tables if (found := trace.bounds(name, "cpu"))), default=0)
    lost = 0
    of_cpu: dict[int, list[tuple[int, int]]] = {}
    for name in tables[:1]:  # where page events were recorded, they are what costs
        for t0, t1, cpu in zip(*(column.tolist() for column in losses(trace, name)), strict=True):
            of_cpu.setdefault(cpu, []).append((max(t0, start), min(t1, end)))
    everywhere = of_cpu.pop(-1, [])
    for cpu in range(cpus):
        lost += _union(sorted(everywhere + of_cpu.get(cpu, [])))
    return Covered(end - start, lost / cpus)


def _union(intervals: Sequence[tuple[int, int]]) -> int:
    """Length of what sorted intervals cover together."""
    covered, reached = 0, intervals[0][0] if intervals else 0
    for t0, t1 in intervals:
        covered += max(0, t1 - max(t0, reached))
        reached = max(reached, t1)
    return covered


def rates(outcome: Outcome, counters: Mapping[str, int], profile: Profile, covered: Covered) -> dict[str, Any]:
    """The ``rates`` of a strategy's result, without the difference to others. What has no denominator is None.

    ``counters``: of the targeted requests and the strategy's workers. The busiest second leaves the workers out.
    """
    x = outcome.scalars
    cost = total(counters, profile)
    seconds = covered.seconds
    per_second = cost / seconds if seconds > 0 else None
    in_ns = profile.unit == "ns" and per_second is not None
    return {
        "unit": profile.unit,
        **covered.to_json(),
        "requests_per_s": int(x[at.X_TARGETED_REQUESTS]) / seconds if seconds > 0 else None,
        "pages_per_s": int(x[at.X_TARGETED_PAGES]) / seconds if seconds > 0 else None,
        "cost_per_s": per_second,
        "busiest": busiest(outcome, profile, covered.span_ns),
        "cpu_s_per_day": per_second * NANOSECOND * DAY_S if in_ns and per_second is not None else None,
        "note": None if profile.unit == "ns" else NEEDS_NS,
    }


def busiest(outcome: Outcome, profile: Profile, span_ns: int) -> dict[str, float] | None:
    """The dearest second, or as near to one as time bins allow; of a shorter trace the whole of it.

    ``from_s`` is since the trace began. None without a duration.
    """
    bin_ns = int(outcome.scalars[at.X_BIN_NS])
    costs = price_vectors(outcome.series, profile)
    bins = min(max(1, round(1e9 / bin_ns)), len(costs))
    window_ns = min(bins * bin_ns, span_ns)
    if window_ns <= 0:
        return None
    sums = np.convolve(costs, np.ones(bins), "valid")
    first = int(sums.argmax())
    return {
        "window_s": window_ns * NANOSECOND,
        "from_s": first * bin_ns * NANOSECOND,
        "cost_per_s": float(sums[first]) / (window_ns * NANOSECOND),
    }


def against(entries: Sequence[dict[str, Any]]) -> None:
    """Put into each entry's ``rates`` how much more or less than the baseline's they are: ``versus``."""
    base = baseline_of(entries)
    if base is None:
        return
    for entry in entries:
        own, other = entry["rates"], base["rates"]
        entry["rates"]["versus"] = {
            "label": base["label"],
            **{
                name: None if own[name] is None or other[name] is None else own[name] - other[name]
                for name in ("cost_per_s", "cpu_s_per_day")
            },
        }


def baseline_of(entries: Sequence[Entry]) -> Entry | None:
    """What others are compared with: the first result of per-page, else the first."""
    return next((e for e in entries if e["strategy"] == "per-page"), entries[0] if entries else None)


def memory(entry: Mapping[str, Any], path: PathConfig | None) -> dict[str, Any]:
    """The ``memory`` of a strategy's result, in bytes: what lies idle in reserves, and what is held in vain.

    ``path_reserve`` is the part of the reserve that the path's mempool asks for, whatever the strategy.
    """
    counters = entry["counters"]
    return {
        "reserve_peak_bytes": counters["reserve_pages_peak"] * PAGE_SIZE,
        "reserve_mean_bytes": round(entry["reserve"]["idle_mean"] * PAGE_SIZE),
        "path_reserve_bytes": 0 if path is None else path.pool_pages * PAGE_SIZE,
        "waste_peak_bytes": counters["waste_pages_peak"] * PAGE_SIZE,
    }
