"""What is said of the machine beside a cost: from a check of the trace, within its time, or from other captures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.example_result import example_result
from tracereplay.cli.accuracy import SUMS, sums
from tracereplay.errors import ResultsError, UsageError
from tracereplay.report.accuracy import of_captures, of_check
from tracereplay.report.assemble import report_of
from tracereplay.report.check import TimedCheck
from tracereplay.trace.reader import Trace

ROOT = Path(__file__).parents[2]
CHECK = {
    "generation": "6.12",
    "refill": {"kernel": 1000, "twin": 998, "precision": 0.999, "recall": 0.997},
    "drain": {"kernel": 4, "twin": 4, "precision": 0.75, "recall": 0.75},
    "extfrag": {"kernel": 0, "twin": 0, "precision": None, "recall": None},
    "pfn": {"eligible": 5000, "share": 0.985},
    "free_blocks": {"l1_share": 0.01},
}


def test_of_a_check() -> None:
    found = of_check(CHECK)
    assert (
        found.line
        == "machine as a 6.12 kernel, on this trace: refills 99.9 % / 99.7 %, drains 75 % / 75 % of 4, frames 98.5 %"
    )
    assert {f.label: f.value for f in found.facts}["fallbacks"] == "none"


def test_of_captures_of_the_same_kernel() -> None:
    found = of_captures(["6.18"], "its file is not here")
    assert found.line.startswith("machine, on other captures of its kernel (medians), 6.18: refills 99.8 % / 99.5 %")
    assert found.line.endswith("not checked on this trace")
    assert "its file is not here" in found.note
    assert found.facts[0].value == "10 captures, 9,052,426 allocations"
    assert "nor on captures of its kernel" in of_captures(["5.10"], "it was not asked for").line
    assert "; 6.1: refills 100 %" in of_captures(["6.18", "6.1"], "why").line
    assert of_captures(["6.18", "5.10"], "why").line.count("5.10: never checked") == 1


def test_the_sums_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "accuracy.md").read_text()
    assert json.loads(SUMS.read_text()) == sums(page), "make accuracy"


@pytest.mark.parametrize(("seconds", "reason"), [(0.0, "not asked for"), (0.01, "would take longer than 0.01 s")])
def test_a_check_that_is_not_begun_says_why(seconds: float, reason: str) -> None:
    with TimedCheck(Trace.open(ROOT / "traces" / "mixed-6.12"), seconds) as running:
        assert running.result() is None
        assert reason in running.reason


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exec sleep 60", "the check takes longer than 0.5 s"),
        ("exit 7", "the check ended with status 7"),
        ("""echo '{"reason": "no snapshot"}'""", "no snapshot"),
        ("""echo '{"generation": "6.12"}'""", ""),
    ],
)
def test_a_check_ends_in_its_time(script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with TimedCheck(Trace.open(ROOT / "traces" / "mixed-6.12"), 0.5 if "sleep" in script else 30) as running:
        assert running.result() == (None if reason else {"generation": "6.12"})
        assert running.reason == reason


def test_a_check_of_another_trace_is_refused(tmp_path: Path) -> None:
    results, check = tmp_path / "results.json", tmp_path / "check.json"
    result = example_result()
    results.write_text(json.dumps(result))
    told: list[str] = []
    check.write_text(json.dumps(CHECK | {"trace": {"id": result["trace"]["id"]}}))
    report = report_of(results, "x", told.append, profile=None, check_s=5, verified=check)
    assert report.accuracy == of_check(CHECK)
    check.write_text(json.dumps(CHECK | {"trace": {"id": "feed"}}))
    with pytest.raises(UsageError, match="checks another trace"):
        report_of(results, "x", told.append, profile=None, check_s=5, verified=check)
    check.write_text("{}")
    with pytest.raises(ResultsError, match="holds no twin check"):
        report_of(results, "x", told.append, profile=None, check_s=5, verified=check)
