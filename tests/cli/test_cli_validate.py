"""`tracereplay validate`."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from tests.trace_samples import write_sample
from tracereplay.cli.app import app


def validate(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["validate", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def test_sound(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    code, out, err = validate(path)
    assert (code, err) == (0, "")
    files = len(list(path.rglob("*.parquet")))
    assert f"{files} of {files} files sound" in out
    assert "0 errors, 0 warnings" in out


def test_warnings_exit_with_0(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    (path / "page_events" / "part-000002.parquet.tmp").write_bytes(b"")
    code, out, _ = validate(path)
    assert code == 0
    assert out.startswith("warning: page_events/part-000002.parquet.tmp")


def test_errors_exit_with_3_and_name_the_file(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    part = path / "page_events" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    code, out, err = validate(path)
    assert code == 3
    assert out.startswith("error: page_events/part-000001.parquet: cannot be read")
    assert "1 error" in err
    assert "  next: " in err
    code, out, _ = validate(path, "--format", "json")
    value = json.loads(out)
    assert (code, value["ok"], value["findings"][0]["code"]) == (3, False, "damaged")
    code, out, _ = validate(path, "--format", "csv")
    assert (code, out.splitlines()[0]) == (3, "severity,code,where,rows,message")


def test_no_trace(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a trace")
    code, out, err = validate(text)
    assert (code, out) == (3, "")
    assert f"tracereplay import {text} OUT" in err
