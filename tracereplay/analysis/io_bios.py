"""Bios on their way: queued, split, sent to the device below (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, attr-defined"

from __future__ import annotations

from tracereplay.analysis.io_pieces import (
    NOT_WANTED,
    add_piece,
    add_row,
    close_row,
    cut_piece,
    find,
    first_in_bucket,
    move_piece,
    name_row,
    ranks_of,
)
from tracereplay.analysis.io_state import (
    BROKEN,
    C_ORPHANS,
    ISSUED,
    MOST_ALIKE,
    NEVER,
    NOWHERE,
    OPEN,
    PENDING,
    S_LOST_UNTIL,
)
from tracereplay.compiled import inner

_TO_SPLIT = ranks_of(0, 2, 1)
_TO_REMAP = ranks_of(0, 1, NOT_WANTED)
_ONLY_OPEN = ranks_of(0, NOT_WANTED, NOT_WANTED)
_ONLY_PENDING = ranks_of(NOT_WANTED, NOT_WANTED, 0)


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
def queue_bio(w, e):
    """A bio is queued: a new one, or the one that was remapped here."""
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
def split_bio(w, e):
    """A bio is cut."""
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
def remap_bio(w, e):
    """Sectors of a bio go on to another device, or from a partition to its disk."""
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
