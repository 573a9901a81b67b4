"""Two stored results side by side, and as text for a mail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.example_result import example_result
from tracereplay.cli.app import app
from tracereplay.cost.profile import load_profile
from tracereplay.errors import ResultsError, UsageError
from tracereplay.report.letter import WIDTH, letter
from tracereplay.report.sides import compare, read_side


@pytest.fixture
def result() -> dict[str, Any]:
    return example_result()


def stored(folder: Path, name: str, result: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(json.dumps(result))
    return path


def dearer(result: dict[str, Any]) -> dict[str, Any]:
    """The same with half as many pages of the counters' work: a run that did twice the zone locking."""
    for entry in result["results"]:
        entry["counters"]["zone_lock_acquisitions"] *= 2
    return result


def test_a_result_against_itself_differs_in_nothing(tmp_path: Path, result: dict[str, Any]) -> None:
    side = read_side(stored(tmp_path, "a.json", result))
    found = compare(side, side)
    assert found.paired
    for pair in found.pairs:
        assert pair.a == pair.b
        assert pair.ratio == pytest.approx(1)
        assert pair.ratio_interval == (pytest.approx(1), pytest.approx(1))
        assert not pair.beyond


def test_costs_are_those_of_the_results_and_the_same_prices_do_not_blur_the_ratio(
    tmp_path: Path, result: dict[str, Any]
) -> None:
    a = read_side(stored(tmp_path, "a.json", result))
    b = read_side(stored(tmp_path, "b.json", dearer(example_result())))
    found = compare(a, b)
    by_label = {pair.label: pair for pair in found.pairs}
    for entry in result["results"]:
        assert by_label[entry["label"]].a == pytest.approx(entry["cost"]["per_page"])
    pair = by_label["per-page"]
    assert pair.counters["zone_lock_acquisitions"] == (pytest.approx(80 / 2.56), pytest.approx(160 / 2.56))
    assert pair.b > pair.a  # type: ignore[operator]
    assert pair.ratio_interval is not None
    low, high = pair.ratio_interval
    own = [pair.b_interval[0] / pair.a_interval[1], pair.b_interval[1] / pair.a_interval[0]]  # type: ignore[index]
    assert own[0] < low <= pair.ratio <= high < own[1]  # type: ignore[operator]
    assert pair.beyond
    assert "per-page: B costs" in letter(found)


def test_the_text_fits_a_mail_and_says_where_it_comes_from(tmp_path: Path, result: dict[str, Any]) -> None:
    result["command"] = "tracereplay replay 'a trace' " + "-s per-page -s bulk:batch_cap=64 " * 5
    result["trace"]["path"] = "/srv/traces/" + "deep/" * 20 + "web.trace"
    side = read_side(stored(tmp_path, "a.json", result))
    text = letter(compare(side, side))
    assert max(map(len, text.splitlines())) <= WIDTH == 72
    for told in ("kernel", "machine", "workload", "prices", "seed", "version", "95 %", "[", "no difference beyond"):
        assert told in text
    lines = text.split("command", 1)[1].split("\n\n")[0]
    assert lines.replace("\\\n", " ").split() == result["command"].split()


def test_results_that_cannot_be_compared(tmp_path: Path, result: dict[str, Any]) -> None:
    a = read_side(stored(tmp_path, "a.json", result))
    other = example_result()
    other["profile"] = load_profile("linux-6.1").to_dict()
    b = read_side(stored(tmp_path, "b.json", other))
    with pytest.raises(UsageError, match="priced by"):
        compare(a, b)
    assert compare(a, b, load_profile("linux-6.1")).profile.name == "linux-6.1"
    third = example_result()
    for entry in third["results"]:
        entry["label"] = f"other {entry['label']}"
    with pytest.raises(UsageError, match="no strategy is in both"):
        compare(a, read_side(stored(tmp_path, "c.json", third)))
    with pytest.raises(ResultsError, match="no such results"):
        read_side(tmp_path / "none.json")


def test_one_strategy_each_is_compared_whatever_it_is_called(tmp_path: Path, result: dict[str, Any]) -> None:
    other = example_result()
    result["results"], other["results"] = result["results"][:1], other["results"][1:2]
    found = compare(read_side(stored(tmp_path, "a.json", result)), read_side(stored(tmp_path, "b.json", other)))
    assert [pair.label for pair in found.pairs] == ["per-page / bulk"]
    assert found.pairs[0].ratio < 1  # type: ignore[operator]


def test_the_verb(tmp_path: Path, result: dict[str, Any]) -> None:
    paths = [str(stored(tmp_path, "a.json", result)), str(stored(tmp_path, "b.json", dearer(example_result())))]
    runner = CliRunner()
    text = runner.invoke(app, ["compare", *paths])
    assert text.exit_code == 0
    assert text.stdout.startswith("Simulated page allocation cost per page, ns")
    rows = json.loads(runner.invoke(app, ["compare", *paths, "--format", "json"]).stdout)["results"]
    assert [row["label"] for row in rows] == [entry["label"] for entry in result["results"]]
    table = runner.invoke(app, ["compare", *paths, "--format", "csv"]).stdout
    assert pl.read_csv(table.encode())["beyond"].to_list() == [row["beyond"] for row in rows]
