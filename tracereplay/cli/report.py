"""``tracereplay report``."""

from __future__ import annotations

import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import emit, note
from tracereplay.errors import OutputExistsError, StorageError

if TYPE_CHECKING:
    from tracereplay.report.html import Report

CHECK_S = 5.0


def run(
    source: Annotated[
        Path,
        typer.Argument(
            help="A trace, the results of a replay (-o results.json), or the table of a sweep (-o sweep.parquet).",
            metavar="TRACE|RESULTS|SWEEP",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page to write [default: SOURCE with .html].")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Heading of the page.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Results: prices of this profile instead, a name or a TOML file.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="DIR", help="Also write each picture there, as an SVG file.")
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
        Path | None,
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
    path = output if output is not None else source.with_suffix(".html")
    if (path.exists() or path.is_symlink()) and not (force and path.is_file()):
        raise OutputExistsError(path)
    if not path.absolute().parent.is_dir():
        raise StorageError(f"no directory {path.absolute().parent}", hint="create it, or choose another path")
    from tracereplay import __version__
    from tracereplay.report.assemble import report_of
    from tracereplay.report.html import render
    from tracereplay.report.picture import write_pictures

    made_by = shlex.join(["tracereplay", *sys.argv[1:]])
    report = report_of(source, made_by, note, profile=profile, check_s=check, verified=verified)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = render(report, title=title or _title(report, source), made=f"Made by tracereplay {__version__}, {now}")
    _write(path, page)
    emit(str(path))
    if svg is not None:
        for picture in write_pictures(report.files, svg, report.accuracy.line if report.accuracy else ""):
            emit(str(picture))


def _title(report: Report, source: Path) -> str:
    if report.comparison is not None:
        names = ", ".join(s.label for s in report.comparison.strategies)
        return f"{names} on {Path(report.comparison.trace_path or source).name}"
    if report.sweep is not None:
        axes = " and ".join(multiple.axis for multiple in report.sweep.multiples)
        return f"{', '.join(report.sweep.labels)} by {axes or 'strategy'}"
    return f"Trace {source.name}"


def _write(path: Path, page: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}", hint="check space and rights there") from None
