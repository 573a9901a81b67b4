"""A page-fault-bound load: touches a private anonymous area page by page and gives it back, until the time is up.

Run as a script by the capture benchmark: ``python page_fault_load.py SECONDS [MIB]``; prints the pages touched.
"""

from __future__ import annotations

import mmap
import sys
import time

import numpy as np


def main() -> None:
    """Fault, free, repeat."""
    seconds = float(sys.argv[1])
    size = int(sys.argv[2] if len(sys.argv) > 2 else 32) << 20
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    pages = np.frombuffer(area, np.uint8)[:: mmap.PAGESIZE]
    touched = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pages[:] = 1
        area.madvise(mmap.MADV_DONTNEED)
        touched += len(pages)
    print(touched)


if __name__ == "__main__":
    main()
