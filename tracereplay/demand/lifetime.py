"""How long pages live: one row for each block that was released or is still live, streamed.

Columns: ``pfn order pages t_alloc_ns t_free_ns lifetime_ns alloc_cpu free_cpu pid gfp caller class stack_id``. Times
are those of the trace clock, in ns; what was not seen is null. A block that came back in pieces
gives a row per piece. ``class``:

- ``complete``: allocation and free were seen;
- ``left_censored``: live when the trace began; ``right_censored``: still live when it ended;
- ``broken``: one end was not seen although the trace was running (reuse without a free, or lost events);
- ``unseen``: the free proves an allocation without an event (bulk allocator); when it happened is not known.

Which free belongs to which allocation is decided by the same code as in demand (pairing.py).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from tracereplay.demand import lifetime_pass as lp
from tracereplay.demand.columns import PAGE_COLUMNS, PageBatch, page_batch
from tracereplay.demand.opening import frames_of, losses
from tracereplay.demand.sites import Sites
from tracereplay.demand.state import (
    BROKEN,
    CENSORING,
    COMPLETE,
    COUNTERS,
    HEAD,
    KEPT,
    NO_STACK,
    RIGHT_CENSORED,
    STATE_MASK,
    Array,
)
from tracereplay.errors import EmptyTraceError, TraceError
from tracereplay.trace.hosts import one_host

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

_names = pa.dictionary(pa.int8(), pa.string())
LIFETIMES = pa.schema(
    [
        pa.field("pfn", pa.uint64(), nullable=False),
        pa.field("order", pa.uint8(), nullable=False),
        pa.field("pages", pa.uint32(), nullable=False),
        pa.field("t_alloc_ns", pa.int64()),
        pa.field("t_free_ns", pa.int64()),
        pa.field("lifetime_ns", pa.int64()),
        pa.field("alloc_cpu", pa.uint16()),
        pa.field("free_cpu", pa.uint16()),
        pa.field("pid", pa.uint32()),
        pa.field("gfp", pa.uint32()),
        pa.field("caller", pa.dictionary(pa.int32(), pa.string())),
        pa.field("class", _names, nullable=False),
        pa.field("stack_id", pa.uint32()),
    ]
)


class Tagger(Protocol):
    """What lifetimes are grouped by."""

    @property
    def wants_stacks(self) -> bool:
        """Whether batches need their stacks."""

    @property
    def tags(self) -> int:
        """How many tags there are by now."""

    def __call__(self, batch: PageBatch) -> Array:
        """A tag (uint32) for every row; those of allocations count."""


Keep = Callable[[pa.RecordBatch], Array | None]
"""Which rows of a batch are wanted (bool), None: all. Frees are never asked about."""

BATCH_ROWS = 1 << 17
"""Rows worked on at a time: what is made of them stays in the cache."""
_NORESERVE = 0x4000
"""MAP_NORESERVE of mmap(2), which Python 3.11 does not name: pages that are never touched count nowhere."""


class Lives:
    """The lifetimes of a trace in the making: iterate ``ended`` once, then ``live``."""

    def __init__(
        self,
        trace: Trace,
        tagger: Tagger | None = None,
        *,
        keep: Keep | None = None,
        rows: bool = True,
        levels: bool = False,
        facts: bool = True,
    ) -> None:
        """``keep``: which allocations are wanted; then frees without a known allocation are not. ``rows``: False where
        only the levels are wanted. ``levels``: keep ``table.level``, the live pages of each tag.

        ``facts``: False where nobody asks for pid and gfp (they are 0 then), which a quarter of reading is for.

        Raises EmptyTraceError, TraceError (a frame table that memory cannot hold; the figure is in the message).
        Memory: 24 bytes a frame that the trace touches.
        """
        one_host(trace, "a lifetime")
        if not trace.rows("page_events"):
            raise EmptyTraceError(f"no page events in {trace.location}", hint="capture with --events page")
        self.trace = trace
        self.tagger = tagger
        self._stacks = tagger is not None and tagger.wants_stacks
        self._keep = keep
        self._levels = levels
        self._facts = facts or self._stacks
        found = trace.sort_range("page_events") or (0, 0)
        self.start_ns, self.end_ns = found
        cpus = 1 + (trace.bounds("page_events", "cpu") or (0, 0))[1]
        self.table = lp.new_table(_frames(trace), self.start_ns, losses(trace), cpus, rows=rows)
        self.table.scalar[lp.S_WHOLE] = keep is None

    # ------------------------------------------------------------ running
    def ended(
        self, edges: Sequence[int] = (), at_edge: Callable[[int], None] | None = None, *, events: int | None = None
    ) -> Iterator[lp.Rows]:
        """Lifetimes that ended, in order of their end, as views that hold until the next ones are asked for.

        ``at_edge(k)`` is called once all events before time ``edges[k]`` (ascending, ns) have been passed.
        ``events``: stop after so many.
        """
        k = 0
        left = self.trace.rows("page_events") if events is None else events
        names = [*PAGE_COLUMNS, "stack_id"] if self._stacks else PAGE_COLUMNS[: 7 if self._facts else 5]
        for raw in self.trace.batches("page_events", names, BATCH_ROWS):
            batch = page_batch(raw if self._facts else _without_facts(raw), stacks=self._stacks)
            tags = self.tagger(batch) if self.tagger else np.zeros(len(batch), np.uint32)
            self._make_room()
            keep = None if self._keep is None else self._keep(raw)
            mask = np.zeros(0, np.bool_) if keep is None else keep
            columns = (batch.ts, batch.cpu, batch.kind, batch.pfn, batch.order, batch.gfp, batch.pid, tags, mask)
            at, last = 0, min(len(batch), left)
            left -= last
            while at < last:
                stop = last
                if k < len(edges):
                    stop = min(last, int(np.searchsorted(batch.ts, edges[k])))
                at = lp.follow(self.table, *columns, at, stop) if stop > at else at
                if at < stop:
                    yield self._take()
                elif k < len(edges) and stop < last and at_edge:
                    at_edge(k)
                    k += 1
            if not left:
                break
            del raw, batch, columns, tags, mask, keep  # before the next one is read
        if self.table.scalar[lp.S_ROWS]:
            yield self._take()
        while k < len(edges) and at_edge:
            at_edge(k)
            k += 1

    def _make_room(self) -> None:
        """A level for every tag so far, and a second one, without which none is kept."""
        n = 1 + (self.tagger.tags if self.tagger else 1)
        if self._levels and n > len(self.table.level):
            level = np.zeros(2 * n, np.int64)
            level[: len(self.table.level)] = self.table.level
            self.table = self.table._replace(level=level)

    def _take(self) -> lp.Rows:
        n = int(self.table.scalar[lp.S_ROWS])
        self.table.scalar[lp.S_ROWS] = 0
        return self.table.rows.first(n)

    def live(self) -> Iterator[lp.Rows]:
        """Wanted blocks that are live now, as right-censored rows, by frame."""
        for base in (np.flatnonzero(self.table.touched) << lp.LOOK).tolist():
            part = self.table.frames[base : base + (1 << lp.LOOK)]
            state = part["state"]
            at = np.flatnonzero((state & (STATE_MASK | KEPT)) == HEAD | KEPT)
            if len(at):
                head = part[at]
                none = np.full(len(at), -1, np.int64)
                yield lp.Rows(
                    t_alloc=head["ts"],
                    t_free=none,
                    pfn=at + base,
                    pid=head["pid"],
                    gfp=head["gfp"],
                    tag=head["tag"],
                    alloc_cpu=head["cpu"],
                    free_cpu=none.astype(np.int16),
                    order=head["order"],
                    how=np.full(len(at), RIGHT_CENSORED, np.uint8),
                )

    # ------------------------------------------------------------ results
    @property
    def counts(self) -> dict[str, int]:
        """Accounting so far, by the names of state.COUNTERS."""
        return dict(zip(COUNTERS, self.table.counts.tolist(), strict=True))


def lifetimes(trace: Trace) -> Iterator[pa.RecordBatch]:
    """Lifetimes of a trace as record batches of LIFETIMES, those that ended first in order of their end.

    Raises EmptyTraceError, TraceError. Memory: 24 bytes a frame that the trace touches.
    """
    sites = Sites(trace)
    lives = Lives(trace, sites)
    for rows in lives.ended():
        yield _batch(rows, sites)
    for rows in lives.live():
        yield _batch(rows, sites)


def _frames(trace: Trace) -> Array:
    """A frame table of zeros, which takes memory only where it is touched."""
    size = frames_of(trace) * lp.FRAME.itemsize
    available = available_bytes()
    touched = min(size, trace.rows("page_events") * mmap.PAGESIZE)
    if available is not None and touched > available:
        raise TraceError(
            f"a table of {size // lp.FRAME.itemsize} frames needs up to {touched / (1 << 30):.1f} GiB, "
            f"and {available / (1 << 30):.1f} GiB are free",
            hint="use a host with more memory, or a shorter trace",
        )
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    except OSError as error:
        raise TraceError(
            f"no address space for a table of {size / (1 << 30):.1f} GiB: {error.strerror}", hint="raise ulimit -v"
        ) from error
    if available is not None and size <= available // 4:
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, lp.FRAME)


def available_bytes() -> int | None:
    """Memory that the host could give out without swapping; None where it does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _without_facts(raw: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with zeros for gfp and pid."""
    zeros = _ZEROS.slice(0, raw.num_rows)
    return pa.RecordBatch.from_arrays([*raw.columns, zeros, zeros], names=PAGE_COLUMNS)


def _copied(values: Array, null: Array | None) -> pa.Array:
    return pa.array(values.copy() if null is None else values, mask=null)


def _batch(rows: lp.Rows, sites: Sites) -> pa.RecordBatch:
    """Rows as a record batch of its own memory."""
    complete = rows.how == COMPLETE
    whole = bool(complete.all())
    seen = None if whole else rows.t_alloc < 0
    open_end = None if whole else (rows.t_free < 0) | ((rows.how == BROKEN) & (rows.t_alloc >= 0))
    stacks = sites.stacks[rows.tag]
    no_stack = stacks == NO_STACK
    made = {
        "pfn": pa.array(rows.pfn.astype(np.uint64)),
        "order": pa.array(rows.order.copy()),
        "pages": pa.array(np.uint32(1) << rows.order.astype(np.uint32)),
        "t_alloc_ns": _copied(rows.t_alloc, seen),
        "t_free_ns": _copied(rows.t_free, open_end),
        "lifetime_ns": pa.array(rows.t_free - rows.t_alloc, mask=None if whole else ~complete),
        "alloc_cpu": _copied(rows.alloc_cpu.view(np.uint16), None if whole else rows.alloc_cpu < 0),
        "free_cpu": _copied(rows.free_cpu.view(np.uint16), open_end),
        "pid": _copied(rows.pid, seen),
        "gfp": _copied(rows.gfp, seen),
        "caller": pa.DictionaryArray.from_arrays(pa.array(sites.callers[rows.tag], mask=seen), sites.labels),
        "class": pa.DictionaryArray.from_arrays(pa.array(rows.how.astype(np.int8)), _CLASSES),
        "stack_id": pa.array(stacks, mask=no_stack if seen is None else no_stack | seen),
    }
    return pa.RecordBatch.from_pydict(made, schema=LIFETIMES)


_ZEROS = pa.array(np.zeros(BATCH_ROWS, np.uint32))
_CLASSES = pa.array(CENSORING, pa.string())
