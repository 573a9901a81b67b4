"""SQL over a trace: Polars' SQLContext on lazy scans of its tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tracereplay.errors import QueryError, StorageError, TruncatedTraceError, nearest
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import TABLES

if TYPE_CHECKING:
    import polars as pl

READING_STATEMENTS = ("SELECT", "WITH", "FROM", "VALUES", "SHOW")
"""First words of statements that only read."""
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def metadata_frame(trace: Trace) -> pl.DataFrame:
    """Table ``metadata``: ``key`` (``host.release``, ``clock.name``, ``complete`` ...), ``value`` as JSON
    text.
    """
    import polars as pl

    pairs: list[tuple[str, str]] = [("complete", json.dumps(trace.complete))]
    for name, value in trace.metadata.to_json().items():
        if isinstance(value, dict):
            pairs += [(f"{name}.{key}", json.dumps(inner)) for key, inner in value.items()]
        else:
            pairs.append((name, json.dumps(value)))
    return pl.DataFrame(pairs, schema={"key": pl.String, "value": pl.String}, orient="row")


def plan(trace: Trace, sql: str) -> pl.LazyFrame:
    """The lazy result of one SELECT over the tables of a trace.

    Dictionary columns are strings here, so that every SQL function works on them. A table that the trace does
    not hold is empty. Raises QueryError for anything but one statement that reads, for syntax, for unknown
    names.
    """
    import polars as pl
    from polars.exceptions import PolarsError

    bare = _COMMENTS.sub(" ", sql).strip().rstrip(";").strip()
    word = re.match(r"[(\s]*(\w*)", bare)
    if word is None or word[1].upper() not in READING_STATEMENTS:
        raise QueryError(
            f"not a query: it starts with {word[1] if word and word[1] else bare[:20]!r}",
            hint="write one SELECT; a trace is never changed by a query",
        )
    used = [name for name in TABLES if re.search(rf"\b{name}\b", bare)]
    frames: dict[str, pl.DataFrame | pl.LazyFrame] = {"metadata": metadata_frame(trace)}
    for name in TABLES:
        # Only tables that the statement names are opened: a damaged one must not stop queries on the others.
        frames[name] = _strings(trace.table(name)) if name in used else _empty(name)
    try:
        result = pl.SQLContext(frames).execute(bare, eager=False)
        result.collect_schema()
    except PolarsError as error:
        raise _refused(error, trace) from None
    return result


def run(trace: Trace, sql: str, *, rows: int | None = None) -> pl.DataFrame:
    """Run one SELECT with the streaming engine; at most ``rows`` rows of the result.

    Raises QueryError, TruncatedTraceError when a file turns out damaged while it is read.
    """
    from polars.exceptions import PolarsError

    lazy = plan(trace, sql)
    try:
        return (lazy if rows is None else lazy.head(rows)).collect(engine="streaming")
    except (PolarsError, OSError) as error:
        raise _failed(error, trace) from None


def _failed(error: Exception, trace: Trace) -> QueryError | TruncatedTraceError:
    text = str(error)
    if isinstance(error, OSError) or "parquet" in text.lower() or "decompress" in text.lower():
        return TruncatedTraceError(
            f"a file of {trace.path} is damaged: {_first_line(text)}",
            hint=f"`tracereplay validate {trace.path}` says which one",
        )
    return _refused(error, trace)


def _refused(error: Exception, trace: Trace) -> QueryError:
    """A Polars error as one line, with the nearest name where a name is unknown."""
    text = _first_line(str(error))
    hint = "`tracereplay info --schema` lists tables and columns"
    if found := re.search(r"relation '([^']+)' was not found", text):
        guess = nearest(found[1], [*TABLES, "metadata"])
        text = f"no table {found[1]!r}"
        hint = f"did you mean {guess!r}?" if guess else f"tables: {', '.join([*TABLES, 'metadata'])}"
    elif found := re.search(r'(?:unable to find column|column) "([^"]+)"', text):
        known = sorted({name for table in TABLES.values() for name in table.schema.names} | {"key", "value"})
        guess = nearest(found[1], known)
        text = f"no column {found[1]!r}"
        hint = f"did you mean {guess!r}?" if guess else hint
    elif "sql parser error" in text:
        text = text.removeprefix("sql parser error: ")
        hint = "SQL as Polars reads it: https://docs.pola.rs/api/python/stable/reference/sql"
    return QueryError(f"the query is refused: {text}", hint=hint)


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "unknown error"
    return line if len(line) <= 200 else line[:197] + "..."


def _strings(frame: pl.LazyFrame) -> pl.LazyFrame:
    import polars as pl

    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def _empty(name: str) -> pl.LazyFrame:
    import polars as pl

    frame = pl.from_arrow(TABLES[name].schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return _strings(frame.lazy())


def sink_parquet(trace: Trace, lazy: pl.LazyFrame, output: Path) -> None:
    """Stream a result to a Parquet file, which appears only when it is whole.

    Raises QueryError, TruncatedTraceError, StorageError when the disk refuses.
    """
    from polars.exceptions import PolarsError

    temporary = output.with_name(f".{output.name}.tmp")
    try:
        lazy.sink_parquet(temporary, compression="zstd", engine="streaming")
        temporary.replace(output)
    except PolarsError as error:
        raise _failed(error, trace) from None
    except OSError as error:
        raise StorageError(
            f"cannot write {output}: {error.strerror or _first_line(str(error))}",
            hint="free some space, or choose another path",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
