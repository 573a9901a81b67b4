# SPDX-License-Identifier: GPL-2.0-only
"""State of the allocator as /proc shows it, as raw text: the reader parses."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

FILES = {
    "buddyinfo": "/proc/buddyinfo",
    "pagetypeinfo": "/proc/pagetypeinfo",
    "zoneinfo": "/proc/zoneinfo",
    "meminfo": "/proc/meminfo",
    "vmstat": "/proc/vmstat",
}
"""In the order of reading; a snapshot of phase ``end`` reads them the other way round, so that vmstat, from
which unseen pages are reckoned, is read next to the events."""

SLOW_NS = 5_000_000
"""A pagetypeinfo that takes longer is read at start and end only: it walks the free lists, up to 100,000
blocks each, under the zone lock, and then visits every pageblock (``pagetypeinfo_show``, mm/vmstat.c)."""


class SnapshotTaker:
    """Snapshots at start, at the end, just after the first call of ``due`` and every ``every_s`` seconds then."""

    def __init__(self, every_s: float, root: Path = Path("/")) -> None:
        self._every_ns = int(every_s * 1e9)
        self._root = root
        self._next_ns = 0
        self._slowest_ns = 0
        """The longest read of pagetypeinfo so far."""
        self._said: set[tuple[str, str]] = set()

    def due(self, now_ns: int) -> bool:
        """Whether a tick should be taken, by CLOCK_MONOTONIC: at once when asked for the first time, which is
        when the events begin to flow, and then every ``every_s``; never when that is 0."""
        return self._every_ns > 0 and now_ns >= self._next_ns

    def take(self, phase: str) -> dict[str, Any]:
        """The JSON of a SNAPSHOT frame: ``phase``, ``files`` (name: text), ``read_ns`` (name: CLOCK_MONOTONIC
        when it had been read) and ``errors`` (name: why it is missing; each reason is said once)."""
        if phase == "tick":
            self._next_ns = time.monotonic_ns() + self._every_ns
        # vmstat's zone counters lag by up to a second per CPU. Refused without the permission, and by kernels
        # that find a counter below zero: it has folded them even then.
        with contextlib.suppress(OSError):
            (self._root / "proc/sys/vm/stat_refresh").write_text("1\n")
        files: dict[str, str] = {}
        read_ns: dict[str, int] = {}
        errors: dict[str, str] = {}
        for name in reversed(list(FILES)) if phase == "end" else FILES:
            if name == "pagetypeinfo" and phase == "tick" and self._slowest_ns > SLOW_NS:
                errors[name] = (
                    f"left out between start and end: reading it took {self._slowest_ns / 1e6:.1f} ms, "
                    "partly under the zone lock"
                )
                continue
            begin = time.monotonic_ns()
            try:
                text = (self._root / FILES[name][1:]).read_text()
            except (OSError, UnicodeDecodeError) as error:
                errors[name] = getattr(error, "strerror", None) or str(error)
                continue
            read_ns[name] = time.monotonic_ns()
            if name == "pagetypeinfo":
                self._slowest_ns = max(self._slowest_ns, read_ns[name] - begin)
            if name == "meminfo":
                text = "".join(line for line in text.splitlines(keepends=True) if line.startswith("DirectMap"))
            files[name] = text
        new = {name: reason for name, reason in errors.items() if (name, reason) not in self._said}
        self._said.update(new.items())
        return {"phase": phase, "files": files, "read_ns": read_ns, "errors": new}


def take_snapshot(phase: str, root: Path = Path("/")) -> dict[str, Any]:
    """One snapshot, by itself."""
    return SnapshotTaker(0.0, root).take(phase)
