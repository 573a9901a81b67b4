"""What lifetimes add up to, by group: percentiles, histograms, byte-seconds, frees on another CPU, reuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from tracereplay.analysis.analysis import Answer
from tracereplay.analysis.lifetime_groups import Array, Classes, Groups, Losses, Sums, all_rows, frame_of, lives_of
from tracereplay.analysis.reuse_pass import reuse_times
from tracereplay.analysis.spread import Counted, Spread, survival_median
from tracereplay.demand.lifetime import Lives
from tracereplay.demand.state import BROKEN, COMPLETE, LEFT_CENSORED, RIGHT_CENSORED, UNSEEN_LIFE
from tracereplay.kernel.constants import PAGE_SIZE

if TYPE_CHECKING:
    from tracereplay.analysis.view import View
    from tracereplay.demand.lifetime_pass import Rows

OCTAVES = 64
SHARES = (0.5, 0.9, 0.99, 0.999, 1.0)
FILTERED = "a filter is one of the allocation: frees whose allocation was not seen are left out"


def lifetime_table(view: View, by: str) -> Answer:
    """How long blocks lived: ``by blocks pages complete lifetime_p50_ns ... survival_p50_ns right_censored ...``."""
    groups = Groups(view, by)
    lives = lives_of(view, groups)
    classes, spread, ages, lost = Classes(), Spread(), Spread(), Losses(view)
    for rows in all_rows(lives):
        group = groups.of(rows)
        classes.add(group, rows)
        done, live = rows.how == COMPLETE, rows.how == RIGHT_CENSORED
        spread.add(group[done], (rows.t_free - rows.t_alloc)[done])
        lost.add(rows.t_alloc[done], rows.t_free[done])
        ages.add(group[live], lives.end_ns - rows.t_alloc[live])
    numbers, labels = groups.merged()
    n = len(labels)
    blocks, pages = classes.merged(numbers, n)
    ended = _merged(spread, numbers)
    ranks = spread.percentiles(numbers, n, SHARES)
    median = survival_median(ended, _merged(ages, numbers), n)
    columns = {
        "blocks": blocks.sum(axis=1),
        "pages": pages.sum(axis=1),
        "complete": blocks[:, COMPLETE],
        "lifetime_p50_ns": _known(ranks[:, 0]),
        "lifetime_p90_ns": _known(ranks[:, 1]),
        "lifetime_p99_ns": _known(ranks[:, 2]),
        "lifetime_p999_ns": _known(ranks[:, 3]),
        "lifetime_max_ns": _known(ranks[:, 4]),
        "survival_p50_ns": _known(median),
        "right_censored": blocks[:, RIGHT_CENSORED],
        "age_p50_ns": _known(ages.percentiles(numbers, n, (0.5,))[:, 0]),
        "left_censored": blocks[:, LEFT_CENSORED],
        "broken": blocks[:, BROKEN],
        "unseen": blocks[:, UNSEEN_LIFE],
    }
    frame = frame_of(labels, columns, columns["blocks"] > 0, "blocks")
    account = classes.account | lost.account
    if malformed := lives.counts["malformed"]:
        account["malformed"] = malformed
    return Answer(frame, spread.method, account, _notes(view, by_time=True))


def histogram_table(view: View, by: str, of: str) -> Answer:
    """Blocks by powers of two of their lifetime, or of their age: ``by low_ns high_ns blocks pages share``."""
    groups = Groups(view, by)
    lives = lives_of(view, groups)
    classes, sums = Classes(), Sums(2)
    wanted = COMPLETE if of == "complete" else RIGHT_CENSORED
    for rows in all_rows(lives):
        group = groups.of(rows)
        classes.add(group, rows)
        mine = rows.how == wanted
        lived = np.where(rows.t_free < 0, lives.end_ns, rows.t_free)[mine] - rows.t_alloc[mine]
        octave = np.maximum((lived.astype(np.float64).view(np.int64) >> 52) - 1023, 0)
        sums.add(group[mine] * OCTAVES + octave, None, 1 << rows.order[mine].astype(np.int64))
    numbers, labels = groups.merged()
    cells = (numbers[:, None] * OCTAVES + np.arange(OCTAVES)).ravel()
    both = sums.merged(cells, len(labels) * OCTAVES).T.reshape(2, len(labels), OCTAVES)
    at, octave = np.nonzero(both[0])
    found = {
        "low_ns": np.where(octave == 0, 0, np.int64(1) << octave),
        "high_ns": np.int64(2) << octave,
        "blocks": both[0, at, octave],
        "pages": both[1, at, octave],
        "share": both[0, at, octave] / both[0].sum(axis=1)[at],
    }
    frame = pl.DataFrame({"by": [labels[g] for g in at.tolist()], **found}, schema_overrides={"by": pl.String})
    frame = frame.sort("by", "low_ns")
    return Answer(frame, "exact counts in powers of two", classes.account, _notes(view, by_time=True))


def byte_seconds_table(view: View, by: str) -> Answer:
    """What was held for how long within the time looked at: ``by byte_seconds share mean_bytes blocks pages``."""
    groups = Groups(view, by)
    lives = lives_of(view, groups, by_time=False)
    classes, held = Classes(), Sums(1, np.float64)
    begin, end = max(view.start_ns, lives.start_ns), min(view.end_ns, lives.end_ns + 1)
    for rows in all_rows(lives):
        group, page_ns = groups.of(rows), page_times(rows, begin, end)
        within = page_ns > 0
        classes.add(group[within], _chosen(rows, within))
        held.add(group, page_ns)
    numbers, labels = groups.merged()
    sums = held.merged(numbers, len(labels))[:, 0] * (PAGE_SIZE / 1e9)
    blocks, pages = classes.merged(numbers, len(labels))
    columns = {
        "byte_seconds": np.rint(sums).astype(np.int64),
        "share": sums / max(sums.sum(), 1e-300),
        "mean_bytes": np.rint(sums / max((end - begin) / 1e9, 1e-9)).astype(np.int64),
        "blocks": blocks.sum(axis=1),
        "pages": pages.sum(axis=1),
    }
    frame = frame_of(labels, columns, sums > 0, "byte_seconds")
    method = "exact; a broken lifetime counts until its frame was given out again, an unseen one not at all"
    return Answer(frame, method, classes.account, _notes(view, by_time=False))


def page_times(rows: Rows, begin: int, end: int) -> Array:
    """Pages times ns within a stretch of time, by lifetime (float64); what was not seen to begin began before it.

    Zero where the allocation happened unseen, at an unknown time.
    """
    known = (rows.t_alloc >= 0) | (rows.how == LEFT_CENSORED)
    first = np.maximum(rows.t_alloc, begin)
    last = np.minimum(np.where(rows.t_free < 0, end, rows.t_free), end)
    pages = np.ldexp(1.0, rows.order.astype(np.int32))
    return np.where(known, np.maximum(last - first, 0) * pages, 0.0)


def remote_table(view: View, by: str) -> Answer:
    """Blocks freed on another CPU than the one that allocated them: ``by blocks remote remote_share pages ...``."""
    groups = Groups(view, by)
    counts, classes = Sums(4), Classes()
    for rows in all_rows(lives_of(view, groups)):
        group = groups.of(rows)
        classes.add(group, rows)
        done = rows.how == COMPLETE
        away = done & (rows.alloc_cpu != rows.free_cpu)
        pages = 1 << rows.order.astype(np.int64)
        counts.add(group, done, away, done * pages, away * pages)
    numbers, labels = groups.merged()
    sums = counts.merged(numbers, len(labels))
    columns = {
        "blocks": sums[:, 0],
        "remote": sums[:, 1],
        "remote_share": sums[:, 1] / np.maximum(sums[:, 0], 1),
        "pages": sums[:, 2],
        "remote_pages": sums[:, 3],
        "remote_page_share": sums[:, 3] / np.maximum(sums[:, 2], 1),
    }
    frame = frame_of(labels, columns, sums[:, 0] > 0, "remote_pages")
    return Answer(frame, "exact, of complete lifetimes", classes.account, _notes(view, by_time=True))


def remote_matrix(view: View) -> Answer:
    """Which CPU allocated and which freed: ``alloc_cpu free_cpu blocks pages share``."""
    lives = lives_of(view, None)
    cpus = 1 + (view.trace.bounds("page_events", "cpu") or (0, 0))[1]
    counts, classes = Sums(2), Classes()
    for rows in all_rows(lives):
        classes.add(np.zeros(len(rows.how), np.int64), rows)
        done = rows.how == COMPLETE
        cell = rows.alloc_cpu[done].astype(np.int64) * cpus + rows.free_cpu[done]
        counts.add(cell, None, 1 << rows.order[done].astype(np.int64))
    found = counts.merged(np.arange(cpus * cpus), cpus * cpus)
    at = np.flatnonzero(found[:, 0])
    blocks, pages = found[at].T
    frame = pl.DataFrame(
        {
            "alloc_cpu": at // cpus,
            "free_cpu": at % cpus,
            "blocks": blocks,
            "pages": pages,
            "share": pages / max(int(pages.sum()), 1),
        }
    )
    return Answer(frame, "exact, of complete lifetimes", classes.account, _notes(view, by_time=True))


def reuse_table(view: View, by: str) -> Answer:
    """How long frames lay free before this group took them: ``by allocations reused idle_p50_ns ...``."""
    groups = Groups(view, by)
    lives = Lives(view.trace, groups)  # all of them: a frame's last owner may be one that the filters leave out
    spread, classes, count = Spread(), Classes(), Sums(1)
    last = np.zeros(len(lives.table.frames), np.int64)
    for rows in all_rows(lives):
        idle = np.empty(len(rows.how), np.int64)
        reuse_times(rows.pfn, rows.order, rows.t_alloc, rows.t_free, rows.how, last, idle)
        wanted = selected(view, rows)
        group = groups.of(rows)[wanted]
        classes.add(group, _chosen(rows, wanted))
        idle = idle[wanted]
        group, idle = group[idle >= 0], idle[idle >= 0]
        spread.add(group, idle)
        count.add(group, None)
    numbers, labels = groups.merged()
    n = len(labels)
    ranks = spread.percentiles(numbers, n, SHARES)
    reused = count.merged(numbers, n)[:, 0]
    total = classes.merged(numbers, n)[0][:, [COMPLETE, RIGHT_CENSORED, BROKEN]].sum(axis=1)
    columns = {
        "allocations": total,
        "reused": reused,
        "reused_share": reused / np.maximum(total, 1),
        **{f"idle_{name}_ns": _known(ranks[:, k]) for k, name in enumerate(("p50", "p90", "p99", "p999", "max"))},
    }
    frame = frame_of(labels, columns, reused > 0, "reused")
    return Answer(frame, spread.method, classes.account, _notes(view, by_time=True))


def selected(view: View, rows: Rows) -> Array:
    """Which lifetimes' allocations the filters keep."""
    if not view.selection.used:
        return np.ones(len(rows.how), np.bool_)
    seen = rows.t_alloc >= 0
    names = {"ts_ns": rows.t_alloc, "pid": rows.pid, "cpu": rows.alloc_cpu, "order": rows.order}
    mask = view.mask(pa.RecordBatch.from_pydict({name: pa.array(column) for name, column in names.items()}))
    within: Array = seen & (rows.t_alloc >= view.start_ns) & (rows.t_alloc < view.end_ns)
    return within if mask is None else within & mask


def _merged(spread: Spread, numbers: Array) -> Counted:
    group, value, count = spread.counts()
    return numbers[group], value, count


def _known(values: Array) -> pl.Series:
    """Values of which -1 means none."""
    return pl.Series(values).replace(-1, None)


def _chosen(rows: Rows, which: Array) -> Rows:
    return type(rows)._make(column[which] for column in rows)


def _notes(view: View, *, by_time: bool) -> tuple[str, ...]:
    used = set(view.selection.used) - (set() if by_time else {"time"})
    return (FILTERED,) if used else ()
