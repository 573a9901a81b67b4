"""One point of a grid: all that is needed to run it anywhere, and running it.

A process keeps the traces and demands that it used last, so that points which share them reconstruct a demand once.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tracereplay import __version__
from tracereplay.demand.spec import DemandSpec
from tracereplay.errors import TracereplayError
from tracereplay.whatif.executors import go_on

if TYPE_CHECKING:
    from tracereplay.cost.intervals import Pricing
    from tracereplay.demand.spool import Spool
    from tracereplay.replay.run import Replayed
    from tracereplay.trace.reader import Trace

Row = dict[str, Any]
T = TypeVar("T")
OK, FAILED = "ok", "failed"
DEMANDS = 2
"""Demands that a process keeps. Each takes disk, 32 bytes an operation, and no memory to speak of."""
M_MMAP_THRESHOLD, ARRAY_BYTES = -3, 4 << 20
"""mallopt(3): arrays of so many bytes and more have memory of their own."""


@dataclass(frozen=True, slots=True)
class Task:
    """One point."""

    trace: str
    label: str
    strategy: str
    """As after ``-s``."""
    params: tuple[tuple[str, str], ...]
    """Parameters beyond those in ``strategy``."""
    machine: tuple[tuple[str, str], ...]
    demand: DemandSpec
    profile: str
    seed: int
    settings: tuple[tuple[str, str], ...]
    """Axis -> value: where in the grid it is."""
    method: str = "replay"
    command: str = ""

    @property
    def key(self) -> str:
        """What the point is known by: its settings, its trace's content, the code that runs it."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("command", "trace", "demand")}
        told = json.dumps(
            [own, asdict(self.demand), trace_of(self.trace).metadata.trace_id, code_digest()], sort_keys=True
        )
        return hashlib.sha256((told + _profile_digest(self.profile)).encode()).hexdigest()[:24]


def run_task(task: Task) -> Row:
    """Run a point here. A :class:`TracereplayError` becomes a row with status ``failed``; anything else is a bug."""
    give_back_arrays()
    started = time.perf_counter()
    row = place(task)
    try:
        row |= _measured(task)
    except TracereplayError as error:
        row |= {"status": FAILED, "error": error.message + (f" ({error.hint})" if error.hint else "")}
    return row | {"seconds": time.perf_counter() - started}


def place(task: Task) -> Row:
    """Columns that say which point it is."""
    return {
        "key": task.key,
        "status": OK,
        "error": None,
        "method": task.method,
        "trace": task.trace,
        "strategy": task.strategy,
        "label": task.label,
        **dict(task.settings),
        "profile": task.profile,
        "seed": task.seed,
        "version": __version__,
        "command": task.command,
    }


def _measured(task: Task) -> Row:
    if task.method == "sampled":
        from tracereplay.whatif.sampled_callers import CallersTask, callers_row

        if isinstance(task, CallersTask):
            return callers_row(task)
        from tracereplay.whatif.sampled_row import sampled_row

        if (row := sampled_row(task)) is not None:
            return row
        return _replayed_whole(task) | {"method": "replay"}
    return _replayed_whole(task)


def _replayed_whole(task: Task) -> Row:
    from tracereplay.cost.bootstrap import Sample
    from tracereplay.replay.result import result_entry

    trace = trace_of(task.trace)
    done = replayed(task)
    choice, outcome = done.outcomes[0]
    entry = result_entry(choice, outcome, done.machine)
    return provenance(trace, done) | priced(task, entry, Sample.of(outcome), done.machine.cpus)


def replayed(task: Task) -> Replayed:
    """The replay of a point. Raises TracereplayError."""
    from tracereplay.machine.from_trace import configured_machine
    from tracereplay.replay.run import replay_demand
    from tracereplay.strategies.registry import choose
    from tracereplay.testing.check import admit

    trace = trace_of(task.trace)
    choices = choose([task.strategy], [f"{task.label}.{key}={value}" for key, value in task.params])
    if choices[0].foreign:
        admit(task.strategy.partition("=")[2] or task.strategy)
    options = dict(task.machine)
    return replay_demand(
        trace,
        demand_of(task.trace, task.demand.recorded),
        task.demand,
        choices,
        lambda cpus: configured_machine(trace, cpus, options, task.seed),
        progress=lambda _n: go_on(),
    )


