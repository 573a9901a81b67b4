"""``tracereplay profiles``: list, show, fit and check, and what it says to wrong words."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tracereplay.cost.profile import load_profile, shipped_profiles

ROWS = Path(__file__).parents[1] / "data" / "cost" / "microbenchmark.csv"
COMMAND = [sys.executable, "-c", "from tracereplay.cli.app import main; main()", "profiles"]


def profiles(*arguments: object) -> str:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments: object) -> tuple[int, str]:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_the_list() -> None:
    text = profiles()
    assert all(name in text for name in shipped_profiles())
    assert max(map(len, text.splitlines())) <= 80
    assert [row["profile"] for row in json.loads(profiles("--format", "json"))] == list(shipped_profiles())


@pytest.mark.parametrize("name", shipped_profiles())
def test_a_page(name: str) -> None:
    text = profiles(name)
    assert all(c.name in text for c in load_profile(name).coefficients)
    assert max(map(len, text.splitlines())) <= 80


def test_a_page_as_data() -> None:
    data = json.loads(profiles("linux-6.1", "--format", "json"))
    assert data["coefficients"]["zero_page"]["unit"] == "instructions"
    rows = list(csv.DictReader(io.StringIO(profiles("brouer-2021", "--format", "csv"))))
    single = next(row for row in rows if row["primitive"] == "single_call")
    assert float(single["low"]) < float(single["value"]) < float(single["high"])


def test_fit_and_check(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    table = profiles("fit", ROWS, "--kernel", "6.12", "--name", "mine", "-o", mine)
    assert "zero_page" in table
    assert load_profile(mine).name == "mine"
    data = json.loads(profiles("check", ROWS, "--profile", mine, "--format", "json"))
    assert data["schema"] == 1
    assert data["summary"]["rows"] == len(data["rows"]) == 94
    assert {"median_error", "p95_error", "max_error"} < data["summary"].keys()
    first = data["rows"][0]
    assert (first["kernel"], first["strategy"], first["measured"]) == ("6.12", "per-page", 602 + 319)
    assert first["error"] == pytest.approx(first["predicted"] / first["measured"] - 1)
    assert first["counters"]["alloc_calls"] == 1
    assert refused("fit", ROWS, "--kernel", "6.12", "-o", mine)[0] == 2


def test_a_fit_to_standard_output_is_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "out.toml"
    path.write_text(profiles("fit", ROWS, "--kernel", "6.1"))
    assert load_profile(path).kernel == "6.1"


def test_rows_are_checked_with_the_profile_of_their_kernel() -> None:
    text = profiles("check", ROWS)
    assert "190 rows: error median 0." in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["fit"], 2, "needs a file"),
        (["fit", ROWS], 2, "--kernel 6.1"),
        (["fit", ROWS, "--kernel", "6.2"], 5, "6.1, 6.12"),
        (["fit", ROWS, "--kernel", "6.1", "--base", "brouer-2021"], 2, "prices in ns"),
        (["check", ROWS, "--profile", "brouer-2021"], 5, "instructions"),
        (["check", "/nowhere.csv"], 5, "not a readable table"),
        (["linux-6.11"], 5, "did you mean 'linux-6.1"),
        (["one", "two", "three"], 2, "profiles [NAME | fit ROWS | check ROWS]"),
    ],
)
def test_wrong_words(arguments: list[object], code: int, told: str) -> None:
    returned, text = refused(*arguments)
    assert (returned, told in text) == (code, True), text
