"""Numbers for what allocations are grouped by, given in order of first sight (compiled where it is per event)."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot, kernel
from tracereplay.demand.bursts import K_ALLOC
from tracereplay.demand.state import HASH, Array

_SIZE = 1 << 12


@hot
def _number(table, ids, found, count, key):
    """Number of a key, new or known; -1 when the table has to grow."""
    mask = table.shape[0] - 1
    mixed = key * HASH
    h = (mixed ^ (mixed >> 23)) & mask
    while table[h] >= 0:
        if table[h] == key:
            return np.int64(ids[h])
        h = (h + 1) & mask
    n = count[0]
    if 2 * n >= mask:
        return np.int64(-1)
    table[h] = key
    ids[h] = n
    found[n] = key
    count[0] = n + 1
    return n


@kernel
def _intern(keys, kinds, table, ids, found, count, out, start):
    """Numbers of the keys of allocations (of all, where ``kinds`` is empty); where the table was full."""
    last = np.int64(-1)
    number = np.int64(-1)
    for i in range(start, keys.shape[0]):
        if kinds.shape[0] and kinds[i] != K_ALLOC:
            continue
        if keys[i] != last:
            last = keys[i]
            number = _number(table, ids, found, count, last)
            if number < 0:
                return i
        out[i] = number
    return keys.shape[0]


class Numbers:
    """Keys (int64, not negative) to 0, 1, 2 ... in the order in which they are first seen."""

    def __init__(self) -> None:
        self._count = np.zeros(1, np.int64)
        self._make(_SIZE)

    def _make(self, size: int) -> None:
        self._table = np.full(size, -1, np.int64)
        self._ids = np.zeros(size, np.int32)
        self._found = np.zeros(size // 2 + 1, np.int64)

    def __len__(self) -> int:
        return int(self._count[0])

    @property
    def keys(self) -> Array:
        """The keys by number."""
        return self._found[: len(self)]

    def of(self, keys: Array, kinds: Array | None = None) -> Array:
        """Numbers of keys as uint32; with ``kinds`` (codes of page_events) of allocations only, others are 0."""
        out = np.zeros(len(keys), np.uint32)
        kinds = np.zeros(0, np.int8) if kinds is None else kinds
        at = 0
        while True:
            at = _intern(keys, kinds, self._table, self._ids, self._found, self._count, out, at)
            if at == len(keys):
                return out
            known, none = self.keys.copy(), np.zeros(0, np.int8)
            self._count[0] = 0
            self._make(2 * len(self._table))
            again = np.zeros(len(known), np.uint32)
            _intern(known, none, self._table, self._ids, self._found, self._count, again, 0)
