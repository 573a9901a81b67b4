"""Raw pages of the kernel's trace ring buffer, as ``per_cpu/cpuN/trace_pipe_raw`` of tracefs gives them, taken apart.

A page (include/linux/ring_buffer.h, kernel/trace/ring_buffer.c): u64 time stamp, a word whose low 32 bits hold the
bytes used and two flags, then records. A record begins with 5 bits of type and 27 bits of time since the record
before it:

====== ================================================================================================
type   meaning
====== ================================================================================================
0      data; the next word is their length in bytes, itself included
1-28   data of so many words
29     padding: with time 0 the rest of the page is unused, else a record taken back, length in the next word
30     time only: the next word is its upper part
31     absolute time of 59 bits, the upper part in the next word
====== ================================================================================================

Flag bit 31: records before this page were overwritten. Flag bit 30: the 8 bytes after the used ones say how many; where
they found no room, only the counter ``overrun`` of the CPU's ``stats`` file knows.

All pages are walked side by side: step k looks at record k of every page, so the number of NumPy calls is that of the
records in the fullest page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracereplay.errors import CollectorError

MISSED = 1 << 31
MISSED_STORED = 1 << 30
_USED_MASK = MISSED_STORED - 1
_TIME_BITS = 27
_STAMP_BITS = 59
PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
_STORED_BYTES = 8

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

# Words from record to record by type; 0: the record says.
_WORDS = np.array([0, *(n + 1 for n in range(1, 29)), 0, 2, 2], np.int64)

_HEADER_FIELD = re.compile(r"field:[^;]*?\b(\w+);\s*offset:(\d+);\s*size:(\d+);")


@dataclass(frozen=True, slots=True)
class PageLayout:
    """Where things are in a page, from tracefs ``events/header_page``."""

    page_bytes: int
    commit_at: int
    data_at: int

    @classmethod
    def from_header_page(cls, text: str) -> PageLayout:
        """Raises CollectorError for a page that is laid out in a way not known here."""
        fields = {name: (int(offset), int(size)) for name, offset, size in _HEADER_FIELD.findall(text)}
        try:
            (stamp_at, stamp_size), (commit_at, commit_size) = fields["timestamp"], fields["commit"]
            data_at, data_size = fields["data"]
        except KeyError as error:
            raise CollectorError(f"header_page of the traced kernel has no field {error}") from None
        sound = (stamp_at, stamp_size) == (0, 8) and commit_at == 8 and commit_size in (4, 8)
        if not sound or data_at < commit_at + commit_size or data_at % 4 or data_size < 8 or data_size % 4:
            raise CollectorError(f"ring-buffer pages of the traced kernel are laid out as {fields}, which is not known")
        return cls(data_at + data_size, commit_at, data_at)


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages side by side, whole, in the order in which they were read; of several CPUs one after the other."""

    layout: PageLayout
    words: U32
    """All bytes as words, one page of zeros behind the last."""
    stamps: I64
    used: I64
    """Bytes of records in each page."""
    missed: Mask
    """Whether records before the page were overwritten."""
    lost: I64
    """How many; 0 where the page does not say."""

    def __len__(self) -> int:
        return len(self.stamps)


@dataclass(frozen=True, slots=True)
class Events:
    """The data records of some pages, page by page in record order."""

    page: I64
    """Index of the page."""
    ts: I64
    """ns of the instance's clock."""
    at: I64
    """Index of the first word of the data in ``Pages.words``."""
    size: I64
    """Bytes of data, multiple of 4."""


