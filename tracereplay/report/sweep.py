"""What a report says about a sweep, as plain data: its curves, where they cross, and the cheapest at each setting."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracereplay.report.data import Fact
from tracereplay.report.numbers import UNKNOWN, count, figure, span
from tracereplay.whatif.crossings import crossings, is_numeric, number_of
from tracereplay.whatif.ranking import with_ranks
from tracereplay.whatif.table import read_axes, read_table
from tracereplay.whatif.task import OK

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, Any]
Value = str | float | int | None

CHOICES = 12
"""Settings of the other axes that a curve is shown at."""
HEATS = 3
"""Pairs of axes that are shown as maps."""
TRACE = "trace"
"""Axis of a sweep over several traces."""
MEASURES = {
    "per_page": "cost of a page",
    "zone_lock_acquisitions": "zone lock acquisitions",
    "pcp_refills": "refills of per-CPU lists",
    "pcp_drains": "drains of per-CPU lists",
}
"""What curves show: the first that any point has."""


@dataclass(frozen=True, slots=True)
class Point:
    """One strategy at one value of an axis."""

    x: Value
    value: float | None
    """None: it failed."""
    low: float | None
    high: float | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the cheaper of two strategies changes along an axis."""

    below: str
    above: str
    at: float
    low: float | None
    """Ends of the range in which it is not settled; None: it goes on to that end of the axis."""
    high: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """Strategies along one axis, at one setting of the others."""

    setting: str
    lines: Mapping[str, tuple[Point, ...]]
    crossings: tuple[Crossing, ...]
    missing: int
    """Points that were not run."""


@dataclass(frozen=True, slots=True)
class Multiple:
    """All courses along an axis."""

    axis: str
    values: tuple[Value, ...]
    numeric: bool
    courses: tuple[Course, ...]
    first: int
    """Which of the courses to look at first: the one with most points that ran."""
    left_out: int
    """Settings of the other axes that are not shown."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The cheapest at one pair of values."""

    label: str
    value: float
    settled: bool
    """Beyond the intervals."""


@dataclass(frozen=True, slots=True)
class Heat:
    """The cheapest strategy by two axes."""

    x: str
    y: str
    xs: tuple[Value, ...]
    ys: tuple[Value, ...]
    setting: str
    cells: Mapping[tuple[Value, Value], Cell | None]
    """None: a point there failed; absent: none was run."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A table of points, ready to be written down."""

    facts: tuple[Fact, ...]
    verdict: tuple[str, ...]
    measure: str
    """Column that curves show."""
    unit: str
    labels: tuple[str, ...]
    multiples: tuple[Multiple, ...]
    heats: tuple[Heat, ...]
    failed: tuple[tuple[str, str, str], ...]
    """Label, setting and error of each point that failed."""
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """All points."""
    commands: tuple[str, ...]
    traces: tuple[str, ...]
    """Paths."""
    trace_ids: tuple[str, ...]
    generation: str | None
    provenance: tuple[Fact, ...]


def load_sweep(path: Path) -> Sweep:
    """Of a file that ``whatif`` wrote. Raises ResultsError."""
    return build_sweep(read_table(path), read_axes(path))


def build_sweep(frame: pl.DataFrame, axes: Mapping[str, Sequence[str]]) -> Sweep:
    """Report data of a table. ``axes``: their values as texts, in order."""
    names = [*([TRACE] if frame[TRACE].n_unique() > 1 else []), *axes]
    frame = with_ranks(frame, list(axes)) if len(frame) else frame
    rows = frame.to_dicts()
    ok = [row for row in rows if row["status"] == OK]
    measure = next((m for m in MEASURES if any(row.get(m) is not None for row in ok)), "per_page")
    labels = tuple(dict.fromkeys(str(row["label"]) for row in rows))
    values = {name: _values(frame, name) for name in names}
    shown = [name for name in names if len(values[name]) > 1] or names[:1]
    unit = next((str(row["unit"]) for row in ok if row.get("unit")), "")
    multiples = tuple(_multiple(frame, rows, name, values, measure, axes) for name in shown) if ok else ()
    shared = [name for name in shown if not _owner(name, labels)]
    heats = tuple(_heat(rows, x, y, values, measure) for x, y in itertools.combinations(shared, 2)) if ok else ()
    return Sweep(
        facts=_facts(rows, ok, values),
        verdict=_verdict(ok, multiples, unit) if ok and measure == "per_page" else _uncosted(ok),
        measure=measure,
        unit=unit if measure == "per_page" else "",
        labels=labels,
        multiples=multiples,
        heats=heats[:HEATS],
        failed=tuple(
            (str(r["label"]), _setting(r, names), str(r.get("error") or "")) for r in rows if r["status"] != OK
        ),
        head=("strategy", *names, "status", f"{unit}/page", "95 %", "method"),
        rows=tuple(
            (
                str(r["label"]), *(text_of(r.get(name)) for name in names), str(r["status"]), figure(r.get("per_page")),
                span(_interval(r, "per_page")), str(r["method"]),
            )
            for r in rows
        ),
        commands=_distinct(rows, "command"),
        traces=_distinct(rows, "trace"),
        trace_ids=_distinct(rows, "trace_id"),
        generation=_generation(ok),
        provenance=_provenance(rows),
    )  # fmt: skip


