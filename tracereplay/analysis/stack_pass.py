"""LRU stack distances of a stream of block accesses (compiled).

Olken's algorithm ("Efficient Methods for Calculating the Success Function of Fixed Space Replacement Policies",
LBL-12370, 1981): each block keeps the position of its last access, the distance is the number of live positions after
it. Positions are bits; a Fenwick tree counts them by groups of 512, so it stays in the second-level cache for millions
of blocks.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tracereplay.analysis.block_table import ALL, EMPTY, find, group_of, has_room, mix, sampled
from tracereplay.compiled import hot, kernel

DONE, GROW, HALVE, PACK = range(4)
"""What stopped :func:`touch`: the end of its input; a full table; too many blocks; no positions left."""
LIVE, NEXT, LIMIT, MOST, ACCESSES, ROW, OFFSET = range(7)
"""``scalar``: blocks held, next position, sampling limit, most blocks to hold, all accesses, where the input goes on
(row, block in it)."""
SCALARS = 7
SUB = 16
"""Bins of an octave."""
BINS = 48 * SUB
GROUP_SHIFT = 9
WORDS = 1 << (GROUP_SHIFT - 6)

_M1, _M2, _M4 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
_SUM = np.uint64(0x0101010101010101)
_1, _2, _4, _56, _63 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56), np.uint64(63)


class Stack(NamedTuple):
    """An LRU stack and what was measured on it."""

    slots: npt.NDArray[np.int64]
    """Key of a block and the position of its last access, by turns."""
    bits: npt.NDArray[np.uint64]
    """A bit a position: some block was last accessed there."""
    tree: npt.NDArray[np.int64]
    """Fenwick tree over the bits in groups of 512."""
    scalar: npt.NDArray[np.int64]
    found: npt.NDArray[np.float64]
    """Accesses by group of blocks and bin of their distance; each counts for 1 / sampling rate."""
    cold: npt.NDArray[np.float64]
    """The same of first accesses, by group."""


@hot
def _ones(word):
    """Bits set in a word (LLVM turns this idiom into one instruction)."""
    word = word - ((word >> _1) & _M1)
    word = (word & _M2) + ((word >> _2) & _M2)
    word = (word + (word >> _4)) & _M4
    return np.int64((word * _SUM) >> _56)


@hot
def _add(tree, group, change):
    g = group + 1
    while g < tree.size:
        tree[g] += change
        g += g & -g


@hot
def _upto(s, position):
    """Live positions up to and including one."""
    g = position >> GROUP_SHIFT
    word = position >> 6
    total = np.int64(0)
    for w in range(g * WORDS, word):
        total += _ones(s.bits[w])
    total += _ones(s.bits[word] << (_63 - (np.uint64(position) & _63)))
    while g > 0:
        total += s.tree[g]
        g -= g & -g
    return total


@hot
def bin_of(distance):
    """Bin of a distance: exact below 16, then 16 bins an octave."""
    if distance < SUB:
        return distance
    e = math.frexp(float(distance))[1] - 5  # the top five bits are kept
    return (e + 1) * SUB + ((distance >> e) & (SUB - 1))


@kernel
def touch(s, first, count):
    """Access the blocks ``first[i] .. first[i] + count[i] - 1`` of all rows from where the last call stopped.

    Returns why it stopped; GROW, HALVE and PACK want :func:`rebuild` and another call.
    """
    k = s.scalar
    limit = k[LIMIT]
    weight = ALL // limit
    for row in range(k[ROW], first.size):
        for i in range(k[OFFSET], count[row]):
            key = first[row] + i
            h = mix(key)
            if not sampled(h, limit):
                continue
            at = find(s.slots, key, h)
            new = s.slots[at] == EMPTY
            now = k[NEXT]
            stop = DONE
            if new and k[LIVE] >= k[MOST] and limit > 1:
                stop = HALVE
            elif new and not has_room(s.slots, k[LIVE]):
                stop = GROW
            elif now >> 6 >= s.bits.size:
                stop = PACK
            if stop != DONE:
                k[ROW] = row
                k[OFFSET] = i
                return stop
            if new:
                s.slots[at] = key
                k[LIVE] += 1
                s.cold[group_of(h)] += weight
            else:
                last = s.slots[at + 1]
                if last == now - 1:
                    s.found[group_of(h) * BINS] += weight
                    continue
                distance = (k[LIVE] - _upto(s, last)) * weight
                s.found[group_of(h) * BINS + bin_of(distance)] += weight
                s.bits[last >> 6] &= ~(_1 << (np.uint64(last) & _63))
            # the tree changes only when the block moves to another group
            group = now >> GROUP_SHIFT
            if new or s.slots[at + 1] >> GROUP_SHIFT != group:
                _add(s.tree, group, 1)
                if not new:
                    _add(s.tree, s.slots[at + 1] >> GROUP_SHIFT, -1)
            s.slots[at + 1] = now
            s.bits[now >> 6] |= _1 << (np.uint64(now) & _63)
            k[NEXT] = now + 1
        k[OFFSET] = 0
        k[ACCESSES] += count[row]
    k[ROW] = 0
    return DONE


@kernel
def rebuild(old, new, before):
    """Move the blocks that ``new``'s limit keeps into its empty arrays, in the same order at the lowest positions.

    ``before``: as many integers as ``old`` has words of bits. ``scalar``, ``found`` and ``cold`` are the same arrays in
    both; ``old`` is destroyed.
    """
    k = new.scalar
    for at in range(0, old.slots.size, 2):
        if old.slots[at] != EMPTY and not sampled(mix(old.slots[at]), k[LIMIT]):
            position = old.slots[at + 1]
            old.bits[position >> 6] &= ~(_1 << (np.uint64(position) & _63))
            old.slots[at] = EMPTY
    live = 0
    for w in range(old.bits.size):
        before[w] = live
        live += _ones(old.bits[w])
    for at in range(0, old.slots.size, 2):
        key = old.slots[at]
        if key != EMPTY:
            position = old.slots[at + 1]
            word = position >> 6
            lower = old.bits[word] << (_63 - (np.uint64(position) & _63))
            place = before[word] + _ones(lower) - 1
            to = find(new.slots, key, mix(key))
            new.slots[to] = key
            new.slots[to + 1] = place
            new.bits[place >> 6] |= _1 << (np.uint64(place) & _63)
    for g in range(1, new.tree.size):
        total = 0
        for w in range((g - 1) * WORDS, min(g * WORDS, new.bits.size)):
            total += _ones(new.bits[w])
        new.tree[g] += total
        above = g + (g & -g)
        if above < new.tree.size:
            new.tree[above] += new.tree[g]
    k[LIVE] = live
    k[NEXT] = live
    return live
