"""Sentences of the case study that hold figures: generated, so that they say what the tables say."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence

from tracereplay.casestudy.cases import LARGE, LEVELS, PRESSED, SEEDS, SHALLOW, SOURCES, Case, Source
from tracereplay.casestudy.study import Study
from tracereplay.casestudy.tables import LABELS, PARTS, RIVALS, chance, crossing, interval, source_name
from tracereplay.cost.price import price, total
from tracereplay.cost.profile import Profile
from tracereplay.cost.sections import section_cost
from tracereplay.report.numbers import count, figure

WIDTH = 120
LARGER = tuple(s for s in SOURCES if s.kib > 4)


def bullets(items: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(textwrap.fill(f"- {item}", WIDTH, subsequent_indent="  ") for item in items)


def paragraph(text: str) -> str:
    """Text in lines."""
    return textwrap.fill(text, WIDTH)


def spread(values: Sequence[float]) -> str:
    """``0.078 to 0.233``."""
    low, high = figure(min(values)), figure(max(values))
    return low if low == high else f"{low} to {high}"


def summary(study: Study, profile: Profile) -> str:
    """The answer in a few lines."""

    def ratios(largest: int | None = None, zeroed: bool = False, sources: Sequence[Source] = LARGER) -> str:
        return spread([study.ratio(Case(s, largest, zeroed=zeroed), *RIVALS, profile).value for s in sources])

    edges = {s: crossing(study, s, profile) for s in LARGER}
    levels = [k for k in edges.values() if k is not None]
    at_edges = [Case(s, k) for s, k in edges.items() if k is not None]
    turning = Counter(h["name"] for c in at_edges for h in study.hinges(c, *RIVALS, profile) if h["within"])
    inside = [h for s in LARGER for h in study.hinges(Case(s), *RIVALS, profile, 1) if h["within"]]
    named = ", ".join(f"`{name}`" for name, _ in turning.most_common(3))
    return bullets(
        [
            f"On memory as recorded compound pages cost {ratios()} of what bulk costs, from 64 KiB on.",
            f"Bulk costs less once no free block is above order {min(levels)} to {max(levels)}, by size and kernel."
            f" With single pages alone compound costs {ratios(0)} times what bulk does.",
            "Where pages are zeroed (`init_on_alloc`) the time saved is the same, but the ratio is"
            f" {ratios(zeroed=True)}.",
            f"For 4 KiB there is nothing to gain: {ratios(sources=[s for s in SOURCES if s.kib == 4])}, the call of the"
            " mempool that bulk leaves out.",
            f"Where the order turns, the verdict hangs on {named} more than on other prices. On memory as recorded,"
            f" {len(inside) or 'no'} price inside its own range turns it.",
        ]
    )


SUBMISSION_US = 765.71
"""Submission latency of a 1 MiB write through dm-crypt page by page: Yang Shi, 2023-02-14 (strategies.md row 5)."""


def sizes(study: Study, profile: Profile) -> str:
    """About the request size."""
    one, other = (study.ratio(Case(s), *RIVALS, profile) for s in LARGE)
    bulk, compound = (study.row(Case(LARGE[0]), x)["counters"] for x in ("bulk", "compound"))
    n = study.row(Case(LARGE[0]), "bulk")["requests"]
    paid = price(bulk, profile)
    each = {c.name: c.value for c in profile.coefficients}
    frees = paid["free_call"] + bulk["free_calls"] * each["pcp_lock"] + paid["mempool_call"]
    costs = {x: [study.per_mib(Case(s), x, profile).value / 1e3 for s in LARGE] for x in RIVALS}
    saved = [b - a for a, b in zip(costs["compound"], costs["bulk"], strict=True)]
    shares = " to ".join(f"{100 * x / SUBMISSION_US:.1f}" for x in (min(saved), max(saved)))
    return paragraph(
        f"At 1 MiB compound over bulk is {interval(one)} on 6.1 and {interval(other)} on 6.12. A buffer takes"
        f" {compound['alloc_calls'] // n} call and {compound['free_calls'] // n} free against"
        f" {bulk['bulk_calls'] // n} bulk call and {bulk['free_calls'] // n} frees: pages that came in bulk are freed"
        f" one by one, through the mempool, and that is {100 * frees / total(bulk, profile):.0f} % of what they cost."
        f" Compound saves {spread(saved)} us of each MiB. Yang Shi's 1 MiB writes took {SUBMISSION_US} us to submit:"
        f" {shares} % of that."
    )


def edges(study: Study, profile: Profile) -> str:
    """About the crossing."""
    said = []
    for s in LARGER:
        k = crossing(study, s, profile)
        if k is None:
            said.append(f"{source_name(s)}: nowhere.")
            continue
        ratio = interval(study.ratio(Case(s, k), *RIVALS, profile))
        cheaper = chance(study.chance(Case(s, k), *RIVALS, profile))
        said.append(f"{source_name(s)}: at order {k}; the ratio there is {ratio}, below 1 in {cheaper} of the draws.")
    return bullets(said)


def zeros(study: Study, profile: Profile) -> str:
    """About zeroing."""
    said = []
    for s in LARGE:
        saved = []
        for zeroed in (False, True):
            bulk, compound = (study.per_mib(Case(s, zeroed=zeroed), x, profile).value for x in ("bulk", "compound"))
            saved.append(figure((bulk - compound) / 1e3))
        changed = ", ".join(f"`{name}`" for name in _changed(study, s))
        said.append(
            f"{source_name(s)}: compound saves {saved[0]} us per MiB without zeroing and {saved[1]} us with it. Over"
            f" all levels and strategies the counters that change are {changed}."
        )
    return bullets(said)


def _changed(study: Study, source: Source) -> list[str]:
    """Counters that zeroing changed, at any level and in any strategy."""
    names = set()
    for k in LEVELS:
        for label in LABELS:
            off, on = (study.row(Case(source, k, zeroed=z), label)["counters"] for z in (False, True))
            names |= {name for name in off.keys() | on.keys() if off.get(name) != on.get(name)}
    return sorted(names)


def holds(study: Study, profile: Profile) -> str:
    """About the longest sections."""

    def held(source: Source, label: str, zeroed: bool) -> str:
        lock = study.row(Case(source, zeroed=zeroed), label)["lock"]
        return figure((section_cost(dict.fromkeys(PARTS, 0) | lock, profile) or 0.0) / 1e3)

    return bullets(
        [
            f"{s.kernel}: {held(s, 'per-page', False)} us page by page, {held(s, 'bulk', False)} us in bulk,"
            f" {held(s, 'bulk', True)} us in bulk with zeroing."
            for s in LARGE
        ]
    )


def low_memory(study: Study, profile: Profile) -> str:
    """About the reserve near LOW."""
    case = Case(LARGE[0], 0, spare=PRESSED[0])
    takes = {x: count(study.row(case, x)["counters"].get("mempool_takes", 0)) for x in LABELS}
    costs = {x: figure(study.per_mib(case, x, profile).value / 1e3) for x in LABELS}
    return paragraph(
        f"With single pages and {count(PRESSED[0])} spare, `mempool-bulk` takes {takes['mempool-bulk']} of"
        f" {count(study.row(case, 'bulk')['pages'])} pages from the reserve, `compound` {takes['compound']} and `bulk`"
        f" {takes['bulk']}. Their MiB costs {costs['mempool-bulk']}, {costs['compound']} and {costs['bulk']} us:"
        " a page of the reserve is cheap, until there is none."
    )


def short_lists(study: Study, profile: Profile) -> str:
    """About lists of SHALLOW pages."""
    said = []
    for s in LARGE:
        costs = [study.per_mib(Case(s, pcp_high=high), "bulk", profile).value for high in (None, SHALLOW)]
        usual, short = (figure(cost / 1e3) for cost in costs)
        ratio = interval(study.ratio(Case(s, pcp_high=SHALLOW), *RIVALS, profile))
        said.append(f"{s.kernel}: bulk's {usual} us per MiB become {short} us; compound costs {ratio} of that.")
    return bullets(said)


def seeds(study: Study, profile: Profile) -> str:
    """What the random placement does."""
    worst = 0.0
    for s in LARGE:
        for k in (None, 3, 1, 0):
            for x in LABELS:
                found = [study.per_mib(Case(s, k, seed=seed), x, profile).value for seed in SEEDS]
                worst = max(worst, max(found) / min(found) - 1)
    return paragraph(
        f"Free blocks are placed at random. Over {len(SEEDS)} seeds no strategy's cost of 1 MiB requests differs by"
        f" more than {100 * worst:.1f} % (host, largest free order 3, 1 and 0): how many blocks there are decides,"
        " hardly where they lie. The intervals below are over prices."
    )


def agreement(study: Study, profiles: Sequence[Profile]) -> str:
    """How far the profiles agree, over all sizes above 4 KiB."""
    cases = [Case(s, k) for s in LARGER for k in LEVELS]
    first, rest = profiles[0], profiles[1:]
    said = []
    for other in rest:
        pairs = [tuple(study.ratio(c, *RIVALS, p).value for p in (first, other)) for c in cases]
        same = sum((a < 1) == (b < 1) for a, b in pairs)
        off = sorted(100 * abs(b / a - 1) for a, b in pairs)
        said.append(
            f"{other.name} puts the same strategy first as {first.name} in {same} of {len(cases)} cells (sizes and"
            f" levels); its ratios differ by {off[len(off) // 2]:.0f} % in the median and {off[-1]:.0f} % at most."
        )
    return bullets(said) if said else "No other profile is shipped."


FINDINGS: dict[str, Callable[[Study, Profile], str]] = {
    "summary": summary,
    "sizes": sizes,
    "edges": edges,
    "zeros": zeros,
    "holds": holds,
    "low-memory": low_memory,
    "short-lists": short_lists,
    "seeds": seeds,
}
