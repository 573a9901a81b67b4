# SPDX-License-Identifier: GPL-2.0-only
"""The loaded programs: compile, rings per CPU, attach, gate, counters, detach. The only module that imports
bcc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collectors import bpfsys, hostfacts, programs
from collectors.errors import BccUnavailableError, CollectorError, PrivilegeError, ProbeUnavailableError
from collectors.pagegeometry import PageGeometry
from collectors.programs import LANE_BYTES, LANE_COUNTERS, NESTED, RAW, TRACEPOINT, Lane, Plan
from collectors.rings import MappedRing, memory_barrier, ring_bytes
from collectors.stubtree import stub_tree
from collectors.tracepoints import Probe, tracefs_root

BPF_MAP_TYPE_RINGBUF = 27

_STATISTICS = ("processed ", "verification time ", "stack depth ", "peak_states ")
ESSENTIAL = {"kmem:mm_page_alloc", "kmem:mm_page_free", "block:block_bio_queue"}

LANE_WORDS = LANE_BYTES // 8
ON_DEMAND = ("alloc",)
"""Kinds of page events whose second program waits until an event was missed. A second program on a tracepoint
costs each of its events about 75 ns, whatever it does (with one, the kernel calls it directly; with two, through
a list), and allocations within allocations are rare: interrupts free much and allocate little."""
SHED_WORD = LANE_COUNTERS.index("shed")

BCC_HINT = (
    "install the distribution's package for the system Python: Debian/Ubuntu `apt install python3-bpfcc`, "
    "Fedora/RHEL `dnf install python3-bcc`. The package called bcc on PyPI is something else: "
    "never install it"
)


def import_bcc() -> Any:
    """The bcc module. Raises BccUnavailableError when absent, or when it is PyPI's namesake."""
    try:
        import bcc  # type: ignore[import-not-found]
    except ImportError as error:
        raise BccUnavailableError(f"{sys.executable} has no module bcc ({error})", BCC_HINT) from None
    if not hasattr(bcc, "BPF"):
        where = getattr(bcc, "__file__", "?")
        raise BccUnavailableError(f"module bcc at {where} is not the BPF Compiler Collection", BCC_HINT)
    return bcc