def text_of(value: Value) -> str:
    """A value of an axis."""
    return UNKNOWN if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def number_at(value: Value) -> float:
    """The number of a value of a numeric axis."""
    found = number_of(value)
    return 0.0 if found is None else found


def point_count(n: int) -> str:
    """``1 point``, ``12 points``."""
    return f"{count(n)} point{'' if n == 1 else 's'}"


def _owner(axis: str, labels: Sequence[str]) -> str | None:
    """The strategy whose own parameter an axis is."""
    return next((label for label in labels if axis.startswith(f"{label}.")), None)


def _values(frame: pl.DataFrame, name: str) -> tuple[Value, ...]:
    """Of an axis: numbers rise, names stay in the order of the table."""
    found = list(dict.fromkeys(v for v in frame[name].to_list() if v is not None))
    return tuple(sorted(found, key=number_at) if is_numeric(name, found) else found)


def _setting(row: Row, names: Sequence[str]) -> str:
    return ", ".join(f"{name}={text_of(row[name])}" for name in names if row.get(name) is not None)


def _interval(row: Row, measure: str) -> tuple[float, float] | None:
    low, high = row.get(f"{measure}_low95"), row.get(f"{measure}_high95")
    return None if low is None or high is None else (float(low), float(high))


def _distinct(rows: Sequence[Row], column: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(row[column]) for row in rows if row.get(column)))


# ---------------------------------------------------------------- curves
def _multiple(
    frame: pl.DataFrame,
    rows: Sequence[Row],
    axis: str,
    values: Mapping[str, tuple[Value, ...]],
    measure: str,
    axes: Mapping[str, Sequence[str]],
) -> Multiple:
    others = [name for name in values if name != axis and len(values[name]) > 1]
    groups = _groups(rows, others)
    best = sorted(groups, key=lambda key: -sum(row["status"] == OK for row in groups[key]))[:CHOICES]
    kept = [key for key in groups if key in best]
    found = crossings(frame, axis, list(axes)).to_dicts() if axis in axes and measure == "per_page" else []
    return Multiple(
        axis,
        values[axis],
        is_numeric(axis, values[axis]),
        tuple(
            _course(groups[key], axis, dict(zip(others, key, strict=True)), values[axis], measure, found)
            for key in kept
        ),
        kept.index(best[0]),
        len(groups) - len(kept),
    )


def _groups(rows: Sequence[Row], others: Sequence[str]) -> dict[tuple[Value, ...], list[Row]]:
    """Rows by their values of the other axes. A strategy without an axis is in all groups."""

    def fits(own: tuple[Value, ...], key: tuple[Value, ...]) -> bool:
        return all(value is None or value == wanted for value, wanted in zip(own, key, strict=True))

    keys = [tuple(row.get(name) for name in others) for row in rows]
    known = list(dict.fromkeys(keys))
    known = [key for key in known if not any(fits(key, other) for other in known if other != key)]
    return {key: [row for row, own in zip(rows, keys, strict=True) if fits(own, key)] for key in known}


def _course(
    rows: Sequence[Row],
    axis: str,
    setting: Mapping[str, Value],
    values: Sequence[Value],
    measure: str,
    found: Sequence[Row],
) -> Course:
    lines: dict[str, list[Point]] = {}
    for row in rows:
        value = row.get(measure) if row["status"] == OK else None
        low, high = _interval(row, measure) or (value, value)
        error = str(row.get("error") or "") if row["status"] != OK else ""
        cost = None if value is None else float(value)
        # a strategy without the axis costs the same all along it
        at = values if row.get(axis) is None else [row[axis]]
        lines.setdefault(str(row["label"]), []).extend(Point(x, cost, low, high, error) for x in at)
    mine = [
        Crossing(c["below"], c["above"], c["at"], c["low"], c["high"])
        for c in found
        if c["best"] and all(c.get(name, value) == value for name, value in setting.items())
    ]
    ordered = {label: tuple(sorted(points, key=lambda p: number_at(p.x))) for label, points in lines.items()}
    return Course(
        ", ".join(f"{name}={text_of(value)}" for name, value in setting.items() if value is not None),
        ordered,
        tuple(dict.fromkeys(mine)),
        sum(max(0, len(values) - len(points)) for points in lines.values()),
    )


