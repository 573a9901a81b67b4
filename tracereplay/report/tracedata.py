"""What a report says about a trace: totals, rates over time, orders, tasks, sizes of bios."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from tracereplay.report.data import Chart, Fact, Line
from tracereplay.report.numbers import UNKNOWN, count, figure, in_intervals, seconds, share
from tracereplay.report.sources import Sources, sources_of
from tracereplay.trace.completeness import completeness
from tracereplay.trace.reader import Trace
from tracereplay.trace.summary import TraceSummary, summarize

BINS = 100
TOP_TASKS = 12

RATES = {
    "pages allocated": ("page_events", "alloc"),
    "pages freed": ("page_events", "free"),
    "bios queued": ("bio_events", "queue"),
    "requests completed": ("bio_events", "complete"),
}
"""Lines of the charts: name -> table and kind. Page lines count pages, the others events."""


@dataclass(frozen=True, slots=True)
class OrderShare:
    """Allocations of one order."""

    order: int
    blocks: int
    pages: int


@dataclass(frozen=True, slots=True)
class TaskShare:
    """Pages that one command name allocated, and how many of its threads did."""

    comm: str
    tasks: int
    pages: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Time in which events were lost, from the first event of the trace on."""

    begin_s: float
    end_s: float
    events: int | None
    """None: the source does not say how many."""
    where: str
    """Which CPUs or streams."""


@dataclass(frozen=True, slots=True)
class TraceData:
    """A trace, ready to be written down."""

    facts: tuple[Fact, ...]
    kinds: tuple[Fact, ...]
    charts: tuple[Chart, ...]
    orders: tuple[OrderShare, ...]
    tasks: tuple[TaskShare, ...]
    allocated_pages: int
    notes: tuple[str, ...]
    losses: tuple[Loss, ...] | None
    """Those near each other are told as one; None: the table is damaged."""
    sources: Sources


def build_trace_data(trace: Trace) -> TraceData:
    """Report data of a trace. Tables and events that it does not hold leave their part empty."""
    summary = summarize(trace)
    complete = completeness(trace)
    orders = _orders(trace) if trace.rows("page_events") else ()
    return TraceData(
        facts=(*_facts(summary), Fact("completeness", complete.line())),
        kinds=tuple(
            Fact(f"{k.table.removesuffix('_events')} {k.kind}", count(k.events), f"{figure(k.per_second)}/s")
            for k in summary.kinds
        ),
        charts=_charts(trace, summary),
        orders=orders,
        tasks=_tasks(trace) if orders else (),
        allocated_pages=sum(o.pages for o in orders),
        notes=(*summary.notes, *(f"not the whole of what happened: {what}" for what in complete.left_out())),
        losses=_losses(trace, summary),
        sources=sources_of(trace),
    )


def _losses(trace: Trace, summary: TraceSummary) -> tuple[Loss, ...] | None:
    """Where table ``loss`` says that events went missing, joined where a bin of the charts does not tell them apart."""
    if trace.damaged("loss"):
        return None
    if summary.start_ns is None or not trace.rows("loss"):
        return ()
    start, end = summary.start_ns, summary.end_ns or summary.start_ns
    rows = trace.loss.filter(pl.col("n").is_null() | (pl.col("n") > 0), pl.col("class") != "stack").collect()
    found: list[tuple[int, int, int | None, set[str]]] = []
    for row in rows.sort("t0_ns", nulls_last=False).iter_rows(named=True):
        t0 = start if row["t0_ns"] is None else max(row["t0_ns"], start)
        t1 = end if row["t1_ns"] is None else min(max(row["t1_ns"], t0), end)
        where = "all CPUs" if row["cpu"] is None else f"CPU {row['cpu']}"
        if found and t0 - found[-1][1] <= (end - start) / BINS:
            before = found.pop()
            n = None if before[2] is None or row["n"] is None else before[2] + row["n"]
            found.append((before[0], max(before[1], t1), n, before[3] | {where}))
        else:
            found.append((t0, t1, row["n"], {where}))
    return tuple(
        Loss((t0 - start) / 1e9, (t1 - start) / 1e9, n, ", ".join(sorted(who)) if len(who) < 5 else f"{len(who)} CPUs")
        for t0, t1, n, who in found
    )


