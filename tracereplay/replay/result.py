"""Counters of a replay as plain values: the entries of ``results`` (architecture.md section 5), prices apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracereplay.kernel.constants import NR_PAGE_ORDERS
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.counters import BY_ORDER, COUNTERS, NR_COUNTERS
from tracereplay.machine.directmap_start import direct_map_kib
from tracereplay.machine.layout import (
    CACHE_LONGEST,
    CFG_DRY_LONGEST,
    CFG_DRY_NS,
    CFG_DRY_SPELLS,
    CFG_NOW,
    CFG_RESERVE,
    CFG_RESERVE_PEAK,
    CFG_RESERVE_SINCE,
    CFG_RESERVE_US,
    Z_LOCKS,
    Z_LONGEST,
    Z_WORDS,
    ZONE_NAMES,
)
from tracereplay.replay import layout as at
from tracereplay.replay.engine import Outcome
from tracereplay.replay.run import Replayed
from tracereplay.replay.sections import sections
from tracereplay.strategies.registry import Choice


def counters_of(outcome: Outcome) -> dict[str, Any]:
    """Counters of the targeted requests and of the strategy's workers, with the peaks."""
    plain = {name: int(outcome.totals[i] + outcome.worker[i]) for i, name in enumerate(COUNTERS)}
    plain["reserve_pages_peak"] = int(outcome.machine.w[CFG_RESERVE_PEAK])
    plain["waste_pages_peak"] = int(outcome.scalars[at.X_WASTE_PEAK])
    return plain


def by_order(row: np.ndarray[Any, Any]) -> dict[str, list[int]]:
    """The by-order counters of a row."""
    return {
        name: row[NR_COUNTERS + i * NR_PAGE_ORDERS : NR_COUNTERS + (i + 1) * NR_PAGE_ORDERS].tolist()
        for i, name in enumerate(BY_ORDER)
    }


def worker_of(outcome: Outcome) -> dict[str, int]:
    """What of the counters is work of the strategy's timers, shrinker and end: no request's."""
    return {name: int(outcome.worker[i]) for i, name in enumerate(COUNTERS)}


def waits_of(outcome: Outcome) -> dict[str, int | None]:
    """Requests that waited: their number; how long those did that got on; what the end of the trace left waiting.

    Those that wait for mutex or reserve at the end are deadlocked when nobody else holds pages of the path, so that
    none can come; times are ns.
    """
    x = outcome.scalars
    deadlocked = int(x[at.X_STUCK]) if x[at.X_PATH_HELD] == 0 else 0
    return {
        "requests": int(x[at.X_WAITED] + x[at.X_WAITING]),
        "total_ns": int(x[at.X_WAIT_NS]),
        "longest_ns": int(x[at.X_WAIT_LONGEST]),
        "waiting_at_end": int(x[at.X_WAITING]),
        "deadlocked": deadlocked,
        "deadlocked_since_ns": int(max(x[at.X_STUCK_SINCE], x[at.X_PROGRESS])) if deadlocked else None,
    }


