# SPDX-License-Identifier: GPL-2.0-only
"""Facts about the host's memory that hold for a whole capture: settings, nodes, caches, huge pages, kernel
configuration. What cannot be read is left out; nothing here raises.
"""

from __future__ import annotations

import gzip
import os
import platform
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union

VM_SETTINGS = (
    "min_free_kbytes",
    "watermark_scale_factor",
    "watermark_boost_factor",
    "lowmem_reserve_ratio",
    "percpu_pagelist_high_fraction",
    "percpu_pagelist_fraction",  # until 5.13
    "zone_reclaim_mode",
    "defrag_mode",  # since 6.15
    "stat_interval",
    "numa_stat",
    "extfrag_threshold",
    "compaction_proactiveness",
    "compact_unevictable_allowed",
    "swappiness",
    "dirty_ratio",
    "dirty_bytes",
    "dirty_background_ratio",
    "dirty_background_bytes",
    "nr_hugepages",
    "nr_overcommit_hugepages",
)
"""Files under /proc/sys/vm on which the page allocator's behaviour depends (watermarks, per-CPU list limits,
reserves, fallbacks, compaction, the vmstat worker that trims the lists, dirty limits of zones)."""

CONFIG_OPTIONS = (
    "ARCH_FORCE_MAX_ORDER",
    "CMA",
    "COMPACTION",
    "DEBUG_PAGEALLOC",
    "DEBUG_VM",
    "DEFERRED_STRUCT_PAGE_INIT",
    "HUGETLB_PAGE",
    "HZ",
    "INIT_ON_ALLOC_DEFAULT_ON",
    "INIT_ON_FREE_DEFAULT_ON",
    "KASAN",
    "KASAN_HW_TAGS",
    "LOCKDEP",
    "MEMCG",
    "MEMORY_ISOLATION",
    "NUMA",
    "PAGE_BLOCK_MAX_ORDER",
    "PAGE_OWNER",
    "PAGE_POISONING",
    "PAGE_REPORTING",
    "PCP_BATCH_SCALE_MAX",
    "PREEMPT",
    "PREEMPT_DYNAMIC",
    "PREEMPT_RT",
    "SHUFFLE_PAGE_ALLOCATOR",
    "SLAB_OBJ_EXT",
    "SMP",
    "TRANSPARENT_HUGEPAGE",
    "ZONE_DMA",
    "ZONE_DMA32",
)
"""Options of the kernel configuration, without ``CONFIG_``, that decide how the allocator works."""

Value = Union[int, str, "list[int]"]


def memory_facts(root: Path = Path("/")) -> dict[str, Any]:
    """``vm nodes cpu_node caches last_level_caches thp page_sizes hugetlb page_shuffle kernel_config``, those
    that the host tells; and ``init_on_alloc``, ``init_on_free`` (None: not known) with where each is from."""
    config, where = kernel_config(root)
    command_line = _text(root / "proc/cmdline")
    caches = _caches(root)
    facts: dict[str, Any] = {
        "vm": _values(root / "proc/sys/vm", VM_SETTINGS),
        "nodes": _nodes(root),
        "cpu_node": _cpu_node(root),
        "caches": _cache_levels(caches),
        "last_level_caches": _last_level(caches),
        "thp": _thp(root),
        "page_sizes": _page_sizes(root),
        "hugetlb": _hugetlb(root),
        "page_shuffle": {"Y": True, "N": False}.get(_text(root / "sys/module/page_alloc/parameters/shuffle")),
        "kernel_config": {name: config[name] for name in CONFIG_OPTIONS if name in config},
    }
    facts = {name: value for name, value in facts.items() if value is not None and value not in ({}, [])}
    for name in ("init_on_alloc", "init_on_free"):
        facts[name], facts[f"{name}_source"] = _zeroing(name, command_line, config, where)
    return facts


