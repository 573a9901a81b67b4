"""Exact sweeps of per-CPU list sizes in one pass: what refills, drains and locks a full replay of each would count.

A demand becomes steps of the per-CPU lists once (onepass_steps.py); all settings are then counted side by side
(onepass_lanes.py, engine.md 3), and each is refused where its conditions do not hold (onepass_conditions.py). Nothing
else is known: costs and all other counters stay empty.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tracereplay.errors import GridError, OnePassError, ParameterError, TracereplayError
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.whatif.task import FAILED, Row, Task, demand_of, place, provenance, trace_of

if TYPE_CHECKING:
    from tracereplay.machine.config import MachineConfig
    from tracereplay.strategies.contract import Params
    from tracereplay.trace.reader import Trace
    from tracereplay.whatif.grid import Plan
    from tracereplay.whatif.onepass_conditions import Broken
    from tracereplay.whatif.onepass_steps import Steps
    from tracereplay.whatif.onepass_sweep import Asking

METHOD = "one-pass"
SIZES = ("pcp.batch", "pcp.high", "pcp.scale_max")
SWEPT = (*SIZES, "generation")
STRATEGIES = ("per-page", "bulk")
MOST_SIZE = 1 << 28
MOST_BATCH = 1 << 22
"""Pages."""


def run_onepass(plan: Plan, add: Callable[[Row], None], *, done: Collection[str] = ()) -> None:
    """Every point of a plan in one pass for each trace, strategy and generation; ``add`` gets each row, in the plan's
    order. ``done``: keys of points that are there already.

    A setting that breaks a condition is a row with status ``failed`` that names it. Raises GridError for an axis that
    sweeps cannot vary, OnePassError for a strategy that they cannot follow.
    """
    if others := [name for name in plan.axes if name not in SWEPT]:
        raise GridError(
            f"--method {METHOD} cannot vary {', '.join(others)}",
            hint=f"it varies {', '.join(SWEPT)}; --method replay varies everything",
        )
    asking = {choice.label: asking_of(choice.label, choice.params) for choice in plan.choices}
    tasks = [replace(task, method=METHOD) for task in plan.tasks()]
    for group in _groups(tasks):
        todo = [task for task in group if task.key not in done] if done else group
        if todo:
            for row in swept_rows(todo, asking[todo[0].label]):
                add(row)


def asking_of(label: str, params: Params) -> Asking:
    """How a strategy asks for pages. Raises OnePassError where that depends on what its calls find."""
    from tracereplay.whatif.onepass_sweep import Asking

    hint = f"--method {METHOD} follows {' and '.join(STRATEGIES)}; --method replay follows every strategy"
    if params.name not in STRATEGIES or type(params).__module__.partition(".")[0] != "tracereplay":
        raise OnePassError(f"{label}: what {params.name} asks of the per-CPU lists depends on what it gets", hint=hint)
    if params.name == "per-page":
        return Asking(bulk=False)
    values = asdict(params)
    if not values["fallback_single_page"]:
        raise OnePassError(f"{label}: without fallback_single_page a call for one page brings nothing", hint=hint)
    return Asking(bulk=True, cap=int(values["batch_cap"]))


def _groups(tasks: Sequence[Task]) -> list[list[Task]]:
    """Points that differ in list sizes alone."""
    groups: dict[tuple[Any, ...], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.trace, task.label, _but(task, SIZES)), []).append(task)
    return list(groups.values())


def _but(task: Task, names: Collection[str]) -> tuple[tuple[str, str], ...]:
    return tuple(item for item in task.machine if item[0] not in names)


def swept_rows(tasks: Sequence[Task], asking: Asking) -> list[Row]:
    """Rows of points that differ in list sizes alone."""
    started = time.perf_counter()
    rows = [place(task) for task in tasks]
    try:
        found = _swept(tasks, asking)
    except TracereplayError as error:
        found = [_failed(error)] * len(tasks)
    seconds = (time.perf_counter() - started) / len(tasks)
    return [row | more | {"seconds": seconds} for row, more in zip(rows, found, strict=True)]


def _swept(tasks: Sequence[Task], asking: Asking) -> list[Row]:
    from tracereplay.machine.options import machine_options
    from tracereplay.whatif.onepass_conditions import broken_by_lane, broken_for_all
    from tracereplay.whatif.onepass_sweep import sweep_lanes

    trace = trace_of(tasks[0].trace)
    steps, base = steps_of(trace, tasks[0])
    if asking.bulk and not GENERATIONS[base.generation].has_bulk:
        raise OnePassError(f"kernel {base.generation} has no alloc_pages_bulk", hint="a later generation, or per-page")
    if broken := broken_for_all(steps.facts, base):
        raise broken_condition(broken)
    about = _about(trace, steps, base)
    configs, rows = [], []
    for task in tasks:
        try:
            config = machine_options(base, {name: text for name, text in task.machine if name in SIZES})
            refuse_large(config)
            configs.append(config)
            rows.append(about | {"machine": json.dumps(configs[-1].describe())})
        except (ParameterError, OnePassError) as error:
            rows.append(_failed(error))
    if configs:
        swept = sweep_lanes(steps, configs, asking)
        fine = [row for row in rows if "status" not in row]
        for lane, (row, broken) in enumerate(zip(fine, broken_by_lane(steps.facts, configs, swept), strict=True)):
            if broken:
                row |= _failed(broken_condition(broken))
            else:
                row |= {name: int(values[lane]) for name, values in swept.counters.items()}
    return rows


def refuse_large(config: MachineConfig) -> None:
    """Raise OnePassError for sizes that the lanes' 32 bits, or 24-bit quotients, may not hold."""
    batch = config.pcp_batch or 0
    if max(config.pcp_high or 0, batch << config.pcp_scale_max) > MOST_SIZE or batch > MOST_BATCH:
        raise OnePassError(f"list sizes above {MOST_SIZE} pages", hint="replay it: --method replay")


