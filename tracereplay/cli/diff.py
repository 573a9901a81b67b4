"""``tracereplay diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import Format, emit, emit_frame, emit_json, note

if TYPE_CHECKING:
    import polars as pl


def run(
    a: Annotated[str, typer.Argument(help="The trace before.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The trace after.", metavar="B")],
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
    if format is Format.TABLE:
        emit(_table(found.frame))
    else:
        emit_frame(found.frame, format)
    for text in found.notes:
        note(f"note: {text}")
    for name, said in zip("AB", complete, strict=True):
        note(f"{name}: {said.text()}")


def _table(frame: pl.DataFrame) -> str:
    """Figures with their units, as wide as the terminal."""
    import polars as pl

    from tracereplay.cli.analyze_table import in_unit, table, terminal_width
    from tracereplay.report.numbers import figure

    texts: dict[str, list[str]] = {"a": [], "b": [], "ratio": [], "95 %": []}
    for row in frame.iter_rows(named=True):
        write = in_unit(row["unit"])
        for side in "ab":
            texts[side].append("-" if row[side] is None else write(row[side]))
        texts["ratio"].append(figure(row["ratio"]))
        low, high = row["ratio_low"], row["ratio_high"]
        texts["95 %"].append("-" if low is None or high is None else f"{figure(low)} - {figure(high)}")
    wide = {name: max(map(len, values), default=0) for name, values in texts.items()}
    shown = {name: [v.rjust(wide[name]) for v in values] for name, values in texts.items()}
    return table(pl.DataFrame({"figure": frame["figure"], **shown, "verdict": frame["verdict"]}), terminal_width())
