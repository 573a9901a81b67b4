"""What is live over time, and who held memory when most was: two passes, the second one up to that moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from tracereplay.analysis.analysis import Answer
from tracereplay.analysis.lifetime_groups import Array, Groups, Sums, frame_of, lives_of
from tracereplay.analysis.spread import ranked
from tracereplay.demand.lifetime_pass import S_EVENT, S_LEFT, S_LEVEL, S_MOST, S_MOST_EVENT, S_MOST_NS
from tracereplay.kernel.constants import PAGE_SIZE

if TYPE_CHECKING:
    from tracereplay.analysis.view import View
    from tracereplay.demand.lifetime_pass import Rows

BEFORE = "(live when the trace began)"
METHOD = "exact; a broken lifetime counts until its frame was given out again, an unseen one not at all"
OTHERS = "(others)"


class Course(NamedTuple):
    """Levels at the ends of stretches of time."""

    edges: Array
    """Ends of the stretches, trace clock, ns; the first is the beginning of what is looked at."""
    total: Array
    """Pages live at each edge."""
    most: Array
    """Most pages live within the stretch that ends there; of the first edge, those live then."""
    groups: Array
    """[edges, merged groups]: pages; group 0 is what was live before the trace and freed in it."""
    labels: list[str]
    peak: tuple[int, int, int]
    """Most pages live, when first (ns), and after how many events."""
    before: int
    """Pages that were live when the trace began and were freed in it."""


Each = Callable[[Array, "Rows"], None]
"""Gets lifetimes with their groups."""


def follow(view: View, groups: Groups, bins: int, *, ended: Each | None = None, live: Each | None = None) -> Course:
    """The live set over the time looked at, all events followed from the beginning of the trace.

    ``ended`` gets every lifetime that ends, ``live`` the blocks that are live when the time looked at ends.
    """
    lives = lives_of(view, groups, rows=ended is not None, by_time=False, levels=True)
    edges = np.unique(np.linspace(view.start_ns, min(view.end_ns, lives.end_ns + 1), bins + 1).astype(np.int64))
    scalar = lives.table.scalar
    levels: list[Array] = []
    sums: list[tuple[int, int, int]] = []  # live, most since the last edge, freed of what was live before
    peak = [0, 0, 0]

    def at_edge(k: int) -> None:
        if k == 0:
            scalar[S_MOST] = scalar[S_LEVEL]
            peak[:] = int(scalar[S_LEVEL]), int(edges[0]), int(scalar[S_EVENT])
        elif scalar[S_MOST] > peak[0]:
            peak[:] = (int(scalar[s]) for s in (S_MOST, S_MOST_NS, S_MOST_EVENT))
        sums.append((int(scalar[S_LEVEL]), int(scalar[S_MOST]), int(scalar[S_LEFT])))
        levels.append(lives.table.level[: groups.tags].copy())
        scalar[S_MOST] = scalar[S_LEVEL]  # from here the next stretch counts
        if live is not None and k == len(edges) - 1:
            for rows in lives.live():
                live(groups.of(rows), rows)

    for rows in lives.ended(edges.tolist(), at_edge):
        if ended is not None:
            ended(groups.of(rows), rows)
    before = int(scalar[S_LEFT])
    numbers, labels = groups.merged()
    table = np.zeros((len(edges), len(labels)), np.int64)
    for k, level in enumerate(levels):
        np.add.at(table[k], numbers[1 : 1 + len(level)], level)
        table[k, 0] = before - sums[k][2]
    total, most, _ = np.array(sums, np.int64).T + before
    return Course(edges, total, most, table, [BEFORE, *labels[1:]], (peak[0] + before, peak[1], peak[2]), before)


def live_table(view: View, by: str, bins: int, series: int) -> Answer:
    """Live pages over time: ``t_ns by pages bytes most_pages``; ``most_pages`` of the sum only."""
    course = follow(view, Groups(view, by), bins)
    t = course.edges - view.origin_ns
    if by == "none":
        frame = pl.DataFrame(
            {
                "t_ns": t,
                "by": ["all"] * len(t),
                "pages": course.total,
                "bytes": course.total * PAGE_SIZE,
                "most_pages": course.most,
            }
        )
        return Answer(frame, METHOD, {}, _notes(view, course))
    shown = np.argsort(-course.groups.max(axis=0), kind="stable")
    shown = shown[course.groups.max(axis=0)[shown] > 0]
    rest = course.groups[:, shown[series:]].sum(axis=1)
    parts = [(course.labels[g], course.groups[:, g]) for g in shown[:series].tolist()]
    if len(shown) > series:
        parts.append((OTHERS, rest))
    frames = [
        pl.DataFrame({"t_ns": t, "by": [label] * len(t), "pages": pages, "bytes": pages * PAGE_SIZE})
        for label, pages in parts
    ]
    schema = {"t_ns": pl.Int64, "by": pl.String, "pages": pl.Int64, "bytes": pl.Int64}
    return Answer(pl.concat(frames) if frames else pl.DataFrame(schema=schema), METHOD, {}, _notes(view, course))


def peak_table(view: View, by: str) -> Answer:
    """Who held memory when most was live: ``by pages bytes share blocks age_p50_ns age_max_ns``."""
    course = follow(view, Groups(view, "none"), 1)
    most, at, events = course.peak
    groups = Groups(view, by)
    lives = lives_of(view, groups, rows=False, by_time=False)
    for _ in lives.ended(events=events):
        pass
    sums = Sums(2)
    ages: list[tuple[Array, Array, Array]] = []
    for rows in lives.live():
        group, pages = groups.of(rows), 1 << rows.order.astype(np.int64)
        sums.add(group, None, pages)
        ages.append((group, at - rows.t_alloc, pages))
    numbers, labels = groups.merged()
    n = len(labels)
    found = sums.merged(numbers, n)
    left = int(lives.table.scalar[S_LEFT])
    found[0] += (0, course.before - left)
    group, age, weight = (np.concatenate([a[k] for a in ages] or [np.zeros(0, np.int64)]) for k in range(3))
    ranks = ranked(numbers[group], age, weight, n, (0.5, 1.0))
    columns: dict[str, Any] = {
        "pages": found[:, 1],
        "bytes": found[:, 1] * PAGE_SIZE,
        "share": found[:, 1] / max(most, 1),
        "blocks": found[:, 0],
        "age_p50_ns": pl.Series(ranks[:, 0]).replace(-1, None),
        "age_max_ns": pl.Series(ranks[:, 1]).replace(-1, None),
    }
    frame = frame_of([BEFORE, *labels[1:]], columns, found[:, 1] > 0, "pages")
    return Answer(frame, f"{METHOD}; ages by page, nearest rank, exact", {"peak_pages": most}, _notes(view, course))


def _notes(view: View, course: Course) -> tuple[str, ...]:
    most, at, _ = course.peak
    notes = [
        f"most was live {(at - view.origin_ns) / 1e9:.6f} s after the first event: {most:,} pages "
        f"({most * PAGE_SIZE / (1 << 20):,.1f} MiB)"
    ]
    if set(view.selection.used) - {"time"}:
        notes.append("what was live before the trace is not counted: nobody knows whose it is")
        return tuple(notes)
    used = pages_in_use(view)
    if used is None:
        notes.append(
            f"{course.before:,} of these were live when the trace began and were freed in it; what outlived the "
            "trace is not counted (a page map would tell how much: capture it with BCC as root)"
        )
    else:
        notes.append(
            f"{course.before:,} pages that were live when the trace began were freed in it; {used - course.before:,} "
            "more were in use then by the page map and are not counted"
        )
    return tuple(notes)


def pages_in_use(view: View) -> int | None:
    """Pages in use when the trace began, by its page map; None without one. Reserved ones do not count."""
    from tracereplay.trace.pagemap import pages_by_kind

    kinds = pages_by_kind(view.trace) if view.trace.rows("page_map") else {}
    return sum(n for kind, n in kinds.items() if kind not in ("buddy", "reserved")) if kinds else None
