"""Whether a demand stream keeps its contract (demand/stream.py), checked operation by operation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracereplay.demand.stream import (
    ALLOC,
    FIRST,
    FREE,
    FREE_INITIAL,
    MAX_REQUEST_PAGES,
    OF_BIO,
    PIECE,
    DemandInfo,
)


@dataclass
class Seen:
    """A request as it came: keys in order."""

    ts: int
    cpu: int
    caller: int
    gfp: int
    pages: int
    flags: int
    keys: list[int]
    extents: list[int]
    """Order of each extent."""


@dataclass
class Checked:
    requests: list[Seen] = field(default_factory=list)
    freed: int = 0
    initial: int = 0
    live: set[int] = field(default_factory=set)
    pieces: list[tuple[int, int, int]] = field(default_factory=list)
    """Of each request that is a piece of a bio: its place in ``requests``, the bio, the pieces to come."""


def check_stream(batches: Iterable[np.ndarray[Any, Any]], info: DemandInfo) -> Checked:
    """Consume a stream; AssertionError names the operation that breaks the contract."""
    found = Checked()
    ever: set[int] = set()
    last_ts = None
    piece: tuple[int, int] | None = None
    for batch in batches:
        open_request: Seen | None = None
        for op in batch.tolist():
            ts, key, gfp, pages, caller, cpu, flags, kind, order, _mt, _ = op
            assert last_ts is None or ts >= last_ts, f"time runs backwards: {op}"
            assert 0 <= cpu < info.cpus
            last_ts = ts
            keys = range(key, key + (1 << order))
            assert keys.start >= 0
            assert keys.stop <= info.frames or kind == PIECE, f"key out of range: {op}"
            if piece is not None:
                assert kind == ALLOC, f"a piece without its request: {op}"
                assert flags & (FIRST | OF_BIO) == FIRST | OF_BIO, f"a piece of no bio: {op}"
                found.pieces.append((len(found.requests), *piece))
                piece = None
            if open_request is not None and len(open_request.keys) < open_request.pages:
                assert kind == ALLOC, f"request not contiguous before {op}"
                assert not flags & FIRST, f"request not complete before {op}"
            if kind == ALLOC:
                if flags & FIRST:
                    assert 0 < pages <= MAX_REQUEST_PAGES
                    open_request = Seen(ts, cpu, caller, gfp, pages, flags, [], [])
                    found.requests.append(open_request)
                else:
                    assert open_request is not None, f"extent without a request: {op}"
                    assert pages == 0
                    same = (open_request.ts, open_request.cpu, open_request.caller, open_request.gfp)
                    assert same == (ts, cpu, caller, gfp)
                    assert flags == open_request.flags & ~FIRST
                for k in keys:
                    assert k not in found.live, f"key {k} is live already: {op}"
                    found.live.add(k)
                    ever.add(k)
                open_request.keys += keys
                open_request.extents.append(order)
                assert len(open_request.keys) <= open_request.pages, f"extents exceed the request: {op}"
            elif kind == FREE:
                for k in keys:
                    assert k in found.live, f"key {k} is not live: {op}"
                    found.live.remove(k)
                found.freed += len(keys)
            elif kind == PIECE:
                assert pages >= 0
                piece = key, pages
            else:
                assert kind == FREE_INITIAL, f"unknown kind: {op}"
                for k in keys:
                    assert k < info.recorded_frames
                    assert k not in ever, f"page {k} was seen before: {op}"
                    ever.add(k)
                found.initial += len(keys)
        if open_request is not None:
            assert len(open_request.keys) == open_request.pages, "a request straddles batches"
    return found
