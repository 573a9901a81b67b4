"""``tracereplay import`` from outside: exit codes, what goes to which stream, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.capture_streams import PAGE, Stream

DATA = Path(__file__).parents[1] / "data" / "import"


def run(*args: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", "from tracereplay.cli.app import main; main()", *map(str, args)],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=300,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_import_says_what_came_in(tmp_path: Path) -> None:
    done = run("import", DATA / "overwritten-6.1.trace.gz", tmp_path / "out", "--kernel", "6.1.0", "--clock", "mono")
    assert done.returncode == 0
    assert done.stdout == ""
    for text in ("kmem:mm_page_alloc", "1,743", "clock mono", "resolution 1000 ns", "4,743 events are missing"):
        assert text in done.stderr
    assert "snapshots: 10 files of overwritten-6.1 (start, end)" in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 100
    assert run("validate", tmp_path / "out").returncode == 0


def test_standard_input_with_bad_lines(tmp_path: Path) -> None:
    good = b"bash-1 [000] ..... 1.000001: mm_page_free: page=0 pfn=0x1 order=0\n"
    done = run("import", "-", tmp_path / "out", stdin=good + b"bad\n" + good)
    assert done.returncode == 0
    assert "1 of 3 lines were refused" in done.stderr
    assert "line 2: no task, CPU and time at its start: 'bad'" in done.stderr


def test_errors_have_codes_and_remedies(tmp_path: Path) -> None:
    prose = tmp_path / "prose.txt"
    prose.write_text("no trace at all\n")
    sched = tmp_path / "sched.txt"
    sched.write_text("a-1 [000] ..... 1.000001: sched_switch: x\n")
    (tmp_path / "there").mkdir()
    cases: list[tuple[tuple[object, ...], int, str]] = [
        ((prose, tmp_path / "out"), 3, "text that is no trace"),
        ((sched, tmp_path / "out"), 3, "no page-allocation or block event"),
        ((tmp_path / "absent", tmp_path / "out"), 3, "does not exist"),
        ((prose, tmp_path / "out", "--from", "ftrac"), 3, "did you mean 'ftrace'?"),
        ((prose, tmp_path / "there"), 2, "output exists"),
        ((prose, tmp_path / "out", "--snapshots", tmp_path / "x"), 2, "no snapshot files"),
        ((prose, tmp_path / "out", "--snapshots", tmp_path / "x", "--no-snapshots"), 2, "exclude each other"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for args, code, says in cases:
        done = run("import", *args)
        assert (done.returncode, says in done.stderr, "next: " in done.stderr) == (code, True, True), done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_help_shows_an_example() -> None:
    done = run("import", "--help")
    assert done.returncode == 0
    assert "tracereplay import trace.dat web.trace" in done.stdout
    for option in ("--from", "--force", "--kernel", "--clock", "--snapshots", "--no-snapshots", "--strict"):
        assert option in done.stdout


def test_frames_that_end_early_are_imported_with_a_warning(tmp_path: Path) -> None:
    s = Stream().started()
    s.batch(PAGE, 0, s.one(PAGE, 0, ts=2000), s.one(PAGE, 0, ts=2001)).watermark(3000)
    (tmp_path / "run.raw").write_bytes(s.data[:-20])
    done = run("import", tmp_path / "run.raw", tmp_path / "out")
    assert done.returncode == 0
    assert done.stdout == ""
    assert f"warning: the trace is incomplete: the frames end early, at byte {len(s.data) - 20}" in done.stderr
    assert "page_events" in done.stderr
    assert run("validate", tmp_path / "out").returncode == 0
    assert run("import", tmp_path / "run.raw", tmp_path / "strict", "--strict").returncode == 3
    assert not (tmp_path / "strict").exists()


def test_a_directory_of_blktrace_is_one_source(tmp_path: Path) -> None:
    done = run("import", DATA.parent / "blktrace" / "6.1", tmp_path / "out")
    assert done.returncode == 0
    for text in ("from blktrace", "block:block_rq_complete", "545", "clock monotonic", "G (getrq) 526", "tasks: 25"):
        assert text in done.stderr
    assert done.stdout == ""
