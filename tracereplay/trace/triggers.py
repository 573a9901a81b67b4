"""Triggers: events that end a capture, or freeze a flight recorder, by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.errors import ProbeUnavailableError, UsageError, nearest
from tracereplay.trace.schema import PAGE_KINDS

_TRIGGERS = {"alloc_failed": ("page", "kmem:mm_page_alloc"), "extfrag": ("buddy", "kmem:mm_page_alloc_extfrag")}
"""Name -> group of events it is found in, tracepoint."""
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Trigger:
    """What ends a capture by itself: an event, or with ``rate`` so many of them within a second."""

    name: str
    rate: int | None = None

    def __str__(self) -> str:
        return self.name if self.rate is None else f"{self.name}={self.rate}"


@dataclass(frozen=True, slots=True)
class Fired:
    """A trigger and the time, trace clock, of the event that met it."""

    trigger: Trigger
    ts_ns: int


def parse_triggers(texts: Sequence[str], groups: Sequence[str]) -> tuple[Trigger, ...]:
    """Triggers from ``alloc_failed`` and ``extfrag=RATE`` (events per second).

    Raises UsageError for another name or form, and for one whose event group is not recorded.
    """
    found = []
    for text in texts:
        name, equals, value = text.strip().partition("=")
        if name not in _TRIGGERS:
            guess = nearest(name, list(_TRIGGERS))
            raise UsageError(
                f"no trigger {name!r}",
                hint=(f"did you mean {guess!r}? " if guess else "") + "triggers: alloc_failed, extfrag=RATE",
            )
        rate = None
        if name == "extfrag":
            if not value.isdecimal() or int(value) < 1:
                raise UsageError(
                    f"trigger {text!r} needs a rate in events/s", hint="for example --freeze-on extfrag=100"
                )
            rate = int(value)
        elif equals:
            raise UsageError(f"trigger {name!r} takes no value, {text!r} has one", hint=f"--freeze-on {name}")
        group = _TRIGGERS[name][0]
        if group not in groups:
            raise UsageError(
                f"trigger {name!r} is found in the events of group {group!r}, which is not recorded",
                hint=f"add the group: --events {','.join([*groups, group])}",
            )
        found.append(Trigger(name, rate))
    return tuple(found)


class Triggers:
    """Looks for triggers in the batches that are written. The first one that fires counts."""

    def __init__(self, triggers: Sequence[Trigger]) -> None:
        self.triggers = tuple(triggers)
        self._recent: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def check_events(self, events: Sequence[str]) -> None:
        """Raises ProbeUnavailableError for a trigger whose tracepoint is not recorded: it could never fire."""
        for trigger in self.triggers:
            event = _TRIGGERS[trigger.name][1]
            if event not in events:
                raise ProbeUnavailableError(
                    f"--freeze-on {trigger} needs {event}, which this host does not give",
                    hint="see `tracereplay doctor`",
                )

    def look(self, table: str, columns: Mapping[str, pa.Array]) -> Fired | None:
        """The first trigger that these rows of ``page_events`` meet."""
        if table != "page_events" or not self.triggers:
            return None
        kinds = columns["kind"].indices.to_numpy()
        fired = []
        for trigger in self.triggers:
            kind = "alloc_failed" if trigger.rate is None else "extfrag"
            rows = np.flatnonzero(kinds == PAGE_KINDS.index(kind))
            if len(rows):
                times = columns["ts_ns"].to_numpy()[rows]
                at = int(times[0]) if trigger.rate is None else self._dense(times, trigger.rate)
                if at is not None:
                    fired.append(Fired(trigger, at))
        return min(fired, key=lambda f: f.ts_ns, default=None)

    def _dense(self, times: npt.NDArray[np.int64], rate: int) -> int | None:
        """Time of the first event that is the ``rate``-th within one second."""
        known = np.concatenate([self._recent, times])
        self._recent = known[max(0, len(known) - rate + 1) :] if rate > 1 else known[:0]
        if len(known) < rate:
            return None
        met = np.flatnonzero(known[rate - 1 :] - known[: len(known) - rate + 1] < _SECOND)
        return int(known[rate - 1 + met[0]]) if len(met) else None
