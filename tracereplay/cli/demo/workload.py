"""A real workload to capture: direct and buffered writes of 4 KiB to 1 MiB, compiles or forks, memory touched.

Standard library only, so that little of what is recorded is the workload's own machinery:
``python -m tracereplay.cli.demo.workload DIRECTORY SECONDS``.
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SIZES = tuple(4096 << k for k in range(9))
"""4 KiB to 1 MiB."""
BYTES_PER_SIZE = 4 << 20
MEMORY = 64 << 20

SOURCE = "\n".join(
    f"int f{i}(int x) {{ int y = x; while (y > {i}) y -= f{max(0, i - 1)}(y / 2) + 1; return y; }}" for i in range(200)
)
"""C that keeps a compiler busy for a fraction of a second."""


def write_sizes(path: Path, flags: int, done: Counter[str], name: str, ends: Callable[[], bool]) -> None:
    """Write a file in each size. Without O_DIRECT it is cut first, so that the page cache must take new pages, and
    forced to disk after each size.
    """
    buffer = mmap.mmap(-1, SIZES[-1])  # page-aligned, as O_DIRECT needs
    buffer.write(os.urandom(4096) * (SIZES[-1] // 4096))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    try:
        for size in SIZES:
            if not flags:
                os.ftruncate(fd, 0)
            view = memoryview(buffer)[:size]
            for offset in range(0, BYTES_PER_SIZE, size):
                os.pwrite(fd, view, offset)
                done[name] += 1
                if ends():
                    break
            view.release()
            if not flags:
                os.fsync(fd)
            if ends():
                break
    finally:
        os.close(fd)
        buffer.close()


def has_direct_io(directory: Path) -> bool:
    """Whether files there can be written past the page cache."""
    probe = directory / "probe"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def compile_or_fork(directory: Path, done: Counter[str]) -> None:
    """Compile a file, or start short-lived processes where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler:
        source = directory / "job.c"
        source.write_text(SOURCE)
        subprocess.run([compiler, "-O1", "-c", "-o", str(directory / "job.o"), str(source)], check=True)
        done["compiles"] += 1
    else:
        for _ in range(8):
            subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
            done["processes"] += 1


def touch_memory(done: Counter[str]) -> None:
    """Fault memory in, page by page, and give it back."""
    with mmap.mmap(-1, MEMORY) as memory:
        for offset in range(0, MEMORY, 4096):
            memory[offset] = 1
    done["MiB touched"] += MEMORY >> 20


def run(parent: Path, seconds: float) -> Counter[str]:
    """Work for so long in a directory of its own below ``parent``, which is removed again. What was done, by kind."""
    end = time.monotonic() + seconds
    done: Counter[str] = Counter()

    def ends() -> bool:
        return time.monotonic() >= end

    with tempfile.TemporaryDirectory(prefix="workload-", dir=parent) as name:
        directory = Path(name)
        is_direct = has_direct_io(directory)
        while not ends():
            if is_direct:
                write_sizes(directory / "direct", os.O_DIRECT, done, "direct writes", ends)
            write_sizes(directory / "buffered", 0, done, "buffered writes", ends)
            compile_or_fork(directory, done)
            touch_memory(done)
    return done


def main() -> None:
    """Run for the given time; say on stderr what was done."""
    done = run(Path(sys.argv[1]), float(sys.argv[2]))
    print("workload: " + ", ".join(f"{n:,} {what}" for what, n in done.items()), file=sys.stderr)


if __name__ == "__main__":
    main()
