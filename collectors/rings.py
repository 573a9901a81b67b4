# SPDX-License-Identifier: GPL-2.0-only
"""Consumer side of a kernel ring buffer of fixed-size records, without touching single records in Python.

Layout (kernel/bpf/ringbuf.c), P = page size, S = ring size: page 0 holds ``consumer_pos`` (ours to write),
page 1 ``producer_pos``, then S bytes of data mapped twice in a row, so that any range up to S is contiguous.
Positions only grow; the byte is ``pos & (S - 1)``. A record is u32 length | BUSY | DISCARD, u32 private,
payload.

With one record size, the flag byte of each header sits at a fixed stride: one strided slice and one ``find``
look for the first record that is reserved but not committed, at C speed.

Memory order. x86-64 and s390x keep loads in order and stores after loads, which is all that is needed.
Elsewhere (arm64) a full barrier goes between looking at headers and reading payload, and between reading
payload and publishing ``consumer_pos``: membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED), which begins with
smp_mb() on the calling CPU.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

BUSY = 0x80
"""In the top byte of a header's length word: reserved, not committed. Committed records have 0x00, discarded
0x40."""
_FLAG_BYTE = 3 if sys.byteorder == "little" else 0

_MEMBARRIER_GLOBAL_EXPEDITED = 2
_MEMBARRIER_NUMBER = {"aarch64": 283, "riscv64": 283, "ppc64le": 365, "ppc64": 365, "armv7l": 389}
_ORDERED = ("x86_64", "s390x", "i686")


def _no_barrier() -> None:
    """Loads and stores are already in order."""


def memory_barrier(machine: str | None = None) -> Callable[[], None]:
    """The barrier function for a machine (``uname -m``). Raises OSError where none is known or the kernel
    has none."""
    machine = machine or platform.machine()
    if machine in _ORDERED:
        return _no_barrier
    number = _MEMBARRIER_NUMBER.get(machine)
    if number is None:
        raise OSError(f"no memory barrier known for {machine}")
    libc = ctypes.CDLL(None, use_errno=True)

    def barrier() -> None:
        if libc.syscall(number, _MEMBARRIER_GLOBAL_EXPEDITED, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "membarrier failed")

    barrier()
    return barrier


class RingReader:
    """Drains one ring. ``peek`` gives the committed bytes in place, ``advance`` hands them back to the
    kernel."""

    def __init__(self, control: Any, data: Any, size: int, stride: int, barrier: Callable[[], None]) -> None:
        """``control``: the writable consumer page; ``data``: producer page followed by the data, both
        buffers.

        ``data`` must begin with the producer page (its length is the page size) and hold the double mapping.
        """
        self.size = size
        self.stride = stride
        self._page = len(control)
        self._mask = size - 1
        self._consumer = memoryview(control)[:8].cast("Q")
        self._bytes = data
        self._data = memoryview(data)
        self._producer = self._data[:8].cast("Q")
        self._barrier = barrier
        self.position = int(self._consumer[0])
        self.high_water = 0
        """Largest fill seen, in bytes."""

    def peek(self) -> tuple[memoryview | None, bool]:
        """Committed bytes from ``position`` on (None if there are none), and whether a busy record follows
        them."""
        start = self.position
        length = int(self._producer[0]) - start
        if length == 0:
            return None, False
        if length > self.high_water:
            self.high_water = length
        self._barrier()
        at = self._page + (start & self._mask)
        busy = self._bytes[at + _FLAG_BYTE : at + length : self.stride].find(b"\x80")
        if busy >= 0:
            length = busy * self.stride
        if length == 0:
            return None, True
        self._barrier()
        return self._data[at : at + length], busy >= 0

    def advance(self, count: int) -> None:
        """Give ``count`` bytes back; the kernel may overwrite them at once."""
        self.position += count
        self._barrier()
        self._consumer[0] = self.position

    def close(self) -> None:
        """Drop the views, so that the mappings can be closed."""
        self._consumer.release()
        self._producer.release()
        self._data.release()


class MappedRing(RingReader):
    """A ring of the kernel, mapped from its map's file descriptor."""

    def __init__(self, fd: int, size: int, stride: int, barrier: Callable[[], None]) -> None:
        page = mmap.PAGESIZE
        self.fd = fd
        self._maps = [
            mmap.mmap(fd, page, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=0),
            mmap.mmap(fd, page + 2 * size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=page),
        ]
        super().__init__(self._maps[0], self._maps[1], size, stride, barrier)

    def close(self) -> None:
        """Unmap and close the map's descriptor."""
        super().close()
        for mapping in self._maps:
            mapping.close()
        os.close(self.fd)


def ring_bytes(mib: float, share: int) -> int:
    """Size of a ring: the largest power of two that is at most ``mib / share``, and at least 64 KiB."""
    wanted = int(mib * (1 << 20)) // share
    floor = max(64 << 10, mmap.PAGESIZE)
    size = floor
    while size * 2 <= wanted:
        size *= 2
    return size
