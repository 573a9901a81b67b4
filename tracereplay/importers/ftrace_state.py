"""Arrays through which the compiled ftrace parser and its Python side speak.

Rows are handed over column by column and drained after every call; what outlives a call (the last event of each
CPU, an open stack, interned texts) stays in the state.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.importers.ftrace_vocabulary import FTRACE_GRAMMAR, MAX_CPU, MAX_DEPTH, NULL_ERROR, NULL_SMALL
from tracereplay.importers.interning import TextTable

# Slots of the scalar state.
(
    POSITION,
    LINE,  # number of the next line, from 1
    PAGES,
    BIOS,
    MMS,
    REJECTS,
    SPECIALS,
    CLOSES,
    PATCHES,
    PAGE_BASE,  # rows drained before
    BIO_BASE,
    BLANKS,
    STACK_MODE,
    STACK_TABLE,
    STACK_ROW,
    STACK_DEPTH,
    STACKS,  # distinct stacks
    FRAMES,  # frames of all of them
    STACKS_LOOSE,  # stacks without an event before them
    FRACTION,  # digits of the first time's fraction, -1 before it
    FRACTION_MOST,
    SEEN_DECIMAL_PFN,
    SEEN_HEX_PFN,
    SEEN_PERCPU_REFILL,
    SEEN_ZONE_LOCKED,
    SEEN_IOPRIO,
    SEEN_REQUEST,
    FIRST_TS,
    LAST_TS,
    EVENTS,
    GRAMMAR,  # of ftrace_vocabulary
    GUESTS,  # perf: events of virtual machines
    USER_FRAMES,  # perf: a frame in user space was passed over
    NR_SCALARS,
) = range(34)

STACK_NONE, STACK_KEPT, STACK_DROPPED, STACK_USER = range(4)
TABLE_NONE, TABLE_PAGE, TABLE_BIO = range(3)
ANY_CPU = -2
"""In ``Notes.special_cpu``: the line does not name the CPU."""

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int8]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]


class PageRows(NamedTuple):
    """Columns of page_events; 255 and -1 stand for null."""

    ts_ns: I64
    cpu: U16
    kind: I8
    pfn: U64
    pfn_known: U8
    order: U8
    gfp: I32
    """Number of the gfp text."""
    migratetype: U8
    pid: U32
    percpu_refill: U8
    alloc_order: U8
    fallback_order: U8
    fallback_migratetype: U8
    change_ownership: U8


class BioRows(NamedTuple):
    """Columns of bio_events; -1 stands for null, NULL_ERROR in ``error``."""

    ts_ns: I64
    cpu: U16
    kind: I8
    dev: U32
    sector: U64
    nr_sectors: I64
    nr_bytes: I64
    rwbs: I32
    """Number of the rwbs text."""
    pid: U32
    error: I64
    old_dev: I64
    old_sector: U64
    new_sector: U64


class MmRows(NamedTuple):
    """Events of compaction and reclaim; their few lines are finished in Python from the span of the arguments."""

    ts_ns: I64
    cpu: U16
    kind: I8
    pid: U32
    start: I64
    length: I64


class Notes(NamedTuple):
    """What a block holds besides rows: refused lines, comment and loss lines, ends of loss intervals."""

    reject_line: I64
    reject_start: I64
    reject_length: I64
    reject_reason: I8
    special_line: I64
    special_start: I64
    special_length: I64
    special_cpu: I64
    """CPU of a loss line, -1 for other special lines."""
    special_t0: I64
    """Time of that CPU's last event (ANY_CPU: the oldest of all CPUs'), -1 when there is none."""
    close_line: I64
    close_cpu: I64
    close_ts: I64
    patch_table: I8
    patch_row: I64
    patch_stack: I64


class Cpus(NamedTuple):
    """Per CPU: its last event."""

    ts: I64
    table: I8
    row: I64
    pid: I64
    waits: I8
    """A loss line was seen and no event since."""
    first: I64
    """Time of its first event, -1 before it."""
    first_line: I64


class Stacks(NamedTuple):
    """Distinct stacks, and the frames of the one being read."""

    slots: I32
    hashes: U64
    starts: I64
    lengths: I32
    symbol: I32
    module: I32
    """Number of the module's text, -1 where none is told."""
    address: U64
    offset: U64
    has: U8
    """Bit 0: an address is known, bit 1: an offset."""
    cur_symbol: I32
    cur_module: I32
    cur_address: U64
    cur_offset: U64
    cur_has: U8


