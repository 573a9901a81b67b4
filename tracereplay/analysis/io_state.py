"""State of the pass that follows I/Os: record layouts, codes and limits. No Numba here."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

NEVER = -(1 << 62)
"""A time that was not seen, a link to nothing."""
NOWHERE = -1
"""Sector of what has none: empty flushes, flush requests, passed-through commands."""

# ---------------------------------------------------------------- I/Os and their pieces
IO_ROW = np.dtype(
    [
        ("id", np.int64),  # -1: remapped here, not queued yet
        ("parent", np.int64),  # id of the I/O above; -1: none
        ("root", np.int64),
        ("merged", np.int64),  # id of the I/O whose request took it along; -1: none
        ("seen", np.int64),  # first event
        ("q", np.int64),
        ("i", np.int64),
        ("d", np.int64),
        ("c", np.int64),
        ("below", np.int64),  # last completion of what it is on the layer below
        ("sector", np.int64),
        ("sectors", np.int64),
        ("bytes", np.int64),
        ("left", np.int64),  # sectors to be completed
        ("piece", np.int64),  # first of its pieces
        ("older", np.int64),
        ("newer", np.int64),
        ("above", np.int64),  # slot of the parent
        ("dev", np.int64),
        ("disk", np.int64),
        ("layer", np.int64),
        ("pid", np.int64),
        ("root_pid", np.int64),
        ("stack", np.int64),
        ("merges", np.int64),
        ("splits", np.int64),
        ("requeues", np.int64),
        ("error", np.int64),
        ("flags", np.int64),
        ("op", np.int64),
        ("cpu", np.int64),
        ("c_cpu", np.int64),
        ("ending", np.int64),
        ("carries", np.int64),  # the same bio as its parent: what is completed here is completed there
    ],
    align=True,
)
PIECE = np.dtype(
    [
        ("start", np.int64),
        ("end", np.int64),
        ("d", np.int64),
        ("row", np.int64),
        ("bucket", np.int64),  # next in the bucket
        ("newer", np.int64),  # of its device
        ("older", np.int64),
        ("before", np.int64),  # of its I/O
        ("after", np.int64),
        ("disk", np.int64),
        ("op", np.int64),
        ("state", np.int64),
    ],
    align=True,
)
EVENT = np.dtype(
    [
        (name, np.int64)
        for name in (
            "ts", "cpu", "dev", "disk", "sector", "sectors", "bytes", "op", "flags", "pid", "error", "stack",
            "old_dev", "old_disk", "old_sector", "new_sector",
        )
    ]
)  # fmt: skip
"""One of :class:`Events`."""
OPEN, ISSUED, PENDING = range(3)
"""States of a piece: on its way to the driver, handed to it (or to the device below), remapped and not queued yet."""

COMPLETE, LEFT_CENSORED, RIGHT_CENSORED, BROKEN = range(4)
ENDINGS = ("complete", "left_censored", "right_censored", "broken")

# ---------------------------------------------------------------- limits
MOST_OPEN = 1 << 18
"""I/Os followed at a time; beyond that the oldest is given up."""
BUCKETS = 1 << 16
MOST_LOOKED_AT = 1024
"""Pieces of a device that are looked at, newest first, where none begins at an event's sector."""
MOST_ALIKE = 64
"""I/Os in flight at the same sector with the same operation; beyond that the oldest is given up."""
MOST_STEPS = 4096
"""Pieces that one request holds."""
MARGIN = 4 * MOST_STEPS
OUT_ROWS = 1 << 16

# ---------------------------------------------------------------- scalars and counters
SCALARS = (
    "rows_used", "rows_spare", "pieces_used", "pieces_spare", "oldest", "newest", "open", "pieces",
    "next_id", "out", "loss", "lost_until", "most_open", "append", "lost",
)  # fmt: skip
(
    S_ROWS_USED, S_ROWS_SPARE, S_PIECES_USED, S_PIECES_SPARE, S_OLDEST, S_NEWEST, S_OPEN, S_PIECES,
    S_NEXT_ID, S_OUT, S_LOSS, S_LOST_UNTIL, S_MOST_OPEN, S_APPEND, S_LOST,
) = range(15)  # fmt: skip
COUNTERS = ("events", "malformed", "unmatched", "remaps_of_unknown", "evicted", "merge_events")
(C_EVENTS, C_MALFORMED, C_UNMATCHED, C_ORPHANS, C_EVICTED, C_MERGES) = range(6)


class State(NamedTuple):
    """Everything that the pass reads and writes."""

    rows: Array
    """IO_ROW; slots in use are linked from oldest to newest, spare ones by ``newer``."""
    pieces: Array
    """PIECE; spare ones are linked by ``newer``."""
    heads: Array
    """int32, first piece of each bucket."""
    newest: Array
    """int32, newest piece by disk."""
    knows: Array
    """uint8 by disk: 1 bios are queued there, 2 requests are issued there, 4 its bios are remapped to others."""
    out: Array
    """IO_ROW that ended."""
    loss1: Array
    """Ends of gaps in the events, ascending."""
    scalar: Array
    counts: Array
    event: Array
    """EVENT, one: that at which the pass is. A record is handed on by its address, a tuple of arrays by value."""


class Events(NamedTuple):
    """A batch of block events, nulls 0."""

    ts: Array
    cpu: Array
    kind: Array
    dev: Array
    disk: Array
    """int64, number of the whole device; -1: not said."""
    sector: Array
    """int64; NOWHERE where there is none."""
    sectors: Array
    bytes: Array
    op: Array
    flags: Array
    pid: Array
    error: Array
    old_dev: Array
    old_disk: Array
    old_sector: Array
    new_sector: Array
    stack: Array


def new_state(disks: int, knows: Array, loss1: Array, append: int, most_open: int = MOST_OPEN) -> State:
    """An empty state. Its memory is taken up only as far as I/Os are open at a time."""
    state = State(
        rows=np.zeros(most_open + 2 * MARGIN, IO_ROW),
        pieces=np.zeros(4 * most_open + 2 * MARGIN, PIECE),
        heads=np.full(BUCKETS, -1, np.int32),
        newest=np.full(disks, -1, np.int32),
        knows=knows,
        out=np.zeros(OUT_ROWS + MARGIN, IO_ROW),
        loss1=loss1,
        scalar=np.zeros(len(SCALARS), np.int64),
        counts=np.zeros(len(COUNTERS), np.int64),
        event=np.zeros(1, EVENT),
    )
    for name in (S_ROWS_SPARE, S_PIECES_SPARE, S_OLDEST, S_NEWEST):
        state.scalar[name] = -1
    state.scalar[S_LOST_UNTIL] = NEVER
    state.scalar[S_MOST_OPEN] = most_open
    state.scalar[S_APPEND] = append
    return state
