"""Block events for tests: a made-up stack of devices that knows what it did, and a way to write events as a trace."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.trace_samples import metadata, rows_batch
from tracereplay import Trace, TraceWriter

DISK, DM = 8 << 20, 253 << 20


def write_bios(
    path: Path, events: Sequence[Mapping[str, Any]], losses: Sequence[tuple[int, int]] = (), **tables: Any
) -> Trace:
    """Bio events, and rows of other tables, as a trace."""
    with TraceWriter(path, metadata(events=[])) as writer:
        if events:
            writer.write("bio_events", rows_batch("bio_events", events))
        for table, rows in tables.items():
            writer.write(table, rows_batch(table, rows))
        for t0, t1 in losses:
            lost = {"t0_ns": t0, "t1_ns": t1, "table": "bio_events", "cpu": 0, "n": 1, "class": "ring_full"}
            writer.write("loss", rows_batch("loss", [lost]))
    return Trace.open(path)


@dataclass
class Stack:
    """dm over a disk: bios are split, remapped, merged, requeued, completed in parts. ``truth``: by order of queueing,
    (dev, sector, nr_sectors, q_ns, d_ns, c_ns, parent, splits, merged)."""

    seed: int
    bios: int = 40
    events: list[dict[str, Any]] = field(default_factory=list)
    truth: list[dict[str, Any]] = field(default_factory=list)
    now: int = 1000

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        waiting = [self._queue(DM, 64 * n, self.random.choice([8, 16, 32]), None) for n in range(self.bios)]
        while waiting:
            batch = [waiting.pop(0) for _ in range(min(len(waiting), self.random.randint(1, 4)))]
            for upper in batch:
                self._down(upper)

    def emit(self, kind: str, dev: int, sector: int, sectors: int | None, **more: Any) -> int:
        """An event, now."""
        self.now += self.random.randint(1, 50)
        row = {"ts_ns": self.now, "cpu": self.random.randint(0, 3), "kind": kind, "dev": dev, "sector": sector}
        self.events.append({**row, "nr_sectors": sectors, "op": "W", "flags": "WS", "pid": 7, **more})
        return self.now

    def _queue(self, dev: int, sector: int, sectors: int, parent: int | None) -> int:
        q = self.emit("queue", dev, sector, sectors)
        row = {"dev": dev, "sector": sector, "nr_sectors": sectors, "q_ns": q, "d_ns": None, "c_ns": None}
        self.truth.append({**row, "parent_id": parent, "splits": 0, "merged": False})
        return len(self.truth) - 1

    def _down(self, upper: int) -> None:
        """An I/O of dm: cut into parts, each remapped, queued below, merged into requests and done."""
        row = self.truth[upper]
        start, end = row["sector"], row["sector"] + row["nr_sectors"]
        cuts = [at for at in range(start + 8, end, 8) if self.random.random() < 0.4]
        for at in cuts:
            self.emit("split", DM, at, None, new_sector=at)
            row["splits"] += 1
        parts = list(zip([start, *cuts], [*cuts, end], strict=True))
        if self.random.random() < 0.5:
            self.random.shuffle(parts)
        lower = []
        for a, b in parts:
            t = self.emit("remap", DISK, a + 2048, b - a, old_dev=DM, old_sector=a)
            row["d_ns"] = row["d_ns"] or t
            lower.append(self._queue(DISK, a + 2048, b - a, upper))
        for request in self._requests(sorted(lower, key=lambda n: self.truth[n]["sector"])):
            self._serve(request)
        row["c_ns"] = self.emit("bio_complete", DM, parts[0][0] if len(parts) == 1 else end - 8, None)
        self.events[-1]["nr_sectors"] = end - self.events[-1]["sector"]

    def _requests(self, lower: list[int]) -> list[list[int]]:
        """Bios next to each other, merged or not."""
        made = [[lower[0]]]
        for n in lower[1:]:
            if self.random.random() < 0.6:
                self.emit("backmerge", DISK, self.truth[n]["sector"], self.truth[n]["nr_sectors"])
                self.truth[n]["merged"] = True
                made[-1].append(n)
            else:
                made.append([n])
        return made

    def _serve(self, bios: list[int]) -> None:
        start = self.truth[bios[0]]["sector"]
        end = self.truth[bios[-1]]["sector"] + self.truth[bios[-1]]["nr_sectors"]
        self.emit("insert", DISK, start, end - start)
        issued = self.emit("issue", DISK, start, end - start)
        if self.random.random() < 0.3:
            if self.random.random() < 0.5:
                self.emit("requeue", DISK, start, end - start)
            issued = self.emit("issue", DISK, start, end - start)
        at = start
        while at < end:
            to = end if self.random.random() < 0.7 else min(end, at + 8 * self.random.randint(1, 3))
            t = self.emit("complete", DISK, at, to - at, error=0)
            at = to
            for n in bios:
                row = self.truth[n]
                row["d_ns"] = issued
                if row["c_ns"] is None and row["sector"] + row["nr_sectors"] <= at:
                    row["c_ns"] = t
