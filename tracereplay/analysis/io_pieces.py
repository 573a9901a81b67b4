"""Pieces of I/Os: found by where they begin, kept by device and by I/O (compiled)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, attr-defined"

from __future__ import annotations

from tracereplay.analysis.io_state import (
    BROKEN,
    BUCKETS,
    COMPLETE,
    ISSUED,
    LEFT_CENSORED,
    MOST_LOOKED_AT,
    NEVER,
    NOWHERE,
    OPEN,
    PENDING,
    S_LOST_UNTIL,
    S_NEWEST,
    S_NEXT_ID,
    S_OLDEST,
    S_OPEN,
    S_OUT,
    S_PIECES,
    S_PIECES_SPARE,
    S_PIECES_USED,
    S_ROWS_SPARE,
    S_ROWS_USED,
)
from tracereplay.compiled import hot, inner

NOT_WANTED = 3
"""Rank of a state in a lookup; see :func:`find`."""


def ranks_of(open_: int, issued: int, pending: int) -> int:
    """Ranks of the states of pieces for :func:`find`, the lowest first; NOT_WANTED leaves pieces out."""
    return open_ << (2 * OPEN) | issued << (2 * ISSUED) | pending << (2 * PENDING)


@hot
def _bucket(disk, op, start):
    h = (start * 0x9E3779B1 + disk * 0x85EBCA6B + op * 0xC2B2AE35) & 0x7FFFFFFFFFFFFFFF
    return (h ^ (h >> 17) ^ (h >> 33)) & (BUCKETS - 1)


# ---------------------------------------------------------------- linking
@hot
def _hash(w, p):
    piece = w.pieces[p]
    at = _bucket(piece.disk, piece.op, piece.start)
    piece.bucket = w.heads[at]
    w.heads[at] = p


@hot
def _unhash(w, p):
    piece = w.pieces[p]
    at = _bucket(piece.disk, piece.op, piece.start)
    if w.heads[at] == p:
        w.heads[at] = piece.bucket
        return
    before = w.heads[at]
    while w.pieces[before].bucket != p:
        before = w.pieces[before].bucket
    w.pieces[before].bucket = piece.bucket


@inner
def add_piece(w, slot, disk, op, start, end, state, d):
    """A piece of the I/O in ``slot``. Returns its number."""
    k = w.scalar
    p = k[S_PIECES_SPARE]
    if p >= 0:
        k[S_PIECES_SPARE] = w.pieces[p].newer
    else:
        p = k[S_PIECES_USED]
        k[S_PIECES_USED] = p + 1
    k[S_PIECES] += 1
    piece = w.pieces[p]
    piece.row, piece.disk, piece.op, piece.start, piece.end = slot, disk, op, start, end
    piece.state, piece.d = state, d
    _hash(w, p)
    piece.newer = -1
    piece.older = w.newest[disk]
    if piece.older >= 0:
        w.pieces[piece.older].newer = p
    w.newest[disk] = p
    row = w.rows[slot]
    piece.before = -1
    piece.after = row.piece
    if row.piece >= 0:
        w.pieces[row.piece].before = p
    row.piece = p
    return p


@inner
def drop_piece(w, p):
    """Take a piece away."""
    piece = w.pieces[p]
    _unhash(w, p)
    if piece.newer >= 0:
        w.pieces[piece.newer].older = piece.older
    else:
        w.newest[piece.disk] = piece.older
    if piece.older >= 0:
        w.pieces[piece.older].newer = piece.newer
    if piece.before >= 0:
        w.pieces[piece.before].after = piece.after
    else:
        w.rows[piece.row].piece = piece.after
    if piece.after >= 0:
        w.pieces[piece.after].before = piece.before
    piece.newer = w.scalar[S_PIECES_SPARE]
    w.scalar[S_PIECES_SPARE] = p
    w.scalar[S_PIECES] -= 1


@inner
def move_piece(w, p, disk, start, end):
    """Put a piece elsewhere: what is left of it, or where a partition's sectors lie."""
    piece = w.pieces[p]
    if disk == piece.disk:
        _unhash(w, p)
        piece.start, piece.end = start, end
        _hash(w, p)
    else:
        slot, op, state, d = piece.row, piece.op, piece.state, piece.d
        drop_piece(w, p)
        add_piece(w, slot, disk, op, start, end, state, d)


@inner
def cut_piece(w, p, at):
    """Cut a piece in two; the number of the right one."""
    piece = w.pieces[p]
    end = piece.end
    piece.end = at
    return add_piece(w, piece.row, piece.disk, piece.op, at, end, piece.state, piece.d)


# ---------------------------------------------------------------- finding
@hot
def _rank(ranks, state):
    return (ranks >> (2 * state)) & 3


@hot
def first_in_bucket(w, disk, op, start):
    """First piece of the bucket that pieces beginning at a sector are in; others may be in it."""
    return w.heads[_bucket(disk, op, start)]


