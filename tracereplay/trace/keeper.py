"""Keeps a running capture within its bounds: closes files on time, watches size, disk and triggers, asks for the end.

A capture that meets one of its bounds ends in order: the collector is asked to stop, what is in its rings is
written, the trace is complete, and its reason says which bound it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from tracereplay.errors import StorageError
from tracereplay.trace.flight import FlightRecorder
from tracereplay.trace.partwriter import storage
from tracereplay.trace.triggers import Fired, Trigger, Triggers
from tracereplay.trace.writer import TraceWriter

ROTATE_NS = 60_000_000_000
"""Files are closed at least once a minute: what a crash can cost."""
MIN_FREE_BYTES = 64 << 20
FREEZE_AFTER_NS = 5_000_000_000
SILENCE_NS = 1_000_000_000
"""A time that a status frame tells is passed on so much later: events before it may be on their way."""
TAIL_BYTES = 1 << 20
"""Set aside for what is written after the end was asked for: the last snapshot, tasks, stacks ..."""
TAIL_S = 0.5
"""... and what comes in so long at the rate so far: rings and frames on their way."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a capture may not go beyond, and what ends it."""

    rotate_ns: int = ROTATE_NS
    max_bytes: int | None = None
    """Size of the bundle on disk. A flight recorder drops its oldest files instead of ending."""
    min_free_bytes: int = MIN_FREE_BYTES
    """Free space that is left on the disk, whoever uses it up."""
    window_ns: int | None = None
    """Flight recorder: keep the last so many ns."""
    triggers: tuple[Trigger, ...] = ()
    freeze_after_ns: int = FREEZE_AFTER_NS
    """How long to go on after a trigger."""

    @property
    def aftermath_ns(self) -> int:
        """From a trigger to the end: at most half the window of a flight recorder, so that it holds the trigger."""
        return self.freeze_after_ns if self.window_ns is None else min(self.freeze_after_ns, self.window_ns // 2)


class Keeper:
    """Watches one recording. ``stop`` asks its collector for the end, and may be called again."""

    def __init__(self, writer: TraceWriter, bounds: Bounds, stop: Callable[[], None]) -> None:
        self.reason = ""
        """Why the end was asked for here; empty: it was not."""
        self.flight: FlightRecorder | None = None
        if bounds.window_ns is not None:
            self.flight = FlightRecorder(writer, bounds.window_ns, bounds.max_bytes)
        self.on_cut: Callable[[FlightRecorder | None], None] | None = None
        """Called when files were closed on time: what is kept in memory can be written too."""
        self._writer = writer
        writer.on_rows = self._on_rows
        self._bounds = bounds
        self._stop = stop
        self._triggers = Triggers(bounds.triggers)
        self._fired: Fired | None = None
        self._rotated_ns: int | None = None
        self._first_ns: int | None = None
        self._now_ns = 0
        self._started_ns = 0

    def ask(self, reason: str) -> None:
        """Ask for the end. The first reason stays. May be called from a signal handler."""
        self.reason = self.reason or reason
        self._stop()

    # ------------------------------------------------------------ what the recording tells
    def on_hello(self, events: Sequence[str]) -> None:
        """Raises ProbeUnavailableError for a trigger that can never fire."""
        self._triggers.check_events(events)

    def on_started(self, started_ns: int) -> None:
        """Recording begins: times of triggers are told from here."""
        self._started_ns = started_ns

    def _on_rows(self, table: str, columns: Mapping[str, pa.Array]) -> None:
        """These rows have just been written."""
        if self.flight is not None:
            self.flight.on_rows(table, columns)
        if self._fired is None:
            self._fired = self._triggers.look(table, columns)

    def on_time(self, now_ns: int) -> None:
        """Every event before ``now_ns`` (trace clock) that is not lost has been written. Raises StorageError."""
        self._now_ns = max(self._now_ns, now_ns)
        if self._first_ns is None:
            self._first_ns = self._now_ns
        cut = self.flight.on_time(self._now_ns) if self.flight is not None else self._rotate()
        if cut and self.on_cut is not None:
            self.on_cut(self.flight)
        if self.reason:
            return
        if self._fired is not None and self._now_ns >= self._fired.ts_ns + self._bounds.aftermath_ns:
            self.ask(f"{self._fired.trigger} at {self._when(self._fired.ts_ns)}")
        self._check_size()
        self._check_disk()

    @property
    def from_ns(self) -> int | None:
        """From here on the trace holds everything and, where a snapshot was taken later, the state of the allocator;
        None: from the start."""
        return None if self.flight is None else self.flight.state_ns or self.flight.from_ns

    @property
    def lost_before(self) -> int:
        """Events lost before that."""
        return 0 if self.flight is None else sum(self.flight.dropped_loss.values())

    def close(self, reason: str, now_ns: int = 0) -> str:
        """Before the trace is finished or given up: freeze the flight recorder. Why it ended, in words.

        ``reason`` is the collector's own; ``now_ns``: when recording stopped. Raises StorageError.
        """
        self._now_ns = max(self._now_ns, now_ns)
        reason = self.reason or reason
        if self.flight is not None:
            trigger: dict[str, Any] = {}
            if self._fired is not None:
                trigger = {"trigger": str(self._fired.trigger), "ts_ns": self._fired.ts_ns}
                trigger["utc"] = self._utc(self._fired.ts_ns)
            self.flight.freeze(self._now_ns, reason, trigger)
        return reason

    # ------------------------------------------------------------ inner
    def _rotate(self) -> bool:
        if self._rotated_ns is None:
            self._rotated_ns = self._now_ns
        if self._now_ns - self._rotated_ns < self._bounds.rotate_ns:
            return False
        self._writer.rotate()
        self._rotated_ns = self._now_ns
        return True

    def _check_size(self) -> None:
        limit = self._bounds.max_bytes
        if limit is None or self.flight is not None:
            return
        tail = min(self._tail(), limit // 2)
        if self._writer.finished_bytes + self._writer.open_bytes + tail >= limit and not self._weighed(limit // 16):
            self.ask("max-size")

    def _check_disk(self) -> None:
        floor = self._bounds.min_free_bytes
        if not floor or free_bytes(self._writer.path) - self._writer.gathering_bytes - self._tail() >= floor:
            return
        if not self._weighed(TAIL_BYTES):
            self.ask("min-free-disk")

    def _tail(self) -> int:
        """What is written between the request for the end and the end."""
        seconds = max(1.0, (self._now_ns - (self._first_ns or self._now_ns)) / 1e9)
        rate = (self._writer.finished_bytes + self._writer.open_bytes) / seconds
        return TAIL_BYTES // 4 + int(rate * (TAIL_S + self._lag_s()))

    def _lag_s(self) -> float:
        """How far writing is behind the host that is captured; 0 where its clock is another one."""
        metadata = self._writer.metadata
        if not self._started_ns or metadata.clock.get("name") != "monotonic" or "via" in metadata.source:
            return 0.0
        return max(0.0, (time.monotonic_ns() - self._now_ns) / 1e9)

    def _weighed(self, enough: int) -> bool:
        """Whether much of what seems to be there gathered in memory, and has now been written to see its size."""
        if self._writer.gathering_bytes <= enough:
            return False
        self._writer.rotate()
        return True

    def _when(self, ts_ns: int) -> str:
        after = (ts_ns - self._started_ns) / 1e9
        utc = self._utc(ts_ns)
        return f"{utc}, {after:.3f} s after the start" if utc else f"{after:.3f} s after the start"

    def _utc(self, ts_ns: int) -> str | None:
        """Wall-clock time by the clock triple of the start; None where there is none."""
        triples = self._writer.metadata.clock.get("triples")
        if not triples or self._writer.metadata.clock.get("name") != "monotonic":
            return None
        mono, _, real = triples[0]
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=(ts_ns - mono + real) // 1000)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def free_bytes(path: Path) -> int:
    """Free space where a path is or will be. Raises StorageError."""
    while not path.exists() and path != path.parent:
        path = path.parent
    with storage(path):
        found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def check_space(path: Path, bounds: Bounds) -> None:
    """Raises StorageError for a capture that its own floor would end at once."""
    free = free_bytes(path.absolute())
    if bounds.min_free_bytes and free - TAIL_BYTES < bounds.min_free_bytes:
        raise StorageError(
            f"{free >> 20} MiB free at {path}, and the capture would end at {bounds.min_free_bytes >> 20} MiB",
            hint="write to another disk, free some space, or lower --min-free-disk",
        )
