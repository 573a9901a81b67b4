"""The words of a report: which strategy is cheapest, and what to hold against the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tracereplay.report.numbers import UNKNOWN, count, figure, share, span

if TYPE_CHECKING:
    from tracereplay.report.data import StrategyCost

MORE_FAILURES = 0.001
"""Share of requests by which a strategy may fail more often than the best and still be compared by its price."""


def verdict(
    strategies: tuple[StrategyCost, ...], baseline: str | None, demand: Mapping[str, Any], pages: int, unit: str
) -> tuple[str, ...]:
    """The comparison in two or three sentences; nothing that the numbers do not carry."""
    priced = [s for s in strategies if s.per_page is not None]
    if not priced or not pages:
        return ("No targeted request in this trace: there is nothing to compare. Try --target all.",)
    serving = [s for s in priced if s.failed <= min(p.failed for p in priced) + MORE_FAILURES]
    best = min(serving, key=lambda s: s.per_page or 0.0)
    said = [f"{best.label} is cheapest: {figure(best.per_page)} {unit} per page ({span(best.interval)} at 95 %)."]
    if len(priced) > 1 and best.label != baseline and best.ratio is not None:
        said.append(f"That is {figure(best.ratio)} of what {baseline} costs ({span(best.ratio_interval)}).")
    said += [f"{s.label} left {share(s.failed, 1)} of its requests unserved." for s in priced if s not in serving]
    for other in sorted(serving, key=lambda s: s.per_page or 0.0)[1:]:
        ends = other.ratio_interval if best.label == baseline else None
        if ends and ends[0] <= 1 <= ends[1]:
            said.append(f"The profile cannot tell {other.label} from it.")
    if best.ratio_interval and best.ratio_interval[0] <= 1 <= best.ratio_interval[1]:
        said.append(f"The profile cannot tell it from {baseline}.")
    said.append(
        f"This concerns the targeted {share(pages, demand.get('pages'))} of the pages; all others went through the "
        "same memory as recorded."
    )
    return tuple(said)


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
