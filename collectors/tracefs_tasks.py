# SPDX-License-Identifier: GPL-2.0-only
"""Names of tasks for a capture through tracefs: those that live at the start from /proc, later ones by their events."""

from __future__ import annotations

import re
from pathlib import Path

from collectors.tracepoints import Probe

NEW_TASK = Probe("task:task_newtask", "newtask", "task", "task", {"pid": "pid", "comm": "comm"})
"""A task at its birth, with the name of the one that made it; ``clone_flags`` says whether it is a thread."""


_WORKER = re.compile(r"(kworker/(?:\d+|u\d+):\d+\w*)[-+]")
"""/proc adds to a worker's name what it works on (wq_worker_comm, kernel/workqueue.c); tracepoints do not."""


def living_tasks(root: Path = Path("/proc")) -> list[tuple[int, int, str]]:
    """(pid, tgid, comm) of every thread. Those that end meanwhile are left out."""
    found = []
    for process in root.iterdir():
        if not process.name.isdigit():
            continue
        try:
            threads = list((process / "task").iterdir())
        except OSError:
            continue
        for thread in threads:
            try:
                comm = (thread / "comm").read_text(errors="replace").rstrip("\n")
            except OSError:
                continue
            worker = _WORKER.match(comm)
            found.append((int(thread.name), int(process.name), worker[1] if worker else comm))
    return found
