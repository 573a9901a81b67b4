"""Counters of a strategy on demand made by hand: what an operation costs once the per-CPU lists are warm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tracereplay.cost.price import interval95, ratio_interval95, total
from tracereplay.cost.profile import Profile
from tracereplay.cost.tornado import swings_of, tornado
from tracereplay.machine.config import MachineConfig
from tracereplay.replay.engine import Engine, Outcome, PathConfig
from tracereplay.replay.result import counters_of
from tracereplay.scenarios.scenario import one_zone
from tracereplay.strategies.registry import choose
from tracereplay.testing.demand import Demand
from tracereplay.validation.verdict import Figure

GIB = 1 << 18
"""Pages."""
US = 1000
"""Nanoseconds."""
PEAKS = ("reserve_pages_peak", "waste_pages_peak")
"""What of the counters is no sum."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where it runs: one CPU, 2 GiB; nothing else asks for memory."""

    generation: str = "5.14"
    """The first with a bulk allocator."""
    pcp_high: int = 378
    """6 x batch, as up to 5.13."""
    path: PathConfig | None = None
    freed: bool = True
    """Whether pages come back; else only the allocation is counted."""
    init_on_alloc: bool = False
    free_blocks: tuple[int, ...] = (*(0,) * 10, 128)
    """By order."""

    @property
    def machine(self) -> MachineConfig:
        """Its configuration."""
        return replace(
            one_zone(2 * GIB, self.free_blocks, cpus=1),
            generation=self.generation,
            pcp_batch=63,
            pcp_high=self.pcp_high,
            init_on_alloc=self.init_on_alloc,
        )


def replayed(strategy: str, machine: MachineConfig, demand: Demand, path: PathConfig | None = None) -> Outcome:
    """A strategy, as after ``-s``, on a demand."""
    choice = choose([strategy])[0]
    engine = Engine(
        choice.params, machine, frames=demand.frames, start_ns=0, end_ns=demand.now, bins=1, path=path
    )  # fmt: skip
    engine.feed(demand.batch())
    return engine.finish()


def turns(strategy: str, pages: int, bench: Bench, times: int = 1) -> Outcome:
    """So many turns of: ask for ``pages``, give each back. Three turns before, not counted, have warmed the lists."""
    demand = Demand()
    for turn in range(3 + times):
        warming = turn < 3
        made = demand.request(
            max(pages, 64) if warming else pages,
            targeted=not warming,
            on_path=bench.path is not None and not warming,
        )
        demand.wait(US)
        if warming or bench.freed:
            demand.free(made)
            demand.wait(US)
    return replayed(strategy, bench.machine, demand, bench.path)


def loop(strategy: str, pages: int, bench: Bench) -> dict[str, int]:
    """Counters of one turn: the second of the strategy's own, which finds the lists as the first left them.

    Where pages do not come back it is the first, which the single pages of the turns before serve.
    """
    counters = counters_of(turns(strategy, pages, bench, 2 if bench.freed else 1))
    if bench.freed:
        counters = difference(counters, counters_of(turns(strategy, pages, bench, 1)))
    return {name: n for name, n in counters.items() if n and name not in PEAKS}


def difference(more: Mapping[str, int], less: Mapping[str, int]) -> dict[str, int]:
    """``more`` - ``less``, by counter."""
    return {name: more.get(name, 0) - less.get(name, 0) for name in {*more, *less}}


def priced(
    label: str,
    published: float,
    unit: str,
    counters: Mapping[str, int],
    profile: Profile,
    shown: Callable[[float], float] = float,
    **traits: Any,
) -> Figure:
    """A published figure beside the cost of ``counters``, in what the monotone function ``shown`` makes of it. Seed 0.

    ``traits``: further fields of the figure.
    """
    ends = sorted(map(shown, interval95(counters, profile, 0)))
    return Figure(
        label,
        published,
        unit,
        shown(total(counters, profile)),
        None if math.isclose(*ends) else (ends[0], ends[1]),
        hangs_on=leading(counters, profile),
        **traits,
    )


def ratio(label: str, published: float, more: Mapping[str, int], less: Mapping[str, int], profile: Profile) -> Figure:
    """A published ratio beside that of two costs, priced alike."""
    value = total(more, profile) / total(less, profile)
    turning = {name: more.get(name, 0) - value * less.get(name, 0) for name in {*more, *less}}
    ends = ratio_interval95(less, more, profile, 0)  # of the inverse: what is divided by is never near 0
    return Figure(
        label,
        published,
        "",
        value,
        (1 / ends[1], 1 / ends[0]) if ends and ends[0] > 0 else None,
        neutral=1.0,
        hangs_on=leading(turning, profile),
    )


def leading(counters: Mapping[str, float], profile: Profile) -> str:
    """The number of the profile whose range moves the cost most; nothing if none does."""
    counts = np.array([float(sum(counters.get(name, 0) for name in c.counters)) for c in profile.coefficients])
    rows = tornado(swings_of(profile), counts, None)
    return str(rows[0]["name"]) if rows else ""