class Tasks(NamedTuple):
    """Per task text: tgid (-1 unknown), first and last event."""

    tgid: I64
    first: I64
    last: I64


class State(NamedTuple):
    """Everything; see the parts."""

    scalars: I64
    page: PageRows
    bio: BioRows
    mm: MmRows
    notes: Notes
    cpus: Cpus
    stacks: Stacks
    tasks: Tasks
    events: TextTable
    actions: I8
    """By number of the event's name; what is beyond the array is OTHER."""
    counts: I64
    gfp: TextTable
    rwbs: TextTable
    task_texts: TextTable
    symbols: TextTable
    modules: TextTable


_DEFAULTS = {"order": NULL_SMALL, "migratetype": NULL_SMALL, "gfp": -1, "percpu_refill": NULL_SMALL}
_DEFAULTS |= dict.fromkeys(("alloc_order", "fallback_order", "fallback_migratetype", "change_ownership"), NULL_SMALL)
_DEFAULTS |= {"nr_sectors": -1, "nr_bytes": -1, "old_dev": -1, "error": NULL_ERROR}


def page_rows(n: int) -> PageRows:
    """Room for ``n`` page events."""
    types = (
        np.int64,
        np.uint16,
        np.int8,
        np.uint64,
        np.uint8,
        np.uint8,
        np.int32,
        np.uint8,
        np.uint32,
        np.uint8,
        np.uint8,
        np.uint8,
        np.uint8,
        np.uint8,
    )
    return PageRows(*(np.empty(n, t) for t in types))  # type: ignore[arg-type]


def bio_rows(n: int) -> BioRows:
    """Room for ``n`` bio events."""
    i64, u64, u32 = np.int64, np.uint64, np.uint32
    types = (i64, np.uint16, np.int8, u32, u64, i64, i64, np.int32, u32, i64, i64, u64, u64)
    return BioRows(*(np.empty(n, t) for t in types))  # type: ignore[arg-type]


def mm_rows(n: int) -> MmRows:
    """Room for ``n`` reclaim and compaction events."""
    types = (np.int64, np.uint16, np.int8, np.uint32, np.int64, np.int64)
    return MmRows(*(np.empty(n, t) for t in types))  # type: ignore[arg-type]


def notes(n: int) -> Notes:
    """Room for ``n`` notes of each sort."""
    small = {"reject_reason", "patch_table"}
    return Notes(*(np.empty(n, np.int8 if f in small else np.int64) for f in Notes._fields))  # type: ignore[arg-type]


def cpus() -> Cpus:
    """No event seen on any CPU."""
    n = MAX_CPU + 1
    return Cpus(
        np.full(n, -1, np.int64),
        np.zeros(n, np.int8),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int8),
        np.full(n, -1, np.int64),
        np.zeros(n, np.int64),
    )


def stacks(entries: int = 1024, frames: int = 1 << 15) -> Stacks:
    """No stack seen."""
    return Stacks(
        np.full(2 * entries, -1, np.int32),
        np.zeros(entries, np.uint64),
        np.zeros(entries, np.int64),
        np.zeros(entries, np.int32),
        np.zeros(frames, np.int32),
        np.zeros(frames, np.int32),
        np.zeros(frames, np.uint64),
        np.zeros(frames, np.uint64),
        np.zeros(frames, np.uint8),
        np.zeros(MAX_DEPTH, np.int32),
        np.zeros(MAX_DEPTH, np.int32),
        np.zeros(MAX_DEPTH, np.uint64),
        np.zeros(MAX_DEPTH, np.uint64),
        np.zeros(MAX_DEPTH, np.uint8),
    )


def default_of(column: str) -> int:
    """The value that stands for null in a column of rows."""
    return _DEFAULTS[column]


def scalars(grammar: int = FTRACE_GRAMMAR) -> I64:
    """Start of a source in a grammar."""
    state = np.zeros(NR_SCALARS, np.int64)
    state[LINE] = 1
    state[GRAMMAR] = grammar
    state[FRACTION] = -1
    state[FIRST_TS] = state[LAST_TS] = -1
    return state
