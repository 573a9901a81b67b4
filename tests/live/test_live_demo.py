"""The main job on this host: what ``make demo`` runs, shortened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live


def test_demo_captures_replays_and_reports(tmp_path: Path, nothing_stays: None) -> None:
    output = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "tracereplay.cli.demo", "--output", str(output), "--seconds", "2"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "This host is not captured" not in done.stderr
    assert f"Open {output / 'report.html'} in a browser." in done.stderr
    assert sorted(p.name for p in output.iterdir()) == ["report.html", "results.json", "trace"]
    result = json.loads((output / "results.json").read_text())
    assert [row["strategy"] for row in result["results"]] == ["per-page", "bulk", "compound", "unmapped-cache"]
    assert result["accounting"]["allocations"] > 1000
    assert result["demand"]["targeted_pages"] > 0
    assert all(row["cost"]["total"] > 0 for row in result["results"])
    assert "ns/page" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= max(80, len(str(output)) + 20)
