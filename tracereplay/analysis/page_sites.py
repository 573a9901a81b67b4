"""Allocations by where they were asked for: by stack where there is one, else by task name and gfp mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from tracereplay.analysis.page_frames import PAGES, Labels, page_size
from tracereplay.analysis.tally import tally

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

NO_STACK = "(no stack)"


def sites(view: View, labels: Labels, kinds: Sequence[str] = ("alloc",), *, gfp: bool = False) -> pl.DataFrame:
    """Events of ``kinds`` by ``caller stack_id order`` and, if wanted, ``gfp``: how many, ``n``, and their ``pages``.
    ``stack_id`` is null without a stack.

    Raises TraceError.
    """
    keys = ("caller", "stack_id", "order", *(["gfp"] if gfp else []))
    parts: list[pl.DataFrame] = []
    rest = True
    if labels.has_stacks:
        found = tally(view, ("order", "stack_id", *keys[3:]), kinds=kinds)
        with_stack = found.filter(pl.col("stack_id").is_not_null())
        assert labels.stacks is not None
        names = labels.stacks.select("stack_id", "caller")
        named = with_stack.join(names, on="stack_id", how="left").with_columns(pl.col("caller").fill_null("?"))
        parts.append(named.select(*keys, "n"))
        rest = len(with_stack) < len(found)
    if rest:
        without = "stack_id" if labels.has_stacks else None
        found = tally(view, ("order", "gfp", "task"), kinds=kinds, without=without)
        named = labels.of_tasks(found).with_columns(stack_id=pl.lit(None, pl.UInt32))
        parts.append(named.select(*keys, "n"))
    return pl.concat(parts).group_by(keys).agg(pl.col("n").sum()).with_columns(PAGES)


def stack_lists(frame: pl.DataFrame, labels: Labels) -> pl.DataFrame:
    """Sites with column ``stack``: their functions, outermost first. Without a stack: NO_STACK, then the caller."""
    made = pl.concat_list(pl.lit(NO_STACK), "caller")
    if labels.stacks is None:
        return frame.with_columns(stack=made)
    named = frame.join(labels.stacks.select("stack_id", "stack"), on="stack_id", how="left")
    return named.with_columns(stack=pl.coalesce("stack", made))


def weighted_stacks(view: View, weight: str) -> pl.DataFrame:
    """What flame graphs are made of: ``stack`` (list of functions, outermost first) and ``value`` (whole numbers above
    0), largest first. Allocations without a stack stand under NO_STACK and the name of their caller.

    ``weight``: ``requests``, ``pages`` or ``bytes`` of the allocations; ``live``, pages still allocated at the end of
    the time looked at; ``byte-seconds`` held within it, rounded. Raises TraceError.
    """
    labels = Labels(view)
    if weight in ("live", "byte-seconds"):
        from tracereplay.analysis.lifetime_totals import totals_by_stack

        held = pl.col("live_pages" if weight == "live" else "byte_seconds")
        found = totals_by_stack(view).with_columns(value=held.round().cast(pl.Int64))
    else:
        value = {"requests": pl.col("n"), "pages": pl.col("pages"), "bytes": pl.col("pages") * page_size(view)}
        found = sites(view, labels).with_columns(value[weight].cast(pl.Int64).alias("value"))
    return (
        stack_lists(found, labels)
        .group_by("stack")
        .agg(pl.col("value").sum())
        .filter(pl.col("value") > 0)
        .sort("value", pl.col("stack").list.join(";"), descending=[True, False])
    )
