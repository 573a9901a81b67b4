"""``tracereplay diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracereplay.cli.console import Format, emit_frame, emit_json, note


def run(
    a: Annotated[Path, typer.Argument(help="The trace before.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="The trace after.", metavar="B")],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Figures of this group: pages, lifetimes, callers, refills, io or stalls."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the intervals' draws.")] = 0,
    format: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
) -> None:
    """Compare two traces: before and after a kernel, a setting, a release.

    Rates, pages per request, lifetimes, latencies, refills, failures and callers of both, their ratio with a 95 %
    interval, and whether that is beyond what such traces vary by.

    Example:

    tracereplay diff before.trace after.trace

    tracereplay diff before.trace after.trace --only io --format json
    """
    from tracereplay.analysis.diff import diff
    from tracereplay.trace.completeness import completeness
    from tracereplay.trace.reader import Trace

    traces = (Trace.open(a), Trace.open(b))
    found = diff(*traces, only=only or (), seed=seed, note=note)
    complete = [completeness(trace) for trace in traces]
    if format is Format.JSON:
        sides = [
            {**trace.identity(), "completeness": said.to_json()} for trace, said in zip(traces, complete, strict=True)
        ]
        emit_json({"schema": 1, "a": sides[0], "b": sides[1], "figures": found.frame.to_dicts(), "notes": found.notes})
        return
    emit_frame(found.frame.drop("group") if format is Format.TABLE else found.frame, format)
    for text in found.notes:
        note(f"note: {text}")
    for name, said in zip("AB", complete, strict=True):
        note(f"{name}: {said.text()}")
