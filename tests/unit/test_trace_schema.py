"""The schema as a contract: names and codes that users' queries and old files rely on, and its documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.trace_samples import write_sample
from tracereplay import Trace
from tracereplay.analysis.ready_tables import describe_ready_tables
from tracereplay.trace.columns import KINDS
from tracereplay.trace.partwriter import parquet_options
from tracereplay.trace.schema import (
    BIO_KINDS,
    LOSS_CLASSES,
    PAGE_KINDS,
    SCHEMA_VERSION,
    TABLES,
    describe_columns,
)
from tracereplay.trace.sql_run import run

DOCS = (Path(__file__).parents[2] / "docs" / "data-model.md").read_text()


def test_names_of_version_1() -> None:
    assert SCHEMA_VERSION == 1
    assert TABLES["page_events"].schema.names[:9] == [
        "ts_ns", "cpu", "kind", "pfn", "order", "gfp", "migratetype", "pid", "stack_id",
    ]  # fmt: skip
    assert PAGE_KINDS == (
        "alloc", "alloc_failed", "free", "free_batched", "zone_locked", "drain", "extfrag", "bulk",
    )  # fmt: skip
    assert BIO_KINDS[:3] == ("queue", "split", "remap")
    assert KINDS["page_events"] is PAGE_KINDS


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_named_column_exists(name: str) -> None:
    table = TABLES[name]
    for column in (*table.delta, *table.plain, *table.statistics, *([table.sorted_by] if table.sorted_by else [])):
        assert column in table.schema.names
    options = parquet_options(table)
    assert not set(options["use_dictionary"]) & {*table.delta, *table.plain}


def test_the_page_documents_every_column() -> None:
    for table, column, kind, null, meaning in describe_columns():
        section = DOCS.split(f"\n## {table}\n")[1].split("\n## ")[0]
        assert f"| `{column}` | {kind} | {null} | {meaning} |" in section, (table, column)


def test_the_page_documents_every_column_of_ready_made_tables() -> None:
    ready = DOCS.split("\n## Ready-made tables\n")[1].split("\n## ")[0]
    for table, column, kind, null, meaning in describe_ready_tables():
        section = ready.split(f"\n### {table}\n")[1].split("\n### ")[0]
        assert f"| `{column}` | {kind} | {null} | {meaning} |" in section, (table, column)


def test_the_page_documents_every_value() -> None:
    for value in (*PAGE_KINDS, *BIO_KINDS, *LOSS_CLASSES):
        assert f"`{value}`" in DOCS, value


def test_the_queries_of_the_page_run(tmp_path: Path) -> None:
    trace = Trace.open(write_sample(tmp_path / "t"))
    queries = re.findall(r'tracereplay query web\.trace "([^"]+)"', DOCS)
    assert len(queries) == 3
    for sql in queries:
        run(trace, sql)
