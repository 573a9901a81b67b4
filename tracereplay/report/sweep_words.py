"""The words of a sweep's report: what was run, what is cheapest where, where it all comes from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracereplay.report.data import Fact
from tracereplay.report.numbers import UNKNOWN, count, figure

if TYPE_CHECKING:
    from tracereplay.report.sweep import Crossing, Multiple, Value

Row = Mapping[str, Any]


def text_of(value: Value) -> str:
    """A value of an axis."""
    return UNKNOWN if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def point_count(n: int) -> str:
    """``1 point``, ``12 points``."""
    return f"{count(n)} point{'' if n == 1 else 's'}"


def distinct(rows: Sequence[Row], column: str) -> tuple[str, ...]:
    """Texts of a column, each once, without those that are not known."""
    return tuple(dict.fromkeys(str(row[column]) for row in rows if row.get(column)))


def facts_of(rows: Sequence[Row], ok: Sequence[Row], values: Mapping[str, tuple[Value, ...]]) -> tuple[Fact, ...]:
    """What was run, and what it rests on."""
    methods = Counter(str(row["method"]) for row in rows)
    failed = len(rows) - len(ok)
    lost = [row.get("lost") for row in ok]
    known = sorted({int(n) for n in lost if n is not None})
    told = UNKNOWN if not ok else "not known" if None in lost else ", ".join(map(count, known))
    pages = sorted({int(row["pages"]) for row in ok if row.get("pages") is not None})
    targeted = f"{count(pages[0])} to {count(pages[-1])}" if len(pages) > 1 else count(pages[0]) if pages else UNKNOWN
    return (
        Fact("traces", ", ".join(distinct(rows, "trace")) or UNKNOWN, ", ".join(distinct(rows, "kernel"))),
        Fact("points", count(len(rows)), f"{count(failed)} of them failed" if failed else "all of them ran"),
        Fact("events lost", told, "while the trace was recorded"),
        Fact("targeted", targeted, f"pages; --target {', '.join(distinct(ok, 'target')) or UNKNOWN}"),
        *(
            Fact(name, ", ".join(map(text_of, found[:24])) + (" ..." if len(found) > 24 else ""), "varied")
            for name, found in values.items()
        ),
        *(Fact(f"method {name}", count(n), METHODS.get(name, "")) for name, n in methods.items()),
        Fact("profile", ", ".join(distinct(rows, "profile")) or UNKNOWN),
    )


METHODS = {
    "replay": "points by a replay of the whole trace: exact counters",
    "one-pass": "points counted together in one pass: counters equal to replays, where its conditions hold",
    "sampled": "points from samples of the trace: intervals cover the sampling",
}


def verdict_of(ok: Sequence[Row], multiples: Sequence[Multiple], unit: str) -> tuple[str, ...]:
    """Which strategy is cheapest at how many settings, and where that changes."""
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
    cheapest = f"{figure(_price(low))} {unit} a page"
    if low is high or (low["label"], _price(low)) == (high["label"], _price(high)):
        said.append(f"{low['label']} costs {cheapest}.")
    else:
        said.append(f"From {cheapest} ({low['label']}) to {figure(_price(high))} ({high['label']}).")
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


def uncosted(ok: Sequence[Row]) -> tuple[str, ...]:
    """In place of a verdict."""
    if not ok:
        return ("No point of this sweep ran: there is nothing to show but the errors.",)
    return ("The points have counters and no prices.",)


def generations_of(ok: Sequence[Row]) -> tuple[str, ...]:
    """Of the machines, in the order of the points."""
    machines = dict.fromkeys(str(row["machine"]) for row in ok if row.get("machine"))
    return tuple(dict.fromkeys(str(json.loads(text).get("generation")) for text in machines))


def provenance_of(rows: Sequence[Row]) -> tuple[Fact, ...]:
    """Traces, hosts, profiles, seeds, versions."""
    columns = {
        "traces": "trace_id", "hosts": "host", "kernels": "kernel", "profiles": "profile", "profile sha256":
        "profile_sha256", "seeds": "seed", "run by tracereplay": "version",
    }  # fmt: skip
    return tuple(Fact(name, ", ".join(found)) for name, c in columns.items() if (found := distinct(rows, c)))
