"""Named figures of one strategy's result, for tables of a few of them (``replay --counters``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracereplay.errors import UsageError, nearest
from tracereplay.machine.counters import COUNTERS, PEAKS

BESIDE_COUNTERS = (
    "requests",
    "failed",
    "waited",
    "longest_wait_ns",
    "longest_zone_hold",
    "pcp_section_work",
    "pcp_section_cost",
    "interrupts_off_work",
    "interrupts_off_cost",
    "longest_drain_pages",
    "cost_per_page",
    "cost_per_request",
    "miss_percent",
    "idle_mean",
    "dry_spells",
    "dry_mean_ms",
    "dry_longest_ms",
)
"""Figures that are no counters: requests, those of them that failed or waited, the longest sections (docs/replay.md) in
work units and their prices, prices of the targeted requests; of caches: misses in a hundred pages asked of them, idle
pages on average, times without a page."""


def known_figures(text: str) -> list[str]:
    """The names in a comma-separated list. Raises UsageError for one that is none, with the nearest."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [*COUNTERS, *PEAKS, *BESIDE_COUNTERS]
    for name in names:
        if name not in known:
            guess = nearest(name, known)
            hint = f"did you mean {guess!r}? " if guess else ""
            raise UsageError(
                f"no counter is called {name!r}",
                hint=f"{hint}docs/cost-model.md lists the counters; beside them: {', '.join(BESIDE_COUNTERS)}",
            )
    if not names:
        raise UsageError("--counters names none", hint="for example --counters alloc_calls,zone_lock_acquisitions")
    return names


def figures_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of an entry of ``results`` by name. Prices are in the profile's unit."""
    requests, held, reserve = entry["requests"], entry["sections"], entry["reserve"]
    hits, misses = (entry["counters"][name] for name in ("cache_hits", "cache_misses"))
    return {
        **entry["counters"],
        "requests": requests["served"] + requests["failed"] + requests["waiting"],
        "failed": requests["failed"],
        "waited": entry["waits"]["requests"],
        "longest_wait_ns": entry["waits"]["longest_ns"],
        "longest_zone_hold": max(zone["longest_hold_work"] for zone in entry["zone_locks"]),
        "pcp_section_work": held["pcp"]["work"],
        "pcp_section_cost": held["pcp"]["cost"],
        "interrupts_off_work": held["interrupts_off"]["work"],
        "interrupts_off_cost": held["interrupts_off"]["cost"],
        "longest_drain_pages": held["interrupts_off"]["longest_drain_pages"],
        "cost_per_page": entry["cost"]["per_page"],
        "cost_per_request": entry["cost"]["per_request"]["mean"],
        "miss_percent": 100 * misses / (hits + misses) if hits + misses else None,
        **{name: reserve[name] for name in ("idle_mean", "dry_spells", "dry_mean_ms", "dry_longest_ms")},
    }


def figure_rows(names: Sequence[str], entries: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A row for each name: it, and its value for each entry."""
    found = [figures_of(entry) for entry in entries]
    return [[name, *(figures[name] for figures in found)] for name in names]
