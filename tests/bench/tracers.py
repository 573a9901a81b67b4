"""Tracers of page events to compare with: each a context manager within which it records."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tracereplay.trace.reader import Trace

TRACING = Path("/sys/kernel/tracing")
EVENTS = ("mm_page_alloc", "mm_page_free")
BUFFER_KIB = 16384
"""Per CPU, for everybody."""
SETTLE_S = 3.0
"""From the start of a capture: the page map has been read by then, and the first window of run-time statistics is
over."""


class Recorded:
    """What a tracer says that it recorded."""

    def __init__(self) -> None:
        self.events = 0
        self.lost = 0


@contextlib.contextmanager
def nothing(_directory: Path) -> Iterator[Recorded]:
    """No tracer."""
    yield Recorded()


@contextlib.contextmanager
def tracereplay(directory: Path, *options: str) -> Iterator[Recorded]:
    """``tracereplay capture`` of page events, to a trace on disk."""
    out = directory / "trace"
    command = [sys.executable, "-c", "from tracereplay.cli.app import main; main()", "capture", str(out), "--force"]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen([*command, "--events", "page", *options], stderr=words)
        try:
            _wait_for_programs(process)
            time.sleep(SETTLE_S)
            recorded = Recorded()
            yield recorded
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait()
        words.seek(0)
        assert code == 0, words.read().decode()
    trace = Trace.open(out)
    recorded.events = trace.rows("page_events")
    recorded.lost = trace.loss_summary()["lost"] or 0


def _wait_for_programs(process: subprocess.Popen[bytes]) -> None:
    """Until the collector has attached: its first file appears when it has sent its hello and a snapshot."""
    for _ in range(200):
        assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if any("bpf-map" in _links(child) for child in children):
            return
        time.sleep(0.05)
    raise AssertionError("the collector does not start")


def _links(pid: str) -> str:
    found = []
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(fd.readlink()))
    return " ".join(found)


@contextlib.contextmanager
def perf(directory: Path) -> Iterator[Recorded]:
    """``perf record -a`` of the same two tracepoints, every event, to a file."""
    events = [word for name in EVENTS for word in ("-e", f"kmem:{name}")]
    command = ["perf", "record", "-a", "-m", f"{BUFFER_KIB}K", "-c", "1", *events, "-o", str(directory / "perf.data")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(1.0)
    recorded = Recorded()
    try:
        yield recorded
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    samples = re.search(r"\((\d+) samples\)", said)
    assert samples is not None, said
    recorded.events = int(samples[1])
    lost = re.search(r"lost (\d+) chunks", said)
    recorded.lost = int(lost[1]) if lost else 0


@contextlib.contextmanager
def ring(directory: Path, *, read: bool = False) -> Iterator[Recorded]:
    """The bare ftrace ring: an instance of tracefs with the two events on, overwriting, or with ``read`` a reader
    for each CPU that writes the pages to a file."""
    instance = TRACING / "instances" / f"tracereplay_bench_{os.getpid()}"
    instance.mkdir()
    readers: list[subprocess.Popen[bytes]] = []
    recorded = Recorded()
    cpus = range(os.cpu_count() or 1)
    try:
        (instance / "buffer_size_kb").write_text(str(BUFFER_KIB))
        if read:
            for cpu in cpus:
                with (directory / f"ring{cpu}").open("wb") as file:
                    pipe = instance / f"per_cpu/cpu{cpu}/trace_pipe_raw"
                    readers.append(subprocess.Popen(["cat", str(pipe)], stdout=file, stderr=subprocess.DEVNULL))
        for name in EVENTS:
            (instance / f"events/kmem/{name}/enable").write_text("1")
        yield recorded
        for name in EVENTS:
            (instance / f"events/kmem/{name}/enable").write_text("0")
        for cpu in cpus:
            stats = dict(re.findall(r"^([\w ]+): (\d+)", (instance / f"per_cpu/cpu{cpu}/stats").read_text(), re.M))
            recorded.events += sum(int(stats[name]) for name in ("entries", "overrun", "read events"))
            recorded.lost += int(stats["overrun"]) if read else 0
    finally:
        for name in EVENTS:
            (instance / f"events/kmem/{name}/enable").write_text("0")
        for reader in readers:
            reader.kill()
            reader.wait()
        instance.rmdir()
