"""Replay the cases of the study: one line of exact counters for each case and strategy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tracereplay.casestudy.cases import STRATEGIES, Case, machine_for
from tracereplay.machine.from_trace import machine_of
from tracereplay.replay import layout as at
from tracereplay.replay.result import result_entry
from tracereplay.replay.run import replay
from tracereplay.strategies.registry import choose
from tracereplay.trace.reader import Trace

TRACES = Path(__file__).parents[2] / "traces"


def rows_of(case: Case, trace: Trace) -> list[dict[str, Any]]:
    """Replay a case; what the page needs of each strategy's result."""
    done = replay(
        trace,
        choose(list(STRATEGIES), []),
        lambda cpus: machine_for(case, machine_of(trace, cpus)),
        path="dm-crypt",
        target="caller:dm-crypt*",
    )
    rows = []
    for choice, outcome in done.outcomes:
        entry = result_entry(choice, outcome, done.machine)
        orders = entry["by_order"]["pages_allocated"]
        rows.append(
            {
                **case.key(),
                "strategy": choice.label,
                "requests": int(outcome.scalars[at.X_TARGETED_REQUESTS]),
                "pages": int(outcome.scalars[at.X_TARGETED_PAGES]),
                "counters": {name: n for name, n in entry["counters"].items() if n},
                "blocks": {str(order): pages >> order for order, pages in enumerate(orders) if pages},
                "failed": entry["requests"]["failed"],
                "waited": entry["waits"]["requests"],
                "background_failed": entry["requests"]["background_failed"],
                "section": entry["sections"]["pcp"],
                "interrupts_off": entry["sections"]["interrupts_off"],
                "zone_hold": max(z["longest_hold_work"] for z in entry["zone_locks"]),
                "notes": list(done.machine.notes),
            }
        )
    return rows


def run(cases: Iterable[Case], traces: Path = TRACES) -> Iterator[list[dict[str, Any]]]:
    """Rows of each case, in order."""
    opened: dict[str, Trace] = {}
    for case in cases:
        name = case.source.trace
        if name not in opened:
            opened[name] = Trace.open(traces / name)
        yield rows_of(case, opened[name])
