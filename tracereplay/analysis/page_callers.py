"""Who allocates pages: callers, stacks, functions, and flame graphs of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.analysis import Analysis, Answer, Option, Picture
from tracereplay.analysis.page_options import PAGE_FILTERS, PAGES
from tracereplay.analysis.together import Together

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.view import View

METHOD = "exact"
_UNNAMED = "allocations without a stack are named by task and gfp mask"
WEIGHTS = ("pages", "requests", "live", "byte-seconds")


def callers(view: View, *, by: str) -> Answer:
    """Allocations by caller (the innermost function that is not the allocator's), by stack (functions, outermost
    first, joined by ``;``) or by symbol: ``by requests pages bytes share orders``, most pages first.

    ``share``: of all pages. A function (``--by symbol``) counts every allocation in whose stack it is, once; its
    ``self_pages`` are those of which it is the caller. Shares then sum to more than 1.
    """
    import polars as pl

    from tracereplay.analysis.page_frames import Labels, in_bytes, orders_text
    from tracereplay.analysis.page_sites import sites, stack_lists

    labels = Labels(view)
    found = sites(view, labels)
    without = int(found.filter(pl.col("stack_id").is_null())["n"].sum())
    total = found["pages"].sum()
    if by == "stack":
        found = stack_lists(found, labels).with_columns(pl.col("stack").list.join(";"))
    elif by == "symbol":
        found = stack_lists(found, labels).with_columns(pl.col("stack").list.unique().alias("symbol")).explode("symbol")
    own = pl.col("pages").filter(pl.col("caller") == pl.col(by)).sum().alias("self_pages")
    frame = (
        found.group_by(by, "order")
        .agg(pl.col("n", "pages").sum(), own)
        .group_by(by)
        .agg(pl.col("n").sum().alias("requests"), pl.col("pages", "self_pages").sum(), orders_text())
        .with_columns(in_bytes(view), share=pl.col("pages") / max(1, total))
        .sort("pages", "requests", by, descending=[True, True, False])
        .select(
            pl.col(by).alias("by"),
            "requests",
            "pages",
            "bytes",
            "share",
            *(["self_pages"] if by == "symbol" else []),
            "orders",
        )
    )
    notes = (_UNNAMED,) if without else ()
    return Answer(frame, METHOD, {"without stack": without} if without else {}, notes)


def flame(view: View, *, weight: str, against: str) -> Answer:
    """Stacks and their weight: ``stack`` (outermost first, joined by ``;``), ``value``. Against another trace or
    another time: ``stack before after change``, by size of the change.

    ``pages`` and ``requests`` are counts of allocations; ``live`` the pages that are still allocated at the end,
    ``byte-seconds`` the bytes of each block times how long it was held, as far as the trace reaches.
    """
    import polars as pl

    from tracereplay.analysis.page_against import other_view
    from tracereplay.analysis.page_sites import weighted_stacks

    now = _joined(weighted_stacks(view, weight))
    if not against:
        return Answer(now, METHOD)
    before, scale, said = other_view(view, against)
    earlier = _joined(weighted_stacks(before, weight)).with_columns(pl.col("value") * scale)
    frame = (
        now.rename({"value": "after"})
        .join(earlier.rename({"value": "before"}), on="stack", how="full", coalesce=True)
        .with_columns(pl.col("before", "after").cast(pl.Float64).fill_null(0.0))
        .with_columns(change=pl.col("after") - pl.col("before"))
        .with_columns(value=pl.col("change").abs())
        .sort("value", "stack", descending=[True, False])
        .select("stack", "before", "after", "change", "value")
    )
    return Answer(frame, METHOD, notes=(said,))


def _joined(stacks: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return stacks.with_columns(pl.col("stack").list.join(";"))


CALLERS = Analysis(
    name="callers",
    title="who allocates pages, by caller, stack or function",
    group="pages",
    compute=callers,
    needs=(PAGES,),
    filters=PAGE_FILTERS,
    options=(Option("by", "caller", "what a row is", ("caller", "stack", "symbol")),),
    ranked=True,
    picture=Picture("bars", "by", "pages", title="Pages allocated", unit="pages"),
    together=Together(("by",), ("requests", "pages", "bytes"), {"share": "pages"}, rank="pages"),
)
FLAME = Analysis(
    name="flame",
    title="stacks by pages, requests, live pages or byte-seconds; against another time or trace",
    group="pages",
    compute=flame,
    needs=(PAGES,),
    filters=PAGE_FILTERS,
    options=(
        Option("weight", "pages", "what a stack's width stands for", WEIGHTS),
        Option("against", "", "compare with FROM:UNTIL of this trace (such as 0s:5s), or with another trace"),
    ),
    ranked=True,
    picture=Picture("flame", "stack", value="value", title="Page allocations by stack"),
    together=Together(("stack",), ("value",), rank="value", unless=("against",)),
)
ANALYSES = (CALLERS, FLAME)