def broken_condition(broken: Broken) -> OnePassError:
    """The error for a condition that does not hold."""
    return OnePassError(str(broken), hint="replay it: --method replay")


def _failed(error: TracereplayError) -> Row:
    return {"status": FAILED, "error": error.message + (f" ({error.hint})" if error.hint else "")}


def _about(trace: Trace, steps: Steps, config: MachineConfig) -> Row:
    """Where a row comes from."""
    from tracereplay.demand.stream import Accounting, DemandReport

    facts = steps.facts
    report = DemandReport(**facts.report | {"accounting": Accounting(**facts.report["accounting"])})
    done: Any = SimpleNamespace(report=report, machine=config, copies=facts.copies)
    return provenance(trace, done)


def steps_of(trace: Trace, task: Task) -> tuple[Steps, MachineConfig]:
    """Steps of a point's demand, made now if they were not made before, and its machine without sizes of its own.

    Raises TracereplayError.
    """
    from tracereplay.analysis.derived import kept_file
    from tracereplay.machine.from_trace import configured_machine, generation_of
    from tracereplay.whatif.onepass_steps import read_steps

    options = dict(_but(task, SIZES))
    fixed = dict(_but(task, SWEPT))
    generation = options.get("generation") or generation_of(trace)
    small = GENERATIONS[generation].pcp_orders == 1
    said = json.dumps([asdict(task.demand), sorted(fixed.items()), task.seed, small])
    path = kept_file(
        trace,
        "pcp_steps",
        "tracereplay.whatif.onepass_steps",
        hashlib.sha256(said.encode()).hexdigest(),
        lambda path: write_steps(trace, task, options, path),
    )
    steps = read_steps(path)
    config = configured_machine(trace, steps.facts.cpus, options, task.seed)
    return steps, replace(config, cpus=steps.facts.cpus, notes=tuple(steps.facts.notes))


def write_steps(trace: Trace, task: Task, options: dict[str, str], path: Path) -> None:
    """Record the steps of a point's demand."""
    from tracereplay.machine.from_trace import configured_machine
    from tracereplay.replay.run import prepared, refuse_too_little_memory
    from tracereplay.whatif.onepass_steps import Recorder

    ready = prepared(
        trace,
        demand_of(task.trace, task.demand.recorded),
        task.demand,
        lambda cpus: configured_machine(trace, cpus, options, task.seed),
    )
    recorder = Recorder(ready, path)
    if ready.copied is not None:
        refuse_too_little_memory(ready.copied, recorder.machine)
    for ops in ready.stream:
        recorder.feed(ops)
    recorder.finish()
