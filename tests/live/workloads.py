"""Small workloads whose events are known beforehand. Run as a script: ``python workloads.py NAME
ARGUMENTS``.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from pathlib import Path

PAGE = mmap.PAGESIZE


def touch(pages: int) -> None:
    """Fault ``pages`` anonymous pages in, one by one, and give them back; print the pid."""
    area = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(pages):
        area[page * PAGE] = 1
    area.madvise(mmap.MADV_DONTNEED)
    print(os.getpid(), flush=True)


def write_direct(path: str, count: int, size: int) -> None:
    """``count`` O_DIRECT writes of ``size`` bytes each to a preallocated file; print the pid."""
    area = mmap.mmap(-1, size)
    area.write(os.urandom(size))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    os.posix_fallocate(fd, 0, count * size)
    os.fsync(fd)
    for index in range(count):
        os.pwrite(fd, area, index * size)
    os.close(fd)
    Path(path).unlink()
    print(os.getpid(), flush=True)


def splice_zeroes(rounds: int, pages: int) -> None:
    """Splice ``rounds`` times ``pages`` pages of /dev/zero through a pipe to /dev/null; print the pid.

    The kernel takes them from the bulk allocator, which fires no event (``copy_splice_read``, fs/splice.c, 6.8 on).
    """
    source, sink = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, pages * PAGE)
    for _ in range(rounds):
        left = os.splice(source, write_end, pages * PAGE)
        while left:
            left -= os.splice(read_end, sink, left)
    print(os.getpid(), flush=True)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "touch":
        touch(int(arguments[0]))
    elif name == "splice":
        splice_zeroes(int(arguments[0]), int(arguments[1]))
    else:
        write_direct(arguments[0], int(arguments[1]), int(arguments[2]))
