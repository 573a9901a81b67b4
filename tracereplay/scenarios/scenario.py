"""What a scenario is, and how one runs: cases along an axis, each replayed through strategies on a machine of its own.

A scenario's demand is made by hand, so nothing is recorded, sampled or timed: the same table comes out everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.replay.engine import Engine, PathConfig
from tracereplay.replay.result import result_entry
from tracereplay.strategies.registry import choose
from tracereplay.testing.demand import Demand

MS = 1_000_000
"""Nanoseconds."""
SHORT = {
    "alloc_calls": "calls",
    "bulk_calls": "bulk",
    "cache_hits": "hits",
    "cache_refills": "refills",
    "direct_map_splits": "entries",
    "failed_attempts": "misses",
    "longest_zone_hold": "longest",
    "mempool_calls": "mempool",
    "mempool_takes": "reserve",
    "mempool_waits": "waits",
    "pages_allocated": "pages",
    "pcp_hits": "pcp hits",
    "pcp_lock_acquisitions": "pcp locks",
    "pcp_refills": "pcp refills",
    "quota_refusals": "refused",
    "remote_frees": "remote",
    "reserve_pages_peak": "idle peak",
    "tlb_flushes": "flushes",
    "waste_pages_peak": "waste",
    "worker_runs": "runs",
    "worker_wakeups": "wakeups",
    "zone_lock_acquisitions": "zone locks",
}
"""Headings for a terminal of 80 columns."""


@dataclass(frozen=True, slots=True)
class Case:
    """One point of a scenario's axis."""

    at: Any
    """Where it lies on the axis."""
    machine: MachineConfig
    demand: Demand
    path: PathConfig | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A question, the cases that answer it, and the answer in words."""

    name: str
    letter: str
    """Its letter in the list of discriminating scenarios (strategies.md section 12)."""
    question: str
    axis: str
    """What changes from case to case, with its unit."""
    strategies: Sequence[str]
    """As after ``-s``."""
    columns: Sequence[str]
    """Counters shown, by the names of the contract; ``requests failed waited deadlocked`` count requests."""
    cases: Callable[[], list[Case]]
    answer: str


def run_scenario(scenario: Scenario) -> list[dict[str, Any]]:
    """Replay all cases: a row per case and strategy with the axis, the strategy's label and the counters."""
    rows = []
    for case in scenario.cases():
        batch = case.demand.batch()
        for choice in choose(scenario.strategies):
            engine = Engine(
                choice.params,
                case.machine,
                frames=case.demand.frames,
                start_ns=0,
                end_ns=case.demand.now,
                bins=1,
                path=case.path,
            )
            engine.feed(batch)
            entry = result_entry(choice, engine.finish(), case.machine)
            found = entry["counters"] | {
                "requests": sum(entry["requests"][k] for k in ("served", "failed", "waiting")),
                "failed": entry["requests"]["failed"],
                "waited": entry["waits"]["requests"],
                "deadlocked": entry["waits"]["deadlocked"],
                "longest_zone_hold": max(z["longest_hold_work"] for z in entry["zone_locks"]),
            }
            rows.append({scenario.axis: case.at, "strategy": choice.label} | {c: found[c] for c in scenario.columns})
    return rows


def one_zone(pages: int, free_blocks: Sequence[int], *, low: int = 0, cpus: int = 2) -> MachineConfig:
    """A machine of one Normal zone whose free memory is unmovable and lies in blocks as given, by order.

    ``low``: its LOW watermark, MIN being 4/5 of it. Nothing is reclaimed: what is free changes by the demand alone.
    """
    return MachineConfig(zones=(zone(0, pages, free_blocks, low=low),), cpus=cpus, vmstat_interval=0)


def zone(start: int, pages: int, free_blocks: Sequence[int], *, low: int = 0, node: int = 0) -> ZoneConfig:
    """One Normal zone for :func:`one_zone`."""
    blocks = tuple(free_blocks) + (0,) * (11 - len(free_blocks))
    return ZoneConfig(
        "Normal",
        start,
        start + pages,
        node,
        watermarks=Watermarks((0, 0, 0, 0), low * 4 // 5, low, low * 6 // 5),
        free_blocks=blocks,
        free_by_type=(blocks, (0,) * 11, (0,) * 11),
    )


def in_order(order: int, pages: int) -> list[int]:
    """``pages`` as free blocks of one order."""
    return [0] * order + [pages >> order]
