"""A host small enough to know all about it, that emits the page events of a 6.12 kernel: traces whose start is known.

One zone of eight pageblocks, lists as plain Python lists, every rule a few lines: oracle for what a trace tells of its
start. Allocation never falls back to another type; a refill takes what there is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.trace_samples import metadata, rows_batch
from tracereplay.trace.snapshots import snapshot_batch, snapshot_rows
from tracereplay.trace.writer import TraceWriter

START, END, CPUS, TOP = 1024, 1024 + 4096, 2, 10
TYPE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
EVENTS = ["kmem:mm_page_alloc", "kmem:mm_page_free", "kmem:mm_page_alloc_zone_locked", "kmem:mm_page_pcpu_drain"]
Event = dict[str, Any]
CHUNKS = ((START, 1500), (START + 1500, END - START - 1500))
"""Parts in which the map is read: (first frame, frames). Their border lies within a pageblock."""


class Host:
    """The allocator: ``free[order, type]`` and ``pcp[cpu, order, type]`` with the head first, ``used`` blocks."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.types = {b: rng.choice((0, 1, 1, 1, 2)) for b in range(START >> 9, END >> 9)}
        self.free: dict[tuple[int, int], list[int]] = {(o, t): [] for o in range(TOP + 1) for t in range(3)}
        self.pcp: dict[tuple[int, int, int], list[int]] = {
            (c, o, t): [] for c in range(CPUS) for o in range(4) for t in range(3)
        }
        self.used: list[tuple[int, int]] = []
        self.now = 1000
        self.events: list[Event] = []
        self.retyped: set[int] = set()
        """Pageblocks that changed their type, with no event."""
        for pfn in range(START, END):
            self._give_back(pfn, 0)

    def _emit(self, kind: str, cpu: int, pfn: int, order: int, mt: int | None = None) -> None:
        self.now += self.rng.randint(1, 9)
        event: Event = {"ts_ns": self.now, "cpu": cpu, "kind": kind, "pfn": pfn, "order": order, "pid": 7}
        self.events.append(event if mt is None else event | {"migratetype": mt})

    def _give_back(self, pfn: int, order: int) -> None:
        """To the buddy lists, merged with free buddies; whole pageblocks take the type of what is freed."""
        mt = self.types[pfn >> 9]
        while order < TOP:
            buddy = pfn ^ 1 << order
            if buddy not in self.free[order, self.types.get(buddy >> 9, 0)]:
                break
            self.free[order, self.types[buddy >> 9]].remove(buddy)
            if order >= 9 and self.types[buddy >> 9] != mt:
                self.types[buddy >> 9] = mt
                self.retyped.add(buddy >> 9)
            pfn, order = min(pfn, buddy), order + 1
        self.free[order, mt].insert(0 if self.rng.random() < 0.7 else len(self.free[order, mt]), pfn)

    def _take(self, cpu: int, order: int, mt: int) -> int | None:
        """From the smallest list that has a block, cut down; zone_locked."""
        for o in range(order, TOP + 1):
            if self.free[o, mt]:
                pfn = self.free[o, mt].pop(0)
                for half in range(o - 1, order - 1, -1):
                    self.free[half, mt].insert(0, pfn + (1 << half))
                self._emit("zone_locked", cpu, pfn, order, mt)
                return pfn
        return None

    def alloc(self, cpu: int, order: int, mt: int) -> None:
        """One allocation."""
        pfn: int | None
        if order < 4:
            queue = self.pcp[cpu, order, mt]
            if not queue:
                for _ in range(self.rng.choice((2, 7, 15))):
                    if (got := self._take(cpu, order, mt)) is not None:
                        queue.append(got)
            pfn = queue.pop(0) if queue else None
        else:
            pfn = self._take(cpu, order, mt)
        if pfn is not None:
            self._emit("alloc", cpu, pfn, order, mt)
            self.used.append((pfn, order))

    def release(self, cpu: int) -> None:
        """Free some block, often the newest; sometimes in pieces."""
        if not self.used:
            return
        pfn, order = self.used.pop(-1 if self.rng.random() < 0.3 else self.rng.randrange(len(self.used)))
        if order and self.rng.random() < 0.2:
            self.used += [(pfn, order - 1), (pfn + (1 << order - 1), order - 1)]
            return
        self._emit("free", cpu, pfn, order)
        if order < 4:
            self.pcp[cpu, order, self.types[pfn >> 9]].insert(0, pfn)
        else:
            self._give_back(pfn, order)

    def drain(self, cpu: int) -> None:
        """A few blocks from the tails of a CPU's lists."""
        for key in self.rng.sample(sorted(k for k in self.pcp if k[0] == cpu), 3):
            for _ in range(self.rng.randint(0, 6)):
                if self.pcp[key]:
                    pfn = self.pcp[key].pop()
                    self._give_back(pfn, key[1])
                    self._emit("drain", cpu, pfn, key[1], key[2])

    def run(self, steps: int) -> None:
        """Random work."""
        orders = self.rng.choice(((0,), (0, 0, 0, 1, 3), (0, 2, 5, 9)))
        share = self.rng.choice((0.3, 0.5, 0.7))
        for _ in range(steps):
            cpu, what = self.rng.randrange(CPUS), self.rng.random()
            if what < 0.02:
                self.drain(cpu)
            elif what < share:
                self.alloc(cpu, self.rng.choice(orders), self.rng.choice((0, 1, 1, 1, 2)))
            else:
                self.release(cpu)

    def free_blocks(self) -> set[tuple[int, int]]:
        """(frame, order) of the blocks on the buddy lists."""
        return {(pfn, order) for (order, _), frames in self.free.items() for pfn in frames}

    def free_frames(self) -> set[int]:
        """Frames of those blocks."""
        return {p for pfn, order in self.free_blocks() for p in range(pfn, pfn + (1 << order))}

    def map_rows(self, part: tuple[int, int]) -> list[Event]:
        """The page map's rows of a part, read now."""
        free, rows = self.free_frames(), []
        for pfn in range(part[0], sum(part)):
            kind = "buddy" if pfn in free else ("slab" if self.types[pfn >> 9] == 0 else "anon")
            if rows and rows[-1]["kind"] == kind:
                rows[-1]["pages"] += 1
            else:
                rows.append({"pfn": pfn, "pages": 1, "kind": kind, "ts_ns": self.now})
        return rows

    def texts(self) -> dict[str, str]:
        """What /proc shows now."""
        by_order = [sum(len(f) for (o, _), f in self.free.items() if o == order) for order in range(TOP + 1)]
        lines = ["Page block order: 9", "Pages per block:  512", ""]
        for mt, name in enumerate(TYPE_NAMES):
            counts = [len(self.free.get((o, mt), ())) for o in range(TOP + 1)]
            lines.append(f"Node    0, zone   Normal, type {name:>12} {' '.join(map(str, counts))} ")
        blocks = [list(self.types.values()).count(mt) for mt in range(len(TYPE_NAMES))]
        lines += [
            "",
            f"Number of blocks type {' '.join(TYPE_NAMES)} ",
            f"Node 0, zone   Normal {' '.join(map(str, blocks))} ",
        ]
        pages = [sum(len(f) << o for (c, o, _), f in self.pcp.items() if c == cpu) for cpu in range(CPUS)]
        return {
            "buddyinfo": f"Node 0, zone   Normal {' '.join(map(str, by_order))} \n",
            "pagetypeinfo": "\n".join(lines),
            "zoneinfo": zoneinfo(len(self.free_frames()), pages),
        }


