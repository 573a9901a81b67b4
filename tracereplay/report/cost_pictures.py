"""Pictures of a comparison: cost by primitive with intervals, how requests' costs are spread, zone locks over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from tracereplay.report.bars import Bar, bars_svg
from tracereplay.report.data import Comparison
from tracereplay.report.numbers import figure, span
from tracereplay.report.picture import Picture
from tracereplay.report.plot import Plane
from tracereplay.report.scale import linear, logarithmic
from tracereplay.report.trace_pictures import course


def cost_pictures(data: Comparison) -> dict[str, list[Picture]]:
    """By the part of the page they belong to: ``cost``, ``spread``, ``locks``."""
    return {
        "cost": [found for found in [_by_group(data)] if found],
        "spread": [found for found in [_spread(data.entries)] if found],
        "locks": [course(chart, None) for chart in data.charts],
    }


def _by_group(data: Comparison) -> Picture | None:
    shown = [s for s in data.strategies if s.per_page is not None]
    if not shown or data.profile is None:
        return None
    groups = [g for g in data.profile.groups if any(s.groups.get(g, 0) > 0 for s in shown)]
    bars = [
        Bar(s.label, f"{figure(s.per_page)} {data.unit}", tuple(s.groups.get(g, 0.0) for g in groups), s.interval)
        for s in shown
    ]
    title = f"Cost per page by strategy, {data.unit}"
    told = "; ".join(f"{s.label} {figure(s.per_page)} {data.unit}, 95 % {span(s.interval)}" for s in shown)
    rows = tuple(
        (s.label, figure(s.per_page), span(s.interval), *(figure(s.groups.get(g, 0.0)) for g in groups)) for s in shown
    )
    return Picture(
        "cost-by-primitive", title,
        lambda width, below: bars_svg(title, bars, groups, width, f"{title}: {told}", below),
        ("strategy", f"{data.unit}/page", "95 %", *groups), rows,
        f"Parts of a bar are groups of primitives, the line is the 95 % interval, cut off where it reaches far beyond "
        f"every bar. Prices: {data.profile.name}.", costs=True,
    )  # fmt: skip


def _spread(entries: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Share of requests that cost at most so much."""
    if not entries or not all("distribution" in e for e in entries):
        return None
    unit = entries[0]["distribution"]["unit"]
    curves: dict[str, list[tuple[float, float]]] = {}
    for entry in entries:
        found = entry["distribution"]["per_request"]
        edges, counts = found["histogram"]["edges"], found["histogram"]["requests"]
        if not edges:
            continue
        below = accumulate(counts, initial=found["histogram"]["zero"])
        whole = max(found["count"], 1)
        steps = [(edge, 100 * n / whole) for edge, n in zip(edges, below, strict=True)]
        used = [i for i, n in enumerate(counts) if n]
        curves[str(entry["label"])] = steps[used[0] : used[-1] + 2] if used else []
    if not any(curves.values()):
        return None
    title = f"Requests that cost at most so much, {unit}"
    names = ("p10", "p50", "p90", "p99", "max")
    rows = tuple(
        (str(e["label"]), *(figure(e["distribution"]["per_request"]["percentiles"][name]) for name in names))
        for e in entries
    )
    return Picture(
        "cost-distribution", title, partial(_spread_svg, title, curves, f"{unit} per request, logarithmic"),
        ("strategy", *names), rows, "The further left a curve, the cheaper; where two cross, each is cheaper for some.",
        costs=True,
    )  # fmt: skip


def _spread_svg(
    title: str, curves: Mapping[str, list[tuple[float, float]]], x_name: str, width: int, below: Sequence[str]
) -> str:
    ends = [x for points in curves.values() for x, _ in points]
    plane = Plane(
        title, logarithmic(min(ends), max(ends)), linear(0.0, 100.0, lambda y: f"{y:g} %"), width, x_name,
        "share of requests", list(curves),
    )  # fmt: skip
    for index, points in enumerate(curves.values()):
        plane.line(points, index)
    halves = {name: next((x for x, y in points if y >= 50), None) for name, points in curves.items()}
    told = "; ".join(f"{name}: half at {figure(x)}" for name, x in halves.items() if x)
    return plane.svg(f"{title}. {told}", *below)
