"""What a capture leaves when something goes wrong: killed processes, full disks, a writer that stands still."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import left_programs, wait_for
from tests.live.test_live_ends import Capture, alive
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
LOAD = Path(__file__).parents[1] / "bench" / "page_fault_load.py"
ROTATE = ("--rotate-time", "200ms")
UNFINISHED = {"incomplete", "unfinished-file", "not-listed", "dropped-file"}


@pytest.fixture
def load() -> Iterator[None]:
    """Page faults on every CPU while the test runs."""
    command = [sys.executable, str(LOAD), "60"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(os.cpu_count() or 1)]
    yield
    for process in running:
        process.kill()
        process.wait()


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of so many MiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "nodev", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def files_finished(out: Path, least: int) -> None:
    """Wait until page events have been finished so many times."""
    wait_for(lambda: len(Trace.open(out).manifest.tables.get("page_events", [])) >= least, f"{least} finished files")


def sound(cli: list[str], out: Path, codes: set[str]) -> Trace:
    """The bundle validates, for the library and on the command line, and ``info`` shows it."""
    trace = Trace.open(out)
    report = validate_trace(trace)
    assert report.ok, report.errors
    assert {f.code for f in report.findings} <= codes
    for verb in ("validate", "info"):
        shown = subprocess.run([*cli, verb, str(out)], capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stderr
        if not trace.complete:
            assert "complete" in shown.stdout + shown.stderr or "did not finish" in shown.stdout
    return trace


# ---------------------------------------------------------------- killed
@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("victims", ["collector", "writer", "both"])
def test_kill_9_costs_at_most_the_open_files(cli: list[str], out: Path, victims: str) -> None:
    capture = Capture(cli, out, "--events", "page,bio,buddy", *ROTATE)
    files_finished(out, 3)
    listed = Trace.open(out).manifest.tables["page_events"]
    if victims in ("writer", "both"):
        capture.process.send_signal(signal.SIGSTOP)  # both at one instant
        os.kill(capture.process.pid, signal.SIGKILL)
    if victims in ("collector", "both"):
        os.kill(capture.collector, signal.SIGKILL)
    code, err = capture.end()
    assert code == (4 if victims == "collector" else -signal.SIGKILL)
    trace = sound(cli, out, UNFINISHED)
    assert not trace.complete
    assert trace.manifest.tables["page_events"][: len(listed)] == listed
    assert trace.rows("page_events") >= sum(e.rows for e in listed)
    # Names of the tasks are kept too: they were written when files were finished.
    named = set(trace.tasks.collect()["pid"])
    seen = set(trace.page_events.select("pid").unique().collect()["pid"])
    assert len(seen & named) >= 0.5 * len(seen)
    if victims == "collector":
        assert "killed by signal 9" in err
        assert seen <= named


@pytest.mark.usefixtures("load")
def test_kill_9_of_a_flight_recorder_while_it_drops(cli: list[str], out: Path) -> None:
    capture = Capture(cli, out, "--ring", "1s", "--snapshot-every", "500ms")
    wait_for(lambda: Trace.open(out).metadata.source["flight"].get("dropped_files", 0) > 20, "dropped files")
    capture.process.kill()
    capture.end()
    trace = sound(cli, out, UNFINISHED)
    assert not trace.complete
    assert trace.rows("page_events") > 0
    assert any("end of a longer run" in note for note in trace.metadata.notes)


# ---------------------------------------------------------------- disks
def test_a_disk_below_the_floor_is_refused_before_anything_starts(cli: list[str], tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 8) as disk:
        done = subprocess.run(
            [*cli, "capture", str(disk / "trace"), "--duration", "1s"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "free at" in done.stderr
        assert "--min-free-disk" in done.stderr
        assert list(disk.iterdir()) == []


@pytest.mark.usefixtures("load")
def test_a_disk_that_is_full_is_an_error_and_keeps_finished_files(cli: list[str], tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 5) as disk:
        done = subprocess.run(
            [*cli, "capture", str(disk / "trace"), "--duration", "60s", "--min-free-disk", "0", *ROTATE],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert "No space left" in done.stderr
        assert "Traceback" not in done.stderr
        trace = sound(cli, disk / "trace", UNFINISHED)
        assert not trace.complete
        assert trace.rows("page_events") > 0
    assert not left_programs()


@pytest.mark.usefixtures("load")
def test_the_floor_of_the_disk_ends_the_capture_in_order(cli: list[str], tmp_path: Path) -> None:
    floor = 10
    with small_disk(tmp_path / "small", 16) as disk:
        done = subprocess.run(
            [*cli, "capture", str(disk / "trace"), "--duration", "60s", "--min-free-disk", f"{floor}MiB", *ROTATE],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "(min-free-disk)" in done.stderr
        assert "warning" in done.stderr
        free = os.statvfs(disk)
        assert free.f_bavail * free.f_frsize >= floor << 20
        trace = sound(cli, disk / "trace", set())
        assert trace.complete
        assert sum(f.stat().st_size for f in disk.rglob("*.parquet")) > 1 << 20


@pytest.mark.usefixtures("load")
def test_the_largest_size_ends_the_capture_in_order(cli: list[str], out: Path) -> None:
    done = subprocess.run(
        [*cli, "capture", str(out), "--duration", "60s", "--max-size", "20MiB"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(max-size)" in done.stderr
    trace = sound(cli, out, set())
    assert trace.complete
    assert 8 << 20 < sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) <= 20 << 20


# ---------------------------------------------------------------- a writer that stands still
def stop_writer(capture: Capture, seconds: float) -> None:
    """The process that reads and writes stands still, the collector goes on."""
    capture.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    capture.process.send_signal(signal.SIGCONT)


def test_a_writer_that_stalls_for_a_second_loses_nothing_that_the_rings_hold(cli: list[str], out: Path) -> None:
    name = "stalled-work"  # of this process only: what else runs here must not fill the rings
    program = out.with_name(name)
    program.symlink_to(Path(sys.executable).resolve())
    capture = Capture(cli, out, "--comm", name)
    command = [str(program), "-S", str(Path(__file__).with_name("workloads.py")), "touch", "20000"]
    busy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stop_writer(capture, 1.0)
    pid = int(busy.communicate()[0])
    capture.process.send_signal(signal.SIGINT)
    code, err = capture.end()
    assert code == 0, err
    trace = sound(cli, out, set())
    by_class = trace.loss_summary()["by_class"]
    assert set(by_class) <= {"recursion", "unnoticed"}
    events = trace.page_events.collect()
    assert events.filter(events["pid"] == pid).height >= 20_000


@pytest.mark.usefixtures("load")
def test_a_writer_that_stalls_too_long_loses_an_exact_number(cli: list[str], out: Path) -> None:
    capture = Capture(cli, out, "--ring-mib", "0.25")
    stop_writer(capture, 2.0)
    time.sleep(0.3)
    capture.process.send_signal(signal.SIGINT)
    code, err = capture.end()
    assert code == 0, err
    trace = sound(cli, out, set())  # the rows add up to what the kernel counted
    counted = trace.metadata.loss["by_class"]
    assert counted["ring_full"] > 1000
    assert trace.loss_summary()["lost"] == sum(counted.values())
    rows = trace.loss.collect()
    gaps = rows.filter(~rows["class"].cast(str).is_in(["recursion", "unnoticed"]))  # which name no CPU
    assert gaps["cpu"].null_count() == 0
    assert (gaps["t1_ns"] > gaps["t0_ns"].fill_null(0)).all()
    assert f"lost: {sum(counted.values()):,}" in err


def test_a_collector_that_stalls_is_a_late_end(cli: list[str], out: Path) -> None:
    """It stands still while it is asked to stop, and ends in order once it goes on."""
    capture = Capture(cli, out)
    os.kill(capture.collector, signal.SIGSTOP)
    capture.process.send_signal(signal.SIGINT)
    time.sleep(0.7)
    assert alive(capture.process.pid)
    os.kill(capture.collector, signal.SIGCONT)
    code, err = capture.end()
    assert code == 0, err
    assert sound(cli, out, set()).complete
