"""What each stack holds: weights of flame graphs."""

from __future__ import annotations

import numpy as np
import polars as pl

from tracereplay.analysis.lifetime_groups import Groups, Sums, all_rows, lives_of
from tracereplay.analysis.lifetime_tables import page_times
from tracereplay.analysis.view import View
from tracereplay.demand.state import NO_STACK
from tracereplay.kernel.constants import PAGE_SIZE
from tracereplay.trace.reader import Trace


def totals_by_stack(trace: Trace | View) -> pl.DataFrame:
    """``stack_id caller live_pages byte_seconds blocks pages``, one row a stack and caller, most byte-seconds first.

    ``live_pages`` are those at the end of the time looked at, ``byte_seconds`` those within it, ``blocks`` and
    ``pages`` what was live at any moment of it. Without a stack ``stack_id`` is null and the caller is named by task
    and gfp mask. Allocations that nobody saw are left out. Filters are those of the allocation, but for the time.
    Raises EmptyTraceError, TraceError.
    """
    view = View.of(trace)
    groups = Groups(view, "caller")
    lives = lives_of(view, groups, by_time=False)
    begin, end = view.start_ns, min(view.end_ns, lives.end_ns + 1)
    counts, held = Sums(3), Sums(1, np.float64)
    for rows in all_rows(lives):
        group, page_ns = groups.of(rows), page_times(rows, begin, end)
        pages = np.int64(1) << rows.order.astype(np.int64)
        within = page_ns > 0
        live = within & ((rows.t_free < 0) | (rows.t_free >= end))
        counts.add(group, live * pages, within, within * pages)
        held.add(group, page_ns)
    stacks, labels = groups.stacks, groups.labels
    n = len(labels)
    same = np.arange(n)
    found = counts.merged(same, n)
    frame = pl.DataFrame(
        {
            "stack_id": pl.Series(stacks[:n]).replace(NO_STACK, None),
            "caller": labels,
            "live_pages": found[:, 0],
            "byte_seconds": held.merged(same, n)[:, 0] * (PAGE_SIZE / 1e9),
            "blocks": found[:, 1],
            "pages": found[:, 2],
        }
    )[1:]
    both = frame.filter(pl.col("blocks") > 0).group_by("stack_id", "caller").sum()
    return both.sort("byte_seconds", "caller", descending=[True, False])