def zoneinfo(free: int, pcp: Sequence[int]) -> str:
    """/proc/zoneinfo of the zone."""
    zone = ["Node 0, zone   Normal", f"  pages free     {free}"]
    zone += [f"        {k:8} {v}" for k, v in (("min", 20), ("low", 25), ("high", 30))]
    zone += [f"        {k:8} {END - START}" for k in ("spanned", "present", "managed")]
    zone.append("  pagesets")
    for cpu, count in enumerate(pcp):
        zone += [
            f"    cpu: {cpu}",
            f"              count: {count}",
            "              high:  100",
            "              batch: 7",
        ]
    return "\n".join([*zone, f"  start_pfn:           {START}"])


def write_trace(
    path: Path,
    events: Sequence[Mapping[str, Any]],
    page_map: Sequence[Mapping[str, Any]] = (),
    snapshots: Sequence[tuple[int, str, Mapping[str, str]]] = (),
    release: str = "6.12.95",
    names: Sequence[str] = EVENTS,
) -> Path:
    """A trace of these rows; ``snapshots``: (time, phase, texts)."""
    host = {"release": release, "arch": "x86_64", "cpus": CPUS, "page_size": 4096}
    with TraceWriter(path, metadata(host=host, events=list(names))) as writer:
        for ts, phase, texts in snapshots:
            writer.write("snapshots", snapshot_batch(snapshot_rows(texts), ts, phase))
        if events:
            writer.write("page_events", rows_batch("page_events", events))
        if page_map:
            writer.write("page_map", rows_batch("page_map", page_map))
    return path


def recorded(seed: int, path: Path, steps: int = 250) -> tuple[Host, Path, Path]:
    """The host as it was when the events began, the trace of what followed, and the same without a page map.

    ``retyped`` of the host: what changed its type in the trace.
    """
    rng = random.Random(seed)
    host = Host(rng)
    for _ in range(3):
        host.run(150)
    host.events.clear()
    host.retyped.clear()
    before = (host.now - 5, "start", host.texts())
    start = Host.__new__(Host)
    start.__dict__ = {
        "types": dict(host.types),
        "free": {k: list(v) for k, v in host.free.items()},
        "pcp": {k: list(v) for k, v in host.pcp.items()},
        "used": list(host.used),
        "retyped": host.retyped,
    }
    page_map: list[Event] = []
    for part in CHUNKS:
        host.run(rng.randint(0, 60))
        host.now += 1
        page_map += host.map_rows(part)
        host.now += 1
    host.run(steps)
    with_map = write_trace(path / "with", host.events, page_map, [before])
    return start, with_map, write_trace(path / "without", host.events, (), [before])
