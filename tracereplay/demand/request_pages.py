"""A demand stream in which callers ask for fewer pages at once: each large request becomes several.

A targeted request of more than n pages that does not require one block is asked for in pieces: n pages, n pages ...,
and the rest, one right after the other at the time at which it arrived, as a caller does that takes its pages in a loop
of batches of n. Pages, keys and releases are those of the stream. An extent (stream.py) that reaches over the end of a
piece is halved until its parts do not. The pieces of a WRITE bio's request are pieces of that bio; bios that had one
request only are numbered behind all others.

The slow form of the same: tests/reference/slow_request_pages.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tracereplay.demand.stream import (
    ALLOC,
    BATCH,
    BIO_NUMBERS,
    FIRST,
    MAX_REQUEST_PAGES,
    OF_BIO,
    OP,
    PIECE,
    REQUIRED,
    TARGETED,
    DemandInfo,
    DemandReport,
    DemandStream,
)
from tracereplay.errors import ParameterError

WINDOW_PAGES = 1 << 17
"""Operations that are made at once, about: each page of a request that is cut may become one."""

Ops = np.ndarray[tuple[int], np.dtype[np.void]]
I64 = npt.NDArray[np.int64]


class CutDemand:
    """A demand stream of requests of at most ``most`` pages. Iterate it, then read ``report``."""

    def __init__(self, stream: DemandStream, most: int, *, first_bio: int) -> None:
        """``first_bio``: numbers of bios from here on are not the stream's. Raises ParameterError."""
        if not 1 <= most <= MAX_REQUEST_PAGES:
            raise ParameterError(f"request_pages={most}", hint=f"1 to {MAX_REQUEST_PAGES} pages")
        self.info: DemandInfo = stream.info
        self.report = DemandReport()
        self._stream, self.most, self._first_bio = stream, most, first_bio

    def __iter__(self) -> Iterator[Ops]:
        """Batches of OP records in replay order."""
        sizes: Counter[tuple[int, int]] = Counter()  # requests more (or fewer) by caller and pages
        bio = self._first_bio
        held = np.zeros(0, OP)  # a PIECE whose request is in the next batch
        for batch in self._stream:
            ops = np.concatenate([held, batch]) if len(held) else batch
            end = len(ops) - (len(ops) > 0 and ops["kind"][-1] == PIECE)
            ops, held = ops[:end], ops[end:]
            for part in _windows(ops, self.most):
                made, numbered = _cut(part, self.most, bio, sizes)
                bio += numbered
                yield made
        if len(held):
            yield held
        self._count(sizes)

    def _count(self, sizes: Counter[tuple[int, int]]) -> None:
        """The stream's report, with the requests that were made of others."""
        report = self.report
        report.take(self._stream.report)
        report.request_pages = self.most
        more = sum(sizes.values())
        report.requests += more
        report.targeted_requests += more
        by_caller = {row["caller"]: row for row in report.by_caller}
        for (caller, pages), n in sizes.items():
            row = by_caller[report.callers[caller]]
            row["requests"] += n
            row["sizes"] = row["sizes"] | {str(pages): row["sizes"].get(str(pages), 0) + n}
        for row in report.by_caller:
            row["sizes"] = {size: row["sizes"][size] for size in sorted(row["sizes"], key=int, reverse=True)}
            row["sizes"] = {size: n for size, n in row["sizes"].items() if n}


def in_pieces(stream: DemandStream, most: int | None, *, first_bio: int) -> DemandStream:
    """The stream with requests of at most so many pages; None: the stream itself. Raises ParameterError."""
    return stream if most is None else CutDemand(stream, most, first_bio=first_bio)


def _to_cut(ops: Ops, most: int) -> npt.NDArray[np.bool_]:
    """Which operations begin a request that is cut."""
    flags = ops["flags"]
    wanted = (flags & (FIRST | TARGETED | REQUIRED)) == FIRST | TARGETED
    found: npt.NDArray[np.bool_] = (ops["kind"] == ALLOC) & wanted & (ops["pages"] > most)
    return found


def _windows(ops: Ops, most: int) -> Iterator[Ops]:
    """A batch in parts that cut no request and become no more than about WINDOW_PAGES operations each."""
    room = np.cumsum(np.where(_to_cut(ops, most), 2 * ops["pages"].astype(np.int64), 1)) // WINDOW_PAGES
    begins = (ops["kind"] != ALLOC) | (ops["flags"] & FIRST != 0)
    begins[1:] &= ops["kind"][:-1] != PIECE
    places = np.flatnonzero(begins)
    wanted = np.flatnonzero(np.diff(room, prepend=0))
    after = places[np.searchsorted(places, wanted[wanted <= places[-1]])] if len(places) else places
    yield from (part for part in np.split(ops, np.unique(after)) if len(part))


