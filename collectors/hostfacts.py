# SPDX-License-Identifier: GPL-2.0-only
"""Facts about the host, its clocks and its CPUs. What cannot be read is left out."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

from collectors.memoryfacts import cpu_list, memory_facts


def cpus(which: str) -> list[int]:
    """``possible`` or ``online`` CPUs."""
    return cpu_list(Path(f"/sys/devices/system/cpu/{which}").read_text())


def clock_triple() -> list[int]:
    """[monotonic, boottime, realtime] ns of one instant: each of the others sandwiched by monotonic, at the
    midpoint."""
    a = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    real = time.clock_gettime_ns(time.CLOCK_REALTIME)
    boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    b = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return [(a + b) // 2, boot, real]


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def mem_total_bytes() -> int:
    """MemTotal of /proc/meminfo."""
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def host_facts() -> dict[str, Any]:
    """Name, kernel, machine, CPUs, memory, page size, boot line, and the facts of memoryfacts.py."""
    facts: dict[str, Any] = {
        "hostname": platform.node(),
        "release": platform.release(),
        "version": platform.version(),
        "arch": platform.machine(),
        "page_size": os.sysconf("SC_PAGESIZE"),
        "cpus": len(cpus("online")),
        "cpus_possible": len(cpus("possible")),
        "mem_total_bytes": mem_total_bytes(),
        "command_line": _text("/proc/cmdline"),
        "boot_id": _text("/proc/sys/kernel/random/boot_id"),
    }
    return {**{k: v for k, v in facts.items() if v not in ("", 0)}, **memory_facts()}


def own_cost() -> dict[str, Any]:
    """CPU seconds and peak resident set of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "pid": os.getpid(),
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "max_rss_bytes": used.ru_maxrss * 1024,
    }
