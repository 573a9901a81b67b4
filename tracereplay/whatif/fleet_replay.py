"""Replays of many traces through an executor, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from tracereplay.demand.spec import DemandSpec
from tracereplay.errors import TracereplayError
from tracereplay.trace.fleet import Failure, Fleet, Member
from tracereplay.whatif.run import Calls, Lost


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every trace; picklable."""

    strategies: tuple[str, ...]
    """As after ``-s``."""
    settings: tuple[str, ...]
    """As after ``--set``."""
    demand: DemandSpec
    machine: tuple[tuple[str, str], ...]
    profile: str
    seed: int
    command: tuple[str, ...]
    dearest: int


def replay_member(member: Member, question: Question) -> dict[str, Any]:
    """One trace's result, as of ``replay --format json``; ``{"failed": message}`` where it cannot be replayed."""
    from tracereplay.cost.profile import load_profile
    from tracereplay.cost.result import result_of
    from tracereplay.machine.from_trace import configured_machine
    from tracereplay.replay.run import recorded_demand, replay_demand
    from tracereplay.strategies.registry import choose

    try:
        trace = member.open()
        options = dict(question.machine)
        done = replay_demand(
            trace,
            recorded_demand(trace, question.demand),
            question.demand,
            choose(question.strategies, question.settings),
            lambda cpus: configured_machine(trace, cpus, options, question.seed),
        )
        prices = load_profile(question.profile)
        return result_of(trace, done, prices, seed=question.seed, command=question.command, dearest=question.dearest)
    except TracereplayError as error:
        return {"failed": error.message, "hint": error.hint}


def replays(
    fleet: Fleet, question: Question, executor: Executor, *, workers: int, note: Callable[[str], None]
) -> Iterator[tuple[Member, dict[str, Any] | Failure]]:
    """Each member with its result, or why there is none, as they finish. Raises ExecutorError when the executor goes
    away."""
    calls: Calls[Member] = Calls(executor, workers, note)
    for member, result in calls.results(replay_member, fleet.members, question):
        if isinstance(result, Lost):
            yield member, Failure(member.location, result.why, member.host)
        elif "failed" in result:
            yield member, Failure(member.location, result["failed"], member.host)
        else:
            yield member, result


def led(member: Member, names: Sequence[str]) -> dict[str, str | None]:
    """What rows of a member begin with."""
    said = member.columns()
    return {name: said.get(name) for name in names}
