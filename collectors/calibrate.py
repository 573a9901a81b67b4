# SPDX-License-Identifier: GPL-2.0-only
"""``collectors calibrate``: run the loads of calibrate_loads.py under the tape, write what was noted as JSON lines.

It only measures; tracereplay/cost/calibrate makes figures of it. Lines: ``hello`` (the host, what is allowed), then
of each *round* its ``block`` lines, ``refused`` for a load that this host does not allow, and ``done``. A round
runs every load for a moment, in a process of its own, on the next CPU: rounds differ in what differs between runs
(where objects lie, which CPU, what others do), so their spread is an honest range. Bounded in time (--seconds; a
round is never begun that would not end in time) and in memory (MEMORY_MIB at once). The host is left as it was:
affinity is a child's own, no setting is changed, and memory, programs and sockets go with the processes, however
these end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

from collectors import VERSION, bpfsys, hostfacts
from collectors.calibrate_loads import MOST_PAGES, PAGE, Kvmalloc, LoadError, Loop, Ring, Splice, keep_busy
from collectors.calibrate_tape import Tape
from collectors.errors import CollectorError
from collectors.tracepoints import tracefs_root

MEMORY_MIB = 64
"""Most that is held at once, kernel and user memory together (rings of 16 MiB, a block of 16 MiB to push others out of
the caches, the tape); Python and LLVM take about 130 MiB more."""
PUSH_OUT_MIB = 16
NEEDED_MIB = 512
"""With less available memory it refuses: reclaim would be measured, and others would suffer."""
LONGEST_S = 300.0
FEWEST_ROUNDS = 3
"""However short --seconds is; and so many rounds may fail before it gives up."""
SIZES = (1, 2, 4, 8, 16, 32, MOST_PAGES)
ORDERS = ((2, 3, 4, 5, 6), (7, 8, 9, 10))
"""Small and large blocks apart: what a large one leaves in the caches would be measured with a small one."""
RINGS = ((4, 64), (5, 64), (6, 32), (8, 16), (10, 4))
"""Order and blocks, allocated and freed on one CPU."""
CROSSING = (0, 4096)
CROSSINGS = 8
DRAINED = 500
"""Rings that are allocated on one CPU and freed on another, until so many pages have been drained: the one's per-CPU
lists run empty and are refilled, the other's overflow and are drained."""
BUSY_ORDER = 4
BUSY_CPUS = 64
MARKS = "EXKR"
OUTSIDE = MARKS + "ZD"
"""Programs that fire outside of the single page's path: the marks between which whole paths are timed."""
WITH_PAGES = OUTSIDE + "AF"


def push_out(room: bytearray) -> None:
    """Touch memory until what was in the caches no longer is."""
    room[::64] = room[::64]


def say(line: dict[str, Any]) -> None:
    """One line of output."""
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


