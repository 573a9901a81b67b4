"""I/Os followed over block events: queue, split, remap, issue, requeue, completion (compiled).

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
    first_in_bucket,
    move_piece,
    name_row,
)
from tracereplay.analysis.io_state import (
    BROKEN,
    C_EVENTS,
    C_EVICTED,
    C_MALFORMED,
    C_MERGES,
    C_ORPHANS,
    C_UNMATCHED,
    COMPLETE,
    ISSUED,
    MOST_ALIKE,
    MOST_LOOKED_AT,
    MOST_STEPS,
    NEVER,
    NOWHERE,
    OPEN,
    OUT_ROWS,
    PENDING,
    RIGHT_CENSORED,
    S_APPEND,
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
from tracereplay.compiled import inner, kernel
from tracereplay.trace.schema import BIO_KINDS

_QUEUE, _SPLIT, _REMAP = (BIO_KINDS.index(k) for k in ("queue", "split", "remap"))
_BACKMERGE, _FRONTMERGE = BIO_KINDS.index("backmerge"), BIO_KINDS.index("frontmerge")
_INSERT, _ISSUE, _REQUEUE = (BIO_KINDS.index(k) for k in ("insert", "issue", "requeue"))
_COMPLETE, _BIO_COMPLETE, _ERROR = (BIO_KINDS.index(k) for k in ("complete", "bio_complete", "error"))
_JOIN = 100
"""Not an event: who was merged, told by a completion where issues were not recorded."""


def _ranks(open_, issued, pending):
    return open_ << (2 * OPEN) | issued << (2 * ISSUED) | pending << (2 * PENDING)


_TO_ISSUE = _ranks(0, 2, 1)
_TO_INSERT = _ranks(0, NOT_WANTED, 1)
_IN_FLIGHT = _ranks(1, 0, 2)
_TO_SPLIT = _ranks(0, 2, 1)
_TO_REMAP = _ranks(0, 1, NOT_WANTED)
_ONLY_OPEN = _ranks(0, NOT_WANTED, NOT_WANTED)
_ONLY_PENDING = _ranks(NOT_WANTED, NOT_WANTED, 0)


@inner
def _promote(w, p, e):
    """A remapped bio that no queue event named: the same bio goes on below (md), it was queued once."""
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
def _clear(w, disk, op, start):
    """Before an I/O is queued: those at its sector whose end was lost are given up, and the oldest of too many."""
    while True:
        alike = 0
        oldest = -1
        p = first_in_bucket(w, disk, op, start)
        while p >= 0:
            piece = w.pieces[p]
            if piece.start == start and piece.disk == disk and piece.op == op and piece.state != PENDING:
                row = w.rows[piece.row]
                if row.seen < w.scalar[S_LOST_UNTIL]:
                    oldest = piece.row
                    alike = MOST_ALIKE
                    break
                alike += 1
                if oldest < 0 or row.id < w.rows[oldest].id:
                    oldest = piece.row
            p = piece.bucket
        if alike < MOST_ALIKE:
            return
        close_row(w, oldest, BROKEN)


@inner
def _queue(w, e):
    ts, disk, op = e.ts, e.disk, e.op
    start, sectors = e.sector, e.sectors
    if sectors == 0:
        start = NOWHERE
    p = find(w, disk, op, start, sectors, _ONLY_PENDING, False)
    if p >= 0 and w.pieces[p].end - w.pieces[p].start == sectors:
        slot = w.pieces[p].row
        w.pieces[p].state = OPEN
    else:
        _clear(w, disk, op, start)
        slot = add_row(w, disk, op, start, sectors, sectors << 9)
        add_piece(w, slot, disk, op, start, start + sectors, OPEN, NEVER)
    row = w.rows[slot]
    row.q = ts
    name_row(w, slot, e.ts, e.dev, e.flags, e.pid, e.cpu, e.stack)


@inner
def _split(w, e):
    disk, op, at = e.disk, e.op, e.new_sector
    start = min(e.sector, at - 1) if e.sector != NOWHERE else at - 1
    p = find(w, disk, op, start, at + 1 - start, _TO_SPLIT, True)
    if p >= 0 and w.pieces[p].start < at < w.pieces[p].end:
        w.rows[w.pieces[p].row].splits += 1
        cut_piece(w, p, at)


@inner
def _owner(w, disk, op, start, sector, sectors):
    """The piece that is remapped; -1: none.

    Without sectors it is an empty flush, or the flush before the data of a bio (``__send_empty_flush``,
    drivers/md/dm.c), which is at that bio's sector and leaves the data where they are.
    """
    if sectors > 0:
        return find(w, disk, op, start, sectors, _TO_REMAP, True)
    p = find(w, disk, op, sector, 0, _ONLY_OPEN, False) if sector > 0 else -1
    if p < 0:
        p = find(w, disk, op, NOWHERE, 0, _ONLY_OPEN, False)
    if p < 0:
        p = find(w, disk, op, sector, 0, _ONLY_OPEN, False)
    return p if p >= 0 else find(w, disk, op, NOWHERE, 0, _TO_REMAP, False)


@inner
def _remap(w, e):
    ts, disk, op, start, sectors = e.ts, e.disk, e.op, e.sector, e.sectors
    old, old_start = e.old_disk, e.old_sector
    if sectors == 0:
        start = old_start = NOWHERE
    p = find(w, old, op, old_start, sectors, _ONLY_PENDING, False)
    if p >= 0 and w.pieces[p].end - w.pieces[p].start == sectors:
        row = w.rows[w.pieces[p].row]
        row.disk, row.sector = disk, start
        move_piece(w, p, disk, start, start + sectors)  # on to a partition's place on its disk
        return
    if disk == old:
        return
    p = _owner(w, old, op, old_start, e.old_sector, sectors)
    with_data = sectors == 0 and p >= 0 and w.pieces[p].start != NOWHERE
    if sectors > 0 and p >= 0 and w.pieces[p].start <= old_start:
        if w.pieces[p].start < old_start:
            w.rows[w.pieces[p].row].splits += 1
            p = cut_piece(w, p, old_start)
        if w.pieces[p].end > old_start + sectors:
            w.rows[w.pieces[p].row].splits += 1
            cut_piece(w, p, old_start + sectors)
    elif sectors > 0 or p < 0:
        if w.knows[old] & 1 == 0:
            return  # a partition: its bios are queued as the disk's
        w.counts[C_ORPHANS] += 1
        slot = add_row(w, old, op, old_start, sectors, sectors << 9)
        name_row(w, slot, e.ts, e.old_dev, e.flags, e.pid, e.cpu, e.stack)
        p = add_piece(w, slot, old, op, old_start, old_start + sectors, OPEN, NEVER)
    piece = w.pieces[p]
    if not with_data:
        piece.state = ISSUED
        if piece.d == NEVER:
            piece.d = ts
    above = piece.row
    p = find(w, disk, op, start, sectors, _ONLY_PENDING, False)
    if p >= 0:
        close_row(w, w.pieces[p].row, BROKEN)
    slot = add_row(w, disk, op, start, sectors, sectors << 9)
    add_piece(w, slot, disk, op, start, start + sectors, PENDING, NEVER)
    row, parent = w.rows[slot], w.rows[above]
    row.q, row.parent, row.root, row.above = ts, parent.id, parent.root, above
    row.layer, row.root_pid = parent.layer + 1, parent.root_pid
    row.flags, row.pid, row.cpu, row.stack = e.flags, e.pid, e.cpu, e.stack


@inner
def _touch(w, e, what, p, end):
    """A request's event reaches a piece."""
    ts = e.ts
    piece = w.pieces[p]
    row = w.rows[piece.row]
    if what == _ISSUE:
        if piece.state == ISSUED:
            row.requeues += 1  # handed over again; not every kernel or recording shows the requeue
        piece.state = ISSUED
        piece.d = ts
    elif what == _INSERT:
        if row.i == NEVER:
            row.i = ts
    elif what == _REQUEUE:
        row.requeues += 1
        piece.state = OPEN
        piece.d = NEVER
    elif what == _ERROR:
        if row.error == 0:
            row.error = e.error
    elif what == _COMPLETE:
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
def _request(w, e, what, ranks):
    """An event of a request, for each piece that it holds."""
    disk, op, at = e.disk, e.op, e.sector
    shows = what in (_ISSUE, _COMPLETE)
    if at == NOWHERE or e.sectors == 0:
        p = find(w, disk, op, NOWHERE, 0, ranks, False)
        if p >= 0:
            if w.pieces[p].state == PENDING:
                _promote(w, p, e)
            _touch(w, e, what, p, NOWHERE)
        elif shows:
            issued = what == _ISSUE
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
            if what == _ISSUE:
                slot = _unseen(w, e, at, seen_from, e.ts, NEVER)
                if head < 0:
                    head, head_id = slot, w.rows[slot].id
                else:
                    w.rows[slot].merged = head_id
            elif what == _COMPLETE:
                if p < 0 and _append(w, e):
                    return
                _unseen(w, e, at, seen_from, NEVER, e.ts)
            at = seen_from
            continue
        if w.pieces[p].state == PENDING:
            _promote(w, p, e)
        if shows and seen_from < at:
            w.rows[w.pieces[p].row].splits += what == _ISSUE
            p = cut_piece(w, p, at)
        if what == _ISSUE and w.pieces[p].end > end:
            w.rows[w.pieces[p].row].splits += 1
            cut_piece(w, p, end)
        slot = w.pieces[p].row
        at = w.pieces[p].end
        if what in (_ISSUE, _JOIN):
            row = w.rows[slot]
            if head < 0:
                head, head_id = slot, row.id
            elif slot != head and row.merged < 0:
                row.merged = head_id
                w.rows[head].merges += 1
        _touch(w, e, what, p, end)


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
    _touch(w, e, _COMPLETE, best, w.pieces[best].end)
    return True


