"""``tracereplay report``: exit codes, stdout and stderr apart, nothing on disk changed by an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.example_result import example_result

TRACEREPLAY = Path(sys.executable).with_name("tracereplay")


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TRACEREPLAY, "report", *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(example_result()))
    return path


def test_writes_the_page_and_prints_its_path(results: Path) -> None:
    done = report(results)
    page = results.with_suffix(".html")
    assert (done.returncode, done.stdout) == (0, f"{page}\n")
    assert "without the charts of its trace" in done.stderr
    assert "compound is cheapest" in page.read_text()
    assert f"tracereplay report {results}" in page.read_text()
    assert sorted(p.name for p in results.parent.iterdir()) == ["results.html", "results.json"]


def test_existing_output_stays(results: Path) -> None:
    page = results.with_suffix(".html")
    page.write_text("mine")
    done = report(results)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "output exists" in done.stderr
    assert "--force" in done.stderr
    assert page.read_text() == "mine"
    assert report(results, "--force").returncode == 0
    assert page.read_text() != "mine"


def test_force_does_not_replace_a_directory(results: Path, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    assert report(results, "-o", tmp_path / "dir", "--force").returncode == 2
    assert (tmp_path / "dir").is_dir()


NEWER = example_result() | {"schema": 99}
BAD = {
    "no JSON": ("{", 3, "not readable as JSON"),
    "other JSON": ("[1, 2]", 3, "holds no results"),
    "newer": (json.dumps(NEWER), 3, "newer tracereplay"),
    "part missing": (json.dumps({k: v for k, v in example_result().items() if k != "accounting"}), 3, "'accounting'"),
    "row without cost": (json.dumps(example_result() | {"results": [{"strategy": "x"}]}), 3, "without strategy"),
    "odd profile": (json.dumps(example_result() | {"profile": {"coefficients": {"x": {}}}}), 5, "result's profile"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_results(case: str, tmp_path: Path) -> None:
    text, code, message = BAD[case]
    path = tmp_path / "results.json"
    path.write_text(text)
    done = report(path)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_nothing_there(tmp_path: Path) -> None:
    done = report(tmp_path / "none")
    assert done.returncode == 3
    assert "no such trace, results or sweep" in done.stderr


def test_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = report(tmp_path / "empty")
    assert done.returncode == 3
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_no_directory_for_the_page(results: Path, tmp_path: Path) -> None:
    done = report(results, "-o", tmp_path / "no" / "page.html")
    assert done.returncode == 2
    assert "no directory" in done.stderr


def test_prices_of_another_profile(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "list.html"
    done = report(results, "--profile", "brouer-2021-list", "-o", page)
    assert done.returncode == 0, done.stderr
    assert "Profile brouer-2021-list" in page.read_text()
    assert "Profile brouer-2021:" not in page.read_text()
    refused = report(tmp_path, "--profile", "brouer-2021", "-o", tmp_path / "x.html")
    assert refused.returncode == 2
    assert "has no prices" in refused.stderr
