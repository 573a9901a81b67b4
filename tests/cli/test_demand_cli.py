"""The ``demand`` verb: what it prints, where, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

TRACE = Path(__file__).parents[2] / "traces" / "dmcrypt-6.1-1M"


def demand(*args: object) -> subprocess.CompletedProcess[str]:
    script = "from tracereplay.cli.app import main; main()"
    command = [sys.executable, "-c", script, "demand", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_json_holds_requests_callers_bios_and_accounting() -> None:
    done = demand(TRACE, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["schema"] == 1
    assert found["requests"] == sum(c["requests"] for c in found["by_caller"])
    assert found["pages"] == sum(c["pages"] for c in found["by_caller"])
    crypt = next(c for c in found["by_caller"] if "dm-crypt" in c["caller"])
    assert crypt["sizes"] == {"256": 8}
    assert (found["bios"]["writes"], found["bios"]["matched"]) == (8, 8)
    acc = found["accounting"]
    assert acc["events"] == 14_160
    assert acc["frees"] == acc["matched"] + acc["unmatched_frees"]
    assert acc["snapshots"]["traced_pages"] == acc["allocated_pages"]
    assert 0 < found["targeted"]["share"] < 1
    assert found["thresholds"]["unit_ns"] > 0


def test_the_table_fits_a_terminal() -> None:
    done = demand(TRACE)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "dm-crypt (kworker)" in done.stdout
    assert "256x8" in done.stdout


def test_csv_lists_sizes() -> None:
    done = demand(TRACE, "--format", "csv")
    assert done.stdout.splitlines()[0] == "caller,request_pages,requests,pages"
    assert "dm-crypt (kworker),256,8,2048" in done.stdout.splitlines()


def test_lifetimes_go_to_a_file_that_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "lifetimes.parquet"
    done = demand(TRACE, "--lifetimes", out, "--format", "json")
    assert done.returncode == 0
    assert "lifetimes" in done.stderr
    rows = pl.read_parquet(out)
    assert rows.filter(pl.col("class").cast(pl.String) == "complete")["lifetime_ns"].min() > 0
    before = out.read_bytes()
    refused = demand(TRACE, "--lifetimes", out)
    assert (refused.returncode, out.read_bytes()) == (2, before)
    assert "--force" in refused.stderr
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--target", "batchs"], 2, "batches"),
        (["--path", "raid"], 2, "dm-crypt"),
        (["--path", "dm-crypt", "--device", "9,9"], 2, "253,0"),
        (["--device", "1,0"], 2, "--path"),
        (["--path", "dm-crypt", "--max-write", "5000", "--device", "1,0"], 2, "multiple of 512"),
    ],
)
def test_what_cannot_be_is_refused_with_a_next_step(args: list[str], code: int, says: str) -> None:
    done = demand(TRACE, *args)
    assert done.returncode == code, done.stderr
    assert says in done.stderr


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    done = demand(tmp_path / "none")
    assert done.returncode == 3
    assert "none" in done.stderr


def test_a_path_that_the_trace_shows_takes_its_own_requests() -> None:
    done = demand(TRACE, "--path", "dm-crypt", "--target", "origin:path", "--format", "json")
    found = json.loads(done.stdout)
    assert found["path"].items() >= {"name": "dm-crypt", "device": "253,0", "recorded": True}.items()
    assert "bios" not in found["path"], "no bio is left that it has not encrypted"
    assert found["targeted"]["requests"] == 8
    assert found["targeted"]["pages"] == 2048
