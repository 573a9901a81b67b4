"""The words of a report: which strategy is cheapest, and what to hold against the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracereplay.report.numbers import UNKNOWN, count, figure, share, span

if TYPE_CHECKING:
    from tracereplay.report.data import StrategyCost
    from tracereplay.report.differences import Difference

MORE_FAILURES = 0.001
"""Share of requests by which a strategy may fail more often than the best and still be compared by its price."""


def verdict(
    strategies: tuple[StrategyCost, ...],
    against_best: tuple[Difference, ...],
    baseline: str | None,
    demand: Mapping[str, Any],
    pages: int,
    unit: str,
) -> tuple[str, ...]:
    """The comparison in two or three sentences; nothing that the numbers do not carry.

    ``against_best``: the others against the :func:`cheapest`.
    """
    best = cheapest(strategies)
    if best is None or not pages:
        return ("No targeted request in this trace: there is nothing to compare. Try --target all.",)
    serving = _serving(strategies)
    said = [f"{best.label} is cheapest: {figure(best.per_page)} {unit} per page ({span(best.interval)} at 95 %)."]
    if len(strategies) > 1 and best.label != baseline and best.ratio is not None:
        said.append(f"That is {figure(best.ratio)} of what {baseline} costs ({span(best.ratio_interval)}).")
    said += [
        f"{s.label} left {share(s.failed, 1)} of its requests unserved."
        for s in strategies
        if s.per_page is not None and s not in serving
    ]
    alike = [d.label for d in against_best if not d.beyond and d.label in {s.label for s in serving}]
    if alike:
        said.append(f"Within the uncertainty it cannot be told apart from {_listed(alike)}.")
    said.append(
        f"This concerns the targeted {share(pages, demand.get('pages'))} of the pages; all others went through the "
        "same memory as recorded."
    )
    return tuple(said)


def cheapest(strategies: tuple[StrategyCost, ...]) -> StrategyCost | None:
    """The one with the lowest cost of a page among those that serve about as many requests as the best does."""
    return min(_serving(strategies), key=lambda s: s.per_page or 0.0, default=None)


def _serving(strategies: tuple[StrategyCost, ...]) -> list[StrategyCost]:
    priced = [s for s in strategies if s.per_page is not None]
    return [s for s in priced if s.failed <= min(p.failed for p in priced) + MORE_FAILURES]


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def cautions(result: Mapping[str, Any], strategies: tuple[StrategyCost, ...]) -> tuple[str, ...]:
    """What a reader should hold against the numbers."""
    a = result["accounting"]
    said = [str(text) for text in result.get("warnings") or ()]
    if result["trace"].get("complete") is False:
        said.append("The capture did not finish; its last events are missing.")
    said += [
        f"Not the whole of what happened: {what}."
        for what in (result["trace"].get("completeness") or {}).get("left_out") or ()
    ]
    if a.get("lost"):
        lost = f"{count(a['lost'])} events were" if a["lost"] != 1 else "1 event was"
        said.append(f"{lost} lost; requests and lifetimes around the gaps are unsure.")
    elif "lost" in a and a["lost"] is None:
        said.append("Events were lost and the source does not say how many.")
    if selector_of(result["demand"]) == "all":
        said.append("Every request is targeted, also those of callers that cannot use the strategy: an upper bound.")
    assumed = [f"{s.label} {share(s.assumed, 1)}" for s in strategies if s.assumed]
    if assumed:
        said.append(f"Share of the cost that rests on coefficients marked as assumptions: {', '.join(assumed)}.")
    for name in dict.fromkeys(name for s in strategies for name in s.unpriced):
        who = ", ".join(f"{s.label} {count(s.unpriced[name])}" for s in strategies if name in s.unpriced)
        said.append(f"Counted, but without a price: {name.replace('_', ' ')} ({who}).")
    for s in strategies:
        if s.counters.get("failures") and not result.get("warnings"):
            said.append(f"{s.label}: {count(s.counters['failures'])} requests got no memory.")
        for peak, what in (
            ("waste_pages_peak", "given back by the caller but still held"),
            ("reserve_pages_peak", "idle in reserves"),
        ):
            if s.counters.get(peak):
                said.append(f"{s.label}: at most {count(s.counters[peak])} pages at once were {what}.")
    return tuple(dict.fromkeys(said))


def selector_of(demand: Mapping[str, Any]) -> str:
    """What ``--target`` chose."""
    targeted = demand.get("targeted")
    return str(targeted.get("selector", UNKNOWN)) if isinstance(targeted, Mapping) else UNKNOWN
