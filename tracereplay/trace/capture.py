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
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tracereplay.errors import CaptureError, UsageError
from tracereplay.trace import frames
from tracereplay.trace.collector_process import CollectorProcess
from tracereplay.trace.keeper import MIN_FREE_BYTES, ROTATE_NS, Bounds, Keeper, check_space
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.progress import Progress
from tracereplay.trace.rawfile import RawRecording, read_chunks
from tracereplay.trace.recording import CaptureSummary, Recording
from tracereplay.trace.triggers import parse_triggers
from tracereplay.trace.writer import ROTATE_BYTES, TraceWriter

Piece = TypeVar("Piece")
Taken = TypeVar("Taken", contravariant=True)

EVENT_GROUPS = ("page", "buddy", "reclaim", "bio", "bulk")
"""Groups of events: page (mm_page_alloc, mm_page_free), buddy (behind the per-CPU lists), reclaim (compaction,
reclaim, kswapd), bio (block layer), bulk (calls of the bulk allocator, where kprobes or fentry exist)."""
DEFAULT_GROUPS = ("page", "bio")
TRACERS = ("auto", "ebpf", "tracefs")
MIN_FLIGHT_S = 1.0
MIN_MAX_BYTES = 1 << 20
TELL_COST_S = 0.001
"""CPU seconds of this process after which a collector that has to keep a limit hears of them."""
ROTATE_S = ROTATE_NS / 1e9
"""Files are closed at least once a minute of trace time: what a crash can cost."""


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """What to record, for how long, and how much it may cost. Empty filters let everything pass; values of one
    filter are alternatives, different filters must all hold."""

    groups: tuple[str, ...] = DEFAULT_GROUPS
    duration_s: float | None = None
    """Seconds; None: until asked to stop (or until the command ends)."""
    ring_mib: float = 16.0
    """Page ring per CPU in MiB; bio rings get a quarter of it."""
    command: tuple[str, ...] = ()
    """Run while capturing; its end ends the capture."""
    force: bool = False
    tracer: str = "auto"
    """``auto``: eBPF where the host allows it, else an instance of tracefs."""
    stacks: bool = False
    """Take kernel stacks of allocations and bio submissions."""
    stack_sample: int = 1
    """Of so many events on a CPU, one gets its stack."""
    stack_every_s: float = 0.0
    """A task's events of one order and gfp mask get a stack at most once in so long."""
    pids: tuple[int, ...] = ()
    """Thread ids."""
    tgids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    orders: tuple[int, ...] = ()
    gfp: int = 0
    """Bits that an allocation's mask must have."""
    min_bytes: int = 0
    snapshot_every_s: float = 10.0
    """0: at start and end only."""
    page_map: bool = True
    max_overhead: float = 0.0
    """Share of one core; beyond it load is shed. 0: no limit."""
    max_rate: float = 0.0
    """Recorded events per second; beyond it load is shed. 0: no limit."""
    rotate_s: float = ROTATE_S
    rotate_bytes: int = ROTATE_BYTES
    max_bytes: int = 0
    """The bundle ends (or, as a flight recorder, forgets) before it grows beyond this. 0: no limit."""
    min_free_bytes: int = MIN_FREE_BYTES
    """The capture ends before the disk has less."""
    flight_s: float = 0.0
    """Keep the last so many seconds only. 0: keep everything."""
    freeze_on: tuple[str, ...] = ()
    """Triggers that end the capture: ``alloc_failed``, ``extfrag=RATE``."""
    freeze_after_s: float = 5.0
    """How long a capture goes on after its trigger."""
    via: str = ""
    """Command that runs a shell command line on the host to capture, for example ``ssh root@host``."""
    raw: bool = False
    """Keep the collector's frames in one file, to be imported later."""

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
        if self.tracer not in TRACERS:
            raise UsageError(f"no tracer {self.tracer!r}", hint=f"tracers: {', '.join(TRACERS)}")
        if self.stack_sample < 1:
            raise UsageError("--stack-sample takes a number from 1 on", hint="--stack-sample 16: one event in 16")
        long = [c for c in self.comms if len(c.encode()) > 15 or not c]
        if long:
            raise UsageError(f"no task is called {long[0]!r}", hint="the kernel keeps 15 bytes of a task's name")
        numbers: dict[str, tuple[float, ...]] = {
            "--pid": self.pids,
            "--tgid": self.tgids,
            "--min-size": (self.min_bytes,),
            "--gfp": (self.gfp,),
        }
        numbers.update({"--max-overhead": (self.max_overhead,), "--max-rate": (self.max_rate,)})
        for name, values in numbers.items():
            if any(value < 0 for value in values):
                raise UsageError(f"{name} takes no negative number", hint="leave it out for no limit and no filter")
        if any(not 0 <= n < 20 for n in self.orders):
            raise UsageError("orders go from 0 to 19", hint="--order 0 --order 9")
        if self.via and self.command:
            raise UsageError(
                f"{self.command[0]!r} would run on this machine, and --via captures another one",
                hint=f"start it there by itself ({self.via} COMMAND), beside a capture with --duration",
            )
        if self.raw and (self.flight_s or self.freeze_on):
            raise UsageError("raw frames go into one file, a flight recorder keeps many", hint="leave --raw out")
        if self.rotate_s <= 0 or self.rotate_bytes <= 0:
            raise UsageError("files that hold nothing", hint="--rotate-time 60s --rotate-size 256MiB")
        if self.flight_s and self.flight_s < MIN_FLIGHT_S:
            raise UsageError(f"a flight recorder of {self.flight_s} s is too short", hint="--ring takes 1s and more")
        if 0 < self.max_bytes < MIN_MAX_BYTES:
            raise UsageError(
                f"a trace of {self.max_bytes} bytes holds nothing", hint=f"--max-size takes {MIN_MAX_BYTES} and more"
            )
        parse_triggers(self.freeze_on, self.groups)

    def bounds(self) -> Bounds:
        """What the recording may not go beyond, and what ends it."""
        return Bounds(
            rotate_ns=round(self.rotate_s * 1e9),
            max_bytes=self.max_bytes or None,
            min_free_bytes=self.min_free_bytes,
            window_ns=round(self.flight_s * 1e9) or None,
            triggers=parse_triggers(self.freeze_on, self.groups),
            freeze_after_ns=round(self.freeze_after_s * 1e9),
        )

    def collector_arguments(self) -> list[str]:
        """Command line of the collector."""
        single: dict[str, Any] = {
            "events": ",".join(self.groups),
            "ring-mib": self.ring_mib,
            "duration": self.duration_s,
            "tracer": self.tracer,
            "stack-sample": self.stack_sample if self.stacks else None,
            "stack-every-ns": round(self.stack_every_s * 1e9) if self.stacks else None,
            "gfp": self.gfp or None,
            "min-bytes": self.min_bytes or None,
            "snapshot-every-s": self.snapshot_every_s,
            "max-overhead": self.max_overhead or None,
            "max-rate": self.max_rate or None,
        }
        several: dict[str, tuple[Any, ...]] = {
            "pid": self.pids,
            "tgid": self.tgids,
            "comm": self.comms,
            "cgroup": self.cgroups,
            "device": self.devices,
            "order": self.orders,
        }
        # With `=` a value may begin with a dash.
        arguments = ["--attended", *(f"--{name}={value}" for name, value in single.items() if value is not None)]
        arguments += [f"--{name}={value}" for name, values in several.items() for value in values]
        flags = {"stacks": self.stacks, "no-page-map": not self.page_map}
        return arguments + [f"--{name}" for name, given in flags.items() if given]


