"""``tracereplay export`` from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TRACES = Path(__file__).parents[2] / "traces"


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from tracereplay.cli.app import main; main()", "export", *map(str, args)],
        capture_output=True,
        check=False,
        timeout=300,
        text=True,
    )


def test_files_are_written_once(tmp_path: Path) -> None:
    trace = TRACES / "dmcrypt-6.12-1M"
    done = run(trace, tmp_path / "x.iolog", "--to", "fio", "--time", "0:2s", "--file", "/dev/sdb", "--device", "253:1")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no bios that the filters keep" in done.stderr
    done = run(trace, tmp_path / "x.iolog", "--to", "fio", "--file", "/dev/sdb")
    assert done.returncode == 2
    assert "--device" in done.stderr
    assert list(tmp_path.iterdir()) == []
    device = done.stderr.split("--device ")[1].split(";")[0]
    done = run(trace, tmp_path / "x.iolog", "--to", "fio", "--file", "/dev/sdb", "--device", device)
    assert done.returncode == 0
    assert "--read_iolog" in done.stderr
    assert "completeness:" in done.stderr
    assert (tmp_path / "x.iolog").read_text().startswith("fio version 3 iolog\n0 /dev/sdb add\n")
    done = run(trace, tmp_path / "x.iolog", "--to", "perfetto")
    assert done.returncode == 2
    assert "--force" in done.stderr
    done = run(trace, tmp_path / "x.iolog", "--to", "perfetto", "--force")
    assert done.returncode == 0
    assert json.loads((tmp_path / "x.iolog").read_text())["traceEvents"]


def test_options_without_a_meaning(tmp_path: Path) -> None:
    done = run(TRACES / "dmcrypt-6.12-1M", tmp_path / "x", "--to", "fio", "--sql", "SELECT 1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--sql has no meaning for fio" in done.stderr
