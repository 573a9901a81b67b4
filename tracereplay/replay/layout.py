"""State of the replay loop: five flat arrays, as the machine's (imports no Numba).

Counters are charged to the row that is current: the background's, or that of the live request being served. A request
served by one block keeps no row while it lives, only the number of its allocation's counter vector; one served by
several blocks keeps a row until its last block is released. At a request's end its vector is looked up in a table of
distinct vectors, and (vector, time bin of its arrival) is counted; each vector has its first request as an example. So
percentiles and re-pricing stay exact in little memory (architecture.md section 4).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tracereplay.demand.stream import MAX_REQUEST_PAGES
from tracereplay.machine.counters import NR_COUNTERS, NR_SLOTS
from tracereplay.machine.layout import I32, I64
from tracereplay.strategies.contract import BLOCK_WORDS, REQ_WORDS


class Loop(NamedTuple):
    """Arrays of one replay."""

    fm: I32
    """Frame map by key: 0 nothing live; v > 0 heads the block at frame (v & FM_FRAME) - 1, of the order in its page
    record, targeted with FM_TARGETED; v < 0 a page of block number -v - 1."""
    bl: I32
    """Targeted blocks that come back page by page, BL_WORDS each; free ones are chained."""
    rows: I64
    """Live requests that keep a row, ROW_WORDS each: their counters, then ROW_*; free ones are chained."""
    t: I64
    """Tables of vectors and their counts, the agenda and the parked requests, one after another (X_VT and the following
    offsets)."""
    x: I64
    """Scalars X_*, then the areas X_REQ, X_BLOCK, X_SCRATCH, X_TARGETED, X_WORKER, X_OUT, X_BINS."""


# ---- fm
FM_TARGETED = 1 << 30
FM_FRAME = FM_TARGETED - 1
"""A targeted block keeps owner and tag in its page record, whose links are idle while it is in use."""

# ---- owner and tag of a targeted page or block
TAG_ROW = 1
"""The owner is a row; else it is the vector of the allocation of a request that this block alone serves."""
TAG_TARGETED = 2
"""Always set: a tag of 0 means none."""
TAG_FLAGS_SHIFT = 2
TAG_FLAGS = 0x3FF
"""Request flags, from bit 2."""
TAG_TIME_SHIFT = 12
"""Time of the arrival in TIME_BITS, from bit 12 (requests.py); with TAG_ROW the row has it, and here are these two:"""
TAG_DELAYED = 1 << TAG_TIME_SHIFT
"""Block of a request that waited: its pages are freed later than recorded, by the row's ROW_DELAY."""
TAG_PARKED = 2 << TAG_TIME_SHIFT
"""Not a block but a page of a request that waits: PG_*."""

# ---- bl: a targeted block that does not serve just one extent of its order
BL_FRAME, BL_ORDER, BL_LEFT, BL_OWNER, BL_TAG, BL_PAGES, BL_WORDS = 0, 1, 2, 3, 4, 5, 8
"""First frame, order, pages still live, owner and tag (0: unused), pages that the request has in it."""

# ---- bl: a page of a request that waits, in the place of a block
PG_KEY, PG_CPU, PG_ORDER, PG_FRAME, PG_TAG, PG_NEXT, PG_LOW, PG_HIGH = range(8)
"""Key, -1 once the trace freed it; on which CPU that was; order and first frame of the block that the request holds
under the page's number (page 0 keeps block 0, and so on); tag; entry of the request's next page, -1 at the last; when
the trace freed it, ns, in two words of 31 bits."""
assert PG_TAG == BL_TAG

