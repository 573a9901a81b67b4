"""The comparison as text for an 80-column terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tracereplay.report.data import Comparison, Fact, build_comparison, tornadoes
from tracereplay.report.differences import Tornado, tornado_lines
from tracereplay.report.numbers import UNKNOWN, figure, span
from tracereplay.report.spread import dearest, rate_notes, spread_lines

WIDTH = 80
LABEL = 14
UNITS = {"instructions": "instr"}
"""Units as heads of narrow columns."""

ROWS = (
    ("alloc calls", ("alloc_calls",)),
    ("bulk calls", ("bulk_calls",)),
    ("free calls", ("free_calls",)),
    ("pcp lock", ("pcp_lock_acquisitions",)),
    ("pcp refills", ("pcp_refills",)),
    ("zone lock", ("zone_lock_acquisitions",)),
    ("splits", ("splits",)),
    ("merges", ("merges",)),
    ("fallbacks", ("fallbacks",)),
    ("failed attempts", ("failed_attempts",)),
    ("tail pages", ("tail_pages_prepared",)),
    ("pages zeroed", ("zeroed_pages",)),
    ("cache hits", ("cache_hits",)),
    ("direct-map split", ("direct_map_splits",)),
    ("TLB flushes", ("tlb_flushes",)),
    ("mempool", ("mempool_takes", "mempool_puts")),
    ("failures", ("failures",)),
)
"""Lines of the counter table: name and the counters it sums. Lines that are 0 throughout are left out."""


ACCOUNTED = ("matched", "unmatched frees", "left-censored", "right-censored", "lost", "unseen by vmstat")
"""Parts of the accounting that the text shows; the page shows all."""


def spread(result: Mapping[str, Any]) -> str:
    """What ``replay --distribution`` adds: how costs are spread over requests and bios, rates, memory."""
    entries = result["results"]
    tables = [_beside(lines.title, entries, lines.lines) for lines in spread_lines(entries)]
    return "\n\n".join([*tables, *([_said(notes)] if (notes := rate_notes(entries)) else [])])


def worst(result: Mapping[str, Any], most: int) -> str:
    """What ``replay --worst`` adds: each strategy's dearest requests, and why."""
    return "\n\n".join(filter(None, (_dearest(entry, most) for entry in result["results"])))


def _dearest(entry: Mapping[str, Any], most: int) -> str:
    found = dearest(entry, most)
    if not found:
        return ""
    unit = entry["cost"]["unit"]
    rows = [(d.cost, d.times_median, d.alike, d.at, d.pages) for d in found]
    lines = table((unit, "x median", "alike", "at s", "pages"), rows).splitlines()
    told = [f"dearest requests of {entry['label']}"[:WIDTH], *lines[:2]]
    for line, d in zip(lines[2:], found, strict=True):
        why = f"{d.reason} [{d.who}]" if d.who else d.reason
        told += [line, textwrap.fill(why, WIDTH, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(told)


def comparison(result: Mapping[str, Any], *, tornado: bool = False) -> str:
    """What ``replay`` prints: accounting first, then prices, then counters. No line exceeds 80 columns.

    ``tornado``: with a table for each strategy and each difference of what moves it most.
    """
    data = build_comparison(result)
    parts = [_facts(data), _prices(data), _differences(data)]
    if tornado:
        parts += [_tornado(t, data.unit) for t in tornadoes(data)]
    parts += [_counters(data), _waits(data), _sections(data), _contention(data)]
    parts += [_said(data.verdict), _said(data.cautions, "caution: ")]
    return "\n\n".join(part for part in parts if part)


def _facts(data: Comparison) -> str:
    facts = {fact.label: fact for fact in (*data.trace, *data.accounting, *data.demand)}
    shown = [f for f in data.accounting if f.label in ACCOUNTED]
    accounting = "; ".join(f"{f.label} {f.value}" + (f" ({f.note})" if f.label == "matched" else "") for f in shown)
    lines = [
        ("trace", f"{_text(facts['trace'])} {_text(facts['host'])}, {facts['duration'].value}"),
        ("page events", f"{facts['page events'].value if 'page events' in facts else UNKNOWN}: {accounting}"),
        ("demand", f"{facts['requests'].value} requests, {facts['requests'].note}; targeted {facts['targeted'].value} "
                   f"{facts['targeted'].note}"),
    ]  # fmt: skip
    if "completeness" in facts:
        lines.insert(1, ("complete", facts["completeness"].value))
    if data.machine:
        told = [f"{f.label} {f.value}" for f in data.machine if "." not in f.label and f.value not in (UNKNOWN, "")]
        lines.append(("machine", ", ".join(told)))
    if data.profile is not None:
        prices = data.profile.coefficients
        assumed = sum(c.evidence == "assumption" for c in prices)
        lines.append(
            ("profile", f"{data.profile.name}, {data.unit}; {assumed} of {len(prices)} prices are assumptions")
        )
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent=f"{name:<13}", subsequent_indent=" " * 13, break_long_words=True)
        for name, text in lines
    )


