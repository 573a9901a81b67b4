"""Bios beside the page events: what tasks and interrupts did, and the cross-check of dm-crypt's requests.

One pass over the ``bio_events`` in step with the page events. It yields side events (state.SIDE) for the compiled
pass, follows WRITE bios on dm-crypt devices through splits (their *parts*: one buffer each), and matches requests
with parts afterwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tracereplay.demand.layers import Layers
from tracereplay.demand.path_bios import PathSource, Side, pages_of
from tracereplay.demand.state import ACTION, COMPLETION, PART_DONE, PARTS, SIDE, Array
from tracereplay.demand.stream import ALLOC, FIRST, OF_BIO, OP, PIECE
from tracereplay.trace.schema import BIO_KINDS

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

_COLUMNS = ["ts_ns", "cpu", "kind", "dev", "sector", "nr_sectors", "op", "pid", "old_dev", "old_sector", "new_sector"]
_CODE = {name: code for code, name in enumerate(BIO_KINDS)}
_QUEUE, _SPLIT, _REMAP = _CODE["queue"], _CODE["split"], _CODE["remap"]
_COMPLETE, _BIO_COMPLETE = _CODE["complete"], _CODE["bio_complete"]
_WHAT = np.full(len(BIO_KINDS), ACTION, np.uint8)
_WHAT[[_COMPLETE, _BIO_COMPLETE, _CODE["error"]]] = COMPLETION


class Part:
    """A piece of a WRITE bio for which dm-crypt takes one buffer."""

    __slots__ = ("bio", "dead", "dev", "done_ns", "end", "queued_ns", "start")

    def __init__(self, bio: Bio, dev: int, start: int, end: int, queued_ns: int) -> None:
        self.bio = bio
        self.dev = dev
        self.start = start
        self.end = end
        self.queued_ns = queued_ns
        self.done_ns: int | None = None
        self.dead = False


class Bio:
    """A WRITE bio on a dm-crypt device: its parts still to be matched."""

    __slots__ = ("number", "parts", "unmatched")

    def __init__(self, number: int) -> None:
        self.number = number
        self.parts: list[Part] = []
        self.unmatched = 0


class Crosscheck:
    """Requests of dm-crypt against the WRITE parts of its devices, first come first served by size."""

    def __init__(self) -> None:
        self.writes = 0
        self.matched = 0
        self.parts = 0
        self.matched_parts = 0
        self.requests = 0
        self.told: Callable[[Array, list[tuple[int, Part]]], None] | None = None
        """Is told operations, and at which of them a request begins that matches a part."""
        self._live: dict[int, list[Part]] = {}
        self._waiting: dict[int, deque[Part]] = {}

    def queue(self, dev: int, sector: int, sectors: int, ts: int) -> list[tuple[int, int]]:
        """A WRITE bio arrives; changes in the number of parts by pages."""
        bio = Bio(self.writes)
        self.writes += 1
        return [self._add(bio, dev, sector, sector + sectors, ts)]

    def _add(self, bio: Bio, dev: int, start: int, end: int, ts: int) -> tuple[int, int]:
        part = Part(bio, dev, start, end, ts)
        bio.parts.append(part)
        bio.unmatched += 1
        self.parts += 1
        self._live.setdefault(dev, []).append(part)
        n = pages_of(end - start)
        self._waiting.setdefault(n, deque()).append(part)
        return (n, 1)

    def split(self, dev: int, at: int) -> list[tuple[int, int]]:
        """The part around ``at`` is cut there."""
        live = self._live.get(dev, [])
        for k in range(len(live) - 1, -1, -1):
            part = live[k]
            if part.start < at < part.end:
                del live[k]
                part.dead = True
                part.bio.parts.remove(part)
                part.bio.unmatched -= 1
                self.parts -= 1
                return [
                    (pages_of(part.end - part.start), -1),
                    self._add(part.bio, dev, part.start, at, part.queued_ns),
                    self._add(part.bio, dev, at, part.end, part.queued_ns),
                ]
        return []

    def complete(self, dev: int, sector: int, sectors: int, ts: int) -> list[int]:
        """The bio with this range is complete (the event names its last part only); pages of its parts."""
        live = self._live.get(dev, [])
        end = sector + max(sectors, 1)
        for part in live:
            if part.start < end and sector < part.end:
                done = [p for p in part.bio.parts if p.done_ns is None]
                for p in done:
                    p.done_ns = ts
                self._live[dev] = [p for p in live if p.done_ns is None]
                return [pages_of(p.end - p.start) for p in done]
        return []

    def match(self, arrival_ns: int, pages: int) -> Part | None:
        """The part of a request of dm-crypt: the oldest of its size that was queued before it."""
        self.requests += 1
        waiting = self._waiting.get(pages)
        while waiting:
            part = waiting[0]
            if part.dead or (part.done_ns is not None and part.done_ns < arrival_ns):
                waiting.popleft()
                continue
            if part.queued_ns > arrival_ns:
                return None
            waiting.popleft()
            self.matched_parts += 1
            part.bio.unmatched -= 1
            if part.bio.unmatched == 0:
                self.matched += 1
            return part
        return None

    def mark(self, ops: Array, crypt: Array) -> Array:
        """Operations with OF_BIO set on dm-crypt's requests (``crypt``) that match, and PIECE put before pieces."""
        alloc, first = ops["kind"] == ALLOC, ops["flags"] & FIRST != 0
        rows = np.flatnonzero(alloc & first & crypt)
        found = np.zeros(len(ops), np.bool_)
        at, pieces = [], []
        matches = []
        for i, ts, pages in zip(rows.tolist(), *(ops[name][rows].tolist() for name in ("ts_ns", "pages")), strict=True):
            if part := self.match(ts, pages):
                found[i] = True
                matches.append((i, part))
                if len(part.bio.parts) > 1:
                    at.append(i)
                    pieces.append((part.bio.number, part.bio.unmatched))
        if self.told is not None and matches:
            self.told(ops, matches)
        starts = np.maximum.accumulate(np.where(alloc & first, np.arange(len(ops)), 0))
        ops["flags"][alloc & found[starts]] |= OF_BIO
        made = np.zeros(len(at), OP)
        made["kind"] = PIECE
        for name in ("ts_ns", "cpu"):
            made[name] = ops[name][at]
        made["pfn"], made["pages"] = np.array(pieces, np.int32).reshape(-1, 2).T
        return np.insert(ops, at, made)


