"""How costs are spread, on the page: tiles of rates, histograms on one axis, the dearest requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracereplay.report.markup import Markup, join, tag
from tracereplay.report.numbers import figure, share, span
from tracereplay.report.pictures import WIDTH, colour
from tracereplay.report.spread import dearest, rate_notes, spread_lines

HEIGHT = 56.0
"""Of one strategy's histogram."""

Entry = Mapping[str, Any]


def spread_parts(entries: Sequence[Entry]) -> list[tuple[str, Markup]]:
    """Tiles and pictures, and a heading for each; nothing for results of a version without distributions."""
    if not entries or not all("distribution" in e for e in entries):
        return []
    unit = entries[0]["distribution"]["unit"]
    parts = [("At the trace's rate", _tiles(entries))]
    parts.append(("Cost of a request", _histograms(entries, "per_request", f"{unit} per request")))
    if all(e["distribution"]["per_bio"] for e in entries):
        parts.append(("Cost of a WRITE bio", _histograms(entries, "per_bio", f"{unit} per bio")))
    return parts


def spread_tables(entries: Sequence[Entry]) -> list[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]]:
    """Caption, heads and lines of each table of figures."""
    labels = tuple(str(e["label"]) for e in entries)
    return [(lines.title, ("", *labels), lines.lines) for lines in spread_lines(entries)]


def dearest_tables(entries: Sequence[Entry]) -> list[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]]:
    """The same of each strategy's dearest requests."""
    head = ("cost", "x median", "alike", "at s", "pages", "why", "who")
    return [
        (
            f"{entry['label']}: dearest requests, in {entry['cost']['unit']}",
            head,
            tuple((d.cost, d.times_median, d.alike, d.at, d.pages, d.reason, d.who or "not kept") for d in found),
        )
        for entry in entries
        if (found := dearest(entry))
    ]


def spread_notes(entries: Sequence[Entry]) -> Markup:
    """What the figures divide by and leave out."""
    return join(*(tag("p", text, class_="soft") for text in rate_notes(entries)))


def _tiles(entries: Sequence[Entry]) -> Markup:
    """CPU time a day of each strategy, and how much more or less than the baseline's."""
    return tag("div", *(_tile(entry) for entry in entries), class_="tiles")


def _tile(entry: Entry) -> Markup:
    rates = entry["rates"]
    in_ns = rates["cpu_s_per_day"] is not None
    key = "cpu_s_per_day" if in_ns else "cost_per_s"
    what = "CPU-seconds a day" if in_ns else f"{rates['unit']} a second"
    versus = rates.get("versus") or {}
    difference = versus.get(key)
    ends = rates.get(f"{key}_interval95")
    told = [f"95 %: {span((ends[0], ends[1]))}"] if ends else []
    if difference and versus["label"] != entry["label"]:
        told.append(f"{figure(abs(difference))} {'more' if difference > 0 else 'less'} than {versus['label']}")
    return tag(
        "div",
        tag("span", str(entry["label"]), class_="name"),
        tag("strong", figure(rates[key])),
        tag("span", what),
        *(tag("span", text, class_="soft") for text in told),
        class_="tile",
    )


def _histograms(entries: Sequence[Entry], kind: str, what: str) -> Markup:
    """A histogram for each strategy over one logarithmic axis; heights are shares of its requests or bios."""
    found = [entry["distribution"][kind] for entry in entries]
    edges = found[0]["histogram"]["edges"]
    if not edges:
        return Markup("")
    shares = [[n / max(s["count"], 1) for n in s["histogram"]["requests"]] for s in found]
    used = [i for i in range(len(edges) - 1) if any(row[i] for row in shares)]
    first, last = (used[0], used[-1]) if used else (0, len(edges) - 2)
    top = max((max(row) for row in shares), default=0.0) or 1.0
    rows = [
        tag(
            "div",
            tag("span", str(entry["label"]), class_="name"),
            tag("span", f"p99 {figure(spread['percentiles']['p99'])}", class_="value"),
            _bars(row[first : last + 1], top, i, f"{entry['label']}, {what}: {_told(spread)}"),
            class_="bar histogram",
        )
        for i, (entry, spread, row) in enumerate(zip(entries, found, shares, strict=True))
    ]
    free = [f"{e['label']} {share(s['histogram']['zero'], s['count'])}" for e, s in zip(entries, found, strict=True)
            if s["histogram"]["zero"]]  # fmt: skip
    note = f" Free of cost, and not shown: {', '.join(free)}." if free else ""
    axis = tag("div", *(tag("span", figure(e)) for e in _marks(edges[first : last + 2])), class_="axis")
    return tag(
        "figure",
        *rows,
        tag("div", tag("span", ""), axis, tag("span", ""), class_="bar"),
        tag(
            "figcaption",
            f"{what}, in steps of a tenth of a power of ten; a bar is the share of those that cost so much, the "
            f"highest {share(top, 1)}. The axis is the same for all.{note}",
        ),
    )


def _marks(edges: Sequence[float]) -> list[float]:
    """Some of the edges, evenly over the axis, both ends among them."""
    steps = min(5, len(edges) - 1)
    return [edges[round(k * (len(edges) - 1) / steps)] for k in range(steps + 1)] if steps else list(edges)


def _bars(row: Sequence[float], top: float, series: int, told: str) -> Markup:
    step = WIDTH / len(row)
    rects = [
        tag(
            "rect", x=f"{i * step + 1:.1f}", y=f"{HEIGHT - max(HEIGHT * part / top, 1.5):.1f}",
            width=f"{max(step - 2, 1):.1f}", height=f"{max(HEIGHT * part / top, 1.5):.1f}", fill=colour(series),
        )
        for i, part in enumerate(row)
        if part > 0
    ]  # fmt: skip
    base = tag("line", x1=0, x2=1000, y1=HEIGHT, y2=HEIGHT, class_="grid")
    return tag(
        "svg", *rects, base, viewBox=f"0 0 1000 {HEIGHT:.0f}", preserveAspectRatio="none", role="img", aria_label=told
    )


def _told(spread: Entry) -> str:
    return ", ".join(f"{name} {figure(spread['percentiles'][name])}" for name in ("p10", "p50", "p90", "p99", "max"))
