"""Targeted requests: their rows while they live, and what is kept of them when they end.

A request that one block serves keeps no row: its tag has the time of its arrival in units of 2^X_TIME_SHIFT ns. Neither
its caller nor its CPU are kept. A bio in pieces is a *group*: the sum of the vectors of its pieces that ended.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner
from tracereplay.demand.stream import OF_BIO, ON_PATH
from tracereplay.machine.counters import BIO_VECS, BIOS, BVEC_ARRAYS, NR_SLOTS
from tracereplay.replay.layout import (
    BIN_BITS,
    BIO_PIECE,
    FACTOR_BITS,
    KIND_BIO,
    KIND_PIECE,
    KIND_SHIFT,
    KIND_WHOLE,
    NO_BIO,
    NO_CALLER,
    ROW_ARRIVAL,
    ROW_BIN,
    ROW_BIO,
    ROW_BLOCKS,
    ROW_CALLER,
    ROW_COUNTERS,
    ROW_DELAY,
    ROW_NEXT,
    ROW_WHO,
    ROW_WORDS,
    TAG_FLAGS,
    TAG_FLAGS_SHIFT,
    TAG_TARGETED,
    TAG_TIME_SHIFT,
    WHO_CPU_BITS,
    WHOLE_BIO,
    X_BIN,
    X_BIN_FACTOR,
    X_BIN_UNITS,
    X_GC,
    X_GK,
    X_GL,
    X_GROUP_ROOM,
    X_GROUPS,
    X_GV,
    X_PIECE,
    X_ROW_FREE,
    X_ROW_TOP,
    X_START_NS,
    X_TARGETED,
    X_TIME_SHIFT,
)
from tracereplay.replay.vectors import clear, count_key, find_key, fold_orders, intern_vector, sum_vector

BIO_INLINE_VECS = 4
"""Vecs that a bio has within itself (include/linux/bio.h)."""


# ---------------------------------------------------------------- tags
@hot
def tag_of(kind, flags, time):
    """Tag of a targeted page or block."""
    return TAG_TARGETED | kind | (flags & TAG_FLAGS) << TAG_FLAGS_SHIFT | time << TAG_TIME_SHIFT


@hot
def arrival_units(x, ts_ns):
    """Time of an arrival as a tag has it, within the present time bin."""
    first = x[X_BIN] * x[X_BIN_UNITS]
    return min(max((ts_ns - x[X_START_NS]) >> x[X_TIME_SHIFT], first), first + x[X_BIN_UNITS] - 1)


@hot
def count_tagged(e, v, tag, pages):
    """Count an ended request of ``pages`` pages that kept no row."""
    units = tag >> TAG_TIME_SHIFT
    kind = KIND_WHOLE if tag >> TAG_FLAGS_SHIFT & OF_BIO else 0
    key = v << BIN_BITS | kind << KIND_SHIFT | units * e.x[X_BIN_FACTOR] >> FACTOR_BITS
    arrival = e.x[X_START_NS] + (units << e.x[X_TIME_SHIFT])
    count_key(e.t, e.x, key, arrival, pages << WHO_CPU_BITS, NO_CALLER, 0)


# ---------------------------------------------------------------- rows
@inner
def new_row(e):
    """A row for a request; its number. There is room."""
    r = e.x[X_ROW_FREE]
    if r >= 0:
        e.x[X_ROW_FREE] = e.rows[r * ROW_WORDS + ROW_NEXT]
    else:
        r = e.x[X_ROW_TOP]
        e.x[X_ROW_TOP] += 1
    at = r * ROW_WORDS
    e.rows[at + ROW_BIN] = e.x[X_BIN]
    e.rows[at + ROW_BLOCKS] = 0
    clear(e.rows[at + ROW_COUNTERS : at + ROW_WORDS])
    return r


@hot
def introduce(e, r, op):
    """Note whose request it is that got row ``r``."""
    at = r * ROW_WORDS
    e.rows[at + ROW_DELAY] = 0
    e.rows[at + ROW_ARRIVAL] = op.ts_ns
    e.rows[at + ROW_WHO] = np.int64(op.pages) << WHO_CPU_BITS | np.int64(op.cpu)
    e.rows[at + ROW_CALLER] = op.caller
    e.rows[at + ROW_BIO] = bio_of(e) if op.flags & OF_BIO else NO_BIO


@inner
def drop_row(e, r):
    """Free a request's row."""
    e.rows[r * ROW_WORDS + ROW_NEXT] = e.x[X_ROW_FREE]
    e.rows[r * ROW_WORDS + ROW_BLOCKS] = 0
    e.x[X_ROW_FREE] = r