def _facts(summary: TraceSummary) -> tuple[Fact, ...]:
    identity, meta = summary.identity, summary.metadata
    loss = summary.loss or {"lost": None, "intervals": 0}
    lost = UNKNOWN if loss["lost"] is None else count(loss["lost"])
    host = meta.get("host", {})
    facts = [
        Fact("trace", str(identity["path"]), f"id {str(identity['id'])[:12]}"),
        Fact("source", str((identity.get("source") or {}).get("kind", UNKNOWN)), str(meta.get("tool", ""))),
        Fact("host", str(identity.get("host") or UNKNOWN), f"kernel {identity.get('kernel') or UNKNOWN}"),
        Fact("CPUs", str(host.get("cpus", UNKNOWN))),
        Fact("recorded", str(meta.get("created", UNKNOWN))),
        Fact(
            "duration", seconds(summary.duration_s * 1e9), "" if identity.get("complete") else "capture did not finish"
        ),
        Fact("on disk", f"{figure(summary.bytes / 1e6)} MB"),
        Fact("events lost", lost, in_intervals(loss["intervals"])),
    ]
    if summary.bulk is not None and summary.bulk.unseen_pages is not None:
        facts.append(
            Fact(
                "allocated unseen",
                count(summary.bulk.unseen_pages),
                f"pages, {share(summary.bulk.unseen_pages, summary.bulk.pgalloc_delta)} of what vmstat counted, "
                f"give or take {count(summary.bulk.noise_pages)}",
            )
        )
    return tuple(facts)


def _charts(trace: Trace, summary: TraceSummary) -> tuple[Chart, ...]:
    if summary.start_ns is None or not summary.duration_s:
        return ()
    charts = []
    for title, unit, table in (("Pages", "pages/s", "page_events"), ("Block I/O", "events/s", "bio_events")):
        lines = tuple(
            Line(name, values)
            for name, (source, kind) in RATES.items()
            if source == table and trace.rows(table) and (values := _rate(trace, table, kind, summary))
        )
        if lines:
            charts.append(Chart(title, unit, summary.duration_s / BINS, lines))
    return tuple(charts)


def _rate(trace: Trace, table: str, kind: str, summary: TraceSummary) -> tuple[float, ...]:
    start = summary.start_ns or 0
    width = max(1, -(-int(summary.duration_s * 1e9) // BINS))
    amount = pl.len() if table != "page_events" else _pages().sum()
    bins = (
        trace.table(table, skip_damaged=True)
        .filter(pl.col("kind") == kind)
        .group_by(((pl.col("ts_ns") - start) // width).alias("bin"))
        .agg(amount.alias("n"))
        .collect(engine="streaming")
    )
    if bins.is_empty():
        return ()
    values = [0.0] * BINS
    for i, n in bins.iter_rows():
        values[min(max(i, 0), BINS - 1)] += n * 1e9 / width
    return tuple(values)


def _pages() -> pl.Expr:
    """Pages of an event: 2^order."""
    return pl.lit(2, pl.Int64).pow(pl.col("order").cast(pl.Int64).fill_null(0))


def _orders(trace: Trace) -> tuple[OrderShare, ...]:
    rows = (
        trace.table("page_events", skip_damaged=True)
        .filter(pl.col("kind") == "alloc", pl.col("order").is_not_null())
        .group_by("order")
        .len()
        .sort("order")
        .collect(engine="streaming")
    )
    return tuple(OrderShare(order, blocks, blocks << order) for order, blocks in rows.iter_rows())


def _tasks(trace: Trace) -> tuple[TaskShare, ...]:
    """Top command names by pages allocated. A thread that changed its name counts under its last one."""
    by_pid = (
        trace.table("page_events", skip_damaged=True)
        .filter(pl.col("kind") == "alloc")
        .group_by("pid")
        .agg(_pages().sum().alias("pages"))
        .collect(engine="streaming")
    )
    names = trace.table("tasks", skip_damaged=True).select("pid", "comm").collect().unique("pid", keep="last")
    rows = (
        by_pid.join(names, on="pid", how="left")
        .with_columns(pl.col("comm").fill_null("(unknown)"))
        .group_by("comm")
        .agg(pl.len().alias("tasks"), pl.col("pages").sum())
        .sort(["pages", "comm"], descending=[True, False])
    )
    top = [TaskShare(*row) for row in rows.head(TOP_TASKS).iter_rows()]
    rest = rows.slice(TOP_TASKS)
    if rest.height:
        top.append(TaskShare(f"{rest.height} others", int(rest["tasks"].sum()), int(rest["pages"].sum())))
    return tuple(top)
