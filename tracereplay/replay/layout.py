"""State of the replay loop: flat arrays, as the machine's (imports no Numba).

Counters are charged to the row that is current: the background's, or that of the live request being served. A request
served by one block keeps no row while it lives, only the number of its allocation's counter vector; one served by
several blocks keeps a row until its last block is released. At a request's end its vector is looked up in a table of
distinct vectors, and (vector, time bin of its arrival) is counted. So percentiles and re-pricing stay exact in little
memory (architecture.md section 4).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.demand.stream import MAX_REQUEST_PAGES
from tracereplay.machine.counters import NR_COUNTERS, NR_SLOTS
from tracereplay.machine.layout import I32, I64
from tracereplay.strategies.contract import BLOCK_WORDS, REQ_WORDS


class Loop(NamedTuple):
    """Arrays of one replay."""

    fm: I32
    """Frame map by key: 0 nothing live, v > 0 a background page at frame v - 1, v < 0 block number -v - 1."""
    bl: I32
    """Live blocks, BL_*; free ones are chained."""
    rq: I32
    """Live requests that keep a row, RQ_*; free ones are chained."""
    rows: I64
    """Their counters, [request, NR_SLOTS]."""
    vt: I64
    """Distinct vectors, [vector, NR_COUNTERS]."""
    vh: I32
    """Hash table into ``vt``: vector + 1, 0 empty. A power of two long."""
    ck: I64
    """Hash table of (vector, bin) keys + 1, 0 empty."""
    cv: I64
    """Requests per key."""
    pk: I64
    """Hash table of pairs (allocation vector, release vector) + 1."""
    pv: I32
    """Their sum's vector."""
    bins: I64
    """Background counters at the end of each time bin (cumulative), [bin, NR_SLOTS]."""
    targeted: I64
    """Counters of ended targeted requests, [NR_SLOTS]."""
    scratch: I64
    """Row for a release of a one-block request."""
    req: I64
    out: I64
    block: I64
    es: I64
    """Scalars, E_*."""


# ---- bl: a live block
BL_FRAME, BL_ORDER, BL_LEFT, BL_OWNER, BL_FLAGS, BL_EXTENT, BL_BIN, BL_WORDS = range(8)
"""First frame, order, pages still live, row or vector of a targeted request, flags, order of the extent whose head
alone is in the frame map (-1: every page is), time bin of the arrival."""
BLF_TARGETED, BLF_ROW = 1, 2
"""Belongs to a targeted request; BL_OWNER is a row (else a vector). Request flags lie above, from bit 8."""
BLF_REQUEST_SHIFT = 8

# ---- rq
RQ_BLOCKS, RQ_BIN, RQ_NEXT, RQ_WORDS = range(4)

# ---- es
(
    E_REASON,
    E_BLOCK_FREE,  # head of the chain of free blocks, -1 none
    E_BLOCK_TOP,  # blocks never used yet start here
    E_BLOCK_LIVE,
    E_REQ_FREE,
    E_REQ_TOP,
    E_VECTORS,
    E_KEYS,
    E_PAIRS,
    E_START_NS,
    E_BIN_NS,
    E_BIN,  # time bin of the current operation
    E_NEXT_BIN_NS,
    E_WASTE,
    E_WASTE_PEAK,
    E_REQUESTS,
    E_PAGES,
    E_TARGETED,
    E_TARGETED_PAGES,
    E_FAILED,  # targeted requests that got nothing
    E_BACKGROUND_FAILED,
    E_ORPHANS,  # frees of pages that no block serves, because their request failed here
    E_HELD_FREES,
    E_HELD_ELSEWHERE,  # of those, served by another held block than the trace's
    E_HELD_MISSING,  # of those, not served: nothing of that order was held
    E_CENSORED,  # targeted requests still live at the end
    E_UNSEEN_PAGES,
    E_WORDS,
) = range(28)

# ---- es[E_REASON]
RUNNING, MORE_BLOCKS, MORE_REQUESTS, MORE_VECTORS, MACHINE_ERROR = range(5)

SPARE_BLOCKS = MAX_REQUEST_PAGES + 64
"""Room for blocks that every operation may count on."""


def new_loop(frames: int, start_ns: int, end_ns: int, bins: int) -> Loop:
    """Arrays for a replay of keys below ``frames`` between two times, with ``bins`` time bins."""
    es = np.zeros(E_WORDS, np.int64)
    es[E_BLOCK_FREE] = -1
    es[E_REQ_FREE] = -1
    es[E_START_NS] = start_ns
    es[E_BIN_NS] = max(1, -(-(end_ns - start_ns + 1) // bins))
    es[E_NEXT_BIN_NS] = start_ns + es[E_BIN_NS]
    return Loop(
        fm=np.zeros(max(frames, 1), np.int32),
        bl=np.zeros((2 * SPARE_BLOCKS, BL_WORDS), np.int32),
        rq=np.zeros((256, RQ_WORDS), np.int32),
        rows=np.zeros((256, NR_SLOTS), np.int64),
        vt=np.zeros((1024, NR_COUNTERS), np.int64),
        vh=np.zeros(4096, np.int32),
        ck=np.zeros(4096, np.int64),
        cv=np.zeros(4096, np.int64),
        pk=np.zeros(4096, np.int64),
        pv=np.zeros(4096, np.int32),
        bins=np.zeros((bins, NR_SLOTS), np.int64),
        targeted=np.zeros(NR_SLOTS, np.int64),
        scratch=np.zeros(NR_SLOTS, np.int64),
        req=np.zeros(REQ_WORDS, np.int64),
        out=np.zeros(2 * MAX_REQUEST_PAGES, np.int64),
        block=np.zeros(BLOCK_WORDS, np.int64),
        es=es,
    )


def longer(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The array with twice the rows, the new ones zero."""
    grown = np.zeros((2 * array.shape[0], *array.shape[1:]), array.dtype)
    grown[: array.shape[0]] = array
    return grown
