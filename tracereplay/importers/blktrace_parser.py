"""Compiled: the records of several blktrace files, merged by time, into columns.

:func:`merge` takes records in the order of their times and returns when a stream needs bytes, an output array is full,
a set has to grow, or nothing is left. A record is taken whole or not at all, so a call can always stop before one.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner, kernel
from tracereplay.importers.blktrace_format import (
    ACTIONS,
    NO_KIND,
    NOTES,
    OP_DISCARD,
    OP_NONE,
    OP_READ,
    OP_WRITE,
    OP_WRITE_ZEROES,
    OP_ZONE,
    REQUEST,
    TA_COMPLETE,
    TC_AHEAD,
    TC_COMPLETE,
    TC_DISCARD,
    TC_FLUSH,
    TC_FS,
    TC_FUA,
    TC_META,
    TC_NOTIFY,
    TC_PC,
    TC_SYNC,
    TC_WRITE,
    TC_WRITE_ZEROES,
    TC_ZONES,
    TN_PROCESS,
    TN_TIMESTAMP,
    ZONE_APPENDED,
    ZONE_OPERATIONS,
)
from tracereplay.importers.blktrace_records import NEW_BYTES, OK, OLD_BYTES, action_of, find, swapped64, u16, u32, u64
from tracereplay.importers.blktrace_state import (
    CLOCKS,
    END,
    GAPS,
    NULL_WIDE,
    OLD,
    PENDING,
    PENDING_END,
    RECORDS,
    REJECTS,
    ROWS,
)
from tracereplay.importers.blktrace_tasks import (
    flags_seen,
    must_grow,
    named,
    sequence_seen,
    split_at,
    task_seen,
    time_seen,
)
from tracereplay.importers.ftrace_vocabulary import NULL_ERROR
from tracereplay.importers.interning import intern
from tracereplay.importers.words import load64
from tracereplay.trace.schema import BIO_KINDS

DONE, REFILL, FULL, GROW = range(4)

_QUEUE, _SPLIT, _REMAP, _INSERT, _ISSUE, _REQUEUE, _COMPLETE, _BIO_COMPLETE = (
    BIO_KINDS.index(k) for k in ("queue", "split", "remap", "insert", "issue", "requeue", "complete", "bio_complete")
)
_COMM_BYTES = 16
_ZONES = ((1 << len(ZONE_OPERATIONS)) - 1) << TC_ZONES
_ZONE_APPEND = 1 << TC_ZONES


@hot
def flags_code(category, nr_bytes):
    """Code of a record's operation and flags, by the rules of fill_rwbs (kernel/trace/blktrace.c)."""
    if category & TC_DISCARD:
        op = OP_DISCARD
    elif category & _ZONES:
        op = OP_ZONE
        while not category >> (TC_ZONES + op - OP_ZONE) & 1:
            op += 1
    elif category & TC_WRITE_ZEROES:
        op = OP_WRITE_ZEROES
    elif category & TC_WRITE:
        op = OP_WRITE
    else:
        op = OP_READ if nr_bytes != 0 else OP_NONE
    code = op << 5
    code |= 1 if category & TC_FLUSH else 0
    code |= 2 if category & TC_FUA else 0
    code |= 4 if category & TC_AHEAD else 0
    code |= 8 if category & TC_SYNC else 0
    return code | (16 if category & TC_META else 0)


@inner
def note(buf, s, act, pid, cpu, ts, pdu, length, swap):
    """A notification: the name of a task, the wall clock, a message."""
    k = s.scalars
    s.counts[NOTES + min(act, 2)] += 1
    if act == TN_PROCESS:
        end = pdu
        while end < pdu + min(length, _COMM_BYTES) and buf[end] != 0:
            end += 1
        if end > pdu:
            named(s, pid, cpu, np.int32(intern(s.comms, buf, pdu, end, 0)))
    elif act == TN_TIMESTAMP and length >= 8:
        n = k[CLOCKS]
        if n < s.notes.clock_ts.size:
            s.notes.clock_ts[n] = ts
            s.notes.clock_wall[n] = u32(buf, pdu, swap) * 1_000_000_000 + u32(buf, pdu + 4, swap)
            k[CLOCKS] = n + 1


