"""Rows of a fleet in the table of a sweep: what each point costs all traces together.

A row of the fleet stands for the traces at which every strategy of its setting was replayed, so that rows that compete
are of the same hosts; traces that are missing are told in its ``error``. ``sample`` holds the sums of its traces, from
which points are compared draw by draw like those of one trace. Points without prices (one-pass) have sums only;
points that were estimated from part of a trace (sampled) have no row of the fleet: their own intervals do not add up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tracereplay.cost.bootstrap import Sample
from tracereplay.cost.fleet import FleetCost
from tracereplay.errors import UsageError
from tracereplay.machine.counters import COUNTERS
from tracereplay.trace.fleet import HOST, TRACE, WHOLE, Fleet
from tracereplay.whatif.ranking import own_axes
from tracereplay.whatif.table import REAL, TEXTS
from tracereplay.whatif.table import WHOLE as NUMBERS
from tracereplay.whatif.task import OK, Row

SUMMED = (*COUNTERS, *(name for name in NUMBERS if name != "seed"))
ALIKE = ("method", "strategy", "params", "unit", "target", "profile", "profile_sha256", "seed", "version", "command")
"""Columns that a row of the fleet has where all of its traces agree."""


def leads_of(fleet: Fleet, axes: Sequence[str]) -> dict[str, Row]:
    """What the rows of each trace gain: host, date and the other partitions. Raises UsageError for a partition that is
    named like a column of the table."""
    taken = {*TEXTS, *NUMBERS, *REAL, *COUNTERS, *axes} - {HOST, TRACE}
    for name in fleet.names:
        if name in taken:
            raise UsageError(
                f"partition {name}= of the fleet has the name of a column of the table",
                hint="name its directories otherwise",
            )
    return {m.location: {k: v for k, v in m.columns().items() if k != TRACE} for m in fleet.members}


def fleet_rows(rows: Sequence[Mapping[str, Any]], traces: Sequence[str], axes: Sequence[str]) -> list[Row]:
    """Rows of the fleet of a table's rows; ``traces`` in their order."""
    own = own_axes(axes, sorted({str(row["label"]) for row in rows}))
    shared = [axis for axis in axes if not any(axis in names for names in own.values())]
    settings: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[str, Mapping[str, Any]]]] = {}
    for row in rows:
        if row["status"] != OK or row.get("intervals") is not None or row[TRACE] == WHOLE:
            continue
        setting = tuple(row.get(name) for name in ("profile", "seed", *shared))
        point = (row["label"], *(row.get(axis) for axis in axes))
        settings.setdefault(setting, {}).setdefault(point, {})[str(row[TRACE])] = row
    found = []
    for points in settings.values():
        common = [t for t in traces if all(t in by_trace for by_trace in points.values())]
        if common:
            missing = [t for t in traces if t not in common]
            found += [_row([by_trace[t] for t in common], missing, axes) for by_trace in points.values()]
    return found


def _row(rows: Sequence[Mapping[str, Any]], missing: Sequence[str], axes: Sequence[str]) -> Row:
    keys = ",".join(str(row["key"]) for row in rows)
    alike = {name: rows[0].get(name) if len({row.get(name) for row in rows}) == 1 else None for name in ALIKE}
    return {
        **alike,
        "key": "fleet-" + hashlib.sha256(keys.encode()).hexdigest()[:18],
        "status": OK,
        "error": f"without {len(missing)} traces, the first {missing[0]}" if missing else None,
        "trace": WHOLE,
        "trace_id": WHOLE,
        HOST: WHOLE,
        "label": rows[0]["label"],
        **{axis: rows[0].get(axis) for axis in axes if axis in rows[0]},
        **{name: _sum([row.get(name) for row in rows]) for name in SUMMED if name in rows[0]},
        "seconds": sum(row.get("seconds") or 0.0 for row in rows),
        **(_priced(rows) if all(row.get("sample") for row in rows) else {}),
    }


def _priced(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Columns of costs, of traces at one point."""
    parts = [
        {"host": row[HOST], "cpus": json.loads(row["machine"])["cpus"], "sample": json.loads(row["sample"])}
        for row in rows
    ]
    costs = cost_of_parts(parts, str(rows[0]["profile"]), int(rows[0]["seed"]), rows)
    kept = parts if costs.parts[0].shares[0].sample is not None else _sums(costs)
    cost = costs.to_json()["results"][0]["cost"]
    page = cost["per_page_interval95"] or [None, None]
    return {
        "cost_total": cost["total"],
        "cost_low95": cost["interval95"][0],
        "cost_high95": cost["interval95"][1],
        "per_page": cost["per_page"],
        "per_page_low95": page[0],
        "per_page_high95": page[1],
        "per_request_mean": cost["per_request"]["mean"],
        "sample": json.dumps({"parts": kept}),
    }


def _sum(values: Sequence[int | None]) -> int | None:
    """None where one is not known."""
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None


def cost_of_parts(
    parts: Sequence[Mapping[str, Any]], profile: str, seed: int, rows: Sequence[Mapping[str, Any]] = ()
) -> FleetCost:
    """The fleet of one strategy's samples. ``parts``: ``host``, ``cpus`` and ``sample`` of each trace."""
    from tracereplay.cost.profile import load_profile

    costs = FleetCost(load_profile(profile), seed)
    for i, part in enumerate(parts):
        row = rows[i] if rows else {"label": "", "strategy": ""}
        counters = {name: row[name] for name in COUNTERS if row.get(name) is not None}
        entry = {"label": row["label"], "strategy": row["strategy"], "counters": counters, "sample": part["sample"]}
        costs.add(part["host"], part["cpus"], [entry])
    return costs


def _sums(costs: FleetCost) -> list[dict[str, Any]]:
    """Parts of hosts enough to draw from: their sums tell all."""
    found = []
    for part in costs.parts:
        share = part.shares[0]
        sums, own = (
            {name: int(n) for name, n in zip(COUNTERS, counts, strict=True)} for counts in (share.counters, share.own)
        )
        whole = Sample.whole(sums, own, None, np.zeros(0), pages=share.pages, requests=share.requests)
        found.append({"host": part.host, "cpus": part.cpus, "sample": whole.to_json()})
    return found