class Round:
    """Every load for a moment, on one CPU."""

    def __init__(self, number: int, cpus: list[int], tape: Tape | None) -> None:
        self.number, self.cpus, self.tape = number, cpus, tape
        self.cpu = cpus[number % len(cpus)]
        os.sched_setaffinity(0, {self.cpu})
        self.loop = Loop()

    def block(self, work: str, mode: str, key: int, calls: list[Any]) -> None:
        """Write what one block of calls gave."""
        say({"type": "block", "round": self.number, "cpu": self.cpu, "work": work, "mode": mode, "key": key,
             "calls": calls})  # fmt: skip

    def refuse(self, work: str, why: str) -> None:
        """A load that this host does not allow."""
        say({"type": "refused", "round": self.number, "work": work, "reason": why})

    def taped(
        self, load: Any, work: str, mode: str, keys: Any, series: int, count: int = 12, before: Any = None
    ) -> None:
        """Series of calls, the keys in turn, so that a disturbance meets all of them."""
        assert self.tape is not None
        noted: dict[int, list[Any]] = {key: [] for key in keys}
        for _ in range(series):
            for key in keys:
                if before is not None:
                    before()
                calls = count if work != "zero" else MOST_PAGES // key
                self.tape.start(self.cpu)
                self.loop.repeat(load, key, calls)
                tape = self.tape.stop(self.cpu)
                load.drain(calls * key)
                noted[key].append({"k": tape["k"], "o": tape["o"], "t": tape["t"]})
        for key, calls in noted.items():
            self.block(work, mode, key, calls)

    def run(self) -> None:
        """The whole round."""
        assert self.tape is not None
        others = [c for c in self.cpus if c != self.cpu][:BUSY_CPUS]
        with self.allowed("splice"):
            splice = Splice()
            self.tape.attach(OUTSIDE)
            self.taped(splice, "splice", "plain", SIZES, 8)
            room = bytearray(PUSH_OUT_MIB << 20)
            self.taped(splice, "splice", "cold", (2, MOST_PAGES), 12, 1, lambda: push_out(room))
            self.tape.attach(WITH_PAGES)
            self.taped(splice, "splice", "pages", (1, 32), 8)
            splice.close()
        with self.allowed("zero"):
            zero = Splice(zero=True)
            self.tape.attach(OUTSIDE)
            self.taped(zero, "zero", "plain", (2, 8, 32), 16)
            zero.close()
        with self.allowed("kvmalloc"):
            load = Kvmalloc()
            self.tape.attach(MARKS)
            self.taped(load, "kvmalloc", "plain", ORDERS[0], 8)
            self.tape.attach(WITH_PAGES)
            for orders in ORDERS:
                self.taped(load, "kvmalloc", "pages", orders, 8)
            with busy(others):
                self.taped(load, "kvmalloc", "busy" if others else "alone", (BUSY_ORDER,), 20)
        with self.allowed("ring"):
            self.tape.attach(WITH_PAGES)
            self.rings(Ring())
        self.tape.attach(())

    @contextlib.contextmanager
    def allowed(self, work: str) -> Any:
        """Report what this host refuses, and go on."""
        try:
            yield
        except (LoadError, OSError) as error:
            self.refuse(work, str(error))

    def ring(self, ring: Ring, order: int, blocks: int, crossing: tuple[int, int] | None = None) -> int:
        """One ring, allocated and freed; pages that per-CPU lists gave back to the buddy lists on the way."""
        assert self.tape is not None
        first, last = crossing or (self.cpu, self.cpu)
        os.sched_setaffinity(0, {first})
        ring.prepare()
        self.tape.start(first)
        try:
            ring.open(order, blocks)
        except BaseException:
            ring.shut()
            raise
        finally:
            opened = self.tape.stop(first)
        os.sched_setaffinity(0, {last})
        self.tape.start(last)
        ring.shut()
        shut = self.tape.stop(last)
        self.block("ring", "crossing" if crossing else "pages", order, [opened, shut])
        return int(shut["k"].count("D"))

    def rings(self, ring: Ring) -> None:
        """Rings of several orders, and those that make lists run empty and over. These go from the lowest CPU to the
        next in every round: back again, they would find full lists, and leave empty ones."""
        for order, blocks in RINGS:
            self.ring(ring, order, blocks)
        drained = 0
        for _ in range(CROSSINGS if len(self.cpus) > 1 else 0):
            drained += self.ring(ring, *CROSSING, crossing=(self.cpus[0], self.cpus[1]))
            if drained >= DRAINED:
                break

    def run_by_clock(self) -> None:
        """The loads whose wall time means something: ns per call, means of short series."""
        for work in ("splice", "zero"):
            with self.allowed(work):
                load = Splice(zero=work == "zero")
                series: dict[int, list[float]] = {n: [] for n in SIZES}
                for _ in range(30):
                    for n in SIZES:
                        calls = MOST_PAGES // n if work == "zero" else 24
                        start = time.perf_counter_ns()
                        self.loop.repeat(load, n, calls)
                        spent = time.perf_counter_ns() - start
                        load.drain(n * calls)
                        series[n].append(spent / calls)
                for n, values in series.items():
                    self.block(work, "clock", n, values)
                load.close()


