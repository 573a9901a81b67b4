"""How broken up free memory is over time: free blocks by order, and of what share of it a request has no use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracereplay.analysis.analysis import PAGES, Analysis, Answer, Option, Picture
from tracereplay.analysis.together import MOMENTS

if TYPE_CHECKING:
    from tracereplay.analysis.view import View


def compute(view: View, *, bins: int, source: str, zones: str) -> Answer:
    """Columns ``t_ns source node zone order blocks free_pages unusable_share fallbacks mixed_pageblocks``."""
    from tracereplay.analysis.fragmentation_course import course

    return course(view, bins, source, zones)


FRAGMENTATION = Analysis(
    name="fragmentation",
    title="free blocks by order over time, unusable share, fallbacks, mixed pageblocks",
    group="memory",
    compute=compute,
    needs=(PAGES,),
    filters=frozenset({"time", "order"}),
    options=(
        Option("bins", 30, "moments looked at, evenly over the time"),
        Option(
            "source",
            "both",
            "buddyinfo: what snapshots say; twin: the simulated allocator fed with the events; both where possible",
            ("both", "twin", "buddyinfo"),
        ),
        Option("zones", "sum", "all memory together, or each zone by itself", ("sum", "each")),
    ),
    picture=Picture("lines", "t_ns", "unusable_share", group="order", title="Unusable share of free memory by order"),
    together=MOMENTS,
)
ANALYSES = (FRAGMENTATION,)
