"""``tracereplay query``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tracereplay.cli.console import Format, emit, emit_frame, json_rows, note
from tracereplay.cli.units import size
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.trace.reader import Trace
    from tracereplay.trace.sql import Extra, Source

TABLE_ROWS = 100


def run(
    words: Annotated[
        list[str],
        typer.Argument(
            help="Trace to query, several, or a directory of them; then one SELECT statement.", metavar="TRACE... [SQL]"
        ),
    ],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read the statement from a file; - is stdin.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="Form of the result.")] = Format.TABLE,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Write the result to a file, streaming: .parquet, .csv or .ndjson."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option("--rows", min=1, help=f"At most so many rows; a table shows {TABLE_ROWS} by default."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Give up beyond so much memory, e.g. 2GiB; default: what is free.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the query plan instead.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the --output file.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Of several traces: stop at the first that fails.")] = False,
) -> None:
    """Ask a trace in SQL. Tables by their names; `tracereplay info --schema` lists them.

    lifetimes, requests, io and refills are made from the events when a statement first names them.

    Of several traces, tables are those of all, with columns host, date and trace in front.

    How complete the trace is goes to standard error, whatever the form of the result.

    Example:

    tracereplay query web.trace "SELECT kind, COUNT(*) AS n FROM page_events
    GROUP BY kind ORDER BY n DESC"
    """
    traces, statement = _statement(words, file)
    if output is not None:
        from tracereplay.trace.outputs import check_file

        check_file(output, force=force)
    from tracereplay.trace.fleet import is_fleet
    from tracereplay.trace.sql import Statement

    asked = _fleet(traces, strict=strict) if is_fleet(traces) else _trace(traces[0])
    if explain:
        plan = Statement(asked.source, statement, asked.extra)
        emit(plan.explain(asked.ready))
        for name in plan.tables:
            if not asked.ready(name):
                note(f"note: table {name} is not made yet; running the statement makes it, once")
        return
    limit = None if memory is None else size(memory)
    if output is not None:
        _sink(asked.source, statement, rows, asked.extra, limit, output)
    else:
        _show(asked.source, statement, rows, asked.extra, limit, format)
    asked.remark()


class _Asked(NamedTuple):
    """What a statement is put to."""

    source: Trace | Source
    extra: Extra
    ready: Callable[[str], bool]
    """A table is there, or need not be made."""
    remark: Callable[[], None]
    """Says how complete it is."""


def _trace(location: str) -> _Asked:
    from tracereplay.analysis.derived import is_ready
    from tracereplay.analysis.ready_tables import READY_TABLES
    from tracereplay.analysis.sql_tables import sql_tables
    from tracereplay.trace.completeness import completeness
    from tracereplay.trace.reader import Trace

    opened = Trace.open(location)
    return _Asked(
        opened,
        sql_tables(opened, note=note),
        lambda name: name not in READY_TABLES or is_ready(opened, name),
        lambda: note(completeness(opened).text()),
    )


def _fleet(locations: list[str], *, strict: bool) -> _Asked:
    from tracereplay.analysis.derived import is_ready
    from tracereplay.analysis.ready_tables import READY_TABLES
    from tracereplay.analysis.sql_fleet import FleetTables
    from tracereplay.cli.fleet_view import fleet_of, remark, warn_of

    fleet = fleet_of(locations, strict=strict)
    tables = FleetTables(fleet, strict=strict, note=note)

    def said() -> None:
        warn_of(tables.failures)
        remark(fleet.members, tables.failures)

    return _Asked(
        tables.source,
        tables.extra,
        lambda name: name not in READY_TABLES or all(is_ready(m.open(), name) for m in fleet.members),
        said,
    )


def _show(
    trace: Trace | Source, statement: str, rows: int | None, extra: Extra, memory: int | None, format: Format
) -> None:
    from tracereplay.trace.sql_run import batches
    from tracereplay.trace.sql_run import run as run_sql

    if format is Format.TABLE:
        limit = rows or TABLE_ROWS
        frame = run_sql(trace, statement, rows=limit + 1, extra=extra, memory=memory)
        _table(frame.head(limit))
        if len(frame) > limit:
            note(f"note: only the first {limit} rows; --rows N, --format csv or -o FILE.parquet for more")
    elif format is Format.PARQUET:
        emit_frame(run_sql(trace, statement, rows=rows, extra=extra, memory=memory), format)
    else:
        _stream(batches(trace, statement, rows=rows, extra=extra, memory=memory), format)


def _stream(pieces: Iterator[pl.DataFrame], format: Format) -> None:
    """CSV or JSON, a piece at a time."""
    first = True
    for piece in pieces:
        if format is Format.CSV:
            if first or len(piece):
                emit(piece.write_csv(include_header=first))
            first = False
        elif len(piece):
            rows = json_rows(piece.to_dicts())
            emit(f"[\n{rows}" if first else f",\n{rows}", end="")
            first = False
    if format is Format.JSON:
        emit("[]" if first else "\n]")


def _statement(words: list[str], file: Path | None) -> tuple[list[str], str]:
    """Traces and the statement: the last word, unless a file has it."""
    asked = 0 if file is None else 1
    if len(words) < 2 - asked or (file is not None and _is_sql(words[-1])):
        raise UsageError(
            "give the statement either as an argument or with --file",
            hint='for example: tracereplay query TRACE "SELECT COUNT(*) FROM page_events"',
        )
    if file is None:
        return words[:-1], words[-1]
    if str(file) == "-":
        return words, sys.stdin.read()
    try:
        return words, file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}", hint="give a text file that holds one SELECT") from None


def _is_sql(word: str) -> bool:
    from tracereplay.trace.sql import READING_STATEMENTS

    return " " in word and word.split()[0].upper() in READING_STATEMENTS


def _table(frame: pl.DataFrame) -> None:
    """As a table without its all-null columns, which would push the rest off the screen."""
    empty = [name for name in frame.columns if len(frame) and frame[name].null_count() == len(frame)]
    emit_frame(frame.drop(empty) if len(empty) < len(frame.columns) else frame, Format.TABLE)
    if empty and len(empty) < len(frame.columns):
        note(f"note: only nulls in: {', '.join(empty)}")


def _sink(
    trace: Trace | Source, statement: str, rows: int | None, extra: Extra, memory: int | None, output: str
) -> None:
    from tracereplay.trace.sql_run import sink

    sink(trace, statement, output, rows=rows, extra=extra, memory=memory)
    note(f"wrote {output}")
