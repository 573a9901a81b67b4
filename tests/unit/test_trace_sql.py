"""SQL over a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trace_samples import write_sample
from tracereplay import Trace
from tracereplay.errors import QueryError, StorageError, TruncatedTraceError
from tracereplay.trace.sql_run import run, sink


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace.open(write_sample(tmp_path / "t"))


def test_kind_compares_with_strings(trace: Trace) -> None:
    frame = trace.page_events.collect()
    allocs = frame.filter(frame["kind"] == "alloc").height
    for condition in ("kind = 'alloc'", "kind LIKE 'al%'", "kind IN ('alloc', 'bulk')", "upper(kind) = 'ALLOC'"):
        result = run(trace, f"SELECT COUNT(*) AS n FROM page_events WHERE {condition}")
        assert result["n"].to_list() == [allocs], condition
    assert run(trace, "SELECT DISTINCT kind FROM page_events ORDER BY kind")["kind"].to_list() == ["alloc", "free"]


def test_joins_and_common_table_expressions(trace: Trace) -> None:
    result = run(
        trace,
        "WITH w AS (SELECT pid, SUM(nr_sectors) AS sectors FROM bio_events WHERE op = 'W' AND kind = 'queue' "
        "GROUP BY pid) SELECT tasks.comm, w.sectors FROM w JOIN tasks ON w.pid = tasks.pid",
    )
    assert result.rows() == [("fio", 8)]


def test_metadata_is_a_table(trace: Trace) -> None:
    result = run(trace, "SELECT key, value FROM metadata")
    values = {k: json.loads(v) for k, v in result.rows()}
    assert values["host.release"] == "6.12.95"
    assert values["complete"] is True
    assert values["events"] == ["kmem:mm_page_alloc", "kmem:mm_page_free"]
    assert values["trace_id"] == trace.metadata.trace_id


def test_absent_tables_are_empty(trace: Trace) -> None:
    assert run(trace, "SELECT COUNT(*) AS n FROM mm_events")["n"].to_list() == [0]


def test_comments_and_semicolon(trace: Trace) -> None:
    sql = "-- how many\nSELECT /* all */ COUNT(*) AS n FROM page_events;\n"
    assert run(trace, sql)["n"].to_list() == [1000]


def test_row_limit(trace: Trace) -> None:
    assert run(trace, "SELECT * FROM page_events", rows=3).height == 3


@pytest.mark.parametrize(
    ("sql", "message", "hint"),
    [
        ("SELECT * FROM page_event", "no table 'page_event'", "'page_events'"),
        ("SELECT * FROM zebra", "no table 'zebra'", "tables: page_events"),
        ("SELECT knd FROM page_events", "no column 'knd'", "'kind'"),
        ("SELECT sum(ts_ns FROM page_events", "Expected: \\), found: FROM", "SQL as Polars reads it"),
        ("SELECT nofunc(ts_ns) FROM page_events", "unsupported function 'nofunc'", "--schema"),
        ("SELECT 1; SELECT 2", "one statement|one \\(and only one\\) statement", "--schema"),
        ("SELEC 1", "starts with 'SELEC'", "SELECT"),
        ("", "starts with ''", "SELECT"),
        ("DROP TABLE page_events", "starts with 'DROP'", "never changed"),
        ("DELETE FROM page_events", "starts with 'DELETE'", "never changed"),
        ("TRUNCATE TABLE tasks", "starts with 'TRUNCATE'", "never changed"),
        ("CREATE TABLE x AS SELECT 1", "starts with 'CREATE'", "never changed"),
        ("-- SELECT\nDROP TABLE tasks", "starts with 'DROP'", "never changed"),
        ("SELECT kind + 1 FROM page_events", "refused", "--schema"),
    ],
)
def test_refused(trace: Trace, sql: str, message: str, hint: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        run(trace, sql)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert hint in str(caught.value.hint)


def test_a_damaged_table_does_not_stop_queries_on_others(trace: Trace) -> None:
    part = trace.path / "page_events" / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    damaged = Trace.open(trace.path)
    assert run(damaged, "SELECT COUNT(*) AS n FROM bio_events")["n"].to_list() == [2]
    with pytest.raises(TruncatedTraceError, match="part-000000"):
        run(damaged, "SELECT COUNT(*) AS n FROM page_events")


def test_broken_pages_are_a_damaged_trace_not_a_bad_query(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "big", rows=4000)
    part = path / "page_events" / "part-000000.parquet"
    data = bytearray(part.read_bytes())
    data[4:1000] = b"\xff" * 996
    part.write_bytes(bytes(data))
    with pytest.raises(TruncatedTraceError, match="damaged"):
        run(Trace.open(path), "SELECT SUM(ts_ns) FROM page_events")


def test_sink_writes_a_whole_file_or_none(trace: Trace, tmp_path: Path) -> None:
    import polars as pl

    out = tmp_path / "out.parquet"
    sink(trace, "SELECT pid, kind FROM page_events", out)
    assert pl.read_parquet(out).shape == (1000, 2)
    with pytest.raises(StorageError, match="cannot write"):
        sink(trace, "SELECT 1", tmp_path / "no" / "out.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.parquet", "t"]