def cpu_list(text: str) -> list[int]:
    """CPU or node numbers of a kernel list such as ``0-3,8``."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def kernel_config(root: Path = Path("/")) -> tuple[dict[str, str], str]:
    """Options of the running kernel's configuration without ``CONFIG_`` (``n`` for those not set), and the
    file they are from; empty when there is none."""
    release = platform.release()
    for name in ("proc/config.gz", f"boot/config-{release}", f"lib/modules/{release}/config"):
        try:
            raw = (root / name).read_bytes()
            text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode("ascii", "replace")
        except (OSError, EOFError, zlib.error):
            continue
        options: dict[str, str] = {}
        for line in text.splitlines():
            if line.startswith("CONFIG_"):
                option, _, value = line[7:].partition("=")
                options[option] = value.strip('"')
            elif line.startswith("# CONFIG_") and line.endswith(" is not set"):
                options[line[9:-11]] = "n"
        if options:
            return options, f"/{name}"
    return {}, ""


def _zeroing(name: str, command_line: str, config: Mapping[str, str], where: str) -> tuple[bool | None, str]:
    """Whether pages are zeroed at ``name``, and how that is known (``early_param`` in mm/mm_init.c: the last
    one on the command line wins, else the configuration decides)."""
    found = None
    for word in command_line.split():
        key, _, value = word.lower().partition("=")
        if key == name:  # the values that kstrtobool knows
            yes, no = value.startswith(("1", "y", "t", "on")), value.startswith(("0", "n", "f", "of"))
            found = yes if yes or no else found
    if found is not None:
        return found, "kernel command line"
    if config:
        return config.get(f"{name.upper()}_DEFAULT_ON") == "y", where
    return None, "not known: not on the command line, and the kernel's configuration is not readable"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _value(text: str) -> Value:
    """A number, several numbers, or the text as it is."""
    words = text.split()
    try:
        numbers = [int(w) for w in words]
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers


def _values(folder: Path, names: Sequence[str]) -> dict[str, Value]:
    found = {name: _text(folder / name) for name in names}
    return {name: _value(text) for name, text in found.items() if text}


def _entries(folder: Path, prefix: str) -> list[str]:
    """Names in a folder that start so and go on with a digit, by their numbers."""
    try:
        all_names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    names = [n for n in all_names if n.startswith(prefix) and n[len(prefix) : len(prefix) + 1].isdigit()]
    return sorted(names, key=lambda n: int("".join(c for c in n[len(prefix) :] if c.isdigit())))


def _list(text: str) -> list[int]:
    try:
        return cpu_list(text)
    except ValueError:
        return []


def _nodes(root: Path) -> dict[str, Any]:
    """By NUMA node: its CPUs, its distances to all nodes, its memory. A host without NUMA has none."""
    folder = root / "sys/devices/system/node"
    nodes: dict[str, Any] = {}
    for name in _entries(folder, "node"):
        total = 0
        for line in _text(folder / name / "meminfo").splitlines():
            words = line.split()
            if len(words) >= 4 and words[2] == "MemTotal:" and words[3].isdigit():
                total = int(words[3]) * 1024
        distance = _value(_text(folder / name / "distance"))
        nodes[name[4:]] = {
            "cpus": _list(_text(folder / name / "cpulist")),
            "distance": [distance] if isinstance(distance, int) else distance,
            "mem_total_bytes": total,
        }
    return nodes


def _cpu_node(root: Path) -> list[int | None]:
    """Node of every possible CPU, by number; None where it is not told."""
    possible = _list(_text(root / "sys/devices/system/cpu/possible"))
    folder = root / "sys/devices/system/node"
    node_of = {
        cpu: int(name[4:]) for name in _entries(folder, "node") for cpu in _list(_text(folder / name / "cpulist"))
    }
    for cpu in possible:
        if cpu not in node_of:
            links = _entries(root / f"sys/devices/system/cpu/cpu{cpu}", "node")
            if links:
                node_of[cpu] = int(links[0][4:])
    return [node_of.get(cpu) for cpu in range(max(possible) + 1)] if possible and node_of else []


def _bytes(text: str) -> int:
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    digits = text.rstrip("KMG")
    return int(digits) * unit if digits.isdigit() else 0


def _caches(root: Path) -> list[dict[str, Any]]:
    """Data and unified caches, each once: ``level``, ``bytes``, ``line_bytes``, the ``cpus`` that share it."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    folder = root / "sys/devices/system/cpu"
    for cpu in _entries(folder, "cpu"):
        for index in _entries(folder / cpu / "cache", "index"):
            here = folder / cpu / "cache" / index
            level, shared = _text(here / "level"), _text(here / "shared_cpu_list")
            if _text(here / "type") == "Instruction" or not level.isdigit() or (int(level), shared) in found:
                continue
            line = _text(here / "coherency_line_size")
            found[int(level), shared] = {
                "level": int(level),
                "bytes": _bytes(_text(here / "size")),
                "line_bytes": int(line) if line.isdigit() else 0,
                "cpus": _list(shared),
            }
    return [found[key] for key in sorted(found, key=lambda k: (k[0], found[k]["cpus"]))]


