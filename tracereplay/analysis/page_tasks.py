"""Page allocations by task: processes, threads, command names, control groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.analysis import Analysis, Answer, Option, Picture
from tracereplay.analysis.page_options import PAGE_FILTERS, PAGES
from tracereplay.analysis.together import Together

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.view import View

_KEYS = {"comm": ("comm",), "process": ("tgid", "comm"), "thread": ("pid", "comm")}
_COUNTS = ("requests", "pages", "bytes", "share", "failures", "frees", "freed_pages")
_SUMS = tuple(name for name in _COUNTS if name != "share")


def processes(view: View, *, by: str) -> Answer:
    """Allocations by command name, process or thread: ``comm tgid pid requests pages bytes share failures frees
    freed_pages``, most pages first. What a row is not about is null.

    Events count for the task that ran when they happened: pids are told apart by time. ``share``: of all pages
    allocated. Frees count for the task that freed, whoever allocated; in softirq that is any task.
    """
    import polars as pl

    found = _counted(view, _KEYS[by])
    given = [c if c in found.columns else pl.lit(None, pl.UInt32).alias(c) for c in ("comm", "tgid", "pid")]
    frame = found.sort("pages", *_KEYS[by], descending=[True, *(False for _ in _KEYS[by])]).select(*given, *_COUNTS)
    return _answer(frame, "comm")


def cgroups(view: View) -> Answer:
    """Allocations by control group: ``cgroup requests pages bytes share failures frees freed_pages``, most pages first.

    The group is that of the task that ran; what the kernel charges to another one (a page in a shared file) is not in
    the events.
    """
    found = _counted(view, ("cgroup",)).sort("pages", "cgroup", descending=[True, False])
    return _answer(found.select("cgroup", *_COUNTS), "cgroup")


def _counted(view: View, keys: tuple[str, ...]) -> pl.DataFrame:
    import polars as pl

    from tracereplay.analysis.page_frames import PAGES as PAGES_OF
    from tracereplay.analysis.page_frames import in_bytes, share, with_tasks
    from tracereplay.analysis.tally import tally

    counted = tally(view, ("kind", "order", "task"), kinds=("alloc", "alloc_failed", "free")).with_columns(PAGES_OF)
    kind = pl.col("kind")
    return (
        with_tasks(view, counted)
        .group_by(keys)
        .agg(
            pl.col("n").filter(kind == "alloc").sum().alias("requests"),
            pl.col("pages").filter(kind == "alloc").sum(),
            pl.col("n").filter(kind == "alloc_failed").sum().alias("failures"),
            pl.col("n").filter(kind == "free").sum().alias("frees"),
            pl.col("pages").filter(kind == "free").sum().alias("freed_pages"),
        )
        .with_columns(in_bytes(view), share("pages"))
    )


def _answer(frame: pl.DataFrame, name: str) -> Answer:
    import polars as pl

    unknown = int(frame.filter(pl.col(name).is_null())["requests"].sum())
    notes = (f"the trace does not name the {name} of {unknown:,} allocations",) if unknown else ()
    return Answer(frame, "exact", {"allocations of unknown tasks": unknown} if unknown else {}, notes)


PROCESSES = Analysis(
    name="processes",
    title="allocations and frees by command, process or thread",
    group="pages",
    compute=processes,
    needs=(PAGES,),
    filters=PAGE_FILTERS,
    options=(Option("by", "comm", "what a row is", tuple(_KEYS)),),
    ranked=True,
    picture=Picture("bars", "comm", "pages", title="Pages by task", unit="pages"),
    together=Together(("comm",), _SUMS, {"share": "pages"}, rank="pages"),
)
CGROUPS = Analysis(
    name="cgroups",
    title="allocations and frees by control group",
    group="pages",
    compute=cgroups,
    needs=(PAGES,),
    filters=PAGE_FILTERS,
    ranked=True,
    picture=Picture("bars", "cgroup", "pages", title="Pages by control group", unit="pages"),
    together=Together(("cgroup",), _SUMS, {"share": "pages"}, rank="pages"),
)
ANALYSES = (PROCESSES, CGROUPS)
