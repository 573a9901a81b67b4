"""The report as one HTML page that needs nothing else: no network, no script, pictures inline."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from tracereplay.cost.profile import Profile
from tracereplay.report.data import PAGES_PER_MIB, Comparison, Fact, StrategyCost, flatten, tornadoes
from tracereplay.report.markup import Child, Markup, join, tag
from tracereplay.report.numbers import UNKNOWN, count, figure, share, size, span
from tracereplay.report.pictures import cost_bars, line_chart, share_bar, tornado_chart, tornado_legend
from tracereplay.report.spread_page import dearest_tables, spread_notes, spread_parts, spread_tables
from tracereplay.report.tracedata import TraceData, size_text

SIZES_SHOWN = 4
CALLERS_SHOWN = 15


def render(comparison: Comparison | None, trace: TraceData | None, *, title: str, made: str, made_by: str) -> str:
    """The whole page. ``made``: when, ``made_by``: the exact command; at least one of the two parts is given."""
    parts: list[Markup] = []
    if comparison is not None:
        parts += [
            _verdict(comparison),
            _captured(comparison, trace),
            _costs(comparison),
            _spread(comparison),
            _operations(comparison),
            _callers(comparison),
        ]
    elif trace is not None:
        parts.append(_section("What was captured", _facts("The trace", trace.facts), _notes(trace.notes)))
    if trace is not None:
        parts.append(_trace(trace))
    if comparison is not None:
        parts += [_prices(comparison.profile), _setting(comparison)]
    commands = [comparison.command] if comparison is not None and comparison.command else []
    parts.append(
        _section(
            "Repeat this",
            tag("pre", tag("code", "\n".join([*commands, made_by]))),
        )
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(resources.files("tracereplay.report").joinpath("style.css").read_text())),
    )
    body = tag("body", tag("header", tag("h1", title), tag("p", made, class_="soft")), tag("main", *parts))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _section(heading: str, *children: Child) -> Markup:
    return tag("section", tag("h2", heading), *children)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Child]], *, text: Sequence[int] = ()) -> Markup:
    """A table with column heads. ``text``: columns of prose."""
    cells = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, class_=_cell_class(cell, i in text)) for i, cell in enumerate(row[1:], 1)),
        )
        for row in rows
    ]
    columns = [tag("th", h, scope="col", class_="text" if i in text else None) for i, h in enumerate(head)]
    return _scroll(
        caption,
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *columns)),
            tag("tbody", *cells),
        ),
    )


def _cell_class(cell: Child, is_text: bool) -> str | None:
    """Style of a cell: prose, a picture, or a number."""
    if isinstance(cell, Markup):
        return "bar-cell"
    return "text" if is_text else None


def _share(part: int, whole: int) -> tuple[str, Markup]:
    return share(part, whole), share_bar(part, whole)


def _facts(caption: str, facts: Sequence[Fact]) -> Markup:
    """Label, value and remark per line; no column heads, the caption says what it is."""
    rows = [tag("tr", tag("th", f.label, scope="row"), tag("td", f.value), tag("td", f.note)) for f in facts]
    return _scroll(caption, tag("table", tag("caption", caption), tag("tbody", *rows), class_="facts"))


def _scroll(label: str, table: Markup) -> Markup:
    """A table that scrolls sideways by itself on a narrow screen."""
    return tag("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def _notes(notes: Sequence[str]) -> Markup | None:
    if not notes:
        return None
    return tag(
        "div",
        tag("strong", "Hold against these numbers"),
        tag("ul", *(tag("li", n) for n in notes)),
        class_="cautions",
        role="note",
    )


def _verdict(data: Comparison) -> Markup:
    return _section(
        "Result",
        tag("div", *(tag("p", sentence) for sentence in data.verdict), class_="verdict"),
        _notes(data.cautions),
    )


def _captured(data: Comparison, trace: TraceData | None) -> Markup:
    return _section(
        "What was captured, and how complete it is",
        _facts("The trace", trace.facts if trace is not None else data.trace),
        _facts("Where its page events went", data.accounting),
        _facts("The demand built from them", data.demand),
    )


def _costs(data: Comparison) -> Markup:
    if not data.strategies:
        return _section("Cost", tag("p", "No strategy was replayed."))
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
    return _section(
        "Cost",
        tag(
            "p",
            "Allocation and release of the targeted requests together, without contention. Intervals cover the "
            "uncertainty of the prices and that of the requests, of which the trace holds but some; ratios compare "
            "under the same prices and requests, so they are narrower than the intervals suggest.",
        ),
        cost_bars(data),
        _table("Cost by strategy. Assumed: share of the cost priced by assumptions", head, rows),
        _table(f"{u} per request", ("strategy", "mean", "95 %", "p50", "95 %", "p99", "95 %"), requests),
        _primitives(data.strategies, data.unit),
        *_differences(data),
    )


def _spread(data: Comparison) -> Markup:
    """How costs are spread over requests, bios and time."""
    parts = spread_parts(data.entries)
    if not parts:
        return Markup("")
    worst = [_table(*table, text=(5, 6)) for table in dearest_tables(data.entries)]
    return _section(
        "How the cost is spread",
        *(piece for heading, part in parts if part for piece in (tag("h3", heading), part)),
        spread_notes(data.entries),
        tag(
            "details",
            tag("summary", "The same in figures"),
            *(_table(*table) for table in spread_tables(data.entries)),
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
        parts.append(_table(f"Difference to {data.baseline}", head, rows, text=(3, 4)))
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
    table = _table(
        f"{unit} per page, by primitive, with 95 % intervals", ("primitive", *(s.label for s in strategies)), rows
    )
    return tag("details", tag("summary", "The same by primitive"), table)


def _operations(data: Comparison) -> Markup:
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
    return _section(
        "Operations",
        _table("Per 1,000 targeted pages; peaks are pages", ("operation", *(s.label for s in data.strategies)), rows),
        *(line_chart(chart) for chart in data.charts),
        *([_table("Waits", ("requests", *(s.label for s in data.strategies)), data.waits)] if data.waits else []),
        *(
            [_table("Longest sections", ("work units", *(s.label for s in data.strategies)), data.sections)]
            if data.sections
            else []
        ),
        *(
            [_table("Waiting at zone locks", ("", *(s.label for s in data.strategies)), data.contention)]
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
            *_share(c.pages, whole),
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
            (join(f"{len(rest)} others"), count(sum(c.requests for c in rest)), count(pages), *_share(pages, whole), "")
        )
    table = _table(
        "Requests by caller, with the sizes that carry most pages",
        ("caller", "requests", "pages", "share", "", "sizes"),
        rows,
        text=(4, 5),
    )
    return _section("Who asks for pages", table)


def _trace(trace: TraceData) -> Markup:
    parts: list[Child] = [line_chart(chart) for chart in trace.charts]
    whole = trace.allocated_pages
    if trace.orders:
        rows = [
            (str(o.order), size(1 << o.order), count(o.blocks), count(o.pages), *_share(o.pages, whole))
            for o in trace.orders
        ]
        parts.append(
            _table("Allocations by order", ("order", "block", "allocations", "pages", "share", ""), rows, text=(5,))
        )
    if trace.tasks:
        tasks = [(t.comm, count(t.tasks), count(t.pages), *_share(t.pages, whole)) for t in trace.tasks]
        parts.append(
            _table("Pages allocated by command name", ("command", "threads", "pages", "share", ""), tasks, text=(4,))
        )
    if trace.bio_sizes:
        sizes = [(size_text(b), count(n)) for b, n in trace.bio_sizes]
        parts.append(_table("Most frequent sizes of queued writes", ("size", "bios"), sizes))
    events = _table("Events by kind", ("kind", "events", "rate"), [(f.label, f.value, f.note) for f in trace.kinds])
    return _section("The trace over time", *parts, tag("details", tag("summary", "Events by kind"), events))


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
    tables = [_table(f"Prices in {profile.unit}", head, rows, text=(2, 4, 5))]
    if profile.parameters:
        rows = [
            (p.name, figure(p.value), span((p.low, p.high)), p.unit, p.evidence, p.source) for p in profile.parameters
        ]
        head = ("parameter", "value", "95 % range", "unit", "evidence", "origin")
        tables.append(_table("Parameters of the formulas", head, rows, text=(5,)))
    if profile.unpriced:
        reasons = [(name.replace("_", " "), reason) for name, reason in profile.unpriced.items()]
        tables.append(_table("Counted, not priced", ("operation", "why"), reasons, text=(1,)))
    assumed = sum(c.evidence == "assumption" for c in profile.coefficients)
    return _section(
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
    return _section(
        "Machine and parameters",
        _facts("The simulated machine", data.machine),
        _table("Strategies", ("label", "parameters", "strategy"), params, text=(1,)),
        tag("p", f"Seed of the intervals: {data.seed}.", class_="soft"),
    )
