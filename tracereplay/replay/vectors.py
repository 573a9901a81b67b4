"""Counter vectors of requests: a table of distinct ones, and how many requests of each time bin have which."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import hot, inner, kernel
from tracereplay.machine.counters import NR_COUNTERS, NR_SLOTS
from tracereplay.machine.layout import NEVER
from tracereplay.replay.agenda import append_slot, first_of
from tracereplay.replay.layout import (
    AG_WORDS,
    BIN_BACKGROUND,
    BIN_BITS,
    BIN_PAGES,
    BIN_REQUESTS,
    BIN_WORDS,
    BIN_WORKER,
    EX_ARRIVAL,
    EX_CALLER,
    EX_DELAY,
    EX_WHO,
    EX_WORDS,
    LIST_FREE,
    SL_WORDS,
    SPARE_ENTRIES,
    X_AG,
    X_AGENDA,
    X_AGENDA_ROOM,
    X_BIN,
    X_BIN_NS,
    X_BINS,
    X_CK,
    X_CV,
    X_GC,
    X_GK,
    X_GL,
    X_GROUP_ROOM,
    X_GROUPS,
    X_GV,
    X_KEY_ROOM,
    X_KEYS,
    X_NEXT_BIN_NS,
    X_NR_BINS,
    X_OUT,
    X_PAIR_ROOM,
    X_PAIRS,
    X_PK,
    X_PV,
    X_SL,
    X_SLOT_ROOM,
    X_TARGETED_PAGES,
    X_TARGETED_REQUESTS,
    X_VECTOR_ROOM,
    X_VECTORS,
    X_VH,
    X_VT,
    X_VX,
    X_WORKER,
)

_MULTIPLIER = 0x9E3779B97F4A7C1


@hot
def mix(h):
    """Spread the bits of a hash."""
    h ^= h >> 29
    h *= _MULTIPLIER
    return h ^ (h >> 32)


@hot
def hash_of(words, at):
    """Hash of the NR_COUNTERS words from ``at`` on: four sums side by side, since each waits for itself."""
    a, b, c, d = 0, 0, 0, 0
    for i in range(0, NR_COUNTERS - NR_COUNTERS % 4, 4):
        a = a * 31 + words[at + i]
        b = b * 31 + words[at + i + 1]
        c = c * 31 + words[at + i + 2]
        d = d * 31 + words[at + i + 3]
    for i in range(NR_COUNTERS - NR_COUNTERS % 4, NR_COUNTERS):
        a = a * 31 + words[at + i]
    return mix(a + mix(b + mix(c + mix(d))))


@inner
def intern_vector(t, x, row):
    """Number of a vector (the first NR_COUNTERS words of ``row``) in the table; entered when new."""
    mask = 4 * x[X_VECTOR_ROOM] - 1
    slot = hash_of(row, 0) & mask
    while t[x[X_VH] + slot] != 0:
        v = t[x[X_VH] + slot] - 1
        at = x[X_VT] + v * NR_COUNTERS
        same = True
        for i in range(NR_COUNTERS):
            if t[at + i] != row[i]:
                same = False
                break
        if same:
            return v
        slot = (slot + 1) & mask
    v = x[X_VECTORS]
    x[X_VECTORS] += 1
    at = x[X_VT] + v * NR_COUNTERS
    for i in range(NR_COUNTERS):
        t[at + i] = row[i]
    t[x[X_VH] + slot] = v + 1
    return v


@inner
def find_key(t, first, room, key):
    """Place of a key in the hash table at ``first``: where it is, or where it may be entered."""
    slot = mix(key) & (room - 1)
    while t[first + slot] != 0 and t[first + slot] != key:
        slot = (slot + 1) & (room - 1)
    return slot


@inner
def sum_vector(t, x, a, b, row):
    """Number of the sum of two vectors, remembered by pair. ``row`` is overwritten."""
    key = (a << 32 | b) + 1
    slot = find_key(t, x[X_PK], x[X_PAIR_ROOM], key)
    if t[x[X_PK] + slot] == key:
        return t[x[X_PV] + slot]
    for i in range(NR_COUNTERS):
        row[i] = t[x[X_VT] + a * NR_COUNTERS + i] + t[x[X_VT] + b * NR_COUNTERS + i]
    v = intern_vector(t, x, row)
    t[x[X_PK] + slot] = key
    t[x[X_PV] + slot] = v
    x[X_PAIRS] += 1
    return v


@inner
def enter_key(t, x, slot, key, arrival, who, caller, delay):
    """Enter a key at ``slot``; the first request of a vector is kept as its example (EX_*)."""
    t[x[X_CK] + slot] = key + 1
    x[X_KEYS] += 1
    at = x[X_VX] + EX_WORDS * (key >> BIN_BITS)
    if t[at + EX_WHO] == 0:
        t[at + EX_ARRIVAL] = arrival
        t[at + EX_WHO] = who
        t[at + EX_CALLER] = caller
        t[at + EX_DELAY] = delay


@inner
def count_key(t, x, key, arrival, who, caller, delay):
    """Count a request, or a bio, by key (X_CK)."""
    slot = find_key(t, x[X_CK], x[X_KEY_ROOM], key + 1)
    if t[x[X_CK] + slot] == 0:
        enter_key(t, x, slot, key, arrival, who, caller, delay)
    t[x[X_CV] + slot] += 1


@hot
def tables_full(x):
    """Whether a table is so full that the next operation may not fit."""
    return (
        x[X_VECTORS] + 4 > x[X_VECTOR_ROOM]
        or 2 * x[X_KEYS] > x[X_KEY_ROOM]
        or 2 * x[X_PAIRS] > x[X_PAIR_ROOM]
        or 2 * x[X_GROUPS] > x[X_GROUP_ROOM]
        or x[X_AGENDA] + SPARE_ENTRIES > x[X_AGENDA_ROOM]
    )


@hot
def slots_full(t, x):
    """Whether no further request can be parked."""
    return first_of(t, x, LIST_FREE) == 0


@hot
def clear(row):
    """Zero a row of counters."""
    for i in range(NR_SLOTS):
        row[i] = 0


@hot
def fold(total, row):
    """Add a row of counters to a total."""
    for i in range(NR_SLOTS):
        total[i] += row[i]


@hot
def fold_orders(total, row):
    """Add a row's by-order counters to a total; the plain ones are summed from the vectors in the end."""
    for i in range(NR_COUNTERS, NR_SLOTS):
        total[i] += row[i]


