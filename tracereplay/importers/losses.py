"""What an ftrace text says about events it does not hold.

``CPU:3 [LOST 1020 EVENTS]`` (tracefs), ``CPU:3 [1020 EVENTS DROPPED]`` (trace-cmd) and ``PERF_RECORD_LOST lost 12``
(perf script --show-lost-events) stand where events of that CPU are missing, ``Lost 12
events`` (bpftrace) where events of some CPU are;
``# entries-in-buffer/entries-written: 9103/13846`` says that older events were overwritten in the ring.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from tracereplay.trace.schema import LOSS

_LOSS_LINE = re.compile(
    rb"CPU:\d+[\x00-\x20]*\[(?:LOST[\x00-\x20]+(?P<lost>\d+)[\x00-\x20]+EVENTS|LOST[\x00-\x20]+EVENTS"
    rb"|(?P<dropped>\d+)[\x00-\x20]+EVENTS[\x00-\x20]+DROPPED|EVENTS[\x00-\x20]+DROPPED)\][\x00-\x20]*$"
    rb"|PERF_RECORD_LOST[\x00-\x20]+lost[\x00-\x20]+(?P<perf>\d+)[\x00-\x20]*$"
)
_SOMEWHERE = re.compile(rb"Lost (\d+) events[\x00-\x20]*$")
_ENTRIES = re.compile(rb"^#\s*entries-in-buffer/entries-written:\s*(\d+)/(\d+)")


@dataclass(slots=True)
class LossInterval:
    """A row of ``loss`` for all tables."""

    cpu: int | None
    t0_ns: int | None
    t1_ns: int | None
    n: int | None
    loss_class: str


class LossTracker:
    """Collects intervals in the order of lines."""

    def __init__(self) -> None:
        self.intervals: list[LossInterval] = []
        self._open: dict[int, list[LossInterval]] = {}
        self._overwritten = 0

    def loss_line(self, text: bytes, cpu: int, t0_ns: int | None) -> bool:
        """Take a line that starts like those above; False when it says nothing of lost events."""
        match = _LOSS_LINE.match(text)
        if match is None:
            return False
        count = match["lost"] or match["dropped"] or match["perf"]
        n = int(count) if count is not None and int(count) < 2**64 else None
        interval = LossInterval(cpu, t0_ns, None, n, "reported")
        self.intervals.append(interval)
        self._open.setdefault(cpu, []).append(interval)
        return True

    def lost_somewhere(self, text: bytes, t0_ns: int | None, cpus: Iterable[int]) -> bool:
        """Take a line ``Lost 12 events`` of bpftrace, which names no CPU; False when it is none.

        The interval ends when each of ``cpus`` has had an event since.
        """
        match = _SOMEWHERE.match(text)
        if match is None:
            return False
        n = int(match[1])
        interval = LossInterval(None, t0_ns, None, n if n < 2**64 else None, "reported")
        self.intervals.append(interval)
        for cpu in cpus:
            self._open.setdefault(cpu, []).append(interval)
        return True

    def event_after(self, cpu: int, ts_ns: int) -> None:
        """The next event of a CPU ends its open intervals."""
        for interval in self._open.pop(cpu, ()):
            interval.t1_ns = ts_ns if interval.t1_ns is None else max(interval.t1_ns, ts_ns)

    def comment(self, text: bytes) -> None:
        """Take a comment line."""
        if match := _ENTRIES.match(text):
            self._overwritten += max(0, int(match[2]) - int(match[1]))

    def finish(self, started_ns: int | None) -> None:
        """End of the source. ``started_ns``: first event of the CPU that begins last, where all rings hold events."""
        if self._overwritten:
            self.intervals.insert(0, LossInterval(None, None, started_ns, self._overwritten, "overwritten"))

    def total(self) -> int | None:
        """Events lost; None when an interval does not say how many."""
        counts = [interval.n for interval in self.intervals]
        return None if None in counts else sum(n for n in counts if n is not None)

    def batch(self) -> pa.RecordBatch:
        """Rows of ``loss``."""
        columns = {
            "t0_ns": [i.t0_ns for i in self.intervals],
            "t1_ns": [i.t1_ns for i in self.intervals],
            "table": ["all"] * len(self.intervals),
            "cpu": [i.cpu for i in self.intervals],
            "n": [i.n for i in self.intervals],
            "class": [i.loss_class for i in self.intervals],
        }
        return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in LOSS], schema=LOSS)