def gather_pages(layout: PageLayout, payloads: Sequence[Any]) -> Pages:
    """Lay out payloads of FTRACE frames as whole pages. In each payload, only the last page may be cut off after its
    used bytes (and the count of lost records behind them).

    Raises CollectorError for a page that claims more than it has.
    """
    size = layout.page_bytes
    counts = [-(-len(p) // size) for p in payloads]
    total = sum(counts)
    space = np.zeros((total + 1) * size, np.uint8)
    first = 0
    lengths = np.full(total, size, np.int64)
    for payload, count in zip(payloads, counts, strict=True):
        space[first * size : first * size + len(payload)] = np.frombuffer(payload, np.uint8)
        if count:
            lengths[first + count - 1] = len(payload) - (count - 1) * size
        first += count
    words = space.view(np.uint32)
    table = words[: total * (size // 4)].reshape(total, size // 4)
    stamps = table[:, 0].astype(np.int64) | table[:, 1].astype(np.int64) << 32
    commit = table[:, layout.commit_at // 4].astype(np.int64)
    used = commit & _USED_MASK
    missed = (commit & MISSED) != 0
    stored = missed & ((commit & MISSED_STORED) != 0)
    ends = layout.data_at + used + np.where(stored, _STORED_BYTES, 0)
    if (lengths < layout.data_at).any() or (ends > lengths).any() or (used % 4 != 0).any():
        raise CollectorError("a ring-buffer page of the tracefs instance claims more bytes than it has")
    lost = np.zeros(total, np.int64)
    for index in np.flatnonzero(stored).tolist():
        at = (index * size + layout.data_at + int(used[index])) // 4
        lost[index] = int(words[at]) | int(words[at + 1]) << 32
    return Pages(layout, words, stamps, used, missed, lost)


def read_events(pages: Pages) -> Events:
    """All data records, with their times. Raises CollectorError for records that run over the end of their page."""
    starts, counts = _starts(pages)
    page = np.repeat(np.arange(len(pages)), counts)
    heads = pages.words[starts]
    kinds = heads & 31
    ts = _times(pages, starts, counts, page, kinds, (heads >> 5).astype(np.int64))
    data = np.flatnonzero(kinds < PADDING)
    starts, kinds, page, ts = starts[data], kinds[data], page[data], ts[data]
    long = kinds == 0
    at = starts + 1 + long
    size = kinds.astype(np.int64) * 4
    if long.any():
        size[long] = (pages.words[starts[long] + 1].astype(np.int64) + 3 & ~3) - 4
    return Events(page, ts, at, size)


def _starts(pages: Pages) -> tuple[I64, I64]:
    """Index of the first word of every record, page by page, and the number of records of each page."""
    layout, words = pages.layout, pages.words
    size_words = layout.page_bytes // 4
    active = np.flatnonzero(pages.used)
    at = active * size_words + layout.data_at // 4
    end = at + pages.used[active] // 4
    found = np.zeros((64, len(pages)), np.int64)
    steps = 0
    while len(active):
        if steps == len(found):
            found = np.concatenate([found, np.zeros_like(found)])
        if len(active) == len(pages):
            found[steps] = at
        else:
            found[steps, active] = at
        steps += 1
        heads = words.take(at)
        step = _WORDS.take(heads & 31)
        if not step.all():
            # A length in bytes behind the first word; padding without time ends the page.
            odd = np.flatnonzero(step == 0)
            length = words[at[odd] + 1].astype(np.int64) + 3 >> 2
            step[odd] = np.where(heads[odd] == PADDING, end[odd] - at[odd], 1 + length)
        at = at + step
        more = at < end
        if not more.all():
            if (at > end).any():
                bad = int(active[np.argmax(at > end)])
                raise CollectorError(f"a record runs over the end of ring-buffer page {bad} of the tracefs instance")
            active, at, end = active[more], at[more], end[more]
    by_page = found[:steps].T
    there = by_page > 0
    return by_page[there], there.sum(axis=1)


def _times(pages: Pages, starts: I64, counts: I64, page: I64, kinds: Array, delta: I64) -> I64:
    """Time of every record: the page's stamp plus all deltas up to it, from the last absolute stamp on."""
    if not len(starts):
        return delta
    upper = np.flatnonzero(kinds >= TIME_EXTEND)
    delta[upper] += pages.words[starts[upper] + 1].astype(np.int64) << _TIME_BITS
    # A record that was taken back carries time 1 where it had none (rb_event_discard).
    delta[(kinds == PADDING) & (delta == 1)] = 0
    stamped = np.flatnonzero(kinds == TIME_STAMP)
    absolute = _absolute(delta[stamped], pages.stamps[page[stamped]])
    delta[stamped] = 0
    total = np.cumsum(delta)
    # What has to be added to the running sum, from each page's first record and each absolute stamp on.
    first = np.cumsum(counts) - counts
    filled = counts > 0
    heads = first[filled]
    base = pages.stamps[filled] - (total[heads] - delta[heads])
    if len(stamped):
        heads = np.concatenate([heads, stamped])
        base = np.concatenate([base, absolute - total[stamped]])
        order = np.argsort(heads, kind="stable")  # a stamp that comes first in its page counts, not the page's
        heads, base = heads[order], base[order]
    lengths = np.diff(np.append(heads, len(starts)))
    ts: I64 = total + np.repeat(base, lengths)
    return ts


def _absolute(stamp: I64, page_stamp: I64) -> I64:
    """59-bit stamps completed by the page's upper bits, where it has any (rb_fix_abs_ts)."""
    low = (1 << _STAMP_BITS) - 1
    upper = page_stamp & ~low
    full: I64 = (stamp & low) | upper
    full[(upper != 0) & (full < page_stamp)] += 1 << _STAMP_BITS
    return full


def field_at_words(pages: Pages, dtype: np.dtype[Any], offset: int) -> Array:
    """What stands ``offset`` bytes behind every word, as ``dtype``: taking it at ``Events.at`` gathers one field of
    whole events. Shorter than the words by what would reach over the end.
    """
    count = len(pages.words) - -(-(offset + dtype.itemsize) // 4) + 1
    return np.ndarray(count, dtype, pages.words, offset, (4,))