def capture(
    path: str | Path, options: CaptureOptions, *, on_progress: Callable[[Progress], None] | None = None
) -> CaptureSummary:
    """Capture this host's events into a new trace. SIGINT, SIGTERM, SIGHUP and SIGUSR1 end it in order.

    Raises OutputExistsError before anything starts; PrivilegeError, BccUnavailableError and
    ProbeUnavailableError when the collector cannot start (nothing is on disk then); CollectorError when it
    dies (finished files stay, the trace is marked incomplete); StorageError when the disk refuses.
    """
    if options.raw:
        raw = RawRecording(
            path,
            force=options.force,
            max_bytes=options.max_bytes,
            min_free_bytes=options.min_free_bytes,
            on_progress=on_progress,
        )
        collector = CollectorProcess(options.collector_arguments(), via=options.via or None)
        command = _Command(options.command, collector.ask_to_stop)
        raw.attach(stop=collector.ask_to_stop, on_started=command.start)
        return _drive(collector, command, raw, read_chunks(collector.frames_fd))
    metadata = TraceMetadata(source={"kind": "capture", "format": "ebpf"})
    if options.via:
        metadata.source["via"] = options.via
    writer = TraceWriter(
        path,
        metadata,
        force=options.force,
        rotate_bytes=options.rotate_bytes,
        min_free_bytes=0,  # the keeper ends the capture before; a disk that is full is an error
    )
    check_space(writer.path, options.bounds())
    _keep_heap()
    collector = CollectorProcess(options.collector_arguments(), via=options.via or None)
    command = _Command(options.command, collector.ask_to_stop)
    keeper = Keeper(writer, options.bounds(), collector.ask_to_stop)
    recording = Recording(writer, on_progress=on_progress, on_started=command.start, keeper=keeper)
    packets = frames.read_ahead(frames.read_packets(collector.frames_fd))
    if options.max_overhead:
        packets = _telling_cost(packets, collector)
    return _drive(collector, command, recording, packets, freeze=lambda: keeper.ask("SIGUSR1"))


def _telling_cost(packets: Generator[Piece, None, None], collector: CollectorProcess) -> Generator[Piece, None, None]:
    """The same packets; on the way the collector hears what this process has used for events, since only that
    gets less when load is shed."""
    spent = told = 0.0
    try:
        for packet in packets:
            before = time.process_time()
            yield packet
            if isinstance(packet, frames.Batches):
                spent += time.process_time() - before
            if spent - told >= TELL_COST_S:
                told = spent
                collector.tell_cost(spent)
    finally:
        packets.close()


class _Recorder(Protocol[Taken]):
    """What takes a collector's stream."""

    def run(self, pieces: Iterator[Taken], /) -> CaptureSummary:
        """To its end."""
        ...

    def give_up(self) -> None:
        """Keep what came."""
        ...


def _drive(
    collector: CollectorProcess,
    command: _Command,
    recorder: _Recorder[Piece],
    pieces: Generator[Piece, None, None],
    freeze: Callable[[], None] | None = None,
) -> CaptureSummary:
    """Run a capture to its end, whatever that is. ``freeze``: what SIGUSR1 does, if not just that."""
    summary: CaptureSummary | None = None
    with _orderly_signals(collector.ask_to_stop, freeze or collector.ask_to_stop):
        try:
            try:
                summary = recorder.run(pieces)
            finally:
                collector.ask_to_stop()
                pieces.close()
        except CaptureError as error:
            explained = collector.explain(error)
            if explained is error:
                raise
            raise explained from error
        finally:
            collector.end()
            if summary is None:
                recorder.give_up()
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
def _orderly_signals(stop: Callable[[], None], freeze: Callable[[], None]) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP ask for the end; a second one raises KeyboardInterrupt. SIGUSR1 freezes."""
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
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda _number, _frame: freeze())
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
