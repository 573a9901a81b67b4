"""How complete a trace is: what every verb that shows a number says with it.

Cheap on purpose: metadata, manifest and the small tables ``loss`` and ``shed``, never a scan of events.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tracereplay.errors import TruncatedTraceError
from tracereplay.trace.schema import EVENT_TABLES

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

WIDTH = 80
_UNSEEN: tuple[str, ...] = ("unseen_pages", "noise_pages", "reason")
_NOT_RECORDED = "not recorded: "
"""How the notes of a capture begin that name an event it went without."""


@dataclass(frozen=True, slots=True)
class Shed:
    """Load left out on purpose, to keep within limits (table ``shed``)."""

    intervals: int
    seconds: float
    """Of the trace in which less was recorded."""
    sample: int
    """At the worst, page events of one caller in so many were recorded; 1: of all, only stacks were left out."""


@dataclass(frozen=True, slots=True)
class Completeness:
    """What a trace holds, and what it does not."""

    events: dict[str, int]
    """Rows by event table."""
    finished: bool
    """The capture or import ended in order."""
    lost: int | None
    """Events; None: some, nobody knows how many."""
    loss_intervals: int
    lost_by_class: dict[str, int | None]
    rejected: int = 0
    """Lines of the source that an importer could not use."""
    filters: dict[str, Any] = field(default_factory=dict)
    """What the capture was told to leave out in the kernel."""
    stack_sample: int = 1
    """Stacks were asked for of one event in so many."""
    shed: Shed | None = None
    flight: dict[str, Any] | None = None
    """A flight recorder's trace: the end of a longer run (``kept_s``, ``dropped_events``)."""
    unseen: dict[str, Any] | None = None
    """Pages allocated without an event, as the capture reckoned them: ``unseen_pages`` (None with a ``reason``),
    ``noise_pages``. None: not reckoned."""
    missing: int = 0
    """Kinds of events that were asked for and that this kernel did not give."""
    damaged: tuple[str, ...] = ()
    """Small tables that could not be read: what they would say is not known."""

    @property
    def whole(self) -> bool:
        """Every event of the recorded kinds from the first to the last is in the trace, for all that is known."""
        cut = self.flight is not None and bool(self.flight.get("dropped_events"))
        sampled = self.shed is not None and self.shed.sample > 1
        left_out = bool(self.rejected or self.filters) or sampled or cut
        return self.finished and self.lost == 0 and not left_out and not self.damaged

    def remarks(self) -> list[str]:
        """Short phrases, one for each thing that is missing; empty for a whole trace."""
        said: list[str] = []
        if not self.finished:
            said.append("INCOMPLETE, recording did not finish")
        if self.loss_intervals and "loss" not in self.damaged:
            said.append(self._lost())
        said += [f"table {name} is damaged" for name in self.damaged]
        if self.rejected:
            said.append(f"{self.rejected:,} input lines refused")
        return said + self.left_out()

    def left_out(self) -> list[str]:
        """Those of the phrases that name what was left out on purpose, or could not be had."""
        said: list[str] = []
        if self.filters:
            said.append("filtered by " + ", ".join(f"{name} {_value(v)}" for name, v in self.filters.items()))
        if self.shed is not None:
            what = f"1 caller in {self.shed.sample}" if self.shed.sample > 1 else "fewer stacks"
            said.append(f"load shed for {self.shed.seconds:,.1f} s ({what} at the worst)")
        if self.stack_sample > 1:
            said.append(f"stacks of 1 event in {self.stack_sample}")
        if self.flight is not None:
            said.append(self._flight())
        if self.missing:
            said.append(f"{self.missing} wanted {'event was' if self.missing == 1 else 'events were'} not recorded")
        return said

    def line(self) -> str:
        """All of it in one line: events, what is lost, what else is missing, pages unseen."""
        total = sum(self.events.values())
        parts = [f"{total:,} {'event' if total == 1 else 'events'}"]
        if not self.loss_intervals and "loss" not in self.damaged:
            parts.append("none lost")
        parts += self.remarks()
        unseen = self._unseen()
        return "; ".join([*parts, unseen] if unseen else parts)

    def text(self, width: int = WIDTH) -> str:
        """The line, named and wrapped for a terminal."""
        return textwrap.fill(
            f"completeness: {self.line()}",
            width,
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``whole`` and ``line`` sum them up, ``left_out`` is for cautions."""
        return {"whole": self.whole, "line": self.line(), "left_out": self.left_out(), **asdict(self)}

    def _lost(self) -> str:
        count = "an unknown number" if self.lost is None else f"{self.lost:,}"
        classes = ", ".join(
            name if n is None else f"{name} {n:,}" for name, n in self.lost_by_class.items() if name != "unknown"
        )
        where = f"{self.loss_intervals:,} interval{'' if self.loss_intervals == 1 else 's'}"
        return f"{count} lost in {where}" + (f" ({classes})" if classes else "")

    def _flight(self) -> str:
        assert self.flight is not None
        if not self.flight.get("dropped_events"):
            return "flight recorder, nothing dropped yet"
        kept, dropped = self.flight.get("kept_s"), self.flight["dropped_events"]
        span = "the last part" if kept is None else f"the last {kept:,.1f} s"
        return f"flight recorder: {span} of a longer run, {dropped:,} events dropped before"

    def _unseen(self) -> str:
        if self.unseen is None:
            return ""
        pages = self.unseen.get("unseen_pages")
        if pages is None:
            return f"pages without an event: not known ({self.unseen.get('reason', 'no reason given')})"
        noise = self.unseen.get("noise_pages")
        return f"{pages:,} pages without an event" + (f", give or take {noise:,}" if noise else "")


def completeness(trace: Trace) -> Completeness:
    """What a trace says of its own completeness.

    Damaged tables ``loss`` and ``shed`` are named in ``damaged``; events in damaged files still count, opening
    those says so.
    """
    meta = trace.metadata
    damaged: list[str] = []
    try:
        loss = trace.loss_summary()
    except TruncatedTraceError:
        damaged.append("loss")
        loss = {"lost": None, "intervals": 0, "by_class": {}}
    shed = None
    try:
        shed = _shed(trace)
    except TruncatedTraceError:
        damaged.append("shed")
    flight = meta.source.get("flight")
    unseen = {name: meta.unseen[name] for name in _UNSEEN if name in meta.unseen} if meta.unseen else None
    return Completeness(
        events={t: trace.rows(t) for t in EVENT_TABLES if trace.rows(t)},
        finished=trace.complete,
        lost=loss["lost"],
        loss_intervals=loss["intervals"],
        lost_by_class=loss["by_class"],
        rejected=int(meta.rejected.get("lines", 0)),
        filters=dict(meta.filters),
        stack_sample=int(meta.sampling.get("stack_sample", 1)),
        shed=shed,
        flight=None if flight is None else {n: flight.get(n) for n in ("kept_s", "dropped_events", "frozen_by")},
        unseen=unseen,
        missing=sum(note.startswith(_NOT_RECORDED) for note in meta.notes),
        damaged=tuple(damaged),
    )


def _shed(trace: Trace) -> Shed | None:
    """Sum of table ``shed``, within the time of the trace's events."""
    if not trace.rows("shed"):
        return None
    ends = [r for t in EVENT_TABLES if (r := trace.sort_range(t)) is not None]
    begin, end = (min(r[0] for r in ends), max(r[1] for r in ends)) if ends else (None, None)
    intervals, covered, sample = 0, 0, 1
    for batch in trace.batches("shed", ("t0_ns", "t1_ns", "sample")):
        for t0, t1, kept in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            first = t0 if begin is None else max(t0, begin)
            last = end if t1 is None else t1 if end is None else min(t1, end)
            intervals += 1
            covered += max(0, last - first) if last is not None else 0
            sample = max(sample, kept)
    return Shed(intervals, covered / 1e9, sample)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{k}={_value(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "|".join(str(v) for v in value)
    return str(value)
