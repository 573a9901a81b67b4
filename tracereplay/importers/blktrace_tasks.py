"""Compiled: whose event it was, and what is missing before it; for blktrace records and blkparse text."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner, kernel
from tracereplay.importers.blktrace_state import FIRST_TS, FLAG_TEXTS, GAPS, LAST_TS, PIDS, REJECTS, SEQUENCES
from tracereplay.importers.interning import has_room, intern
from tracereplay.importers.words import mix

_SEED = np.uint64(0x243F6A8885A308D3)
_NOT_KNOWN = -1
_BYTE = np.uint64(0xFF)
_SEQUENCE_BITS = 0xFFFFFFFF
_HALF_RANGE = 1 << 31


@hot
def must_grow(s):
    """Whether a set may not take what one more record brings."""
    k = s.scalars
    return not (
        has_room(s.task_texts)
        and has_room(s.comms)
        and s.task_texts.meta[0] < s.tasks.first.size
        and 2 * k[PIDS] < s.pids.pid.size
        and 2 * k[SEQUENCES] < s.sequences.key.size
    )


@hot
def slot_of(keys, key):
    """Place of a key, or the free one where it belongs; -1 marks free places."""
    mask = keys.size - 1
    at = np.int64(mix(_SEED, np.uint64(key))) & mask
    while keys[at] != key and keys[at] != -1:
        at = (at + 1) & mask
    return at


@hot
def pid_slot(s, pid, cpu):
    """Place of a pid; every CPU has a pid 0."""
    key = np.int64(pid) if pid != 0 else -2 - np.int64(cpu)
    at = slot_of(s.pids.pid, key)
    if s.pids.pid[at] == -1:
        s.pids.pid[at] = key
        s.scalars[PIDS] += 1
    return at


@hot
def intern_task(s, pid, comm, cgroup):
    """Number of a pid with a name and a cgroup."""
    word = np.uint64(np.int64(comm) & 0xFFFFFFFF)
    for i in range(4):
        s.scratch[i] = np.uint8((word >> np.uint64(8 * i)) & _BYTE)
    for i in range(8):
        s.scratch[4 + i] = np.uint8((cgroup >> np.uint64(8 * i)) & _BYTE)
    return intern(s.task_texts, s.scratch, 0, 12, pid)


@inner
def number_task(s, at, pid):
    """Give the pid at a place the task of its name and cgroup; the name's first task takes the first cgroup told."""
    comm = s.pids.comm[at]
    cgroup = s.pids.cgroup[at]
    task = intern_task(s, pid, comm, np.uint64(0))
    if cgroup != np.uint64(0) and s.tasks.cgroup[task] not in (np.uint64(0), cgroup):
        task = intern_task(s, pid, comm, cgroup)
    s.tasks.comm[task] = comm
    if cgroup != np.uint64(0):
        s.tasks.cgroup[task] = cgroup
    s.pids.task[at] = np.int32(task)


@hot
def named(s, pid, cpu, comm):
    """A pid has a name from now on; ``comm``: its number."""
    at = pid_slot(s, pid, cpu)
    if s.pids.comm[at] != comm:
        s.pids.comm[at] = comm
        s.pids.cgroup[at] = np.uint64(0)
        s.pids.task[at] = -1


@hot
def task_seen(s, pid, cpu, ts, cgroup):
    """Count an event to its task; ``cgroup`` 0: the event does not tell."""
    at = pid_slot(s, pid, cpu)
    if cgroup != np.uint64(0) and s.pids.cgroup[at] != cgroup:
        s.pids.cgroup[at] = cgroup
        s.pids.task[at] = -1
    if s.pids.task[at] < 0:
        number_task(s, at, pid)
    task = s.pids.task[at]
    first = s.tasks.first[task]
    if first < 0 or ts < first:
        s.tasks.first[task] = ts
    if ts > s.tasks.last[task]:
        s.tasks.last[task] = ts


@hot
def sequence_seen(s, dev, cpu, number, ts, hint):
    """Compare a sequence number with the last one of its device and CPU; its place, to be given as the next hint."""
    q = s.sequences
    key = np.int64(dev) << 16 | np.int64(cpu)
    at = hint
    if q.key[at] != key:
        at = slot_of(q.key, key)
        if q.key[at] == -1:
            q.key[at] = key
            q.number[at] = number - 1
            q.ts[at] = ts
            s.scalars[SEQUENCES] += 1
    ahead = (number - q.number[at]) & _SEQUENCE_BITS
    if 1 < ahead < _HALF_RANGE:
        n = s.scalars[GAPS]
        s.notes.gap_cpu[n] = cpu
        s.notes.gap_n[n] = ahead - 1
        s.notes.gap_t0[n] = q.ts[at]
        s.notes.gap_t1[n] = ts
        s.scalars[GAPS] = n + 1
    q.number[at] = number
    q.ts[at] = ts
    return at


@hot
def flags_seen(s, code):
    """Number of a code of flags, in the order of their first appearance."""
    number = s.flag_numbers[code]
    if number < 0:
        number = np.int16(s.scalars[FLAG_TEXTS])
        s.flag_numbers[code] = number
        s.flag_codes[number] = code
        s.scalars[FLAG_TEXTS] += 1
    return number


@hot
def time_seen(s, ts):
    """Widen the source's time range."""
    k = s.scalars
    if k[FIRST_TS] < 0 or ts < k[FIRST_TS]:
        k[FIRST_TS] = ts
    if ts > k[LAST_TS]:
        k[LAST_TS] = ts


@hot
def split_at(sector, told):
    """Sector where the second part of a split begins: kernels and blkparse hand on its low 32 bits only."""
    if told < sector and told <= _SEQUENCE_BITS:
        told |= sector & ~np.int64(_SEQUENCE_BITS)
        if told < sector:
            told += np.int64(1) << 32
    return told


@inner
def reject(notes, k, stream, at, length, start, reason):
    """Note something refused."""
    n = k[REJECTS]
    notes.reject_stream[n] = stream
    notes.reject_at[n] = at
    notes.reject_length[n] = length
    notes.reject_start[n] = start
    notes.reject_reason[n] = reason
    k[REJECTS] = n + 1


@kernel
def replace_keys(old, new, moved):
    """Put the keys of a table into an empty larger one; ``moved``: their places by the old ones. Returns ``moved``."""
    for at in range(old.size):
        if old[at] != -1:
            place = slot_of(new, old[at])
            new[place] = old[at]
            moved[at] = place
    return moved
