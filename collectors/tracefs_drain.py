# SPDX-License-Identifier: GPL-2.0-only
"""From the buffers of an ftrace instance to FTRACE frames: whole pages, none of their events looked at.

Of each page only the two flag bits of its header are looked at, all pages of a read in one slice.
"""

from __future__ import annotations

import time
from typing import Any

from collectors import hostfacts
from collectors.output import Output
from collectors.protocol import FrameType, frame_header, json_frame
from collectors.tracefs_grace import Grace
from collectors.tracefs_instance import Instance

BATCH_BYTES = 1 << 20
"""Read from one CPU at a time."""
MAX_BATCHES = 8
"""Batches of one CPU in a step, before the others get their turn."""
_COMMIT_AT = 8
_FLAGS_AT = 11
"""Most significant byte of the little-endian word that holds a page's fill and flags."""
_MISSED = 0x80
_STORED = 0x40
_USED_MASK = 0x3FFFFFFF
LAZY = 16
"""Quiet buffers are looked at this many times less often."""
BUSY_SHARE = 1 / 64
"""Of a buffer: what a step may find before steps come more often."""


class PageDrain:
    """Reads the buffers. ``wait_ns`` says when to come again."""

    def __init__(self, instance: Instance, output: Output, grace: Grace, drain_ms: float) -> None:
        self._instance = instance
        self._output = output
        self._grace = grace
        self._page = instance.page_bytes
        self._size = int(instance.get("buffer_size_kb").split()[0]) * 1024
        count = max(1, BATCH_BYTES // self._page)
        self._space = memoryview(bytearray(count * self._page))
        self._pages = [self._space[i * self._page : (i + 1) * self._page] for i in range(count)]
        self._sent_floor = 0
        """Every event with a smaller time has been sent."""
        self._step_ns = int(drain_ms * 1e6)
        self.wait_ns = self._step_ns
        self.high_water = 0
        """Most bytes that a buffer was found to hold."""
        self.lost = False
        """Whether anything was overwritten so far."""
        self._fill = 0.0
        self._read: dict[int, int] = {}
        """CPU -> pages."""
        self._cost = (time.monotonic_ns(), float(hostfacts.own_cost()["cpu_seconds"]))

    def step(self) -> bool:
        """Send what the buffers hold. Whether there was anything."""
        floor = self._grace.floor_ns
        most = 0
        whole = True
        for cpu in self._instance.cpus:
            got, emptied = self._drain_cpu(cpu)
            most = max(most, got)
            whole = whole and emptied
        if whole:
            self._sent_floor = max(self._sent_floor, floor)
        self.high_water = max(self.high_water, most)
        self._fill = max(self._fill, most / self._size)
        self._pace(most)
        return most > 0

    def rest(self) -> None:
        """Send what is left in the stopped instance."""
        while self.step():
            pass

    def _pace(self, most: int) -> None:
        """Come back soon when buffers fill, seldom when they do not: a page is read for each CPU that has a single
        event."""
        if most > self._size * BUSY_SHARE:
            self.wait_ns = max(self._step_ns, self.wait_ns // 2) if most < self._size / 8 else self._step_ns
        else:
            self.wait_ns = min(self._step_ns * LAZY, self.wait_ns * 2)

    def _drain_cpu(self, cpu: int) -> tuple[int, bool]:
        """Bytes that came, and whether the buffer has nothing more."""
        got = 0
        lost = False
        emptied = False
        for _ in range(MAX_BATCHES):
            count = self._instance.read(cpu, self._pages)
            if count:
                lost = lost or self._has_lost(count)
                self._send(cpu, count)
                got += count * self._page
                self._read[cpu] = self._read.get(cpu, 0) + count
            if count < len(self._pages):
                emptied = True
                break
        if lost:
            self.lost = True
            self._tell_loss(cpu, emptied)
        return got, emptied

    def _has_lost(self, count: int) -> bool:
        return max(bytes(self._space[_FLAGS_AT : count * self._page : self._page])) >= _MISSED

    def _send(self, cpu: int, count: int) -> None:
        """Pages go out whole, but for the last one: that of a quiet buffer is nearly empty."""
        last = (count - 1) * self._page
        word = int.from_bytes(self._space[last + _COMMIT_AT : last + _COMMIT_AT + 4], "little")
        used = self._instance.data_at + (word & _USED_MASK) + (8 if word >> 24 & _STORED else 0)
        length = last + min(used, self._page)
        header = frame_header(FrameType.FTRACE, length, cpu=cpu, mono_ns=self._sent_floor)
        self._output.send([header, self._space[:length]])

    def _tell_loss(self, cpu: int, emptied: bool) -> None:
        """Send the counters of a buffer that lost something. They say what the pages did not, if nothing can have been
        overwritten since it was empty: it is not full again."""
        stats = self._instance.stats(cpu)
        certain = emptied and stats.get("bytes", self._size) < self._size // 2
        now = time.monotonic_ns()
        value: dict[str, Any] = {"event": "overrun", "ftrace": {str(cpu): stats}, "emptied": [str(cpu)] * certain}
        self._output.send([json_frame(FrameType.STATUS, value, mono_ns=now)])

    def drained(self) -> dict[str, dict[str, int]]:
        """Pages sent so far, per CPU."""
        return {"ftrace": {str(cpu): pages for cpu, pages in self._read.items()}}

    def take_fill(self) -> float:
        """The largest share of a buffer found filled since the last call."""
        told, self._fill = self._fill, 0.0
        return told

    def overhead(self) -> float:
        """Share of a core that this process used since the last call."""
        now, cpu = time.monotonic_ns(), float(hostfacts.own_cost()["cpu_seconds"])
        then, before = self._cost
        if now - then < 100_000_000:
            return 0.0
        self._cost = (now, cpu)
        return (cpu - before) * 1e9 / (now - then)