@inner
def _bio_complete(w, e):
    """A bio is complete. Of one that was split, the event names the last part (``dm_split_and_process_bio``)."""
    disk, op, start, sectors = e.disk, e.op, e.sector, e.sectors
    if start == NOWHERE or sectors == 0:
        _request(w, e, _COMPLETE, _IN_FLIGHT)
        return
    p = find(w, disk, op, start, sectors, _IN_FLIGHT, True)
    if p >= 0 and w.pieces[p].state == PENDING:
        _promote(w, p, e)
    if p >= 0:
        slot = w.pieces[p].row
        row = w.rows[slot]
        if w.pieces[p].start <= start and row.sector + row.sectors == start + sectors:
            completed(w, slot, row.left, e.ts, e.cpu, e.error)
            return
    _request(w, e, _COMPLETE, _IN_FLIGHT)


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
            _queue(w, e)
        elif kind == _SPLIT:
            _split(w, e)
        elif kind == _REMAP:
            _remap(w, e)
        elif kind == _INSERT:
            _request(w, e, _INSERT, _TO_INSERT)
        elif kind == _ISSUE:
            _request(w, e, _ISSUE, _TO_ISSUE)
        elif kind in (_REQUEUE, _ERROR):
            _request(w, e, kind, _IN_FLIGHT)
        elif kind == _BIO_COMPLETE or (kind == _COMPLETE and w.knows[e.disk] & 4):
            _bio_complete(w, e)
        elif kind == _COMPLETE:
            if w.knows[e.disk] & 2 == 0:
                _request(w, e, _JOIN, _IN_FLIGHT)
            _request(w, e, _COMPLETE, _IN_FLIGHT)
        else:
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
