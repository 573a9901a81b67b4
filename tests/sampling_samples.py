"""How often intervals of sampled points hold what a full replay finds: blocks are measured once, then drawn often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracereplay.cost.price import weights_of
from tracereplay.cost.profile import DEFAULT_PROFILE, load_profile
from tracereplay.demand.spec import DemandSpec
from tracereplay.demand.spool import Spool
from tracereplay.machine.counters import COUNTERS, NR_COUNTERS
from tracereplay.machine.from_trace import configured_machine
from tracereplay.replay.charged import charged
from tracereplay.replay.run import prepared, recorded_demand
from tracereplay.strategies.registry import choose
from tracereplay.trace.reader import Trace
from tracereplay.whatif.sampled_baseline import Baseline, feed, run_baseline
from tracereplay.whatif.sampled_point import Measured, Point, measure

MAIN = ("pcp_refills", "pcp_drains", "zone_lock_acquisitions", "splits", "merges")
"""Counters of which coverage is asked, beside the cost of a page."""
DRAWS = 400


class Remembered(Point):
    """A point that replays each block once, however often it is asked for it; its work is counted every time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._known: dict[Any, tuple[Any, int]] = {}
        self._blocks = sorted(self.base.order)

    def lead(self) -> Any:
        return self._once("lead", super().lead)

    def last(self) -> Any:
        return self._once("last", super().last)

    def block(self, k: int) -> Any:
        return self._once(k, lambda: super(Remembered, self).block(k))

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._known:
            before = self._ops
            found = make()
            self._known[key] = found, self._ops - before
            self._ops = before
        found, ops = self._known[key]
        self._ops += ops
        return found

    def drawn(self, seed: int) -> Remembered:
        """The point as another seed draws its blocks: half of all, for which the baseline has checkpoints."""
        order = np.random.default_rng(seed).permutation(self._blocks)[: len(self._blocks) // 2]
        self.base = replace(self.base, order=order.tolist())
        self._ops = 0
        return self


@dataclass(frozen=True, slots=True)
class Case:
    """A point and the full replay of the same."""

    point: Remembered
    full: np.ndarray[Any, np.dtype[np.int64]]
    """Counters of the whole, [NR_COUNTERS]."""
    rows: np.ndarray[Any, np.dtype[np.int64]]
    """So far, where each block's measure begins, [block, NR_COUNTERS]."""


def baseline_of(path: Path, strategy: str, machine: dict[str, str], *, most: float = 1.0) -> Baseline:
    """The full replay of a strategy, with checkpoints of all blocks."""
    trace = Trace.open(path)
    spec = DemandSpec(target=("all",))
    spool = Spool(recorded_demand(trace, spec))
    ready = prepared(trace, spool, spec, lambda cpus: configured_machine(trace, cpus, machine, 0))
    base = run_baseline(ready, choose([strategy])[0], 0, most=most)
    assert base is not None
    return base


def case_of(base: Baseline, strategy: str, changes: dict[str, str], machine: dict[str, str], path: Path) -> Case:
    """A point with other parameters (``strategy``) or other settings of the machine, and its full replay."""
    choice = choose([strategy])[0]
    config = configured_machine(Trace.open(path), base.spool.info.cpus, machine | changes, 0)
    engine = replace(base.ready, machine=config).engine(choice)
    seen, at = [], 0
    for end in base.measured:
        feed(engine, base.spool, at, end)
        seen.append(charged(engine))
        at = end
    feed(engine, base.spool, at, len(base.spool))
    end = engine.finish()
    return Case(Remembered(base, choice, config), (end.totals + end.worker)[:NR_COUNTERS], np.array(seen))


def prices() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of each counter, by the default profile."""
    profile = load_profile(DEFAULT_PROFILE)
    return np.asarray(weights_of(profile) @ np.array([c.value for c in profile.coefficients]))


def figures_of(counters: Any) -> Any:
    """The cost, then MAIN, of counters."""
    return np.array([counters @ prices(), *(counters[COUNTERS.index(name)] for name in MAIN)], np.float64)


def ends_of(found: Measured) -> Any:
    """The interval of the cost and of MAIN, [2, figure]."""
    columns = [NR_COUNTERS, *(COUNTERS.index(name) for name in MAIN)]
    return np.stack([found.low[columns], found.high[columns]])


def sampled(case: Case, seed: int, precision: float = 0.02) -> Measured | None:
    """What one seed's sampling finds of a point."""
    return measure(case.point.drawn(seed), prices(), precision=precision, draws=DRAWS, seed=seed)


def coverage(case: Case, runs: int, precision: float = 0.02) -> tuple[Any, Any, float]:
    """Share of seeds whose interval holds the full replay's figure, cost and MAIN, [figure]; half widths as shares of
    these, median, [figure]; share of the operations replayed, median. A point replayed whole has no interval."""
    truth = figures_of(case.full)
    found = [m for seed in range(runs) if (m := sampled(case, seed, precision)) is not None]
    assert found, "no run came to an estimate"
    ends = np.array([ends_of(m) for m in found])
    rounding = 1e-9 * np.maximum(truth, 1)
    held = (ends[:, 0] <= truth + rounding) & (truth - rounding <= ends[:, 1])
    widths = np.median(ends[:, 1] - ends[:, 0], axis=0) / 2 / np.maximum(truth, 1)
    return held.mean(axis=0), widths, float(np.median([m.work for m in found]))
