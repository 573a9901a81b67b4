"""Starting the collector and reading its findings, with stand-ins for the system Python and sudo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tracereplay.cli.app import app
from tracereplay.cli.units import seconds
from tracereplay.errors import BccUnavailableError, CollectorError, PrivilegeError, UsageError
from tracereplay.trace import collector_process, hostcheck
from tracereplay.trace.collector_process import SYSTEM_PYTHON_ENV, CollectorProcess, collector_command

FINDINGS = {
    "schema": 1,
    "capture": {"possible": False, "reason": "bcc: absent"},
    "host": {"release": "6.1"},
    "items": [
        {"name": "kernel", "found": "6.1", "needed": "5.8", "ok": True, "effect": "", "remedy": "", "blocks": False},
        {
            "name": "bcc",
            "found": "absent",
            "needed": "bcc",
            "ok": False,
            "effect": "no programs",
            "remedy": "apt install python3-bpfcc",
            "blocks": True,
        },
    ],
}


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the system Python: prints FINDINGS."""
    made = script(tmp_path / "python3", f"cat <<'END'\n{json.dumps(FINDINGS)}\nEND")
    monkeypatch.setenv(SYSTEM_PYTHON_ENV, str(made))
    hostcheck.capture_path.cache_clear()
    return made


def test_the_collectors_findings_become_the_report(python: Path) -> None:
    report = hostcheck.examine_host()
    assert (report.possible, report.reason) == (False, "bcc: absent")
    assert [i.name for i in report.items if i.blocks] == ["bcc"]
    assert hostcheck.capture_possible() == (False, "bcc: absent")
    hostcheck.capture_path.cache_clear()


def test_a_host_that_refuses_ebpf_alone_can_capture(python: Path) -> None:
    capture = {"possible": True, "path": "tracefs", "reason": "possible, through an instance of tracefs"}
    items = [{**item, "blocks": False} for item in FINDINGS["items"]]  # type: ignore[attr-defined]
    script(python, f"cat <<'END'\n{json.dumps({**FINDINGS, 'capture': capture, 'items': items})}\nEND")
    assert hostcheck.capture_path() == ("tracefs", "possible, through an instance of tracefs")
    assert hostcheck.capture_possible()[0]
    hostcheck.capture_path.cache_clear()
    result = CliRunner().invoke(app, ["doctor"])
    assert "-     bcc: absent" in result.stdout
    assert result.stdout.rstrip().endswith("capture: possible, through an instance of tracefs")


def test_doctor_prints_effect_remedy_and_conclusion_and_ends_well(python: Path) -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "NO    bcc: absent" in result.stdout
    assert "remedy: apt install python3-bpfcc" in result.stdout
    assert result.stdout.rstrip().endswith("capture: not possible here: bcc: absent")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_doctor_json_says_whether_capture_is_possible(python: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--format", "json"])
    value = json.loads(result.stdout)
    assert value["capture"] == {"possible": False, "path": "", "reason": "bcc: absent"}
    assert {"name", "found", "needed", "ok", "effect", "remedy", "blocks"} <= set(value["items"][0])


def test_doctor_csv_has_a_row_per_item(python: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--format", "csv"])
    lines = result.stdout.splitlines()
    assert lines[0] == "name,found,needed,ok,effect,remedy"
    assert lines[1].startswith("kernel,6.1,5.8,True")


@pytest.mark.parametrize("output", ["exit 7", "echo words", "echo '{}'", "echo '[1]'"])
def test_a_check_that_speaks_no_sense_is_a_finding_not_a_crash(output: str, python: Path) -> None:
    script(python, output)
    report = hostcheck.examine_host()
    assert not report.possible
    assert report.items[0].name == "collector"
    assert "check failed" in report.reason


def test_without_a_system_python_bcc_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SYSTEM_PYTHON_ENV, "/nonexistent/python3")
    with pytest.raises(BccUnavailableError) as caught:
        collector_command([])
    assert "python3-bpfcc" in str(caught.value.hint)
    assert "pip install bcc" in str(caught.value.hint)
    assert not hostcheck.examine_host().possible


def test_a_user_goes_through_sudo_and_is_told_when_there_is_none(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrivilegeError, match="no sudo"):
        collector_command([])
    sudo = script(tmp_path / "sudo", "echo 'sudo: a password is required' >&2; exit 1")
    command = collector_command(["--check"])
    assert command[:3] == [str(sudo), "-n", str(python)]
    process = CollectorProcess([])
    error = process.explain(CollectorError("the stream ended"))
    assert isinstance(error, PrivilegeError)
    assert "sudo tracereplay capture" in str(error.hint)


def test_doctor_of_a_user_whose_sudo_refuses_asks_the_collector_directly(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script(tmp_path / "sudo", "echo 'sudo: a password is required' >&2; exit 1")
    assert hostcheck.examine_host().reason == "bcc: absent"


def test_a_collector_that_dies_is_explained_with_its_last_words(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    script(python, "echo first >&2; echo the last words >&2; exit 9")
    process = CollectorProcess([])
    error = process.explain(CollectorError("the stream ended", hint="look"))
    assert isinstance(error, CollectorError)
    assert error.message == "the stream ended (collector: exit code 9; it said: the last words)"
    assert error.hint == "look"
    assert process.end() == 9


def test_capture_without_bcc_is_named_and_leaves_nothing(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real collector on a Python without bcc: this environment's own."""
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv(SYSTEM_PYTHON_ENV, sys.executable)
    if subprocess.run([sys.executable, "-c", "import bcc"], capture_output=True, check=False).returncode == 0:
        monkeypatch.setattr(collector_process, "SYSTEM_PYTHON", sys.executable)
        pytest.fail("this environment has a module bcc; it must not")
    result = CliRunner().invoke(app, ["capture", str(tmp_path / "t"), "--tracer", "ebpf", "--duration", "1s"])
    assert result.exit_code == 4
    assert "bcc" in result.stderr or "tracefs" in result.stderr
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("text", "value"), [("500ms", 0.5), ("10s", 10), ("2m", 120), ("1.5h", 5400), ("3", 3), (" 1s ", 1)]
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "s", "-1s", "10 parsecs", "0s", "1e3", "ten"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="no duration"):
        seconds(text)
