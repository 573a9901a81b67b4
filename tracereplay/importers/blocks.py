"""A stream of bytes as blocks of whole lines, the next one read while the last one is parsed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

PADDING = 64
"""Readable bytes after a block (the compiled parser reads ahead)."""
SAMPLE_BYTES = 200
NEWLINE = 10


@dataclass(slots=True)
class Block:
    """Whole lines: ``buffer[:end]``, the last byte a newline. Valid until the next block is taken."""

    buffer: npt.NDArray[np.uint8]
    end: int
    too_long: bytes | None = None
    """Start of a line that fits no block; it came before these lines and is left out."""
    cut: bytes | None = None
    """Start of a last line without an end; it came after these lines and is left out."""


def _fill(stream: BinaryIO, buffer: npt.NDArray[np.uint8], start: int, stop: int) -> int:
    """Read until ``stop`` or the end of the stream: the position reached."""
    view: Any = buffer.data
    reader: Any = stream
    while start < stop:
        n = reader.readinto(view[start:stop])
        if not n:
            break
        start += n
    return start


def _last_newline(buffer: npt.NDArray[np.uint8], start: int, end: int) -> int:
    """Position of the last newline in ``buffer[start:end]``, or -1."""
    step = 1 << 16
    while end > start:
        low = max(start, end - step)
        found = np.flatnonzero(buffer[low:end] == NEWLINE)
        if found.size:
            return low + int(found[-1])
        end = low
    return -1


def line_blocks(stream: BinaryIO, size: int) -> Iterator[Block]:
    """Blocks of up to ``size`` bytes. What the stream raises comes out of the iterator."""
    buffers = [np.zeros(size + PADDING, np.uint8) for _ in range(2)]
    with ThreadPoolExecutor(1, "tracereplay-read") as pool:
        future = pool.submit(_fill, stream, buffers[0], 0, size)
        number = 0
        skipping = False  # within a line that is too long
        while True:
            end = future.result()
            buffer, following = buffers[number % 2], buffers[(number + 1) % 2]
            number += 1
            at_end = end < size
            begin = 0
            if skipping:
                newlines = np.flatnonzero(buffer[:end] == NEWLINE)
                begin = int(newlines[0]) + 1 if newlines.size else end
                skipping = not newlines.size
            stop = max(begin, _last_newline(buffer, begin, end) + 1)
            carry = buffer[stop:end].copy()
            if carry.size == size:
                yield Block(buffer, 0, too_long=carry[:SAMPLE_BYTES].tobytes())
                carry, skipping = carry[:0], True
            if not at_end:
                following[: carry.size] = carry
                future = pool.submit(_fill, stream, following, carry.size, size)
            length = stop - begin
            if begin:
                buffer[:length] = buffer[begin:stop]
            buffer[length : length + PADDING] = 0
            cut = carry[:SAMPLE_BYTES].tobytes() if at_end and carry.size else None
            if length or cut is not None:
                yield Block(buffer, length, cut=cut)
            if at_end:
                return
