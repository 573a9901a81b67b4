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

from tracereplay.compiled import kernel
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
    heads = ops[begins]
    _count_sizes(heads, most, sizes)
    out = np.empty(len(ops) + 2 * int(heads["pages"].sum(dtype=np.int64)), OP)
    numbers = np.array([bio, 0], np.int64)
    n = cut_requests(np.require(ops, requirements="W"), out, most, numbers)
    return out[:n], int(numbers[1])


@kernel
def cut_requests(ops: Ops, out: Ops, most: int, numbers: I64) -> int:
    """Copy operations to ``out``, large requests in pieces; how many. ``numbers``: that of the next bio of several
    pieces, and how many got one.
    """
    n = 0
    i = 0
    while i < ops.shape[0]:
        op = ops[i]
        large = op.kind == ALLOC and op.flags & (FIRST | TARGETED | REQUIRED) == FIRST | TARGETED and op.pages > most
        if not large:
            out[n] = op
            n += 1
            i += 1
            continue
        total = np.int64(op.pages)
        bio = np.int64(-1)
        to_come = np.int64(0)
        if op.flags & OF_BIO:
            if n > 0 and out[n - 1].kind == PIECE:  # it was a piece already
                n -= 1
                bio = np.int64(out[n].pfn)
                to_come = np.int64(out[n].pages)
            else:
                bio = (numbers[0] + numbers[1]) % BIO_NUMBERS
                numbers[1] += 1
        done = np.int64(0)
        while done < total:
            extent = ops[i]
            size = 1 << np.int64(extent.order)
            at = np.int64(0)
            while at < size:
                left = most - done % most
                order = np.int64(extent.order)
                while 1 << order > left or at & ((1 << order) - 1) != 0:
                    order -= 1
                begins = left == most
                piece = min(most, total - done // most * most)
                if begins and bio >= 0:
                    out[n] = extent
                    out[n].kind = PIECE
                    out[n].pfn = bio
                    out[n].pages = to_come + (total - done - 1) // most
                    out[n].gfp = out[n].caller = out[n].flags = out[n].order = out[n].migratetype = 0
                    n += 1
                out[n] = extent
                out[n].pfn = extent.pfn + at
                out[n].order = order
                out[n].pages = piece if begins else 0
                out[n].flags = extent.flags & ~(FIRST | (BATCH if piece == 1 else 0)) | (FIRST if begins else 0)
                n += 1
                at += 1 << order
                done += 1 << order
            i += 1
    return n


def _count_sizes(requests: Ops, most: int, sizes: Counter[tuple[int, int]]) -> None:
    """Note the requests that go, and those that come in their place."""
    kinds, n = np.unique(requests["caller"].astype(np.int64) << 32 | requests["pages"], return_counts=True)
    for kind, times in zip(kinds.tolist(), n.tolist(), strict=True):
        caller, pages = kind >> 32, kind & 0xFFFFFFFF
        sizes[caller, pages] -= times
        sizes[caller, most] += pages // most * times
        if pages % most:
            sizes[caller, pages % most] += times