class BioFeed:
    """Side events in step with the page events."""

    def __init__(self, trace: Trace, layers: Layers, path: PathSource | None) -> None:
        self.layers = layers
        self.check = Crosscheck()
        self.path = path
        self._tracked = set(layers.crypt) | (path.tracked if path else set())
        self._batches: Iterator[Any] = (
            iter(trace.batches("bio_events", _COLUMNS)) if trace.rows("bio_events") else iter(())
        )
        self._ready: Array = np.zeros(0, SIDE)
        self._ended = False

    def up_to(self, ts: int | None) -> Array:
        """Side events not taken yet that include all up to ``ts`` (None: all there are)."""
        while not self._ended and (ts is None or not len(self._ready) or self._ready["ts_ns"][-1] <= ts):
            batch = next(self._batches, None)
            if batch is None:
                self._ended = True
                made = _rows(self.path.finish() if self.path else [])
            else:
                made = self._convert(batch)
            self._ready = np.concatenate([self._ready, made]) if len(self._ready) else made
        return self._ready

    def taken(self, n: int) -> None:
        """The first ``n`` were worked through."""
        self._ready = self._ready[n:]

    def _convert(self, batch: Any) -> Array:
        from tracereplay.demand.columns import plain

        ts = plain(batch.column(0))
        kind = plain(batch.column(2).indices)
        side = np.zeros(len(ts), SIDE)
        side["ts_ns"] = ts
        side["cpu"] = plain(batch.column(1))
        side["pid"] = plain(batch.column(7))
        side["what"] = _WHAT[kind]
        if not self._tracked or not len(ts):
            return side
        op = batch.column(6)
        writes = np.array([bool(o) and o.startswith("W") for o in op.dictionary.to_pylist()] + [False])
        codes = plain(op.indices)
        valid = ~np.asarray(op.indices.is_null())
        is_write = valid & writes[np.where(valid, codes, len(writes) - 1)]
        dev = plain(batch.column(3))
        old = plain(batch.column(8))
        tracked = list(self._tracked)
        wanted = np.isin(dev, tracked) | ((kind == _REMAP) & np.isin(old, tracked))
        rows = np.flatnonzero(is_write & wanted)
        extra: list[Side] = []
        at: list[int] = []
        columns = [plain(batch.column(c))[rows].tolist() for c in (4, 5, 8, 9, 10, 7, 1)]
        for i, k, t, d, sector, sectors, old_dev, old_sector, cut, pid, cpu in zip(
            rows.tolist(), kind[rows].tolist(), ts[rows].tolist(), dev[rows].tolist(), *columns, strict=True
        ):
            made = self._check(k, t, d, sector, sectors, cut, pid, cpu) if d in self.layers.crypt else []
            if self.path is not None:
                self._follow(self.path, k, t, d, sector, sectors, old_dev, old_sector, pid, cpu)
                made += self.path.due(t)
            extra += made
            at += [i + 1] * len(made)
        if self.path is not None:
            made = self.path.due(int(ts[-1]))
            extra += made
            at += [len(side)] * len(made)
        if not extra:
            return side
        side = np.insert(side, at, _rows(extra))
        return side[np.argsort(side["ts_ns"], kind="stable")]

    def _check(
        self, kind: int, ts: int, dev: int, sector: int, sectors: int, cut: int, pid: int, cpu: int
    ) -> list[Side]:
        """An event on a dm-crypt device, for the cross-check of its requests."""
        if kind == _QUEUE and sectors:
            changes = self.check.queue(dev, sector, sectors, ts)
        elif kind == _SPLIT:
            changes = self.check.split(dev, cut)
        elif kind == _BIO_COMPLETE:
            return [(ts, n, 0, 0, pid, cpu, PART_DONE) for n in self.check.complete(dev, sector, sectors, ts)]
        else:
            return []
        return [(ts, n, change, 0, pid, cpu, PARTS) for n, change in changes]

    @staticmethod
    def _follow(
        path: PathSource,
        kind: int,
        ts: int,
        dev: int,
        sector: int,
        sectors: int,
        old_dev: int,
        old_sector: int,
        pid: int,
        cpu: int,
    ) -> None:
        path.advance(ts, pid, cpu)
        if kind == _QUEUE:
            path.queue(dev, sector, sectors, ts, pid, cpu)
        elif kind == _REMAP:
            path.remap(dev, sector, sectors, old_dev, old_sector)
        elif kind in (_COMPLETE, _BIO_COMPLETE):
            path.complete(dev, sector, sectors, ts, pid, cpu, kind == _BIO_COMPLETE)


def _rows(made: list[Side]) -> Array:
    rows = np.zeros(len(made), SIDE)
    for n, name in enumerate(("ts_ns", "a", "b", "c", "pid", "cpu", "what")):
        rows[name] = [m[n] for m in made]
    return rows
