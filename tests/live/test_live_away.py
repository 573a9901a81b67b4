"""Captures away from the desk: the exported collector, another host through a shell and through ssh, raw frames."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.live.conftest import programs_held_by, wait_for
from tests.live.sshd import Server, running_sshd
from tests.live.test_live_ends import Capture, alive, children
from tracereplay.errors import BccUnavailableError, PrivilegeError
from tracereplay.importers.convert import import_trace
from tracereplay.trace.capture import MIN_MAX_BYTES, CaptureOptions, capture
from tracereplay.trace.collector_bundle import export_collector
from tracereplay.trace.rawfile import FrameWatch
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import TABLES
from tracereplay.trace.transport import READY
from tracereplay.trace.validate import validate_trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
SHORT = CaptureOptions(duration_s=0.5, via="sh -c")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def contents(trace: Trace) -> dict[str, pl.DataFrame]:
    """Every table's rows."""
    return {name: trace.table(name).collect() for name in TABLES}


def descendants(pid: int) -> list[int]:
    """Processes below a process."""
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def collectors_below(pid: int) -> list[int]:
    """Processes below a process that hold the collector's programs."""
    return [p for p in descendants(pid) if len(programs_held_by(p)) > 8]


# ---------------------------------------------------------------- one file
def test_the_exported_file_needs_nothing_but_python_and_bcc(tmp_path: Path) -> None:
    exported = export_collector(tmp_path / "bin" / "collector").path
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["env", "-i", str(exported), *arguments]
        return subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False, timeout=60)

    assert "--raw FILE" in run("--help").stdout
    checked = run("--check")
    assert checked.returncode == 0, checked.stderr
    assert '"possible": true' in checked.stdout
    recorded = run("--raw", "out.frames", "--duration", "0.5", "--events", "page")
    assert recorded.returncode == 0, recorded.stderr
    assert recorded.stderr == ""
    assert [p.name for p in empty.iterdir()] == ["out.frames"]
    assert run("--raw", "out.frames").returncode == 2
    imported = import_trace(empty / "out.frames", tmp_path / "trace")
    trace = Trace.open(imported.path)
    assert trace.complete
    assert trace.rows("page_events") > 0
    assert validate_trace(trace).ok


# ---------------------------------------------------------------- another host
def test_a_capture_through_a_shell_is_a_capture(tmp_path: Path) -> None:
    summary = capture(tmp_path / "trace", SHORT)
    trace = Trace.open(summary.path)
    assert trace.complete
    assert validate_trace(trace).ok
    assert summary.reason == "duration"
    assert trace.rows("page_events") == summary.events["page_events"] > 0
    assert trace.metadata.source["via"] == "sh -c"


def test_the_collector_leaves_no_file_on_the_host(tmp_path: Path) -> None:
    """Wherever a program may leave something there is an empty file system, and it is empty again afterwards."""
    places = "/var/tmp /dev/shm /run /root /tmp"
    script = f"""mount --bind {tmp_path} /mnt || exit
        for place in {places}; do mount -t tmpfs none $place || exit; done
        cd /root && sh -c "$0"
        find {places} -type f > /mnt/listing"""
    via = shlex.join(["unshare", "--mount", "sh", "-c", script])
    summary = capture(tmp_path / "trace", CaptureOptions(duration_s=0.3, via=via))
    assert summary.events["page_events"] > 0
    assert (tmp_path / "listing").read_text() == ""


def test_noise_of_the_login_shell_does_not_disturb(tmp_path: Path) -> None:
    via = shlex.join(["sh", "-c", 'echo "Welcome! tracereplay"; echo oops >&2; exec sh -c "$0"'])
    assert capture(tmp_path / "trace", CaptureOptions(duration_s=0.3, via=via)).events["page_events"] > 0


def test_asking_to_stop_reaches_the_other_side(cli: list[str], out: Path) -> None:
    running = Capture(cli, out, "--via", "sh -c")
    running.process.send_signal(signal.SIGINT)
    code, err = running.end()
    assert code == 0, err
    assert "(asked)" in err
    assert Trace.open(out).complete