@hot
def row(buf, s, pos, swap, old, ts, dev, cpu, kind, category, pdu, pdu_length, cgroup):
    """A record that is a row of bio_events."""
    k, r = s.scalars, s.rows
    n = k[ROWS]
    sector = u64(buf, pos + 16, swap)
    nr_bytes = u32(buf, pos + 24, swap)
    pid = u32(buf, pos + (32 if old else 28), swap)
    request = category & (TC_FS | TC_PC) != 0
    ends = kind in (_COMPLETE, _REQUEUE)
    if kind == _COMPLETE and not request:
        kind = np.int64(_BIO_COMPLETE)
    error = np.int64(NULL_ERROR)
    if ends:
        error = u16(buf, pos + (44 if old else 48), swap)
        error = error - 0x10000 if error >= 0x8000 else error
    old_dev = new_sector = np.int64(NULL_WIDE)
    old_sector = np.uint64(0)
    # What a payload holds of devices and sectors is big-endian whatever the machine.
    if kind == _REMAP and pdu_length >= 16:
        devices = swapped64(load64(buf, pdu))
        old_dev = np.int64(devices >> np.uint64(32))
        dev = np.int64(devices & np.uint64(0xFFFFFFFF))
        old_sector = swapped64(load64(buf, pdu + 8))
    elif kind == _SPLIT and pdu_length >= 8:
        new_sector = split_at(np.int64(sector), np.int64(swapped64(load64(buf, pdu))))
    r.ts_ns[n] = ts
    r.cpu[n] = cpu
    r.kind[n] = kind
    r.dev[n] = dev
    r.sector[n] = sector
    r.nr_sectors[n] = nr_bytes >> 9
    r.nr_bytes[n] = nr_bytes if request else np.int64(NULL_WIDE)
    r.flags[n] = flags_seen(s, flags_code(category, nr_bytes))
    r.pid[n] = pid
    r.error[n] = error
    r.old_dev[n] = old_dev
    r.old_sector[n] = old_sector
    r.new_sector[n] = new_sector
    k[ROWS] = n + 1
    # Only the task that queues a bio acts for the bio's cgroup.
    task_seen(s, pid, cpu, ts, cgroup if kind == _QUEUE else np.uint64(0))


@hot
def take(buf, s, w):
    """Take the next record of a stream."""
    k, st = s.scalars, s.streams
    pos = st.pos[w]
    swap = st.swapped[w] != 0
    length = st.length[w]
    old = u32(buf, pos, swap) & 0xFF == 7
    ts = np.int64(u64(buf, pos + 8, swap))
    act, has_cgroup, category = action_of(buf, pos, swap, old)
    dev = u32(buf, pos + (36 if old else 40), swap)
    cpu = u32(buf, pos + (40 if old else 44), swap)
    pdu = pos + (OLD_BYTES if old else NEW_BYTES)
    pdu_length = pos + length - pdu
    cgroup = np.uint64(0)
    if has_cgroup and pdu_length >= 8:
        cgroup = u64(buf, pdu, swap)
        pdu += 8
        pdu_length -= 8
    k[RECORDS] += 1
    k[OLD] += 1 if old else 0
    if category & TC_NOTIFY:
        note(buf, s, act, u32(buf, pos + (32 if old else 28), swap), cpu, ts, pdu, pdu_length, swap)
    else:
        time_seen(s, ts)
        st.last[w] = ts
        st.hint[w] = sequence_seen(s, dev, cpu, u32(buf, pos + 4, swap), ts, st.hint[w])
        kind = np.int64(s.kinds[act]) if act < ACTIONS else np.int64(NO_KIND)
        if act == TA_COMPLETE and category & _ZONE_APPEND and not category & TC_COMPLETE:
            # Says where a zone append landed; its completion proper follows.
            s.counts[ZONE_APPENDED] += 1
        else:
            place = act if act < ACTIONS else np.int64(0)
            s.counts[place + (REQUEST if category & (TC_FS | TC_PC) else 0)] += 1
            if kind != NO_KIND:
                row(buf, s, pos, swap, old, ts, dev, cpu, kind, category, pdu, pdu_length, cgroup)
    st.pos[w] = pos + length


@hot
def settle(s, w):
    """Let a stream with a new key play its matches."""
    tree, key = s.tree, s.streams.key
    at = (tree.size >> 1) + w >> 1
    while at >= 1:
        a, b = tree[2 * at], tree[2 * at + 1]
        # Of equal times the first file's comes first.
        tree[at] = a if b < 0 or (a >= 0 and key[a] <= key[b]) else b
        at >>= 1


@kernel
def merge(buf, s):
    """Take records: DONE, REFILL (stream ``scalars[PENDING]`` needs bytes), FULL or GROW."""
    k, notes = s.scalars, s.notes
    while True:
        while k[PENDING] < k[PENDING_END]:
            if k[REJECTS] >= notes.reject_at.size:
                return FULL
            w = k[PENDING]
            if find(buf, s.streams, notes, k, w) != OK:
                return REFILL
            settle(s, w)
            k[PENDING] = w + 1
        w = s.tree[1]
        if s.streams.key[w] == END:
            return DONE
        if k[ROWS] >= s.rows.ts_ns.size or k[GAPS] >= notes.gap_n.size:
            return FULL
        if must_grow(s):
            return GROW
        take(buf, s, w)
        k[PENDING] = w
        k[PENDING_END] = w + 1
