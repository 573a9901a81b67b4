"""What of a trace an analysis looks at: a stretch of time, tasks, CPUs, orders, devices."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

FILTERS = ("time", "pid", "comm", "cgroup", "cpu", "order", "device")
"""Names of the filters, as fields of :class:`Selection` and options of ``tracereplay analyze``."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters; an empty one keeps everything. Several values of one filter: any of them. Several filters: all of
    them."""

    time: tuple[int | None, int | None] = (None, None)
    """From, until (exclusive), in ns since the trace's first event; None: its end."""
    pid: tuple[int, ...] = ()
    """Thread ids."""
    comm: tuple[str, ...] = ()
    """Task names, as shell globs (``kworker*``)."""
    cgroup: tuple[str, ...] = ()
    """Control group paths, as shell globs."""
    cpu: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    """Orders of page events."""
    device: tuple[int, ...] = ()
    """Devices of bio events, ``major << 20 | minor``."""

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the filters that are set."""
        unset = Selection()
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != getattr(unset, f.name))

    def to_json(self) -> dict[str, Any]:
        """The filters that are set, as plain values."""
        return {name: list(getattr(self, name)) for name in self.used}
