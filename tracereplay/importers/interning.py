"""Distinct texts of a source, numbered as they appear: what the compiled parsers emit instead of strings.

:class:`Texts` owns the arrays and grows them between blocks; :func:`intern` looks up and inserts in compiled code.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tracereplay.compiled import hot, kernel
from tracereplay.importers.words import PADDING, hash_span, same_span

T = TypeVar("T", bound=np.generic)

MAX_TEXT = 1024
"""Longest text kept, in bytes; callers cut or refuse longer ones."""

COUNT = 0
USED = 1


class TextTable(NamedTuple):
    """The arrays of a :class:`Texts`, as compiled code sees them."""

    slots: npt.NDArray[np.int32]
    """Open addressing, a power of two long: id or -1."""
    hashes: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.int64]
    """A number that is part of the identity (the pid of a task; 0 elsewhere)."""
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    arena: npt.NDArray[np.uint8]
    meta: npt.NDArray[np.int64]
    """[COUNT] texts held, [USED] bytes of the arena."""


@hot
def has_room(t):
    """Whether one more text of any length fits."""
    return t.meta[COUNT] < t.hashes.size and t.meta[USED] + MAX_TEXT + PADDING <= t.arena.size


@hot
def intern(t, buf, a, b, key):
    """Number of the text ``buf[a:b]`` with ``key``; new ones get the next number. Needs :func:`has_room`."""
    h = hash_span(buf, a, b, np.uint64(key))
    mask = t.slots.size - 1
    at = np.int64(h) & mask
    length = b - a
    while True:
        k = t.slots[at]
        if k < 0:
            break
        if (
            t.hashes[k] == h
            and t.keys[k] == key
            and t.lengths[k] == length
            and same_span(t.arena, t.starts[k], buf, a, length)
        ):
            return np.int64(k)
        at = (at + 1) & mask
    k = np.int32(t.meta[COUNT])
    start = t.meta[USED]
    for i in range(length):
        t.arena[start + i] = buf[a + i]
    t.slots[at] = k
    t.hashes[k] = h
    t.keys[k] = key
    t.starts[k] = start
    t.lengths[k] = length
    t.meta[COUNT] += 1
    t.meta[USED] += length
    return np.int64(k)


@kernel
def rehash(slots, hashes, count):
    """Fill an emptied slot array from the hashes of the first ``count`` entries."""
    mask = slots.size - 1
    for k in range(count):
        at = np.int64(hashes[k]) & mask
        while slots[at] >= 0:
            at = (at + 1) & mask
        slots[at] = k


@kernel
def intern_one(t, buf, length, key):
    """:func:`intern` of a whole buffer, for seeding from Python."""
    return intern(t, buf, 0, length, key)


class Texts:
    """Growing set of numbered texts."""

    def __init__(self, entries: int = 1024, arena: int = 1 << 16) -> None:
        self.table = TextTable(
            np.full(2 * entries, -1, np.int32),
            np.zeros(entries, np.uint64),
            np.zeros(entries, np.int64),
            np.zeros(entries, np.int64),
            np.zeros(entries, np.int32),
            np.zeros(max(arena, 4 * MAX_TEXT), np.uint8),
            np.zeros(2, np.int64),
        )

    def __len__(self) -> int:
        return int(self.table.meta[COUNT])

    def grow(self) -> None:
        """Double whatever is more than half full. Tables handed out before are stale."""
        t = self.table
        count = len(self)
        if 2 * count >= t.hashes.size:
            size = 2 * t.hashes.size
            slots = np.full(2 * size, -1, np.int32)
            hashes = _longer(t.hashes, size)
            rehash(slots, hashes, count)
            keys, starts, lengths = _longer(t.keys, size), _longer(t.starts, size), _longer(t.lengths, size)
            t = TextTable(slots, hashes, keys, starts, lengths, t.arena, t.meta)
        if 2 * (t.meta[USED] + MAX_TEXT + PADDING) >= t.arena.size:
            t = t._replace(arena=_longer(t.arena, 2 * t.arena.size))
        self.table = t

    def add(self, text: bytes, key: int = 0) -> int:
        """Number of a text, given from Python."""
        self.grow()
        padded = np.zeros(len(text) + PADDING, np.uint8)
        padded[: len(text)] = np.frombuffer(text, np.uint8)
        return int(intern_one(self.table, padded, len(text), key))

    def text(self, number: int) -> bytes:
        """The text of a number."""
        start = int(self.table.starts[number])
        return self.table.arena[start : start + int(self.table.lengths[number])].tobytes()

    def texts(self, first: int = 0) -> list[bytes]:
        """All texts from a number on."""
        return [self.text(k) for k in range(first, len(self))]


def _longer(array: npt.NDArray[T], size: int) -> npt.NDArray[T]:
    longer = np.zeros(size, array.dtype)
    longer[: array.size] = array
    return longer
