# SPDX-License-Identifier: GPL-2.0-only
"""System calls that reach the page allocator's paths, nothing else around them, and leave nothing behind.

- ``splice``: a read by splice() from a file opened O_DIRECT, at its end. copy_splice_read() takes the pages from
  alloc_pages_bulk, reads nothing, and gives them all back: bulk calls of any size, no zeroing. Of one page, the
  bulk allocator goes the ordinary way: what that adds is the price of a single call.
- ``zero``: the same from /dev/zero: the pages are filled with zeros.
- ``kvmalloc``: BPF_BTF_LOAD of a data address that nobody has. The kernel takes a block of 4 KiB << order (2 to
  10), not zeroed, finds that it cannot read the data, and gives it back.
- ``ring``: AF_PACKET receive rings: any number of zeroed blocks of one order, allocated in a loop and freed in a
  loop. No packet ever arrives: the socket has no protocol and no interface.

All objects are descriptors of the calling process: whatever ends it, the kernel takes them back.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import platform
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence

from collectors.bpfsys import _BPF_NUMBER

PAGE = os.sysconf("SC_PAGESIZE")
_BTF_LOAD = 18
_F_SETPIPE_SZ = 1031
_SOL_PACKET = 263
_PACKET_RX_RING = 5
_NO_ADDRESS = 16
MOST_PAGES = 64
"""Of one splice: a pipe of ordinary size takes no more."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.splice.argtypes = (
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint
)  # fmt: skip
_libc.splice.restype = ctypes.c_ssize_t


_SPLICE_NUMBER = {"x86_64": 275}
_LOOP = {
    # push rbx, r12; rbx = argument; r12 = count; again: rax, rdi, rsi, rdx, r10, r8, r9 = the eight words;
    # syscall; dec r12; jnz again; pop r12, rbx; ret
    "x86_64": "53 4154 4889fb 4c8b6338 488b03 488b7b08 488b7310 488b5318 4c8b5320 4c8b4328 4c8b4b30 0f05 49ffcc 75de"
    "415c 5b c3",
}
"""Machine code of a loop over one system call. Between two calls from Python so much other code runs that the kernel's
is no longer in the caches: what is measured then is twice the price of the same work in a loop."""


class LoadError(Exception):
    """This host does not allow the call; the message says why."""


def _empty_file() -> int:
    """An empty file without a name, opened O_DIRECT."""
    reasons = []
    for directory in dict.fromkeys((tempfile.gettempdir(), "/var/tmp", "/root")):
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reasons.append(f"{directory}: {error.strerror}")
    raise LoadError(f"no file system here takes an unnamed file with O_DIRECT ({'; '.join(reasons)})")


class Loop:
    """Repeats a system call with nothing in between; from Python, where no code for this machine is known."""

    def __init__(self) -> None:
        code = _LOOP.get(platform.machine())
        self._run: Callable[[int], int] | None = None
        with contextlib.suppress(OSError):
            if code is not None:
                self._page = mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
                self._page.write(bytes.fromhex(code))
                address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
                self._run = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(address)

    @property
    def tight(self) -> bool:
        """Whether nothing runs between the calls."""
        return self._run is not None

    def repeat(self, load: Splice | Kvmalloc, key: int, count: int) -> None:
        """So many calls."""
        if self._run is None:
            for _ in range(count):
                load.call(key)
            return
        words = load.system_call(key)
        block = ctypes.create_string_buffer(struct.pack("=8q", *words, *[0] * (7 - len(words)), count))
        self._run(ctypes.addressof(block))


class Splice:
    """``splice`` and ``zero``: ``call(n)`` takes n pages (1 to 64) in one bulk call."""

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero
        self._read, self._write = os.pipe()
        fcntl.fcntl(self._write, _F_SETPIPE_SZ, MOST_PAGES * PAGE)
        self._from = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC) if zero else _empty_file()
        done = self.call(1)
        self.drain(1)
        if done != (PAGE if zero else 0):
            raise LoadError(f"splice() of one page gave {done}: {os.strerror(ctypes.get_errno())}")

    def call(self, n: int) -> int:
        """One splice; bytes moved."""
        return int(_libc.splice(self._from, None, self._write, None, n * PAGE, 0))

    def system_call(self, n: int) -> Sequence[int]:
        """Number and arguments of ``call(n)``."""
        return (_SPLICE_NUMBER[platform.machine()], self._from, 0, self._write, 0, n * PAGE, 0)

    def drain(self, pages: int) -> None:
        """Free what so many pages left in the pipe."""
        if self._zero:
            os.read(self._read, pages * PAGE)

    def close(self) -> None:
        """Give all back."""
        for fd in (self._read, self._write, self._from):
            with contextlib.suppress(OSError):
                os.close(fd)


class Kvmalloc:
    """``kvmalloc``: ``call(order)`` allocates and frees one block that is not zeroed."""

    def __init__(self) -> None:
        self._number = _BPF_NUMBER.get(platform.machine(), -1)
        self._attr = {order: self._attributes(PAGE << order) for order in range(2, 11)}
        self.call(2)
        if ctypes.get_errno() != 14:  # EFAULT: it got as far as reading the data
            raise LoadError(f"BPF_BTF_LOAD is refused: {os.strerror(ctypes.get_errno())}")

    @staticmethod
    def _attributes(size: int) -> ctypes.Array[ctypes.c_char]:
        return ctypes.create_string_buffer(struct.pack("=QQIIII", _NO_ADDRESS, 0, size, 0, 0, 0), 40)

    def call(self, order: int) -> int:
        """Always -1 (EFAULT)."""
        return int(_libc.syscall(self._number, _BTF_LOAD, ctypes.byref(self._attr[order]), 40))

    def system_call(self, order: int) -> Sequence[int]:
        """Number and arguments of ``call(order)``."""
        return (self._number, _BTF_LOAD, ctypes.addressof(self._attr[order]), 40)

    def drain(self, pages: int) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """Nothing to close."""


class Ring:
    """``ring``: ``open(order, blocks)`` allocates, ``shut()`` frees."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        try:
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
        except OSError as error:
            raise LoadError(f"AF_PACKET sockets are refused: {error.strerror}") from None

    def prepare(self) -> None:
        """A socket; what it costs is not looked at."""
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)

    def open(self, order: int, blocks: int) -> None:
        """Allocate. Raises OSError where memory lacks."""
        assert self._socket is not None
        size = PAGE << order
        frame = min(size, 4 * PAGE)
        request = struct.pack("IIII", size, blocks, frame, blocks * (size // frame))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)

    def shut(self) -> None:
        """Free."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def keep_busy(cpus: Sequence[int], order: int, ready: Callable[[], None]) -> None:
    """A child's life: allocate and free blocks on one CPU until killed."""
    os.sched_setaffinity(0, cpus)
    load, loop = Kvmalloc(), Loop()
    ready()
    while True:
        loop.repeat(load, order, 1000)
