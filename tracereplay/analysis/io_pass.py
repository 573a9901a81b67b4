"""I/Os followed over block events (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, attr-defined"

from __future__ import annotations

from tracereplay.analysis.io_bios import queue_bio, remap_bio, split_bio
from tracereplay.analysis.io_pieces import close_row
from tracereplay.analysis.io_requests import (
    IN_FLIGHT,
    K_COMPLETE,
    K_ERROR,
    K_INSERT,
    K_ISSUE,
    K_JOIN,
    K_REQUEUE,
    TO_INSERT,
    TO_ISSUE,
    complete_bio,
    request,
)
from tracereplay.analysis.io_state import (
    BROKEN,
    C_EVENTS,
    C_EVICTED,
    C_MALFORMED,
    C_MERGES,
    OUT_ROWS,
    RIGHT_CENSORED,
    S_LOSS,
    S_LOST_UNTIL,
    S_MOST_OPEN,
    S_OLDEST,
    S_OPEN,
    S_OUT,
    S_PIECES,
    Events,
    State,
)
from tracereplay.compiled import kernel
from tracereplay.trace.schema import BIO_KINDS

_QUEUE, _SPLIT, _REMAP, _BIO_COMPLETE = (BIO_KINDS.index(k) for k in ("queue", "split", "remap", "bio_complete"))


@kernel
def follow(w: State, events: Events, first: int) -> int:
    """Take events from ``first`` on, until the rows that ended may fill ``out``. Returns the next event's number."""
    k = w.scalar
    e = w.event[0]
    for i in range(first, len(events.ts)):
        while k[S_OPEN] > k[S_MOST_OPEN] or k[S_PIECES] > 4 * k[S_MOST_OPEN]:
            if k[S_OUT] >= OUT_ROWS:
                return i
            w.counts[C_EVICTED] += w.rows[k[S_OLDEST]].id >= 0
            close_row(w, k[S_OLDEST], BROKEN)
        if k[S_OUT] >= OUT_ROWS:
            return i
        while k[S_LOSS] < len(w.loss1) and w.loss1[k[S_LOSS]] <= events.ts[i]:
            k[S_LOST_UNTIL] = w.loss1[k[S_LOSS]]
            k[S_LOSS] += 1
        w.counts[C_EVENTS] += 1
        kind = events.kind[i]
        e.ts, e.cpu, e.dev, e.disk = events.ts[i], events.cpu[i], events.dev[i], events.disk[i]
        e.sector, e.sectors, e.bytes, e.op = events.sector[i], events.sectors[i], events.bytes[i], events.op[i]
        e.flags, e.pid, e.error, e.stack = events.flags[i], events.pid[i], events.error[i], events.stack[i]
        if kind == _REMAP:
            e.old_dev, e.old_disk, e.old_sector = events.old_dev[i], events.old_disk[i], events.old_sector[i]
        elif kind == _SPLIT:
            e.new_sector = events.new_sector[i]
        if e.disk < 0:
            w.counts[C_MALFORMED] += 1
        elif kind == _QUEUE:
            queue_bio(w, e)
        elif kind == _SPLIT:
            split_bio(w, e)
        elif kind == _REMAP:
            remap_bio(w, e)
        elif kind == K_INSERT:
            request(w, e, K_INSERT, TO_INSERT)
        elif kind == K_ISSUE:
            request(w, e, K_ISSUE, TO_ISSUE)
        elif kind in (K_REQUEUE, K_ERROR):
            request(w, e, kind, IN_FLIGHT)
        elif kind == _BIO_COMPLETE or (kind == K_COMPLETE and w.knows[e.disk] & 4):
            complete_bio(w, e)
        elif kind == K_COMPLETE:
            if w.knows[e.disk] & 2 == 0:
                request(w, e, K_JOIN, IN_FLIGHT)
            request(w, e, K_COMPLETE, IN_FLIGHT)
        else:  # a merge: what is in a request is told when it is issued
            w.counts[C_MERGES] += 1
    return len(events.ts)


@kernel
def close_all(w: State) -> bool:
    """The trace ends: I/Os still open, as many as ``out`` holds. Returns whether some are left."""
    k = w.scalar
    while k[S_OLDEST] >= 0:
        if k[S_OUT] >= OUT_ROWS:
            return True
        seen = w.rows[k[S_OLDEST]].seen
        close_row(w, k[S_OLDEST], BROKEN if seen < k[S_LOST_UNTIL] else RIGHT_CENSORED)
    return False
