"""Arrays through which the compiled parsers of blktrace records and of blkparse text speak with their Python sides.

Rows are handed over column by column and drained after every call; what outlives a call (streams, tasks, sequence
numbers) stays in the state.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.importers.blktrace_format import MAX_CPU, NR_COUNTS, NR_FLAGS
from tracereplay.importers.interning import TextTable

# Slots of the scalar state.
(
    ROWS,
    REJECTS,
    GAPS,
    CLOCKS,
    FLAG_TEXTS,  # distinct codes of flags
    PENDING,  # first stream whose next record is to be found, and the end of those
    PENDING_END,
    RECORDS,
    FIRST_TS,
    LAST_TS,
    SEQUENCES,  # streams of sequence numbers known
    PIDS,  # slots of pids in use
    OLD,  # records of version 7
    POSITION,  # text: where the next line begins in the block
    LINE,  # text: its number, from 1
    ENDED,  # text: the summary began
    NR_SCALARS,
) = range(17)

END = np.iinfo(np.int64).max
"""Key of a stream without a next record."""
NULL_WIDE = -1

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
I16 = npt.NDArray[np.int16]
I8 = npt.NDArray[np.int8]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]


class BlockRows(NamedTuple):
    """Columns of bio_events; -1 stands for null, NULL_ERROR in ``error``."""

    ts_ns: I64
    cpu: U16
    kind: I8
    dev: U32
    sector: U64
    nr_sectors: U32
    nr_bytes: I64
    flags: I16
    """Number of the code of flags, in the order of their first appearance."""
    pid: U32
    error: I64
    old_dev: I64
    old_sector: U64
    new_sector: I64


class Streams(NamedTuple):
    """Per source file: its part of the buffer, and its next record."""

    pos: I64
    end: I64
    done: U8
    """Nothing comes after ``end``."""
    swapped: U8
    key: I64
    """Time of the next record, END without one."""
    last: I64
    """Time of the last record taken, -1 before it."""
    base: I64
    """Offset in the file of position 0 of the buffer."""
    skipped: I64
    """Offset in the file where damage began, -1 outside of it."""
    reason: I8
    length: I64
    """Bytes of the next record, with what follows its header."""
    hint: I64
    """Place of the sequence that the last record belonged to."""


class Sequences(NamedTuple):
    """Per device and CPU: the last sequence number and its time. Open addressing, a power of two long."""

    key: I64
    """device << 16 | CPU, or -1."""
    number: I64
    ts: I64


class Pids(NamedTuple):
    """Per pid: its name and cgroup now, as the number of a task. Open addressing, a power of two long."""

    pid: I64
    """-1: free. For pid 0, which every CPU has, -2 - CPU."""
    comm: I32
    """Number of the name, -1: not known."""
    cgroup: U64
    task: I32


class Tasks(NamedTuple):
    """Per number of a task."""

    comm: I32
    cgroup: U64
    first: I64
    last: I64


class Notes(NamedTuple):
    """What there is besides rows, for the Python side."""

    reject_stream: I64
    reject_at: I64
    """Offset in the file; text: number of the line."""
    reject_length: I64
    reject_start: I64
    """Text: position in the block."""
    reject_reason: I8
    gap_cpu: I64
    gap_n: I64
    gap_t0: I64
    gap_t1: I64
    clock_ts: I64
    clock_wall: I64
    """Nanoseconds of the wall clock."""


class State(NamedTuple):
    """Everything; see the parts."""

    scalars: I64
    rows: BlockRows
    streams: Streams
    tree: I64
    """Tournament of the streams' keys: the winner is at 1, stream k at size/2 + k."""
    sequences: Sequences
    pids: Pids
    tasks: Tasks
    task_texts: TextTable
    """(name number, cgroup) of tasks with their pid as key."""
    comms: TextTable
    scratch: U8
    kinds: I8
    """By action; -1: only counted."""
    flag_numbers: I16
    """By code of flags; -1: not seen."""
    flag_codes: I16
    counts: I64
    notes: Notes
    unplaced: I64
    """Text, by CPU: numbers of remaps that belong to another device than they are printed under."""


def rows(n: int) -> BlockRows:
    """Room for ``n`` rows."""
    i64, u64, u32 = np.int64, np.uint64, np.uint32
    types = (i64, np.uint16, np.int8, u32, u64, u32, i64, np.int16, u32, i64, i64, u64, i64)
    return BlockRows(*(np.empty(n, t) for t in types))  # type: ignore[arg-type]


def streams(count: int) -> Streams:
    """``count`` streams at their start."""
    arrays: dict[str, npt.NDArray[np.integer]] = {f: np.zeros(count, np.int64) for f in Streams._fields}
    arrays |= {f: np.zeros(count, np.uint8) for f in ("done", "swapped")}
    arrays |= {"reason": np.zeros(count, np.int8)}
    made = Streams(**arrays)  # type: ignore[arg-type]
    made.key[:], made.last[:], made.skipped[:] = END, -1, -1
    return made


def tree(count: int) -> I64:
    """A tournament of ``count`` streams, none of which has a record yet."""
    size = 1
    while size < count:
        size *= 2
    made = np.full(2 * size, -1, np.int64)
    made[size : size + count] = np.arange(count)
    return made


def sequences(slots: int = 1 << 10) -> Sequences:
    """No sequence number seen."""
    return Sequences(np.full(slots, -1, np.int64), np.zeros(slots, np.int64), np.zeros(slots, np.int64))


def pids(slots: int = 1 << 13) -> Pids:
    """No pid seen."""
    return Pids(
        np.full(slots, -1, np.int64),
        np.full(slots, -1, np.int32),
        np.zeros(slots, np.uint64),
        np.full(slots, -1, np.int32),
    )


def tasks(n: int = 1 << 12) -> Tasks:
    """No task seen."""
    return Tasks(
        np.full(n, -1, np.int32),
        np.zeros(n, np.uint64),
        np.full(n, -1, np.int64),
        np.full(n, -1, np.int64),
    )


def notes(n: int = 1 << 12) -> Notes:
    """Room for ``n`` notes of each sort."""
    return Notes(*(np.zeros(n, np.int8 if f == "reject_reason" else np.int64) for f in Notes._fields))  # type: ignore[arg-type]


def scalars() -> I64:
    """Start of a source."""
    state = np.zeros(NR_SCALARS, np.int64)
    state[FIRST_TS] = state[LAST_TS] = -1
    state[LINE] = 1
    return state


def new_state(capacity: int, count: int, kinds: list[int], task_texts: TextTable, comms: TextTable) -> State:
    """Start of a source of ``count`` streams, with room for ``capacity`` rows a call."""
    return State(
        scalars=scalars(),
        rows=rows(capacity),
        streams=streams(count),
        tree=tree(count),
        sequences=sequences(),
        pids=pids(),
        tasks=tasks(),
        task_texts=task_texts,
        comms=comms,
        scratch=np.zeros(64, np.uint8),
        kinds=np.array(kinds, np.int8),
        flag_numbers=np.full(NR_FLAGS, -1, np.int16),
        flag_codes=np.zeros(NR_FLAGS, np.int16),
        counts=np.zeros(NR_COUNTS, np.int64),
        notes=notes(),
        unplaced=np.zeros(MAX_CPU + 1, np.int64),
    )
