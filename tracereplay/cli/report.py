"""``tracereplay report``."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import emit, note

if TYPE_CHECKING:
    from tracereplay.report.html import Report

CHECK_S = 5.0


def run(
    source: Annotated[
        str,
        typer.Argument(
            help="A trace, the results of a replay (-o results.json), or the table of a sweep (-o sweep.parquet).",
            metavar="TRACE|RESULTS|SWEEP",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="The page to write [default: SOURCE with .html; of a URL, here]."),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Heading of the page.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Results: prices of this profile instead, a name or a TOML file.")
    ] = None,
    svg: Annotated[
        str | None, typer.Option("--svg", metavar="DIR", help="Also write each picture there, as an SVG file.")
    ] = None,
    check: Annotated[
        float,
        typer.Option(
            "--check",
            metavar="SECONDS",
            min=0,
            help="Results and sweeps: time for checking the machine on their trace.",
        ),
    ] = CHECK_S,
    verified: Annotated[
        str | None,
        typer.Option("--verified", metavar="FILE", help="That check, made before: verify TRACE -o FILE."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output file.")] = False,
) -> None:
    """Write one self-contained HTML page about a trace, a replay's results or a sweep.

    Example:

    tracereplay replay web.trace -s per-page -s bulk -o results.json

    tracereplay report results.json -o report.html --svg plots

    tracereplay whatif web.trace -s per-page -s bulk --grid pcp.batch=31,63,127 -o sweep.parquet

    tracereplay report sweep.parquet
    """
    from tracereplay.trace.outputs import check_file, write_text
    from tracereplay.trace.store import is_url, name_of

    path = output or str(Path(name_of(source) if is_url(source) else source).with_suffix(".html"))
    check_file(path, force=force)
    from tracereplay import __version__
    from tracereplay.report.assemble import report_of
    from tracereplay.report.html import render
    from tracereplay.report.picture import write_pictures

    made_by = shlex.join(["tracereplay", *sys.argv[1:]])
    report = report_of(source, made_by, note, profile=profile, check_s=check, verified=verified)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = render(report, title=title or _title(report, source), made=f"Made by tracereplay {__version__}, {now}")
    write_text(path, page)
    emit(path)
    if svg is not None:
        for picture in write_pictures(report.files, svg, report.accuracy.line if report.accuracy else ""):
            emit(picture)


def _title(report: Report, source: str) -> str:
    from tracereplay.trace.store import name_of

    if report.comparison is not None:
        names = ", ".join(s.label for s in report.comparison.strategies)
        return f"{names} on {name_of(report.comparison.trace_path or source)}"
    if report.sweep is not None:
        axes = " and ".join(multiple.axis for multiple in report.sweep.multiples)
        return f"{', '.join(report.sweep.labels)} by {axes or 'strategy'}"
    return f"Trace {name_of(source)}"
