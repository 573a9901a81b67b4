"""Requests and what they hold: inserted, issued, given back, complete (compiled).

Requests hold whole pieces of bios, one after another (``bio_attempt_back_merge``, block/blk-merge.c), so the pieces of
a request are found from its first sector on. What a request covers and no piece does is an I/O whose queue event was
not seen.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, attr-defined"

from __future__ import annotations

from tracereplay.analysis.io_pieces import (
    NOT_WANTED,
    add_piece,
    add_row,
    close_row,
    completed,
    cut_piece,
    drop_piece,
    find,
    move_piece,
    name_row,
    ranks_of,
)
from tracereplay.analysis.io_state import (
    C_UNMATCHED,
    COMPLETE,
    ISSUED,
    MOST_LOOKED_AT,
    MOST_STEPS,
    NEVER,
    NOWHERE,
    OPEN,
    PENDING,
    S_APPEND,
)
from tracereplay.compiled import inner
from tracereplay.trace.schema import BIO_KINDS

K_INSERT, K_ISSUE, K_REQUEUE = (BIO_KINDS.index(k) for k in ("insert", "issue", "requeue"))
K_COMPLETE, K_ERROR = (BIO_KINDS.index(k) for k in ("complete", "error"))
K_JOIN = 100
"""Not an event: who was merged, told by a completion where issues were not recorded."""
TO_ISSUE = ranks_of(0, 2, 1)
TO_INSERT = ranks_of(0, NOT_WANTED, 1)
IN_FLIGHT = ranks_of(1, 0, 2)


@inner
def _promote(w, p, e):
    """A remapped bio that no queue event named: the same bio goes on below (md), it was queued once.

    ``submit_bio_noacct_nocheck`` (block/blk-core.c) emits block_bio_queue once a bio, by BIO_TRACE_COMPLETION.
    """
    piece = w.pieces[p]
    slot = piece.row
    row = w.rows[slot]
    name_row(w, slot, e.ts, e.dev, row.flags, row.pid, row.cpu, row.stack)
    row.carries = 1
    piece.state = OPEN


@inner
def _unseen(w, e, start, end, d, c):
    """An I/O of which the queue event was not seen. Returns its slot; -1 when it is complete with that."""
    size = (end - start) << 9 if start != NOWHERE else e.bytes
    slot = add_row(w, e.disk, e.op, start, end - start, size)
    name_row(w, slot, e.ts, e.dev, e.flags, e.pid, e.cpu, e.stack)
    row = w.rows[slot]
    if c == NEVER:
        add_piece(w, slot, e.disk, e.op, start, end, ISSUED, d)
        return slot
    w.counts[C_UNMATCHED] += 1
    row.left, row.c, row.c_cpu, row.error = 0, c, e.cpu, e.error
    close_row(w, slot, COMPLETE)
    return -1


@inner
def _touch(w, e, what, p, end):
    """A request's event reaches a piece."""
    ts = e.ts
    piece = w.pieces[p]
    row = w.rows[piece.row]
    if what == K_ISSUE:
        if piece.state == ISSUED:
            row.requeues += 1  # handed over again; not every kernel or recording shows the requeue
        piece.state = ISSUED
        piece.d = ts
    elif what == K_INSERT:
        if row.i == NEVER:
            row.i = ts
    elif what == K_REQUEUE:
        row.requeues += 1
        piece.state = OPEN
        piece.d = NEVER
    elif what == K_ERROR:
        if row.error == 0:
            row.error = e.error
    elif what == K_COMPLETE:
        if piece.d != NEVER and (row.d == NEVER or piece.d < row.d):
            row.d = piece.d
        slot = piece.row
        done = piece.end - piece.start
        if piece.end > end:
            done = end - piece.start
            move_piece(w, p, piece.disk, end, piece.end)
        else:
            drop_piece(w, p)
        completed(w, slot, done, ts, e.cpu, e.error)


@inner
def _append(w, e):
    """Zone append: where the data went is known when it is complete (``blk_update_request``, block/blk-mq.c)."""
    if e.op != w.scalar[S_APPEND]:
        return False
    best = -1
    looked = 0
    p = w.newest[e.disk]
    while p >= 0 and looked < MOST_LOOKED_AT:
        piece = w.pieces[p]
        looked += 1
        fits = piece.end - piece.start == e.sectors and piece.start <= e.sector
        older = best < 0 or w.rows[piece.row].id < w.rows[w.pieces[best].row].id
        if piece.op == e.op and piece.state == ISSUED and fits and older:
            best = p
        p = piece.older
    if best < 0:
        return False
    _touch(w, e, K_COMPLETE, best, w.pieces[best].end)
    return True


@inner
def request(w, e, what, ranks):
    """An event of a request, for each piece that it holds."""
    disk, op, at = e.disk, e.op, e.sector
    shows = what in (K_ISSUE, K_COMPLETE)
    if at == NOWHERE or e.sectors == 0:
        p = find(w, disk, op, NOWHERE, 0, ranks, False)
        if p >= 0:
            if w.pieces[p].state == PENDING:
                _promote(w, p, e)
            _touch(w, e, what, p, NOWHERE)
        elif shows:
            issued = what == K_ISSUE
            _unseen(w, e, NOWHERE, NOWHERE, e.ts if issued else NEVER, NEVER if issued else e.ts)
        return
    end = at + e.sectors
    head = -1
    head_id = -1
    for _ in range(MOST_STEPS):
        if at >= end:
            return
        p = find(w, disk, op, at, end - at, ranks, True)
        seen_from = end if p < 0 else w.pieces[p].start
        if seen_from > at:  # nobody queued this part
            if what == K_ISSUE:
                slot = _unseen(w, e, at, seen_from, e.ts, NEVER)
                if head < 0:
                    head, head_id = slot, w.rows[slot].id
                else:
                    w.rows[slot].merged = head_id
            elif what == K_COMPLETE:
                if p < 0 and _append(w, e):
                    return
                _unseen(w, e, at, seen_from, NEVER, e.ts)
            at = seen_from
            continue
        if w.pieces[p].state == PENDING:
            _promote(w, p, e)
        if shows and seen_from < at:
            w.rows[w.pieces[p].row].splits += what == K_ISSUE
            p = cut_piece(w, p, at)
        if what == K_ISSUE and w.pieces[p].end > end:
            w.rows[w.pieces[p].row].splits += 1
            cut_piece(w, p, end)
        slot = w.pieces[p].row
        at = w.pieces[p].end
        if what in (K_ISSUE, K_JOIN):
            row = w.rows[slot]
            if head < 0:
                head, head_id = slot, row.id
            elif slot != head and row.merged < 0:
                row.merged = head_id
                w.rows[head].merges += 1
        _touch(w, e, what, p, end)


@inner
def complete_bio(w, e):
    """A bio is complete. Of one that was split, the event names the last part (``dm_split_and_process_bio``)."""
    disk, op, start, sectors = e.disk, e.op, e.sector, e.sectors
    if start == NOWHERE or sectors == 0:
        request(w, e, K_COMPLETE, IN_FLIGHT)
        return
    p = find(w, disk, op, start, sectors, IN_FLIGHT, True)
    if p >= 0 and w.pieces[p].state == PENDING:
        _promote(w, p, e)
    if p >= 0:
        slot = w.pieces[p].row
        row = w.rows[slot]
        if w.pieces[p].start <= start and row.sector + row.sectors == start + sectors:
            completed(w, slot, row.left, e.ts, e.cpu, e.error)
            return
    request(w, e, K_COMPLETE, IN_FLIGHT)
