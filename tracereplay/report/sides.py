"""Two stored results side by side: what each strategy costs in A, in B, and the ratio.

A result is one of ``replay -o`` or a sweep's table. Both are priced by one profile with the same draws of its prices.
Where both replayed the same requests, the draws of these are the same too, so that what the two share does not blur
their ratio; otherwise they are drawn independently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tracereplay.cost.bootstrap import Sample
from tracereplay.cost.intervals import Interval, Judged, Pricing, compared, judged, pricing
from tracereplay.cost.priced import label_of, sample_of
from tracereplay.cost.profile import Profile, load_profile
from tracereplay.errors import ResultsError, UsageError
from tracereplay.machine.counters import COUNTERS
from tracereplay.report.results import load_results
from tracereplay.trace.outputs import exists, read_bytes
from tracereplay.trace.store import Place
from tracereplay.whatif.table import read_axes, read_table


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """A strategy of a side, before prices."""

    sample: Sample
    counters: Mapping[str, int]
    pages: int
    unserved: int
    """Requests that failed or still waited at the end."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the two."""

    where: str
    costs: dict[str, Cost]
    """By label; of a sweep with the settings, as in ``bulk pcp.batch=31``."""
    profile: Profile
    seed: int
    trace: Mapping[str, Any]
    """``id path host kernel duration_ns complete lost completeness``"""
    machine: Mapping[str, Any]
    demand: Mapping[str, Any]
    """``pages targeted_pages targeted_requests target``"""
    version: str | None
    command: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A strategy in A and in B. Costs are per page, in the profile's unit, with 95 % intervals."""

    label: str
    a: float | None
    a_interval: Interval | None
    b: float | None
    b_interval: Interval | None
    ratio: float | None
    """B over A."""
    ratio_interval: Interval | None
    beyond: bool
    """The interval of the difference does not hold 0."""
    counters: dict[str, tuple[float | None, float | None]]
    """Per 1,000 pages, in A and in B."""
    unserved: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """The comparison."""

    a: Side
    b: Side
    profile: Profile
    paired: bool
    """Both replayed the same requests."""
    pairs: tuple[Pair, ...]


def read_side(path: Place) -> Side:
    """A results file, by path or URL. Raises ResultsError, StorageError."""
    if not exists(path):
        raise ResultsError(
            f"no such results: {path}", hint="make them: tracereplay replay TRACE -s bulk -o results.json"
        )
    return _of_sweep(path) if read_bytes(path)[:4] == b"PAR1" else _of_result(path)


def _of_result(path: Place) -> Side:
    result = load_results(path)
    demand, trace = result["demand"], result["trace"]
    pages = int(demand.get("targeted_pages") or 0)
    return Side(
        where=str(path),
        costs={label_of(entry): _cost(entry, pages) for entry in result["results"]},
        profile=Profile.from_dict(result["profile"]),
        seed=int(result.get("seed") or 0),
        trace={**trace, "lost": (trace.get("loss") or {}).get("lost")},
        machine=result["machine"],
        demand={**demand, "target": (demand.get("targeted") or {}).get("selector")},
        version=result.get("version"),
        command=str(result.get("command") or ""),
    )


def _cost(entry: Mapping[str, Any], pages: int) -> Cost:
    requests = entry.get("requests") or {}
    return Cost(
        sample=sample_of(entry, pages),
        counters={name: n for name, n in entry["counters"].items() if isinstance(n, int)},
        pages=pages,
        unserved=requests.get("failed", 0) + requests.get("waiting", 0),
    )


