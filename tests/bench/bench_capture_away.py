"""Captures away from the desk, next to a capture here: events/s, loss, and the CPU of every process in between.

python -m pytest -m bench tests/bench/bench_capture_away.py -s

Over loopback both ends share this machine's CPUs, and sshd's own network buffers are allocations in the trace.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.sshd import running_sshd
from tracereplay.importers.convert import import_trace
from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.hostcheck import capture_possible
from tracereplay.trace.recording import CaptureSummary

LOAD = Path(__file__).with_name("page_fault_load.py")
SECONDS = 5.0


@contextmanager
def load(processes: int) -> Iterator[None]:
    command = [sys.executable, str(LOAD), str(SECONDS + 3)]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def of_children() -> float:
    """CPU seconds of the processes waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def of_server(pid: int) -> float:
    """CPU seconds of a server and of its sessions that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(n) for n in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def of_collector(summary: CaptureSummary) -> float:
    cost = summary.self_cost
    return float(cost.get("collector_cpu_seconds") or cost.get("collector", {}).get("cpu_seconds") or 0)


@pytest.mark.bench
@pytest.mark.live
@pytest.mark.parametrize("processes", [1, os.cpu_count() or 1])
def test_captures_away_from_the_desk(tmp_path: Path, processes: int) -> None:
    possible, reason = capture_possible()
    if not possible:
        pytest.skip(f"doctor: {reason}")
    print(f"\n{processes} loading processes on {os.cpu_count()} CPUs; CPU in % of a core per 1 M events/s")
    print(f"{'way':14}{'events/s':>12}{'lost':>10}{'collector':>11}{'this side':>11}{'ssh+sshd':>10}")
    with running_sshd(tmp_path) as server:
        for name, via, raw in [
            ("here", "", False),
            ("here, raw", "", True),
            ("sh -c", "sh -c", False),
            ("ssh", server.via, False),
            ("ssh, raw", server.via, True),
        ]:
            with load(processes):
                children, remote, own = of_children(), of_server(server.pid), time.process_time()
                out = tmp_path / name.replace(" ", "")
                summary = capture(out, CaptureOptions(duration_s=SECONDS, via=via, raw=raw, page_map=False))
                own = time.process_time() - own
                children = of_children() - children
            events = sum(summary.events.values())
            collector = of_collector(summary)
            between = 0.0
            if via.endswith("@127.0.0.1"):
                between = children + max(0.0, of_server(server.pid) - remote - collector)
            shares = "".join(
                f"{100 * s / (events / 1e6):{w}.1f}" for s, w in ((collector, 11), (own, 11), (between, 10))
            )
            print(f"{name:14}{events / summary.duration_s:12,.0f}{summary.lost:10,}{shares}")
    began = time.perf_counter()
    imported = import_trace(tmp_path / "ssh,raw", tmp_path / "converted")
    rows = sum(imported.summary.events.values())
    print(f"conversion of the last file: {rows / (time.perf_counter() - began):,.0f} events/s")
    assert rows
