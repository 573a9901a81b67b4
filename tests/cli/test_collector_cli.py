"""``tracereplay collector`` from outside."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.cli.test_import_cli import run


def test_the_collector_is_exported(tmp_path: Path) -> None:
    path = tmp_path / "collector"
    done = run("collector", "--export", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert hashlib.sha256(path.read_bytes()).hexdigest() in done.stderr
    again = run("collector", "--export", path)
    assert again.returncode == 2
    assert "output exists" in again.stderr
    assert run("collector", "--export", path, "--force").returncode == 0


def test_nothing_to_do_is_said() -> None:
    done = run("collector")
    assert done.returncode == 2
    assert "tracereplay collector --export FILE" in done.stderr


def test_a_command_does_not_run_on_the_wrong_machine(tmp_path: Path) -> None:
    done = run("capture", tmp_path / "out", "--via", "sh -c", "--", "touch", tmp_path / "touched")
    assert done.returncode == 2
    assert "would run on this machine" in done.stderr
    assert list(tmp_path.iterdir()) == []
