"""Tracks of a timeline: pages, stalls, losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tracereplay.export.perfetto import BINS, LOST, PAGES, Events, Timeline, arguments, text

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

MOST_INSTANTS = 1_000_000
"""Page events that are drawn one by one; a viewer does not hold many more."""
RARE = ("alloc_failed", "extfrag")
"""Kinds that are drawn in any case."""
_LOST_PLACE, _PAGES_PLACE = 0, 1


# ------------------------------------------------------------ pages
def write_pages(view: View, events: Events, done: Timeline) -> None:
    """Counters of pages held and of pages a second, and an instant for each event."""
    frame = view.events("page_events").with_columns(pl.col("kind").cast(pl.String))
    counts = dict(frame.group_by("kind").len().collect(engine="streaming").rows())
    if not counts:
        return
    events.name_process(PAGES, "pages", _PAGES_PLACE)
    done.counts["counter values of pages"] = events.write(_counters(view, frame, events))
    total = sum(counts.values())
    if total > MOST_INSTANTS:
        frame = frame.filter(pl.col("kind").is_in(RARE))
        done.notes.append(
            f"{total:,} page events are more than a viewer draws: they are counters only, but for "
            f"{', '.join(RARE)}; --time or another filter narrows them down to {MOST_INSTANTS:,}"
        )
    cpus = frame.select(pl.col("cpu").unique().sort()).collect(engine="streaming")["cpu"].to_list()
    for cpu in cpus:
        events.name_thread(PAGES, cpu, f"CPU {cpu}")
    done.counts["page events"] = events.write(_instants(view, frame, events))


def _counters(view: View, frame: pl.LazyFrame, events: Events) -> Iterator[str]:
    width = max(1, (view.end_ns - view.start_ns) // BINS)
    size = 2 ** pl.col("order").fill_null(0).cast(pl.Int64)
    gained = pl.when(pl.col("kind") == "alloc").then(size).when(pl.col("kind") == "bulk").then("returned").otherwise(0)
    rows = (
        frame.group_by(((pl.col("ts_ns") - view.start_ns) // width).alias("bin"))
        .agg(
            gained.cast(pl.Int64).sum().alias("allocated"),
            pl.when(pl.col("kind") == "free").then(size).otherwise(0).cast(pl.Int64).sum().alias("freed"),
        )
        .sort("bin")
        .collect(engine="streaming")
    )
    held = 0
    for at, allocated, freed in rows.rows():
        held += allocated - freed
        start = events.us(view.start_ns + at * width)
        end = events.us(view.start_ns + (at + 1) * width)
        per_s = 1e9 / width
        yield (
            f'{{"ph":"C","name":"pages per second","pid":{PAGES},"tid":0,"ts":{start},'
            f'"args":{{"allocated":{round(allocated * per_s)},"freed":{round(freed * per_s)}}}}}'
        )
        yield (
            f'{{"ph":"C","name":"pages allocated less freed","pid":{PAGES},"tid":0,"ts":{end},'
            f'"args":{{"pages":{held}}}}}'
        )


def _instants(view: View, frame: pl.LazyFrame, events: Events) -> Iterator[str]:
    callers = dict(view.callers().select("stack_id", "caller").rows())
    wanted = ("ts_ns", "cpu", "kind", "pfn", "order", "pid", "comm", "stack_id")
    pieces = view.with_task(frame).select(wanted).collect_batches(engine="streaming", maintain_order=True)
    for piece in pieces:
        for ts, cpu, kind, pfn, order, pid, comm, stack in piece.iter_rows():
            args = {"pfn": pfn, "order": order, "pid": pid, "comm": comm, "caller": callers.get(stack)}
            yield (
                f'{{"ph":"i","s":"t","name":{text(kind)},"cat":"page","pid":{PAGES},"tid":{cpu},'
                f'"ts":{events.us(ts)},"args":{arguments(args)}}}'
            )


# ------------------------------------------------------------ stalls
def write_stalls(view: View, events: Events, done: Timeline) -> None:
    """A slice for each wait in direct reclaim or compaction, on the track of its task."""
    from tracereplay.analysis.stall_times import Unpaired, pairs

    if not view.trace.rows("mm_events"):
        return
    unpaired = Unpaired()
    tasks, chosen = view.task_index, view.selection
    names = tasks.frame.select("tgid", "comm").rows()
    kept = tasks.matching(chosen.comm, chosen.cgroup)
    named: set[int] = set()

    def slices() -> Iterator[str]:
        for stall in pairs(view, unpaired):
            pid = stall.pid or 0
            row = int(tasks.rows(np.array([pid]), np.array([stall.begin_ns]))[0])
            others = ((chosen.pid, pid), (chosen.cpu, stall.cpu), (chosen.order, stall.order))
            if not kept[row] or any(values and value not in values for values, value in others):
                continue
            tgid, comm = names[row] if row >= 0 else (None, None)
            if pid not in named:
                named.add(pid)
                events.name_thread(tgid or pid, pid, comm or f"task {pid}")
            args = {"order": stall.order, "reclaimed_pages": stall.reclaimed or None, "cpu": stall.cpu}
            length = stall.end_ns - stall.begin_ns
            yield (
                f'{{"ph":"X","name":{text(stall.what)},"cat":"mm","pid":{tgid or pid},"tid":{pid},'
                f'"ts":{events.us(stall.begin_ns)},"dur":{length // 1000}.{length % 1000:03},"args":{arguments(args)}}}'
            )

    done.counts["stalls"] = events.write(slices())
    if unpaired.left_censored or unpaired.right_censored:
        cut = unpaired.left_censored + unpaired.right_censored
        done.notes.append(f"{cut:,} stalls of which one end is not in the trace are left out")


# ------------------------------------------------------------ losses
def write_losses(view: View, events: Events, done: Timeline) -> None:
    """A slice for each interval in which events were lost."""
    rows = view.trace.loss.filter(pl.col("n").fill_null(1) > 0).collect().rows(named=True)
    first, last = view.origin_ns, view.last_ns

    def slices() -> Iterator[str]:
        for number, row in enumerate(rows):
            start = first if row["t0_ns"] is None else row["t0_ns"]
            end = last if row["t1_ns"] is None else row["t1_ns"]
            n = "some" if row["n"] is None else f"{row['n']:,}"
            name = text(f"{n} lost: {row['table']} ({row['class']})")
            shared = f'"cat":"loss","id":"{number:#x}","pid":{LOST},"tid":{row["cpu"] or 0}'
            args = arguments({"cpu": row["cpu"], "n": row["n"]})
            yield f'{{"ph":"b","name":{name},{shared},"ts":{events.us(start)},"args":{args}}}'
            yield f'{{"ph":"e","name":{name},{shared},"ts":{events.us(max(start, end))}}}'

    if rows:
        events.name_process(LOST, "events lost", _LOST_PLACE)
        done.counts["intervals of lost events"] = events.write(slices()) // 2
