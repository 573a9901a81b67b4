"""Replay the cases of the study: one line of exact counters for each case and strategy."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tracereplay.casestudy.cases import STRATEGIES, Case, Source, machine_for
from tracereplay.cost.contention import contention
from tracereplay.cost.profile import DEFAULT_PROFILE, load_profile
from tracereplay.kernel.gfp import GFP_BITS, GFP_DIRECT_RECLAIM, GFP_MOVABLE
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.from_trace import machine_of
from tracereplay.replay import layout as at
from tracereplay.replay.engine import Outcome
from tracereplay.replay.result import result_entry
from tracereplay.replay.run import replay
from tracereplay.strategies.registry import choose
from tracereplay.trace.reader import Trace

TRACES = Path(__file__).parents[2] / "traces"
RECORDED = "recorded"
"""In place of a strategy: what the kernel did."""
WANTED = GFP_BITS["__GFP_HIGHMEM"] | GFP_BITS["__GFP_KSWAPD_RECLAIM"]
ASKED = WANTED | GFP_DIRECT_RECLAIM | GFP_MOVABLE
"""Flags of a request, and which of them dm-crypt's first pass has."""
PACKED = ("counters", "blocks", "lock", "interrupts_off")


def rows_of(case: Case, trace: Trace) -> list[dict[str, Any]]:
    """Replay a case; what the page needs of each strategy's result."""
    done = replay(
        trace,
        choose(list(STRATEGIES), []),
        lambda cpus: machine_for(case, machine_of(trace, cpus)),
        path="dm-crypt",
        target="caller:dm-crypt*",
        copies=case.copies,
    )
    rows = []
    for choice, outcome in done.outcomes:
        entry = result_entry(choice, outcome, done.machine)
        orders = entry["by_order"]["pages_allocated"]
        counters = entry["counters"]
        rows.append(
            {
                **case.key(),
                "strategy": choice.label,
                "requests": int(outcome.scalars[at.X_TARGETED_REQUESTS]),
                "pages": int(outcome.scalars[at.X_TARGETED_PAGES]),
                "counters": {name: n for name, n in counters.items() if n},
                "blocks": {str(order): pages >> order for order, pages in enumerate(orders) if pages},
                "failed": entry["requests"]["failed"],
                "waited": entry["waits"]["requests"],
                "others_failed": entry["requests"]["background_failed"],
                "lock": entry["sections"]["pcp"],
                "interrupts_off": entry["sections"]["interrupts_off"],
                **({"waits": waits(outcome, done.machine, counters)} if case.copies > 1 else {}),
            }
        )
    return rows


def waits(outcome: Outcome, machine: MachineConfig, counters: Mapping[str, int]) -> dict[str, float]:
    """Waiting at the busiest zone lock, by the prices of the page, and its share of the cost; to four digits."""
    found = contention(outcome, machine, load_profile(DEFAULT_PROFILE), counters)
    lock = max(found["locks"], key=lambda lock: lock["acquisitions"])
    figures = {
        "share": found["share_of_cost"], "mean_ns": lock["wait_mean"], "used": lock["utilisation"],
        "contended": lock["contended"],
    }  # fmt: skip
    return {name: float(f"{value or 0.0:.4g}") for name, value in figures.items()}


def recorded_row(source: Source, trace: Trace) -> dict[str, Any]:
    """What the kernel gave dm-crypt, by its own events: blocks, failed attempts, most pages at once, time held.

    The gfp mask tells dm-crypt's from other requests: for highmem, woken kswapd, neither reclaim nor movable.
    """
    events = trace.page_events.filter(pl.col("kind").is_in(["alloc", "alloc_failed", "free"]))
    live: dict[int, tuple[int, int]] = {}
    held: list[int] = []
    blocks: Counter[str] = Counter()
    failed = pages = peak = 0
    for ts, kind, pfn, order, gfp in events.select("ts_ns", "kind", "pfn", "order", "gfp").collect().iter_rows():
        if kind == "free":
            if pfn in live:
                size, since = live.pop(pfn)
                pages -= size
                held += [ts - since] * size
        elif gfp & ASKED == WANTED:
            failed += kind == "alloc_failed"
            if kind == "alloc":
                blocks[str(order)] += 1
                live[pfn] = (1 << order, ts)
                pages += 1 << order
                peak = max(peak, pages)
    return {
        **Case(source).key(),
        "strategy": RECORDED,
        "pages": sum(n << int(order) for order, n in blocks.items()),
        "counters": {"failed_attempts": failed} if failed else {},
        "blocks": dict(blocks),
        "lock": {},
        "interrupts_off": {},
        "peak": peak,
        "held_us": round(statistics.median(held) / 1e3),
    }


def run(cases: Iterable[Case], traces: Path = TRACES) -> Iterator[list[dict[str, Any]]]:
    """Rows of each case, in order."""
    opened: dict[str, Trace] = {}
    for case in cases:
        name = case.source.trace
        if name not in opened:
            opened[name] = Trace.open(traces / name)
        yield rows_of(case, opened[name])
        if case == Case(case.source):
            yield [recorded_row(case.source, opened[name])]


def packed(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as JSON, one a line, with each mapping's values in the order of ``names``: no key is repeated."""
    names: dict[str, list[str]] = {}
    for field in PACKED:
        names[field] = sorted({name for row in rows for name in row[field]})
    lines = [
        json.dumps({**row, **{f: [row[f].get(name, 0) for name in names[f]] for f in PACKED}}, separators=(",", ":"))
        for row in rows
    ]
    return json.dumps({"names": names}, separators=(",", ":"))[:-1] + ',"rows":[\n' + ",\n".join(lines) + "\n]}\n"


def unpacked(text: str) -> list[dict[str, Any]]:
    """The rows of :func:`packed`."""
    stored = json.loads(text)
    return [
        {
            **row,
            **{
                field: {name: n for name, n in zip(names, row[field], strict=True) if n}
                for field, names in stored["names"].items()
            },
        }
        for row in stored["rows"]
    ]
