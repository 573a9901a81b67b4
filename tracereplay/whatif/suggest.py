"""What is worth varying: every tunable changed by itself, on as much of a trace as a stated amount of work allows.

The effect of a change on a strategy is that on its cost of a page, with the draws of prices and requests in common.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tracereplay.demand.spec import DemandSpec
from tracereplay.errors import TracereplayError, UsageError
from tracereplay.whatif.effects import COLUMNS, NO_EFFECT, Here, effect_of
from tracereplay.whatif.ranking import point
from tracereplay.whatif.run import Calls, Lost
from tracereplay.whatif.steps import Change, changes_of, grid_of
from tracereplay.whatif.task import FAILED, Kept, Row, Task, place, priced, trace_of

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.demand.spool import Spool
    from tracereplay.whatif.grid import Plan

WORK = 60_000_000
"""Operations times strategies that are replayed in all; about half a minute on two cores, compiling apart."""
LEAST = 20_000
"""Operations of the trace that each change gets at least."""
TOP = 3
"""Tunables in the command that goes on from here."""


@dataclass(frozen=True, slots=True)
class Job:
    """Strategies at one change, side by side on the first part of the trace."""

    tasks: tuple[Task, ...]
    operations: int


@dataclass(frozen=True, slots=True)
class Suggested:
    """What was found."""

    frame: pl.DataFrame
    """A row a change, effects.COLUMNS, the most telling first."""
    operations: int
    """Of the trace's demand that were replayed for each change."""
    whole: bool
    """Whether that is all of it."""
    seconds: float
    of_seconds: float
    """Trace time that they took, and that of the whole trace."""
    pages: int
    """Targeted pages among them."""
    base: Mapping[str, float]
    """Label -> cost of a page as things are."""
    unit: str
    command: str | None
    """The sweep to run next; None where nothing matters."""


