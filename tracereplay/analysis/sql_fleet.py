"""Tables of many traces below each other, as SQL sees them: with host, date and the other partitions in front."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tracereplay.analysis.derived import derived_file
from tracereplay.analysis.ready_tables import CALLERS, READY_TABLES, arrow_schema
from tracereplay.analysis.sql_tables import sql_tables
from tracereplay.errors import EmptyTraceError, TracereplayError, UsageError
from tracereplay.trace.fleet import HOST, Failure, Fleet, Member
from tracereplay.trace.schema import TABLES
from tracereplay.trace.sql import ExtraTable, Source, metadata_frame

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from tracereplay.analysis.derived import Note
    from tracereplay.trace.files import Bundle
    from tracereplay.trace.reader import Trace

_FILE = "file of the row"


class FleetTables:
    """The tables of a fleet. Nothing is opened before a statement names it."""

    def __init__(self, fleet: Fleet, *, strict: bool = False, note: Note | None = None) -> None:
        """``strict``: a trace whose table cannot be read ends the statement; else it is among :attr:`failures`.

        Raises UsageError where a partition is named like a column of a table.
        """
        self._fleet = fleet
        self._strict = strict
        self._note = note
        self.failures: list[Failure] = list(fleet.failures)
        self._held: list[Bundle] = []
        """Files that were fetched for a frame stay while it may be used."""
        self.source = Source(
            f"a fleet of {len(fleet.members)} traces", self._table, self._metadata, lead=tuple(fleet.names)
        )
        self.extra = {
            name: ExtraTable(schema, partial(self._ready, name, schema)) for name, schema in _ready_schemas().items()
        }
        schemas = {name: table.schema for name, table in TABLES.items()} | _ready_schemas()
        for name, schema in schemas.items():
            if clash := [key for key in fleet.names if key in schema.names and key != HOST]:
                raise UsageError(
                    f"partition {clash[0]}= of the fleet has the name of a column of table {name}",
                    hint="name its directories otherwise",
                )

    def _table(self, name: str) -> pl.LazyFrame:
        """A table of the schema. Files of all traces are one scan, so that memory does not grow with their number."""
        return self._gathered(TABLES[name].schema, lambda trace: _files(trace, name))

    def _ready(self, name: str, schema: pa.Schema) -> pl.LazyFrame:
        if name in READY_TABLES:
            return self._gathered(schema, lambda trace: [derived_file(trace, name, note=self._note)])
        return self._gathered(schema, lambda trace: sql_tables(trace)[name].scan())

    def _metadata(self) -> pl.DataFrame:
        import polars as pl

        return pl.concat(_led(metadata_frame(m.open()).lazy(), self._fleet, m) for m in self._fleet.members).collect()

    def _gathered(self, schema: pa.Schema, opened: Callable[[Trace], list[Path] | pl.LazyFrame]) -> pl.LazyFrame:
        """What is opened of each trace, below each other."""
        import polars as pl

        frames: list[pl.LazyFrame] = []
        owners: dict[str, Member] = {}
        for member in self._fleet.members:
            try:
                trace = member.open()
                self._held.append(trace.bundle)
                found = opened(trace)
            except EmptyTraceError:
                continue  # no such events: no rows
            except TracereplayError as error:
                if self._strict:
                    raise
                self.failures.append(Failure(member.location, error.message, member.host))
                continue
            if isinstance(found, list):
                owners |= dict.fromkeys(map(str, found), member)
            else:
                frames.append(_led(found, self._fleet, member))
        empty = pl.from_arrow(self.source.schema(schema).empty_table())
        assert isinstance(empty, pl.DataFrame)
        if owners or not frames:
            frames.append(_scanned(schema, owners, self._fleet) if owners else _texts(empty.lazy()))
        return pl.concat(frames) if len(frames) > 1 else frames[0]


def _files(trace: Trace, table: str) -> list[Path] | pl.LazyFrame:
    """Files of a table, once it is sure that they can be read; rows where a trace of several hosts holds them."""
    if trace.host is not None:
        return trace.table(table)
    parts = trace.files.get(table, [])
    for part in parts:
        part.check()
    return [part.path for part in parts]


def _scanned(schema: pa.Schema, owners: dict[str, Member], fleet: Fleet) -> pl.LazyFrame:
    """Files as one scan, each row with the columns of the trace that its file is of."""
    import polars as pl

    empty = pl.from_arrow(schema.empty_table())
    assert isinstance(empty, pl.DataFrame)
    scan = pl.scan_parquet(
        list(owners),
        glob=False,
        schema=empty.schema,
        missing_columns="insert",
        extra_columns="ignore",
        include_file_paths=_FILE,
    )
    said = [m.columns() for m in owners.values()]
    lead = pl.LazyFrame(
        {_FILE: list(owners), **{n: [row.get(n) for row in said] for n in fleet.names}},
        schema=dict.fromkeys((_FILE, *fleet.names), pl.String),
    )
    return _texts(
        scan.select(pl.exclude(HOST))
        .join(lead, on=_FILE, how="left", maintain_order="left")
        .select(*fleet.names, pl.exclude(_FILE, *fleet.names))
    )


def _ready_schemas() -> dict[str, pa.Schema]:
    return {name: t.arrow_schema() for name, t in READY_TABLES.items()} | {"callers": arrow_schema(CALLERS)}


def _led(frame: pl.LazyFrame, fleet: Fleet, member: Member) -> pl.LazyFrame:
    import polars as pl

    said = member.columns()
    return _texts(frame.select(*(pl.lit(said.get(n), pl.String).alias(n) for n in fleet.names), pl.exclude(HOST)))


def _texts(frame: pl.LazyFrame) -> pl.LazyFrame:
    import polars as pl

    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))
