"""How captures end: in order, by signal, and by the death of either process. Nothing stays attached."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.live.conftest import left_programs, programs_held_by, wait_for
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
TIMEOUT = 20.0


def children(pid: int) -> list[int]:
    """Child processes of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(p) for p in (task / "children").read_text().split()]
    return found


class Capture:
    """A capture through the command line, waited for until events flow."""

    def __init__(self, cli: list[str], out: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [*cli, "capture", str(out), *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        # The snapshot of the start is the last thing before the gate opens: the trace's directory appears
        # then.
        wait_for(lambda: out.exists() or self.process.poll() is not None, "the capture's start")
        assert self.process.poll() is None, self.process.communicate()[1]
        (self.collector,) = children(self.process.pid)
        time.sleep(0.3)

    def end(self) -> tuple[int, str]:
        """Exit code and what it said."""
        _, err = self.process.communicate(timeout=TIMEOUT)
        wait_for(lambda: not alive(self.collector), "the collector's end")
        wait_for(lambda: not left_programs(), "detaching")
        return self.process.returncode, err


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_capture_in_order(cli: list[str], out: Path, number: signal.Signals) -> None:
    capture = Capture(cli, out)
    assert len(programs_held_by(capture.collector)) > 8
    capture.process.send_signal(number)
    code, err = capture.end()
    assert code == 0, err
    assert re.search(r"page_events.* in \d+\.\d s \(asked\)", err)
    trace = Trace.open(out)
    assert trace.complete
    assert validate_trace(trace).ok


def test_a_duration_ends_the_capture(cli: list[str], out: Path) -> None:
    done = subprocess.run(
        [*cli, "capture", str(out), "--duration", "400ms"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "(duration)" in done.stderr
    recorded = Trace.open(out).metadata.self_cost["duration_ns"]
    assert 400_000_000 <= recorded < 2_000_000_000


def test_a_command_ends_the_capture_and_its_status_is_told(cli: list[str], out: Path) -> None:
    command = ["sh", "-c", "echo words; exit 3"]
    done = subprocess.run([*cli, "capture", str(out), "--", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "words\n"
    assert "the command ended with status 3" in done.stderr
    assert Trace.open(out).complete


def test_a_signal_to_the_collector_itself_ends_the_capture_in_order(cli: list[str], out: Path) -> None:
    capture = Capture(cli, out)
    os.kill(capture.collector, signal.SIGTERM)
    code, err = capture.end()
    assert code == 0, err
    assert "(SIGTERM)" in err
    assert Trace.open(out).complete


def test_the_collectors_death_is_told_and_keeps_what_was_written(cli: list[str], out: Path) -> None:
    capture = Capture(cli, out)
    os.kill(capture.collector, signal.SIGKILL)
    code, err = capture.end()
    assert code == 4
    assert "killed by signal 9" in err
    trace = Trace.open(out)
    assert not trace.complete
    assert trace.rows("page_events") > 0
    assert "Traceback" not in err


def test_the_writers_death_ends_the_collector(cli: list[str], out: Path) -> None:
    capture = Capture(cli, out)
    capture.process.kill()
    code, _ = capture.end()
    assert code == -signal.SIGKILL
    if out.exists():
        assert not Trace.open(out).complete


def test_a_reader_that_closes_the_pipe_ends_the_collector() -> None:
    from tracereplay.trace.collector_process import collectors_directory

    command = ["/usr/bin/python3", "-B", str(collectors_directory()), "--events", "bio"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.read(16)[:4] == b"\x89TRC"
    process.stdout.close()
    assert process.wait(TIMEOUT) == 141
    wait_for(lambda: not left_programs(), "detaching")


def test_an_output_that_exists_is_refused_before_anything_starts(cli: list[str], out: Path) -> None:
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    done = subprocess.run([*cli, "capture", str(out), "--duration", "1s"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "output exists" in done.stderr
    assert [p.name for p in out.iterdir()] == ["mine.txt"]


def test_a_command_that_cannot_run_leaves_nothing(cli: list[str], out: Path) -> None:
    done = subprocess.run(
        [*cli, "capture", str(out), "--", "/nonexistent/x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cannot run '/nonexistent/x'" in done.stderr
    assert not out.exists()