def _cut(ops: Ops, most: int, bio: int, sizes: Counter[tuple[int, int]]) -> tuple[Ops, int]:
    """Operations with large requests cut, and how many bios got a number, from ``bio`` on; counts in ``sizes``."""
    begins = _to_cut(ops, most)
    if not begins.any():
        return ops, 0
    heads = np.flatnonzero(begins)
    _count_sizes(ops[heads], most, sizes)
    # numbers of bios and their pieces to come beyond the request, at the beginning of each request that is cut
    announced = np.zeros(len(ops), np.bool_)
    announced[heads[heads > 0] - 1] = ops["kind"][heads[heads > 0] - 1] == PIECE
    known = announced[heads - 1]
    number, to_come = np.zeros((2, len(ops)), np.int64)
    number[heads] = np.where(known, ops["pfn"][heads - 1], 0)
    to_come[heads] = np.where(known, ops["pages"][heads - 1], 0)
    whole = heads[~known & (ops["flags"][heads] & OF_BIO != 0)]
    number[whole] = (bio + np.arange(len(whole))) % BIO_NUMBERS
    # of each operation: where its request begins, whether that is cut, and pages of the request before this extent
    alloc = ops["kind"] == ALLOC
    first = np.maximum.accumulate(np.where(alloc & (ops["flags"] & FIRST != 0), np.arange(len(ops)), 0))
    cut = alloc & begins[first]
    size = np.where(alloc, np.int64(1) << ops["order"].astype(np.int64), 0)
    at = np.cumsum(size) - size
    at -= at[first]
    total = ops["pages"][first].astype(np.int64)

    made, rows, at = _halved(ops[~announced], cut[~announced], at[~announced], most)
    rows = np.flatnonzero(~announced)[rows]
    cut, total, first = cut[rows], total[rows], first[rows]
    left = total - at // most * most  # pages of the request from the piece's first on
    head = cut & (at % most == 0)
    made["flags"][cut] &= ~np.uint16(FIRST)
    made["flags"][cut & (np.minimum(left, most) == 1)] &= ~np.uint16(BATCH)
    made["flags"][head] |= np.uint16(FIRST)
    made["pages"][cut] = 0
    made["pages"][head] = np.minimum(left, most)[head]
    pieces = np.flatnonzero(head & (made["flags"] & OF_BIO != 0))
    told = np.zeros(len(pieces), OP)
    told["kind"] = PIECE
    for name in ("ts_ns", "cpu"):
        told[name] = made[name][pieces]
    told["pfn"] = number[first[pieces]]
    told["pages"] = to_come[first[pieces]] + (left[pieces] - 1) // most
    return np.insert(made, pieces, told), len(whole)


def _halved(ops: Ops, cut: npt.NDArray[np.bool_], at: I64, most: int) -> tuple[Ops, I64, I64]:
    """Operations with extents that reach over the end of a piece halved until none does; of which row each is a part,
    and pages of its request before it."""
    ops = ops.copy()
    rows = np.arange(len(ops))
    while True:
        size = np.int64(1) << ops["order"].astype(np.int64)
        over = cut[rows] & (at // most != (at + size - 1) // most)
        if not over.any():
            return ops, rows, at
        again = np.repeat(np.arange(len(ops)), 1 + over)
        second = np.zeros(len(again), np.bool_)
        second[1:] = again[1:] == again[:-1]
        ops, rows, at = ops[again], rows[again], at[again]
        ops["order"] -= over[again]
        half = np.where(second, np.int64(1) << ops["order"].astype(np.int64), 0)
        ops["pfn"] += half.astype(np.int32)
        at = at + half


def _count_sizes(requests: Ops, most: int, sizes: Counter[tuple[int, int]]) -> None:
    """Note the requests that go, and those that come in their place."""
    kinds, n = np.unique(requests["caller"].astype(np.int64) << 32 | requests["pages"], return_counts=True)
    for kind, times in zip(kinds.tolist(), n.tolist(), strict=True):
        caller, pages = kind >> 32, kind & 0xFFFFFFFF
        sizes[caller, pages] -= times
        sizes[caller, most] += pages // most * times
        if pages % most:
            sizes[caller, pages % most] += times
