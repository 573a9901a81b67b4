"""The demo's driver and its workload. That the whole of it runs is the live test's and ``make demo``'s matter."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tracereplay.cli.demo import __main__ as demo
from tracereplay.cli.demo.workload import SIZES, has_direct_io, run


def test_workload_does_every_kind_and_cleans_up(tmp_path: Path) -> None:
    done = run(tmp_path, 0.5)
    assert done["buffered writes"] > 0
    if has_direct_io(tmp_path):
        assert done["direct writes"] > 0
    assert done["compiles"] + done["processes"] > 0
    assert done["MiB touched"] > 0
    assert list(tmp_path.iterdir()) == []
    assert (SIZES[0], SIZES[-1]) == (4096, 1 << 20)


def test_workload_without_a_compiler_forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert run(tmp_path, 0.1)["processes"] >= 8


class Verbs(demo.Steps):
    """Steps that record the verbs and answer as told."""

    def __init__(self, **answers: tuple[int, str]) -> None:
        super().__init__()
        self.answers = answers
        self.ran: list[tuple[str, ...]] = []

    def run(self, name: str, *arguments: str, shown: bool = True) -> subprocess.CompletedProcess[str]:
        self.ran.append(arguments)
        code, out = self.answers[name]
        return subprocess.CompletedProcess(arguments, code, out)


ABLE = (0, '{"capture": {"possible": true, "reason": "all there"}}')
UNABLE = (0, '{"capture": {"possible": false, "reason": "not root"}}')


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b", "a"):
        (tmp_path / "traces" / name).mkdir(parents=True)
        (tmp_path / "traces" / name / "manifest.json").write_text("{}")
    monkeypatch.setattr(demo, "SHIPPED", tmp_path / "traces")
    return tmp_path / "traces" / "a"


def test_captures_where_the_host_allows_it(tmp_path: Path) -> None:
    verbs = Verbs(doctor=ABLE, capture=(0, ""))
    assert demo.trace_to_replay(verbs, tmp_path, 7, is_shipped=False) == tmp_path / "trace"
    verb, out, *rest = verbs.ran[1]
    assert (verb, out) == ("capture", str(tmp_path / "trace"))
    assert rest[:3] == ["--duration", "7s", "--force"]
    assert rest[3] == "--"
    assert rest[-1] == "7"


@pytest.mark.parametrize(
    ("answers", "is_shipped", "reason"),
    [
        ({"doctor": UNABLE}, False, "not root"),
        ({"doctor": ABLE, "capture": (4, "")}, False, "capture failed"),
        ({"doctor": (1, "")}, False, "doctor failed"),
        ({}, True, "asked for"),
    ],
)
def test_else_uses_a_shipped_trace_and_says_why(
    answers: dict[str, Any],
    is_shipped: bool,
    reason: str,
    shipped: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert demo.trace_to_replay(Verbs(**answers), tmp_path, 1, is_shipped) == shipped
    said = capsys.readouterr().err
    assert reason in said
    assert str(shipped) in said


def test_no_trace_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "SHIPPED", tmp_path)
    with pytest.raises(SystemExit) as ended:
        demo.shipped_trace()
    assert ended.value.code == 3
    assert "full checkout" in capsys.readouterr().err
