"""SQL over a trace, or over many: Polars' SQLContext on lazy scans of its tables."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracereplay.errors import QueryError, TruncatedTraceError, nearest
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import TABLES

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

READING_STATEMENTS = ("SELECT", "WITH", "FROM", "VALUES", "SHOW")
"""First words of statements that only read."""
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ExtraTable:
    """A table that is not in the bundle: a statement that names it opens it."""

    schema: pa.Schema
    scan: Callable[[], pl.LazyFrame]
    """Opens it; may take long, as it may have to be made first."""


Extra = Mapping[str, ExtraTable]


@dataclass(frozen=True, slots=True)
class Source:
    """What a statement reads: the tables of a trace, or those of many below each other."""

    location: str
    """What messages call it."""
    table: Callable[[str], pl.LazyFrame]
    """Opens a table of the schema."""
    metadata: Callable[[], pl.DataFrame]
    """Table ``metadata``."""
    lead: tuple[str, ...] = ()
    """Texts that stand before the columns of every table, and say which trace a row is of."""

    @classmethod
    def of(cls, trace: Trace | Source) -> Source:
        """A trace by itself; a source as it is."""
        return trace if isinstance(trace, Source) else cls(trace.location, trace.table, lambda: metadata_frame(trace))

    def schema(self, table: pa.Schema) -> pa.Schema:
        """The columns of a table here."""
        import pyarrow as pa

        own = [field for field in table if field.name not in self.lead]
        return pa.schema([*(pa.field(name, pa.string()) for name in self.lead), *own])


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


class Statement:
    """One SELECT, checked against the tables of a trace or of many; nothing is read or made yet.

    Dictionary columns are strings, so that every SQL function works on them. A table that the trace does not hold is
    empty.
    """

    def __init__(self, trace: Trace | Source, sql: str, extra: Extra | None = None) -> None:
        """Raises QueryError for anything but one statement that reads, for syntax, for unknown names."""
        self._source = Source.of(trace)
        self._extra: Extra = extra or {}
        self._place = f"/tracereplay-{uuid.uuid4().hex}/"
        self._sql = _COMMENTS.sub(" ", sql).strip().rstrip(";").strip()
        word = re.match(r"[(\s]*(\w*)", self._sql)
        if word is None or word[1].upper() not in READING_STATEMENTS:
            raise QueryError(
                f"not a query: it starts with {word[1] if word and word[1] else self._sql[:20]!r}",
                hint="write one SELECT; a trace is never changed by a query",
            )
        # Which tables it reads is asked of Polars itself: a name may also be an alias, a CTE, a column or a string.
        self._unopened = self._execute({})
        text = self._unopened.explain(optimized=False)
        self.tables: list[str] = [n for n in (*TABLES, *self._extra) if f"{self._place}{n}.parquet" in text]
        """Tables that it reads."""

    def _execute(self, frames: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
        import polars as pl
        from polars.exceptions import PolarsError

        known: dict[str, pl.DataFrame | pl.LazyFrame] = {"metadata": self._metadata()}
        for name in (*TABLES, *self._extra):
            known[name] = _strings(frames[name] if name in frames else self._stand_in(name, self._schema(name)))
        try:
            result = pl.SQLContext(known).execute(self._sql, eager=False)
            result.collect_schema()
        except PolarsError as error:
            raise _refused(error, self._names()) from None
        return result

    def _metadata(self) -> pl.DataFrame:
        """Table ``metadata`` where the statement may name it; of many traces it means opening each."""
        import polars as pl

        if "metadata" in self._sql.lower():
            return self._source.metadata()
        return pl.DataFrame(schema=dict.fromkeys((*self._source.lead, "key", "value"), pl.String))

    def _schema(self, name: str) -> pa.Schema:
        return self._source.schema(TABLES[name].schema if name in TABLES else self._extra[name].schema)

    def _open(self, name: str) -> pl.LazyFrame:
        return self._source.table(name) if name in TABLES else self._extra[name].scan()

    def _stand_in(self, name: str, schema: pa.Schema) -> pl.LazyFrame:
        """A scan of a file that there is not, which the plan shows by its path."""
        import polars as pl

        empty = pl.from_arrow(schema.empty_table())
        assert isinstance(empty, pl.DataFrame)
        return pl.scan_parquet(f"{self._place}{name}.parquet", schema=empty.schema, glob=False)

    def lazy(self) -> pl.LazyFrame:
        """The result, not computed. Opens the tables that it reads, and makes those that have to be made.

        A damaged table does not stop statements that do not read it; one that does raises TruncatedTraceError.
        """
        frames = {name: self._open(name) for name in self.tables}
        return self._execute(frames) if frames else self._unopened

    def explain(self, ready: Callable[[str], bool] = lambda _name: True) -> str:
        """The plan. A table that would first have to be made (not ``ready``) stands in it under its name."""
        missing = [name for name in self.tables if name in self._extra and not ready(name)]
        frames = {name: self._open(name) for name in self.tables if name not in missing}
        return self._execute(frames).explain(engine="streaming").replace(self._place, "not made yet: ")

    def _names(self) -> dict[str, list[str]]:
        found = {name: list(self._schema(name).names) for name in (*TABLES, *self._extra)}
        return found | {"metadata": [*self._source.lead, "key", "value"]}

    def failed(self, error: Exception) -> QueryError | TruncatedTraceError:
        """What to raise when computing the result failed."""
        text = str(error)
        if isinstance(error, OSError) or "parquet" in text.lower() or "decompress" in text.lower():
            where = self._source.location
            which = f"`tracereplay validate {where}` says which one; derived/ may be removed at will"
            return TruncatedTraceError(
                f"a file of {where} is damaged: {_first_line(text)}",
                hint="leave its trace out" if self._source.lead else which,
            )
        return _refused(error, self._names())


def plan(trace: Trace | Source, sql: str, extra: Extra | None = None) -> pl.LazyFrame:
    """The lazy result of one SELECT over the tables of a trace. Raises as :class:`Statement`."""
    return Statement(trace, sql, extra).lazy()


def _refused(error: Exception, names: Mapping[str, list[str]]) -> QueryError:
    """A Polars error as one line, with the nearest name where a name is unknown."""
    text = _first_line(str(error))
    hint = "`tracereplay info --schema` lists tables and columns"
    if found := re.search(r"relation '([^']+)' was not found", text):
        guess = nearest(found[1], names)
        text = f"no table {found[1]!r}"
        hint = f"did you mean {guess!r}?" if guess else f"tables: {', '.join(names)}"
    elif found := re.search(r'(?:unable to find column|column) "([^"]+)"', text):
        guess = nearest(found[1], sorted({column for columns in names.values() for column in columns}))
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
