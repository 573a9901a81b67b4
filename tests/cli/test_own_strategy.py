"""Strategies of one's own on the command line: by file, by entry point, checked first; the tutorial's commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.broken_strategies import RIGHT, broken_file
from tracereplay.testing import RULES

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "write-a-strategy.md"
TRACE = "traces/dmcrypt-6.1-1M"
COMMANDS = [
    line.strip()
    for line in TUTORIAL.read_text().splitlines()
    if re.match(r" {4}tracereplay (strategies|replay) ", line)
]


def tracereplay(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from tracereplay.cli.app import main; main()", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_tutorial_runs(command: str) -> None:
    done = tracereplay(*shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr
    assert "llfree" in done.stdout or "ok" in done.stdout


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 3


def test_the_tutorial_lists_the_rules() -> None:
    text = TUTORIAL.read_text()
    assert [r for r in RULES if f"| `{r}` | {RULES[r]} |" not in text] == []


def test_a_file_serves_what_a_name_serves(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RIGHT)
    spec = f"own={path}:Mine:depth=9"
    arguments = ("replay", TRACE, "--format", "json", "-s", "per-page", "-s", spec, "--set", "own.depth=8")
    first = tracereplay(*arguments)
    assert first.returncode == 0, first.stderr
    assert "checking the strategy" in first.stderr
    per_page, own = json.loads(first.stdout)["results"]
    assert (own["label"], own["strategy"], own["params"]) == ("own", "mine", {"depth": 8})
    assert own["counters"] == per_page["counters"]
    second = tracereplay(*arguments)
    assert "checking" not in second.stderr
    assert json.loads(second.stdout)["results"] == json.loads(first.stdout)["results"]


def test_an_entry_point_of_another_package_is_found_and_checked(tmp_path: Path) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "mine.py").write_text(RIGHT)
    (tmp_path / "my_package-1.dist-info").mkdir()
    (tmp_path / "my_package-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-package\nVersion: 1\n"
    )
    (tmp_path / "my_package-1.dist-info" / "entry_points.txt").write_text(
        "[tracereplay.strategies]\nmine = my_package.mine:Mine\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    assert "single pages" in tracereplay("strategies", PYTHONPATH=path).stdout
    done = tracereplay("replay", TRACE, "-s", "mine", "--format", "json", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["strategy"] == "mine"
    assert "checking the strategy mine" in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("    # done\n", "    st[pages + 17] = 1\n"), "outside of st"),
        (("def init(m, st):", "def init(m, st)"), "expected ':'"),
    ],
)
def test_a_broken_file_does_not_run(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = broken_file(tmp_path, change)
    done = tracereplay("replay", TRACE, "-s", f"{path}:Mine")
    assert (done.returncode, done.stdout) == (5, "")
    assert says in done.stderr
    assert re.search(r"mine\.py:\d+: ", done.stderr)
    assert "Traceback" not in done.stderr


def test_the_check_tells_and_exits_with_5(tmp_path: Path) -> None:
    path = broken_file(tmp_path, ("    # done\n", "    st[-1] = 1\n"))
    done = tracereplay("strategies", "--check", f"{path}:Mine")
    assert done.returncode == 5
    assert "> st[-1] = 1" in done.stdout
    verdict = json.loads(tracereplay("strategies", "--check", f"{path}:Mine", "--format", "json").stdout)
    assert (verdict["schema"], verdict["ok"], verdict["findings"][0]["rule"]) == (1, False, "bounds")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["replay", TRACE, "-s", "nowhere.py:X"], 5, "no strategy file"),
        (["replay", TRACE, "-s", "docs/examples/llfree.py:LLFree:keep=-1"], 5, "0..1024"),
        (["replay", TRACE, "-s", "docs/examples/llfree.py:LLFree:kept=1"], 5, "did you mean 'keep'"),
        (["strategies", "--check"], 2, "--check needs a strategy"),
    ],
)
def test_mistakes_are_named(arguments: list[str], code: int, words: str) -> None:
    done = tracereplay(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_a_wrong_class_suggests_the_nearest() -> None:
    done = tracereplay("strategies", "docs/examples/llfree.py:LLFre")
    assert (done.returncode, done.stdout) == (5, "")
    assert "did you mean 'LLFree'" in done.stderr
