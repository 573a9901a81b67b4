"""Compiled: fields of a blktrace record in either byte order, and where the next record of a stream begins.

A record is taken for one when its magic and version are right and its length leads to another record or is the one
that its action always has. Between records that are not, everything is passed over up to the next magic and noted as
one refusal, with its place.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, inner, intrinsic
from tracereplay.importers.blktrace_format import (
    CHAIN,
    CUT,
    MAGIC,
    MAX_CPU,
    NO_MAGIC,
    RANGE,
    TA_CGROUP,
    TA_REMAP,
    TA_SPLIT,
    TA_UNPLUG_IO,
    TA_UNPLUG_TIMER,
    TC_NOTIFY,
    TIME,
    TN_PROCESS,
    TN_TIMESTAMP,
    VERSION,
)
from tracereplay.importers.blktrace_state import END
from tracereplay.importers.blktrace_tasks import reject
from tracereplay.importers.words import load64

OK, REFILL = 0, 1
OLD_BYTES, NEW_BYTES = 48, 64
MAX_TIME = 1 << 62
OUTLIER_NS = 1_000_000_000
"""A record that is further ahead of its successor than this has a damaged time."""
AHEAD = 24
"""Bytes of the next record that are looked at."""
_LOW32 = np.uint64(0xFFFFFFFF)
_MAGIC_BITS = 0xFFFFFF00


@intrinsic
def swapped64(typingctx, value):
    """A uint64 with its bytes in the other order."""
    from numba.core import types

    def codegen(context, builder, signature, args):
        return builder.bswap(args[0])

    return types.uint64(types.uint64), codegen


@hot
def u64(buf, i, swap):
    """Eight bytes."""
    w = load64(buf, i)
    return swapped64(w) if swap else w


@hot
def u32(buf, i, swap):
    """Four bytes, as int64; the buffer has four more."""
    w = load64(buf, i)
    return np.int64(swapped64(w) >> np.uint64(32)) if swap else np.int64(w & _LOW32)


@hot
def u16(buf, i, swap):
    """Two bytes, as int64."""
    a, b = np.int64(buf[i]), np.int64(buf[i + 1])
    return a << 8 | b if swap else b << 8 | a


@hot
def action_of(buf, pos, swap, old):
    """(act, whether a cgroup id follows, categories)."""
    w = np.uint64(u32(buf, pos + 28, swap)) if old else u64(buf, pos + 32, swap)
    low = np.int64(w & np.uint64(0xFFFF))
    return low & ~TA_CGROUP, low & TA_CGROUP != 0, np.int64(w >> np.uint64(16))


@hot
def natural(act, cgroup, category):
    """Length of what follows a record of this action, -1 when it varies."""
    length = np.int64(0)
    if category & TC_NOTIFY:
        length = np.int64(16) if act == TN_PROCESS else np.int64(8) if act == TN_TIMESTAMP else np.int64(-1)
    elif act in (TA_UNPLUG_IO, TA_UNPLUG_TIMER, TA_SPLIT):
        length = np.int64(8)
    elif act == TA_REMAP:
        length = np.int64(16)
    elif act > TA_REMAP:
        length = np.int64(-1)
    return length + 8 if cgroup and length >= 0 else length


@hot
def next_magic(buf, i, end, swap):
    """First position from ``i`` on where a record of a known version may begin, or ``end``."""
    while i + 4 <= end:
        magic = u32(buf, i, swap)
        if magic == MAGIC | 7 or magic == MAGIC | 8:
            return i
        i += 1
    return end


@hot
def judge(buf, pos, avail, done, swap, last):
    """(problem or -1, whether more bytes are needed, length, key) of the record at ``pos``."""
    nothing = np.int64(0)
    if avail < NEW_BYTES + AHEAD and not done:
        return -1, True, nothing, nothing
    if avail < 4:
        return CUT, False, nothing, nothing
    magic = u32(buf, pos, swap)
    if magic & _MAGIC_BITS != MAGIC:
        return NO_MAGIC, False, nothing, nothing
    version = magic & 0xFF
    if version not in (7, 8):
        return VERSION, False, nothing, nothing
    old = version == 7
    header = np.int64(OLD_BYTES if old else NEW_BYTES)
    if avail < header:
        return CUT, False, nothing, nothing
    pdu = u16(buf, pos + (46 if old else 50), swap)
    length = header + pdu
    if avail < length + AHEAD and not done:
        return -1, True, nothing, nothing
    if avail < length:
        return CUT, False, nothing, nothing
    act, cgroup, category = action_of(buf, pos, swap, old)
    follows = avail >= length + 4 and u32(buf, pos + length, swap) & _MAGIC_BITS == MAGIC
    # Before damage a record is whole when it has the length that its action always has and no other begins in it.
    if (not follows and avail > length) and (
        pdu != natural(act, cgroup, category) or next_magic(buf, pos + 4, pos + length, swap) < pos + length
    ):
        return CHAIN, False, nothing, nothing
    time = u64(buf, pos + 8, swap)
    cpu = u32(buf, pos + (40 if old else 44), swap)
    if time >= np.uint64(MAX_TIME) or cpu > MAX_CPU:
        return RANGE, False, nothing, nothing
    ts = np.int64(time)
    note = category & TC_NOTIFY != 0
    key = max(ts, last) if note else ts
    if follows and avail >= length + AHEAD:
        after = np.int64(u64(buf, pos + length + 8, swap))
        if 0 <= after < ts:
            # A merged dump keeps the clock of notes and not that of events: a note's time may be any.
            if note:
                key = max(last, nothing)
            elif ts - after > OUTLIER_NS and after >= last:
                return TIME, False, nothing, nothing
    return -1, False, length, key


@inner
def pass_over(buf, st, notes, k, w, problem):
    """Pass over what is no record at a stream's position, up to what may be one."""
    if st.skipped[w] < 0:
        st.skipped[w] = st.base[w] + st.pos[w]
        st.reason[w] = problem
    pos, end = st.pos[w], st.end[w]
    found = next_magic(buf, pos + 1, end, st.swapped[w] != 0)
    if found == end and st.done[w] == 0:
        found = max(found - 3, pos + 1)  # a magic may begin in the last three bytes
    st.pos[w] = found


@inner
def passed_over(st, notes, k, w):
    """Note what was passed over before a stream's position."""
    at = st.skipped[w]
    reject(notes, k, w, at, st.base[w] + st.pos[w] - at, 0, st.reason[w])
    st.skipped[w] = -1


@hot
def find(buf, st, notes, k, w):
    """Set the key of a stream to that of the record at its position, after passing over what is none: OK or REFILL."""
    swap = st.swapped[w] != 0
    done = st.done[w] != 0
    while True:
        pos = st.pos[w]
        avail = st.end[w] - pos
        problem, more, length, key = judge(buf, pos, avail, done, swap, st.last[w])
        if more:
            return REFILL
        ended = done and avail == 0
        if problem < 0 or ended:
            if st.skipped[w] >= 0:
                passed_over(st, notes, k, w)
            st.key[w] = np.int64(END) if ended else key
            st.length[w] = length
            return OK
        pass_over(buf, st, notes, k, w, problem)
