"""Calibration of this host in short form: it finds something, ends in time, and leaves the host as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.live.conftest import wait_for
from tracereplay.cost.profile import load_profile

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
SETTINGS = ("vm", "kernel", "net/core")


def settings() -> dict[str, str]:
    """What a calibration might be tempted to change: sysctls, and huge pages."""
    found = {}
    for group in SETTINGS:
        for path in sorted(Path("/proc/sys", group).glob("*")):
            if path.is_file() and os.access(path, os.R_OK) and "random" not in path.name:
                try:
                    found[str(path)] = path.read_text()
                except OSError:
                    continue
    for path in sorted(Path("/sys/kernel/mm/transparent_hugepage").glob("*")):
        if path.is_file():
            found[str(path)] = path.read_text()
    # Counters that the kernel moves by itself.
    return {
        name: text for name, text in found.items() if not name.endswith(("ns_last_pid", "pty/nr", "bpf_stats_enabled"))
    }


def packet_sockets() -> int:
    """AF_PACKET sockets of this host."""
    return len(Path("/proc/net/packet").read_text().splitlines())


def alive(word: str) -> list[int]:
    """Processes with a word in their command line."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if word.encode() in words and any(w.endswith(b"collectors") for w in words):
                found.append(int(process.name))
    return found


def test_it_finds_prices_and_leaves_the_host_alone(cli: list[str], tmp_path: Path) -> None:
    before, sockets, affinity = settings(), packet_sockets(), os.sched_getaffinity(0)
    out = tmp_path / "here.toml"
    started = time.monotonic()
    done = subprocess.run(
        [*cli, "calibrate", "--seconds", "4", "--out", str(out), "--format", "json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 40
    document = json.loads(done.stdout)
    assert document["ebpf"], document["why_no_ebpf"]
    assert document["loads_refused"] == {}
    # Whatever this host is like: a page from a list costs something, and less than a microsecond.
    assert 1 < document["claimed"]["pop"]["value"] < 1000
    assert 0.05 < document["claimed"]["tail_check"]["value"] < 200
    assert load_profile(out).name == "here"
    assert settings() == before
    assert os.sched_getaffinity(0) == affinity
    wait_for(lambda: packet_sockets() <= sockets, "the rings' sockets are still open")
    wait_for(lambda: not alive("calibrate"), "a process of the calibration is still there")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_caller(cli: list[str], tmp_path: Path, number: signal.Signals) -> None:
    sockets = packet_sockets()
    kept = tmp_path / "samples"
    process = subprocess.Popen(
        [*cli, "calibrate", "--seconds", "40", "--keep-samples", str(kept)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    try:
        wait_for(lambda: kept.exists() and kept.stat().st_size > 100_000, "the first rounds")
    finally:
        process.send_signal(number)
        process.wait(20)
    wait_for(lambda: not alive("calibrate"), "a process of the calibration is still there")
    wait_for(lambda: packet_sockets() <= sockets, "the rings' sockets are still open")


def test_the_wall_clock_alone(cli: list[str]) -> None:
    done = subprocess.run(
        [*cli, "calibrate", "--seconds", "2", "--no-ebpf", "--format", "json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert not document["ebpf"]
    assert "needs eBPF" in document["refused"]["pop"]
    assert 1 < document["seen"]["bulk_page_batched"]["value"] < 2000


def test_without_rights_it_says_what_is_missing(cli: list[str], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give up root")
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "--no-new-privs", *cli, "calibrate", "--seconds", "2"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4, (done.stdout, done.stderr)
    assert "root" in done.stderr
    assert "next:" in done.stderr