def provenance(trace: Trace, done: Replayed) -> Row:
    """Columns about trace, demand and machine of a finished replay."""
    report, identity, loss = done.report, trace.identity(), trace.loss_summary()
    return {
        "trace_id": identity["id"],
        "host": identity["host"],
        "kernel": identity["kernel"],
        "duration_ns": identity["duration_ns"],
        "requests": report.targeted_requests,
        "pages": report.targeted_pages,
        "demand_requests": report.requests,
        "demand_pages": report.pages,
        "unseen_pages": report.accounting.unseen_pages,
        "lost": loss["lost"],
        "loss_intervals": loss["intervals"],
        "target": report.target,
        "machine": json.dumps(done.machine.describe()),
        "accounting": json.dumps(asdict(report.accounting)),
        "demand": json.dumps(
            {
                "path": report.path,
                "rate": report.rate,
                "request_pages": report.request_pages,
                "copies": done.copies,
                "loads": report.loads,
            }
        ),
    }


def priced(task: Task, entry: dict[str, Any], sample: Any, cpus: int) -> Row:
    """Columns of counters, prices and intervals."""
    from tracereplay.cost.priced import priced_results

    p = pricing_of(task.profile, task.seed, cpus)
    kept = {name: part for name, part in entry.items() if name not in ("sections", "series")}
    found = priced_results([kept], [sample], p, shares={})["results"][0]
    cost, request = found["cost"], found["cost"]["per_request"]
    page = cost["per_page_interval95"] or [None, None]
    return {
        "params": json.dumps(entry["params"]),
        "unit": cost["unit"],
        "cost_total": cost["total"],
        "cost_low95": cost["interval95"][0],
        "cost_high95": cost["interval95"][1],
        "per_page": cost["per_page"],
        "per_page_low95": page[0],
        "per_page_high95": page[1],
        "per_request_mean": request["mean"],
        "per_request_p50": request["p50"],
        "per_request_p99": request["p99"],
        "failed": entry["requests"]["failed"],
        "waiting": entry["requests"]["waiting"],
        "background_failed": entry["requests"]["background_failed"],
        **entry["counters"],
        "profile_sha256": p.profile.sha256,
        "sample": json.dumps(sample.to_json()),
    }


@lru_cache(maxsize=16)
def pricing_of(profile: str, seed: int, cpus: int) -> Pricing:
    """Draws of a profile's prices; the same for all points of one seed."""
    from tracereplay.cost.intervals import pricing
    from tracereplay.cost.profile import load_profile

    prices = load_profile(profile)
    if any(p.name == "cpus" for p in prices.parameters):
        prices = prices.with_parameters(cpus=cpus)
    return pricing(prices, seed)


# ---------------------------------------------------------------- what a process keeps
class Kept(Generic[T]):
    """The last few things made, each made once however many threads ask for it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._things: OrderedDict[Hashable, T] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The thing of a key."""
        with self._lock:
            one_maker = self._making.setdefault(key, threading.Lock())
        with one_maker:
            with self._lock:
                if key in self._things:
                    self._things.move_to_end(key)
                    return self._things[key]
            made = make()
            with self._lock:
                self._things[key] = made
                while len(self._things) > self._most:
                    old, _ = self._things.popitem(last=False)
                    self._making.pop(old, None)
            return made


_traces: Kept[Trace] = Kept(8)
_demands: Kept[Spool] = Kept(DEMANDS)


def trace_of(location: str) -> Trace:
    """A trace, opened once. Raises TraceError."""
    from tracereplay.trace.reader import Trace

    return _traces.get(location, lambda: Trace.open(location))


def demand_of(location: str, spec: DemandSpec) -> Spool:
    """A trace's reconstructed demand, on disk. ``spec``: a ``DemandSpec.recorded``. Raises TraceError, UsageError."""
    from tracereplay.demand.spool import Spool
    from tracereplay.replay.run import recorded_demand

    trace = trace_of(location)
    return _demands.get((trace.metadata.trace_id, spec), lambda: Spool(recorded_demand(trace, spec), go_on))


@lru_cache(maxsize=1)
def give_back_arrays() -> None:
    """Have large arrays go back to the system with the point that made them: glibc would keep some with each thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other libcs have none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, ARRAY_BYTES)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """A name for the code that runs points."""
    from tracereplay.compile_cache import source_digest

    return source_digest(Path(__file__))


@lru_cache(maxsize=16)
def _profile_digest(profile: str) -> str:
    from tracereplay.cost.profile import load_profile

    return load_profile(profile).sha256
