"""``--load`` of ``demand`` and ``replay``: stated demand in the output, and how mistakes are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRACE = str(Path(__file__).parents[2] / "traces" / "dmcrypt-6.1-1M")
KVFREE = "kvfree:pointers_per_s=5000000,cpus=2"


def tracereplay(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tracereplay.cli.app import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_load_is_what_the_strategies_serve() -> None:
    done = tracereplay("replay", TRACE, "-s", "kvfree-cache", "--load", KVFREE, "--format", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (load,) = result["demand"]["loads"]
    assert load["parameters"]["pointers_per_s"] == 5_000_000
    assert result["demand"]["targeted_requests"] == load["requests"] > 3000
    assert result["demand"]["targeted"]["selector"] == "load kvfree"
    assert result["machine"]["cpus"] == 2
    (entry,) = result["results"]
    counters = entry["counters"]
    assert counters["cache_hits"] + counters["cache_misses"] == load["pages"]
    assert counters["cache_misses"] == counters["failures"]
    assert entry["worker"]["worker_runs"] > 0


def test_the_report_of_demand_names_it() -> None:
    done = tracereplay("demand", TRACE, "--load", KVFREE)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "load kvfree (stated, not recorded)" in done.stdout
    assert "pointers_per_s  5,000,000" in done.stdout


@pytest.mark.parametrize("verb", ["demand", "replay"])
def test_a_misspelt_load_is_refused(verb: str) -> None:
    done = tracereplay(verb, TRACE, "--load", "kvfre")
    assert done.returncode == 5
    assert done.stdout == ""
    assert "did you mean 'kvfree'?" in done.stderr