def _heat(rows: Sequence[Row], x: str, y: str, values: Mapping[str, tuple[Value, ...]], measure: str) -> Heat:
    others = [name for name in values if name not in (x, y) and len(values[name]) > 1]
    keys = Counter(tuple(row.get(name) for name in others) for row in rows if row["status"] == OK)
    key = keys.most_common(1)[0][0] if keys else ()
    cells: dict[tuple[Value, Value], Cell | None] = {}
    for row in rows:
        if keys and tuple(row.get(name) for name in others) != key:
            continue
        at = row.get(x), row.get(y)
        value = row.get(measure) if row["status"] == OK else None
        before = cells.get(at)
        if value is None:
            cells.setdefault(at, None)
        elif before is None or value < before.value:
            cells[at] = Cell(str(row["label"]), float(value), bool(row.get("settled")))
    setting = ", ".join(f"{n}={text_of(v)}" for n, v in zip(others, key, strict=False) if v is not None)
    return Heat(x, y, values[x], values[y], setting, cells)


# ---------------------------------------------------------------- words
def _facts(rows: Sequence[Row], ok: Sequence[Row], values: Mapping[str, tuple[Value, ...]]) -> tuple[Fact, ...]:
    methods = Counter(str(row["method"]) for row in rows)
    failed = len(rows) - len(ok)
    lost = [row.get("lost") for row in ok]
    known = sorted({int(n) for n in lost if n is not None})
    told = UNKNOWN if not ok else "not known" if None in lost else ", ".join(map(count, known))
    pages = sorted({int(row["pages"]) for row in ok if row.get("pages") is not None})
    targeted = f"{count(pages[0])} to {count(pages[-1])}" if len(pages) > 1 else count(pages[0]) if pages else UNKNOWN
    return (
        Fact("traces", ", ".join(_distinct(rows, "trace")) or UNKNOWN, ", ".join(_distinct(rows, "kernel"))),
        Fact("points", count(len(rows)), f"{count(failed)} of them failed" if failed else "all of them ran"),
        Fact("events lost", told, "while the trace was recorded"),
        Fact("targeted", targeted, f"pages; --target {', '.join(_distinct(ok, 'target')) or UNKNOWN}"),
        *(
            Fact(name, ", ".join(map(text_of, found[:24])) + (" ..." if len(found) > 24 else ""), "varied")
            for name, found in values.items()
        ),
        *(Fact(f"method {name}", count(n), METHODS.get(name, "")) for name, n in methods.items()),
        Fact("profile", ", ".join(_distinct(rows, "profile")) or UNKNOWN),
    )


METHODS = {
    "replay": "points by a replay of the whole trace: exact counters",
    "one-pass": "points counted together in one pass: counters equal to replays, where its conditions hold",
    "sampled": "points from samples of the trace: intervals cover the sampling",
}


def _verdict(ok: Sequence[Row], multiples: Sequence[Multiple], unit: str) -> tuple[str, ...]:
    best = [row for row in ok if row.get("rank") == 1]
    if not best:
        return ("No point has a price: nothing can be compared.",)
    wins = Counter(str(row["label"]) for row in best)
    settled = Counter(str(row["label"]) for row in best if row.get("settled"))
    said = []
    if len({str(row["label"]) for row in ok}) > 1:
        for label, n in wins.most_common():
            said.append(
                f"{label} is cheapest at {count(n)} of {count(len(best))} settings, at {count(settled[label])} of them "
                "beyond the uncertainty."
            )
    low, high = min(ok, key=_price), max(ok, key=_price)
    said.append(
        f"From {figure(_price(low))} {unit} a page ({low['label']}) to {figure(_price(high))} ({high['label']})."
    )
    for multiple in multiples:
        course = multiple.courses[multiple.first]
        where = f" at {course.setting}" if course.setting else ""
        said += [f"Along {multiple.axis}{where}: {crossing_text(c)}." for c in course.crossings]
    return tuple(said)


def _price(row: Row) -> float:
    value = row.get("per_page")
    return float("inf") if value is None else float(value)


def crossing_text(c: Crossing) -> str:
    """``compound is cheaper below 47.2, bulk above (not settled from 31.0 to 63.0)``."""
    low = "the low end" if c.low is None else figure(c.low)
    high = "the high end" if c.high is None else figure(c.high)
    return f"{c.below} is cheaper below {figure(c.at)}, {c.above} above (not settled from {low} to {high})"


def _uncosted(ok: Sequence[Row]) -> tuple[str, ...]:
    if not ok:
        return ("No point of this sweep ran: there is nothing to show but the errors.",)
    return ("The points have counters and no prices.",)


def _generation(ok: Sequence[Row]) -> str | None:
    """Of the machine, where all points have one."""
    found = {json.loads(row["machine"]).get("generation") for row in ok if row.get("machine")}
    return found.pop() if len(found) == 1 else None


def _provenance(rows: Sequence[Row]) -> tuple[Fact, ...]:
    columns = {
        "traces": "trace_id", "hosts": "host", "kernels": "kernel", "profiles": "profile", "profile sha256":
        "profile_sha256", "seeds": "seed", "run by tracereplay": "version",
    }  # fmt: skip
    return tuple(Fact(name, ", ".join(found)) for name, c in columns.items() if (found := _distinct(rows, c)))