def ensure_tracefs() -> tuple[Path, str]:
    """The tracefs directory and how it came: ``mounted``, or ``private`` when this process mounted it for
    itself."""
    root = tracefs_root()
    if root is not None:
        return root, "mounted"
    target = Path("/sys/kernel/tracing")
    try:
        bpfsys.mount_tracefs_privately(target)
    except OSError as error:
        raise PrivilegeError(
            f"tracefs is not mounted or not readable, and mounting it failed: {error.strerror or error}",
            "run as root, or have root run: mount -t tracefs nodev /sys/kernel/tracing",
        ) from None
    if tracefs_root() is None:
        raise CollectorError(f"tracefs mounted at {target} holds no events", "the kernel needs CONFIG_TRACING")
    return target, "private"


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[list[str]]:
    """Catch what LLVM and libbcc print on file descriptor 2, for the error message."""
    import tempfile

    said: list[str] = []
    saved = os.dup(2)
    with tempfile.TemporaryFile() as capture:
        os.dup2(capture.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            capture.seek(0)
            said.append(capture.read().decode(errors="replace"))


def compile_programs(text: str) -> Any:
    """A bcc.BPF of a C source, compiled against the stub tree. Raises CollectorError with the compiler's
    words."""
    bcc = import_bcc()
    said: list[str] = []
    try:
        with stub_tree(), _quiet_stderr() as said:
            return bcc.BPF(text=text)
    except Exception as error:
        words = " ".join(said).strip() or str(error)
        if os.geteuid() != 0 and ("Operation not permitted" in words or "Permission denied" in words):
            raise PrivilegeError(f"the kernel refuses bpf(): {words[-300:]}", "run as root") from None
        raise CollectorError(f"cannot compile or create maps: {words[-600:]}", "see `tracereplay doctor`") from None


def _verdict(said: str) -> str:
    """The reason in what the verifier says: its last line before the statistics."""
    lines = [line for line in said.strip().splitlines() if line and not line.startswith(_STATISTICS)]
    return lines[-1] if lines else ""


class LoadedProbes:
    """Programs attached to their tracepoints, recording once the gate is open."""

    def __init__(self, plan: Plan, ring_mib: float, geometry: PageGeometry | None, groups: Sequence[str] = ()) -> None:
        """``groups``: those that must not stay empty."""
        self.plan = plan
        self._groups = groups
        self.lanes = list(plan.lanes)
        self.missing: dict[str, str] = {}
        """Events that could not be attached, with the reason."""
        self.ring_sizes = [ring_bytes(ring_mib, ring.share) for ring in plan.rings]
        self.rings: dict[tuple[int, int], MappedRing] = {}
        """(ring, CPU) -> reader."""
        self.refused_cpus: dict[int, str] = {}
        self._geometry = geometry
        self._barrier = memory_barrier()
        self._bpf = compile_programs(programs.source(plan))
        self._lib = __import__("bcc.libbcc", fromlist=["lib"]).lib
        self._program_fds: dict[int, int] = {}
        self._links: list[int] = []
        """Raw taps: closing the descriptor detaches."""
        self._gate = (0, 1, 0)
        """Open, one caller in how many, one stack in how many: as last set."""
        self._waiting: dict[int, int] = {}
        """Second programs that are not attached yet -> their first ones."""
        self._misses: dict[int, int] = {}
        """Recursion misses of each program when the gate opened."""
        self._bulk_counts = (0, 0)
        """The bulk allocator's entries and returns when the gate opened."""

    def add_cpu(self, cpu: int) -> None:
        """Rings for a CPU; its events count as lost until it has them."""
        for index, ring in enumerate(self.plan.rings):
            if (index, cpu) in self.rings:
                continue
            size = self.ring_sizes[index]
            name = f"tr_{ring.name}_{cpu}".encode()
            fd = self._lib.bcc_create_map(BPF_MAP_TYPE_RINGBUF, name, 0, 0, size, 0)
            if fd < 0:
                errno = ctypes.get_errno()
                hint = "use a smaller --ring-mib" if errno == 12 else "see `tracereplay doctor`"
                raise CollectorError(f"no ring of {size} bytes for CPU {cpu}: {os.strerror(errno)}", hint)
            self.rings[index, cpu] = MappedRing(fd, size, ring.stride, self._barrier)
            self._bpf[f"{ring.name}_rings".encode()][ctypes.c_int(cpu)] = ctypes.c_int(fd)

    def add_online_cpus(self) -> list[int]:
        """Rings for CPUs that are online and have none; the CPUs added."""
        added = []
        for cpu in hostfacts.cpus("online"):
            if (0, cpu) not in self.rings and cpu not in self.refused_cpus:
                try:
                    self.add_cpu(cpu)
                except CollectorError as error:
                    if not self.rings:
                        raise
                    self.refused_cpus[cpu] = error.message  # its events are counted as lost
                    continue
                added.append(cpu)
        return added

    def attach(self) -> None:
        """Attach all programs. Raises ProbeUnavailableError when a group is left without any, or without one of the
        events that its others mean nothing without."""
        attached: list[Probe] = []
        for index, lane in enumerate(self.lanes):
            event = lane.probe.event
            if lane.role == NESTED and event in self.missing:
                continue
            if lane.role == NESTED and self._may_wait(index):
                continue
            said: list[str] = []
            try:
                with _quiet_stderr() as said:
                    self._program_fds[index] = self._attach_lane(lane)
            except Exception as error:  # bcc raises bare Exception
                self.missing[event] = f"{event}: attach failed: {_verdict(''.join(said)) or error}"
                continue
            attached.append(lane.probe)
        for event in ESSENTIAL & {lane.probe.event for lane in self.lanes} & set(self.missing):
            raise ProbeUnavailableError(f"the kernel refuses a program: {self.missing[event]}", "report this as a bug")
        for group in set(self._groups) - {p.group for p in attached}:
            reasons = "; ".join(self.missing.values())
            raise ProbeUnavailableError(f"no tracepoint of group {group!r} could be attached: {reasons}")

    def _may_wait(self, index: int) -> bool:
        """Whether a second program is left for later; only where the kernel counts what the first one missed."""
        probe = self.lanes[index].probe
        first = next(i for i, lane in enumerate(self.lanes) if lane.probe is probe)
        if probe.kind not in ON_DEMAND or first not in self._recursion_misses():
            return False
        self._waiting[index] = first
        return True

    def attach_waiting(self) -> None:
        """Attach the second programs of events that were missed. Call it now and then while the gate is open:
        what is missed before counts as lost."""
        if not self._waiting:
            return
        misses = self._recursion_misses()
        for index, first in list(self._waiting.items()):
            if misses.get(first, 0) <= self._misses.get(first, 0):
                continue
            del self._waiting[index]
            is_open, keep_one_in, stack_every = self._gate
            self.set_gate(bool(is_open), keep_one_in=keep_one_in, stack_every=stack_every)  # claims come first
            with contextlib.suppress(Exception), _quiet_stderr():  # it stays without: what it misses is counted
                self._program_fds[index] = self._attach_lane(self.lanes[index])

    def _attach_lane(self, lane: Lane) -> int:
        """The program's file descriptor."""
        bcc = import_bcc()
        bulk = self.plan.bulk
        if bulk is not None and lane.probe is bulk.probe:
            return bulk.attach(self._bpf)
        if lane.role == TRACEPOINT:
            function = self._bpf.load_func(lane.function.encode(), bcc.BPF.TRACEPOINT)
            self._bpf.attach_tracepoint(tp=lane.probe.event.encode(), fn_name=lane.function.encode())
            return int(function.fd)
        function = self._bpf.load_func(lane.function.encode(), bcc.BPF.RAW_TRACEPOINT)
        link = self._lib.bpf_attach_raw_tracepoint(function.fd, lane.probe.event.split(":")[1].encode())
        if link < 0:
            raise OSError("the kernel refuses the raw tracepoint")
        self._links.append(link)
        return int(function.fd)

    def set_gate(self, is_open: bool, *, keep_one_in: int = 1, stack_every: int = 0) -> None:
        """Start or stop all programs at one instant.

        ``keep_one_in``: callers whose page events are recorded, a power of two. ``stack_every``: of so many
        events one gets its stack; 0: none.
        """
        table = self._bpf[b"gate"]
        base, shift = (self._geometry.base, self._geometry.shift) if self._geometry else (0, 0)
        if is_open and not self._misses:
            self._misses = self._recursion_misses()
            if self.plan.bulk is not None:
                self._bulk_counts = self.plan.bulk.counts()
        self._gate = (int(is_open), keep_one_in, stack_every)
        # Raw programs claim their pages for those nested ones that are there (by number of the tap).
        taps = [index for index, lane in enumerate(self.lanes) if lane.role == RAW]
        nested = sum(1 << tap for tap, first in enumerate(taps) if first not in self._waiting.values())
        table[ctypes.c_int(0)] = table.Leaf(base, shift, int(is_open), keep_one_in - 1, stack_every, nested, 0)

    def _words(self) -> Iterator[tuple[int, memoryview]]:
        """CPU -> its lane counters as u64 words: the lanes' own, those of their task notes, those of their stacks."""
        per_cpu = self._bpf[b"state"][ctypes.c_int(0)]
        size = len(self.lanes) * LANE_BYTES * (3 if self.plan.stacks else 2)
        for index, cpu in enumerate(hostfacts.cpus("possible")):
            yield cpu, memoryview(bytes(per_cpu[index]))[:size].cast("Q")

    def counters(self) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
        """ring name -> CPU -> lane -> counters (programs.LANE_COUNTERS): what the kernel counted; where there
        was nothing to count, left out."""
        found: dict[str, dict[str, dict[str, dict[str, int]]]] = {ring.name: {} for ring in self.plan.rings}
        lanes = len(self.lanes)
        for cpu, words in self._words():
            for at in range(0, len(words), LANE_WORDS):
                counted = words[at : at + len(LANE_COUNTERS)].tolist()
                if any(counted):
                    part, number = divmod(at // LANE_WORDS, lanes)
                    ring = (self.lanes[number].probe.ring, "task", "stack")[part]
                    found[ring].setdefault(str(cpu), {})[str(number)] = dict(zip(LANE_COUNTERS, counted))
        return found

    def events_seen(self) -> tuple[int, int, int]:
        """Events over all CPUs, cheaper than ``counters``: page events recorded, page events left out by sampling, and
        events that are never left out."""
        pages = shed = others = 0
        for _cpu, words in self._words():
            for number, lane in enumerate(self.lanes):
                if lane.probe.ring == "page":
                    pages += words[number * LANE_WORDS]
                    shed += words[number * LANE_WORDS + SHED_WORD]
                else:
                    others += words[number * LANE_WORDS]
        return pages, shed, others

    def run_times(self) -> dict[str, tuple[int, int]]:
        """function -> (ns, runs) of each program since it was loaded, counted while statistics were on."""
        found = {}
        for index, fd in self._program_fds.items():
            with contextlib.suppress(OSError):
                info = bpfsys.program_info(fd)
                found[self.lanes[index].function] = (info["run_time_ns"] or 0, info["run_cnt"] or 0)
        return found

    def _recursion_misses(self) -> dict[int, int]:
        """Of each program; left out where the kernel does not count them (before 5.12)."""
        found = {}
        for index, fd in self._program_fds.items():
            with contextlib.suppress(OSError):
                misses = bpfsys.program_info(fd)["recursion_misses"]
                if misses is not None:
                    found[index] = misses
        return found

    def program_facts(self) -> dict[str, dict[str, Any]]:
        """event -> how it is tapped, and how many of its events no program saw since the gate opened.

        ``recursion_misses``: the kernel skipped the program because one was running on that CPU. ``nested``:
        those of them that the second program recorded, or left out by a filter. ``lost``: the difference, while
        events flow a lower bound of it (what is missed is looked at first).
        """
        now = self._recursion_misses()
        nested: dict[str, int] = {}
        for per_lane in self.counters()["page"].values():
            for text, counted in per_lane.items():
                lane = self.lanes[int(text)]
                if lane.role == NESTED:
                    taken = counted["seq"] + counted["unwanted"]
                    nested[lane.probe.event] = nested.get(lane.probe.event, 0) + taken
        facts: dict[str, dict[str, Any]] = {}
        for number in self._program_fds:
            lane = self.lanes[number]
            if lane.role == NESTED:
                continue
            event = lane.probe.event
            missed = now[number] - self._misses.get(number, 0) if number in now else None
            taken = nested.get(event, 0)
            lost = None if missed is None else max(0, missed - taken)
            if self.plan.bulk is not None and lane.probe is self.plan.bulk.probe:
                lost = self.plan.bulk.missed(self._bulk_counts)
            facts[event] = {"tap": lane.role, "recursion_misses": missed, "nested": taken, "lost": lost}
        return facts

    def detach(self) -> None:
        """Detach every program; the rings stay for the last drain."""
        for link in self._links:
            os.close(link)
        self._links.clear()
        for event in list(self._bpf.tracepoint_fds):
            self._bpf.detach_tracepoint(event)
        if self.plan.bulk is not None:
            self.plan.bulk.detach()

    def close(self) -> None:
        """Unmap the rings and drop programs and maps."""
        for reader in self.rings.values():
            reader.close()
        self.rings.clear()
        self._bpf.cleanup()


def describe_lanes(plan: Plan, missing: Mapping[str, str]) -> list[dict[str, Any]]:
    """Hello's ``probes``, in order of the ``kind`` codes of records: event, kind, group, ring, tap, the
    event's format text, and why it is not attached if so."""
    listing = []
    names = [ring.name for ring in plan.rings]
    for lane in plan.lanes:
        probe = lane.probe
        entry: dict[str, Any] = {
            "event": probe.event,
            "kind": probe.kind,
            "group": probe.group,
            "ring": names.index(probe.ring),
            "tap": lane.role,
            "attached": probe.event not in missing,
            "format": plan.formats[probe.event].text if lane.role != NESTED and probe.event in plan.formats else "",
        }
        if probe.event in missing:
            entry["reason"] = missing[probe.event]
        listing.append(entry)
    return listing


def describe_rings(plan: Plan, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Hello's record layouts."""
    return [dict(ring.describe(), bytes_per_cpu=sizes[index]) for index, ring in enumerate(plan.rings)]