@inner
def next_bin(m, e, ts_ns):
    """Close time bins up to the one of ``ts_ns``: BIN_* so far are kept at each end."""
    while ts_ns >= e.x[X_NEXT_BIN_NS] and e.x[X_BIN] + 1 < e.x[X_NR_BINS]:
        at = X_BINS + e.x[X_BIN] * BIN_WORDS
        fold(e.x[at + BIN_BACKGROUND : at + BIN_WORKER], m.c)
        fold(e.x[at + BIN_WORKER : at + BIN_REQUESTS], e.x[X_WORKER:X_OUT])
        e.x[at + BIN_REQUESTS] = e.x[X_TARGETED_REQUESTS]
        e.x[at + BIN_PAGES] = e.x[X_TARGETED_PAGES]
        e.x[X_BIN] += 1
        e.x[X_NEXT_BIN_NS] += e.x[X_BIN_NS]
    if e.x[X_BIN] + 1 >= e.x[X_NR_BINS]:
        e.x[X_NEXT_BIN_NS] = NEVER


@kernel
def move_tables(old, old_x, t, x):
    """Enter all of the old tables into larger empty ones. Numbers of vectors stay."""
    for i in range(old_x[X_VECTORS] * NR_COUNTERS):
        t[x[X_VT] + i] = old[old_x[X_VT] + i]
    for i in range(old_x[X_VECTORS] * EX_WORDS):
        t[x[X_VX] + i] = old[old_x[X_VX] + i]
    mask = 4 * x[X_VECTOR_ROOM] - 1
    for v in range(old_x[X_VECTORS]):
        slot = hash_of(t, x[X_VT] + v * NR_COUNTERS) & mask
        while t[x[X_VH] + slot] != 0:
            slot = (slot + 1) & mask
        t[x[X_VH] + slot] = v + 1
    for i in range(old_x[X_KEY_ROOM]):
        key = old[old_x[X_CK] + i]
        if key != 0:
            slot = find_key(t, x[X_CK], x[X_KEY_ROOM], key)
            t[x[X_CK] + slot] = key
            t[x[X_CV] + slot] = old[old_x[X_CV] + i]
    for i in range(old_x[X_PAIR_ROOM]):
        key = old[old_x[X_PK] + i]
        if key != 0:
            slot = find_key(t, x[X_PK], x[X_PAIR_ROOM], key)
            t[x[X_PK] + slot] = key
            t[x[X_PV] + slot] = old[old_x[X_PV] + i]
    x[X_GROUPS] = 0
    for i in range(old_x[X_GROUP_ROOM]):
        key = old[old_x[X_GK] + i]
        if key != 0 and old[old_x[X_GV] + i] >= 0:  # those that are counted are forgotten
            slot = find_key(t, x[X_GK], x[X_GROUP_ROOM], key)
            x[X_GROUPS] += 1
            t[x[X_GK] + slot] = key
            t[x[X_GV] + slot] = old[old_x[X_GV] + i]
            t[x[X_GL] + slot] = old[old_x[X_GL] + i]
            t[x[X_GC] + slot] = old[old_x[X_GC] + i]
    for i in range(old_x[X_AGENDA] * AG_WORDS):
        t[x[X_AG] + i] = old[old_x[X_AG] + i]
    for i in range(old_x[X_SLOT_ROOM] * SL_WORDS):
        t[x[X_SL] + i] = old[old_x[X_SL] + i]
    for s in range(old_x[X_SLOT_ROOM], x[X_SLOT_ROOM]):
        append_slot(t, x, LIST_FREE, s)