@inner
def find(w, disk, op, start, sectors, ranks, scan):
    """The piece that an event about ``[start, start + sectors)`` means; -1: none.

    Best one that begins at ``start``: by the rank of its state (two bits a state; NOT_WANTED leaves it out), then by
    length, then the oldest I/O. With ``scan``, else the first that overlaps, by rank, then the oldest.
    """
    best = -1
    best_rank = NOT_WANTED
    best_off = True
    p = first_in_bucket(w, disk, op, start)
    while p >= 0:
        piece = w.pieces[p]
        if piece.start == start and piece.disk == disk and piece.op == op:
            rank = _rank(ranks, piece.state)
            off = piece.end - piece.start != sectors
            if rank < NOT_WANTED and (
                best < 0
                or rank < best_rank
                or (
                    rank == best_rank
                    and (
                        (best_off and not off)
                        or (off == best_off and w.rows[piece.row].id < w.rows[w.pieces[best].row].id)
                    )
                )
            ):
                best, best_rank, best_off = p, rank, off
        p = piece.bucket
    if best >= 0 or not scan or start == NOWHERE:
        return best
    best_start = start + sectors
    looked = 0
    p = w.newest[disk]
    while p >= 0 and looked < MOST_LOOKED_AT:
        piece = w.pieces[p]
        looked += 1
        if piece.op == op and piece.end > start and piece.start < start + sectors:
            rank = _rank(ranks, piece.state)
            begins = max(piece.start, start)
            if rank < NOT_WANTED and (
                best < 0
                or begins < best_start
                or (
                    begins == best_start
                    and (
                        rank < best_rank or (rank == best_rank and w.rows[piece.row].id < w.rows[w.pieces[best].row].id)
                    )
                )
            ):
                best, best_start, best_rank = p, begins, rank
        p = piece.older
    return best


# ---------------------------------------------------------------- I/Os
@inner
def add_row(w, disk, op, sector, sectors, size):
    """An I/O of which nothing else is known yet. Returns its slot."""
    k = w.scalar
    slot = k[S_ROWS_SPARE]
    if slot >= 0:
        k[S_ROWS_SPARE] = w.rows[slot].newer
    else:
        slot = k[S_ROWS_USED]
        k[S_ROWS_USED] = slot + 1
    row = w.rows[slot]
    row.id = row.parent = row.root = row.merged = -1
    row.q = row.i = row.d = row.c = row.below = NEVER
    row.sector, row.sectors, row.bytes, row.left = sector, sectors, size, sectors
    row.piece = row.above = -1
    row.disk, row.op = disk, op
    row.layer = 0
    row.merges = row.splits = row.requeues = 0
    row.error = 0
    row.c_cpu = -1
    row.carries = 0
    row.newer = -1
    row.older = k[S_NEWEST]
    if row.older >= 0:
        w.rows[row.older].newer = slot
    else:
        k[S_OLDEST] = slot
    k[S_NEWEST] = slot
    k[S_OPEN] += 1
    return slot


@hot
def name_row(w, slot, ts, dev, flags, pid, cpu, stack):
    """Number an I/O, by the event that shows it first."""
    row = w.rows[slot]
    row.id = w.scalar[S_NEXT_ID]
    w.scalar[S_NEXT_ID] += 1
    row.seen, row.dev, row.flags, row.pid, row.cpu, row.stack = ts, dev, flags, pid, cpu, stack
    if row.parent < 0:
        row.root = row.id
        row.root_pid = pid


@inner
def close_row(w, slot, ending):
    """An I/O leaves: as a row of the table, if it was ever queued or issued. ``ending`` holds if no end was seen."""
    k = w.scalar
    row = w.rows[slot]
    while row.piece >= 0:
        p = row.piece
        d = w.pieces[p].d
        if d != NEVER and (row.d == NEVER or d < row.d):
            row.d = d
        drop_piece(w, p)
    if row.id >= 0:
        if row.left > 0:  # some of it was completed perhaps, it was not
            row.c = NEVER
            row.c_cpu = -1
        if row.c == NEVER:
            row.ending = ending
        elif row.q == NEVER and not (row.d != NEVER and (row.sectors == 0 or w.knows[row.disk] & 1 == 0)):
            row.ending = LEFT_CENSORED if k[S_LOST_UNTIL] == NEVER else BROKEN
        else:
            row.ending = COMPLETE
        w.out[k[S_OUT]] = row
        k[S_OUT] += 1
    if row.older >= 0:
        w.rows[row.older].newer = row.newer
    else:
        k[S_OLDEST] = row.newer
    if row.newer >= 0:
        w.rows[row.newer].older = row.older
    else:
        k[S_NEWEST] = row.older
    row.newer = k[S_ROWS_SPARE]
    row.id = -1
    k[S_ROWS_SPARE] = slot
    k[S_OPEN] -= 1


@inner
def completed(w, slot, sectors, ts, cpu, error):
    """Sectors of an I/O are complete, and of those above that are the same bio."""
    while slot >= 0:
        row = w.rows[slot]
        row.left -= sectors
        row.c = ts
        row.c_cpu = cpu
        if row.error == 0:
            row.error = error
        above = -1
        if row.above >= 0 and w.rows[row.above].id == row.parent:
            above = row.above if row.carries else -1
            if row.left <= 0:
                w.rows[row.above].below = ts
        if row.left <= 0:
            close_row(w, slot, COMPLETE)
        slot = above
