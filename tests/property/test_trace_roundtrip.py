"""Whatever rows go in, in whatever batches, over however many files: they come out, in order."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.trace_samples import metadata, rows_batch
from tracereplay import Trace, TraceWriter
from tracereplay.errors import TraceError
from tracereplay.trace.columns import KINDS
from tracereplay.trace.schema import TABLES, written_table
from tracereplay.trace.validate import validate_trace

_WORDS = st.sampled_from(["R", "W", "WS", "FF", "", "été", "a b"])


def values(field: pa.Field, table: str) -> st.SearchStrategy[Any]:
    """Values of a column, with its extremes; nulls where the schema allows them."""
    kind = field.type
    if field.name == "kind" and table in KINDS:
        base: st.SearchStrategy[Any] = st.sampled_from(KINDS[table])
    elif pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        base = _WORDS
    elif pa.types.is_boolean(kind):
        base = st.booleans()
    elif pa.types.is_floating(kind):
        base = st.floats(allow_nan=False)
    else:
        signed = pa.types.is_signed_integer(kind)
        top = 2 ** (kind.bit_width - signed) - 1
        low = -top - 1 if signed else 0
        base = st.one_of(st.integers(low, top), st.sampled_from([low, top, 0]))
    return st.none() | base if field.nullable else base


@st.composite
def batches(draw: st.DrawFn) -> tuple[str, list[list[dict[str, Any]]]]:
    """A table, and its rows in batches; each batch brings its own subset of columns."""
    table = draw(st.sampled_from(sorted(TABLES)))
    schema = written_table(TABLES[table], hosts=False).schema
    made = []
    for _ in range(draw(st.integers(0, 5))):
        optional = [f.name for f in schema if f.nullable]
        chosen = set(draw(st.lists(st.sampled_from(optional), unique=True))) if optional else set()
        fields = [f for f in schema if not f.nullable or f.name in chosen]
        if not fields:
            fields = [schema.field(0)]
        row = st.fixed_dictionaries({f.name: values(f, table) for f in fields})
        made.append(draw(st.lists(row, max_size=12)))
    key = TABLES[table].sorted_by
    if key is not None:
        ordered = iter(sorted(r[key] for rows in made for r in rows))
        for row in itertools.chain.from_iterable(made):
            row[key] = next(ordered)
    return table, made


@seed(20261121)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    batches(),
    st.integers(1, 15),
    st.integers(1, 6),
    st.integers(1, 20),
    st.sampled_from([None, 0, 10**9]),
    st.booleans(),
)
def test_round_trip(
    made: tuple[str, list[list[dict[str, Any]]]],
    rotate_rows: int,
    row_group_rows: int,
    read_rows: int,
    rotate_ns: int | None,
    by_table: bool,
) -> None:
    table, parts = made
    schema = written_table(TABLES[table], hosts=False).schema
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        options = {"rotate_rows": rotate_rows, "row_group_rows": row_group_rows, "rotate_ns": rotate_ns}
        with TraceWriter(path, metadata(), **options) as writer:
            for rows in parts:
                batch = rows_batch(table, rows) if rows else rows_batch(table, [{schema.names[0]: None}]).slice(1)
                if rows:
                    writer.write(table, pa.Table.from_batches([batch]) if by_table else batch)
        whole = TABLES[table].schema
        expected = [{n: row.get(n) for n in whole.names} for rows in parts for row in rows]

        trace = Trace.open(path)
        assert trace.complete
        assert trace.rows(table) == len(expected)
        read = list(trace.batches(table, rows=read_rows))
        assert all(0 < b.num_rows <= read_rows and b.schema.equals(whole) for b in read)
        assert [r for b in read for r in b.to_pylist()] == expected
        assert trace.table(table).collect().to_dicts() == expected
        entries = trace.manifest.tables.get(table, [])
        assert all(e.rows <= rotate_rows for e in entries)
        for column in schema:
            if pa.types.is_integer(column.type):
                found = [r[column.name] for r in expected if r[column.name] is not None]
                assert trace.bounds(table, column.name) == ((min(found), max(found)) if found else None)
        structural = {"damaged", "order", "row-count", "range", "file-missing", "listed-twice", "bad-values"}
        assert not structural & {f.code for f in validate_trace(trace).findings}


@seed(20261121)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=30), st.integers(1, 5))
def test_disorder_is_refused_and_what_was_accepted_stays(times: list[int], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        accepted: list[int] = []
        with TraceWriter(path, metadata(), rotate_rows=4) as writer:
            for start in range(0, len(times), size):
                part = times[start : start + size]
                rows = [{"ts_ns": t, "cpu": 0, "kind": "free", "pfn": 1, "order": 0} for t in part]
                sound = part == sorted(part) and (not accepted or part[0] >= accepted[-1])
                try:
                    writer.write("page_events", rows_batch("page_events", rows))
                except TraceError:
                    assert not sound
                else:
                    assert sound
                    accepted += part
        assert Trace.open(path).page_events.collect()["ts_ns"].to_list() == accepted
