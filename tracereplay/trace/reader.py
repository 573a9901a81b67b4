"""Reading a trace bundle: metadata, one lazy frame per table, and streaming batches for replay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracereplay.errors import MissingTableError, TraceError, nearest
from tracereplay.trace.ahead import ahead
from tracereplay.trace.columns import KINDS, fixed_kind, null_column
from tracereplay.trace.files import Bundle, PartFile, split_host, table_files
from tracereplay.trace.manifest import Manifest, read_manifest
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.schema import EVENT_TABLES, TABLES
from tracereplay.trace.store import is_url, path_of

if TYPE_CHECKING:
    import polars as pl

_AHEAD = 2
"""Batches decoded ahead of the consumer."""
_MOST_ROWS_AT_ONCE = 1 << 22
"""Our row groups are a quarter of this."""
_SHARE_ROWS = 1 << 18
"""Rows decoded at a time on each of several threads."""


class Trace:
    """A trace bundle, opened for reading. Opening reads the manifest only."""

    def __init__(self, bundle: Bundle, manifest: Manifest) -> None:
        self.bundle = bundle
        self.manifest = manifest
        self.files: dict[str, list[PartFile]] = table_files(bundle, manifest)
        """Files by table, in order; tables without a file are absent."""

        self.host: str | None = None
        """The host that was chosen of several."""

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """Open a bundle: a directory, or a URL that fsspec serves (``s3://bucket/web.trace``), whose files are fetched
        when their tables are first used; keep the trace while its frames are used.

        ``PATH#HOST`` is one host of a trace of several. Raises TraceNotFoundError, TraceFormatError,
        SchemaTooNewError, SchemaTooOldError, SeveralHostsError for a host that the trace does not hold. A damaged data
        file does not keep the rest from being used: the first use of its table raises TruncatedTraceError. A store that
        refuses, now or at the first use of a table, is a StorageError.
        """
        if is_url(path):
            from tracereplay.trace.remote import open_bundle

            url, mark, name = str(path).rpartition("#")
            host = name if mark else None
            opened = cls(*open_bundle(url if mark else str(path)))
        else:
            directory, host = split_host(path_of(path))
            opened = cls(Bundle(directory), read_manifest(directory))
        return opened if host is None else opened.select_host(host)

    # ------------------------------------------------------------ what it is
    @property
    def path(self) -> Path:
        """Its directory on this machine."""
        return self.bundle.path

    @property
    def location(self) -> str:
        """Where the user has it: what to call it in messages, and to open it by again."""
        return self.bundle.location

    @property
    def metadata(self) -> TraceMetadata:
        """Where the trace came from."""
        return self.manifest.metadata

    @property
    def complete(self) -> bool:
        """The writer ended as it should."""
        return self.manifest.complete

    @property
    def tables(self) -> list[str]:
        """Tables that hold at least one row, in schema order."""
        return [name for name in TABLES if self.rows(name)]

    @property
    def derived(self) -> Path:
        """Directory for caches of derived tables. It may not exist yet; removing it loses nothing."""
        return self.path / "derived"

    def rows(self, table: str) -> int:
        """Rows of a table; 0 when it is absent. Raises MissingTableError for a name that no trace has."""
        self._known(table)
        return sum(f.rows for f in self.files.get(table, []))

    @property
    def hosts(self) -> list[str]:
        """Names of the hosts of a trace of several; empty: it is of one."""
        return [str(entry["host"]) for entry in self.metadata.hosts]

    def select_host(self, name: str) -> Self:
        """What the trace holds of one of its hosts. Raises SeveralHostsError for one that it does not hold."""
        from tracereplay.trace.hosts import host_of

        return host_of(self, name)

    def _known(self, table: str) -> None:
        if table not in TABLES:
            raise MissingTableError(table, list(TABLES))

    def identity(self) -> dict[str, Any]:
        """What results say of their trace: id, path, source, kernel, host, events, duration_ns, complete."""
        meta = self.metadata
        ends = [b for t in EVENT_TABLES if (b := self.sort_range(t)) is not None]
        return {
            "id": meta.trace_id,
            "path": self.location,
            "source": meta.source,
            "kernel": meta.host.get("release"),
            "host": meta.host.get("hostname"),
            "events": {t: self.rows(t) for t in EVENT_TABLES if self.rows(t)},
            "duration_ns": max(b[1] for b in ends) - min(b[0] for b in ends) if ends else 0,
            "complete": self.complete,
        }

    def sort_range(self, table: str) -> tuple[int, int] | None:
        """First and last value of the sort column over the sound files; None for an empty table."""
        pairs = []
        for part in self.files.get(table, []):
            if part.entry is not None and part.entry.min is not None and part.entry.max is not None:
                pairs.append((part.entry.min, part.entry.max))
            elif not part.problem and (found := _statistics(part, TABLES[table].sorted_by or "")):
                pairs.append(found)
        return (min(p[0] for p in pairs), max(p[1] for p in pairs)) if pairs else None

    def loss_summary(self) -> dict[str, Any]:
        """Events lost: ``lost`` (None: some, the source does not say how many), ``intervals``, ``by_class``.

        Class ``stack`` counts stacks, not events, and is in ``by_class`` only.
        """
        lost: int | None = 0
        by_class: dict[str, int | None] = {}
        intervals = 0
        for batch in self.batches("loss", ["class", "n"]):
            for name, n in zip(batch.column("class").to_pylist(), batch.column("n").to_pylist(), strict=True):
                if n == 0:
                    continue
                intervals += 1
                so_far = by_class.get(name, 0)
                by_class[name] = None if n is None or so_far is None else so_far + n
                if name != "stack":
                    lost = None if n is None or lost is None else lost + n
        return {"lost": lost, "intervals": intervals, "by_class": dict(sorted(by_class.items()))}

    # ------------------------------------------------------------ reading
    def table(self, name: str, *, skip_damaged: bool = False) -> pl.LazyFrame:
        """A table as a lazy frame; an empty frame of its schema when the trace does not hold it.

        Raises MissingTableError for a name that no trace has, TruncatedTraceError when a file is damaged
        (``skip_damaged`` leaves such files out instead).
        """
        import polars as pl

        self._known(name)
        parts = self._fetched(name)
        parts = [p for p in parts if not (skip_damaged and p.problem)]
        for part in parts:
            part.check()
        empty = pl.from_arrow(TABLES[name].schema.empty_table())
        assert isinstance(empty, pl.DataFrame)
        if not parts:
            return empty.lazy()
        return pl.scan_parquet(
            [p.path for p in parts],
            glob=False,
            schema=empty.schema,
            missing_columns="insert",
            extra_columns="ignore",
        )

    def damaged(self, table: str) -> list[PartFile]:
        """Files of a table whose size or footer shows that they cannot be read."""
        self._known(table)
        return [p for p in self._fetched(table) if p.problem]

    @property
    def page_events(self) -> pl.LazyFrame:
        """Page allocations, frees, refills, drains."""
        return self.table("page_events")

    @property
    def bio_events(self) -> pl.LazyFrame:
        """Bios and requests."""
        return self.table("bio_events")

    @property
    def mm_events(self) -> pl.LazyFrame:
        """Compaction and reclaim."""
        return self.table("mm_events")

    @property
    def loss(self) -> pl.LazyFrame:
        """Intervals in which events were lost."""
        return self.table("loss")

    @property
    def shed(self) -> pl.LazyFrame:
        """Intervals in which less was recorded on purpose."""
        return self.table("shed")

    @property
    def tasks(self) -> pl.LazyFrame:
        """Tasks by pid and time."""
        return self.table("tasks")

    @property
    def stacks(self) -> pl.LazyFrame:
        """Stacks, one row a frame."""
        return self.table("stacks")

    @property
    def snapshots(self) -> pl.LazyFrame:
        """Memory snapshots."""
        return self.table("snapshots")

    @property
    def page_map(self) -> pl.LazyFrame:
        """Runs of frames at the start."""
        return self.table("page_map")

    def batches(
        self, table: str, columns: Sequence[str] | None = None, rows: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        """Stream a table in file order, which is its sort order, as batches of at most ``rows`` rows.

        ``columns``: all by default, in the order asked for. ``kind`` comes as a dictionary array with the
        schema's codes. Decoding runs one row group ahead on a thread; memory is bounded by a few row groups.
        Raises MissingTableError, TraceError for an unknown column, TruncatedTraceError.
        """
        names = list(TABLES[table].schema.names) if columns is None else list(columns)
        return _read_ahead(_decode(table, self._sound(table, names), names), rows)

    def shares(self, table: str, columns: Sequence[str], n: int) -> list[Iterator[pa.RecordBatch]]:
        """A table in up to ``n`` shares, each to be read on a thread of its own: row groups in turn, decoded on that
        thread. For what does not depend on order. Batches and errors as of :meth:`batches`.
        """
        parts = self._sound(table, columns)
        return [_decode(table, parts, columns, share=(k, n)) for k in range(n)]

    def _sound(self, table: str, columns: Sequence[str]) -> list[PartFile]:
        """Files of a table, once it is sure that it has the columns and that all files can be read."""
        self._known(table)
        for name in columns:
            _check_column(table, name)
        parts = self._fetched(table)
        for part in parts:
            part.check()
        return parts

    def _fetched(self, table: str) -> list[PartFile]:
        """Files of a table, all of which are about to be used."""
        parts = self.files.get(table, [])
        self.bundle.fetch(parts)
        return parts

    def bounds(self, table: str, column: str) -> tuple[int, int] | None:
        """Least and greatest value of an integer column; None when it has none.

        From the statistics in the footers where every row group has them, else by reading the column.
        """
        self._known(table)
        _check_column(table, column)
        low: int | None = None
        high: int | None = None
        for part in self.files.get(table, []):
            part.check()
            found = _statistics(part, column)
            if found is None:
                found = _scan_bounds(table, part, column)
            if found is not None:
                low = found[0] if low is None else min(low, found[0])
                high = found[1] if high is None else max(high, found[1])
        return None if low is None or high is None else (low, high)


def _check_column(table: str, name: str) -> None:
    if TABLES[table].schema.get_field_index(name) < 0:
        guess = nearest(name, TABLES[table].schema.names)
        raise TraceError(f"table {table} has no column {name!r}", hint=f"did you mean {guess!r}?" if guess else None)


def _statistics(part: PartFile, column: str) -> tuple[int, int] | None:
    """Bounds of a column from a footer; None when a row group with values has no statistics."""
    footer = part.footer
    index = footer.schema.to_arrow_schema().get_field_index(column)
    if index < 0:
        return None
    pairs = []
    for group in range(footer.num_row_groups):
        stats = footer.row_group(group).column(index).statistics
        if stats is None or not stats.has_min_max:
            if stats is not None and stats.has_null_count and stats.null_count == footer.row_group(group).num_rows:
                continue
            return None
        pairs.append((stats.min, stats.max))
    return (min(p[0] for p in pairs), max(p[1] for p in pairs)) if pairs else None


def _scan_bounds(table: str, part: PartFile, column: str) -> tuple[int, int] | None:
    low: int | None = None
    high: int | None = None
    for batch in _decode(table, [part], [column]):
        least, most = (v.as_py() for v in pc.min_max(batch.column(0)).values())
        if least is not None:
            low = least if low is None else min(low, least)
            high = most if high is None else max(high, most)
    return None if low is None or high is None else (low, high)


def _decode(
    table: str, parts: Sequence[PartFile], columns: Sequence[str], *, share: tuple[int, int] = (0, 1)
) -> Iterator[pa.RecordBatch]:
    """Row groups as batches in the schema's types; columns that a file lacks are null. ``share`` (k, n): of n row
    groups the k-th only."""
    schema = pa.schema([TABLES[table].schema.field(name) for name in columns])
    mine, n = share
    passed = 0
    for part in parts:
        try:
            with pq.ParquetFile(part.path) as file:
                present = set(file.schema_arrow.names)
                wanted = [name for name in columns if name in present]
                first, passed = (mine - passed) % n, passed + file.num_row_groups
                for group in range(first, file.num_row_groups, n):
                    rows = file.metadata.row_group(group).num_rows
                    for piece in _pieces(file, group, rows, wanted, n == 1) if wanted else [None]:
                        count = rows if piece is None else piece.num_rows
                        arrays = [_column(table, field, piece, count) for field in schema]
                        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except (OSError, pa.ArrowException) as error:
            raise part.unreadable(str(error).splitlines()[0]) from error


def _pieces(file: pq.ParquetFile, group: int, rows: int, columns: list[str], alone: bool) -> Iterable[pa.RecordBatch]:
    """A row group at once, which is fastest; bit by bit one that a foreign writer made huge, or where others are read
    beside it."""
    if alone and rows <= _MOST_ROWS_AT_ONCE:
        batches: Iterable[pa.RecordBatch] = file.read_row_group(group, columns=columns).to_batches()
        return batches
    most = _MOST_ROWS_AT_ONCE if alone else _SHARE_ROWS
    pieces: Iterable[pa.RecordBatch] = file.iter_batches(most, row_groups=[group], columns=columns, use_threads=alone)
    return pieces


def _column(table: str, field: pa.Field, piece: pa.RecordBatch | None, rows: int) -> pa.Array:
    index = -1 if piece is None else piece.schema.get_field_index(field.name)
    if piece is None or index < 0:
        return null_column(field.type, rows)
    column = piece.column(index)
    if field.name == "kind" and table in KINDS:
        return fixed_kind(table, column)
    return column if column.type == field.type else column.cast(field.type)


def _read_ahead(source: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Run ``source`` on a thread, a few batches ahead, cut to ``rows``."""
    for item in ahead(source, _AHEAD, "trace-reader"):
        for start in range(0, item.num_rows, rows):
            yield item if item.num_rows <= rows else item.slice(start, rows)
