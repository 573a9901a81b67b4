"""A finished sweep as text for an 80-column terminal: what strategies cost where, and where the cheapest changes."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracereplay.machine.counters import COUNTERS
from tracereplay.report.numbers import UNKNOWN, count, figure, share, span
from tracereplay.report.terminal import WIDTH, short, table
from tracereplay.trace.fleet import WHOLE
from tracereplay.whatif.crossings import crossings, number_of
from tracereplay.whatif.ranking import COLUMNS, MORE_FAILURES, own_axes, point, standings, with_ranks
from tracereplay.whatif.task import FAILED

if TYPE_CHECKING:
    import polars as pl

MOST_SETTINGS = 40
MOST_CROSSINGS = 12
COUNTED = ("pcp_lock_acquisitions", "pcp_refills", "pcp_drains", "zone_lock_acquisitions")
"""Shown where points have no price, as those of an exact sweep of list sizes."""
MOST_COUNTED = 4
"""Of others, where there are none of these."""
SIDE_BY_SIDE = 4
"""Strategies beside each other."""
SETTLED, UNSETTLED, UNSERVED = "*", "~", "!"
LEGEND = {
    SETTLED: "cheapest",
    UNSETTLED: "cheapest, but not settled: the interval of the difference from the next holds 0",
    UNSERVED: "leaves more requests unserved than others, and is not ranked among them",
}

Row = Mapping[str, Any]


def sweep_table(frame: pl.DataFrame, axes: Sequence[str]) -> str:
    """What ``whatif`` prints. ``frame``: the rows of its table. No line exceeds 80 columns."""
    if frame.is_empty():
        return "no point was run"
    if not set(COLUMNS) <= set(frame.columns):
        frame = with_ranks(frame, axes)
    if frame["trace"].n_unique() > 1:
        axes = ["host" if frame["host"].n_unique() == frame["trace"].n_unique() else "trace", *axes]
    rows = frame.to_dicts()
    parts = [facts([row for row in rows if row["trace"] != WHOLE])]
    if all(row.get("per_page") is None for row in rows):
        return "\n\n".join(part for part in (*parts, _counts(rows, axes), _failures(rows)) if part)
    shown = _curves(rows, axes[0]) if len(axes) == 1 else _settings(rows, axes)
    legend = "; ".join(f"{mark} {told}" for mark, told in LEGEND.items() if mark in shown)
    parts += [shown, textwrap.fill(f"{legend}.", WIDTH) if legend else ""]
    parts += [_crossing_lines(frame, axes), _failures(rows)]
    return "\n\n".join(part for part in parts if part)


def facts(rows: Sequence[Row]) -> str:
    """What a reader must know before believing a figure: trace, completeness, share of the demand, prices, seed."""
    done = [row for row in rows if row["status"] != FAILED]
    first = (done or rows)[0]
    traces = list(dict.fromkeys(str(row["trace"]) for row in rows))
    named = traces[0] if len(traces) == 1 else f"{len(traces)} traces, the first {traces[0]}"
    lines = [("trace", f"{named} (id {str(first.get('trace_id') or UNKNOWN)[:12]}) {first.get('host') or UNKNOWN}, "
                       f"kernel {first.get('kernel') or UNKNOWN}")]  # fmt: skip
    if done:
        lost = {row.get("lost") for row in done}
        told = "not known" if None in lost else _range([n for n in lost if n is not None])
        lines.append(("complete", f"lost events {told}, unseen pages {_range(_known(done, 'unseen_pages'))}"))
        parts = [row["pages"] / row["demand_pages"] for row in done if row.get("demand_pages")]
        told = " to ".join(dict.fromkeys(share(part, 1) for part in (min(parts), max(parts)))) if parts else UNKNOWN
        lines.append(
            (
                "demand",
                f"targeted {_range(_known(done, 'pages'))} pages in {_range(_known(done, 'requests'))} requests, "
                f"{told} of all pages; --target {first.get('target') or UNKNOWN}",
            )
        )
        lines.append(("accounting", ("the first: " if len(traces) > 1 else "") + _accounting(first)))
    methods = ", ".join(sorted({str(row.get("method") or "replay") for row in rows}))
    profiles = ", ".join(sorted({str(row["profile"]) for row in rows}))
    seeds = ", ".join(sorted({str(row["seed"]) for row in rows}))
    lines.append(("prices", f"{profiles}, {first.get('unit') or UNKNOWN}; seed {seeds}"))
    failed = len(rows) - len(done)
    lines.append(
        ("points", f"{count(len(rows))} by {methods}" + (f", {count(failed)} of them failed" if failed else ""))
    )
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent=f"{name:<13}", subsequent_indent=" " * 13) for name, text in lines
    )


def _accounting(row: Row) -> str:
    a = json.loads(row.get("accounting") or "{}")
    shown = (("events", "events"), ("matched", "matched frees"), ("unmatched_frees", "unmatched"),
             ("left_censored", "left-censored"), ("right_censored", "right-censored"))  # fmt: skip
    return ", ".join(f"{name} {count(a[key])}" for key, name in shown if a.get(key) is not None) or UNKNOWN


def _known(rows: Sequence[Row], name: str) -> list[int]:
    return [row[name] for row in rows if row.get(name) is not None]


def _range(values: Sequence[int]) -> str:
    if not values:
        return UNKNOWN
    low, high = min(values), max(values)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def _sorted(values: Sequence[Any]) -> list[Any]:
    """Numbers rising, names as they come."""
    known = list(dict.fromkeys(values))
    numbers = [number_of(value) for value in known]
    return known if None in numbers else [v for _, v in sorted(zip(numbers, known, strict=True))]


def _curves(rows: Sequence[Row], axis: str) -> str:
    """One axis: a line a value, a column a strategy; one that the axis does not concern is the same all along."""
    labels = list(dict.fromkeys(str(row["label"]) for row in rows))
    values = _sorted([row[axis] for row in rows if row.get(axis) is not None])
    unit = next((row["unit"] for row in rows if row.get("unit")), "")
    at: dict[Any, dict[str, Row]] = {value: {} for value in [*values, None]}
    for row in rows:
        at[row.get(axis)][str(row["label"])] = row
    cells = {value: _marked(at[None] | at[value]) for value in values}
    marks = [{label: cell[-1] for label, cell in cells[value].items()} for value in values]
    step = -(-len(values) // MOST_SETTINGS)
    shown = [
        value
        for i, value in enumerate(values)
        if i % step == 0 or any(marks[i] != marks[j] for j in (max(i - 1, 0), min(i + 1, len(values) - 1)))
    ]
    blocks = []
    for start in range(0, len(labels), SIDE_BY_SIDE):
        some = labels[start : start + SIDE_BY_SIDE]
        lines = [(_place(v), *(cells[v].get(label, f"{UNKNOWN} ") for label in some)) for v in shown]
        blocks.append(table((short(axis, 20), *(f"{short(label, 12)} " for label in some)), lines))
    left = len(values) - len(shown)
    more = f"\n({count(left)} values more, between lines that agree, are in the table)" if left else ""
    return f"cost of a page, {unit}\n" + "\n\n".join(blocks) + more


def _marked(rows: Mapping[str, Row]) -> dict[str, str]:
    """Cost of a page of each strategy at one setting, with its mark; a blank keeps figures below each other."""
    points = {label: p for label, row in rows.items() if (p := point(row))}
    places = dict(zip(points, standings([*points.values()]), strict=True))
    least = min((p.failed for p in points.values()), default=0.0) + MORE_FAILURES
    cells = {label: "failed " if row["status"] == FAILED else f"{UNKNOWN} " for label, row in rows.items()}
    for label, p in points.items():
        best = UNSETTLED if places[label].settled is False else SETTLED
        mark = best if places[label].rank == 1 else UNSERVED if p.failed > least else " "
        cells[label] = figure(p.cost.value) + mark
    return cells


def _counts(rows: Sequence[Row], axes: Sequence[str]) -> str:
    """Points without a price: what was counted."""
    there = [name for name in COUNTERS if any(row.get(name) is not None for row in rows)]
    known = [name for name in COUNTED if name in there] or there[:MOST_COUNTED]
    if not known:
        return ""
    head = (*(short(axis, 12) for axis in axes), "strategy", *(name.replace("_acquisitions", "s") for name in known))
    lines = [
        (*(_place(row.get(axis)) for axis in axes), short(str(row["label"])), *(count(row.get(name)) for name in known))
        for row in rows[:MOST_SETTINGS]
    ]
    text = "\n".join(short(line, WIDTH) for line in table(head, lines).splitlines())
    more = len(rows) - len(lines)
    return text + (f"\n... {count(more)} points more in the table" if more else "")


def _settings(rows: Sequence[Row], axes: Sequence[str]) -> str:
    """More axes: the cheapest at each setting of those that all share, and what the next costs more."""
    own = own_axes(axes, {str(row["label"]) for row in rows})
    shared = [axis for axis in axes if not any(axis in names for names in own.values())]
    best = [row for row in rows if row["rank"] == 1]
    unit = next((row["unit"] for row in best if row.get("unit")), "")
    head = (*(short(axis, 12) for axis in shared), "cheapest", f"{unit}/page", "95 %", "next", "dearer by")
    lines = []
    for row in best[:MOST_SETTINGS]:
        told = ",".join(f"{a.partition('.')[2]}={row[a]}" for a in own.get(str(row["label"]), ()))
        dearer = None if row["difference_per_page"] is None else -row["difference_per_page"]
        low, high = row["per_page_low95"], row["per_page_high95"]
        lines.append(
            (
                *(_place(row[axis]) for axis in shared),
                short(f"{row['label']}[{told}]" if told else str(row["label"]), 22),
                figure(row["per_page"]) + (UNSETTLED if row["settled"] is False else SETTLED),
                UNKNOWN if low is None else span((low, high)),
                short(str(row["versus"] or UNKNOWN), 16),
                figure(dearer),
            )
        )
    shown = table(head, lines)
    if max(map(len, shown.splitlines())) > WIDTH:  # without the interval, then without the rival's name
        shown = table(*_without(head, lines, -3))
    if max(map(len, shown.splitlines())) > WIDTH:
        head, lines = _without(head, lines, -3)
        shown = table(*_without(head, lines, -2))
    text = "\n".join(short(line, WIDTH) for line in shown.splitlines())
    more = len(best) - len(lines)
    return text + (f"\n... {count(more)} settings more in the table" if more > 0 else "")


def _without(
    head: Sequence[str], lines: Sequence[Sequence[str]], column: int
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    keep = [i for i in range(len(head)) if i != len(head) + column]
    return tuple(head[i] for i in keep), [tuple(line[i] for i in keep) for line in lines]


def _place(value: Any) -> str:
    return UNKNOWN if value is None else short(f"{value:g}" if isinstance(value, float) else str(value), 16)


def _crossing_lines(frame: pl.DataFrame, axes: Sequence[str]) -> str:
    """Where the cheapest changes along each axis of numbers, and from where to where that is not settled."""
    said = []
    varied = [axis for axis in axes if frame[axis].n_unique() > 1]
    for axis in varied:
        found = crossings(frame, axis, axes).filter(best=True).to_dicts()
        for row in found:
            others = [f"{a}={_place(row[a])}" for a in varied if a in row and row[a] is not None]
            text = f"{axis} {figure(row['at'])}: {row['below']} is cheaper below, {row['above']} above"
            text += f" (at {', '.join(others)})" if others else ""
            said.append(
                f"{text}; between the points {_place(row['left'])} and {_place(row['right'])}, {_unsettled(row)}"
            )
    lines = [textwrap.fill(text, WIDTH, subsequent_indent="  ") for text in said[:MOST_CROSSINGS]]
    if len(said) > MOST_CROSSINGS:
        lines.append(f"... {count(len(said) - MOST_CROSSINGS)} changes of the cheapest more")
    return "\n".join(lines)


def _unsettled(crossing: Row) -> str:
    low, high = crossing["low"], crossing["high"]
    if low is None and high is None:
        return "not settled anywhere along it"
    first, last = "the lowest point" if low is None else figure(low), "the highest" if high is None else figure(high)
    return f"not settled from {first} to {last}"


def _failures(rows: Sequence[Row]) -> str:
    errors = dict.fromkeys(str(row["error"]) for row in rows if row["status"] == FAILED)
    return "\n".join(textwrap.fill(f"failed: {error}", WIDTH, subsequent_indent="  ") for error in list(errors)[:5])
