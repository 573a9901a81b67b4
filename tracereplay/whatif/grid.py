"""The question of a sweep: traces, strategies, what is fixed, what varies; and its points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tracereplay.demand.spec import DemandSpec
from tracereplay.errors import GridError, UsageError
from tracereplay.machine.options import KEYS
from tracereplay.strategies.registry import Choice, choose, parse_spec
from tracereplay.whatif.axes import DEFAULT, axes_of, none_or
from tracereplay.whatif.task import Task

MOST_POINTS = 1_000_000
PCP = ("pcp.batch", "pcp.high")


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole sweep. Made by :func:`plan`, which checks it."""

    traces: tuple[str, ...]
    """Where they are, as the user wrote it."""
    strategies: Mapping[str, str]
    """Label -> ``-s`` text."""
    params: Mapping[str, Mapping[str, str]]
    """Label -> parameters fixed by ``--set``."""
    demand: DemandSpec
    machine: Mapping[str, str]
    profile: str
    seed: int
    axes: Mapping[str, tuple[str, ...]]
    """What varies -> its values as texts, in the order given."""
    command: str = ""
    choices: Sequence[Choice] = field(default=(), compare=False)

    @property
    def labels(self) -> list[str]:
        """Of the strategies."""
        return list(self.strategies)

    def axes_for(self, label: str) -> dict[str, tuple[str, ...]]:
        """Axes that a strategy's points differ in: its own parameters, and none of the others'."""
        others = {f"{other}." for other in self.labels if other != label}
        own = [c for c in self.axes if not (self._of_strategy(c) and any(c.startswith(o) for o in others))]
        return {name: self.axes[name] for name in own}

    def _of_strategy(self, axis: str) -> bool:
        return axis not in KEYS and any(axis.startswith(f"{label}.") for label in self.labels)

    @property
    def points(self) -> int:
        """How many there are."""
        per_label = [math.prod(map(len, self.axes_for(label).values())) for label in self.labels]
        return len(self.traces) * sum(per_label)

    def tasks(self) -> Iterator[Task]:
        """Every point: by trace, settings, strategy, so that what shares a demand follows each other."""
        for trace in self.traces:
            seen = set()
            for values in itertools.product(*self.axes.values()):
                chosen = dict(zip(self.axes, values, strict=True))
                for label in self.labels:
                    task = self.task(trace, label, {name: chosen[name] for name in self.axes_for(label)})
                    if (task.label, task.settings) not in seen:
                        seen.add((task.label, task.settings))
                        yield task

    def task(self, trace: str, label: str, settings: Mapping[str, str]) -> Task:
        """One point. ``settings``: axis -> value."""
        machine, params, profile, seed = dict(self.machine), dict(self.params.get(label, {})), self.profile, self.seed
        demand = self.demand
        for name, value in settings.items():
            if self._of_strategy(name):
                params[name.removeprefix(f"{label}.")] = value
            elif name == "profile":
                profile = value
            elif name == "seed":
                seed = int(value)
            elif name in KEYS:
                machine |= {} if value == DEFAULT else {name: value}
            else:
                demand = changed_demand(demand, name, value)
        return Task(
            trace=trace,
            label=label,
            strategy=self.strategies[label],
            params=tuple(params.items()),
            machine=tuple(machine.items()),
            demand=demand,
            profile=profile,
            seed=seed,
            settings=tuple(settings.items()),
            command=self.command,
        )


def changed_demand(demand: DemandSpec, name: str, value: str) -> DemandSpec:
    """A demand with one axis set."""
    given = none_or(value)
    match name:
        case "copies":
            return replace(demand, copies=int(value))
        case "rate":
            return replace(demand, rate=float(value))
        case "request_pages":
            return replace(demand, request_pages=None if given is None else int(given))
        case "max_write":
            return replace(demand, max_write=None if given is None else int(given))
        case "target":
            return replace(demand, target=(value,))
        case "path":
            return replace(demand, path=given)
        case "device":
            return replace(demand, device=given)
        case _:
            return replace(demand, loads=() if given is None else (given,))


def plan(
    traces: Sequence[str],
    strategies: Sequence[str],
    grid: Sequence[str],
    *,
    settings: Sequence[str] = (),
    machine: Mapping[str, str] | None = None,
    demand: DemandSpec | None = None,
    profile: str,
    seed: int = 0,
    command: str = "",
) -> Plan:
    """A checked plan. ``strategies``: ``-s`` texts; ``grid``: ``--grid`` texts; ``settings``: ``--set`` texts.

    Raises GridError (no point, contradictions, unknown names), UsageError, UnknownStrategyError, ParameterError.
    """
    machine, demand = dict(machine or {}), demand or DemandSpec()
    if not traces:
        raise UsageError("no trace", hint="tracereplay whatif TRACE -s ... --grid NAME=VALUES")
    choices = choose(strategies, settings)
    axes = axes_of(grid, choices)
    _refuse_contradictions(axes, machine, demand, settings, strategies)
    params: dict[str, dict[str, str]] = {}
    for text in settings:
        where, _, value = text.partition("=")
        label, _, key = where.rpartition(".")
        params.setdefault(label, {})[key] = value
    specs = {choice.label: text for choice, text in zip(choices, strategies, strict=True)}
    made = Plan(tuple(traces), specs, params, demand, machine, profile, seed, axes, command, choices)
    if made.points > MOST_POINTS:
        raise GridError(f"the grid has {made.points:,} points", hint=f"at most {MOST_POINTS:,}: fewer values or axes")
    return made


def _refuse_contradictions(
    axes: Mapping[str, tuple[str, ...]],
    machine: Mapping[str, str],
    demand: DemandSpec,
    settings: Sequence[str],
    strategies: Sequence[str],
) -> None:
    """What is fixed and varied at once, and what can mean nothing together."""
    fixed = dict.fromkeys(machine, "--machine")
    unset = DemandSpec()
    fixed |= {
        name: option
        for name, option, given in (
            ("copies", "--copies", demand.copies != unset.copies),
            ("rate", "--rate", demand.rate != unset.rate),
            ("request_pages", "--request-pages", demand.request_pages is not None),
            ("target", "--target", bool(demand.target)),
            ("path", "--path", demand.path is not None),
            ("max_write", "--max-write", demand.max_write is not None),
            ("device", "--device", demand.device is not None),
            ("load", "--load", bool(demand.loads)),
        )
        if given
    }
    fixed |= {text.partition("=")[0]: "--set" for text in settings}
    for text in strategies:
        spec = parse_spec(text)
        label = spec.label or spec.load().name
        fixed |= {f"{label}.{key}": f"-s {text}" for key in spec.options}
    if both := [name for name in axes if name in fixed]:
        raise GridError(f"{both[0]} is fixed by {fixed[both[0]]} and varied by --grid", hint="leave one of the two out")
    if "max_write" in axes and demand.path is None and "path" not in axes:
        raise GridError("max_write varies and belongs to a path", hint="add --path dm-crypt")
    sizes = [axes.get(name, (machine.get(name, DEFAULT),)) for name in PCP]
    if any(DEFAULT in values for values in sizes):
        return
    batches, highs = ([int(value) for value in values] for values in sizes)
    if min(batches) > max(highs):
        raise GridError(
            f"every pcp.batch (from {min(batches)}) is above every pcp.high (to {max(highs)})",
            hint="a list's high is at least its batch",
        )
