"""How costs are spread over requests and time, as lines of tables: what terminal and page show of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracereplay.report.numbers import UNKNOWN, count, figure, seconds, share, size_bytes, span

PERCENTILES = ("p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9", "max")

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lines:
    """A table with a column for each strategy: what it is, then the lines, each with its name first."""

    title: str
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Dearest:
    """One kind of a strategy's dearest requests."""

    cost: str
    times_median: str
    alike: str
    at: str
    pages: str
    who: str
    reason: str


def spread_lines(entries: Sequence[Entry]) -> list[Lines]:
    """Cost per request and per bio, rates and memory. Nothing for results of a version that did not tell them."""
    if not entries or not all("distribution" in e for e in entries):
        return []
    unit = entries[0]["distribution"]["unit"]
    found = [_spread(f"{unit} per request", [e["distribution"]["per_request"] for e in entries])]
    if all(e["distribution"]["per_bio"] for e in entries):
        found.append(_spread(f"{unit} per bio", [e["distribution"]["per_bio"] for e in entries]))
    return [*found, rate_lines(entries), memory_lines(entries)]


def _spread(title: str, spreads: Sequence[Entry]) -> Lines:
    rows = [(name, *(figure(s["percentiles"][name]) for s in spreads)) for name in PERCENTILES]
    rows.append(("mean", *(figure(s["mean"]) for s in spreads)))
    rows.append(("part of dearest 1 %", *(share(s["top1_percent_share"], 1) for s in spreads)))
    rows.append(("number", *(count(s["count"]) for s in spreads)))
    return Lines(title, tuple(rows))


def rate_lines(entries: Sequence[Entry]) -> Lines:
    """Per second of the trace, and per day at this rate."""
    rates = [e["rates"] for e in entries]
    unit = rates[0]["unit"]
    window = next((r["busiest"]["window_s"] for r in rates if r["busiest"]), None)
    rows = [
        ("requests/s", *(figure(r["requests_per_s"]) for r in rates)),
        ("pages/s", *(figure(r["pages_per_s"]) for r in rates)),
        _rate_row(rates, "", unit, lambda r: r["cost_per_s"]),
        _rate_row(
            rates, f"busiest {seconds(None if window is None else 1e9 * window)}", unit,
            lambda r: r["busiest"] and r["busiest"]["cost_per_s"],
        ),
    ]  # fmt: skip
    if unit == "ns":
        rows.append(("CPU-s a day", *(figure(r["cpu_s_per_day"]) for r in rates)))
        if all("cpu_s_per_day_interval95" in r for r in rates):
            ends = [r["cpu_s_per_day_interval95"] for r in rates]
            rows.append(("  95 %", *(span(e and (e[0], e[1])) for e in ends)))
        base = (rates[0].get("versus") or {}).get("label")
        rows.append((f"against {base}", *(_signed((r.get("versus") or {}).get("cpu_s_per_day")) for r in rates)))
    return Lines("at the trace's rate", tuple(rows))


def _rate_row(rates: Sequence[Entry], name: str, unit: str, of: Callable[[Entry], float | None]) -> tuple[str, ...]:
    scale, shown = (1e3, "us") if unit == "ns" else (1.0, unit)
    values = [of(r) for r in rates]
    return (f"{name} {shown}/s".strip(), *(figure(None if v is None else v / scale) for v in values))


def _signed(x: float | None) -> str:
    return UNKNOWN if x is None else figure(x) if x <= 0 else f"+{figure(x)}"


def memory_lines(entries: Sequence[Entry]) -> Lines:
    """Idle in reserves, and held in vain, in bytes."""
    names = {
        "reserve, most": "reserve_peak_bytes",
        "reserve, mean": "reserve_mean_bytes",
        "waste, most": "waste_peak_bytes",
    }
    return Lines(
        "memory", tuple((text, *(size_bytes(e["memory"][key]) for e in entries)) for text, key in names.items())
    )


def rate_notes(entries: Sequence[Entry]) -> list[str]:
    """What the rates divide by and leave out, in words."""
    if not entries or "rates" not in entries[0]:
        return []
    rates = entries[0]["rates"]
    said = []
    if rates["lost_s"]:
        said.append(
            f"Rates are those of the {figure(rates['covered_s'])} s that the events cover: in "
            f"{figure(rates['lost_s'])} of the trace's {figure(rates['span_s'])} s events were lost (mean of the CPUs)."
        )
    if rates.get("note"):
        said.append(f"{rates['note']}: this one counts {rates['unit']}.")
    bios = entries[0]["distribution"]["per_bio"]
    if bios is None:
        said.append("No request is known to be a WRITE bio's, so there is no cost per bio.")
    else:
        pieces = f"{count(bios['in_pieces'])} of {count(bios['count'])} bios came in pieces"
        tail = f"; {count(bios['cut'])} of them not to their end" if bios["cut"] else ""
        each = f"{pieces}, {count(bios['pieces'])} requests, and cost their sum{tail}"
        said.append(f"{each if bios['in_pieces'] else 'Each bio is one request'}.")
        if bios["requests_without"]:
            said.append(f"{count(bios['requests_without'])} requests belong to no known bio.")
    return said


def dearest(entry: Entry, most: int | None = None) -> list[Dearest]:
    """A strategy's dearest requests."""
    return [
        Dearest(
            figure(row["cost"]),
            figure(row["times_median"]),
            count(row["requests"]),
            f"{row['from_s']:.6f}",
            count(row["pages"]),
            _who(row),
            row["reason"],
        )
        for row in (entry.get("worst") or [])[:most]
    ]


def _who(row: Entry) -> str:
    if row["caller"] is None:
        return ""
    return f"{row['caller']}, CPU {row['cpu']}"
