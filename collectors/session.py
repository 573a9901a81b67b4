# SPDX-License-Identifier: GPL-2.0-only
"""One capture on the host: load, say hello, open the gate, drain on a timer, close the gate, detach,
account, end."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from typing import Any

from collectors import bpfsys, hostfacts
from collectors.attendance import Attendance, StopRequest
from collectors.bulkprobe import BulkProbe, bulk_probe
from collectors.cgroups import path_of
from collectors.drain import Drain
from collectors.errors import CollectorError, ProbeUnavailableError, ReaderGoneError
from collectors.kernel import LoadedProbes, describe_lanes, describe_rings, ensure_tracefs, import_bcc
from collectors.mapsender import MapSender
from collectors.options import Options
from collectors.output import Output
from collectors.pagegeometry import EVENT, PageGeometry, find_page_geometry
from collectors.programs import Plan, lanes_of
from collectors.protocol import FRAME_HEADER, VERSION, FrameType, json_frame, stream_header
from collectors.resolve import filters_of
from collectors.selfcost import SelfCost
from collectors.shed import Controller
from collectors.snapshots import SnapshotTaker
from collectors.symbols import SymbolTable
from collectors.tracepoints import Format, chosen, find_formats, require_groups
from collectors.tracer_choice import run_chosen

STATUS_NS = 1_000_000_000
CONTROL_NS = 200_000_000
"""How often the limits, and events within events, are looked at."""
STALL_AFTER_STOP_S = 10.0
"""A reader that takes nothing for so long after the stop was asked for is given up."""


class Session:
    """Owns the programs and the output between start and end."""

    def __init__(self, options: Options, output: Output, stop: StopRequest) -> None:
        self.options = options
        self.output = output
        self.stop = stop
        self.started_ns = 0
        self.stopped_ns = 0
        self._no_raw = ""
        """Why page events are not tapped raw; empty: they are."""
        self._programs: dict[str, dict[str, Any]] = {}
        self._missing: dict[str, str] = {}
        self._named_cgroups: set[int] = {0}
        self._map = MapSender(output, wanted=options.page_map)
        self._snapshots = SnapshotTaker(options.snapshot_every_s)
        self._controller = Controller(options.max_overhead, options.max_rate, options.stacks, options.stack_sample)
        self._seen = (0, (0, 0, 0))
        """Time of the last look at the rate, and the events by then (LoadedProbes.events_seen)."""

    # ------------------------------------------------------------ life
    def run(self) -> None:
        """The whole capture. Raises CollectorError (start) or ReaderGoneError; programs are detached in
        every case."""
        if self.options.attended:
            bpfsys.die_with_parent(signal.SIGTERM)
        tracefs, how = ensure_tracefs()
        bcc = import_bcc()
        plan, geometry = self._plan(*find_formats(tracefs, chosen(self.options.groups)))
        loaded = self.loaded = self._load(plan, geometry)
        self.drain = Drain(plan.rings, loaded.rings, self.output)
        self.cost = SelfCost(loaded.run_times, always=bool(self.options.max_overhead))
        self.attendance = Attendance(
            self.output, self.stop, attended=self.options.attended, silence_s=self.options.silence_s
        )
        try:
            loaded.add_online_cpus()
            self.cost.start()
            loaded.attach()
            self._missing.update(loaded.missing)
            self.output.send([stream_header(), self._hello(bcc, {"path": str(tracefs), "how": how})])
            self._snapshot("start")
            self._record()
        finally:
            loaded.set_gate(False)
            self.stopped_ns = time.monotonic_ns()
            try:
                self._programs = loaded.program_facts()
            finally:
                loaded.detach()
                self.cost.close()
        self._finish()
        loaded.close()

    def _plan(self, formats: dict[str, Format], missing: dict[str, str]) -> tuple[Plan, PageGeometry | None]:
        """What to load. Raises ProbeUnavailableError when a group has nothing that this kernel offers."""
        wanted = chosen(self.options.groups)
        usable = [p for p in wanted if p.event in formats]
        self._missing = dict(missing)
        bulk = self._bulk()
        named = [group for group in self.options.groups if group != "bulk"]
        require_groups(named, {p.group for p in usable}, missing)
        geometry, self._no_raw = self._page_geometry(formats)
        plan = Plan(
            lanes_of(usable, raw=geometry is not None, bulk=bulk),
            formats,
            filters_of(self.options),
            self.options.stacks,
            self.options.stack_every_ns,
            bulk,
        )
        return plan, geometry

    def _load(self, plan: Plan, geometry: PageGeometry | None) -> LoadedProbes:
        """The programs, compiled and loaded; without the bulk allocator's where those fail and were not asked for."""
        groups = self.options.groups
        try:
            return LoadedProbes(plan, self._ring_mib(plan), geometry, groups)
        except CollectorError as error:
            if plan.bulk is None or "bulk" in groups:
                raise
            self._missing[plan.bulk.probe.event] = f"{plan.bulk.probe.event}: {error.message}"
            lanes = [lane for lane in plan.lanes if lane.probe is not plan.bulk.probe]
            plan = replace(plan, lanes=lanes, bulk=None)
            return LoadedProbes(plan, self._ring_mib(plan), geometry, groups)

    def _record(self) -> None:
        self._open_gate()
        self.started_ns = time.monotonic_ns()
        self.cost.begin(self.started_ns)
        self._status("started", {"started_ns": self.started_ns})
        end_ns = None
        if self.options.duration_s is not None:
            end_ns = self.started_ns + int(self.options.duration_s * 1e9)
        step_ns = int(self.options.drain_ms * 1e6)
        next_status = self.started_ns + STATUS_NS
        next_control = next_look = self.started_ns + CONTROL_NS
        while self.stop.reason is None:
            now = time.monotonic_ns()
            if end_ns is not None and now >= end_ns:
                self.stop.set("duration")
                break
            if self._snapshots.due(now):
                self._snapshot("tick")
            reading = self._map.reading
            wait_ns = step_ns if end_ns is None else min(step_ns, end_ns - now)
            self.attendance.wait(0 if reading else wait_ns)
            self.drain.step()
            self.cost.step(now)
            if reading:
                before = time.process_time()
                self._map.step()
                self.cost.excused_seconds += time.process_time() - before
            if self.options.sheds and now >= next_control:
                next_control = now + CONTROL_NS
                self._control(now)
            if now >= next_look:
                next_look = now + CONTROL_NS
                self.loaded.attach_waiting()
            if now >= next_status:
                next_status += STATUS_NS
                self.loaded.add_online_cpus()
                self._name_cgroups()
                self._status("tick")
        if self.options.snapshot_every_s:
            # While events still flow: what the kernel counted by now can be held against them exactly.
            self._snapshot("tick")

    def _open_gate(self) -> None:
        """Let the programs record, at the level of detail that holds now."""
        level = self._controller.level
        self.loaded.set_gate(True, keep_one_in=level.sample, stack_every=level.stacks)

    def _control(self, now_ns: int) -> None:
        """Keep the limits: shed load, or take it up again, and say so."""
        self.cost.writer_seconds = self.attendance.writer_seconds
        overhead = self.cost.look(now_ns)
        (then, before), events = self._seen, self.loaded.events_seen()
        self._seen = (now_ns, events)
        if not then:
            return
        pages, shed, others = ((new - old) * 1e9 / (now_ns - then) for old, new in zip(before, events))
        rate = pages + shed + others
        level = self._controller.decide(now_ns, overhead, rate, pages + others, others)
        if level is None:
            return
        self._open_gate()
        told = {"stage": level.stage, "stacks": level.stacks, "sample": level.sample, "reason": level.reason}
        self._send_json(
            FrameType.STATUS, {"event": "shed", "t_ns": time.monotonic_ns(), "overhead": overhead, "rate": rate, **told}
        )

    def _finish(self) -> None:
        self.output.stall_limit_s = STALL_AFTER_STOP_S
        while self.drain.step():
            pass
        self._status("stopped", {"stopped_ns": self.stopped_ns, "reason": self.stop.reason})
        self._snapshot("end")
        self._map.finish(self.stopped_ns)
        self._name_cgroups()
        if self.drain.addresses:
            self._send_json(FrameType.SYMBOLS, SymbolTable().resolve(self.drain.addresses - {0}))
        self._send_json(
            FrameType.CLOSING,
            {
                "reason": self.stop.reason,
                "started_ns": self.started_ns,
                "stopped_ns": self.stopped_ns,
                "clock": hostfacts.clock_triple(),
                "counters": self.loaded.counters(),
                "drained": self.drain.drained,
                "refused_cpus": {str(k): v for k, v in self.loaded.refused_cpus.items()},
                "programs": self._programs,
                "cost": self._cost(),
            },
        )

    # ------------------------------------------------------------ frames
    def _send_json(self, frame_type: int, value: dict[str, Any]) -> None:
        self.output.send([json_frame(frame_type, value, mono_ns=time.monotonic_ns())])

    def _snapshot(self, phase: str) -> None:
        self._send_json(FrameType.SNAPSHOT, self._snapshots.take(phase))

    def _name_cgroups(self) -> None:
        """Send the paths of cgroups seen since the last call, while they still exist."""
        fresh = self.drain.cgroups - self._named_cgroups
        if not fresh:
            return
        self._named_cgroups |= fresh
        paths = {str(number): path for number in sorted(fresh) if (path := path_of(number)) is not None}
        if paths:
            self._send_json(FrameType.CGROUPS, paths)

    def _status(self, event: str, more: dict[str, Any] | None = None) -> None:
        facts, counters = self.loaded.program_facts(), self.loaded.counters()
        told = {"event": event, "counters": counters, "programs": facts, "cost": self._cost()}
        self._send_json(FrameType.STATUS, {**(more or {}), **told})

    def _cost(self) -> dict[str, Any]:
        return dict(
            self.cost.describe(),
            ring_high_water_bytes=self.drain.high_water(),
            ring_fill=self.drain.take_fill(),
            bytes_sent=self.output.bytes_sent,
            waited_for_reader_s=self.output.waited_s,
        )

    def _bulk(self) -> BulkProbe | None:
        """What watches the bulk allocator: with page events where it can be done, since it hands out pages too.
        Raises ProbeUnavailableError where it cannot and was asked for by name."""
        asked = "bulk" in self.options.groups
        if not asked and "page" not in self.options.groups:
            return None
        bulk, reason = bulk_probe()
        if bulk is None and asked:
            raise ProbeUnavailableError(
                f"the bulk allocator cannot be watched: {reason}",
                "leave bulk out of --events: its pages are reckoned from /proc/vmstat",
            )
        return bulk

    def _page_geometry(self, formats: dict[str, Format]) -> tuple[PageGeometry | None, str]:
        """What the raw tap of page events needs, and if it is not there, why."""
        if "page" not in self.options.groups:
            return None, "no page events wanted"
        if not self.options.raw_tap:
            return None, "switched off"
        if EVENT not in formats:
            return None, f"no {EVENT}"
        return find_page_geometry(formats[EVENT])

    def _ring_mib(self, plan: Plan) -> float:
        """At most 1/32 of the memory for all rings together."""
        per_cpu_share = sum(1.0 / ring.share for ring in plan.rings)
        budget = hostfacts.mem_total_bytes() / 32 / (1 << 20) / per_cpu_share / len(hostfacts.cpus("online"))
        return min(self.options.ring_mib, max(budget, 0.0625))

    def _hello(self, bcc: Any, tracefs: dict[str, str]) -> bytes:
        hello = {
            "protocol": VERSION,
            "byteorder": sys.byteorder,
            "frame_header_bytes": FRAME_HEADER.size,
            "python": sys.version.split()[0],
            "bcc": getattr(bcc, "__version__", "?"),
            "tracer": "ebpf",
            "tracefs": tracefs,
            "host": hostfacts.host_facts(),
            "cpus": hostfacts.cpus("online"),
            "clock": {"name": "monotonic", "resolution_ns": 1, "triple": hostfacts.clock_triple()},
            "groups": list(self.options.groups),
            "drain_ms": self.options.drain_ms,
            "filters": self.options.filters(),
            "sampling": self.options.sampling(),
            "rings": describe_rings(self.loaded.plan, self.loaded.ring_sizes),
            "probes": describe_lanes(self.loaded.plan, self._missing),
            "missing": self._missing,
            "no_raw_tap": self._no_raw,
            "bulk": self.loaded.plan.bulk.describe() if self.loaded.plan.bulk is not None else None,
        }
        return json_frame(FrameType.HELLO, hello, mono_ns=time.monotonic_ns())


def run_session(options: Options, output_fd: int) -> int:
    """Capture to a file descriptor. Exit code: 0 clean end, 4 failed, 141 reader gone."""
    output = Output(output_fd)
    stop = StopRequest()
    stop.install()
    try:
        run_chosen(options, output, stop)
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
    sys.stderr.write(f"collector: {failure.message}\n")
    start = b"" if output.bytes_sent else stream_header()
    value = {"error": type(failure).__name__, "message": failure.message, "hint": failure.hint}
    output.stall_limit_s = STALL_AFTER_STOP_S
    try:
        output.send([start, json_frame(FrameType.ERROR, value, mono_ns=time.monotonic_ns())])
    except (OSError, ReaderGoneError):
        sys.stderr.write("collector: nobody takes the error frame\n")
