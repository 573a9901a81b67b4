# SPDX-License-Identifier: GPL-2.0-only
"""State of the allocator as /proc shows it, as raw text: the reader parses."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

FILES = {
    "buddyinfo": "/proc/buddyinfo",
    "pagetypeinfo": "/proc/pagetypeinfo",
    "zoneinfo": "/proc/zoneinfo",
    "vmstat": "/proc/vmstat",
    "meminfo": "/proc/meminfo",
}


def take_snapshot(phase: str, root: Path = Path("/")) -> dict[str, Any]:
    """Texts of FILES, and the reason for each that could not be read.

    vmstat's per-CPU differences are folded first by writing to /proc/sys/vm/stat_refresh, where permitted.
    """
    # Without the permission vmstat is up to a second old: still worth having.
    with contextlib.suppress(OSError):
        (root / "proc/sys/vm/stat_refresh").write_text("1\n")
    files: dict[str, str] = {}
    errors: dict[str, str] = {}
    for name, path in FILES.items():
        try:
            text = (root / path[1:]).read_text()
        except OSError as error:
            errors[name] = error.strerror or str(error)
            continue
        if name == "meminfo":
            text = "".join(line for line in text.splitlines(keepends=True) if line.startswith("DirectMap"))
        files[name] = text
    return {"phase": phase, "files": files, "errors": errors}