@contextlib.contextmanager
def busy(cpus: list[int]) -> Any:
    """Other CPUs allocate and free at the same time, each in a process that dies with this one."""
    children = []
    try:
        for cpu in cpus:
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                bpfsys.die_with_parent(signal.SIGKILL)
                with contextlib.suppress(BaseException):
                    keep_busy([cpu], BUSY_ORDER, lambda end=write: os.close(end))
                os._exit(0)
            children.append(pid)
            os.close(write)
            os.read(read, 1)  # end of file: it runs
            os.close(read)
        yield
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def available_mib() -> int:
    """Memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 0


def _first(path: str, key: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    return ""


def other_tracers() -> list[str]:
    """Who else watches page events, as far as names tell: those events cost more then than is taken off."""
    found = []
    with contextlib.suppress(OSError):
        found += sorted({str(p["name"]) for p in bpfsys.loaded_programs() if "mm_page" in str(p["name"])})
    root = tracefs_root()
    if root is not None:
        for events in (root, *(root / "instances").glob("*")):
            for name in ("mm_page_alloc", "mm_page_free", "mm_page_alloc_zone_locked", "mm_page_pcpu_drain"):
                with contextlib.suppress(OSError):
                    if (events / "events/kmem" / name / "enable").read_text().strip() != "0":
                        found.append(f"{events}: {name}")
    return found


def host() -> dict[str, Any]:
    """What a figure depends on."""
    cmdline = ""
    with contextlib.suppress(OSError):
        cmdline = Path("/proc/cmdline").read_text()
    flaws = {}
    with contextlib.suppress(OSError):
        for path in sorted(Path("/sys/devices/system/cpu/vulnerabilities").iterdir()):
            text = path.read_text().strip()
            if text != "Not affected":
                flaws[path.name] = text
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "hypervisor": "hypervisor" in _first("/proc/cpuinfo", "flags").split(),
        "mem_total_mib": hostfacts.mem_total_bytes() >> 20,
        "init_on_alloc": next((w.split("=")[1] for w in cmdline.split() if w.startswith("init_on_alloc=")), ""),
        "vulnerabilities": flaws,
        "load": os.getloadavg()[0],
        "at": time.time(),
        "other_tracers": other_tracers(),
    }


def _child(number: int, cpus: list[int], tape: Tape | None) -> int:
    """One round in a process of its own; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            bpfsys.die_with_parent(signal.SIGKILL)
            one = Round(number, cpus, tape)
            if tape is None:
                one.run_by_clock()
            else:
                one.run()
            status = 0
        except BrokenPipeError:
            status = 141
        except BaseException as error:
            with contextlib.suppress(OSError):
                one_line = f"round {number}: {type(error).__name__}: {error}"
                say({"type": "refused", "round": number, "work": "round", "reason": one_line})
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(argv: list[str]) -> int:
    """Measure; the exit code (0 ok, 4 not possible, 141 reader gone)."""
    parser = argparse.ArgumentParser(prog="collector calibrate", description="Measure the page allocator of this host.")
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--no-ebpf", action="store_true", help="wall clock only")
    args = parser.parse_args(argv)
    seconds = min(max(args.seconds, 0.1), LONGEST_S)
    with contextlib.suppress(OSError):
        bpfsys.die_with_parent(signal.SIGTERM)
    started = time.monotonic()
    hello: dict[str, Any] = {"type": "hello", "version": VERSION, "page": PAGE, "host": host(), "ebpf": True, "why": "",
                             "tight": Loop().tight}  # fmt: skip
    available = available_mib()
    if available < NEEDED_MIB:
        hello.update(ebpf=False, why=f"{available} MiB of memory are available, {NEEDED_MIB} MiB are needed")
        say(hello)
        say({"type": "done", "rounds": 0, "seconds": 0.0, "error": hello["why"]})
        return 4
    tape: Tape | None = None
    if args.no_ebpf:
        hello.update(ebpf=False, why="asked for the wall clock only")
    else:
        try:
            tape = Tape()
        except CollectorError as error:
            hello.update(ebpf=False, why=error.message)
    say(hello)
    cpus = sorted(os.sched_getaffinity(0))
    rounds, failed, longest, code = 0, 0, 0.0, 0
    measuring = time.monotonic()
    try:
        while failed < FEWEST_ROUNDS and (rounds < FEWEST_ROUNDS or time.monotonic() - measuring + longest < seconds):
            began = time.monotonic()
            code = _child(rounds, cpus, tape)
            if code in (141, -signal.SIGTERM, -signal.SIGINT):
                break
            failed += code != 0
            rounds += 1
            longest = max(longest, time.monotonic() - began)
        say({"type": "done", "rounds": rounds, "seconds": time.monotonic() - started, "error": ""})
    except BrokenPipeError:
        code = 141
    except KeyboardInterrupt:
        code = 130
    finally:
        if tape is not None:
            tape.close()
    return 141 if code == 141 else 0
