"""Allocation stacks for flame graphs: folded lines (flamegraph.pl) and speedscope.

Folded: functions from the outermost joined by ``;``, a blank, an integer (``stackcollapse-perf.pl`` of
github.com/brendangregg/FlameGraph). Speedscope: its JSON schema,
https://www.speedscope.app/file-format-schema.json, one sampled profile.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from tracereplay import __version__
from tracereplay.errors import EmptyTraceError

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

WEIGHTS = {"requests": "allocations", "pages": "pages allocated", "bytes": "bytes allocated"}
"""What a stack counts for."""
PAGE_BYTES = 4096
SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_UNITS = {"bytes": "bytes"}
NO_STACK = "(no stack)"


@dataclass(slots=True)
class Folded:
    """What was written."""

    stacks: int
    total: int
    without: int
    """Of the total, what has no stack."""


def weighted_stacks(view: View, weight: str) -> pl.DataFrame:
    """``stack`` (list of functions, outermost first) and ``value``, largest first. Allocations without a stack are one
    of their own.

    Raises EmptyTraceError when the view keeps no allocation, or none of them has a stack.
    """
    pages = 2 ** pl.col("order").fill_null(0).cast(pl.Int64)
    page_bytes = int(view.trace.metadata.host.get("page_size", PAGE_BYTES))
    value = {"requests": pl.len().cast(pl.Int64), "pages": pages.sum(), "bytes": pages.sum() * page_bytes}[weight]
    found = (
        view.events("page_events")
        .filter(pl.col("kind").cast(pl.String) == "alloc")
        .group_by("stack_id")
        .agg(value.alias("value"))
        .collect(engine="streaming")
    )
    if not found["stack_id"].count():
        what = "allocation that the filters keep" if view.selection.used else "allocation"
        raise EmptyTraceError(f"no {what} has a stack", hint="record them with: tracereplay capture --stacks")
    return (
        found.join(view.callers().select("stack_id", "stack"), on="stack_id", how="left")
        .with_columns(pl.col("stack").fill_null([NO_STACK]))
        .group_by("stack")
        .agg(pl.col("value").sum())
        .sort("value", pl.col("stack").list.join(";"), descending=[True, False])
    )


def _account(rows: pl.DataFrame) -> Folded:
    without = sum(value for stack, value in rows.rows() if stack == [NO_STACK])
    return Folded(len(rows), int(rows["value"].sum()), int(without))


def write_folded(view: View, out: BinaryIO, weight: str) -> Folded:
    """A line for each stack."""
    rows = weighted_stacks(view, weight)
    for stack, value in rows.rows():
        if value:
            out.write(f"{';'.join(map(_frame, stack))} {value}\n".encode())
    return _account(rows)


def _frame(name: str) -> str:
    """A function's name without what separates frames and lines."""
    return " ".join(name.replace(";", ":").split()) or "?"


def write_speedscope(view: View, out: BinaryIO, weight: str, *, name: str) -> Folded:
    """One profile with a sample for each stack."""
    rows = weighted_stacks(view, weight)
    numbers: dict[str, int] = {}
    samples = [[numbers.setdefault(f, len(numbers)) for f in stack] for stack in rows["stack"].to_list()]
    weights = rows["value"].to_list()
    document = {
        "$schema": SCHEMA,
        "name": name,
        "exporter": f"tracereplay {__version__}",
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": f} for f in numbers]},
        "profiles": [
            {
                "type": "sampled",
                "name": f"{name}: {WEIGHTS[weight]}",
                "unit": _UNITS.get(weight, "none"),
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        ],
    }
    out.write(json.dumps(document, allow_nan=False, separators=(",", ":")).encode())
    return _account(rows)
