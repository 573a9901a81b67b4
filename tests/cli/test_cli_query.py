"""`tracereplay query`: exit code, stdout and stderr apart."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.trace_samples import metadata, rows_batch, write_sample
from tracereplay import TraceWriter
from tracereplay.cli.app import app

COMPLETE = "completeness: 1,002 events; 3 lost in 1 interval (ring_full 3)\n"
SQL = "SELECT kind, COUNT(*) AS n FROM bio_events GROUP BY kind ORDER BY kind"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_sample(tmp_path / "t")


def query(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["query", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def test_table(path: Path) -> None:
    code, out, err = query(path, SQL)
    assert (code, err) == (0, COMPLETE)
    assert [line.split() for line in out.splitlines()] == [
        ["kind", "n"],
        ["------------", "-"],
        ["bio_complete", "1"],
        ["queue", "1"],
    ]


def test_json_csv(path: Path) -> None:
    code, out, _ = query(path, SQL, "--format", "json")
    assert code == 0
    assert json.loads(out) == [{"kind": "bio_complete", "n": 1}, {"kind": "queue", "n": 1}]
    code, out, _ = query(path, SQL, "--format", "csv")
    assert (code, out) == (0, "kind,n\nbio_complete,1\nqueue,1\n")


def test_table_is_cut_and_says_so(path: Path) -> None:
    code, out, err = query(path, "SELECT ts_ns FROM page_events", "--rows", "5")
    assert (code, len(out.splitlines())) == (0, 2 + 5)
    assert "only the first 5 rows" in err
    code, out, err = query(path, "SELECT ts_ns FROM page_events")
    assert (code, len(out.splitlines())) == (0, 2 + 100)
    assert "only the first 100 rows" in err
    code, out, err = query(path, "SELECT ts_ns FROM page_events", "--format", "csv")
    assert (code, len(out.splitlines()), err) == (0, 1001, COMPLETE)


def test_all_null_columns_are_not_shown_as_table(path: Path) -> None:
    _, out, err = query(path, "SELECT * FROM bio_events")
    assert "old_dev" not in out
    assert "only nulls in:" in err
    assert "old_dev" in err
    _, out, _ = query(path, "SELECT * FROM bio_events", "--format", "csv")
    assert "old_dev" in out


def test_statement_from_a_file(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "q.sql"
    file.write_text(SQL)
    assert query(path, "--file", file) == query(path, SQL)
    result = CliRunner().invoke(app, ["query", str(path), "--file", "-"], input=SQL)
    assert result.stdout == query(path, SQL)[1]


def test_output_file_is_streamed_and_never_overwritten(path: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "out.parquet"
    code, out, err = query(path, "SELECT pid FROM page_events", "-o", out_file)
    assert (code, out) == (0, "")
    assert str(out_file) in err
    assert pl.read_parquet(out_file).shape == (1000, 1)
    code, _, err = query(path, SQL, "-o", out_file)
    assert code == 2
    assert "output exists" in err
    assert pl.read_parquet(out_file).shape == (1000, 1)
    assert query(path, SQL, "-o", out_file, "--force")[0] == 0
    assert pl.read_parquet(out_file).shape == (2, 2)


def test_explain(path: Path) -> None:
    code, out, _ = query(path, SQL, "--explain")
    assert code == 0
    assert "Parquet SCAN" in out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["{t}", "SELECT knd FROM page_events"], 2, "did you mean 'kind'"),
        (["{t}", "SELECT * FROM page_evnts"], 2, "did you mean 'page_events'"),
        (["{t}", "DROP TABLE page_events"], 2, "never changed"),
        (["{t}"], 2, "as an argument or with --file"),
        (["{t}", "SELECT 1", "--file", "q.sql"], 2, "as an argument or with --file"),
        (["{t}", "--file", "{t}/none.sql"], 2, "cannot read"),
        (["{t}/none", "SELECT 1"], 3, "does not exist"),
        (["{t}", "SELECT pid FROM tasks", "-o", "{t}/no/where.parquet"], 2, "no directory"),
    ],
)
def test_errors(path: Path, args: list[str], code: int, message: str) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*"))
    got, out, err = query(*[a.replace("{t}", str(path)) for a in args])
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert message in err
    assert "  next: " in err
    assert sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*")) == before


def test_unfinished_trace_is_said(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "u", metadata())
    writer.write("tasks", rows_batch("tasks", [{"pid": 1}]))
    writer.abort()
    code, out, err = query(tmp_path / "u", "SELECT pid FROM tasks", "--format", "csv")
    assert (code, out) == (0, "pid\n1\n")
    assert "did not finish" in err
