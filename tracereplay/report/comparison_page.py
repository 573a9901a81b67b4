"""What the page says of a comparison: verdict, accounting, costs, how they are spread, operations, callers, prices."""

from __future__ import annotations

from collections.abc import Sequence

from tracereplay.cost.profile import Profile
from tracereplay.report.data import PAGES_PER_MIB, Comparison, StrategyCost, flatten, tornadoes
from tracereplay.report.markup import Markup, join, tag
from tracereplay.report.numbers import UNKNOWN, count, figure, share, size, span
from tracereplay.report.picture import Picture, figure_of
from tracereplay.report.pictures import tornado_chart, tornado_legend
from tracereplay.report.spread_page import dearest_tables, spread_notes, spread_parts, spread_tables
from tracereplay.report.tables import facts, notes, section, share_cells, table
from tracereplay.report.tracedata import TraceData

SIZES_SHOWN = 4
CALLERS_SHOWN = 15

Pictures = dict[str, list[Picture]]


def comparison_parts(
    data: Comparison, trace: TraceData | None, pictures: Pictures, claim: Markup | None
) -> list[Markup]:
    """Sections of the page, first the result. ``claim``: what the machine's accuracy is, for beneath each cost."""
    return [
        _verdict(data, claim),
        _captured(data, trace),
        _costs(data, pictures["cost"], claim),
        _spread(data, pictures["spread"], claim),
        _operations(data, pictures["locks"], claim),
        _callers(data),
    ]


def setting_parts(data: Comparison) -> list[Markup]:
    """Prices and machine: what the costs rest on."""
    return [_prices(data.profile), _setting(data)]


def _verdict(data: Comparison, claim: Markup | None) -> Markup:
    return section(
        "Result",
        tag("div", *(tag("p", sentence) for sentence in data.verdict), class_="verdict"),
        claim,
        notes(data.cautions),
    )


def _captured(data: Comparison, trace: TraceData | None) -> Markup:
    return section(
        "What was captured, and how complete it is",
        facts("The trace", trace.facts if trace is not None else data.trace),
        facts("Where its page events went", data.accounting),
        facts("The demand built from them", data.demand),
    )


def _costs(data: Comparison, pictures: Sequence[Picture], claim: Markup | None) -> Markup:
    if not data.strategies:
        return section("Cost", tag("p", "No strategy was replayed."))
    rows = [
        (
            s.label,
            figure(s.per_page),
            span(s.interval),
            figure(None if s.per_page is None else PAGES_PER_MIB * s.per_page / 1000),
            figure(s.ratio),
            span(s.ratio_interval) if s.label != data.baseline else UNKNOWN,
            share(s.assumed, 1),
        )
        for s in data.strategies
    ]
    requests = [
        (
            s.label,
            *(
                text
                for value, ends in zip((s.mean, s.p50, s.p99), s.request_intervals, strict=True)
                for text in (figure(value), span(ends))
            ),
        )
        for s in data.strategies
    ]
    u = data.unit
    head = (
        "strategy", f"{u}/page", "95 %", f"k{u}/MiB" if u != "ns" else "us/MiB", f"of {data.baseline}", "95 %",
        "assumed",
    )  # fmt: skip
    return section(
        "Cost",
        tag(
            "p",
            "Allocation and release of the targeted requests together, without contention. Intervals cover the "
            "uncertainty of the prices and that of the requests, of which the trace holds but some; ratios compare "
            "under the same prices and requests, so they are narrower than the intervals suggest.",
        ),
        *(figure_of(picture, claim) for picture in pictures),
        table("Cost by strategy. Assumed: share of the cost priced by assumptions", head, rows),
        table(f"{u} per request", ("strategy", "mean", "95 %", "p50", "95 %", "p99", "95 %"), requests),
        _primitives(data.strategies, data.unit),
        *_differences(data),
    )


def _spread(data: Comparison, pictures: Sequence[Picture], claim: Markup | None) -> Markup:
    """How costs are spread over requests, bios and time."""
    parts = spread_parts(data.entries)
    if not parts:
        return Markup("")
    worst = [table(*found, text=(5, 6)) for found in dearest_tables(data.entries)]
    return section(
        "How the cost is spread",
        *(piece for heading, part in parts if part for piece in (tag("h3", heading), part)),
        spread_notes(data.entries),
        tag(
            "details",
            tag("summary", "The same in figures"),
            *(table(*found) for found in spread_tables(data.entries)),
        ),
        tag("h3", "The dearest requests, and why") if worst else None,
        *worst[:1],
        tag("details", tag("summary", "Those of the other strategies"), *worst[1:]) if worst[1:] else None,
    )


def _with_interval(s: StrategyCost, name: str) -> str:
    ends = s.primitive_intervals.get(name)
    return figure(s.primitives.get(name, 0.0)) + (f" ({span(ends)})" if ends else "")


def _differences(data: Comparison) -> list[Markup]:
    """How much each strategy differs from the baseline, how sure that is, and what moves the figures."""
    parts = []
    if data.differences:
        rows = [
            (
                d.label,
                figure(d.value),
                f"{figure(d.interval[0])} to {figure(d.interval[1])}",
                d.sure,
                d.hinge or f"nothing in its range; moved most by {d.mover}",
            )
            for d in data.differences
        ]
        head = ("strategy", f"{data.unit}/page", "95 %", "verdict", "hinges on")
        parts.append(table(f"Difference to {data.baseline}", head, rows, text=(3, 4)))
    notes = dict.fromkeys(s.sampling for s in data.strategies if s.sampling)
    if notes:
        parts.append(tag("p", f"Sampling: {'; '.join(notes)}.", class_="soft"))
    charts = [tornado_chart(t, data.unit) for t in tornadoes(data)]
    if charts:
        parts.append(tag("details", tag("summary", "What moves each figure most"), tornado_legend(), *charts))
    return parts


