"""Steps that analyses of page events share: pages and bytes of counts, names of types, tasks and callers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from tracereplay.demand.callers import Callers
from tracereplay.demand.opening import gfp_names
from tracereplay.kernel.constants import MIGRATETYPE_NAMES, PAGE_SIZE
from tracereplay.kernel.gfp import format_gfp

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

UNKNOWN_TASK = "?"
GREATEST_ORDER = 20
"""No kernel's allocator has larger blocks (``MAX_PAGE_ORDER`` is 10, at most 13 on arm64)."""
_order = pl.col("order").fill_null(0).cast(pl.Int64)
PAGES = (
    pl.when(_order <= GREATEST_ORDER)
    .then(pl.col("n") * pl.lit(2, pl.Int64).pow(_order.clip(0, GREATEST_ORDER).cast(pl.UInt32)))
    .otherwise(0)
    .alias("pages")
)
"""Pages of ``n`` blocks of ``order``; none where there is no such order."""


def page_size(view: View) -> int:
    """Bytes of a page on the recorded host."""
    return int(view.trace.metadata.host.get("page_size") or PAGE_SIZE)


def in_bytes(view: View, pages: str = "pages") -> pl.Expr:
    """Column ``bytes`` of a column of pages."""
    return (pl.col(pages) * page_size(view)).alias("bytes")


def share(of: str) -> pl.Expr:
    """Column ``share``: of the sum of a column; 0 where that is 0."""
    return (pl.col(of) / pl.col(of).sum()).fill_nan(0.0).alias("share")


def migratetype_name(view: View, column: str = "migratetype") -> pl.Expr:
    """A column of migratetype numbers by name, as the recorded kernel numbers them."""
    names = view.trace.metadata.migratetypes or list(MIGRATETYPE_NAMES)
    number = pl.col(column)
    table = dict(enumerate(names))
    return number.replace_strict(table, default=number.cast(pl.String), return_dtype=pl.String).alias(column)


def gfp_text(view: View, column: str = "gfp") -> pl.Expr:
    """A column of gfp masks as the recorded kernel writes them; null: ``?``."""
    names = gfp_names(view.trace)
    text = pl.col(column).map_elements(lambda mask: format_gfp(mask, names), pl.String)
    return text.fill_null("?").alias(column)


def with_tasks(view: View, frame: pl.DataFrame) -> pl.DataFrame:
    """A tally by ``task`` with ``tgid comm cgroup`` of each, null when unknown, and ``pid`` in every row."""
    index = view.task_index.frame.select("row", "tgid", "comm", "cgroup", known="pid")
    found = frame.join(index, left_on="task", right_on="row", how="left")
    return found.with_columns(pl.coalesce("pid", "known").alias("pid")).drop("task", "known")


def orders_text() -> pl.Expr:
    """Aggregate over rows of different orders: ``orders``, each with its number ``n``, as ``0:1200 3:4``."""
    each = pl.format("{}:{}", pl.col("order").cast(pl.String).fill_null("?"), "n")
    return each.sort_by("order").str.join(" ").alias("orders")


class Labels:
    """Names of callers: by stack where events have one, else by task name and gfp mask, as demand names them."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._callers = Callers(gfp_names=gfp_names(view.trace))

    @cached_property
    def stacks(self) -> pl.DataFrame | None:
        """``stack_id caller stack`` of the trace; None: it has none."""
        return self._view.callers() if self.has_stacks else None

    @property
    def has_stacks(self) -> bool:
        """The trace has stacks."""
        return self._view.trace.rows("stacks") > 0

    def of_task(self, comm: str | None, gfp: int | None) -> str:
        """Caller of an allocation without a stack."""
        number = self._callers.by_gfp(comm or UNKNOWN_TASK, gfp or 0)
        return self._callers.labels[number]

    def of_tasks(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A tally by ``task`` and ``gfp`` with column ``caller``."""
        named = with_tasks(self._view, frame)
        kinds = named.select("comm", "gfp").unique()
        labels = [self.of_task(comm, gfp) for comm, gfp in kinds.iter_rows()]
        callers = kinds.with_columns(caller=pl.Series(labels, dtype=pl.String))
        return named.join(callers, on=["comm", "gfp"], how="left", nulls_equal=True)
