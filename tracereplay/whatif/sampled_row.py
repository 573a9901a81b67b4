"""A sampled point as a row of the table: its estimated counters, priced, with what the estimate may be off by."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tracereplay.cost.bootstrap import Floats, Ints, Sample
from tracereplay.cost.intervals import Drawn, judged
from tracereplay.machine.counters import COUNTERS, PEAKS
from tracereplay.machine.from_trace import configured_machine
from tracereplay.replay import layout as at
from tracereplay.replay.run import Replayed, prepared
from tracereplay.strategies.registry import choose
from tracereplay.whatif.sampled import SampledTask
from tracereplay.whatif.sampled_baseline import WARMUP, Baseline, run_baseline
from tracereplay.whatif.sampled_point import Measured, Point, measure
from tracereplay.whatif.task import Kept, Row, Task, demand_of, priced, pricing_of, provenance, trace_of

if TYPE_CHECKING:
    from tracereplay.cost.intervals import Pricing
    from tracereplay.machine.config import MachineConfig
    from tracereplay.strategies.registry import Choice

BASELINES = 2
"""Baselines that a process keeps, with their checkpoints on disk."""
_baselines: Kept[Baseline | None] = Kept(BASELINES)


def sampled_row(task: Task) -> Row | None:
    """Columns of a sampled point. None where it is better replayed whole. Raises TracereplayError."""
    assert isinstance(task, SampledTask)
    trace = trace_of(task.trace)
    base = _baselines.get(
        (trace.metadata.trace_id, task.strategy, task.base_params, task.base_machine, task.demand, task.seed),
        lambda: _baseline(task),
    )
    if base is None or not base.outcome.arrivals[:, 0].any():
        return None
    choice = _choice(task, task.params)
    built = base.ready.machine
    machine = configured_machine(trace, base.spool.info.cpus, dict(task.machine), task.seed)
    machine = replace(machine, cpus=built.cpus, notes=built.notes)
    p = pricing_of(task.profile, task.seed, machine.cpus)
    found = measure(
        Point(base, choice, machine),
        p.matrix @ p.values,
        precision=task.precision,
        draws=len(p.prices),
        seed=task.seed,
    )
    if found is None:
        return None
    copied = base.ready.copied
    done = Replayed(
        [(choice, base.outcome)],
        base.ready.stream.report,
        machine,
        base.ready.path,
        copied.to_json() if copied else None,
    )
    return provenance(trace, done) | row_of(task, choice, base, found, machine, p)


def _choice(task: Task, params: tuple[tuple[str, str], ...]) -> Choice:
    return choose([task.strategy], [f"{task.label}.{key}={value}" for key, value in params])[0]


def _baseline(task: SampledTask) -> Baseline | None:
    trace = trace_of(task.trace)
    options = dict(task.base_machine)
    ready = prepared(
        trace,
        demand_of(task.trace, task.demand.recorded),
        task.demand,
        lambda cpus: configured_machine(trace, cpus, options, task.seed),
    )
    return run_baseline(ready, _choice(task, task.base_params), task.seed)


def row_of(task: Task, choice: Choice, base: Baseline, found: Measured, machine: MachineConfig, p: Pricing) -> Row:
    """Columns of counters, prices and intervals."""
    counters = {name: round(n) for name, n in zip(COUNTERS, found.values[:-1].tolist(), strict=True)}
    sample = scaled(Sample.of(base.outcome), np.array(list(counters.values()), np.int64))
    x = base.outcome.scalars
    entry: dict[str, Any] = {
        "strategy": type(choice.params).name,
        "label": choice.label,
        "params": choice.params.values(),
        "counters": counters,
        "worker": {name: int(n) for name, n in zip(COUNTERS, sample.worker.sum(axis=0) + sample.end, strict=True)},
        "requests": {"failed": None, "waiting": None, "background_failed": None},
    }
    row = priced(task, entry, sample, machine.cpus)
    pages, value = int(x[at.X_TARGETED_PAGES]), row["per_page"]  # which rounding moves a little
    low, high = whole_interval(found, sample, p)
    within = {name: [float(found.low[i]), float(found.high[i])] for i, name in enumerate(COUNTERS) if found.high[i]}
    return (
        row
        | dict.fromkeys(PEAKS)
        | {
            "cost_low95": low * pages,
            "cost_high95": high * pages,
            "per_page_low95": low,
            "per_page_high95": high,
            "intervals": json.dumps(
                {
                    **within,
                    "per_page": [min(found.low[-1] / pages, value), max(found.high[-1] / pages, value)],
                    "per_page_warmup": (found.warmup[:, -1] / pages).tolist(),
                }
            ),
            "sampling": json.dumps(
                {
                    "blocks": found.blocks,
                    "drawable": found.drawable,
                    "drawn": found.drawn,
                    "warmup_ops": len(base.spool) // base.blocks // WARMUP,
                    "replayed_share": found.work,
                }
            ),
        }
    )


def whole_interval(found: Measured, sample: Sample, p: Pricing) -> tuple[float, float]:
    """95 % interval of the cost of a page over prices, requests and the sampling of blocks, and the warm-up's error.

    The first three vary independently, so their draws go together; the fourth is a bound, which moves the ends.
    """
    page = judged(sample, p).page
    assert page is not None  # a baseline without requests is replayed whole
    pages = int(sample.pages.sum())
    off = (found.draws[:, :-1] - found.values[:-1]) @ p.matrix / pages
    low, high = Drawn(page.counts, np.maximum(page.draws + off, 0)).interval(p) + found.warmup[:, -1] / pages
    return max(min(low, float(found.low[-1]) / pages), 0.0), max(high, float(found.high[-1]) / pages)


def scaled(sample: Sample, totals: Ints) -> Sample:
    """A baseline's sample with its counters, slice by slice, in proportion to other ``totals``, [NR_COUNTERS].

    What the slices lack to these by rounding, the last one has; so has a counter all that the baseline did not have.
    """
    parts = [sample.counters, sample.worker, sample.end[None]]
    had = sum(part.sum(axis=0) for part in parts)
    factor: Floats = np.divide(totals, had, out=np.zeros(len(totals)), where=had != 0)
    counters, worker, end = (np.floor(part * factor).astype(np.int64) for part in parts)
    counters[-1] += totals - counters.sum(axis=0) - worker.sum(axis=0) - end[0]
    return replace(sample, counters=counters, worker=worker, end=end[0], vectors=None, cells=np.zeros((0, 3), np.int64))
