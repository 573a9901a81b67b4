"""Holds of the zone locks: counted, and summed up by time slots, so that waiting can be priced afterwards.

No lock is ever busy here. What is kept tells how busy a profile's prices would make it (cost/contention.py): for each
slot of SLOT_NS in which a zone's lock was taken, its acquisitions, on how many CPUs, and the work under them by
primitive. Slots of like load and spread are added up as they close, so that memory does not grow with time.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from tracereplay.compiled import entry, hot
from tracereplay.machine.counters import FALLBACK_BLOCK_MOVES, FALLBACKS, ZONE_LOCK_ACQUISITIONS
from tracereplay.machine.layout import (
    CFG_CPU,
    CFG_CPUS,
    CFG_NOW,
    CFG_SLOT,
    CFG_SLOT_END,
    CFG_ZONES,
    H_FALLBACKS,
    H_LOCKS,
    H_LOCKS2,
    H_MOVES,
    H_SAME,
    H_SLOTS,
    H_WORK,
    H_WORK2,
    HOLD_ROWS,
    HOLD_WORDS,
    HOLDS,
    LOAD_CLASSES,
    P_SLOT,
    P_WORDS,
    SLOT_LOCK_LOAD,
    SLOT_NS,
    SLOT_SHIFT,
    SPREAD_CLASSES,
    Z_BUSIEST,
    Z_BUSIEST_END,
    Z_LOCKS,
    Z_LONGEST,
    Z_WORDS,
    Z_WORK,
    Machine,
)


@hot
def hold_row(z, row):
    """Where a row of a zone's holds begins in ``w``; row 0 is the open slot."""
    return HOLDS + (z * HOLD_ROWS + row) * HOLD_WORDS


@hot
def note_hold(m, z, word, n):
    """Add to what was done under a zone's lock in the open slot."""
    m.w[hold_row(z, 0) + word] += n


@hot
def count_fallback(m, z):
    """A block was taken from another type, under the zone's lock."""
    m.c[FALLBACKS] += 1
    note_hold(m, z, H_FALLBACKS, 1)


@hot
def count_block_move(m, z):
    """A pageblock was taken from another type."""
    m.c[FALLBACK_BLOCK_MOVES] += 1
    note_hold(m, z, H_MOVES, 1)


@hot
def zone_lock(m, z):
    """Take the zone lock: counted, and its work starts at nothing."""
    m.c[ZONE_LOCK_ACQUISITIONS] += 1
    m.w[z * Z_WORDS + Z_LOCKS] += 1
    m.w[z * Z_WORDS + Z_WORK] = 0
    if m.w[CFG_NOW] >= m.w[CFG_SLOT_END]:
        close_slot(m)
    at = (z * m.w[CFG_CPUS] + m.w[CFG_CPU]) * P_WORDS + P_SLOT
    base = m.w[CFG_SLOT] << SLOT_SHIFT
    before = max(m.w[at] - base, 0)
    m.w[at] = base + before + 1
    row = hold_row(z, 0)
    m.w[row + H_LOCKS] += 1
    m.w[row + H_SAME] += 2 * before + 1


@hot
def zone_unlock(m, z):
    """Release the zone lock: the longest hold is kept, in work units."""
    work = m.w[z * Z_WORDS + Z_WORK]
    m.w[z * Z_WORDS + Z_LONGEST] = max(m.w[z * Z_WORDS + Z_LONGEST], work)
    row = hold_row(z, 0)
    m.w[row + H_WORK] += work
    m.w[row + H_WORK2] += work * work


@hot
def octave(n):
    """Floor of the base-2 logarithm of a number from 1 on."""
    k = 0
    while n > 1:
        n >>= 1
        k += 1
    return k


@hot
def class_of(locks, same, load):
    """Row of the slots that are like one: by half octaves of its load and octaves of the CPUs it is spread over."""
    k = octave(load)
    half = 1 if k < 31 and load * load >= 2 << 2 * k else 0
    spread = 0
    if same < locks * locks:
        spread = min(1 + octave(locks * locks // same), SPREAD_CLASSES - 1)
    return 1 + min(2 * k + half, LOAD_CLASSES - 1) * SPREAD_CLASSES + spread


@entry(Machine)
def close_slot(m):
    """Add the open slot to its class, zone by zone, and open that of ``w[CFG_NOW]``."""
    for z in range(m.w[CFG_ZONES]):
        row = hold_row(z, 0)
        locks = m.w[row + H_LOCKS]
        if locks == 0:
            continue
        load = SLOT_LOCK_LOAD * locks + m.w[row + H_WORK]
        m.w[row + H_SLOTS] = 1
        m.w[row + H_LOCKS2] = locks * locks
        if load > m.w[z * Z_WORDS + Z_BUSIEST]:
            m.w[z * Z_WORDS + Z_BUSIEST] = load
            m.w[z * Z_WORDS + Z_BUSIEST_END] = m.w[CFG_SLOT_END]
            busiest = hold_row(z, HOLD_ROWS - 1)
            for k in range(HOLD_WORDS):
                m.w[busiest + k] = m.w[row + k]
        like = hold_row(z, class_of(locks, m.w[row + H_SAME], load))
        for k in range(HOLD_WORDS):
            m.w[like + k] += m.w[row + k]
            m.w[row + k] = 0
    m.w[CFG_SLOT] += 1
    m.w[CFG_SLOT_END] = (m.w[CFG_NOW] // SLOT_NS + 1) * SLOT_NS
