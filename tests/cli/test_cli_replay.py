"""``tracereplay replay``: types of the JSON, traces that cannot be replayed, and what stays untouched when it fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tracereplay.strategies.registry import load_strategy

TRACE = Path(__file__).parents[2] / "traces" / "dmcrypt-6.1-1M"
COMMAND = [sys.executable, "-c", "from tracereplay.cli.app import main; main()"]

NUMBER = (int, float)
FORM: dict[str, Any] = {
    "schema": int,
    "trace": {"id": str, "path": str, "complete": bool},
    "machine": {"memory_bytes": int, "cpus": int, "generation": str, "seed": int, "zones": list},
    "demand": {"requests": int, "pages": int, "targeted_pages": int, "unseen_pages": int},
    "accounting": {
        "events": int,
        "matched": int,
        "unmatched_frees": int,
        "left_censored": int,
        "right_censored": int,
        "lost": (int, type(None)),
        "loss_intervals": int,
    },
    "profile": dict,
    "results": list,
}
RESULT: dict[str, Any] = {
    "strategy": str,
    "label": str,
    "params": dict,
    "counters": dict,
    "background": dict,
    "cost": {
        "unit": str,
        "total": NUMBER,
        "per_page": NUMBER,
        "per_request": {"mean": NUMBER, "p50": NUMBER, "p99": NUMBER},
        "interval95": list,
        "by_primitive": dict,
    },
}


def tracereplay(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


def mismatches(value: Any, form: Any, where: str = "") -> list[str]:
    """Where a JSON value lacks a key of the form or has another type."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return [f"{where}: no object"]
        return [
            m
            for k, f in form.items()
            for m in ([f"{where}.{k}: missing"] if k not in value else mismatches(value[k], f, f"{where}.{k}"))
        ]
    if isinstance(value, bool) and form is int:
        return [f"{where}: a truth value"]
    return [] if isinstance(value, form) else [f"{where}: {type(value).__name__}"]


def test_types() -> None:
    done = tracereplay("replay", TRACE, "--format", "json", "--target", "all")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert mismatches(result, FORM) == []
    assert [m for entry in result["results"] for m in mismatches(entry, RESULT)] == []
    for entry in result["results"]:
        assert all(isinstance(n, int) and n >= 0 for n in entry["counters"].values())
        assert all(isinstance(n, int) and n >= 0 for n in entry["background"].values())
        assert len(entry["cost"]["interval95"]) == 2
        plain = entry["counters"]
        for name, row in entry["by_order"].items():
            assert sum(row) == plain[name]
        for name, bins in entry["series"]["targeted"].items():
            assert sum(bins) == plain[name]
        assert plain["pages_allocated"] >= plain["pages_freed"] or entry["strategy"] == "unmapped-cache"
    assert {entry["requests"]["served"] + entry["requests"]["failed"] for entry in result["results"]} == {
        result["demand"]["targeted_requests"]
    }


def test_nothing_targeted_costs_nothing_and_says_so() -> None:
    done = tracereplay("replay", TRACE, "-s", "bulk", "--target", "none", "--format", "json")
    assert done.returncode == 0
    (entry,) = json.loads(done.stdout)["results"]
    assert entry["cost"]["total"] == 0
    assert not any(entry["counters"].values())
    assert "no request was targeted" in " ".join(done.stderr.split())


def broken(tmp_path: Path, how: str) -> Path:
    """A trace that cannot be replayed."""
    path = tmp_path / "broken"
    if how == "missing":
        return path
    if how == "empty directory":
        path.mkdir()
    elif how == "text":
        path.write_text("no trace\n")
    else:
        shutil.copytree(TRACE, path)
        if how == "newer schema":
            manifest = json.loads((path / "manifest.json").read_text())
            manifest["schema"] = 999
            (path / "manifest.json").write_text(json.dumps(manifest))
        else:
            file = next(path.glob("**/page_events*/**/*.parquet"), None) or next(path.glob("**/*page_events*.parquet"))
            file.write_bytes(file.read_bytes()[:-200])
    return path


@pytest.mark.parametrize("how", ["missing", "empty directory", "text", "newer schema", "truncated"])
def test_a_trace_that_cannot_be_replayed(tmp_path: Path, how: str) -> None:
    path = broken(tmp_path, how)
    before = sorted((p, p.stat().st_size) for p in tmp_path.rglob("*"))
    done = tracereplay("replay", path, "-s", "bulk", "-o", tmp_path / "r.json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr
    assert "next:" in done.stderr
    assert sorted((p, p.stat().st_size) for p in tmp_path.rglob("*")) == before


def test_a_failing_replay_leaves_no_file(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    full = ("--machine", "memory=64MiB", "--machine", "occupancy=0.99", "--path", "dm-crypt")
    done = tracereplay("replay", TRACE, "-s", "per-page", *full, "-o", out)
    assert done.returncode == 5
    assert "reserve of 256 pages" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_the_output(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    out.write_text("old")
    assert tracereplay("replay", TRACE, "-s", "bulk", "-o", out, "--force").returncode == 0
    assert json.loads(out.read_text())["schema"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_seed_decides_the_placement_and_only_that() -> None:
    counters = []
    for seed in (1, 1, 2):
        done = tracereplay("replay", TRACE, "-s", "compound", "--seed", seed, "--format", "json")
        (entry,) = json.loads(done.stdout)["results"]
        counters.append(entry["counters"])
    assert counters[0] == counters[1]
    same = ("alloc_calls", "pages_allocated", "free_calls", "pages_freed", "compound_preps")
    assert [counters[0][name] for name in same] == [counters[2][name] for name in same]


def test_parameters_in_one_spec_and_by_set_are_the_same() -> None:
    runs = [
        json.loads(tracereplay("replay", TRACE, "--format", "json", "-s", *how).stdout)["results"][0]
        for how in (("bulk:batch_cap=16",), ("bulk", "--set", "bulk.batch_cap=16"))
    ]
    assert runs[0] == runs[1]
    assert runs[0]["params"] == load_strategy("bulk")().values() | {"batch_cap": 16}
