"""`tracereplay calibrate` on samples of a made-up host, and on collectors that fail."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.calibration_samples import Host
from tracereplay.cli import calibrate as module
from tracereplay.cli.app import app
from tracereplay.cost.profile import load_profile
from tracereplay.trace.collector_files import SYSTEM_PYTHON_ENV


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibrate") / "samples.jsonl"
    path.write_text("\n".join(Host().lines(5)) + "\n")
    return path


def run(*args: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["calibrate", *map(str, args)])
    return done.exit_code, done.stdout, done.stderr


def test_table(kept: Path) -> None:
    code, out, _ = run("--samples", kept)
    assert code == 0
    assert "Test CPU 3000, 2 CPUs, Linux 6.18.1, load 0.5: 5 rounds in 12 s" in out
    assert "measured" in out
    assert "tail_check" in out
    assert "not a price of the profile" in out


def test_json_and_csv(kept: Path) -> None:
    document = json.loads(run("--samples", kept, "--format", "json")[1])
    assert document["claimed"]["pop"]["value"] == pytest.approx(16.0, abs=1.5)
    rows = list(csv.DictReader(io.StringIO(run("--samples", kept, "--format", "csv")[1])))
    assert tuple(rows[0]) == module.COLUMNS
    assert {r["claimed"] for r in rows} <= {"yes", "no", "seen"}
    assert len({r["primitive"] for r in rows if r["claimed"] != "seen"}) == 13


def test_profile_and_what_is_there_already(kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    code, _, err = run("--samples", kept, "--out", out)
    assert code == 0
    assert f"profile: {out}; use it with --profile {out}" in err
    assert load_profile(out).name == "mine"
    assert list(tmp_path.iterdir()) == [out]
    assert run("--samples", kept, "--out", out)[0] == 2
    assert run("--samples", kept, "--out", out, "--force", "--name", "other")[0] == 0
    assert load_profile(out).name == "other"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--seconds", "0"], "1 to 50"),
        (["--seconds", "500"], "1 to 50"),
        (["--out", "/nowhere/x.toml"], "cannot write"),
        (["--samples", "/nowhere/x"], "cannot read"),
        (["--samples", "a", "--keep-samples", "b"], "kept already"),
    ],
)
def test_usage(args: list[str], words: str) -> None:
    code, _, err = run(*args)
    assert code == 2
    assert words in err
    assert "next:" in err


def test_samples_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello\n")
    code, _, err = run("--samples", tmp_path / "x")
    assert code == 4
    assert "line 1 is none of a calibration" in err


def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a shell script be the system's Python; sudo is not asked."""
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\n" + script)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(SYSTEM_PYTHON_ENV, str(fake))
    monkeypatch.setattr("tracereplay.trace.collector_process.os.geteuid", lambda: 0)


def test_a_collector_that_measures(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, f"cat {kept}\n")
    copy = tmp_path / "copy"
    assert run("--keep-samples", copy)[0] == 0
    assert copy.read_text() == kept.read_text()


def test_a_collector_that_breaks_off(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, f"head -n 3 {kept}\necho out of luck >&2\nexit 1\n")
    code, _, err = run()
    assert code == 4
    assert "the measurement broke off; it said: out of luck" in err


def test_sudo_that_asks_for_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "echo 'sudo: a password is required' >&2\nexit 1\n")
    code, _, err = run()
    assert code == 4
    assert "needs root" in err
    assert "sudo tracereplay calibrate" in err


def test_a_host_without_ebpf(tmp_path: Path) -> None:
    kept = tmp_path / "clock"
    kept.write_text("\n".join(Host().clock_lines("bpf() is refused")))
    code, out, err = run("--samples", kept)
    assert code == 0
    assert "warning: no eBPF, wall clock only: bpf() is refused" in err
    assert "needs eBPF (bpf() is refused)" in out


def test_other_tracers_are_named(kept: Path, tmp_path: Path) -> None:
    first, rest = kept.read_text().split("\n", 1)
    hello = json.loads(first)
    hello["host"]["other_tracers"] = ["tr_mm_page_free"]
    (tmp_path / "x").write_text(json.dumps(hello) + "\n" + rest)
    code, _, err = run("--samples", tmp_path / "x")
    assert code == 0
    assert "page events are traced by others (tr_mm_page_free)" in err