@hot
def charge_targeted(e, row):
    """Add what a row's vector does not hold to the targeted requests' total."""
    fold_orders(e.x[X_TARGETED : X_TARGETED + NR_SLOTS], row)


@inner
def end_request(e, r):
    """Account a request that is over, and free its row."""
    at = r * ROW_WORDS
    row = e.rows[at + ROW_COUNTERS : at + ROW_WORDS]
    charge_targeted(e, row)
    v = intern_vector(e.t, e.x, row)
    bio = e.rows[at + ROW_BIO]
    key = v << BIN_BITS | min(bio, KIND_PIECE) << KIND_SHIFT | e.rows[at + ROW_BIN]
    count_key(
        e.t,
        e.x,
        key,
        e.rows[at + ROW_ARRIVAL],
        e.rows[at + ROW_WHO],
        e.rows[at + ROW_CALLER],
        e.rows[at + ROW_DELAY],
    )
    if bio >= BIO_PIECE:
        g = find_key(e.t, e.x[X_GK], e.x[X_GROUP_ROOM], bio - BIO_PIECE + 1)
        so_far = e.t[e.x[X_GV] + g]
        e.t[e.x[X_GV] + g] = 1 + (v if so_far <= 0 else sum_vector(e.t, e.x, so_far - 1, v, row))
        e.t[e.x[X_GL] + g] -= 1
        end_bio(e, g)
    drop_row(e, r)


# ---------------------------------------------------------------- bios in pieces
@inner
def announce_piece(e, bio, to_come):
    """The next request of a bio is a piece of number ``bio``. There is room."""
    g = find_key(e.t, e.x[X_GK], e.x[X_GROUP_ROOM], bio + 1)
    if e.t[e.x[X_GK] + g] == 0:
        e.t[e.x[X_GK] + g] = bio + 1
        e.x[X_GROUPS] += 1
    e.t[e.x[X_GV] + g] = max(e.t[e.x[X_GV] + g], 0)
    e.t[e.x[X_GC] + g] = to_come
    e.x[X_PIECE] = bio + 1


@inner
def bio_of(e):
    """ROW_BIO of the request of a bio that begins."""
    piece = e.x[X_PIECE]
    if piece == 0:
        return WHOLE_BIO
    e.x[X_PIECE] = 0
    e.t[e.x[X_GL] + find_key(e.t, e.x[X_GK], e.x[X_GROUP_ROOM], piece)] += 1
    return piece - 1 + BIO_PIECE


@inner
def pass_piece(e):
    """A piece was announced whose request is not targeted: the bio is counted without it."""
    g = find_key(e.t, e.x[X_GK], e.x[X_GROUP_ROOM], e.x[X_PIECE])
    e.x[X_PIECE] = 0
    end_bio(e, g)


@inner
def end_bio(e, g):
    """Count a group once all its pieces came and ended, if any was targeted."""
    if e.t[e.x[X_GL] + g] > 0 or e.t[e.x[X_GC] + g] > 0:
        return
    v = e.t[e.x[X_GV] + g] - 1
    if v >= 0:
        count_key(e.t, e.x, v << BIN_BITS | KIND_BIO << KIND_SHIFT, 0, 0, 0, 0)
    e.t[e.x[X_GV] + g] = -1


@hot
def build_bio(e, row, flags, pages, blocks):
    """What a path's request takes beside its pages: a bio with room for a vec a page, and a vec for each block.

    ``crypt_alloc_buffer`` of drivers/md/dm-crypt.c: ``bio_alloc_bioset`` and ``bio_add_page``.
    """
    if flags & ON_PATH:
        counters = row * ROW_WORDS + ROW_COUNTERS
        e.rows[counters + BIOS] += 1
        e.rows[counters + BVEC_ARRAYS] += pages > BIO_INLINE_VECS
        e.rows[counters + BIO_VECS] += blocks