def _of_sweep(path: Place) -> Side:
    frame, axes = read_table(path), read_axes(path)
    rows = [row for row in frame.to_dicts() if row["status"] == "ok" and row.get("sample")]
    if not rows:
        raise ResultsError(f"{path}: no point of this sweep has costs", hint="run it again with --resume")
    if len({(row["trace_id"], row["profile"]) for row in rows}) > 1:
        raise ResultsError(f"{path}: a sweep of several traces or profiles", hint="compare sweeps of one trace each")
    first = rows[0]
    costs = {}
    for row in rows:
        settings = [f"{name}={row[name]}" for name in axes if row.get(name) is not None]
        counters = {name: row[name] for name in COUNTERS if row.get(name) is not None}
        sample, unserved = Sample.from_json(json.loads(row["sample"])), row["failed"] + row["waiting"]
        costs[" ".join([row["label"], *settings])] = Cost(sample, counters, row["pages"], unserved)
    return Side(
        where=str(path),
        costs=costs,
        profile=load_profile(first["profile"]),
        seed=first["seed"],
        trace={
            **{key: first[key] for key in ("host", "kernel", "duration_ns", "lost")},
            **{"id": first["trace_id"], "path": first["trace"]},
        },
        machine=json.loads(first["machine"]),
        demand={
            **{"pages": first["demand_pages"], "target": first["target"]},
            **{"targeted_pages": first["pages"], "targeted_requests": first["requests"]},
        },
        version=first["version"],
        command=first["command"],
    )


def compare(a: Side, b: Side, profile: Profile | None = None) -> Sides:
    """B against A. ``profile``: prices of both; else those that both were priced with.

    Raises UsageError: priced differently, or no strategy in common.
    """
    if profile is None and a.profile.sha256 != b.profile.sha256:
        raise UsageError(
            f"{a.where} is priced by {a.profile.name}, {b.where} by {b.profile.name}",
            hint=f"price both alike: --profile {a.profile.name}",
        )
    prices = profile or a.profile
    labels = [label for label in a.costs if label in b.costs]
    named = {label: (a.costs[label], b.costs[label]) for label in labels}
    if not named and len(a.costs) == len(b.costs) == 1:
        (name_a, cost_a), (name_b, cost_b) = *a.costs.items(), *b.costs.items()
        named = {f"{name_a} / {name_b}": (cost_a, cost_b)}
    if not named:
        raise UsageError(
            f"no strategy is in both: {', '.join(a.costs)} and {', '.join(b.costs)}",
            hint="give them the same labels: replay -s LABEL=NAME",
        )
    paired = all(_same_requests(a, b, *costs) for costs in named.values())
    p = pricing(_for_machine(prices, a), a.seed)
    q = pricing(_for_machine(prices, b), a.seed)
    if not paired:
        q = replace(q, seed=a.seed + 1)
    return Sides(a, b, prices, paired, tuple(_pair(label, *costs, p, q) for label, costs in named.items()))


def _for_machine(profile: Profile, side: Side) -> Profile:
    cpus = side.machine.get("cpus")
    known = any(number.name == "cpus" for number in profile.parameters)
    return profile.with_parameters(cpus=cpus) if cpus and known else profile


def _same_requests(a: Side, b: Side, one: Cost, other: Cost) -> bool:
    mine, theirs = one.sample, other.sample
    return (
        a.trace.get("id") == b.trace.get("id")
        and np.array_equal(mine.requests, theirs.requests)
        and np.array_equal(mine.pages, theirs.pages)
    )


def _pair(label: str, one: Cost, other: Cost, p: Pricing, q: Pricing) -> Pair:
    a, b = judged(one.sample, p), judged(other.sample, q)
    row = compared(label, b, label, a, p)
    value_a, ends_a = _per_page(a, p)
    value_b, ends_b = _per_page(b, q)
    names = [name for name in one.counters if name in other.counters and not name.endswith("_peak")]
    return Pair(
        label=label,
        a=value_a,
        a_interval=ends_a,
        b=value_b,
        b_interval=ends_b,
        ratio=row["ratio"],
        ratio_interval=tuple(row["ratio_interval95"]) if row["ratio_interval95"] else None,
        beyond=bool(row["beyond"]),
        counters={name: (_rate(one, name), _rate(other, name)) for name in names},
        unserved=(one.unserved, other.unserved),
    )


def _per_page(strategy: Judged, p: Pricing) -> tuple[float | None, Interval | None]:
    return (None, None) if strategy.page is None else (strategy.page.value(p), strategy.page.interval(p))


def _rate(cost: Cost, name: str) -> float | None:
    return 1000 * cost.counters[name] / cost.pages if cost.pages else None
