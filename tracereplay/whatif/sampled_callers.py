"""Sampling by caller: what the requests of some callers cost the strategy in calls, and so what those of all do.

Fewer callers press less on the lists, locks and memory that all share. So only counters are estimated that hang on the
requests alone (PURE), and only where memory is ample: a strategy that serves them one after another, from blocks of one
page, asks for as much whoever else is there. All others are refused by name.

A caller is taken when a seeded hash of its name falls below the share (as SHARDS takes addresses; Waldspurger et al.,
FAST '15). What it asked for is replayed alone, from the machine's start on. The sums over all callers follow by ratio
(Cochran, Sampling Techniques, 3rd ed., 6): requests and pages of all are known exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from tracereplay.errors import SamplingError, UsageError, nearest
from tracereplay.machine.counters import COUNTERS
from tracereplay.whatif.sampled import METHOD
from tracereplay.whatif.task import Kept, Row, Task, demand_of, provenance, trace_of

if TYPE_CHECKING:
    from tracereplay.replay.engine import Engine
    from tracereplay.strategies.registry import Choice
    from tracereplay.whatif.callers_split import Split
    from tracereplay.whatif.grid import Plan

LEAST_CALLERS = 8
ASIDE = 4
"""One page in so many of a zone is not counted on: per-CPU lists hold up to an eighth (``zone_highsize``,
mm/page_alloc.c), the rest is for watermarks, their boost and reserves."""

_OF_PAGES = ("pages_allocated", "zeroed_pages")
_OF_BULK = ("bulk_calls", "callbacks", "pages_listed", "pages_prepared_unlocked")
_OF_SINGLES = ("alloc_calls", *_OF_PAGES, "memcg_charges", "free_calls", "pages_freed", *_OF_BULK)
PURE = {
    "per-page": _OF_SINGLES,
    "bulk": _OF_SINGLES,
    "compound": _OF_PAGES,  # which orders it gets, and so its calls, hangs on which blocks are free
}
"""Strategy -> counters that hang on its requests alone, without a path, while memory is ample."""
PER_PAGE = {
    "per-page": ("alloc_calls", "pages_allocated", *_OF_BULK),
    "bulk": ("pages_allocated", "callbacks", "pages_listed"),
    "compound": ("pages_allocated",),
}
"""Those of them of which there is one a page, or none, whatever is asked."""

_REASONS = (
    (("cache_", "unlocked_", "worker_", "shrunk_"), "a cache that all callers share"),
    (
        ("mempool_", "mutex_", "restarts", "quota_", "percpu_counter_"),
        "reserve, quota and mutex that all callers share",
    ),
    (("bios", "bio_", "bvec_"), "a path, whose reserve all callers share"),
    (("direct_map_", "tlb_"), "a map of memory that all callers share"),
    (
        ("watermark_", "failed_", "failures", "compaction_", "reclaim", "kswapd_", "highatomic_"),
        "how much memory all callers together leave",
    ),
    (("",), "lists that all callers share"),
)
"""Beginnings of counters' names, and what these counters depend on; the first that fits."""
_NEXT = "use --sample blocks, which estimates every counter, or --method replay"
_splits: Kept[Split] = Kept(2)


@dataclass(frozen=True, slots=True)
class CallersTask(Task):
    """A point of which some callers are replayed."""

    share: float = 1.0
    counters: tuple[str, ...] = ()


def share_of(sample: str) -> float | None:
    """The share of callers of ``--sample callers:SHARE``; None of ``blocks``. Raises UsageError."""
    way, _, text = sample.partition(":")
    if sample == "blocks":
        return None
    try:
        share = float(text) if way == "callers" else 0.0
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UsageError(
            f"--sample {sample}", hint="blocks, or callers:SHARE with a share above 0 up to 1: callers:0.1"
        )
    return share


def run_callers(
    plan: Plan,
    executor: Executor,
    add: Callable[[Row], None],
    *,
    workers: int,
    done: set[str],
    share: float,
    counters: Sequence[str],
) -> None:
    """Run the points of a plan whose keys are not ``done`` on a ``share`` of their callers; ``add`` gets each row.

    ``counters``: those to estimate; none named: all that can be, of each strategy. Raises SamplingError, UsageError.
    """
    from tracereplay.whatif.run import run_tasks

    tasks = callers_tasks(plan, share, counters)
    run_tasks((task for task in tasks if task.key not in done), executor, add, workers=workers)


