"""Replays of many traces through an executor: results in the order of the fleet, a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from tracereplay.demand.spec import DemandSpec
from tracereplay.errors import TracereplayError
from tracereplay.trace.fleet import Failure, Fleet, Member

AHEAD = 2
"""Traces submitted for each worker."""


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


def replay_trace(location: str, question: Question) -> dict[str, Any]:
    """One trace's result, as of ``replay --format json``; ``{"failed": message}`` where it cannot be replayed."""
    from tracereplay.cost.profile import load_profile
    from tracereplay.cost.result import result_of
    from tracereplay.machine.from_trace import configured_machine
    from tracereplay.replay.run import recorded_demand, replay_demand
    from tracereplay.strategies.registry import choose
    from tracereplay.trace.reader import Trace

    try:
        trace = Trace.open(location)
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
    fleet: Fleet, question: Question, executor: Executor, *, workers: int
) -> Iterator[tuple[Member, dict[str, Any] | Failure]]:
    """Each member with its result, or why there is none, in order. Results that wait for an earlier one are few."""
    running: deque[tuple[Member, Future[dict[str, Any]]]] = deque()
    waiting: Iterator[Member] = iter(fleet.members)
    try:
        while True:
            while len(running) < AHEAD * workers and (member := next(waiting, None)) is not None:
                running.append((member, executor.submit(replay_trace, member.location, question)))
            if not running:
                return
            member, future = running.popleft()
            result = future.result()
            yield member, Failure(member.location, result["failed"], member.host) if "failed" in result else result
    finally:
        for _, future in running:
            future.cancel()


def led(member: Member, names: Sequence[str]) -> dict[str, str | None]:
    """What rows of a member begin with."""
    said = member.columns()
    return {name: said.get(name) for name in names}
