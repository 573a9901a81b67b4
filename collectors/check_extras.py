# SPDX-License-Identifier: GPL-2.0-only
"""What a capture can do without, and what each of these is worth."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from collectors import bpfsys, bulkprobe, hostfacts
from collectors.cgroups import CgroupTree
from collectors.finding import EBPF, Finding, optional, unreadable
from collectors.layout import rings_for
from collectors.options import Options

SYMBOL_LINES = 64
"""Lines of kallsyms that are looked at: the first ones are per-CPU symbols, whose addresses are small or 0."""


def check_extras() -> list[Finding]:
    """All of them."""
    return [
        check_lockdown(),
        optional("BTF", "/sys/kernel/btf/vmlinux", "struct offsets by name are not known"),
        optional("pagetypeinfo", "/proc/pagetypeinfo", "snapshots lack free blocks by type"),
        optional("kpageflags", "/proc/kpageflags", "no map of free pages at the start"),
        optional("zoneinfo", "/proc/zoneinfo", "snapshots lack zones; pages cannot be filtered"),
        check_bulk(),
        check_cgroups(),
        check_symbols(),
        check_statistics(),
        check_memory(),
    ]


def check_lockdown() -> Finding:
    """The kernel's lockdown mode."""
    path = "/sys/kernel/security/lockdown"
    mode = Path(path).read_text().strip() if not unreadable(path) else "none"
    locked = "[confidentiality]" in mode
    return Finding("lockdown", mode, "not confidentiality", not locked, "BPF may not read", "boot without it", (EBPF,))


def check_bulk() -> Finding:
    """Kprobes or fentry on the bulk allocator, which has no tracepoint."""
    tap, reason = bulkprobe.available()
    return Finding(
        "bulk allocator",
        f"{tap}: {reason}" if tap and reason else tap or reason,
        "group bulk",
        bool(tap),
        "its pages are not recorded but reckoned from vmstat",
        "a kernel with CONFIG_KPROBES and CONFIG_KPROBE_EVENTS, or with CONFIG_DEBUG_INFO_BTF and "
        "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
    )


def check_cgroups() -> Finding:
    """A mount of the cgroup v2 hierarchy: ids that programs see are of that one."""
    tree = CgroupTree.find()
    return Finding(
        "cgroup v2",
        "no cgroup2 is mounted" if tree is None else f"{tree.mount}",
        "optional",
        tree is not None,
        "tasks have no cgroup, and --cgroup cannot be used",
        "mount -t cgroup2 none /sys/fs/cgroup/unified",
    )


def _sysctl(name: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/sys/kernel/{name}").read_text().strip()
    return "unknown"


def check_symbols(path: str = "/proc/kallsyms") -> Finding:
    """Names of kernel functions, with their addresses."""
    found, ok = "readable", True
    try:
        with Path(path).open() as file:
            lines = list(itertools.islice(file, SYMBOL_LINES))
        ok = any(int(line.split()[0], 16) for line in lines)
        if not ok:
            found = f"addresses are hidden (kptr_restrict {_sysctl('kptr_restrict')})"
    except (OSError, ValueError, IndexError) as error:
        found, ok = f"{path}: {getattr(error, 'strerror', None) or error}", False
    return Finding(
        "kallsyms",
        found,
        "optional",
        ok,
        "stacks keep their addresses but no function names, and the bulk allocator is not found",
        "grant CAP_SYSLOG, or sysctl kernel.kptr_restrict=0; the kernel needs CONFIG_KALLSYMS",
    )


def check_statistics() -> Finding:
    """The kernel's run-time statistics of BPF programs, switched on and off again."""
    reason = ""
    try:
        os.close(bpfsys.enable_run_statistics())
    except OSError as error:
        reason = error.strerror or str(error)
    return Finding(
        "BPF statistics",
        f"refused: {reason}" if reason else "can be switched on",
        "optional",
        not reason,
        "what the programs cost the host is not measured, and --max-overhead sees the processes only",
        "Linux 5.8 or later, CAP_SYS_ADMIN",
    )


def check_memory(meminfo: str = "/proc/meminfo") -> Finding:
    """Room for the rings of a capture with default options."""
    share = sum(1.0 / ring.share for ring in rings_for())
    cpus = len(hostfacts.cpus("online"))
    wanted = min(Options().ring_mib * share * cpus, hostfacts.mem_total_bytes() / 32 / (1 << 20))
    free = 0
    with contextlib.suppress(OSError):
        for line in Path(meminfo).read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) >> 10
    return Finding(
        "memory for rings",
        f"{free} MiB available, {wanted:.0f} MiB wanted for {cpus} CPUs",
        "optional",
        free >= 4 * wanted,
        "a capture makes the host reclaim memory, or is refused its rings",
        "a smaller --ring-mib",
    )
