# SPDX-License-Identifier: GPL-2.0-only
"""What a capture is asked to do: the options, and the command line that carries them to the host."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from collectors import VERSION
from collectors.tracepoints import GROUPS

TRACERS = ("auto", "ebpf", "tracefs")
"""``auto``: eBPF where the host allows it, else an instance of tracefs."""


@dataclass(frozen=True)
class Options:
    """A capture's options. Times in the unit that the name says; empty filters let everything pass."""

    groups: Sequence[str] = ("page", "bio")
    duration_s: float | None = None
    ring_mib: float = 16.0
    """Page ring per CPU; the others get a share of it (layout.py)."""
    drain_ms: float = 10.0
    attended: bool = False
    """Stop when standard input ends and when the parent process dies."""
    silence_s: float = 0.0
    """Attended: stop also when nothing comes over standard input for so long (a dead link); 0: no limit."""
    raw_tap: bool = True
    """Tap page events raw where the kernel allows it (see programs.py)."""
    tracer: str = "auto"
    stacks: bool = False
    """Take kernel stacks of allocations and bio submissions."""
    stack_sample: int = 1
    """Of every so many events on a CPU, one gets its stack."""
    stack_every_ns: int = 0
    """A task's events of one order and gfp mask get a stack at most once in so long; 0: no such limit."""
    pids: Sequence[int] = ()
    """Thread ids, as tracepoints give them."""
    tgids: Sequence[int] = ()
    comms: Sequence[str] = ()
    cgroups: Sequence[str] = ()
    """Paths in the cgroup v2 hierarchy; their descendants count."""
    devices: Sequence[str] = ()
    """Names under /sys/class/block, or MAJOR:MINOR."""
    orders: Sequence[int] = ()
    gfp: int = 0
    """An allocation's mask must have all these bits."""
    min_bytes: int = 0
    """Smallest block of pages, and smallest bio."""
    snapshot_every_s: float = 10.0
    """0: at start and end only."""
    page_map: bool = True
    """Read /proc/kpageflags once the capture runs."""
    max_overhead: float = 0.0
    """Share of one core that capturing may take before it sheds load; 0: no limit."""
    max_rate: float = 0.0
    """Events per second that may be recorded before load is shed; 0: no limit."""

    @property
    def task_filter(self) -> bool:
        """Whether events are chosen by the task that makes them."""
        return bool(self.pids or self.tgids or self.comms or self.cgroups)

    @property
    def sheds(self) -> bool:
        """Whether load may be shed."""
        return bool(self.max_overhead or self.max_rate)

    def filters(self) -> dict[str, Any]:
        """The filters in use, by option name, for the trace's metadata."""
        given = {
            "pid": list(self.pids),
            "tgid": list(self.tgids),
            "comm": list(self.comms),
            "cgroup": list(self.cgroups),
            "device": list(self.devices),
            "order": list(self.orders),
            "gfp": self.gfp,
            "min_bytes": self.min_bytes,
        }
        return {name: value for name, value in given.items() if value}

    def sampling(self) -> dict[str, Any]:
        """What is sampled or limited on purpose, for the trace's metadata."""
        given: dict[str, Any] = {"max_overhead": self.max_overhead, "max_rate": self.max_rate}
        if self.stacks:
            given.update(stack_sample=self.stack_sample, stack_every_ns=self.stack_every_ns)
        return {name: value for name, value in given.items() if value}


def _groups(text: str) -> list[str]:
    groups = [g.strip() for g in text.split(",") if g.strip()]
    unknown = [g for g in groups if g not in GROUPS]
    if unknown or not groups:
        raise argparse.ArgumentTypeError(f"unknown group {', '.join(unknown) or text!r}; groups: {', '.join(GROUPS)}")
    return list(dict.fromkeys(groups))


def _at_least(least: float, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least:g}")
        return value

    return parse


def _mask(text: str) -> int:
    return int(text, 0)


def parser() -> argparse.ArgumentParser:
    """The command line. Options that may be given several times add up."""
    made = argparse.ArgumentParser(
        prog="collectors", description="Record page-allocation and block events as raw frames."
    )
    add = made.add_argument
    add("--version", action="version", version=f"tracereplay collector {VERSION}")
    default = Options()
    add("--events", type=_groups, default=list(default.groups), help=f"groups: {','.join(GROUPS)} (default page,bio)")
    add("--duration", type=float, metavar="SECONDS", help="stop after so long")
    add("--ring-mib", type=float, default=default.ring_mib, help="page ring per CPU in MiB; other rings get a share")
    add("--drain-ms", type=float, default=default.drain_ms, help="interval between drains")
    add("--raw", metavar="FILE", help="write frames to FILE (must not exist) instead of standard output")
    add("--no-raw-tap", action="store_true", help="page events through perf tracepoints only")
    add("--attended", action="store_true", help="stop when stdin ends and when the parent dies")
    add("--silence-s", type=_at_least(0, float), default=0.0, metavar="SECONDS", help="stop when stdin is silent")
    add("--check", action="store_true", help="try what a capture needs, print the findings as JSON, end")
    add("--tracer", choices=TRACERS, default=default.tracer, help="auto: eBPF, else an instance of tracefs")
    add("--stacks", action="store_true", help="take kernel stacks of allocations and bio submissions")
    add("--stack-sample", type=_at_least(1, int), default=1, metavar="N", help="a stack for one event in N")
    add("--stack-every-ns", type=_at_least(0, int), default=0, metavar="NS", help="one stack per caller in NS")
    add("--pid", type=_at_least(0, int), action="append", default=[], help="only this thread")
    add("--tgid", type=_at_least(0, int), action="append", default=[], help="only this process")
    add("--comm", action="append", default=[], help="only tasks of this name")
    add("--cgroup", action="append", default=[], help="only tasks in this cgroup (v2) or below")
    add("--device", action="append", default=[], help="only this block device, name or MAJOR:MINOR")
    add("--order", type=_at_least(0, int), action="append", default=[], help="only blocks of this order")
    add("--gfp", type=_mask, default=0, metavar="MASK", help="only allocations with all these gfp bits")
    add("--min-bytes", type=_at_least(0, int), default=0, help="only blocks and bios of at least so many bytes")
    add("--snapshot-every-s", type=_at_least(0, float), default=default.snapshot_every_s, metavar="SECONDS")
    add("--no-page-map", action="store_true", help="do not read /proc/kpageflags")
    add("--max-overhead", type=_at_least(0, float), default=0.0, metavar="CORES", help="shed load beyond this share")
    add("--max-rate", type=_at_least(0, float), default=0.0, metavar="EVENTS/S", help="shed load beyond this rate")
    return made


def options_of(args: argparse.Namespace) -> Options:
    """The options that a parsed command line names."""
    return Options(
        groups=args.events,
        duration_s=args.duration,
        ring_mib=args.ring_mib,
        drain_ms=args.drain_ms,
        attended=args.attended,
        silence_s=args.silence_s,
        raw_tap=not args.no_raw_tap,
        tracer=args.tracer,
        stacks=args.stacks,
        stack_sample=args.stack_sample,
        stack_every_ns=args.stack_every_ns,
        pids=args.pid,
        tgids=args.tgid,
        comms=args.comm,
        cgroups=args.cgroup,
        devices=args.device,
        orders=args.order,
        gfp=args.gfp,
        min_bytes=args.min_bytes,
        snapshot_every_s=args.snapshot_every_s,
        page_map=not args.no_page_map,
        max_overhead=args.max_overhead,
        max_rate=args.max_rate,
    )
