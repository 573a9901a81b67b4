# SPDX-License-Identifier: GPL-2.0-only
"""One capture through a private ftrace instance, for hosts that refuse eBPF: the same life as session.py.

The pages of the instance's buffers go out as they are; the reader takes them apart. Buffers are in overwrite mode: when
they are full the oldest page goes, and the kernel writes into the next page that is read how many events were
overwritten before it. So a loss has its place in time and its number from the kernel. (In the other mode the kernel
drops the newest events and only counts them; where they are missing would have to be guessed.) Where a page has no room
for the number, the counter of a buffer that has just been drained gives it.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from typing import Any

from collectors import bpfsys, hostfacts
from collectors.attendance import Attendance, StopRequest
from collectors.kernel import ensure_tracefs
from collectors.layout import rings_for
from collectors.mapsender import MapSender
from collectors.options import Options
from collectors.output import Output
from collectors.protocol import FRAME_HEADER, VERSION, FrameType, json_frame, stream_header
from collectors.resolve import filters_of
from collectors.snapshots import SnapshotTaker
from collectors.tracefs_drain import PageDrain
from collectors.tracefs_filters import check_options, condition, note
from collectors.tracefs_grace import Grace
from collectors.tracefs_instance import Instance, InstanceError
from collectors.tracefs_tasks import NEW_TASK, living_tasks, tasks_begun_by
from collectors.tracepoints import Format, Probe, chosen, find_formats, require_groups

STATUS_NS = 1_000_000_000
STALL_AFTER_STOP_S = 10.0
"""A reader that takes nothing for so long after the stop was asked for is given up."""
MEMORY_SHARE = 32
"""All buffers together get at most this part of the memory."""
MIN_KIB = 64
_ID = re.compile(r"^ID:\s*(\d+)", re.M)


class TracefsSession:
    """Owns the instance and the output between start and end."""

    def __init__(self, options: Options, output: Output, stop: StopRequest, reason: str) -> None:
        self.options = options
        self.output = output
        self.stop = stop
        self.reason = reason
        """Why this way was taken."""
        self.started_ns = 0
        self.stopped_ns = 0
        self._missing: dict[str, str] = {}
        self._snapshots = SnapshotTaker(options.snapshot_every_s)
        self._map = MapSender(output, wanted=options.page_map)
        self._filters = filters_of(options)
        self._rings = rings_for()
        self._lost_cpus: dict[int, str] = {}
        """CPUs whose buffer cannot be opened, with the reason."""

    # ------------------------------------------------------------ life
    def run(self) -> None:
        """The whole capture. Raises CollectorError (start) or ReaderGoneError; the instance is removed in every
        case."""
        check_options(self.options)
        if self.options.attended:
            bpfsys.die_with_parent(signal.SIGTERM)
        tracefs, how = ensure_tracefs()
        wanted = [*chosen(self.options.groups), NEW_TASK]
        formats, self._missing = find_formats(tracefs, wanted)
        usable = [p for p in wanted if p.event in formats]
        self.instance = Instance(tracefs, self._buffer_kib())
        try:
            probes = self._enable(usable, formats)
            self._open_cpus()
            self.grace = Grace()
            self.drain = PageDrain(self.instance, self.output, self.grace, self.options.drain_ms)
            self.attendance = Attendance(self.output, self.stop, attended=self.options.attended)
            self.output.send([stream_header(), self._hello({"path": str(tracefs), "how": how}, probes)])
            begin = time.monotonic_ns()
            tasks = living_tasks()
            self._status("tasks", {"t_ns": begin, "tasks": tasks})
            self._snapshot("start")
            self._record({row[0] for row in tasks})
            self._finish()
        finally:
            self.instance.close()
            if hasattr(self, "grace"):
                self.grace.close()

    def _enable(self, usable: list[Probe], formats: dict[str, Format]) -> list[dict[str, Any]]:
        """Switch the events on, with their filters; what hello says of them. Raises ProbeUnavailableError when a group
        is left without any."""
        listing = []
        for probe in usable:
            fmt = formats[probe.event]
            filter_text = condition(probe, fmt, self._filters)
            try:
                self.instance.enable(probe.event, filter_text)
            except InstanceError as error:
                if filter_text:
                    raise
                self._missing[probe.event] = f"{probe.event}: {error.message}"
                continue
            entry = probe.describe()
            entry.update(
                id=event_id(fmt),
                ring=next(i for i, ring in enumerate(self._rings) if ring.name == probe.ring),
                tap="tracefs",
                attached=True,
                filter=filter_text,
                format=fmt.text,
            )
            listing.append(entry)
        require_groups(self.options.groups, {str(entry["group"]) for entry in listing}, self._missing)
        return listing

    def _open_cpus(self) -> None:
        """Buffers of the CPUs that are online; those of later ones exist from the start and are opened when they
        come."""
        for cpu in hostfacts.cpus("online"):
            if cpu in self.instance.cpus or cpu in self._lost_cpus:
                continue
            try:
                self.instance.add_cpu(cpu)
            except InstanceError as error:
                if not self.started_ns:
                    raise
                self._lost_cpus[cpu] = error.message

    def _record(self, known: set[int]) -> None:
        self.instance.set_gate(True)
        self.started_ns = time.monotonic_ns()
        boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        try:
            self._status("started", {"started_ns": self.started_ns})
            between = tasks_begun_by(boot_ns, known)
            if between:
                self._status("tasks", {"t_ns": self.started_ns, "tasks": between})
            end_ns = None
            if self.options.duration_s is not None:
                end_ns = self.started_ns + int(self.options.duration_s * 1e9)
            next_status = self.started_ns + STATUS_NS
            while self.stop.reason is None:
                now = time.monotonic_ns()
                if end_ns is not None and now >= end_ns:
                    self.stop.set("duration")
                    break
                if self._snapshots.due(now):
                    self._snapshot("tick")
                reading = self._map.reading
                wait_ns = self.drain.wait_ns if end_ns is None else min(self.drain.wait_ns, end_ns - now)
                self.attendance.wait(0 if reading else wait_ns)
                self.drain.step()
                if reading:
                    self._map.step()
                if now >= next_status:
                    next_status += STATUS_NS
                    self._open_cpus()
                    self._status("tick")
            if self.options.snapshot_every_s:
                # While events still flow: what the kernel counted by now can be held against them exactly.
                self._snapshot("tick")
        finally:
            self.instance.set_gate(False)
            self.stopped_ns = time.monotonic_ns()

    def _finish(self) -> None:
        self.output.stall_limit_s = STALL_AFTER_STOP_S
        self.grace.wait()  # events that had begun when the gate closed are in their buffers now
        self.drain.rest()
        if self.drain.lost:  # births and renames among them, perhaps
            self._status("tasks", {"t_ns": self.stopped_ns, "tasks": living_tasks()})
        self._status("stopped", {"stopped_ns": self.stopped_ns, "reason": self.stop.reason})
        self._snapshot("end")
        self._map.finish(self.stopped_ns)
        self._send_json(
            FrameType.CLOSING,
            {
                "reason": self.stop.reason,
                "started_ns": self.started_ns,
                "stopped_ns": self.stopped_ns,
                "clock": hostfacts.clock_triple(),
                "counters": {},
                "ftrace": self.instance.all_stats(),
                "drained": self.drain.drained(),
                "refused_cpus": {str(k): v for k, v in self._lost_cpus.items()},
                "programs": {},
                "cost": self._cost(),
            },
        )

    # ------------------------------------------------------------ frames
    def _send_json(self, frame_type: int, value: dict[str, Any]) -> None:
        self.output.send([json_frame(frame_type, value, mono_ns=time.monotonic_ns())])

    def _snapshot(self, phase: str) -> None:
        self._send_json(FrameType.SNAPSHOT, self._snapshots.take(phase))

    def _status(self, event: str, more: dict[str, Any] | None = None) -> None:
        told = {
            "event": event,
            "counters": {},
            "ftrace": self.instance.all_stats(),
            "drained": self.drain.drained(),
            "cost": self._cost(),
        }
        self._send_json(FrameType.STATUS, {**(more or {}), **told})

    def _cost(self) -> dict[str, Any]:
        return dict(
            hostfacts.own_cost(),
            overhead=self.drain.overhead(),
            ring_high_water_bytes={"ftrace": self.drain.high_water},
            ring_fill={"ftrace": self.drain.take_fill()},
            bytes_sent=self.output.bytes_sent,
            waited_for_reader_s=self.output.waited_s,
        )

    def _buffer_kib(self) -> int:
        """Size of a CPU's buffer: it carries all events, so all rings' shares together."""
        share = sum(1.0 / ring.share for ring in self._rings)
        budget = hostfacts.mem_total_bytes() / MEMORY_SHARE / 1024 / len(hostfacts.cpus("online"))
        return max(MIN_KIB, int(min(self.options.ring_mib * share * 1024, budget)))

    def _hello(self, tracefs: dict[str, str], probes: list[dict[str, Any]]) -> bytes:
        size = int(self.instance.get("buffer_size_kb").split()[0]) * 1024
        hello = {
            "protocol": VERSION,
            "byteorder": sys.byteorder,
            "frame_header_bytes": FRAME_HEADER.size,
            "python": sys.version.split()[0],
            "bcc": "",
            "tracer": "tracefs",
            "tracer_reason": self.reason,
            "tracefs": tracefs,
            "ftrace": {
                "instance": self.instance.path.name,
                "header_page": self.instance.header_page,
                "page_bytes": self.instance.page_bytes,
                "buffer_bytes_per_cpu": size,
                "overwrite": True,
                "exact_watermark": self.grace.exact,
            },
            "host": hostfacts.host_facts(),
            "cpus": hostfacts.cpus("online"),
            "clock": {"name": "monotonic", "resolution_ns": 1, "triple": hostfacts.clock_triple()},
            "groups": list(self.options.groups),
            "drain_ms": self.options.drain_ms,
            "filters": self.options.filters(),
            "filters_note": note(self._filters),
            "sampling": self.options.sampling(),
            "rings": [dict(ring.describe(), bytes_per_cpu=size) for ring in self._rings],
            "probes": probes,
            "missing": self._missing,
            "no_raw_tap": "",
        }
        return json_frame(FrameType.HELLO, hello, mono_ns=time.monotonic_ns())


def event_id(fmt: Format) -> int:
    """Number by which the kernel marks the event's records."""
    found = _ID.search(fmt.text)
    if found is None:
        raise InstanceError(f"the format of {fmt.name} has no ID")
    return int(found[1])


def run_tracefs(options: Options, output: Output, stop: StopRequest, reason: str = "asked for") -> None:
    """Capture through an instance of tracefs. Raises CollectorError or ReaderGoneError."""
    TracefsSession(options, output, stop, reason).run()
