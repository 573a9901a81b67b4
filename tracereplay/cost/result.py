"""The result of a replay with its prices and its accounting: the JSON of architecture.md section 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tracereplay import __version__
from tracereplay.cost.bootstrap import Sample
from tracereplay.cost.contention import contention
from tracereplay.cost.distribution import distributions
from tracereplay.cost.intervals import pricing
from tracereplay.cost.priced import priced_results
from tracereplay.cost.profile import Profile
from tracereplay.cost.rates import against, covered_time, memory, rates
from tracereplay.cost.worst import WORST, worst
from tracereplay.demand.report import as_json
from tracereplay.replay.result import result_entry, warnings_of
from tracereplay.replay.run import Replayed
from tracereplay.trace.completeness import completeness

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

RESULT_SCHEMA = 1


def result_of(
    trace: Trace, done: Replayed, profile: Profile, *, seed: int, command: Sequence[str] = (), dearest: int = WORST
) -> dict[str, Any]:
    """One replay as plain values: trace, machine, demand, accounting, profile, and an entry per strategy.

    ``dearest``: how many kinds of requests are given as ``worst``.
    """
    report = done.report
    if any(p.name == "cpus" for p in profile.parameters):
        profile = profile.with_parameters(cpus=done.machine.cpus)
    covered = covered_time(trace).at_rate(report.rate)
    loads = [row["caller"] for row in report.loads]
    spreads = distributions([outcome for _, outcome in done.outcomes], profile)
    entries = []
    for (choice, outcome), distribution in zip(done.outcomes, spreads, strict=True):
        entry = result_entry(choice, outcome, done.machine)
        entries.append(
            entry
            | {
                "distribution": distribution,
                "worst": worst(outcome, profile, report.callers, loads, dearest),
                "rates": rates(outcome, entry["counters"], profile, covered),
                "memory": memory(entry, done.path),
                "contention": contention(outcome, done.machine, profile, entry["counters"]),
            }
        )
    against(entries)
    samples = [Sample.of(outcome) for _, outcome in done.outcomes]
    found = as_json(report)
    return {
        "schema": RESULT_SCHEMA,
        "version": __version__,
        "trace": trace.identity() | {"loss": trace.loss_summary(), "completeness": completeness(trace).to_json()},
        "machine": done.machine.describe(),
        "path": None if done.path is None else asdict(done.path) | {"demand": found.get("path")},
        "demand": {
            "requests": report.requests,
            "pages": report.pages,
            "targeted_requests": report.targeted_requests,
            "targeted_pages": report.targeted_pages,
            "unseen_pages": report.accounting.unseen_pages,
        }
        | ({"copies": done.copies} if done.copies else {})
        | {k: v for k, v in found.items() if k not in ("schema", "requests", "pages", "accounting", "path")},
        "accounting": found["accounting"],
        "profile": profile.to_dict(),
        "seed": seed,
        "command": " ".join(command),
        "warnings": warnings_of(done),
        **priced_results(entries, samples, pricing(profile, seed)),
    }