def suggest(
    plan: Plan,
    executor: Executor,
    *,
    workers: int,
    done: Callable[[int, int], None] = lambda _n, _all: None,
) -> Suggested:
    """Change every tunable of a plan without a grid, one at a time.

    ``done`` is called with the number of changes run and of all. Raises UsageError where nothing is asked for, and what
    the question raises as it stands; a change that cannot be run is a row that says why.
    """
    if len(plan.traces) != 1 or plan.axes:
        raise UsageError(
            "suggest takes one trace and no --grid: it varies everything by itself",
            hint="tracereplay whatif suggest TRACE -s per-page -s bulk",
        )
    from tracereplay.machine.from_trace import configured_machine

    location = plan.traces[0]
    trace = trace_of(location)
    cpus = int(trace.metadata.host.get("cpus") or 1)
    changes = changes_of(plan, configured_machine(trace, cpus, plan.machine, plan.seed))
    jobs = [_tasks(plan, change) for change in changes]
    work = sum(change.weight * len(tasks) for change, tasks in zip(changes, jobs, strict=True))
    operations = max(WORK // max(work, 1), LEAST)

    base = measure(Job(_tasks(plan, None), operations))
    part = part_of(location, plan.demand.recorded, operations)
    here = Here([p for row in base if (p := point(row))])
    if (error := next((row["error"] for row in base if row["status"] == FAILED), None)) is not None:
        raise UsageError(f"the question as it stands cannot be replayed: {error}")
    if not here.points:
        raise UsageError(
            f"no request is targeted in the first {len(part):,} operations of {location}",
            hint="see `tracereplay demand`, and choose with --target, or --target all",
        )
    asked = {Job(tasks, operations): change for change, tasks in zip(changes, jobs, strict=True)}
    found: dict[Change, dict[str, Any]] = {}
    calls: Calls[Job] = Calls(executor, workers)
    for job, rows in calls.results(measure, asked):
        lost = [{"error": rows.why}] if isinstance(rows, Lost) else rows
        found[asked[job]] = effect_of(asked[job], here, lost)
        done(len(found), len(changes))
    taken = part.info.end_ns - part.info.start_ns
    whole = max(trace.identity()["duration_ns"] or 0, taken)
    frame = _frame([found[change] for change in changes])
    return Suggested(
        frame=frame,
        operations=len(part),
        whole=len(part) < operations,
        seconds=taken / 1e9,
        of_seconds=whole / 1e9,
        pages=part.report.targeted_pages,
        base={p.label: p.cost.value for p in here.points},
        unit=next(row["unit"] for row in base),
        command=_command(plan, frame, changes),
    )


def _tasks(plan: Plan, change: Change | None) -> tuple[Task, ...]:
    """The strategies that a change concerns."""
    if change is None:
        return tuple(plan.task(plan.traces[0], label, {}) for label in plan.labels)
    owner = next((label for label in plan.labels if change.of(label)), None)
    labels = plan.labels if owner is None else [owner]
    return tuple(plan.task(plan.traces[0], label, {change.name: change.value}) for label in labels)


def measure(job: Job) -> list[Row]:
    """Rows of a job's points, as far as a comparison needs them."""
    from tracereplay.cost.bootstrap import Sample
    from tracereplay.machine.from_trace import configured_machine
    from tracereplay.replay.result import result_entry
    from tracereplay.replay.run import replay_demand
    from tracereplay.strategies.registry import choose

    first = job.tasks[0]
    options = dict(first.machine)
    trace = trace_of(first.trace)
    try:
        done = replay_demand(
            trace,
            part_of(first.trace, first.demand.recorded, job.operations),
            first.demand,
            choose(
                [task.strategy for task in job.tasks],
                [f"{task.label}.{key}={value}" for task in job.tasks for key, value in task.params],
            ),
            lambda cpus: configured_machine(trace, cpus, options, first.seed),
        )
    except TracereplayError as error:
        return [place(task) | {"status": FAILED, "error": error.message} for task in job.tasks]
    rows = []
    for task, (choice, outcome) in zip(job.tasks, done.outcomes, strict=True):
        sample = Sample.of(outcome)
        row = place(task) | priced(task, result_entry(choice, outcome, done.machine), sample, done.machine.cpus)
        rows.append(row | {"requests": int(sample.requests.sum()), "machine": json.dumps({"cpus": done.machine.cpus})})
    return rows


_parts: Kept[Spool] = Kept(4)


def part_of(location: str, spec: DemandSpec, operations: int) -> Spool:
    """The first operations of a trace's demand, kept in this process."""
    return _parts.get((location, spec, operations), lambda: _part(location, spec, operations))


def _part(location: str, spec: DemandSpec, operations: int) -> Spool:
    from tracereplay.demand.prefix import Prefix
    from tracereplay.demand.spool import Spool
    from tracereplay.replay.run import recorded_demand

    part = Prefix(recorded_demand(trace_of(location), spec), operations)
    spool = Spool(part)
    spool.info = part.info  # which ends with the part
    return spool


def _frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    import polars as pl

    kinds: dict[str, type[pl.DataType]] = dict.fromkeys(("effect_percent", "low95", "high95"), pl.Float64)
    kinds |= dict.fromkeys(("changes_ranking", "settled"), pl.Boolean)
    ordered = sorted(
        rows,
        key=lambda row: (
            row["verdict"] == NO_EFFECT,
            row["effect_percent"] is None,
            not (row["changes_ranking"] and row["settled"]),
            not row["changes_ranking"],
            -abs(row["effect_percent"] or 0.0),
        ),
    )
    return pl.DataFrame(ordered, schema={name: kinds.get(name, pl.String) for name in COLUMNS}, orient="row")


def _command(plan: Plan, frame: pl.DataFrame, changes: list[Change]) -> str | None:
    """A sweep over the tunables that matter most, with everything else as it was asked."""
    telling = frame.filter((frame["verdict"] != NO_EFFECT) & frame["effect_percent"].is_not_null())
    top = telling["tunable"].unique(maintain_order=True).to_list()[:TOP]
    if not top:
        return None
    words = ["tracereplay", "whatif", *plan.traces]
    for text in plan.strategies.values():
        words += ["-s", text]
    words += [
        w for label, given in plan.params.items() for k, v in given.items() for w in ("--set", f"{label}.{k}={v}")
    ]
    words += [word for key, value in plan.machine.items() for word in ("--machine", f"{key}={value}")]
    unset = asdict(DemandSpec())
    for name, value in asdict(plan.demand).items():
        if value != unset[name]:
            option = "--load" if name == "loads" else f"--{name.replace('_', '-')}"
            words += [word for one in (value if isinstance(value, tuple) else (value,)) for word in (option, str(one))]
    words += ["--profile", plan.profile] * (plan.profile != _default_profile())
    words += ["--seed", str(plan.seed)] * (plan.seed != 0)
    for name in top:
        words += ["--grid", grid_of(name, changes)]
    return shlex.join(words)


def _default_profile() -> str:
    from tracereplay.cost.profile import DEFAULT_PROFILE

    return DEFAULT_PROFILE
