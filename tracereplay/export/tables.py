"""Tables of a trace as CSV or Parquet files, streamed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from polars import selectors as cs

from tracereplay.errors import EmptyTraceError, MissingTableError
from tracereplay.trace.outputs import written
from tracereplay.trace.schema import EVENT_TABLES, TABLES
from tracereplay.trace.store import Place

if TYPE_CHECKING:
    from tracereplay.analysis.view import View
    from tracereplay.trace.reader import Trace


def tables_of(view: View, table: str | None = None) -> list[str]:
    """Tables to write: the one asked for, or all that have rows. Raises MissingTableError, EmptyTraceError."""
    held = [name for name in TABLES if view.trace.rows(name)]
    if table is not None:
        if table not in TABLES:
            raise MissingTableError(table, list(TABLES))
        return [table]
    if not held:
        raise EmptyTraceError("the trace has no rows in any table", hint="tracereplay info TRACE says what it is")
    return held


def frame_of(view: View, table: str) -> pl.LazyFrame:
    """Rows of a table: of events those that the view keeps, of other tables all. Texts are strings; what is no number
    is null."""
    frame = view.events(table) if table in EVENT_TABLES else view.trace.table(table)
    finite = pl.when(cs.float().is_finite()).then(cs.float())
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String), finite)


def write_table(view: View, table: str, path: Place, to: str) -> None:
    """Write one table to a file. Raises StorageError, TruncatedTraceError."""
    frame = frame_of(view, table)
    with written(path) as made:
        _sink(frame, made, to)


def write_tables(view: View, tables: list[str], path: Place, to: str) -> None:
    """Write tables to a directory, a file each. Raises as :func:`write_table`."""
    with written(path) as made:
        made.mkdir()
        for table in tables:
            _sink(frame_of(view, table), made / f"{table}.{to}", to)


def write_query(trace: Trace, sql: str, path: Place, to: str) -> None:
    """Write the result of one SELECT, over the tables and those that are made from them, to a file.

    Raises QueryError, QueryMemoryError, StorageError, TruncatedTraceError.
    """
    from tracereplay.analysis.sql_tables import sql_tables
    from tracereplay.trace.sql_run import sink

    with written(path) as made:
        # The ending says the format to the query's own writer.
        ended = made.with_name(f"{made.name}.{to}")
        sink(trace, sql, ended, extra=sql_tables(trace))
        ended.replace(made)


def _sink(frame: pl.LazyFrame, path: Path, to: str) -> None:
    if to == "csv":
        frame.sink_csv(path, engine="streaming")
    else:
        frame.sink_parquet(path, compression="zstd", engine="streaming")
