"""What was charged up to the present operation of a replay: a look at its counters that ends nothing."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracereplay.compiled import kernel
from tracereplay.machine.buddy import owner_of
from tracereplay.machine.counters import NR_COUNTERS
from tracereplay.replay import layout as at
from tracereplay.replay.atomics import without_locks
from tracereplay.replay.blocks import block_word
from tracereplay.replay.layout import (
    BL_OWNER,
    BL_TAG,
    FM_FRAME,
    FM_TARGETED,
    LIST_FREE,
    NR_LISTS,
    ROW_BLOCKS,
    ROW_COUNTERS,
    ROW_WORDS,
    SL_LIST,
    SL_ROW,
    SL_WORDS,
    TAG_ROW,
    X_BLOCK_TOP,
    X_ROW_TOP,
    X_SL,
    X_SLOT_ROOM,
)

if TYPE_CHECKING:
    from tracereplay.machine.layout import I64
    from tracereplay.replay.engine import Engine


@kernel
def charged_live(e, m, rows, vectors):
    """Of targeted requests that are not over: add the counters of their rows to ``rows`` [NR_COUNTERS], and count in
    ``vectors`` those that keep no row by the vector of their allocation."""
    for r in range(e.x[X_ROW_TOP]):
        if e.rows[r * ROW_WORDS + ROW_BLOCKS] > 0:
            for i in range(NR_COUNTERS):
                rows[i] += e.rows[r * ROW_WORDS + ROW_COUNTERS + i]
    for s in range(NR_LISTS, e.x[X_SLOT_ROOM]):
        slot = e.x[X_SL] + s * SL_WORDS
        if e.t[slot + SL_LIST] != LIST_FREE:
            for i in range(NR_COUNTERS):
                rows[i] += e.rows[e.t[slot + SL_ROW] * ROW_WORDS + ROW_COUNTERS + i]
    for h in range(e.x[X_BLOCK_TOP]):
        tag = block_word(e, h, BL_TAG)
        if tag != 0 and not tag & TAG_ROW:
            vectors[block_word(e, h, BL_OWNER)] += 1
    for key in range(e.fm.shape[0]):
        if e.fm[key] >= FM_TARGETED:
            owner, tag = owner_of(m, (np.int64(e.fm[key]) & FM_FRAME) - 1)
            if not tag & TAG_ROW:
                vectors[owner] += 1


def charged(engine: Engine) -> I64:
    """Counters of targeted requests and of the strategy's own work so far, [NR_COUNTERS]."""
    x, t = engine.arrays.x, engine.arrays.t
    many = int(x[at.X_VECTORS])
    keys = t[x[at.X_CK] : x[at.X_CK] + x[at.X_KEY_ROOM]]
    used = np.flatnonzero(keys)
    ended = t[x[at.X_CV] : x[at.X_CV] + x[at.X_KEY_ROOM]][used]
    keys = keys[used] - 1
    of_request = keys >> at.KIND_SHIFT & at.KIND_BIO != at.KIND_BIO
    counts = np.zeros(many, np.int64)
    np.add.at(counts, (keys >> at.BIN_BITS)[of_request], ended[of_request])
    rows = np.zeros(NR_COUNTERS, np.int64)
    charged_live(engine.arrays, engine.machine, rows, counts)
    vectors = t[: many * NR_COUNTERS].reshape(-1, NR_COUNTERS)
    rows += counts @ vectors + x[at.X_WORKER : at.X_WORKER + NR_COUNTERS]
    return without_locks(rows) if engine.pcp_protection == "llist" else rows
