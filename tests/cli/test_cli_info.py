"""`tracereplay info`."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from tests.trace_samples import write_sample
from tracereplay.analysis.ready_tables import CALLERS, READY_TABLES
from tracereplay.cli.app import app
from tracereplay.trace.schema import TABLES


def info(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["info", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def test_text_fits_80_columns_and_says_what_matters(tmp_path: Path) -> None:
    rejected = {"lines": 12, "samples": [{"line": 7, "text": "x", "reason": "no time"}]}
    path = write_sample(tmp_path / "t", rejected=rejected, notes=["taken by hand"])
    code, out, err = info(path)
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []
    for expected in (
        "6.12.95 x86_64",
        "monotonic, resolution 1 ns",
        "page_events  alloc",
        "snapshots  start",
        "DMA32",
        "DirectMap2M",
        "lost: 3 events (0.3 %) in 1 intervals",
        "ring_full: 3",
        "rejected input lines: 12",
        "line 7: no time",
        "finished: 1,002 events",
        "note: taken by hand",
    ):
        assert expected in out, expected


def test_json(tmp_path: Path) -> None:
    code, out, _ = info(write_sample(tmp_path / "t"), "--format", "json")
    value = json.loads(out)
    assert (code, value["schema"]) == (0, 1)
    assert value["identity"]["events"] == {"page_events": 1000, "bio_events": 2}
    assert value["loss"]["lost"] == 3
    assert {z["zone"] for z in value["zones"]} == {"DMA", "DMA32"}


def test_damaged_table_is_named_and_the_rest_shown(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    part = path / "page_events" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    code, out, _ = info(path)
    assert code == 0
    assert "INCOMPLETE: 502 events" in out
    assert "page_events/part-000001.parquet" in out


def test_schema_lists_every_column_with_a_meaning() -> None:
    code, out, err = info("--schema", "--format", "json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    wanted = [(t.name, f.name) for t in TABLES.values() for f in t.schema]
    wanted += [(t.name, column) for t in READY_TABLES.values() for column, *_ in t.columns]
    wanted += [("callers", column) for column, *_ in CALLERS]
    assert [(r["table"], r["column"]) for r in rows] == wanted
    assert all(r["meaning"] for r in rows)
    _, out, _ = info("--schema")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert all(name in out for name in (*TABLES, *READY_TABLES))


def test_errors(tmp_path: Path) -> None:
    for args, code, message in (
        ([tmp_path / "none"], 3, "does not exist"),
        ([tmp_path], 3, "is empty"),
        ([], 2, "no trace given"),
        ([tmp_path, "--format", "csv"], 2, "does not write csv"),
    ):
        got, out, err = info(*args)
        assert (got, out) == (code, "")
        assert message in err
        assert "  next: " in err
