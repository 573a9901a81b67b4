# SPDX-License-Identifier: GPL-2.0-only
"""What each page frame holds, from /proc/kpageflags (``stable_page_flags``, fs/proc/page.c): one byte a page.

The file has a u64 of flags per frame. A chunk of it is taken apart with strided slices (byte *n* of every
word), each translated into the bits below by one table, and the results are OR-ed as one large integer: no
Python code runs per page. BUDDY marks every page of a free block, not its head alone.
"""

from __future__ import annotations

import os
import struct
import sys
import time
import zlib
from pathlib import Path

from collectors.protocol import FrameType, frame_header

BUDDY, SLAB, PGTABLE, LRU, ANON, HUGE, NOT_OURS, COMPOUND = 1, 2, 4, 8, 16, 32, 64, 128
"""Bits of a kind byte. NOT_OURS: reserved, offline, poisoned, or no memory there at all."""

_BIT_OF_FLAG = {
    5: LRU,
    7: SLAB,
    10: BUDDY,
    12: ANON,
    15: COMPOUND,  # head
    16: COMPOUND,  # tail
    17: HUGE,  # hugetlb
    19: NOT_OURS,  # hwpoison
    20: NOT_OURS,  # nopage
    22: HUGE,  # THP: every folio of several pages on an LRU list
    23: NOT_OURS,  # offline
    26: PGTABLE,
    32: NOT_OURS,  # reserved
}
"""KPF_* bit numbers (include/uapi/linux/kernel-page-flags.h; stable since 5.0) -> bit of the kind byte."""

CHUNK_PAGES = 128 << 10
"""1 MiB of the file, 512 MiB of memory: some 10 ms of the kernel's time."""
MAP_AFTER_STOP_NS = 2_000_000_000
"""How long after the stop of a capture a map that is not complete yet is still read."""
MAX_ERRORS = 16
"""Chunks in a row that cannot be read before the rest is given up."""
_WORD = 8
_HEAD = struct.Struct("<QQ")
"""begin_ns, pages: what precedes the compressed bytes in the payload."""


def _table(byte: int) -> bytes:
    """Translation of byte ``byte`` (0: least significant) of the flags into kind bits."""
    bits = {flag - 8 * byte: bit for flag, bit in _BIT_OF_FLAG.items() if flag // 8 == byte}
    made = bytearray(256)
    for value in range(256):
        for flag, bit in bits.items():
            if value >> flag & 1:
                made[value] |= bit
    return bytes(made)


_TABLES = [(byte if sys.byteorder == "little" else 7 - byte, _table(byte)) for byte in range(5)]
"""(offset of a byte within the word, its translation), for the five bytes that hold flags of interest."""


def kind_bytes(flags: bytes) -> bytes:
    """Kind bytes of the pages whose u64 flags, in the host's byte order, are given."""
    combined = 0
    for offset, table in _TABLES:
        combined |= int.from_bytes(flags[offset::_WORD].translate(table), "little")
    return combined.to_bytes(len(flags) // _WORD, "little")


def memory_ranges(iomem: str, page_size: int) -> list[tuple[int, int]]:
    """Frames [first, end) that are System RAM by the text of /proc/iomem, ascending; empty when it hides
    addresses, as it does for ordinary users."""
    ranges = []
    for line in iomem.splitlines():
        where, _, what = line.strip().partition(" : ")
        if what.startswith("System RAM"):
            first, _, last = where.partition("-")
            try:
                start, end = int(first, 16), int(last, 16) + 1
            except ValueError:
                continue
            if end > 1:
                ranges.append((start // page_size, -(-end // page_size)))
    return sorted(ranges)


class PageMapReader:
    """Reads the whole map once, a chunk per step, so that the rings can be drained in between."""

    def __init__(
        self,
        path: str = "/proc/kpageflags",
        iomem: str = "/proc/iomem",
        chunk_pages: int = CHUNK_PAGES,
        page_size: int | None = None,
    ) -> None:
        self.done = False
        self.error = ""
        """What could not be read, with the reason; empty: nothing."""
        self.pages = 0
        """Frames sent so far."""
        self.read_ns = 0
        """Time spent so far."""
        self._chunk = chunk_pages
        self._at = 0
        self._errors = 0
        self._fd = -1
        self._ram = self._memory(iomem, page_size or os.sysconf("SC_PAGESIZE"))
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            self._end(f"{path}: {error.strerror}")
        self._path = path

    def step(self) -> list[bytes]:
        """Buffers of one frame with the next chunk; empty when there is none, or nothing to tell about it.

        A chunk without memory is left out; such stretches are not even read where /proc/iomem tells of them.
        """
        self._skip_holes()
        if self.done:
            return []
        begin = time.monotonic_ns()
        try:
            flags = os.pread(self._fd, self._chunk * _WORD, self._at * _WORD)
        except OSError as error:
            self._failed(error)
            return []
        first, pages = self._at, len(flags) // _WORD
        if pages == 0:
            self._end()
            return []
        self._at += pages
        self._errors = 0
        kinds = self._without_holes(kind_bytes(flags[: pages * _WORD]), first)
        if kinds.count(NOT_OURS) == pages:
            self.read_ns += time.monotonic_ns() - begin
            return []
        end = time.monotonic_ns()
        payload = _HEAD.pack(begin, pages) + zlib.compress(kinds, 1)
        self.pages += pages
        self.read_ns += time.monotonic_ns() - begin
        return [frame_header(FrameType.PAGE_MAP, len(payload), mono_ns=end, position=first), payload]

    def close(self) -> None:
        """Give up what is left; harmless when it is done."""
        if not self.done:
            self._end(self.error or f"{self._path}: not read beyond frame {self._at}, the capture ended")

    def _end(self, error: str = "") -> None:
        self.done = True
        self.error = error or self.error
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _failed(self, error: OSError) -> None:
        """Leave this chunk out; too many in a row end it."""
        if not self.error:
            self.error = f"{self._path}: frames from {self._at} on not read: {error.strerror}"
        self._errors += 1
        self._at += self._chunk
        if self._errors >= MAX_ERRORS:
            self._end()

    @staticmethod
    def _memory(iomem: str, page_size: int) -> list[tuple[int, int]]:
        try:
            return memory_ranges(Path(iomem).read_text(encoding="ascii", errors="replace"), page_size)
        except OSError:
            return []

    def _skip_holes(self) -> None:
        """Step over whole chunks that hold no memory; past the last memory is the end."""
        if self.done or not self._ram:
            return
        following = [first for first, end in self._ram if end > self._at]
        if not following:
            self._end()
        elif following[0] >= self._at + self._chunk:
            self._at = following[0] // self._chunk * self._chunk

    def _without_holes(self, kinds: bytes, first: int) -> bytes:
        """Mark frames outside System RAM: some kernels (6.18) show them as 0, like plain pages in use."""
        if not self._ram:
            return kinds
        end = first + len(kinds)
        parts, at = [], first
        for start, stop in self._ram:
            start, stop = max(start, at), min(stop, end)
            if start < stop:
                parts += [bytes((NOT_OURS,)) * (start - at), kinds[start - first : stop - first]]
                at = stop
        parts.append(bytes((NOT_OURS,)) * (end - at))
        return b"".join(parts)