def _primitives(strategies: Sequence[StrategyCost], unit: str) -> Markup:
    names = [name for name in strategies[0].primitives if any(s.primitives.get(name, 0) > 0 for s in strategies)]
    rows = [(name.replace("_", " "), *(_with_interval(s, name) for s in strategies)) for name in names]
    told = table(
        f"{unit} per page, by primitive, with 95 % intervals", ("primitive", *(s.label for s in strategies)), rows
    )
    return tag("details", tag("summary", "The same by primitive"), told)


def _operations(data: Comparison, pictures: Sequence[Picture], claim: Markup | None) -> Markup:
    if not data.targeted_pages or not data.strategies:
        return Markup("")
    peaks = ("reserve_pages_peak", "waste_pages_peak")
    names = [n for n in data.strategies[0].counters if any(s.counters.get(n, 0) for s in data.strategies)]
    rows = [
        (
            name.replace("_", " "),
            *(figure(1000 * s.counters.get(name, 0) / data.targeted_pages) for s in data.strategies),
        )
        for name in names
        if name not in peaks
    ]
    rows += [
        (name.replace("_", " ").replace("peak", "at most"), *(count(s.counters.get(name, 0)) for s in data.strategies))
        for name in names
        if name in peaks
    ]
    return section(
        "Operations",
        table("Per 1,000 targeted pages; peaks are pages", ("operation", *(s.label for s in data.strategies)), rows),
        claim,
        *(figure_of(picture) for picture in pictures),
        *([table("Waits", ("requests", *(s.label for s in data.strategies)), data.waits)] if data.waits else []),
        *(
            [table("Longest sections", ("work units", *(s.label for s in data.strategies)), data.sections)]
            if data.sections
            else []
        ),
        *(
            [table("Waiting at zone locks", ("", *(s.label for s in data.strategies)), data.contention)]
            if data.contention
            else []
        ),
        *([tag("p", data.contention_note)] if data.contention_note else []),
    )


def _breakable(flags: str) -> Markup:
    """A list of flags that may break after each bar."""
    parts = flags.split("|")
    return join(*(piece for part in parts[:-1] for piece in (f"{part}|", tag("wbr"))), parts[-1])


def _callers(data: Comparison) -> Markup:
    if not data.callers:
        return Markup("")
    whole = sum(c.pages for c in data.callers)
    ranked = sorted(data.callers, key=lambda c: -c.pages)
    rest = ranked[CALLERS_SHOWN:]
    rows = [
        (
            _breakable(c.name),
            count(c.requests),
            count(c.pages),
            *share_cells(c.pages, whole),
            ", ".join(
                f"{size(pages)} x {count(n)}"
                for pages, n in sorted(c.sizes.items(), key=lambda item: -item[0] * item[1])[:SIZES_SHOWN]
            ),
        )
        for c in ranked[:CALLERS_SHOWN]
    ]
    if rest:
        pages = sum(c.pages for c in rest)
        rows.append(
            (
                join(f"{len(rest)} others"),
                count(sum(c.requests for c in rest)),
                count(pages),
                *share_cells(pages, whole),
                "",
            )
        )
    told = table(
        "Requests by caller, with the sizes that carry most pages",
        ("caller", "requests", "pages", "share", "", "sizes"),
        rows,
        text=(4, 5),
    )
    return section("Who asks for pages", told)


def _prices(profile: Profile | None) -> Markup:
    if profile is None:
        return Markup("")
    rows = [
        (
            c.name.replace("_", " "),
            figure(c.value),
            c.formula if c.low is None or c.high is None else span((c.low, c.high)),
            c.evidence,
            ", ".join(c.counters),
            c.source,
        )
        for c in profile.coefficients
    ]
    head = ("primitive", profile.unit, "95 % range or formula", "evidence", "multiplies", "origin")
    tables = [table(f"Prices in {profile.unit}", head, rows, text=(2, 4, 5))]
    if profile.parameters:
        rows = [
            (p.name, figure(p.value), span((p.low, p.high)), p.unit, p.evidence, p.source) for p in profile.parameters
        ]
        head = ("parameter", "value", "95 % range", "unit", "evidence", "origin")
        tables.append(table("Parameters of the formulas", head, rows, text=(5,)))
    if profile.unpriced:
        reasons = [(name.replace("_", " "), reason) for name, reason in profile.unpriced.items()]
        tables.append(table("Counted, not priced", ("operation", "why"), reasons, text=(1,)))
    assumed = sum(c.evidence == "assumption" for c in profile.coefficients)
    return section(
        "Prices",
        tag(
            "p",
            f"Profile {profile.name}: {profile.title}. Measured on: {profile.machine}. {assumed} of "
            f"{len(profile.coefficients)} prices are assumptions. A host of another kind pays other prices; the counts "
            "above do not depend on them.",
        ),
        tag("details", tag("summary", "Every price and its origin"), *tables),
    )


def _setting(data: Comparison) -> Markup:
    params = [
        (s.label, ", ".join(f"{k}={v}" for k, v in flatten(s.params)) or "defaults", s.strategy)
        for s in data.strategies
    ]
    return section(
        "Machine and parameters",
        facts("The simulated machine", data.machine),
        table("Strategies", ("label", "parameters", "strategy"), params, text=(1,)),
        tag("p", f"Seed of the intervals: {data.seed}.", class_="soft"),
    )