def test_a_host_without_python_is_named(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "id"):
        (programs / name).write_bytes(Path("/usr/bin", name).read_bytes())
        (programs / name).chmod(0o755)
    via = shlex.join(
        ["unshare", "--mount", "sh", "-c", f'mount --bind {programs} /usr/bin && PATH=/usr/bin exec sh -c "$0"']
    )
    with pytest.raises(BccUnavailableError, match="has no python3"):
        capture(tmp_path / "trace", CaptureOptions(via=via))
    assert not (tmp_path / "trace").exists()


def test_a_host_without_bcc_is_named(tmp_path: Path) -> None:
    script = 'mount -t tmpfs none /usr/lib/python3/dist-packages && exec sh -c "$0"'
    via = shlex.join(["unshare", "--mount", "sh", "-c", script])
    with pytest.raises(BccUnavailableError, match="no module bcc") as caught:
        capture(tmp_path / "trace", CaptureOptions(via=via, tracer="ebpf"))
    assert caught.value.message.startswith("unshare")
    assert "python3-bpfcc" in (caught.value.hint or "")
    assert not (tmp_path / "trace").exists()


def test_a_user_whom_sudo_asks_for_a_password_is_told(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sudo").write_text('#!/bin/sh\n[ "$1" = -n ] && echo "sudo: a password is required" >&2\nexit 1\n')
    (programs / "sudo").chmod(0o755)
    for folder in (tmp_path, programs, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    via = shlex.join(["setpriv", "--reuid=65534", "--clear-groups", "env", f"PATH={path}", "sh", "-c"])
    with pytest.raises(PrivilegeError, match="sudo there asks for a password"):
        capture(tmp_path / "trace", CaptureOptions(via=via))


# ---------------------------------------------------------------- ssh
def test_a_capture_over_ssh(cli: list[str], out: Path, sshd: Server) -> None:
    command = [*cli, "capture", str(out), "--via", sshd.via, "--duration", "600ms"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    trace = Trace.open(out)
    assert trace.complete
    assert trace.rows("page_events") > 0
    assert validate_trace(trace).ok
    wait_for(lambda: not descendants(sshd.pid), "the session's end")


@pytest.mark.parametrize("raw", [False, True], ids=["trace", "raw"])
def test_a_connection_that_dies_ends_both_sides(cli: list[str], out: Path, sshd: Server, raw: bool) -> None:
    running = Capture(cli, out, "--via", sshd.via, *["--raw"] * raw)
    (remote,) = collectors_below(sshd.pid)
    os.kill(running.collector, signal.SIGKILL)  # the ssh client
    code, err = running.end()
    wait_for(lambda: not alive(remote), "the collector's end at the other side")
    assert code == 4, err
    assert "the connection was lost" in err
    assert "killed by signal 9" in err
    assert "Traceback" not in err
    if raw:
        imported = import_trace(out, out.with_name("converted"))
        assert "end early" in imported.summary.incomplete
        out = imported.path
    trace = Trace.open(out)
    assert not trace.complete
    assert trace.rows("page_events") > 0
    report = validate_trace(trace)
    assert report.ok, report


def test_ssh_asks_at_the_terminal_and_its_interrupt_ends_the_capture_in_order(
    cli: list[str], out: Path, sshd: Server, tmp_path: Path
) -> None:
    """Here for an unknown host key; a password is asked for in the same way."""
    words = [w.replace("BatchMode=yes", "StrictHostKeyChecking=ask") for w in shlex.split(sshd.via)]
    words = [f"UserKnownHostsFile={tmp_path}/known" if w.startswith("UserKnownHosts") else w for w in words]
    command = [*cli, "capture", str(out), "--via", shlex.join(words), "--duration", "20s"]
    ours, theirs = os.openpty()
    process = subprocess.Popen(["setsid", "--ctty", "--wait", *command], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = bytearray()
    interrupted = False
    answered = False
    try:
        while data := _read_terminal(ours):
            said += data
            if b"(yes/no" in said and not answered:
                answered = True
                os.write(ours, b"yes\n")
            if out.exists() and not interrupted:
                interrupted = True
                os.write(ours, b"\x03")  # Ctrl-C, for the whole foreground group
        assert process.wait(60) == 0, said.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert (answered, interrupted) == (True, True)
    assert Trace.open(out).complete
    assert b"(asked)" in said


def _read_terminal(fd: int) -> bytes:
    """What comes next; nothing once the other side has closed it."""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""


def test_a_host_that_does_not_answer_is_named(cli: list[str], out: Path, sshd: Server) -> None:
    words = shlex.split(sshd.via)
    words[words.index("-p") + 1] = "1"
    command = [*cli, "capture", str(out), "--via", shlex.join(words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4
    assert "cannot reach the host" in done.stderr
    assert "Connection refused" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("drained", [True, False], ids=["drained", "stalled"])
def test_a_silent_link_ends_the_collector(tmp_path: Path, drained: bool) -> None:
    """The link is up, and nothing comes over it any more: what a host sees that lost its network."""
    exported = export_collector(tmp_path / "collector").path
    command = [str(exported), "--attended", "--silence-s", "0.5", "--ring-mib", "0.0625"]
    with (tmp_path / "out").open("wb") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=sink if drained else subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert process.wait(60) == 141
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


# ---------------------------------------------------------------- raw frames
def test_converted_frames_are_the_live_trace(tmp_path: Path) -> None:
    """One stream, decoded as it comes and stored on its way: the same rows in every table."""
    stored = tmp_path / "stored"
    via = shlex.join(["sh", "-c", f'sh -c "$0" | tee {stored}'])
    live = Trace.open(capture(tmp_path / "live", CaptureOptions(duration_s=1.0, via=via)).path)
    frames = tmp_path / "frames.raw"
    frames.write_bytes(stored.read_bytes().split(READY, 1)[1])
    converted = Trace.open(import_trace(frames, tmp_path / "converted").path)
    assert converted.complete
    ours, theirs = contents(converted), contents(live)
    assert ours.keys() == theirs.keys()
    for name, frame in theirs.items():
        assert ours[name].equals(frame), name
    for field in ("host", "clock", "events", "gfp_flags", "migratetypes", "filters", "sampling", "loss", "notes"):
        assert getattr(converted.metadata, field) == getattr(live.metadata, field), field


def test_raw_frames_are_stored_as_they_come_and_converted_later(cli: list[str], tmp_path: Path) -> None:
    raw, trace = tmp_path / "run.raw", tmp_path / "trace"
    done = subprocess.run(
        [*cli, "capture", str(raw), "--raw", "--duration", "500ms"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    watch = FrameWatch()
    *_, closing = watch.feed(memoryview(raw.read_bytes()))
    assert closing.value["reason"] == "duration"
    again = subprocess.run([*cli, "capture", str(raw), "--raw"], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "output exists" in again.stderr
    done = subprocess.run([*cli, "import", str(raw), str(trace)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    opened = Trace.open(trace)
    assert opened.complete
    assert validate_trace(opened).ok
    assert opened.metadata.source["format"] == "raw"


def test_a_command_runs_beside_a_raw_capture(cli: list[str], tmp_path: Path) -> None:
    raw = tmp_path / "run.raw"
    command = [*cli, "capture", str(raw), "--raw", "--", "sh", "-c", "echo words; exit 3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "words\n"
    assert "the command ended with status 3" in done.stderr
    assert raw.stat().st_size > 10_000


def test_a_raw_capture_ends_at_its_size(tmp_path: Path) -> None:
    raw = tmp_path / "run.raw"
    busy = (sys.executable, str(Path(__file__).with_name("workloads.py")), "touch", "50000")  # 40 bytes for each page
    summary = capture(raw, CaptureOptions(raw=True, max_bytes=MIN_MAX_BYTES, command=busy))
    assert summary.reason == "size limit reached"
    assert summary.bytes_on_disk >= MIN_MAX_BYTES
    assert Trace.open(import_trace(raw, tmp_path / "trace").path).complete


def test_a_raw_capture_that_cannot_start_leaves_no_file(tmp_path: Path) -> None:
    via = shlex.join(["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c"])
    with pytest.raises(PrivilegeError, match=r"^setpriv"):
        capture(tmp_path / "run.raw", CaptureOptions(via=via, raw=True, tracer="ebpf"))
    assert not (tmp_path / "run.raw").exists()
