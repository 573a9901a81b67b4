"""A fixed amount of page faults, measured: for each line on standard input, touch so many pages and give them back.

Run as a script by the benchmarks: ``python page_touch.py [CPU]``. Prints wall seconds, CPU seconds and pages of
each round, so that starting Python is never part of what is measured.
"""

from __future__ import annotations

import mmap
import os
import sys
import time

import numpy as np

AREA_BYTES = 32 << 20


def main() -> None:
    """Serve rounds until standard input ends."""
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    area = mmap.mmap(-1, AREA_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    pages = np.frombuffer(area, np.uint8)[:: mmap.PAGESIZE]
    pages[:] = 1
    area.madvise(mmap.MADV_DONTNEED)
    print("ready", flush=True)
    for line in sys.stdin:
        wanted, touched = int(line), 0
        wall, cpu = time.perf_counter(), time.process_time()
        while touched < wanted:
            pages[:] = 1
            area.madvise(mmap.MADV_DONTNEED)
            touched += len(pages)
        print(time.perf_counter() - wall, time.process_time() - cpu, touched, flush=True)


if __name__ == "__main__":
    main()