def result_entry(choice: Choice, outcome: Outcome, config: MachineConfig) -> dict[str, Any]:
    """One entry of ``results`` (architecture.md section 5), prices apart."""
    x = outcome.scalars
    zones = sorted(config.zones, key=lambda z: (z.node, ZONE_NAMES.index(z.name)))
    w = outcome.machine.w
    return {
        "strategy": type(choice.params).name,
        "label": choice.label,
        "params": choice.params.values(),
        "counters": counters_of(outcome),
        "worker": worker_of(outcome),
        "waits": waits_of(outcome),
        "by_order": by_order(outcome.totals + outcome.worker),
        "background": {name: int(outcome.background[i]) for i, name in enumerate(COUNTERS)},
        "requests": {
            "served": int(x[at.X_TARGETED_REQUESTS] - x[at.X_FAILED] - x[at.X_WAITING]),
            "failed": int(x[at.X_FAILED]),
            "waiting": int(x[at.X_WAITING]),
            "right_censored": int(x[at.X_CENSORED]),
            "background_failed": int(x[at.X_BACKGROUND_FAILED]),
        },
        "initial_frees": {
            "all": int(x[at.X_HELD_FREES]),
            "elsewhere": int(x[at.X_HELD_ELSEWHERE]),
            "missing": int(x[at.X_HELD_MISSING]),
        },
        "zone_locks": [
            {
                "zone": zone.name,
                "node": zone.node,
                "acquisitions": int(w[z * Z_WORDS + Z_LOCKS]),
                "longest_hold_work": int(w[z * Z_WORDS + Z_LONGEST]),
            }
            for z, zone in enumerate(zones)
        ],
        "cache_lock": {"longest_hold_work": int(w[CACHE_LONGEST])},
        "direct_map_kib": direct_map_kib(outcome.machine),
        "reserve": reserve_of(outcome),
        "sections": sections(outcome.machine, config.pcp_protection),
        "series": _series(outcome),
    }


def reserve_of(outcome: Outcome) -> dict[str, Any]:
    """Idle pages of a strategy's cache or a reserve over time, and how long the cache was without.

    ``page_us``: idle pages times the microseconds that they were idle. A dry spell lasts from the first miss of a CPU's
    cache until that has pages again; one that the end of the trace cuts off is not among them.
    """
    w, start_ns = outcome.machine.w, int(outcome.scalars[at.X_START_NS])
    now = int(w[CFG_NOW]) // 1000
    page_us = int(w[CFG_RESERVE_US]) + int(w[CFG_RESERVE]) * (now - int(w[CFG_RESERVE_SINCE]))
    spells, dry_ns = int(w[CFG_DRY_SPELLS]), int(w[CFG_DRY_NS])
    return {
        "page_us": page_us,
        "idle_mean": page_us / max(now - start_ns // 1000, 1),
        "dry_spells": spells,
        "dry_ns": dry_ns,
        "dry_mean_ms": dry_ns / spells / 1e6 if spells else None,
        "dry_longest_ms": int(w[CFG_DRY_LONGEST]) / 1e6 if spells else None,
    }


SERIES = ("alloc_calls", "pages_allocated", "pages_freed", "zone_lock_acquisitions", "pcp_refills", "splits", "merges")


def _series(outcome: Outcome) -> dict[str, Any]:
    """Counters over time: by arrival for targeted requests, by occurrence for the background."""
    return {
        "start_ns": int(outcome.scalars[at.X_START_NS]),
        "bin_ns": int(outcome.scalars[at.X_BIN_NS]),
        "targeted": {n: outcome.series[:, COUNTERS.index(n)].tolist() for n in SERIES},
        "background": {n: outcome.background_series[:, COUNTERS.index(n)].tolist() for n in SERIES},
    }


def warnings_of(done: Replayed) -> list[str]:
    """What a reader of the result must know before believing it."""
    notes = list(done.machine.notes)
    if not done.report.targeted_requests:
        notes.append("no request was targeted, so nothing is compared: see `tracereplay demand` and --target")
    for choice, outcome in done.outcomes:
        failed = int(outcome.scalars[at.X_FAILED])
        if failed:
            notes.append(f"{choice.label}: {failed} targeted requests failed")
        waits = waits_of(outcome)
        if waits["deadlocked"]:
            notes.append(
                f"{choice.label}: {waits['deadlocked']} requests are deadlocked since {waits['deadlocked_since_ns']} ns"
                ": only they hold what they wait for"
            )
        elif waits["waiting_at_end"]:
            notes.append(f"{choice.label}: {waits['waiting_at_end']} requests still waited when the trace ended")
    lost = max((int(o.scalars[at.X_BACKGROUND_FAILED]) for _, o in done.outcomes), default=0)
    if lost:
        notes.append(f"up to {lost} background allocations failed: the simulated memory is too small or too full")
    return notes
