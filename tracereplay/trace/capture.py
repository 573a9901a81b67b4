"""Capture: drive a collector, decode its frames, write the trace.

One collector process on the host, one thread that reads its frames, and the calling thread that decodes and
writes.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracereplay.errors import CollectorError, UsageError
from tracereplay.trace import frames
from tracereplay.trace.collector_process import CollectorProcess
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.recording import CaptureSummary, Progress, Recording
from tracereplay.trace.writer import TraceWriter

EVENT_GROUPS = ("page", "bio", "buddy")
"""Groups of tracepoints: page (mm_page_alloc, mm_page_free), bio (block layer), buddy (behind the per-CPU
lists)."""
DEFAULT_GROUPS = ("page", "bio")
ROTATE_NS = 60_000_000_000
"""Files are closed at least once a minute of trace time: what a crash can cost."""


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """What to record, and for how long."""

    groups: tuple[str, ...] = DEFAULT_GROUPS
    duration_s: float | None = None
    """Seconds; None: until asked to stop (or until the command ends)."""
    ring_mib: float = 16.0
    """Page ring per CPU in MiB; bio rings get a quarter of it."""
    command: tuple[str, ...] = ()
    """Run while capturing; its end ends the capture."""
    force: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for values that make no sense."""
        unknown = [g for g in self.groups if g not in EVENT_GROUPS]
        if unknown or not self.groups:
            raise UsageError(
                f"no event group {', '.join(unknown) or '(empty)'!r}",
                hint=f"groups: {', '.join(EVENT_GROUPS)}; for example --events page,bio",
            )
        if self.duration_s is not None and self.duration_s <= 0:
            raise UsageError(f"a capture of {self.duration_s} s records nothing", hint="--duration 10s")
        if not 0.0625 <= self.ring_mib <= 1024:
            raise UsageError(f"rings of {self.ring_mib} MiB are out of range", hint="--ring-mib takes 0.0625 to 1024")


def capture(
    path: str | Path, options: CaptureOptions, *, on_progress: Callable[[Progress], None] | None = None
) -> CaptureSummary:
    """Capture this host's events into a new trace. SIGINT, SIGTERM and SIGHUP end it in order.

    Raises OutputExistsError before anything starts; PrivilegeError, BccUnavailableError and
    ProbeUnavailableError when the collector cannot start (nothing is on disk then); CollectorError when it
    dies (finished files stay, the trace is marked incomplete); StorageError when the disk refuses.
    """
    metadata = TraceMetadata(source={"kind": "capture", "format": "ebpf"})
    writer = TraceWriter(path, metadata, force=options.force, rotate_ns=ROTATE_NS)
    _keep_heap()
    arguments = ["--attended", "--events", ",".join(options.groups), "--ring-mib", str(options.ring_mib)]
    if options.duration_s is not None:
        arguments += ["--duration", str(options.duration_s)]
    collector = CollectorProcess(arguments)
    command = _Command(options.command, collector.ask_to_stop)
    recording = Recording(writer, on_progress=on_progress, on_started=command.start)
    summary: CaptureSummary | None = None
    with _orderly_signals(collector.ask_to_stop):
        packets = frames.read_ahead(frames.read_packets(collector.frames_fd))
        try:
            try:
                summary = recording.run(packets)
            finally:
                collector.ask_to_stop()
                packets.close()
        except CollectorError as error:
            raise collector.explain(error) from error
        finally:
            collector.end()
            if summary is None:
                recording.give_up()
    summary.command_status = command.wait()
    return summary


class _Command:
    """The command that runs while capturing."""

    def __init__(self, arguments: Sequence[str], on_end: Callable[[], None]) -> None:
        self._arguments = list(arguments)
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if not self._arguments:
            return
        try:
            self._process = subprocess.Popen(self._arguments)
        except OSError as error:
            raise UsageError(
                f"cannot run {self._arguments[0]!r}: {error.strerror}",
                hint="what follows -- is a command and its arguments",
            ) from error
        threading.Thread(target=self._watch, name="command", daemon=True).start()

    def _watch(self) -> None:
        assert self._process is not None
        self._process.wait()
        self._on_end()

    def wait(self) -> int | None:
        """Exit status, after the command's own end; None without a command."""
        return None if self._process is None else self._process.wait()


@contextlib.contextmanager
def _orderly_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP ask for the end; a second one raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[float] = []

    def handler(_number: int, _frame: Any) -> None:
        if seen and time.monotonic() - seen[0] > 0.5:
            raise KeyboardInterrupt
        seen.append(time.monotonic())
        stop()

    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _keep_heap() -> None:
    """Let malloc keep freed memory: handing buffers back and faulting them in again costs more than decoding
    them, and every such fault is an allocation in the trace."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, 256 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
