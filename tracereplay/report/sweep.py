"""What a report says about a sweep, as plain data: its curves, where they cross, and the cheapest at each setting."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracereplay.report.data import Fact
from tracereplay.report.numbers import figure, span
from tracereplay.report.sweep_words import (
    distinct,
    facts_of,
    generations_of,
    provenance_of,
    text_of,
    uncosted,
    verdict_of,
)
from tracereplay.trace.fleet import WHOLE
from tracereplay.trace.store import Place, name_of
from tracereplay.whatif.crossings import crossings, is_numeric, number_of
from tracereplay.whatif.ranking import with_ranks
from tracereplay.whatif.table import read_axes, read_table
from tracereplay.whatif.task import OK

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, Any]
Value = str | float | int | None

CHOICES = 12
"""Settings of the other axes that a curve is shown at: one, and those that differ from it in one axis."""
MOST_VALUES = 40
"""Values of an axis of a map: of longer ones as many are shown, evenly spaced."""
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

    name: str
    """The setting, as far as it differs from the first to look at."""
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
    thinned: bool = False
    """An axis has more values than are shown."""


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
    generations: tuple[str, ...]
    """Of the machines, in the order of the points."""
    provenance: tuple[Fact, ...]


def load_sweep(path: Place) -> Sweep:
    """Of a file that ``whatif`` wrote. Raises ResultsError."""
    return build_sweep(read_table(path), read_axes(path))


def build_sweep(frame: pl.DataFrame, axes: Mapping[str, Sequence[str]]) -> Sweep:
    """Report data of a table. ``axes``: their values as texts, in order."""
    paths = tuple(path for path in distinct(frame.to_dicts(), "trace") if path != WHOLE)
    names = [*([TRACE] if frame[TRACE].n_unique() > 1 else []), *axes]
    frame = _short_names(with_ranks(frame, list(axes)) if len(frame) else frame)
    rows = frame.to_dicts()
    ok = [row for row in rows if row["status"] == OK]
    # rows of all traces together are shown, and not counted again
    each = [row for row in rows if row["trace"] != WHOLE]
    done = [row for row in each if row["status"] == OK]
    measure = next((m for m in MEASURES if any(row.get(m) is not None for row in ok)), "per_page")
    labels = tuple(dict.fromkeys(str(row["label"]) for row in rows))
    values = {name: _values(frame, name) for name in names}
    shown = [name for name in names if len(values[name]) > 1] or names[:1]
    unit = next((str(row["unit"]) for row in ok if row.get("unit")), "")
    multiples = tuple(_multiple(frame, rows, name, values, measure, axes) for name in shown) if ok else ()
    shared = [name for name in shown if not _owner(name, labels)]
    heats = tuple(_heat(rows, x, y, values, measure) for x, y in itertools.combinations(shared, 2)) if ok else ()
    return Sweep(
        facts=facts_of(each, done, values),
        verdict=verdict_of(done, multiples, unit) if ok and measure == "per_page" else uncosted(ok),
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
        commands=distinct(each, "command"),
        traces=paths,
        trace_ids=distinct(each, "trace_id"),
        generations=generations_of(ok),
        provenance=provenance_of(each),
    )  # fmt: skip


def _short_names(frame: pl.DataFrame) -> pl.DataFrame:
    """Traces by the last part of their paths, where that tells them apart."""
    import polars as pl

    short = {path: name_of(path) for path in frame[TRACE].unique().to_list()}
    if len(set(short.values())) < len(short):
        return frame
    return frame.with_columns(pl.col(TRACE).replace(short))


def number_at(value: Value) -> float:
    """The number of a value of a numeric axis."""
    found = number_of(value)
    return 0.0 if found is None else found


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
    first = min(groups, key=lambda key: -sum(row["status"] == OK for row in groups[key]))
    near = [key for key in groups if sum(a != b for a, b in zip(key, first, strict=True)) <= 1]
    kept = [first, *(key for key in near if key != first)][:CHOICES]
    kept = [key for key in near if key in kept]
    found = crossings(frame, axis, list(axes)).to_dicts() if axis in axes and measure == "per_page" else []
    courses = []
    for key in kept:
        setting = dict(zip(others, key, strict=True))
        apart = [name for name, a, b in zip(others, key, first, strict=True) if a != b]
        name = _setting(setting, apart or others)
        courses.append(_course(groups[key], axis, setting, name, values[axis], measure, found))
    return Multiple(
        axis, values[axis], is_numeric(axis, values[axis]), tuple(courses), kept.index(first), len(groups) - len(kept)
    )


def _groups(rows: Sequence[Row], others: Sequence[str]) -> dict[tuple[Value, ...], list[Row]]:
    """Rows by their values of the other axes. A strategy without an axis is in all groups."""

    def fits(own: tuple[Value, ...], key: tuple[Value, ...]) -> bool:
        return all(value is None or value == wanted for value, wanted in zip(own, key, strict=True))

    by_key: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        by_key.setdefault(tuple(row.get(name) for name in others), []).append(row)
    partial = {key for key in by_key if None in key}
    full = [
        key for key in by_key if key not in partial or not any(fits(key, other) for other in by_key if other != key)
    ]
    return {
        key: [*by_key[key], *(row for own in partial if own != key and fits(own, key) for row in by_key[own])]
        for key in full
    }


def _course(
    rows: Sequence[Row],
    axis: str,
    setting: Mapping[str, Value],
    name: str,
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
    ids = {row.get("trace_id") for row in rows}
    mine = [
        Crossing(c["below"], c["above"], c["at"], c["low"], c["high"])
        for c in found
        if c["best"] and c["trace_id"] in ids and all(c.get(name, value) == value for name, value in setting.items())
    ]
    ordered = {label: tuple(sorted(points, key=lambda p: number_at(p.x))) for label, points in lines.items()}
    return Course(
        name,
        ", ".join(f"{name}={text_of(value)}" for name, value in setting.items() if value is not None),
        ordered,
        tuple(dict.fromkeys(mine)),
        sum(max(0, len(values) - len(points)) for points in lines.values()),
    )


def _heat(rows: Sequence[Row], x: str, y: str, values: Mapping[str, tuple[Value, ...]], measure: str) -> Heat:
    labels = list(dict.fromkeys(str(row["label"]) for row in rows))
    # of a strategy's own parameters its best
    others = [name for name in values if name not in (x, y) and len(values[name]) > 1 and not _owner(name, labels)]
    keys = Counter(tuple(row.get(name) for name in others) for row in rows if row["status"] == OK)
    key = keys.most_common(1)[0][0] if keys else ()
    xs, ys = _thinned(values[x]), _thinned(values[y])
    cells: dict[tuple[Value, Value], Cell | None] = {}
    for row in rows:
        if row.get(x) not in xs or row.get(y) not in ys:
            continue
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
    return Heat(x, y, xs, ys, setting, cells, len(xs) + len(ys) < len(values[x]) + len(values[y]))


def _thinned(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """MOST_VALUES of them, both ends among them."""
    if len(values) <= MOST_VALUES:
        return values
    last = len(values) - 1
    return tuple(values[round(k * last / (MOST_VALUES - 1))] for k in range(MOST_VALUES))
