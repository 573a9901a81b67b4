"""What a strategy is tried on: machines and demand that hold every shape of request, often enough to see leaks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tracereplay.kernel.gfp import GFP_HIGHMEM, GFP_KERNEL, GFP_NOWAIT, GFP_ZERO
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.replay.engine import Outcome, PathConfig
from tracereplay.testing.demand import Demand, Made

CPUS = 4
CYCLES = 4
"""Repetitions of the same demand; what a strategy keeps may not grow with each of them."""
SIZES = (1, 1, 2, 3, 7, 16, 33, 64, 200, 256)
ORDERS = (0, 1, 2, 3, 5, 9, 10)
KEYS = 1 << 17
"""More than any trial uses."""
SECOND = 1_000_000_000
REST = 12
"""Seconds between two repetitions, for workers that tidy up."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A machine and what is asked of it."""

    name: str
    machine: MachineConfig
    path: bool = False
    """Whether requests are on the dm-crypt path: with a reserve and a quota."""
    cycles: int = CYCLES
    largest: bool = False
    """Whether the largest request there can be is among them."""


def trials() -> tuple[Trial, ...]:
    """A machine that is too small and fragmented, with two nodes; one with room, on a path; the same without."""
    normal = ZoneConfig("Normal", 0, 1 << 17)
    small = (ZoneConfig("Normal", 0, 1024, node=0), ZoneConfig("Normal", 1024, 2048, node=1))
    return (
        Trial(
            "short of memory",
            MachineConfig(zones=small, cpus=CPUS, nodes=2, occupancy=0.75, fragmentation=0.7, seed=5),
            path=True,
        ),
        Trial("on a path", MachineConfig(zones=(normal,), cpus=CPUS, occupancy=0.0), path=True),
        Trial("room for all", MachineConfig(zones=(normal,), cpus=CPUS, occupancy=0.0), cycles=1, largest=True),
    )


def batches(trial: Trial) -> Iterator[Demand]:
    """The demand of a trial, a cycle at a time, each freed wholly and followed by a rest. Take each one's ``batch``."""
    demand = Demand()
    for i in range(trial.cycles):
        if trial.largest and i == 0:
            made = demand.request(16384, orders=[10] * 16, cpu=1)
            demand.wait(1000)
            demand.free(made, single=False, cpu=1)
        _cycle(demand, random.Random(7), trial.path)
        demand.tick(SECOND, REST, cpus=CPUS)
        yield demand


def _cycle(demand: Demand, rng: random.Random, path: bool) -> None:
    """Requests of all shapes on all CPUs, some of them live at the same time, freed in all ways."""
    live: list[Made] = []
    asked = [(pages, False) for pages in SIZES * 2] + [(1 << order, True) for order in ORDERS]
    rng.shuffle(asked)
    for i, (pages, required) in enumerate(asked):
        live.append(
            demand.request(
                pages,
                cpu=i % CPUS,
                gfp=rng.choice((GFP_KERNEL, GFP_NOWAIT | GFP_HIGHMEM, GFP_KERNEL | GFP_ZERO)),
                required=required,
                on_path=path and not required and rng.random() < 0.7,
            )
        )
        live.append(demand.request(rng.choice((1, 4)), targeted=False, cpu=rng.randrange(CPUS)))
        demand.wait(rng.choice((0, 300, 20_000, 3_000_000)))
        while len(live) > 14:
            _free_one(demand, live, rng)
    demand.wait(SECOND // 10)
    while live:
        _free_one(demand, live, rng)


def _free_one(demand: Demand, live: list[Made], rng: random.Random) -> None:
    made = live.pop(rng.randrange(len(live)))
    demand.free(made, cpu=rng.randrange(CPUS), single=rng.random() < 0.7, shuffle=rng.choice((None, 3)))


def engine_options(trial: Trial) -> dict[str, Any]:
    """What an engine is told besides the machine."""
    cycle = SECOND * (REST + 1)
    return {
        "frames": KEYS,
        "start_ns": 0,
        "end_ns": cycle * trial.cycles,
        "bins": 4,
        "path": PathConfig("dm-crypt", 16, 300) if trial.path else None,
    }


def counted(outcome: Outcome) -> list[int]:
    """All that a replay counts: totals, and the requests' own counters with how many have them, in their order."""
    rows = sorted((*v, n) for v, n in zip(outcome.vectors.tolist(), outcome.counts.tolist(), strict=True))
    totals = [*outcome.totals.tolist(), *outcome.worker.tolist(), *outcome.background.tolist()]
    return [*totals, *(word for row in rows for word in row)]
