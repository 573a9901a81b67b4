"""Traffic between the buddy lists and the per-CPU lists: refills, drains, bulk calls, fallbacks to other types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.analysis import Analysis, Answer, Option, Picture
from tracereplay.analysis.page_options import BULK, DRAINS, FALLBACKS, PAGE_FILTERS, ZONE_LOCKED
from tracereplay.analysis.together import Together

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

METHOD = "exact"


def refills(view: View, *, by: str) -> Answer:
    """Refills of per-CPU lists: by ``cpu``, ``order`` (with the migratetype), ``process``, or by ``size``, which is a
    histogram of their blocks. ``by refills blocks pages fallbacks blocks_mean blocks_p50 blocks_max time_ns``.

    A refill is a run of mm_page_alloc_zone_locked events (see tracereplay.analysis.refills); ``fallbacks`` are blocks
    of another type that were broken for it, ``time_ns`` lies between first and last event of the runs.
    """
    from tracereplay.analysis.refill_table import refill_table

    return refill_table(view, by)


def drains(view: View, *, by: str) -> Answer:
    """Blocks that went from per-CPU lists back to the buddy lists (mm_page_pcpu_drain): ``cpu order migratetype blocks
    pages bytes share``, most pages first; columns that are not grouped by are null. ``share``: of all drained pages.
    """
    import polars as pl

    from tracereplay.analysis.page_frames import PAGES as PAGES_OF
    from tracereplay.analysis.page_frames import in_bytes, migratetype_name, share
    from tracereplay.analysis.tally import tally

    keys = {"cpu": ["cpu"], "order": ["order", "migratetype"]}[by]
    found = tally(view, ("cpu", "order", "migratetype"), kinds=("drain",)).with_columns(PAGES_OF)
    frame = (
        found.group_by(keys)
        .agg(pl.col("n").sum().alias("blocks"), pl.col("pages").sum())
        .with_columns(in_bytes(view), share("pages"))
        .sort("pages", *keys, descending=[True, *(False for _ in keys)])
    )
    if by == "order":
        frame = frame.with_columns(migratetype_name(view))
    return Answer(frame.select(*keys, "blocks", "pages", "bytes", "share"), METHOD)


def bulk(view: View, *, by: str) -> Answer:
    """Calls of the bulk allocator: by ``size`` (pages asked for), ``comm`` or ``caller``. ``by calls requested returned
    short_calls short_pages share``, most pages first.

    A short call returned fewer pages than it was asked for: the rest was in the array already, or the lists were empty
    and the caller goes on by itself (alloc_pages_bulk_noprof, mm/page_alloc.c).
    """
    import polars as pl

    from tracereplay.analysis.page_frames import Labels, share

    rows = view.events("page_events").filter(pl.col("kind") == "bulk")
    asked, given = pl.col("requested").cast(pl.Int64), pl.col("returned").cast(pl.Int64)
    counts = (
        pl.len().cast(pl.Int64).alias("calls"),
        asked.sum().alias("requested"),
        given.sum().alias("returned"),
        (given < asked).sum().cast(pl.Int64).alias("short_calls"),
        (asked - given).clip(lower_bound=0).sum().alias("short_pages"),
    )
    if by == "size":
        found = rows.group_by(pl.col("requested").alias("by")).agg(counts).collect(engine="streaming")
    elif by == "comm":
        found = view.with_task(rows).group_by(pl.col("comm").alias("by")).agg(counts).collect(engine="streaming")
    else:
        of_stack = rows.group_by("stack_id").agg(counts).collect(engine="streaming")
        stacks = Labels(view).stacks
        names = pl.DataFrame(schema={"stack_id": pl.UInt32, "caller": pl.String}) if stacks is None else stacks
        named = of_stack.join(names.select("stack_id", pl.col("caller").alias("by")), on="stack_id", how="left")
        found = named.group_by("by").agg(pl.col("calls", "requested", "returned", "short_calls", "short_pages").sum())
    frame = (
        found.with_columns(share("returned"), pl.col("by").cast(pl.String).fill_null("?"))
        .sort("returned", "calls", "by", descending=[True, True, False])
        .select("by", "calls", "requested", "returned", "short_calls", "short_pages", "share")
    )
    return Answer(frame, METHOD)


def extfrag(view: View) -> Answer:
    """Fallbacks to blocks of another migratetype (mm_page_alloc_extfrag): ``order migratetype fallback_order
    fallback_migratetype change_ownership fragmenting events share``, most first.

    ``fragmenting`` as the event's text has it: the block was smaller than a pageblock, so that pages of two types now
    lie in one (trace/events/kmem.h). ``change_ownership``: the pageblock went over to the type asked for.
    """
    import polars as pl

    from tracereplay.analysis.page_frames import migratetype_name, share
    from tracereplay.trace.snapshots import pageblock_order

    keys = ["alloc_order", "migratetype", "fallback_order", "fallback_migratetype", "change_ownership"]
    block = pageblock_order(view.trace) or 9
    found = (
        view.events("page_events")
        .filter(pl.col("kind") == "extfrag")
        .group_by(keys)
        .agg(pl.len().cast(pl.Int64).alias("events"))
        .collect(engine="streaming")
    )
    frame = (
        found.with_columns(share("events"), fragmenting=pl.col("fallback_order") < block)
        .sort("events", *keys, descending=[True, *(False for _ in keys)])
        .with_columns(migratetype_name(view), migratetype_name(view, "fallback_migratetype"))
        .select(pl.col("alloc_order").alias("order"), *keys[1:], "fragmenting", "events", "share")
    )
    return Answer(frame, METHOD)


_BY_CPU = PAGE_FILTERS - {"order"}
REFILLS = Analysis(
    name="refills",
    title="refills of per-CPU lists: how many, how long, for whom",
    group="pages",
    compute=refills,
    needs=(ZONE_LOCKED,),
    filters=PAGE_FILTERS,
    options=(Option("by", "cpu", "what a row is", ("cpu", "order", "process", "size")),),
    picture=Picture("bars", "by", "refills", title="Refills of per-CPU lists"),
    together=Together(
        ("by",),
        ("refills", "blocks", "pages", "fallbacks", "time_ns"),
        ratios={"blocks_mean": ("blocks", "refills")},
        most=("blocks_max",),
    ),
)
DRAINED = Analysis(
    name="drains",
    title="blocks drained from per-CPU lists to the buddy lists",
    group="pages",
    compute=drains,
    needs=(DRAINS,),
    filters=PAGE_FILTERS,
    options=(Option("by", "cpu", "what a row is", ("cpu", "order")),),
    ranked=True,
    together=Together(("cpu", "order", "migratetype"), ("blocks", "pages", "bytes"), {"share": "pages"}, rank="pages"),
)
BULK_CALLS = Analysis(
    name="bulk",
    title="calls of the bulk allocator: asked for, returned, short",
    group="pages",
    compute=bulk,
    needs=(BULK,),
    filters=_BY_CPU,
    options=(Option("by", "size", "what a row is", ("size", "comm", "caller")),),
    ranked=True,
    picture=Picture("bars", "by", "returned", title="Pages of bulk calls", unit="pages"),
    together=Together(
        ("by",),
        ("calls", "requested", "returned", "short_calls", "short_pages"),
        {"share": "returned"},
        rank="returned",
    ),
)
EXTFRAG = Analysis(
    name="extfrag",
    title="fallbacks to blocks of another migratetype",
    group="pages",
    compute=extfrag,
    needs=(FALLBACKS,),
    filters=_BY_CPU,
    ranked=True,
    together=Together(
        ("order", "migratetype", "fallback_order", "fallback_migratetype", "change_ownership", "fragmenting"),
        ("events",),
        {"share": "events"},
        rank="events",
    ),
)
ANALYSES = (REFILLS, DRAINED, BULK_CALLS, EXTFRAG)
