"""How long pages live, what they hold meanwhile, where they are freed, and how soon their frames are taken again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.analysis import FREES, PAGE_FILTERS, PAGES, Analysis, Answer, Option, Picture
from tracereplay.analysis.together import Together

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

BY = ("none", "order", "gfp", "caller", "process", "cgroup", "cpu")


def by(default: str) -> Option:
    """The option that says what rows are."""
    return Option("by", default, "what a row is; of the allocation", BY)


def _lifetimes(view: View, *, by: str) -> Answer:
    from tracereplay.analysis.lifetime_tables import lifetime_table

    return lifetime_table(view, by)


def _histogram(view: View, *, by: str, of: str) -> Answer:
    from tracereplay.analysis.lifetime_tables import histogram_table

    return histogram_table(view, by, of)


def _byte_seconds(view: View, *, by: str) -> Answer:
    from tracereplay.analysis.lifetime_tables import byte_seconds_table

    return byte_seconds_table(view, by)


def _remote(view: View, *, by: str) -> Answer:
    from tracereplay.analysis.lifetime_tables import remote_table

    return remote_table(view, by)


def _matrix(view: View) -> Answer:
    from tracereplay.analysis.lifetime_tables import remote_matrix

    return remote_matrix(view)


def _reuse(view: View, *, by: str) -> Answer:
    from tracereplay.analysis.lifetime_tables import reuse_table

    return reuse_table(view, by)


LIFETIMES = Analysis(
    name="lifetimes",
    title="how long pages live: percentiles; what was censored is counted apart",
    group="lifetimes",
    compute=_lifetimes,
    needs=(PAGES, FREES),
    filters=PAGE_FILTERS,
    options=(by("none"),),
    ranked=True,
    picture=Picture("bars", "by", "lifetime_p50_ns", title="Median lifetime", unit="ns"),
    together=Together(
        ("by",),
        ("blocks", "pages", "complete", "right_censored", "left_censored", "broken", "unseen"),
        most=("lifetime_max_ns",),
        rank="blocks",
    ),
)
HISTOGRAM = Analysis(
    name="lifetime-histogram",
    title="how long pages live, in powers of two; or how old those are that still live",
    group="lifetimes",
    compute=_histogram,
    needs=(PAGES, FREES),
    filters=PAGE_FILTERS,
    options=(by("none"), Option("of", "complete", "complete lifetimes, or ages of what is live", ("complete", "live"))),
    picture=Picture("histogram", "low_ns", "blocks", group="by", title="Lifetimes of blocks", unit="ns"),
    together=Together(("by", "low_ns", "high_ns"), ("blocks", "pages"), {"share": "blocks"}, within=("by",)),
)
BYTE_SECONDS = Analysis(
    name="byte-seconds",
    title="who holds how much memory for how long",
    group="lifetimes",
    compute=_byte_seconds,
    needs=(PAGES, FREES),
    filters=PAGE_FILTERS,
    options=(by("caller"),),
    ranked=True,
    picture=Picture("bars", "by", "mean_bytes", title="Memory held on average", unit="bytes"),
    together=Together(("by",), ("byte_seconds", "blocks", "pages"), {"share": "byte_seconds"}, rank="byte_seconds"),
)
REMOTE = Analysis(
    name="remote-frees",
    title="blocks freed on another CPU than the one that allocated them",
    group="lifetimes",
    compute=_remote,
    needs=(PAGES, FREES),
    filters=PAGE_FILTERS,
    options=(by("caller"),),
    ranked=True,
    picture=Picture("bars", "by", "remote_pages", title="Pages freed on another CPU", unit="pages"),
    together=Together(
        ("by",),
        ("blocks", "remote", "pages", "remote_pages"),
        ratios={"remote_share": ("remote", "blocks"), "remote_page_share": ("remote_pages", "pages")},
        rank="remote_pages",
    ),
)
MATRIX = Analysis(
    name="remote-matrix",
    title="CPU of the allocation against CPU of the free",
    group="lifetimes",
    compute=_matrix,
    needs=(PAGES, FREES),
    filters=PAGE_FILTERS,
    picture=Picture("heat", "alloc_cpu", "free_cpu", value="pages", title="Pages by CPU of allocation and free"),
    together=Together(("alloc_cpu", "free_cpu"), ("blocks", "pages"), {"share": "pages"}),
)
REUSE = Analysis(
    name="reuse",
    title="how long frames lay free before they were taken again",
    group="lifetimes",
    compute=_reuse,
    needs=(PAGES, FREES),
    filters=PAGE_FILTERS,
    options=(by("none"),),
    ranked=True,
    picture=Picture("bars", "by", "idle_p50_ns", title="Median time from free to next owner", unit="ns"),
    together=Together(
        ("by",),
        ("allocations", "reused"),
        ratios={"reused_share": ("reused", "allocations")},
        most=("idle_max_ns",),
        rank="allocations",
    ),
)
ANALYSES = (LIFETIMES, HISTOGRAM, BYTE_SECONDS, REMOTE, MATRIX, REUSE)
