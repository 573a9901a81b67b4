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
from tracereplay.errors import OutputExistsError, StorageError, TraceNotFoundError, TracereplayError, UsageError

if TYPE_CHECKING:
    from tracereplay.report.data import Comparison
    from tracereplay.report.tracedata import TraceData


def run(
    source: Annotated[
        Path, typer.Argument(help="A trace, or the results of a replay (-o results.json).", metavar="TRACE|RESULTS")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page to write [default: SOURCE with .html].")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Heading of the page.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Results: prices of this profile instead, a name or a TOML file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output file.")] = False,
) -> None:
    """Write one self-contained HTML page about a trace or a replay's results.

    Example:

    tracereplay replay web.trace -s per-page -s bulk -o results.json

    tracereplay report results.json -o report.html

    tracereplay report results.json --profile mine.toml -o mine.html
    """
    path = output if output is not None else source.with_suffix(".html")
    if (path.exists() or path.is_symlink()) and not (force and path.is_file()):
        raise OutputExistsError(path)
    if not path.absolute().parent.is_dir():
        raise StorageError(f"no directory {path.absolute().parent}", hint="create it, or choose another path")
    comparison, trace = _read(source, profile)
    from tracereplay import __version__
    from tracereplay.report.html import render

    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = render(
        comparison,
        trace,
        title=title or _title(comparison, trace, source),
        made=f"Made by tracereplay {__version__}, {now}",
        made_by=shlex.join(["tracereplay", *sys.argv[1:]]),
    )
    _write(path, page)
    emit(str(path))


def _read(source: Path, profile: str | None) -> tuple[Comparison | None, TraceData | None]:
    """Data of the results and of their trace, as far as there are any."""
    from tracereplay.cost.priced import repriced
    from tracereplay.cost.profile import load_profile
    from tracereplay.report.data import build_comparison
    from tracereplay.report.results import load_results
    from tracereplay.report.tracedata import build_trace_data
    from tracereplay.trace.reader import Trace

    if source.is_dir() and profile is not None:
        raise UsageError("a trace has no prices", hint="replay it, and give its results: tracereplay replay -o FILE")
    if source.is_dir():
        return None, build_trace_data(Trace.open(source))
    if not source.is_file():
        raise TraceNotFoundError(f"no such trace or results: {source}", hint="give a trace directory or a results file")
    result = load_results(source)
    if profile is not None:
        result = repriced(result, load_profile(profile))
    comparison = build_comparison(result)
    recorded = Path(str(result["trace"].get("path") or ""))
    try:
        trace = Trace.open(recorded)
        if trace.metadata.trace_id == result["trace"].get("id"):
            return comparison, build_trace_data(trace)
        note(f"note: {recorded} is another trace by now; the report goes without its charts")
    except TracereplayError as error:
        note(f"note: the report goes without the charts of its trace: {error.message}")
    return comparison, None


def _title(comparison: Comparison | None, trace: TraceData | None, source: Path) -> str:
    if comparison is not None:
        names = ", ".join(s.label for s in comparison.strategies)
        return f"{names} on {Path(comparison.trace_path or source).name}"
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
