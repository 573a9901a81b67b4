"""What events tell of the state before them, slow and obvious: dicts by frame and by pageblock, one rule at a time.

Written from page-allocator.md 2 to 4 and 7 and not from the compiled pass: the oracle for ``initial_scan`` and
``initial_free``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IN_USE, BUDDY, PCP = "in use", "buddy", "pcp"
TOP, PAGEBLOCK = 10, 512


@dataclass
class Rules:
    """What depends on the generation."""

    exact_types: bool
    """Since 6.10 a block on a buddy list is on that of its pageblock's type."""
    pcp_orders: int
    thp_lists: int

    def held(self, order: int) -> bool:
        """Whether blocks of this order lie on per-CPU lists."""
        return order < self.pcp_orders or (order == 9 and self.thp_lists > 0)


@dataclass
class Told:
    """What the events tell."""

    first: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Frame -> its state before the events, and when it was first named."""
    popped: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(frame, order, list's type, CPU) of blocks allocated from a list that was filled before, in order."""
    drained: list[tuple[int, int, int, int]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    """Blocks as they left the buddy lists, those first named by that."""
    cut_from: dict[int, int] = field(default_factory=dict)
    """First frame of a run -> order of the block that it was cut from."""
    types: dict[int, int] = field(default_factory=dict)
    """Pageblock -> its type at the start, named by an event."""
    listed: dict[int, int] = field(default_factory=dict)
    """Pageblock -> type of a list on which a part of it lay."""


def told(events: Iterable[Mapping[str, Any]], rules: Rules, zone: range, cpus: int, frames: int) -> Told:
    """Go through the events. Keys as in table page_events, absent where null. ``frames``: those of the machine."""
    found = Told()
    freed_on: dict[int, tuple[int, int]] = {}
    """Frame -> (CPU, order) where its last event is that a block was freed from there."""
    retyped: set[int] = set()
    mixed: set[int] = set()
    runs: dict[int, tuple[int, int]] = {}

    def name(pfn: int, order: int, state: str, ts: int) -> int:
        block = range(pfn, pfn + (1 << order))
        fresh = [p for p in block if p not in found.first]
        for p in fresh:
            found.first[p] = (state, ts)
        for p in block:
            freed_on.pop(p, None)
        return len(fresh)

    def type_is(pfn: int, order: int, mt: int | None, sure: bool) -> None:
        if mt is None or mt > 5:
            return
        for block in {p // PAGEBLOCK for p in (pfn, pfn + (1 << order) - 1)}:
            if block not in retyped and (sure or block not in mixed):
                (found.types if sure else found.listed).setdefault(block, mt)

    def run(pfn: int, order: int, mt: int | None) -> None:
        if pfn not in zone or mt is None or mt > 7:
            return
        start, after = runs.get(mt, (0, -1))
        end = pfn + (1 << order)
        aligned = next((1 << k for k in range(TOP, -1, -1) if start % (1 << k) == 0), 1) if start else 0
        if after != pfn or end > start + aligned:
            start = pfn
        runs[mt] = (start, end)
        found.cut_from[start] = next(k for k in range(TOP + 1) if 1 << k >= end - start)

    for event in events:
        kind, cpu, ts = event["kind"], event["cpu"], event["ts_ns"]
        pfn, order, mt = event.get("pfn", 0), event.get("order", 0), event.get("migratetype")
        if kind == "extfrag":
            order = event.get("alloc_order", 0)
        if kind in ("alloc_failed", "bulk") or order > TOP or pfn + (1 << order) > frames:
            continue
        new = pfn not in found.first
        if kind == "free":
            name(pfn, order, IN_USE, ts)
            freed_on[pfn] = (cpu, order)
        elif kind == "free_batched":
            found.first.setdefault(pfn, (IN_USE, ts))
        elif kind == "alloc":
            if mt is None:
                mt = event.get("gfp", 0) >> 3 & 3
            if new and rules.held(order) and pfn in zone and cpu < cpus and mt < 3:
                if name(pfn, order, PCP, ts) == 1 << order:
                    found.popped.append((pfn, order, mt, cpu))
            else:
                same = freed_on.get(pfn) == (cpu, order) and rules.held(order)
                one_list = order == 9 and (rules.thp_lists == 1 or mt != 1)
                without_list = mt == 1 and found.types.get(pfn // PAGEBLOCK, 0) >= 3
                if same and not one_list and not without_list:
                    type_is(pfn, order, mt, True)
                name(pfn, order, BUDDY, ts)
            if new and rules.held(order):
                type_is(pfn, order, mt, False)
        elif kind == "zone_locked":
            if new:
                found.taken.append(pfn)
                run(pfn, order, mt)
            name(pfn, order, BUDDY, ts)
            type_is(pfn, order, mt, rules.exact_types or (mt or 0) >= 3)
        elif kind == "drain":
            on = 1 if mt is None or mt >= 3 else mt
            if new and pfn in zone and cpu < cpus:
                if name(pfn, order, PCP, ts) == 1 << order:
                    found.drained.append((pfn, order, on, cpu))
            else:
                name(pfn, order, BUDDY, ts)
            type_is(pfn, order, mt, rules.exact_types or (mt or 0) >= 3)
        elif kind == "extfrag":
            if new:
                found.taken.append(pfn)
            name(pfn, order, BUDDY, ts)
            whole = 10 if event.get("fallback_order") == 10 else 9
            base = pfn >> whole << whole
            type_is(base, whole, event.get("fallback_migratetype", 0), rules.exact_types)
            for block in {base // PAGEBLOCK, (base + (1 << whole) - 1) // PAGEBLOCK}:
                if event.get("change_ownership"):
                    retyped.add(block)
                elif not rules.exact_types:
                    mixed.add(block)
    return found


def settled(
    found: Told, page_map: Sequence[Mapping[str, Any]], read: Mapping[int, int]
) -> tuple[set[int], list[tuple[int, int, int, int]]]:
    """Frames in the buddy lists at the start, and the blocks on CPU lists, the head first.

    ``read``: pageblock -> when the map had been read there.
    """
    states = {p: state for p, (state, _) in found.first.items()}
    for row in page_map:
        for p in range(row["pfn"], row["pfn"] + row["pages"]):
            if p in found.first and found.first[p][1] < read[p // PAGEBLOCK]:
                continue
            if row["kind"] == "buddy":
                states[p] = BUDDY
            elif states.get(p) != PCP:
                states[p] = IN_USE
    lists = [
        entry
        for entry in [*found.popped, *reversed(found.drained)]
        if all(states[p] == PCP for p in range(entry[0], entry[0] + (1 << entry[1])))
    ]
    return {p for p, state in states.items() if state == BUDDY}, lists


def merged(frames: set[int], zone: range, may_merge: Any) -> set[tuple[int, int]]:
    """(frame, order) of free pages after merging them one by one as far as it goes (``__free_one_page``)."""
    blocks = {(p, 0) for p in frames if p in zone}
    for order in range(TOP):
        for pfn, _ in sorted(b for b in blocks if b[1] == order):
            low = pfn & ~(1 << order)
            halves = {(low, order), (low + (1 << order), order)}
            mixed = order >= 9 and not may_merge(low // PAGEBLOCK, (low + (1 << order)) // PAGEBLOCK)
            if pfn == low and halves <= blocks and not mixed:
                blocks -= halves
                blocks.add((low, order + 1))
    return blocks