def _text(fact: Fact) -> str:
    return f"{fact.value} ({fact.note})" if fact.note else fact.value


def _prices(data: Comparison) -> str:
    if not data.strategies:
        return ""
    head = ("strategy", f"{UNITS.get(data.unit, data.unit)}/page", "95 %", "ratio", "95 %", "p50/request", "p99")
    rows = [
        (
            short(s.label),
            figure(s.per_page),
            span(s.interval),
            figure(s.ratio),
            span(s.ratio_interval) if s.label != data.baseline else UNKNOWN,
            figure(s.p50),
            figure(s.p99),
        )
        for s in data.strategies
    ]
    excess = max(map(len, table(head, rows).splitlines())) - WIDTH
    if excess > 0:
        rows = [(short(row[0], max(6, LABEL - excess)), *row[1:]) for row in rows]
    return table(head, rows)


def _differences(data: Comparison) -> str:
    """A sentence for each strategy but the baseline, and how the requests were resampled."""
    said = [d.sentence(data.unit) for d in data.differences]
    said += [f"Sampling: {note}." for note in dict.fromkeys(s.sampling for s in data.strategies if s.sampling)]
    return "\n".join(textwrap.fill(text, WIDTH, subsequent_indent="  ") for text in said)


def _tornado(tornado: Tornado, unit: str) -> str:
    title = f"{tornado.title}: {figure(tornado.value)} {unit} per page. With one number at the ends of its range:"
    rows = [(short(name, 18), short(told, 28), *ends) for name, told, *ends in tornado_lines(tornado)]
    return "\n".join([textwrap.fill(title, WIDTH), table(("number", "range", "at low", "at high", "span"), rows)])


def _counters(data: Comparison) -> str:
    if not data.targeted_pages or not data.strategies:
        return ""
    blocks = []
    for start in range(0, len(data.strategies), 4):
        some = data.strategies[start : start + 4]
        rows = [
            (name, *(figure(1000 * value / data.targeted_pages) for value in values))
            for name, names in ROWS
            if any(values := [sum(s.counters.get(n, 0) for n in names) for s in some])
        ]
        blocks.append(table(("per 1,000 pages", *(short(s.label) for s in some)), rows))
    return "\n\n".join(blocks)


def _waits(data: Comparison) -> str:
    return _lines("waits", data, data.waits)


def _lines(title: str, data: Comparison, lines: Sequence[Sequence[str]]) -> str:
    return _beside(title, [{"label": s.label} for s in data.strategies], lines)


def _beside(title: str, entries: Sequence[Mapping[str, Any]], lines: Sequence[Sequence[str]]) -> str:
    """Lines with a value for each strategy, four strategies beside each other."""
    blocks = []
    for start in range(0, len(entries), 4):
        labels = [short(str(entry["label"])) for entry in entries[start : start + 4]]
        rows = [(line[0], *line[1 + start : 5 + start]) for line in lines]
        blocks.append(table((title, *labels), rows))
    return "\n\n".join(blocks) if lines else ""


def _sections(data: Comparison) -> str:
    return _lines("longest, work units", data, data.sections)


def _contention(data: Comparison) -> str:
    return _lines("waiting at locks", data, data.contention) or _said([data.contention_note])


def short(label: str, width: int = LABEL) -> str:
    """A label that fits its column."""
    return label if len(label) <= width else f"{label[: width - 1]}…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """First column left, the others right, two spaces between."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]).rstrip()

    return "\n".join([line(head), line(["-" * w for w in widths]), *(line(row) for row in rows)])


def _said(sentences: Sequence[str], lead: str = "") -> str:
    if not any(sentences):
        return ""
    if not lead:
        return textwrap.fill(" ".join(sentences), WIDTH)
    return "\n".join(textwrap.fill(lead + text, WIDTH, subsequent_indent=" " * len(lead)) for text in sentences)
