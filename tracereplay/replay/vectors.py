"""Counter vectors of requests: a table of distinct ones, and how many requests of each time bin have which."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from tracereplay.compiled import hot, kernel
from tracereplay.machine.counters import NR_COUNTERS, NR_SLOTS
from tracereplay.replay.layout import E_KEYS, E_PAIRS, E_VECTORS

_MULTIPLIER = 0x9E3779B97F4A7C1
BIN_BITS = 20


@hot
def mix(h):
    """Spread the bits of a hash."""
    h ^= h >> 29
    h *= _MULTIPLIER
    return h ^ (h >> 32)


@kernel
def intern_vector(e, row):
    """Number of a vector (the first NR_COUNTERS words of ``row``) in the table; entered when new."""
    h = 0
    for i in range(NR_COUNTERS):
        h = h * 31 + row[i]
    mask = e.vh.shape[0] - 1
    slot = mix(h) & mask
    while e.vh[slot] != 0:
        v = e.vh[slot] - 1
        same = True
        for i in range(NR_COUNTERS):
            if e.vt[v, i] != row[i]:
                same = False
                break
        if same:
            return v
        slot = (slot + 1) & mask
    v = e.es[E_VECTORS]
    e.es[E_VECTORS] += 1
    for i in range(NR_COUNTERS):
        e.vt[v, i] = row[i]
    e.vh[slot] = v + 1
    return v


@kernel
def sum_vector(e, a, b, row):
    """Number of the sum of two vectors, remembered by pair. ``row`` is overwritten."""
    key = (a << 32 | b) + 1
    mask = e.pk.shape[0] - 1
    slot = mix(key) & mask
    while e.pk[slot] != 0:
        if e.pk[slot] == key:
            return e.pv[slot]
        slot = (slot + 1) & mask
    for i in range(NR_COUNTERS):
        row[i] = e.vt[a, i] + e.vt[b, i]
    v = intern_vector(e, row)
    e.pk[slot] = key
    e.pv[slot] = v
    e.es[E_PAIRS] += 1
    return v


@kernel
def count_request(e, v, time_bin):
    """Count one ended request of vector ``v`` that arrived in ``time_bin``."""
    key = (v << BIN_BITS | time_bin) + 1
    mask = e.ck.shape[0] - 1
    slot = mix(key) & mask
    while e.ck[slot] != 0 and e.ck[slot] != key:
        slot = (slot + 1) & mask
    if e.ck[slot] == 0:
        e.ck[slot] = key
        e.es[E_KEYS] += 1
    e.cv[slot] += 1


@hot
def tables_full(e):
    """Whether a table is so full that the next operation may not fit."""
    return e.es[E_VECTORS] + 4 > e.vt.shape[0] or 2 * e.es[E_KEYS] > e.ck.shape[0] or 2 * e.es[E_PAIRS] > e.pk.shape[0]


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


@kernel
def rehash_vectors(vt, vectors, vh):
    """Enter all vectors into an empty hash table."""
    mask = vh.shape[0] - 1
    for v in range(vectors):
        h = 0
        for i in range(NR_COUNTERS):
            h = h * 31 + vt[v, i]
        slot = mix(h) & mask
        while vh[slot] != 0:
            slot = (slot + 1) & mask
        vh[slot] = v + 1


@kernel
def rehash_keys(old_keys, old_values, keys, values):
    """Move a keyed table into an empty larger one."""
    mask = keys.shape[0] - 1
    for i in range(old_keys.shape[0]):
        if old_keys[i] != 0:
            slot = mix(old_keys[i]) & mask
            while keys[slot] != 0:
                slot = (slot + 1) & mask
            keys[slot] = old_keys[i]
            values[slot] = old_values[i]
