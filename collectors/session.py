# SPDX-License-Identifier: GPL-2.0-only
"""One capture on the host: load, say hello, open the gate, drain on a timer, close the gate, detach,
account, end."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collectors import bpfsys, hostfacts
from collectors.errors import CollectorError, ProbeUnavailableError, ReaderGoneError
from collectors.kernel import LoadedProbes, describe_lanes, describe_rings, ensure_tracefs, import_bcc
from collectors.layout import RINGS
from collectors.output import Output
from collectors.pagegeometry import EVENT, PageGeometry, find_page_geometry
from collectors.programs import lanes_of
from collectors.protocol import FRAME_HEADER, VERSION, FrameType, frame_header, json_frame, stream_header
from collectors.snapshots import take_snapshot
from collectors.tracepoints import chosen, find_formats

STATUS_S = 1.0
STALL_AFTER_STOP_S = 10.0
"""A reader that takes nothing for so long after the stop was asked for is given up."""


@dataclass(frozen=True)
class Options:
    """What a capture is asked to do."""

    groups: list[str]
    duration_s: float | None = None
    ring_mib: float = 16.0
    drain_ms: float = 10.0
    attended: bool = False
    """Stop when standard input ends and when the parent process dies."""
    raw_tap: bool = True
    """Tap page events raw where the kernel allows it (see programs.py)."""


class StopRequest:
    """Why to stop, set by signals, by the clock or by the other side."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str) -> None:
        """The first reason stays."""
        self.reason = self.reason or reason

    def install(self) -> None:
        """Let SIGINT, SIGTERM and SIGHUP ask for the end."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda n, _frame: self.set(signal.Signals(n).name))
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)


class Session:
    """Owns the programs and the output between start and end."""

    def __init__(self, options: Options, output: Output, stop: StopRequest) -> None:
        self.options = options
        self.output = output
        self.stop = stop
        self.loaded: LoadedProbes | None = None
        self.drained: dict[str, dict[str, int]] = {ring.name: {} for ring in RINGS}
        self.started_ns = 0
        self.stopped_ns = 0
        self._watermark = 0
        self._limits: dict[Any, int] = {}
        self._no_raw = ""
        """Why page events are not tapped raw; empty: they are."""
        self._programs: dict[str, dict[str, Any]] = {}

    # ------------------------------------------------------------ life
    def run(self) -> None:
        """The whole capture. Raises CollectorError (start) or ReaderGoneError; programs are detached in
        every case."""
        if self.options.attended:
            bpfsys.die_with_parent(signal.SIGTERM)
        tracefs, how = ensure_tracefs()
        bcc = import_bcc()
        wanted = chosen(self.options.groups)
        formats, missing = find_formats(tracefs, wanted)
        usable = [p for p in wanted if p.event in formats]
        for group in self.options.groups:
            if not any(p.group == group for p in usable):
                reasons = "; ".join(missing[p.event] for p in wanted if p.group == group)
                raise ProbeUnavailableError(
                    f"no usable tracepoint in group {group!r}: {reasons}", "see `tracereplay doctor`"
                )
        geometry, self._no_raw = self._page_geometry(formats)
        lanes = lanes_of(usable, raw=geometry is not None)
        loaded = self.loaded = LoadedProbes(lanes, formats, self._ring_mib(), geometry)
        try:
            loaded.add_online_cpus()
            loaded.attach()
            missing.update(loaded.missing)
            self.output.send([stream_header(), self._hello(bcc, tracefs, how, formats, missing)])
            self._snapshot("start")
            self._record()
        finally:
            loaded.set_gate(False)
            self.stopped_ns = time.monotonic_ns()
            try:
                self._programs = loaded.program_facts()
            finally:
                loaded.detach()
        self._finish()
        loaded.close()

    def _record(self) -> None:
        assert self.loaded is not None
        self.loaded.set_gate(True)
        self.started_ns = time.monotonic_ns()
        self._status("started", {"started_ns": self.started_ns})
        poller = select.poll()
        if self.output.is_stream:
            poller.register(self.output.fd, 0)
        if self.options.attended:
            poller.register(0, select.POLLIN)
        end_ns = None
        if self.options.duration_s is not None:
            end_ns = self.started_ns + int(self.options.duration_s * 1e9)
        step_ns = int(self.options.drain_ms * 1e6)
        next_status = self.started_ns + int(STATUS_S * 1e9)
        while self.stop.reason is None:
            now = time.monotonic_ns()
            if end_ns is not None and now >= end_ns:
                self.stop.set("duration")
                break
            wait_ns = step_ns if end_ns is None else min(step_ns, end_ns - now)
            for fd, events in poller.poll(max(0, -(-wait_ns // 1_000_000))):
                self._other_side(fd, events)
            self._drain()
            if time.monotonic_ns() >= next_status:
                next_status += int(STATUS_S * 1e9)
                self.loaded.add_online_cpus()
                self._status("tick")

    def _other_side(self, fd: int, events: int) -> None:
        if fd == self.output.fd and self.output.reader_gone(events):
            raise ReaderGoneError("the reader closed the stream")
        if fd == 0 and (events & (select.POLLHUP | select.POLLERR) or not os.read(0, 4096)):
            self.stop.set("asked")

    def _finish(self) -> None:
        assert self.loaded is not None
        self.output.stall_limit_s = STALL_AFTER_STOP_S
        while self._drain():
            pass
        self._status("stopped", {"stopped_ns": self.stopped_ns, "reason": self.stop.reason})
        self._snapshot("end")
        self._send_json(
            FrameType.CLOSING,
            {
                "reason": self.stop.reason,
                "started_ns": self.started_ns,
                "stopped_ns": self.stopped_ns,
                "clock": hostfacts.clock_triple(),
                "counters": self.loaded.counters(),
                "drained": self.drained,
                "refused_cpus": {str(k): v for k, v in self.loaded.refused_cpus.items()},
                "programs": self._programs,
                "cost": self._cost(),
            },
        )

    # ------------------------------------------------------------ frames
    def _drain(self) -> bool:
        """Send what the rings hold, in place, then hand the space back. Whether there was anything."""
        assert self.loaded is not None
        frames: list[Any] = []
        taken = []
        lowest = None
        for (ring, cpu), reader in self.loaded.rings.items():
            # The time first: what is not in the ring when it is looked at got its time stamp later than this.
            before = time.monotonic_ns()
            data, busy = reader.peek()
            # A busy record may carry a time from before; nothing is promised for this ring until it is
            # committed.
            limit = self._limits.get((ring, cpu), 0) if busy else before
            self._limits[ring, cpu] = limit
            lowest = limit if lowest is None else min(lowest, limit)
            if data is None:
                continue
            frames.append(
                frame_header(FrameType.BATCH, data.nbytes, ring=ring, cpu=cpu, mono_ns=limit, position=reader.position)
            )
            frames.append(data)
            taken.append((ring, cpu, reader, data.nbytes))
        if lowest is not None and lowest > self._watermark:
            self._watermark = lowest
        frames.append(frame_header(FrameType.WATERMARK, 0, mono_ns=self._watermark))
        self.output.send(frames)
        for ring, cpu, reader, count in taken:
            reader.advance(count)
            of_ring = self.drained[RINGS[ring].name]
            of_ring[str(cpu)] = of_ring.get(str(cpu), 0) + count // reader.stride
        return bool(taken)

    def _send_json(self, frame_type: int, value: dict[str, Any]) -> None:
        self.output.send([json_frame(frame_type, value, mono_ns=time.monotonic_ns())])

    def _snapshot(self, phase: str) -> None:
        self._send_json(FrameType.SNAPSHOT, take_snapshot(phase))

    def _status(self, event: str, more: dict[str, Any] | None = None) -> None:
        assert self.loaded is not None
        self._send_json(
            FrameType.STATUS,
            dict(
                more or {},
                event=event,
                counters=self.loaded.counters(),
                drained=self.drained,
                cost=self._cost(),
            ),
        )

    def _cost(self) -> dict[str, Any]:
        assert self.loaded is not None
        high: dict[str, int] = {}
        for (ring, _cpu), reader in self.loaded.rings.items():
            name = RINGS[ring].name
            high[name] = max(high.get(name, 0), reader.high_water)
        cost = hostfacts.own_cost()
        cost.update(
            ring_high_water_bytes=high,
            bytes_sent=self.output.bytes_sent,
            waited_for_reader_s=self.output.waited_s,
        )
        return cost

    def _page_geometry(self, formats: Mapping[str, Any]) -> tuple[PageGeometry | None, str]:
        """What the raw tap of page events needs, and if it is not there, why."""
        if "page" not in self.options.groups:
            return None, "no page events wanted"
        if not self.options.raw_tap:
            return None, "switched off"
        if EVENT not in formats:
            return None, f"no {EVENT}"
        return find_page_geometry(formats[EVENT])

    def _ring_mib(self) -> float:
        """At most 1/32 of the memory for all rings together."""
        per_cpu_share = sum(1.0 / ring.share for ring in RINGS)
        budget = hostfacts.mem_total_bytes() / 32 / (1 << 20) / per_cpu_share / len(hostfacts.cpus("online"))
        return min(self.options.ring_mib, max(budget, 0.0625))

    def _hello(
        self,
        bcc: Any,
        tracefs: Any,
        how: str,
        formats: dict[str, Any],
        missing: dict[str, str],
    ) -> bytes:
        import sys

        assert self.loaded is not None
        hello = {
            "protocol": VERSION,
            "byteorder": sys.byteorder,
            "frame_header_bytes": FRAME_HEADER.size,
            "python": sys.version.split()[0],
            "bcc": getattr(bcc, "__version__", "?"),
            "tracefs": {"path": str(tracefs), "how": how},
            "host": hostfacts.host_facts(),
            "cpus": hostfacts.cpus("online"),
            "clock": {"name": "monotonic", "resolution_ns": 1, "triple": hostfacts.clock_triple()},
            "groups": self.options.groups,
            "drain_ms": self.options.drain_ms,
            "rings": describe_rings(self.loaded.ring_sizes),
            "probes": describe_lanes(self.loaded.lanes, formats, missing),
            "missing": missing,
            "no_raw_tap": self._no_raw,
        }
        return json_frame(FrameType.HELLO, hello, mono_ns=time.monotonic_ns())


def run_session(options: Options, output_fd: int) -> int:
    """Capture to a file descriptor. Exit code: 0 clean end, 4 failed, 141 reader gone."""
    output = Output(output_fd)
    stop = StopRequest()
    stop.install()
    try:
        Session(options, output, stop).run()
    except CollectorError as failure:
        _send_failure(output, failure)
        return 4
    except ReaderGoneError:
        return 141
    except OSError as error:
        _send_failure(output, CollectorError(f"{type(error).__name__}: {error}"))
        return 4
    return 0


def _send_failure(output: Output, failure: CollectorError) -> None:
    import sys

    sys.stderr.write(f"collector: {failure.message}\n")
    start = b"" if output.bytes_sent else stream_header()
    value = {"error": type(failure).__name__, "message": failure.message, "hint": failure.hint}
    output.stall_limit_s = STALL_AFTER_STOP_S
    try:
        output.send([start, json_frame(FrameType.ERROR, value, mono_ns=time.monotonic_ns())])
    except (OSError, ReaderGoneError):
        sys.stderr.write("collector: nobody takes the error frame\n")
