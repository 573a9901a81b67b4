"""Sampled sweeps: each point is measured on some blocks of the demand (sampled_point.py), against one full replay.

What a grid varies is of two kinds. Some settings can change while a machine runs, so a point can begin in the middle
of the demand where the full replay, the *baseline*, was put down. All others (memory, generation, CPUs, fragmentation,
what is asked for) need a history of their own: each of their values gets a baseline of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tracereplay.errors import GridError, UsageError
from tracereplay.machine.retune import RETUNABLE
from tracereplay.whatif.task import Row, Task

if TYPE_CHECKING:
    from tracereplay.strategies.contract import Params
    from tracereplay.whatif.grid import Plan

METHOD = "sampled"
PRECISION = 0.02
LOWEST_PRECISION = 1e-4


@dataclass(frozen=True, slots=True)
class SampledTask(Task):
    """A point, and what its baseline has in place of its own."""

    base_params: tuple[tuple[str, str], ...] = ()
    base_machine: tuple[tuple[str, str], ...] = ()
    precision: float = PRECISION


def run_sampled(
    plan: Plan,
    executor: Executor,
    add: Callable[[Row], None],
    *,
    workers: int,
    done: set[str],
    precision: float = PRECISION,
) -> None:
    """Run the points of a plan whose keys are not ``done``; ``add`` gets each row.

    ``precision``: share of a point's cost that its interval may be wide, to either side. Raises GridError where nothing
    varies that can be sampled, UsageError.
    """
    from tracereplay.whatif.run import run_tasks

    tasks = sampled_tasks(plan, precision)
    run_tasks((task for task in tasks if task.key not in done), executor, add, workers=workers)


def sampled_tasks(plan: Plan, precision: float) -> Iterator[SampledTask]:
    """The points of a plan, those of one baseline one after another. Raises GridError, UsageError before the first."""
    if not LOWEST_PRECISION <= precision < 1:
        raise UsageError(f"--precision {precision}", hint=f"a share of the cost, {LOWEST_PRECISION} to below 1: 0.02")
    if foreign := [choice.label for choice in plan.choices if choice.foreign]:
        raise UsageError(
            f"{foreign[0]} is a strategy of your own: it runs in a process of its own, where it cannot be put down",
            hint="use --method replay",
        )
    refused = {axis: reason for axis in plan.axes if (reason := why_not(plan, axis))}
    if len(refused) == len(plan.axes):
        axis, reason = next(iter(refused.items()))
        raise GridError(
            f"no point can be sampled: {axis} {reason}",
            hint=f"use --method replay, or vary one of: {', '.join(RETUNABLE)}, profile, a parameter of a strategy",
        )
    return _tasks(plan, set(refused), precision)


def _tasks(plan: Plan, fixed: set[str], precision: float) -> Iterator[SampledTask]:
    points = [(task, _baseline(plan, task, fixed)) for task in plan.tasks()]
    groups = {base: None for _, base in points}
    for group in groups:
        for task, base in points:
            if base == group:
                own = {name: getattr(task, name) for name in Task.__dataclass_fields__}
                own |= {"method": METHOD, "base_params": base.params, "base_machine": base.machine}
                yield SampledTask(**own, precision=precision)


def _baseline(plan: Plan, task: Task, fixed: set[str]) -> Task:
    """The baseline of a point: the point without what is sampled."""
    return plan.task(task.trace, task.label, {name: value for name, value in task.settings if name in fixed})


def why_not(plan: Plan, axis: str) -> str | None:
    """Why points along an axis cannot begin where another value of it was put down; None where they can."""
    from tracereplay.machine.options import KEYS

    if axis in RETUNABLE or axis == "profile":
        return None
    if axis in KEYS or axis == "seed":
        return "changes memory, lists or rules that a machine is built with"
    label, _, parameter = axis.rpartition(".")
    choice = next((c for c in plan.choices if c.label == label), None)
    if choice is None:
        return "changes what is asked for"
    for text in plan.axes[axis]:
        changed = type(choice.params).from_text({**_texts(choice.params), parameter: text})
        if not words_only(choice.params, changed):
            return "changes what the strategy takes from the machine before it begins"
    return None


def _texts(params: Params) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(params).items()}


def words_only(one: Params, other: Params) -> bool:
    """Whether two settings of a strategy leave the same machine when it has begun, and differ in its own words only."""
    import numpy as np

    from tracereplay.errors import TracereplayError
    from tracereplay.machine.config import MachineConfig, default_zones
    from tracereplay.replay.engine import Engine

    config = MachineConfig(zones=default_zones(TRIAL_MEMORY), cpus=2)
    try:
        begun = [Engine(params, config, frames=1, start_ns=0, end_ns=1, bins=1) for params in (one, other)]
    except TracereplayError:  # a reserve larger than this machine, for one
        return False
    one_machine, other_machine = (engine.machine for engine in begun)
    same = all(np.array_equal(getattr(one_machine, name), getattr(other_machine, name)) for name in ("pg", "pb", "w"))
    return same and len(begun[0].state) == len(begun[1].state)


TRIAL_MEMORY = 256 << 20
"""Bytes of the machine on which settings of a strategy are tried."""
