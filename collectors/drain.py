# SPDX-License-Identifier: GPL-2.0-only
"""From the kernel's rings to frames, in place, and what the collector itself has to know of the records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from collectors.layout import RING_HEADER, Ring
from collectors.output import Output
from collectors.protocol import FrameType, frame_header
from collectors.rings import MappedRing


class Drain:
    """Sends what the rings hold. Records of the page and bio rings are never looked at."""

    def __init__(self, rings: tuple[Ring, ...], readers: Mapping[tuple[int, int], MappedRing], output: Output) -> None:
        self._rings = rings
        self._readers = readers
        """(ring, CPU) -> reader; grows when CPUs come."""
        self._output = output
        self._watermark = 0
        self._limits: dict[tuple[int, int], int] = {}
        self.drained: dict[str, dict[str, int]] = {ring.name: {} for ring in rings}
        """ring name -> CPU -> records sent."""
        self.fill: dict[str, float] = {}
        """ring name -> largest share of a ring found filled since ``take_fill``."""
        self.addresses: set[int] = set()
        """Of all stacks and callers seen."""
        self.cgroups: set[int] = set()
        """Ids of all cgroups seen."""

    def step(self) -> bool:
        """Send what the rings hold, then hand the space back. Whether there was anything."""
        frames: list[Any] = []
        taken = []
        lowest = None
        for (ring, cpu), reader in self._readers.items():
            # The time first: what is not in the ring when it is looked at got its time stamp later than this.
            before = time.monotonic_ns()
            data, busy = reader.peek()
            # A busy record may carry a time from before; nothing is promised for this ring until it is
            # committed.
            limit = self._limits.get((ring, cpu), 0) if busy else before
            self._limits[ring, cpu] = limit
            lowest = limit if lowest is None else min(lowest, limit)
            if data is None:
                continue
            self._look(self._rings[ring], data)
            frames.append(
                frame_header(FrameType.BATCH, data.nbytes, ring=ring, cpu=cpu, mono_ns=limit, position=reader.position)
            )
            frames.append(data)
            taken.append((ring, cpu, reader, data.nbytes))
        if lowest is not None and lowest > self._watermark:
            self._watermark = lowest
        frames.append(frame_header(FrameType.WATERMARK, 0, mono_ns=self._watermark))
        self._output.send(frames)
        for ring, cpu, reader, count in taken:
            reader.advance(count)
            name = self._rings[ring].name
            of_ring = self.drained[name]
            of_ring[str(cpu)] = of_ring.get(str(cpu), 0) + count // reader.stride
            self.fill[name] = max(self.fill.get(name, 0.0), count / reader.size)
        return bool(taken)

    def _look(self, ring: Ring, data: memoryview) -> None:
        """Gather what needs the host to be explained: cgroup ids and code addresses. These rings are slow."""
        if ring.name not in ("task", "stack", "bulk"):
            return
        words = data.cast("Q")
        step = ring.stride // 8
        at = {name: (RING_HEADER + offset) // 8 for name, offset in ring.offsets().items()}
        if ring.name == "task":
            self.cgroups.update(words[at["cgroup"] :: step].tolist())
        elif ring.name == "bulk":
            self.addresses.update(words[at["caller"] :: step].tolist())
        else:
            for first in range(at["frames"], len(words), step):
                self.addresses.update(words[first : first + step - at["frames"]].tolist())

    def take_fill(self) -> dict[str, float]:
        """The largest shares since the last call."""
        told, self.fill = self.fill, {}
        return told

    def high_water(self) -> dict[str, int]:
        """ring name -> largest fill of any CPU's ring so far, in bytes."""
        high: dict[str, int] = {}
        for (ring, _cpu), reader in self._readers.items():
            name = self._rings[ring].name
            high[name] = max(high.get(name, 0), reader.high_water)
        return high