def _cache_levels(caches: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Kinds of cache: ``level bytes line_bytes``, how many CPUs share one (``shared_by``), how many there are."""
    kinds: dict[tuple[int, int, int, int], int] = {}
    for c in caches:
        key = (c["level"], c["bytes"], c["line_bytes"], len(c["cpus"]))
        kinds[key] = kinds.get(key, 0) + 1
    return [
        {"level": level, "bytes": size, "line_bytes": line, "shared_by": sharing, "instances": n}
        for (level, size, line, sharing), n in sorted(kinds.items())
    ]


def _last_level(caches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each last-level cache: ``level bytes line_bytes cpus``. Its bytes by the number of those CPUs are what
    the kernel takes as a CPU's slice (FREE_HIGH_BATCH, mm/page_alloc.c)."""
    last = max((c["level"] for c in caches), default=0)
    return [c for c in caches if c["level"] == last]


def _chosen(text: str) -> str:
    """The bracketed word of ``always [madvise] never``, or the text."""
    begin, end = text.find("["), text.find("]")
    return text[begin + 1 : end] if 0 <= begin < end else text


def _thp(root: Path) -> dict[str, Any]:
    """Transparent huge pages: ``enabled defrag shmem_enabled use_zero_page hpage_pmd_size``, ``khugepaged``
    settings, and ``sizes`` {``64kB``: {``enabled``, ``shmem_enabled``}} where the kernel has several."""
    folder = root / "sys/kernel/mm/transparent_hugepage"
    names = ("enabled", "defrag", "shmem_enabled", "use_zero_page", "hpage_pmd_size")
    thp: dict[str, Any] = {n: _chosen(v) if isinstance(v, str) else v for n, v in _values(folder, names).items()}
    daemon = _values(
        folder / "khugepaged",
        ("defrag", "pages_to_scan", "scan_sleep_millisecs", "alloc_sleep_millisecs", "max_ptes_none"),
    )
    sizes = {}
    for name in _entries(folder, "hugepages-"):
        modes = _values(folder / name, ("enabled", "shmem_enabled"))
        if modes:
            sizes[name[len("hugepages-") :]] = {n: _chosen(str(v)) for n, v in modes.items()}
    return {**thp, **({"khugepaged": daemon} if daemon else {}), **({"sizes": sizes} if sizes else {})}


def _page_sizes(root: Path) -> list[int]:
    """Bytes: the base page, and the sizes that hugetlb offers."""
    names = _entries(root / "sys/kernel/mm/hugepages", "hugepages-")
    return [os.sysconf("SC_PAGESIZE"), *(int(n[len("hugepages-") : -2]) * 1024 for n in names if n.endswith("kB"))]


def _hugetlb(root: Path) -> dict[str, Any]:
    """Pages in hugetlb's pools, by size: ``nr free surplus``; sizes without pages are left out."""
    folder = root / "sys/kernel/mm/hugepages"
    names = {"nr_hugepages": "nr", "free_hugepages": "free", "surplus_hugepages": "surplus"}
    pools = {
        size[len("hugepages-") :]: {names[n]: value for n, value in _values(folder / size, list(names)).items()}
        for size in _entries(folder, "hugepages-")
    }
    return {size: pool for size, pool in pools.items() if pool.get("nr")}