def callers_tasks(plan: Plan, share: float, counters: Sequence[str]) -> Iterator[CallersTask]:
    """The points of a plan. Raises SamplingError, UsageError before the first."""
    for name in counters:
        if name not in COUNTERS:
            guess = nearest(name, COUNTERS)
            raise UsageError(
                f"no counter {name!r}", hint=f"did you mean {guess!r}?" if guess else "see docs/cost-model.md"
            )
    asked = {choice.label: asked_of(choice, counters) for choice in plan.choices}
    if plan.demand.path is not None or "path" in plan.axes:
        raise SamplingError(
            "requests of a path depend on reserve, quota and mutex that all callers share: a share of the callers "
            "would not find them as all do",
            hint=_NEXT,
        )
    return _tasks(plan, share, asked)


def _tasks(plan: Plan, share: float, asked: dict[str, tuple[str, ...]]) -> Iterator[CallersTask]:
    for task in plan.tasks():
        own = {name: getattr(task, name) for name in Task.__dataclass_fields__} | {"method": METHOD}
        yield CallersTask(**own, share=share, counters=asked[task.label])


def asked_of(choice: Choice, counters: Sequence[str]) -> tuple[str, ...]:
    """The counters of a strategy to estimate. Raises SamplingError for one that others' requests change."""
    pure = () if choice.foreign else PURE.get(type(choice.params).name, ())
    for name in counters or [name for name in ("alloc_calls",) if not pure]:
        if name not in pure:
            raise SamplingError(
                f"{name} of {choice.label} depends on {reason_of(name, choice)}: with a tenth of them it would not be "
                "a tenth",
                hint=f"of {choice.label} by caller: {', '.join(pure)}; or {_NEXT}" if pure else _NEXT,
            )
    return tuple(counters) or pure


def reason_of(name: str, choice: Choice) -> str:
    """What a counter depends on beside its own requests."""
    kind = type(choice.params).name
    if choice.foreign:
        return "code that is not known here, and may keep what all callers share"
    if any(name in pure for pure in PURE.values()) or name in ("compound_preps", "tail_pages_prepared"):
        if kind == "compound":
            return "which blocks are free, which all callers decide together"
        if kind not in PURE:
            return "what the strategy keeps for all callers together"
    return next(reason for starts, reason in _REASONS if name.startswith(starts))


# ---------------------------------------------------------------- a point
def callers_row(task: CallersTask) -> Row:
    """Columns of a point. Raises TracereplayError."""
    import numpy as np

    from tracereplay.demand.spool import Spool
    from tracereplay.machine.from_trace import configured_machine
    from tracereplay.replay.run import Replayed, prepared
    from tracereplay.strategies.registry import choose
    from tracereplay.whatif.callers_estimate import estimate
    from tracereplay.whatif.callers_split import split

    trace, options = trace_of(task.trace), dict(task.machine)
    choice = choose([task.strategy], [f"{task.label}.{key}={value}" for key, value in task.params])[0]
    ready = prepared(
        trace,
        demand_of(task.trace, task.demand.recorded),
        task.demand,
        lambda cpus: configured_machine(trace, cpus, options, task.seed),
    )
    parts = _splits.get(
        (trace.metadata.trace_id, task.demand, task.share, task.seed, ready.machine.cpus),
        lambda: split(
            ready.stream if isinstance(ready.stream, Spool) else Spool(ready.stream),
            lambda name: taken(name, task.share, task.seed),
        ),
    )
    check(parts, task.share)
    ready = replace(ready, stream=parts.spool)
    engine = cast("Engine", ready.engine(choice))
    refuse_scarce(parts, engine)
    fixed = [name in PER_PAGE[type(choice.params).name] for name in task.counters]
    slots = [COUNTERS.index(name) for name in task.counters]
    counted = counted_by_caller(engine, parts)[:, slots]
    found = estimate(parts.sizes, counted, parts.totals, parts.callers, task.seed, heavy=parts.heavy, fixed=fixed)
    values = [round(value) for value in found.values.tolist()]
    done = Replayed([], parts.spool.report, ready.machine, ready.path, ready.copied.to_json() if ready.copied else None)
    ends = np.stack([found.low, found.high], axis=1).tolist()
    known = parts.sizes.sum(axis=0) / parts.totals
    return (
        provenance(trace, done)
        | {"params": json.dumps(choice.params.values())}
        | dict(zip(task.counters, values, strict=True))
        | {
            "intervals": json.dumps(dict(zip(task.counters, ends, strict=True))),
            "sampling": json.dumps(
                {
                    "callers": parts.callers,
                    "heavy": parts.heavy,
                    "drawn": len(parts.sizes) - parts.heavy,
                    "share": task.share,
                    "requests_share": known[0],
                    "pages_share": known[1],
                }
            ),
        }
    )


