# SPDX-License-Identifier: GPL-2.0-only
"""Names of tasks for a capture through tracefs: those that live at the start from /proc, later ones by their events."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from collectors.tracepoints import Probe

NEW_TASK = Probe("task:task_newtask", "newtask", "task", "task", {"pid": "pid", "comm": "comm"})
"""A task at its birth, with the name of the one that made it; ``clone_flags`` says whether it is a thread."""


_WORKER = re.compile(r"(kworker/(?:\d+|u\d+):\d+\w*)[-+]")
"""/proc adds to a worker's name what it works on (wq_worker_comm, kernel/workqueue.c); tracepoints do not."""


def living_tasks(root: Path = Path("/proc")) -> list[tuple[int, int, str]]:
    """(pid, tgid, comm) of every thread. Those that end meanwhile are left out."""
    found = []
    for thread, tgid in _threads(root):
        try:
            comm = (thread / "comm").read_text(errors="replace").rstrip("\n")
        except OSError:
            continue
        worker = _WORKER.match(comm)
        found.append((int(thread.name), tgid, worker[1] if worker else comm))
    return found


def tasks_begun_by(boot_ns: int, known: Collection[int], root: Path = Path("/proc")) -> list[tuple[int, int, str]]:
    """Those of the threads that are not ``known`` and were there at a time (CLOCK_BOOTTIME): born after a scan, and
    before births were recorded. /proc tells times of birth to 10 ms."""
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    old = set()
    for thread, _ in _threads(root):
        if int(thread.name) in known:
            continue
        try:
            begun = int((thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[19])
        except (OSError, ValueError, IndexError):
            continue
        if begun <= boot_ns // tick_ns:
            old.add(int(thread.name))
    return [row for row in living_tasks(root) if row[0] in old] if old else []


def _threads(root: Path) -> Iterator[tuple[Path, int]]:
    """Directory and process of every thread."""
    for process in root.iterdir():
        if process.name.isdigit():
            try:
                threads = list((process / "task").iterdir())
            except OSError:
                continue
            for thread in threads:
                yield thread, int(process.name)
