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
from tracereplay.analysis.page_sites import NO_STACK, weighted_stacks
from tracereplay.errors import EmptyTraceError

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

WEIGHTS = {
    "pages": "pages allocated",
    "requests": "allocations",
    "bytes": "bytes allocated",
    "live": "pages live at the end",
    "byte-seconds": "byte-seconds held",
}
"""What a stack counts for."""
SCHEMA = "https://www.speedscope.app/file-format-schema.json"


@dataclass(slots=True)
class Folded:
    """What was written."""

    stacks: int
    total: int
    without: int
    """Of the total, what has no stack."""


def _stacks(view: View, weight: str) -> pl.DataFrame:
    """``stack`` (list of functions, outermost first) and ``value``, largest first.

    Raises EmptyTraceError when the view keeps no allocation.
    """
    found = weighted_stacks(view, weight)
    if not len(found):
        what = "allocation that the filters keep" if view.selection.used else "allocation"
        raise EmptyTraceError(f"the trace has no {what}", hint="record them with: tracereplay capture --events page")
    return found


def _account(rows: pl.DataFrame) -> Folded:
    without = sum(value for stack, value in rows.rows() if stack[0] == NO_STACK)
    return Folded(len(rows), int(rows["value"].sum()), int(without))


def write_folded(view: View, out: BinaryIO, weight: str) -> Folded:
    """A line for each stack."""
    rows = _stacks(view, weight)
    for stack, value in rows.rows():
        out.write(f"{';'.join(map(_frame, stack))} {value}\n".encode())
    return _account(rows)


def _frame(name: str) -> str:
    """A function's name without what separates frames and lines."""
    return " ".join(name.replace(";", ":").split()) or "?"


def write_speedscope(view: View, out: BinaryIO, weight: str, *, name: str) -> Folded:
    """One profile with a sample for each stack."""
    rows = _stacks(view, weight)
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
                "unit": "bytes" if weight == "bytes" else "none",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        ],
    }
    out.write(json.dumps(document, allow_nan=False, separators=(",", ":")).encode())
    return _account(rows)
