"""Batches brought into the exact form of a table's schema, with as few copies as possible."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.errors import TraceError, nearest
from tracereplay.trace.schema import BIO_KINDS, HOST, MM_KINDS, PAGE_KINDS, TABLES, Table

KINDS: dict[str, tuple[str, ...]] = {
    "page_events": PAGE_KINDS,
    "bio_events": BIO_KINDS,
    "mm_events": MM_KINDS,
}
"""Tables whose ``kind`` has a fixed dictionary."""

_NULLS_ROWS = 1 << 20


@lru_cache(maxsize=32)
def kind_dictionary(table: str) -> pa.Array:
    """The fixed dictionary of a table's ``kind``; a code is an index into it."""
    return pa.array(KINDS[table], pa.string())


@lru_cache(maxsize=64)
def _null_block(kind: pa.DataType) -> pa.Array:
    return pa.nulls(_NULLS_ROWS, kind)


def null_column(kind: pa.DataType, rows: int) -> pa.Array:
    """Nulls of a type; blocks of up to a row group share one buffer."""
    return _null_block(kind).slice(0, rows) if rows <= _NULLS_ROWS else pa.nulls(rows, kind)


def fixed_kind(table: str, column: pa.Array) -> pa.DictionaryArray:
    """A ``kind`` column with the schema's codes, whatever it had: another dictionary, strings, or int8 codes.

    Raises TraceError for a kind that the table does not have.
    """
    fixed = kind_dictionary(table)
    if pa.types.is_dictionary(column.type):
        if column.type.index_type == pa.int8() and column.dictionary.equals(fixed):
            return column
        codes = pc.index_in(column.dictionary.cast(pa.string()), value_set=fixed)
        indices = codes.take(column.indices)
        lost = pc.and_(pc.is_null(indices), pc.is_valid(column.indices))
    elif pa.types.is_integer(column.type):
        low, high = pc.min_max(column).values()
        if low.is_valid and not 0 <= low.as_py() <= high.as_py() < len(fixed):
            raise TraceError(f"{table}.kind has codes outside 0..{len(fixed) - 1}")
        return pa.DictionaryArray.from_arrays(column.cast(pa.int8()), fixed)
    else:
        indices = pc.index_in(column.cast(pa.string()), value_set=fixed)
        lost = pc.and_(pc.is_null(indices), pc.is_valid(column))
    if pc.any(lost).as_py():
        name = column.filter(lost)[0].as_py()
        guess = nearest(name, KINDS[table])
        raise TraceError(
            f"{table} has no kind {name!r}",
            hint=f"did you mean {guess!r}?" if guess else f"one of: {', '.join(KINDS[table])}",
        )
    return pa.DictionaryArray.from_arrays(indices.cast(pa.int8()), fixed)


def _as_type(table: str, field: pa.Field, column: pa.Array) -> pa.Array:
    if field.name == "kind" and table in KINDS:
        return fixed_kind(table, column)
    if column.type == field.type:
        return column
    try:
        if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(column.type):
            column = column.cast(field.type.value_type).dictionary_encode()
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TraceError(f"{table}.{field.name} is {field.type}; {column.type} does not fit: {error}") from None


def conform(table: Table, batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns that a batch brings, each in its schema type. Missing ones are absent from the result.

    Raises TraceError for an unknown column, a required one that is missing or holds nulls, a value that does
    not fit.
    """
    names = batch.schema.names
    unknown = [n for n in names if table.schema.get_field_index(n) < 0]
    # Rows read from a trace of one host have an empty column ``host``, which its files do not.
    if unknown and not (unknown == [HOST.name] and batch.column(HOST.name).null_count == batch.num_rows):
        guess = nearest(unknown[0], table.schema.names)
        raise TraceError(
            f"table {table.name} has no column {unknown[0]!r}",
            hint=f"did you mean {guess!r}?" if guess else None,
        )
    columns: dict[str, pa.Array] = {}
    for field in table.schema:
        index = batch.schema.get_field_index(field.name)
        if index < 0 and names.count(field.name) > 1:
            raise TraceError(f"a batch for {table.name} has column {field.name!r} twice")
        column = None if index < 0 else _as_type(table.name, field, batch.column(index))
        if not field.nullable and (column is None or column.null_count):
            raise TraceError(f"{table.name}.{field.name} must have a value in every row")
        if column is not None:
            columns[field.name] = column
    return columns


def sort_bounds(table: Table, columns: dict[str, pa.Array]) -> tuple[int, int] | None:
    """First and last value of the sort column; None for an unsorted table.

    Raises TraceError when the column does not rise (equal neighbours are fine).
    """
    if table.sorted_by is None:
        return None
    values: np.ndarray[Any, Any] = columns[table.sorted_by].to_numpy()
    falls = values[1:] < values[:-1]
    if falls.any():
        row = int(falls.argmax())
        raise TraceError(
            f"{table.name} is not sorted by {table.sorted_by}: {values[row]} is followed by {values[row + 1]}",
            hint="sort the batches before writing them",
        )
    return int(values[0]), int(values[-1])


def assemble(table: Table, parts: list[dict[str, pa.Array]], rows: int) -> pa.Table:
    """One Arrow table of ``rows`` rows from conformed parts; absent columns become nulls."""
    columns: list[pa.ChunkedArray] = []
    for field in table.schema:
        chunks = [part[field.name] if field.name in part else null_column(field.type, _length(part)) for part in parts]
        absent = all(field.name not in part for part in parts)
        columns.append(pa.chunked_array([null_column(field.type, rows)] if absent else chunks, type=field.type))
    return pa.Table.from_arrays(columns, schema=table.schema).unify_dictionaries()


def _length(part: dict[str, pa.Array]) -> int:
    return len(next(iter(part.values())))


def table_named(name: str) -> Table:
    """The schema entry of a table. Raises TraceError with the nearest name."""
    if name in TABLES:
        return TABLES[name]
    guess = nearest(name, TABLES)
    raise TraceError(
        f"a trace has no table {name!r}",
        hint=f"did you mean {guess!r}?" if guess else f"tables: {', '.join(TABLES)}",
    )
