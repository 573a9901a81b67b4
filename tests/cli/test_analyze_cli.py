"""``tracereplay analyze``: what it lists, shows, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.trace_samples import write_sample
from tracereplay.analysis.registry import analyses
from tracereplay.cli.app import app

TRACE = Path(__file__).parents[2] / "traces" / "dmcrypt-6.12-bulk"
ASK = ["analyze", "fragmentation", str(TRACE), "--set", "source=buddyinfo"]


def run(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, args)
    return done.exit_code, done.stdout, done.stderr


def test_list_names_every_analysis_in_80_columns() -> None:
    code, out, _ = run("analyze", "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line[:2] == "  " != line[1:3]] == list(analyses())
    assert all(len(line) <= 80 for line in out.splitlines())


@pytest.mark.parametrize("name", sorted(analyses()))
def test_every_analysis_says_what_it_needs(name: str) -> None:
    code, out, _ = run("analyze", name)
    assert code == 0
    assert "needs " in out
    assert "filters " in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_table_with_its_method_and_completeness() -> None:
    code, out, err = run(*ASK, "--order", "9")
    assert code == 0
    lines = out.splitlines()
    rule = next(k for k, line in enumerate(lines) if line.startswith("---"))
    assert " ".join(lines[rule - 1].split()) == "t source zone order blocks pages share fallbacks pageblocks"
    assert max(map(len, lines)) <= 80
    assert "method: buddyinfo" in err
    assert "completeness: 25,115 events; none lost" in err


def test_json_carries_the_accounting() -> None:
    code, out, _ = run(*ASK, "--format", "json", "--order", "0", "--time", "0:100s")
    said = json.loads(out)
    assert code == 0
    assert said["analysis"] == "fragmentation"
    assert said["selection"] == {"time": [0, 100_000_000_000], "order": [0]}
    assert said["trace"]["events"]["page_events"] == 24845
    assert said["completeness"]["finished"]
    assert {row["order"] for row in said["rows"]} == {0}


def test_files_by_their_suffix(tmp_path: Path) -> None:
    frames = []
    for suffix in ("parquet", "csv", "json"):
        path = tmp_path / f"out.{suffix}"
        code, _, err = run(*ASK, "-o", str(path))
        assert (code, f"wrote {path}" in err) == (0, True)
        if suffix == "json":
            frames.append(pl.DataFrame(json.loads(path.read_text())["rows"]))
        else:
            frames.append(pl.read_parquet(path) if suffix == "parquet" else pl.read_csv(path))
    assert frames[0].height > 20
    assert frames[0]["blocks"].to_list() == frames[1]["blocks"].to_list() == frames[2]["blocks"].to_list()
    code, out, _ = run(*ASK, "--svg", str(tmp_path / "p.svg"))
    assert code == 0
    assert out
    ElementTree.parse(tmp_path / "p.svg")
    assert run(*ASK, "-o", str(tmp_path / "out.csv"))[0] == 2
    assert run(*ASK, "-o", str(tmp_path / "out.csv"), "--force")[0] == 0


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["analyze", "fragmentatoin", "x"], 2, "did you mean 'fragmentation'?"),
        (["analyze", "stalls", str(TRACE)], 3, "capture --events page,reclaim"),
        ([*ASK, "--comm", "x"], 2, "cannot be filtered by comm"),
        ([*ASK, "--set", "bins"], 2, "--set NAME=VALUE"),
        ([*ASK, "--set", "bins=x"], 2, "not a whole number"),
        ([*ASK, "--by", "cpu"], 2, "no option 'by'"),
        ([*ASK, "--time", "5s"], 2, "FROM:TO"),
        ([*ASK, "--time", "5s:1s"], 2, "ends before it begins"),
        ([*ASK, "--device", "sda"], 2, "no device: 'sda'"),
        ([*ASK, "-o", "out.txt"], 2, ".parquet, .csv, .json, .svg"),
        ([*ASK, "-o", "/nowhere/out.csv"], 2, "no directory /nowhere"),
        (["analyze", "fragmentation", "/nowhere.trace"], 3, "/nowhere.trace"),
    ],
)
def test_refusals_name_the_next_step(args: list[str], code: int, said: str) -> None:
    got, out, err = run(*args)
    assert (got, out) == (code, "")
    assert said in err


def test_a_trace_without_the_events(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t.trace")
    code, _, err = run("analyze", "fragmentation", str(path), "--set", "source=twin")
    assert code == 3
    assert "capture with --events page,buddy" in err
