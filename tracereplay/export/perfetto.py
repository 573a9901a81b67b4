"""A timeline for ui.perfetto.dev and chrome://tracing, in the Trace Event Format's JSON.

Format: "Trace Event Format", Google, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
(JSON object form; phases M, C, i, X, b and e). Times are microseconds since the trace's first event, with three
decimals. Written as it is read: memory does not grow with the trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

from tracereplay import __version__

if TYPE_CHECKING:
    from tracereplay.analysis.view import View

PAGES, LOST, DEVICES = 10_000_000, 10_000_001, 20_000_000
"""Process ids of tracks that are no tasks: above every pid (``PID_MAX_LIMIT``, include/linux/threads.h, is 2^22)."""

BINS = 1000
"""Steps of a counter over the time that is looked at."""


@dataclass(slots=True)
class Timeline:
    """What was written."""

    counts: dict[str, int] = field(default_factory=dict)
    """Of what, in words, how many."""
    notes: list[str] = field(default_factory=list)


class Events:
    """The array of events, as it is written."""

    def __init__(self, out: BinaryIO, origin_ns: int) -> None:
        self._out = out
        self._origin_ns = origin_ns
        self._first = True

    def us(self, ts_ns: int) -> str:
        """A time of the trace clock as the format has it; not before its origin."""
        ns = max(0, ts_ns - self._origin_ns)
        return f"{ns // 1000}.{ns % 1000:03}"

    def write(self, events: Iterable[str]) -> int:
        """Append events, each a JSON object; how many."""
        written = 0
        for event in events:
            self._out.write(b"\n" if self._first else b",\n")
            self._first = False
            self._out.write(event.encode())
            written += 1
        return written

    def name_process(self, pid: int, name: str, place: int) -> None:
        """Name a group of tracks, and say where it stands."""
        self.write((
            _named("process_name", pid, 0, {"name": name}),
            _named("process_sort_index", pid, 0, {"sort_index": place}),
        ))  # fmt: skip

    def name_thread(self, pid: int, tid: int, name: str) -> None:
        """Name a track."""
        self.write((_named("thread_name", pid, tid, {"name": name}),))


def _named(what: str, pid: int, tid: int, args: dict[str, Any]) -> str:
    return json.dumps({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}, separators=(",", ":"))


@lru_cache(maxsize=1 << 16)
def text(value: object) -> str:
    """A value as JSON."""
    return json.dumps(value, allow_nan=False)


def arguments(args: Mapping[str, Any]) -> str:
    """What is known of some arguments, as a JSON object."""
    known = (f"{text(k)}:{v if type(v) is int else text(v)}" for k, v in args.items() if v is not None)
    return f"{{{','.join(known)}}}"


def write_timeline(view: View, out: BinaryIO) -> Timeline:
    """Write what a view keeps: pages as counters and instants by CPU, I/Os as slices by device, stalls as slices by
    task, and where events were lost.

    Raises MissingTableError, TruncatedTraceError.
    """
    from tracereplay.export.perfetto_ios import write_ios
    from tracereplay.export.perfetto_tracks import write_losses, write_pages, write_stalls

    done = Timeline()
    out.write(b'{"traceEvents":[')
    events = Events(out, view.origin_ns)
    for write in (write_pages, write_ios, write_stalls, write_losses):
        write(view, events, done)
    identity = view.trace.identity()
    about = {
        "exporter": f"tracereplay {__version__}",
        "trace": identity["id"],
        "kernel": identity["kernel"],
        "clock": view.trace.metadata.clock.get("name"),
        "origin_ns": view.origin_ns,
        "selection": view.selection.to_json(),
        "complete": identity["complete"],
    }
    tail = f'\n],"displayTimeUnit":"ns","otherData":{json.dumps(about, allow_nan=False)}}}\n'
    out.write(tail.encode())
    return done