# ---- rows
ROW_BLOCKS, ROW_BIN, ROW_NEXT = range(3)
"""Blocks not yet released, time bin of the arrival, chain of free rows."""
ROW_COUNTERS = 3
ROW_DELAY, ROW_ARRIVAL, ROW_WHO, ROW_CALLER, ROW_BIO, ROW_END = range(
    ROW_COUNTERS + NR_SLOTS, ROW_COUNTERS + NR_SLOTS + 6
)
"""How much later than recorded the request's pages are freed, since it waited, ns; when it came, ns; its pages and CPU
(WHO_CPU_BITS); its caller; NO_BIO, WHOLE_BIO or BIO_PIECE plus the number of the bio that it is a piece of."""
NO_BIO, WHOLE_BIO, BIO_PIECE = range(3)
WHO_CPU_BITS = 16
ROW_WORDS = -(-ROW_END // 8) * 8
"""Whole cache lines; a plain free touches the first one only: header and first five counters."""

# ---- x: scalars
(
    X_REASON,
    X_BLOCK_FREE,  # head of the chain of free blocks, -1 none
    X_BLOCK_TOP,  # blocks never used yet start here
    X_BLOCK_LIVE,
    X_BLOCK_ROOM,  # blocks that bl has room for
    X_ROW_FREE,
    X_ROW_TOP,
    X_ROW_ROOM,
    X_VECTORS,
    X_VECTOR_ROOM,
    X_KEYS,
    X_KEY_ROOM,
    X_PAIRS,
    X_PAIR_ROOM,
    X_VT,  # offset in t: vectors, [vector, NR_COUNTERS]
    X_VH,  # hash table of 4 * X_VECTOR_ROOM: vector + 1
    X_VX,  # EX_WORDS per vector: the first request that ended with it
    X_CK,  # hash table of X_KEY_ROOM: (vector << BIN_BITS | kind << KIND_SHIFT | bin) + 1
    X_CV,  # requests per key
    X_PK,  # hash table of X_PAIR_ROOM: (allocation vector << 32 | release vector) + 1
    X_PV,  # number of their sum's vector
    X_GK,  # hash table of X_GROUP_ROOM: number of a bio in pieces + 1
    X_GV,  # number of the vector of its pieces that ended + 1; 0: none did, -1: all did, and it is counted
    X_GL,  # its pieces that live
    X_GC,  # its pieces that are still to come
    X_GROUPS,
    X_GROUP_ROOM,
    X_PIECE,  # the next request of a bio is a piece of this one: its number + 1
    X_AG,  # the agenda: a heap of AG_WORDS each (agenda.py)
    X_AGENDA,  # its entries
    X_AGENDA_ROOM,
    X_SL,  # parked requests, SL_WORDS each, behind those that head their lists (waiting.py)
    X_SLOT_ROOM,
    X_START_NS,
    X_BIN_NS,
    X_NR_BINS,
    X_TIME_SHIFT,  # a unit of TIME_BITS is 2^this ns
    X_BIN_UNITS,  # whole units in a time bin
    X_BIN_FACTOR,  # units * this >> FACTOR_BITS is the bin
    X_BIN,  # time bin of the current operation
    X_NEXT_BIN_NS,
    X_WASTE,
    X_WASTE_PEAK,
    X_REQUESTS,
    X_PAGES,
    X_TARGETED_REQUESTS,
    X_TARGETED_PAGES,
    X_FAILED,  # targeted requests that got nothing
    X_BACKGROUND_FAILED,
    X_ORPHANS,  # frees of pages that no block serves, because their request failed here
    X_HELD_FREES,
    X_HELD_ELSEWHERE,  # of those, served by another held block than the trace's
    X_HELD_MISSING,  # of those, not served: nothing of that order was held
    X_CENSORED,  # targeted requests still live at the end
    X_UNSEEN_PAGES,
    X_INIT,  # addresses of the strategy's functions, 0 for one that it lacks
    X_ALLOCATE,
    X_RELEASE,
    X_TIMER,
    X_SHRINK,
    X_FINISH,
    X_SEQUENCE,  # of the entries of the agenda
    X_PARKED,  # requests that wait now
    X_PENDING,  # frees on the agenda
    X_WAITED,  # requests that waited and then got on
    X_WAIT_NS,  # how long, together
    X_WAIT_LONGEST,
    X_CALLS,  # calls of waiting requests and timers since time last went on
    X_PROGRESS,  # when a request last ended a wait or a block was given back, ns
    X_WAITING,  # at the end: requests that still wait
    X_WAITING_PAGES,  # that these hold
    X_STUCK,  # of those, for mutex or pool
    X_STUCK_SINCE,  # when the last of those that hold something began to wait, ns
    X_PATH_HELD,  # at the end: blocks of the path that somebody else holds
) = range(74)
# ---- x: areas
X_REQ = 96
X_BLOCK = X_REQ + REQ_WORDS
X_SCRATCH = X_BLOCK + BLOCK_WORDS
X_TARGETED = X_SCRATCH + NR_SLOTS
X_WORKER = X_TARGETED + NR_SLOTS
X_OUT = X_WORKER + NR_SLOTS
X_BINS = X_OUT + 2 * MAX_REQUEST_PAGES
"""BIN_* at the end of each time bin (cumulative), [bin, BIN_WORDS], to the end of the array."""
BIN_BACKGROUND, BIN_WORKER, BIN_REQUESTS = 0, NR_SLOTS, 2 * NR_SLOTS
BIN_PAGES = BIN_REQUESTS + 1
BIN_WORDS = BIN_PAGES + 1
"""Words of a time bin: counters of the background, of the strategy's own work; requests that came and their pages."""
BIN_BITS = 20
KIND_SHIFT = 18
KIND_WHOLE, KIND_PIECE, KIND_BIO = 1, 2, 3
"""Kinds of keys: 0 a request of no bio; one that is a whole bio; a piece of one; no request, but a bio in pieces."""
TIME_BITS = 19
FACTOR_BITS = 40
EX_ARRIVAL, EX_WHO, EX_CALLER, EX_DELAY, EX_WORDS = range(5)
"""Of a request: ROW_ARRIVAL, ROW_WHO (never 0), ROW_CALLER, ROW_DELAY."""
NO_CALLER = 1 << 32
"""Neither caller nor CPU were kept, and the arrival in units of 2^X_TIME_SHIFT ns only."""

# ---- t: the agenda
AG_TIME, AG_RANK, AG_ITEM, AG_WORDS = range(4)
"""When, ns; class, CPU and sequence in one number; block (a release) or slot (a deadline)."""
AG_RELEASE, AG_DEADLINE = 0, 2
"""Classes; 1 are the strategy's timers, which the machine keeps."""
AG_CLASS_SHIFT, AG_CPU_SHIFT = 60, 48

# ---- t: parked requests
SL_REQ = 0
"""The words of its request, REQ_WORDS."""
SL_ROW, SL_PAGES, SL_NEXT, SL_PREV, SL_SEQUENCE, SL_ALARM, SL_LIST = range(REQ_WORDS, REQ_WORDS + 7)
"""Its row; entry of its first page in bl; neighbours on its list; sequence of its wait; when the agenda has an entry
for it, ns, 0 for never; its list."""
SL_WORDS = 24
LIST_FREE, LIST_MUTEX, LIST_POOL, LIST_TIME, LIST_READY, NR_LISTS = range(6)
"""Slots 0 to NR_LISTS - 1 head lists: free slots, requests by what they wait for (WAIT_*), those to be called again."""

# ---- x[X_REASON]
RUNNING, MORE_BLOCKS, MORE_ROWS, MORE_TABLES, MACHINE_ERROR = range(5)

SPARE_BLOCKS = MAX_REQUEST_PAGES + 64
"""Room for blocks that every request may count on."""
SPARE_ENTRIES = MAX_REQUEST_PAGES + 64
"""Room on the agenda that every operation may count on."""
END_PATIENCE_NS = 10_000_000_000
"""How long after the last progress requests that still wait at the end of the trace are seen through."""
MAX_CALLS = 1 << 20
"""Calls of waiting requests and timers at one simulated time before a strategy is said to make no progress."""


def new_loop(frames: int, start_ns: int, end_ns: int, bins: int) -> Loop:
    """Arrays for a replay of keys below ``frames`` between two times, with ``bins`` time bins."""
    x = np.zeros(X_BINS + bins * BIN_WORDS, np.int64)
    x[X_BLOCK_FREE] = -1
    x[X_ROW_FREE] = -1
    x[X_BLOCK_ROOM] = 2 * SPARE_BLOCKS
    x[X_ROW_ROOM] = 256
    x[X_START_NS] = start_ns
    x[X_TIME_SHIFT], x[X_BIN_NS] = time_bins(end_ns - start_ns, bins)
    x[X_BIN_UNITS] = x[X_BIN_NS] >> x[X_TIME_SHIFT]
    x[X_BIN_FACTOR] = -(-(1 << FACTOR_BITS) // int(x[X_BIN_UNITS]))
    x[X_NR_BINS] = bins
    x[X_NEXT_BIN_NS] = start_ns + x[X_BIN_NS]
    return Loop(
        fm=np.zeros(max(frames, 1), np.int32),
        bl=np.zeros(2 * SPARE_BLOCKS * BL_WORDS, np.int32),
        rows=new_rows(256),
        t=new_tables(x, 1024, 4096, 4096, 256, 2 * SPARE_ENTRIES, 64),
        x=x,
    )


def time_bins(span_ns: int, bins: int) -> tuple[int, int]:
    """Over a span: the shift of a unit of time such that TIME_BITS hold all, and the length of a time bin in ns."""
    length = max(1, -(-(span_ns + 1) // bins))
    shift = 0
    while bins * -(-length >> shift) > 1 << TIME_BITS:
        shift += 1
    return shift, -(-length >> shift) << shift


def new_tables(x: I64, vectors: int, keys: int, pairs: int, groups: int, agenda: int, slots: int) -> I64:
    """Empty tables with room for so many entries (the first four powers of two); their offsets are put into ``x``."""
    offset = 0
    for place, words in (
        (X_VT, vectors * NR_COUNTERS),
        (X_VH, 4 * vectors),
        (X_VX, EX_WORDS * vectors),
        (X_CK, keys),
        (X_CV, keys),
        (X_PK, pairs),
        (X_PV, pairs),
        (X_GK, groups),
        (X_GV, groups),
        (X_GL, groups),
        (X_GC, groups),
        (X_AG, AG_WORDS * agenda),
        (X_SL, SL_WORDS * slots),
    ):
        x[place] = offset
        offset += words
    x[X_VECTOR_ROOM], x[X_KEY_ROOM], x[X_PAIR_ROOM], x[X_GROUP_ROOM] = vectors, keys, pairs, groups
    x[X_AGENDA_ROOM], x[X_SLOT_ROOM] = agenda, slots
    t = np.zeros(offset, np.int64)
    for head in range(NR_LISTS):
        chain_slots(t, x, head, range(0))
    chain_slots(t, x, LIST_FREE, range(NR_LISTS, slots))
    return t


def chain_slots(t: I64, x: I64, head: int, slots: range) -> None:
    """Make ``slots`` the whole of a list."""
    ring = [head, *slots]
    for a, b in zip(ring, [*ring[1:], head], strict=True):
        t[x[X_SL] + a * SL_WORDS + SL_NEXT] = b
        t[x[X_SL] + b * SL_WORDS + SL_PREV] = a


def new_rows(n: int) -> I64:
    """``n`` empty rows, on cache-line boundaries."""
    words = np.zeros(n * ROW_WORDS + 8, np.int64)
    skip = -words.ctypes.data // 8 % 8
    return words[skip : skip + n * ROW_WORDS]
