"""Counts of page allocations: by kind, by order and type, by gfp flag, over time, what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.amounts import AUTO, time_bin
from tracereplay.analysis.analysis import Analysis, Answer, Option, Picture
from tracereplay.analysis.page_options import ANY_PAGES, BIN, FAILURES, PAGE_FILTERS, PAGES
from tracereplay.analysis.together import MOMENTS, Together

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

METHOD = "exact"
PAIRED = 10_000_000
"""Events up to which a summary follows every block."""
CHANGES = ("alloc", "alloc_failed", "free")


def summary(view: View, *, pairs: str) -> Answer:
    """Every kind of page event: ``kind events per_s pages bytes pages_per_s``, in the schema's order; then, if wanted,
    blocks by which of their ends was seen: ``alloc+free``, ``alloc only``, ``free only``.

    ``pages`` are those of the events' orders, of bulk calls those returned; null for kinds without (free_batched,
    which accompanies a free, and extfrag). A block that was freed in pieces counts as often. Under a filter other than
    time there are no blocks that were only freed: whose they were was not seen.
    """
    import polars as pl

    from tracereplay.analysis.page_frames import PAGES as PAGES_OF
    from tracereplay.analysis.page_frames import in_bytes
    from tracereplay.analysis.tally import tally
    from tracereplay.trace.schema import PAGE_KINDS

    counted = tally(view, ("kind", "order")).with_columns(PAGES_OF)
    by_kind = counted.group_by("kind").agg(pl.col("n").sum().alias("events"), pl.col("pages").sum())
    returned = None
    if "bulk" in by_kind["kind"]:
        bulk = (
            view.events("page_events").filter(pl.col("kind") == "bulk").select(pl.col("returned").cast(pl.Int64).sum())
        )
        returned = bulk.collect(engine="streaming").item()
    without = pl.col("kind").is_in(("free_batched", "extfrag"))
    seconds = view.seconds or None
    frame = (
        by_kind.with_columns(
            pl.when(without).then(None).when(pl.col("kind") == "bulk").then(returned).otherwise("pages").alias("pages"),
            rank=pl.col("kind").replace_strict(dict(zip(PAGE_KINDS, range(len(PAGE_KINDS)), strict=True))),
        )
        .with_columns(in_bytes(view), per_s=pl.col("events") / seconds, pages_per_s=pl.col("pages") / seconds)
        .sort("rank")
        .select("kind", "events", "per_s", "pages", "bytes", "pages_per_s")
    )
    large = pairs == AUTO and view.trace.rows("page_events") > PAIRED
    if pairs == "no" or large:
        notes = ("blocks allocated and freed, or only one of them: --set pairs=yes",) if large else ()
        return Answer(frame, METHOD, notes=notes)
    from tracereplay.analysis.page_pairs import paired

    ends, account = paired(view)
    ends = ends.with_columns(in_bytes(view), per_s=pl.col("events") / seconds, pages_per_s=pl.col("pages") / seconds)
    return Answer(pl.concat([frame, ends.select(frame.columns)]), METHOD, account)


def orders(view: View) -> Answer:
    """Allocations by order and migratetype: ``order migratetype requests pages bytes share``; ``share`` of all pages.
    ``migratetype`` is the one asked for.
    """
    import polars as pl

    from tracereplay.analysis.page_frames import PAGES as PAGES_OF
    from tracereplay.analysis.page_frames import in_bytes, migratetype_name, share
    from tracereplay.analysis.tally import tally

    frame = (
        tally(view, ("order", "migratetype"), kinds=("alloc",))
        .with_columns(PAGES_OF)
        .with_columns(in_bytes(view), share("pages"), migratetype_name(view))
        .select("order", "migratetype", pl.col("n").alias("requests"), "pages", "bytes", "share")
    )
    return Answer(frame, METHOD)


def gfp(view: View, *, by: str) -> Answer:
    """Allocations by gfp flag, or by whole mask: ``gfp mask requests pages bytes share``, most pages first.

    An allocation counts under each of its flags, so that their shares sum to more than 1. Names are those of the
    recorded kernel (table ``gfp_flags`` of the metadata).
    """
    import polars as pl

    from tracereplay.analysis.page_frames import PAGES as PAGES_OF
    from tracereplay.analysis.page_frames import gfp_text, in_bytes
    from tracereplay.analysis.tally import tally
    from tracereplay.demand.opening import gfp_names

    found = tally(view, ("order", "gfp"), kinds=("alloc",)).with_columns(PAGES_OF)
    total = max(1, found["pages"].sum())
    by_mask = (
        found.group_by("gfp").agg(pl.col("n").sum().alias("requests"), pl.col("pages").sum()).rename({"gfp": "mask"})
    )
    if by == "flag":
        bits = [1 << b for b in range(32)]
        held = [
            by_mask.filter(pl.col("mask").cast(pl.Int64) & bit != 0).with_columns(mask=pl.lit(bit, pl.UInt32))
            for bit in bits
        ]
        by_mask = pl.concat(held).group_by("mask").agg(pl.col("requests", "pages").sum())
        single = {value: name for name, value in gfp_names(view.trace).items() if value.bit_count() == 1}
        text = pl.col("mask").map_elements(lambda mask: single.get(mask, hex(mask)), pl.String).alias("gfp")
    else:
        text = gfp_text(view, "mask").alias("gfp")
    frame = (
        by_mask.with_columns(in_bytes(view), text, share=pl.col("pages") / total)
        .sort("pages", "requests", "mask", descending=[True, True, False])
        .select("gfp", "mask", "requests", "pages", "bytes", "share")
    )
    return Answer(frame, METHOD)


def rate(view: View, *, by: str, bin: str) -> Answer:
    """Allocations over time: ``by start_ns width_ns requests pages bytes requests_per_s pages_per_s``, every bin, empty
    ones too. ``start_ns``: since the trace's first event.

    ``by``: with ``kind`` allocations, failures and frees apart; with ``order``, ``migratetype`` or ``cpu`` allocations
    only.
    """
    import polars as pl

    from tracereplay.analysis.page_frames import PAGES as PAGES_OF
    from tracereplay.analysis.page_frames import in_bytes, migratetype_name
    from tracereplay.analysis.tally import tally

    span = max(1, view.end_ns - view.start_ns)
    width = time_bin(bin, span, bins=200)
    keys = ("bin", "order") if by == "order" else ("bin", "order", by)
    kinds = CHANGES if by == "kind" else ("alloc",)
    counted = tally(view, keys, kinds=kinds, bin_ns=width).with_columns(PAGES_OF)
    if by == "migratetype":
        counted = counted.with_columns(migratetype_name(view))
    counted = counted.group_by(by, "bin").agg(pl.col("n").sum().alias("requests"), pl.col("pages").sum())
    every = pl.DataFrame({"bin": range(-(-span // width))}, schema={"bin": pl.Int64})
    start = pl.col("bin") * width
    offset = view.selection.time[0] or 0
    seconds = pl.min_horizontal(pl.lit(width), span - start) / 1e9  # the last bin may be cut
    frame = (
        counted.select(pl.col(by).unique())
        .join(every, how="cross")
        .join(counted, on=[by, "bin"], how="left", nulls_equal=True)
        .with_columns(pl.col("requests", "pages").fill_null(0))
        .with_columns(in_bytes(view), (pl.col("requests", "pages") / seconds).name.suffix("_per_s"))
        .sort(by, "bin")
        .select(
            pl.col(by).cast(pl.String).alias("by"),
            (start + offset).alias("start_ns"),
            pl.lit(width, pl.Int64).alias("width_ns"),
            *("requests", "pages", "bytes", "requests_per_s", "pages_per_s"),
        )
    )
    return Answer(frame, METHOD)


def failures(view: View) -> Answer:
    """Allocations that failed (mm_page_alloc without a page): ``caller gfp order failures pages share``, most first.

    Attempts that the kernel repeats on its own are one event each; ``__GFP_NOWARN`` in ``gfp`` says that the caller was
    prepared.
    """
    import polars as pl

    from tracereplay.analysis.page_frames import Labels, gfp_text, share
    from tracereplay.analysis.page_sites import sites

    found = sites(view, Labels(view), ("alloc_failed",), gfp=True)
    frame = (
        found.group_by("caller", "gfp", "order")
        .agg(pl.col("n").sum().alias("failures"), pl.col("pages").sum())
        .with_columns(share("failures"), gfp_text(view))
        .sort("failures", "pages", "caller", "gfp", "order", descending=[True, True, False, False, False])
        .select("caller", "gfp", "order", "failures", "pages", "share")
    )
    return Answer(frame, METHOD, {"failures": int(frame["failures"].sum())})


SUMMARY = Analysis(
    name="summary",
    title="page events of each kind, blocks by the ends that were seen",
    group="pages",
    compute=summary,
    needs=(ANY_PAGES,),
    filters=PAGE_FILTERS,
    options=(Option("pairs", AUTO, f"follow every block; auto: up to {PAIRED:,} events", (AUTO, "yes", "no")),),
    together=Together(("kind",), ("events", "pages", "bytes")),
)
ORDERS = Analysis(
    name="orders",
    title="allocations by order and migratetype",
    group="pages",
    compute=orders,
    needs=(PAGES,),
    filters=PAGE_FILTERS,
    picture=Picture("bars", "order", "requests", group="migratetype", title="Allocations by order"),
    together=Together(("order", "migratetype"), ("requests", "pages", "bytes"), {"share": "pages"}),
)
GFP = Analysis(
    name="gfp",
    title="allocations by gfp flag or mask",
    group="pages",
    compute=gfp,
    needs=(PAGES,),
    filters=PAGE_FILTERS,
    options=(Option("by", "flag", "what a row is", ("flag", "mask")),),
    ranked=True,
    picture=Picture("bars", "gfp", "pages", title="Pages by gfp", unit="pages"),
    together=Together(("gfp",), ("requests", "pages", "bytes"), {"share": "pages"}, rank="pages"),
)
RATE = Analysis(
    name="rate",
    title="allocations and frees over time",
    group="pages",
    compute=rate,
    needs=(PAGES,),
    filters=PAGE_FILTERS,
    options=(Option("by", "kind", "what lines are for", ("kind", "order", "migratetype", "cpu")), BIN),
    picture=Picture("lines", "start_ns", "pages_per_s", group="by", title="Pages over time", unit="pages/s"),
    together=MOMENTS,
)
FAILED = Analysis(
    name="failures",
    title="allocations that failed, by caller, gfp and order",
    group="pages",
    compute=failures,
    needs=(FAILURES,),
    filters=PAGE_FILTERS,
    ranked=True,
    picture=Picture("bars", "caller", "failures", title="Failed allocations"),
    together=Together(("caller", "gfp", "order"), ("failures", "pages"), {"share": "failures"}, rank="failures"),
)
ANALYSES = (SUMMARY, ORDERS, GFP, RATE, FAILED)
