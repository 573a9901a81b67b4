"""Makes one allocation fail: a process fills pipes in a memory control group of 4 MiB until the kernel refuses.

Run as a script: ``python kernel_memory_limit.py``. Prints the pid of the process, which the kernel ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

F_SETPIPE_SZ = 1031
LIMIT = 4 << 20


def memory_group() -> tuple[Path, str]:
    """A new group of this host's memory controller, and its file for the limit (cgroup v1 or v2)."""
    name = f"tracereplay-{os.getpid()}"
    first = Path("/sys/fs/cgroup/memory")
    if first.is_dir():
        return first / name, "memory.limit_in_bytes"
    root = Path("/sys/fs/cgroup")
    (root / "cgroup.subtree_control").write_text("+memory")
    return root / name, "memory.max"


def fill_pipes() -> None:
    """Fill pipes of 1 MiB until a write fails."""
    kept = []
    while True:
        reader, writer = os.pipe()
        kept.append((reader, writer))
        os.set_blocking(writer, False)
        fcntl.fcntl(writer, F_SETPIPE_SZ, 1 << 20)
        try:
            while True:
                os.write(writer, bytes(4096))
        except BlockingIOError:
            continue
        except OSError:
            return


def main() -> None:
    """Run the process in its group, and remove the group."""
    group, limit = memory_group()
    group.mkdir()
    try:
        (group / limit).write_text(str(LIMIT))
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            (group / "cgroup.procs").write_text(str(os.getpid()))
            fill_pipes()
            os._exit(0)
        print(pid, flush=True)
        os.waitpid(pid, 0)
    finally:
        group.rmdir()


if __name__ == "__main__":
    main()
