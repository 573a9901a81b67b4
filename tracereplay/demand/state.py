"""Flat state of reconstruction: record layouts, counters and status codes that the compiled passes share.

No Numba here. Everything the passes touch hangs off one :class:`Work` tuple of arrays, so that a pass takes one
argument, allocates nothing and returns a status code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tracereplay.demand.stream import OP

Array = np.ndarray[Any, np.dtype[Any]]

# ---------------------------------------------------------------- frames
FRAME = np.dtype(
    [
        ("ts", np.int64),  # HEAD: allocated at; KNOWN: last release
        ("span", np.uint32),  # in 1024 ns: KNOWN: time held before that release, or from it to the last refill
        ("cpu", np.int16),  # HEAD: allocated on; KNOWN: last free, refill or drain
        ("state", np.uint8),
        ("order", np.uint8),  # HEAD: order of the block that starts here
    ],
    align=True,
)
assert FRAME.itemsize == 16

NEVER = 0  # nothing seen of this frame yet
HEAD = 1  # first page of a live block
TAIL = 2  # other page of a live block
KNOWN = 3  # known not to be allocated: freed, refilled or drained
STATE_MASK = 3
COLOUR = 4  # which of the frame's two keys is, or was last, in use
FLIPPED = 8  # the second key was used at least once
REFILLED = 16  # KNOWN: ``span`` runs from the release to the last refill or drain
KEPT = 32  # HEAD: lifetimes of this block are wanted (lifetime_pass.py)

# ---------------------------------------------------------------- tasks, bursts, CPUs
TASK = np.dtype(
    [
        ("own_ns", np.int64),  # time of its own between visible events: see bursts.charge
        ("last_ns", np.int64),
        ("pid", np.uint32),
        ("comm", np.int32),
        ("gfp", np.uint32),  # cache: caller of the last gfp
        ("caller", np.int32),
        ("cpu", np.int16),  # where it was last seen
        ("group", np.uint8),  # of tasks that the target does not tell apart
    ],
    align=True,
)
BURST = np.dtype(
    [
        ("first", np.int64),  # sequence of the FIRST operation; -1: no burst open
        ("last", np.int64),  # sequence of the last extent
        ("arrival_ns", np.int64),
        ("seen_ns", np.int64),  # last event of the burst
        ("own_ns", np.int64),  # the task's own time at that event
        ("caller", np.int32),
        ("pages", np.int32),
        ("extents", np.int32),
        ("order", np.int16),  # of the last attempt
        ("failed", np.uint8),  # an attempt of this burst failed
        ("just_failed", np.uint8),
        ("cpu", np.int16),  # unseen runs: the CPU of the request
    ],
    align=True,
)
CPU = np.dtype([("ts", np.int64), ("task", np.int32), ("kind", np.uint8), ("interrupt", np.uint8)], align=True)

NORMAL, ATOMIC, INFERRED = 0, 1, 2
BURSTS_PER_TASK = 3
"""A task has a burst of its own context, one of GFP_ATOMIC (often an interrupt's), and a run of unseen frees."""

# ---------------------------------------------------------------- ring of held-back operations
LINK = np.dtype([("next", np.int32), ("owner", np.int32), ("extents", np.int32)], align=True)
"""``next``: distance to the next extent, 0 for the last. ``owner``: open burst, -1 once closed."""
EXTENT = 9  # ring only: an extent that its FIRST emits
DEAD = 0  # ring only: nothing
RING = 1 << 17
RING_MARGIN = 1 << 13
"""An event makes at most 2^10 pieces of two operations; room for a few is kept."""

# ---------------------------------------------------------------- callers
SINGLE = 1  # each allocation is a request (user page faults)
SINGLE_OK = 2  # tolerates single pages: orders are extents, not requirements
CRYPT = 4  # dm-crypt's crypt_alloc_buffer: size limit and order rules apply
CALLERS = 1 << 14
HISTOGRAMS = 1 << 10
BINS = 160
"""Gap histograms: four bins an octave of nanoseconds."""
PATH = 8  # its requests are on the path
UNSEEN_CALLER = 0
OTHER_CALLER = 1

CLASS_MASK = 0x00FFFFFF & ~(0x40000 | 0x80000 | 0x10000 | 0x2000)
"""A gfp class leaves out COMP, NOMEMALLOC, NORETRY and NOWARN, in which the compound attempt and the mempool
fallback of one dm-crypt buffer differ, and the bits above 23, whose meaning depends on the kernel."""
HASH = 0x9E3779B1
"""Multiplier of the open-addressing tables (2^32 over the golden ratio)."""
PIDS = 1 << 22
"""PID_MAX_LIMIT; higher numbers of foreign traces wrap."""
NO_STACK = 0xFFFFFFFF

CRYPT_PAGES = 256
"""BIO_MAX_VECS: the largest buffer of crypt_alloc_buffer (drivers/md/dm-crypt.c)."""
SIZES = 4097
"""Bio parts are counted by pages up to this."""

# ---------------------------------------------------------------- bio side events
ACTION = 1  # the task did something visible
COMPLETION = 2  # an interrupt (or the task) completed I/O
PARTS = 3  # a = pages, b = +1 or -1: WRITE parts queued to a dm-crypt device
PART_DONE = 4  # a = pages
PATH_ALLOC = 5  # a = pages, b = key, c = caller
PATH_FREE = 6  # a = pages, b = key
PATH_PIECE = 7  # a = number of a bio, b = its pieces to come: the next request is one of its pieces
SIDE = np.dtype(
    [
        ("ts_ns", np.int64),
        ("a", np.int32),
        ("b", np.int32),
        ("c", np.int32),
        ("pid", np.uint32),
        ("cpu", np.int16),
        ("what", np.uint8),
        ("pad", np.uint8),
    ],
    align=True,
)

# ---------------------------------------------------------------- how a block ended
COMPLETE, LEFT_CENSORED, RIGHT_CENSORED, BROKEN, UNSEEN_LIFE = range(5)
CENSORING = ("complete", "left_censored", "right_censored", "broken", "unseen")

# ---------------------------------------------------------------- scalars of the passes (int64)
(
    S_HEAD_SEQ,
    S_TAIL_SEQ,
    S_OUT_N,
    S_PAGE_I,
    S_SIDE_I,
    S_NOW,
    S_START_NS,
    S_FRAMES,
    S_TASKS_N,
    S_LOSS_I,
    S_LOSS_END,
    S_ARG_TASK,
    S_ARG_GFP,
    S_ALIAS,
    S_AGE_NS,
    S_FIXED_GAP,
    S_PART_SIZES,
    S_LEARN_I,
    S_LEARN_J,
    S_TRUST,
    S_SLACK,
    S_PATH_GFP,
) = range(22)
"""Indices of ``Work.scalar``: positions, limits, and what a status refers to."""
SCALARS = 22

COUNTERS = (
    "events",
    "allocations",
    "allocated_pages",
    "failed",
    "frees",
    "matched",
    "left_censored",
    "unseen_frees",
    "lost_frees",
    "matched_pages",
    "left_censored_pages",
    "unseen_pages",
    "lost_pages",
    "reused",
    "reused_pages",
    "reused_lost",
    "partial_frees",
    "covering_frees",
    "ignored_free_batched",
    "ignored_zone_locked",
    "ignored_drain",
    "ignored_extfrag",
    "ignored_bulk",
    "live_blocks",
    "live_pages",
    "malformed",
    "cut_gap",
    "cut_action",
    "cut_class",
    "cut_order",
    "cut_limit",
    "cut_loss",
    "cut_age",
    "cut_forced",
    "cut_key",
    "cut_bio",
    "joined_bio",
    "agreed_bio",
    "failed_requests",
    "second_keys",
    "bio_live",
    "crypt_requests",
    "inconsistent",
)
"""Names of ``Work.counts``, in the order of the indices below."""
(
    C_EVENTS,
    C_ALLOCATIONS,
    C_ALLOCATED_PAGES,
    C_FAILED,
    C_FREES,
    C_MATCHED,
    C_LEFT_CENSORED,
    C_UNSEEN_FREES,
    C_LOST_FREES,
    C_MATCHED_PAGES,
    C_LEFT_CENSORED_PAGES,
    C_UNSEEN_PAGES,
    C_LOST_PAGES,
    C_REUSED,
    C_REUSED_PAGES,
    C_REUSED_LOST,
    C_PARTIAL_FREES,
    C_COVERING_FREES,
    C_IGNORED_FREE_BATCHED,
    C_IGNORED_ZONE_LOCKED,
    C_IGNORED_DRAIN,
    C_IGNORED_EXTFRAG,
    C_IGNORED_BULK,
    C_LIVE_BLOCKS,
    C_LIVE_PAGES,
    C_MALFORMED,
    C_CUT_GAP,
    C_CUT_ACTION,
    C_CUT_CLASS,
    C_CUT_ORDER,
    C_CUT_LIMIT,
    C_CUT_LOSS,
    C_CUT_AGE,
    C_CUT_FORCED,
    C_CUT_KEY,
    C_CUT_BIO,
    C_JOINED_BIO,
    C_AGREED_BIO,
    C_FAILED_REQUESTS,
    C_SECOND_KEYS,
    C_BIO_LIVE,
    C_CRYPT_REQUESTS,
    C_INCONSISTENT,
) = range(43)

# ---------------------------------------------------------------- status of the passes
MORE_INPUT = 0
OUT_FULL = 1
NEW_CALLER = 2
TASKS_FULL = 3


class Work(NamedTuple):
    """Everything the compiled passes read and write."""

    frames: Array  # FRAME, one per recorded frame
    tasks: Array  # TASK
    bursts: Array  # BURST, three per task
    cpus: Array  # CPU
    slots: Array  # int32, pid -> task + 1, 0 unknown
    comms: Array  # int32, pid -> number of its comm
    groups: Array  # uint8, pid -> group of tasks for the target
    ring: Array  # OP
    ring64: Array  # the same as int64, four per operation
    links: Array  # LINK
    caller_keys: Array  # int64 hash table of (comm, gfp class)
    caller_ids: Array  # int32
    caller_flags: Array  # uint8 by caller
    stack_callers: Array  # int32 by stack id, -1 unknown; empty without stacks
    gaps: Array  # int64 [HISTOGRAMS, BINS]
    units: Array  # int64 [BINS]: adjacent frees
    thresholds: Array  # int64 by histogram, ns
    loops: Array  # int64 by histogram: ns a page takes within a burst, 0 unknown
    parts: Array  # int64 [2, SIZES]: queued, taken by requests
    parts_done: Array  # int64 [2, SIZES]: how many are done, time of the last
    loss0: Array  # int64, start of each loss interval, ascending
    loss1: Array  # int64, its end
    loss_cpu: Array  # int64, the CPU that lost, -1 any
    lost_until: Array  # int64 by CPU: end of the losses passed so far
    scalar: Array  # int64
    counts: Array  # int64


def new_burst_table(tasks: int) -> Array:
    """Bursts for a number of tasks, all closed."""
    table = np.zeros(tasks * BURSTS_PER_TASK, BURST)
    table["first"] = -1
    return table


__all__ = ["OP", "Work", "new_burst_table"]
