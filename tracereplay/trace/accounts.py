"""A capture's accounts, from what its closing frame says: losses by class, costs, and the errors of a failed one."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from typing import Any

import tracereplay.errors as errors
from tracereplay.errors import CaptureError, CollectorError
from tracereplay.trace.decode import COUNTER_CLASSES, Loss

_TABLES = {"block": "bio_events", "task": "tasks", **dict.fromkeys(("kmem", "kprobe", "fentry"), "page_events")}
"""Where the events of a category go; all others are mm_events."""
_STEADY = ("kmem:", "block:", "task:", "compaction:", "vmscan:")
"""Categories of tracepoints, whose misses only grow."""


class RecursionLedger:
    """Events that no program saw because one was running on that CPU: the kernel counts them by program, not by CPU.
    Looked at once a second, they are told between two looks."""

    def __init__(self) -> None:
        self._booked: dict[str, int] = {}
        self._since_ns = 0

    def start(self, started_ns: int) -> None:
        """The gate opens."""
        self._since_ns = started_ns

    def look(self, programs: Mapping[str, Mapping[str, Any]], now_ns: int) -> list[Loss]:
        """What was missed since the last look. Of calls of the bulk allocator a running one cannot be told from one
        whose end was missed: those are told at the end only.
        """
        return self._book({e: facts for e, facts in programs.items() if e.startswith(_STEADY)}, now_ns)

    def close(self, programs: Mapping[str, Mapping[str, Any]], stopped_ns: int) -> list[Loss]:
        """What the kernel counted to the end, less what has been told."""
        return self._book(programs, stopped_ns)

    def by_class(self) -> dict[str, int]:
        """All of it, under its class; empty when there is nothing."""
        total = sum(self._booked.values())
        return {"recursion": total} if total else {}

    def _book(self, programs: Mapping[str, Mapping[str, Any]], now_ns: int) -> list[Loss]:
        found = []
        for event, facts in programs.items():
            n = int(facts["lost"] or 0) - self._booked.get(event, 0)
            if n > 0:
                self._booked[event] = self._booked.get(event, 0) + n
                table = _TABLES.get(event.split(":")[0], "mm_events")
                found.append(Loss(table, None, self._since_ns, now_ns, n, "recursion"))
        self._since_ns = now_ns
        return found


def kernel_losses(counters: Mapping[str, Any]) -> dict[str, int]:
    """Loss by class as the rings' programs counted it, for comparison with the ``loss`` table."""
    by_class: dict[str, int] = {}
    lanes = [(ring, c) for ring, cpus in counters.items() for of_cpu in cpus.values() for c in of_cpu.values()]
    for ring, counted in lanes:
        for counter, cls in {**COUNTER_CLASSES, "stack_errors": "stack"}.items():
            if counted.get(counter):
                name = "stack" if ring == "stack" else cls
                by_class[name] = by_class.get(name, 0) + int(counted[counter])
    return by_class


def closing_notes(closing: Mapping[str, Any]) -> list[str]:
    """What the reader of a trace should know of its end. Raises KeyError, TypeError for a damaged frame."""
    notes = []
    programs = closing["programs"]
    uncounted = [event for event, facts in programs.items() if facts["lost"] is None]
    if uncounted:
        notes.append(f"events inside other programs are not counted here: {', '.join(uncounted)}")
    twice = sum(max(0, facts["nested"] - (facts["recursion_misses"] or 0)) for facts in programs.values())
    if twice:
        notes.append(f"{twice} events inside other programs may be recorded twice")
    for cpu, reason in closing.get("refused_cpus", {}).items():
        notes.append(f"CPU {cpu} came online and got no ring, its events are lost: {reason}")
    return notes


class CostAccount:
    """What recording cost; compiling and attaching the programs, and reading the page map once, are told apart, since
    they do not grow with the events."""

    def __init__(self, *, live: bool) -> None:
        """``live``: this process's CPU is part of what the capture costs."""
        self._live = live
        self._writer_then = cpu_seconds()
        self._startup_s = 0.0

    def start(self, collector_seconds: float) -> None:
        """The gate opens; the collector has used so much CPU."""
        self._writer_then = cpu_seconds()
        self._startup_s = collector_seconds

    def writer_seconds(self) -> float:
        """CPU of this process since the gate opened."""
        return cpu_seconds() - self._writer_then

    def result(self, closing: Mapping[str, Any], duration_ns: int, events: int) -> dict[str, Any]:
        """``metadata.self_cost``. Raises KeyError, ValueError for a damaged frame."""
        writer_s = self.writer_seconds() if self._live else 0.0
        collector = dict(closing["cost"])
        collector["startup_cpu_seconds"] = self._startup_s
        once_s = self._startup_s + float(collector.get("page_map_cpu_seconds") or 0.0)
        recording_s = float(collector["cpu_seconds"]) - once_s + writer_s
        cost = {
            "duration_ns": duration_ns,
            "events": events,
            "collector": collector,
            "cpu_ns_per_event": recording_s * 1e9 / events if events else None,
            "programs": dict(closing["programs"]),
        }
        if self._live:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            cost["writer"] = {"pid": os.getpid(), "cpu_seconds": writer_s, "max_rss_bytes": peak}
        return cost


def named_error(value: Mapping[str, Any]) -> CaptureError:
    """The error that an ERROR frame names; CollectorError for a name that is none of capture's."""
    kind = getattr(errors, str(value.get("error")), CollectorError)
    if not (isinstance(kind, type) and issubclass(kind, CaptureError)):
        kind = CollectorError
    return kind(str(value.get("message", "the collector failed")), hint=value.get("hint") or None)


def cpu_seconds() -> float:
    """CPU of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
