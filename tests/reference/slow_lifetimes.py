"""Page lifetimes, slow and obvious: a dict of frames, one page at a time. The oracle of tracereplay.demand.lifetime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.reference.slow_demand import Event


@dataclass(frozen=True, order=True)
class PageLife:
    """One page; -1 where an end or a fact is not known."""

    frame: int
    t_free: int
    t_alloc: int
    how: str
    alloc_cpu: int
    free_cpu: int
    pid: int
    gfp: int


@dataclass
class Free:
    """A frame known not to be allocated: at least since when, and where it was last."""

    released: int
    since: int
    cpu: int


def slow_lifetimes(events: Sequence[Event], losses: Sequence[tuple[int, int]] = ()) -> Iterator[PageLife]:
    """Lifetimes of single pages, in order of their end; then those that are live."""
    start = events[0].ts - 1
    owner: dict[int, Event] = {}
    free: dict[int, Free] = {}
    for e in events:
        if e.kind == "alloc":
            for f in e.frames:
                if f in owner:  # its free was not seen
                    old = owner[f]
                    yield PageLife(f, -1, old.ts, "broken", old.cpu, -1, old.pid, old.gfp)
                owner[f] = e
                free.pop(f, None)
        elif e.kind == "free":
            for f in e.frames:
                if f in owner:
                    old = owner.pop(f)
                    yield PageLife(f, e.ts, old.ts, "complete", old.cpu, e.cpu, old.pid, old.gfp)
                elif f not in free:
                    yield PageLife(f, e.ts, -1, "left_censored", -1, e.cpu, -1, -1)
                else:
                    known = free[f]
                    lost = any(t0 < e.ts and t1 > known.since for t0, t1 in losses)
                    yield PageLife(f, e.ts, -1, "broken" if lost else "unseen", known.cpu, e.cpu, -1, -1)
                free[f] = Free(e.ts, e.ts, e.cpu)
        elif e.kind in ("zone_locked", "drain"):
            for f in e.frames:
                if f not in owner:
                    ts = free[f].released if f in free else start
                    free[f] = Free(ts, ts + (e.ts - ts) // 1024 * 1024, e.cpu)
    for f, old in sorted(owner.items()):
        yield PageLife(f, -1, old.ts, "right_censored", old.cpu, -1, old.pid, old.gfp)
