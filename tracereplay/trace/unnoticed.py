"""Frees that a capture missed although nothing was counted as lost: the page frames' own events prove them.

Every free fires ``mm_page_free`` (page-allocator.md 6.1), and a frame that was allocated as a block of order 0 is freed
as one before it can be handed out again. So a frame that two allocations of order 0 name in a row, without a free
between, lacks an event there. Where a loss that is known already covers the time, that is what took it; else it is
booked here. One cause is known: a kernel may run no BPF program at all in the context of certain tasks, so what an
interrupt does on top of those (RCU callbacks that free page tables) leaves neither a record nor a miss that the kernel
would count.

It is a lower bound: a frame that is not handed out again proves nothing, and neither do blocks of higher orders,
which may be split and freed in parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.trace.decode import Loss
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.trace.unseen import PAGE_FILTERS, column_values

CLASS = "unnoticed"
_ALLOC, _FREE = (PAGE_KINDS.index(k) for k in ("alloc", "free"))
_NEEDED = {"kmem:mm_page_alloc", "kmem:mm_page_free"}

_CHUNK_BITS = 16
_CHUNKS = 1 << 20
"""Chunks of 2^16 frames: 256 TiB of memory in pages of 4 KiB. Frames above are left out."""
_TICK_BITS = 20
"""Times of allocations are kept in units of 2^20 ns, "ticks": 52 days in 32 bits."""
_INDEX_BITS = 27
_LATE_NS = 5_000_000_000
"""A loss may become known so much later than events after it: a CPU tells of a gap with its next event."""
_MOST_SPANS = 4096
"""Known losses are kept as so many spans of time; more are joined where they are closest."""

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]


class _Frames:
    """What is known of each page frame; memory for those chunks only that were named."""

    def __init__(self) -> None:
        self._slots = np.zeros(0, np.int64)
        """Chunk -> where its frames begin; 0: nowhere."""
        self._used = 1
        self.since = np.zeros(1 << _CHUNK_BITS, np.uint32)
        """1 + ticks of the allocation that holds it, as a block of order 0; 0: none is known to."""

    def places(self, frames: I64) -> I64:
        """Where the frames are in the arrays."""
        chunks = frames >> _CHUNK_BITS
        top = int(chunks.max()) + 1
        if top > len(self._slots):
            self._slots = np.concatenate([self._slots, np.zeros(top - len(self._slots), np.int64)])
        slots = self._slots[chunks]
        if not slots.all():
            for chunk in np.unique(chunks[slots == 0]):
                self._slots[chunk] = self._used << _CHUNK_BITS
                self._used += 1
            size = self._used << _CHUNK_BITS
            if size > len(self.since):
                more = size + size // 4 - len(self.since)
                self.since = np.concatenate([self.since, np.zeros(more, np.uint32)])
            slots = self._slots[chunks]
        places: I64 = slots | (frames & ((1 << _CHUNK_BITS) - 1))
        return places


class UnnoticedFrees:
    """Watches the page events of a capture as they are written; times in ns of the trace clock."""

    def __init__(self) -> None:
        self._watching = False
        self._base_ns: int | None = None
        self._frames = _Frames()
        self._found: list[tuple[I64, I64]] = []
        """Missing frees that wait for news of losses: not before, not after."""
        self._last_ns = 0
        self._spans: list[tuple[int, int]] = []
        """Known losses, by start, none touching another."""

    def begin(self, events: list[str], filters: Mapping[str, Any]) -> None:
        """What the capture records; nothing is watched where it leaves page events out on purpose."""
        self._watching = set(events) >= _NEEDED and not any(filters.get(name) for name in PAGE_FILTERS)

    def sampled(self, keep_one_in: int) -> None:
        """From now on one caller in so many is recorded: what was known of frames is void."""
        self._watching = self._watching and keep_one_in == 1

    def lost(self, loss: Loss) -> None:
        """A loss that is known. Those of other tables and of stacks are none of page events."""
        if loss.table not in ("page_events", "all") or loss.cls in ("stack", CLASS):
            return
        t0 = 0 if loss.t0_ns is None else loss.t0_ns
        t1 = 1 << 62 if loss.t1_ns is None else loss.t1_ns
        self._spans.append((t0, t1))
        if len(self._spans) > 2 * _MOST_SPANS:
            self._join()

    def events(self, batch: pa.RecordBatch) -> None:
        """Page events in time order, not before those of the last call. (A batch of bulk calls alone has no frames.)"""
        if not self._watching or not batch.num_rows or "pfn" not in batch.schema.names:
            return
        # Neither kind has a null in these columns.
        codes, orders, frames, ts = (
            column_values(column)
            for column in (batch.column("kind").indices, *(batch.column(name) for name in ("order", "pfn", "ts_ns")))
        )
        self._last_ns = int(ts[-1])
        is_alloc = codes == _ALLOC
        single = np.flatnonzero((is_alloc | (codes == _FREE)) & (orders == 0))
        for at in range(0, len(single), 1 << _INDEX_BITS):
            rows = single[at : at + (1 << _INDEX_BITS)]
            self._watch(frames[rows].view(np.int64), is_alloc[rows], ts[rows])

    def _watch(self, frames: I64, is_alloc: npt.NDArray[np.bool_], ts: I64) -> None:
        if self._base_ns is None:
            self._base_ns = int(ts[0])
        if frames.view(np.uint64).max() >= _CHUNKS << _CHUNK_BITS:
            sound = frames.view(np.uint64) < _CHUNKS << _CHUNK_BITS
            frames, is_alloc, ts = frames[sound], is_alloc[sound], ts[sound]
            if not len(frames):
                return
        # Frame and row in one integer: sorting integers is several times faster than sorting indices.
        key = frames << _INDEX_BITS
        key |= np.arange(len(frames))
        key.sort()
        rows = key & ((1 << _INDEX_BITS) - 1)
        key >>= _INDEX_BITS
        edges = np.flatnonzero(key[1:] != key[:-1])
        starts, ends = np.append(0, edges + 1), np.append(edges, len(key) - 1)
        places = self._frames.places(key[starts])
        allocated = is_alloc[rows]
        before = np.empty_like(allocated)
        before[1:] = allocated[:-1]
        since = self._frames.since[places]
        before[starts] = since != 0
        twice = np.flatnonzero(allocated & before)
        if len(twice):
            when = ts[rows]
            earlier = np.append(0, when[:-1])
            earlier[starts] = ((since.astype(np.int64) - 1) << _TICK_BITS) + self._base_ns
            self._found.append((earlier[twice], when[twice]))
        last = rows[ends]
        self._frames.since[places] = (((ts[last] - self._base_ns) >> _TICK_BITS) + 1) * is_alloc[last]

    def settle(self, *, all_of_it: bool = False) -> list[Loss]:
        """What is missing and no known loss explains, in groups: those that may have gone at one instant are a row,
        and taken to have gone in the time that they have in common: what is missed is missed in bursts. ``all_of_it``:
        no more is coming; else the last seconds wait."""
        if not self._found:
            return []
        t0 = np.concatenate([part[0] for part in self._found])
        t1 = np.concatenate([part[1] for part in self._found])
        due = np.ones(len(t1), np.bool_) if all_of_it else t1 < self._last_ns - _LATE_NS
        self._found = [] if due.all() else [(t0[~due], t1[~due])]
        open_ = due & ~self._explained(t0, t1)
        return _groups(t0[open_], t1[open_])

    def _explained(self, t0: I64, t1: I64) -> npt.NDArray[np.bool_]:
        self._join()
        if not self._spans:
            return np.zeros(len(t0), np.bool_)
        starts, ends = np.array(self._spans, np.int64).T
        at = np.searchsorted(ends, t0)
        reached = np.append(starts, np.iinfo(np.int64).max)[at] <= t1
        return np.asarray(reached, np.bool_)

    def _join(self) -> None:
        joined: list[tuple[int, int]] = []
        for t0, t1 in sorted(self._spans):
            if joined and t0 <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], t1))
            else:
                joined.append((t0, t1))
        if len(joined) > _MOST_SPANS:
            apart = sorted(b[0] - a[1] for a, b in pairwise(joined))
            near = apart[len(joined) - _MOST_SPANS]
            spans, joined = joined, joined[:1]
            for span in spans[1:]:
                if span[0] - joined[-1][1] <= near:
                    joined[-1] = (joined[-1][0], span[1])
                else:
                    joined.append(span)
        self._spans = joined


def _groups(t0: I64, t1: I64) -> list[Loss]:
    """Rows of table ``loss``, by their ends."""
    found: list[Loss] = []
    order = np.argsort(t1, kind="stable")
    starts, ends = t0[order], t1[order]
    at = 0
    while at < len(ends):
        # All that began before the first of them ended have an instant in common.
        later = np.flatnonzero(starts[at:] > ends[at])
        stop = at + int(later[0]) if len(later) else len(ends)
        found.append(Loss("page_events", None, int(starts[at:stop].max()), int(ends[at]), stop - at, CLASS))
        at = stop
    return found
