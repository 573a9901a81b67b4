"""A trace is plain Parquet: the texts of docs/query.md, run by DuckDB, Polars, pandas, give the numbers of `query`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from tracereplay import Trace
from tracereplay.analysis.sql_tables import sql_tables
from tracereplay.trace.sql_run import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "query.md").read_text()
NAMES = ("kind", "events", "cpus", "span_ns")


@pytest.fixture(params=["as shipped", "parts of several schema versions"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A shipped trace; or the same in two parts, of which the first lacks columns."""
    copy = tmp_path / "mixed"
    shutil.copytree(ROOT / "traces" / "mixed-6.12", copy, ignore=shutil.ignore_patterns("derived"))
    if request.param != "as shipped":
        first = copy / "page_events" / "part-000000.parquet"
        rows = pq.read_table(first)
        pq.write_table(rows.slice(0, 1000).drop_columns(["change_ownership", "requested", "stack_id"]), first)
        pq.write_table(rows.slice(1000), copy / "page_events" / "part-000001.parquet")
        manifest = copy / "manifest.json"
        manifest.write_text(re.sub(r'"page_events": \[.*?\]', '"page_events": []', manifest.read_text(), flags=re.S))
    return copy


def text_of(language: str, bundle: Path, after: str = "") -> str:
    """A block of the page, about this bundle."""
    found = re.search(rf"{after}\n\n```{language}\n(.*?)```", PAGE, flags=re.S)
    assert found is not None
    return found[1].replace("traces/mixed-6.12", str(bundle))


def by_python(after: str, bundle: Path) -> Any:
    names: dict[str, Any] = {}
    exec(text_of("python", bundle, after), names)  # the text of our own documentation
    return names["found"]


def test_the_same_numbers_by_all(bundle: Path) -> None:
    (sql,) = re.findall(r'tracereplay query traces/mixed-6.12 "([^"]*span_ns[^"]*)"', PAGE)
    wanted = run(Trace.open(bundle), sql).select(NAMES).rows()
    assert len(wanted) >= 3
    assert duckdb.sql(text_of("sql", bundle)).fetchall() == wanted
    assert by_python("Polars:", bundle).select(NAMES).rows() == wanted
    frame = by_python("pandas:", bundle)
    assert [tuple(row) for row in frame[list(NAMES)].itertuples(index=False)] == wanted


def test_a_ready_made_table_is_plain_parquet_too(tmp_path: Path) -> None:
    bundle = tmp_path / "t"
    shutil.copytree(ROOT / "traces" / "dmcrypt-6.12-1M", bundle, ignore=shutil.ignore_patterns("derived"))
    trace = Trace.open(bundle)
    for sql in re.findall(r'tracereplay query traces/[-.\w]+ "([^"]*FROM (?:lifetimes|requests|io)[^"]*)"', PAGE):
        assert len(run(trace, sql, extra=sql_tables(trace)))
    sql = "SELECT class, COUNT(*) AS n, SUM(lifetime_ns) AS ns FROM {} GROUP BY class ORDER BY class"
    ours = run(trace, sql.format("lifetimes"), extra=sql_tables(trace)).with_columns(pl.col("ns").cast(pl.Int64))
    theirs = duckdb.sql(sql.format(f"'{bundle}/derived/lifetimes-*.parquet'")).fetchall()
    assert ours.with_columns(pl.when(pl.col("ns") > 0).then("ns").alias("ns")).rows() == theirs
