"""Distinct blocks of a stream in an open hash table, all of them or a spatial sample (compiled).

A block is sampled when the low bits of its hash are below a limit, so a block's every access is seen or none is
(SHARDS: Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015). The limit starts at all blocks and is
halved whenever the table would hold more than it may: what fits is exact, what does not is a sample of known rate.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot

SAMPLE_BITS = 24
"""Bits of the hash that decide about sampling: rates from 1 down to 2^-24."""
ALL = 1 << SAMPLE_BITS
"""The limit that keeps every block."""
GROUPS = 16
"""Parts into which sampled blocks fall by four more bits of the hash: their spread tells the error."""
DEVICE_SHIFT = 48
"""A block's key is its number, with the number of its device from this bit on."""
EMPTY = -1
LOAD = (5, 8)
"""Fullest a table may be."""

_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_INDEX_SHIFT = SAMPLE_BITS + 4


@hot
def mix(key):
    """A hash of a key, 62 bits (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    h = np.uint64(key) + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> _30)) * _MULTIPLY_1
    h = (h ^ (h >> _27)) * _MULTIPLY_2
    return np.int64((h ^ (h >> _31)) >> np.uint64(2))


@hot
def sampled(h, limit):
    """Whether the block of a hash is in the sample."""
    return (h & (ALL - 1)) < limit


@hot
def group_of(h):
    """Part of the sample to which the block of a hash belongs."""
    return (h >> SAMPLE_BITS) & (GROUPS - 1)


@hot
def find(slots, key, h):
    """Place of a key in ``slots`` (key and value by turns, a power of two of pairs), or of the gap where it belongs."""
    mask = slots.size - 1
    at = ((h >> _INDEX_SHIFT) << 1) & mask
    while slots[at] != key and slots[at] != EMPTY:
        at = (at + 2) & mask
    return at


@hot
def has_room(slots, held):
    """Whether one more key may go into ``slots``, which hold ``held``."""
    return held * LOAD[1] < (slots.size >> 1) * LOAD[0]