def taken(name: str, share: float, seed: int) -> bool:
    """Whether a caller is of the sample: the same one for every share above it."""
    digest = blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def check(parts: Split, share: float) -> None:
    """Raise SamplingError where callers are too few, or ask for what may not be there."""
    drawn, others = len(parts.sizes) - parts.heavy, parts.callers - parts.heavy
    if not parts.callers:
        raise SamplingError("no request was targeted", hint="choose others: --target all; see `tracereplay demand`")
    if drawn < min(LEAST_CALLERS, others):
        enough = min(1.0, share * 2 * LEAST_CALLERS / max(drawn, 1))
        hint = f"try --sample callers:{enough:.2g}" if others >= 2 * LEAST_CALLERS else _NEXT
        raise SamplingError(
            f"{drawn} of {others} callers that are not heavy were drawn; an interval needs {LEAST_CALLERS}",
            hint=hint,
        )
    if parts.large:
        raise SamplingError(
            f"{parts.large} targeted requests need contiguous blocks or low memory, which others may have taken",
            hint=f"leave them out with --target, or {_NEXT}",
        )


def refuse_scarce(parts: Split, engine: Engine) -> None:
    """Raise SamplingError where the demand of all callers may bring the largest zone of a node near its watermarks:
    calls then fail, or bring less."""
    from tracereplay.machine import layout as at

    words = engine.machine.w
    wanted = parts.spool.live.together([0])
    largest: dict[int, int] = {}
    for zone in range(0, int(words[at.CFG_ZONES]) * at.Z_WORDS, at.Z_WORDS):
        node = int(words[zone + at.Z_NODE])
        if words[zone + at.Z_MANAGED] >= words[largest.get(node, zone) + at.Z_MANAGED]:
            largest[node] = zone
    for node, zone in largest.items():
        room = max(0, int(words[zone + at.Z_FREE] - words[zone + at.Z_MANAGED] // ASIDE))
        if wanted > room:
            raise SamplingError(
                f"memory may run short: all callers together need {wanted} pages at one time beyond those in use at "
                f"the start, and {room} of node {node} can be counted on; calls then fail or bring less",
                hint=f"simulate more memory (--machine memory=..., occupancy=...), or {_NEXT}",
            )


def counted_by_caller(engine: Engine, parts: Split) -> Any:
    """Counters of each drawn caller's requests, replayed alone, [caller, NR_COUNTERS]. Raises SamplingError."""
    import numpy as np

    from tracereplay.machine.counters import NR_COUNTERS
    from tracereplay.replay import layout as at
    from tracereplay.replay.checkpoint import restore, save
    from tracereplay.whatif.executors import go_on

    start, rows = save(engine), []
    for batches in parts.batches:
        restore(engine, start)
        for first, n in batches:
            go_on()
            engine.feed(parts.ops.read(first, n))
        outcome = engine.finish()
        if outcome.scalars[at.X_FAILED] or outcome.scalars[at.X_WAITING]:
            raise SamplingError(
                "requests fail or wait even with few callers: what they ask for then depends on memory that all share",
                hint=_NEXT,
            )
        rows.append((outcome.totals + outcome.worker)[:NR_COUNTERS])
    return np.array(rows)
