"""Parsers of the /proc texts that describe memory: rows for the ``snapshots`` table.

Every parser returns a list of :class:`SnapshotRow`. Lines that it does not know are skipped, because kernels
add lines; a text in which it knows nothing raises ImportFormatError. Layouts read: 5.10 to 6.18
(page-allocator.md 8.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypedDict

from tracereplay.errors import ImportFormatError


class SnapshotRow(TypedDict):
    """One value of a snapshot; what does not apply is None."""

    source: str
    node: int | None
    zone: str | None
    cpu: int | None
    order: int | None
    migratetype: str | None
    name: str
    value: int


_ZONE = re.compile(r"^Node\s+(\d+), zone\s+(\S+?),?(?:\s|$)")
_COUNT = re.compile(r"^\s+(\w+):?\s+(\d+)\s*$")


def _row(
    source: str,
    name: str,
    value: int,
    *,
    node: int | None = None,
    zone: str | None = None,
    cpu: int | None = None,
    order: int | None = None,
    migratetype: str | None = None,
) -> SnapshotRow:
    # Kernel counters are unsigned longs; one that went below zero is printed as a number near 2^64.
    value = value - 2**64 if value >= 2**63 else value
    return SnapshotRow(
        source=source,
        node=node,
        zone=zone,
        cpu=cpu,
        order=order,
        migratetype=migratetype,
        name=name,
        value=value,
    )


def _checked(rows: list[SnapshotRow], source: str) -> list[SnapshotRow]:
    if not rows:
        raise ImportFormatError(
            f"no line of this text is one of /proc/{source}",
            hint=f"pass an unchanged copy of /proc/{source}",
        )
    return rows


def parse_buddyinfo(text: str) -> list[SnapshotRow]:
    """Free blocks per node, zone and order (``frag_show``, mm/vmstat.c). Pages on pcp lists are not in it."""
    rows = []
    for line in text.splitlines():
        match = _ZONE.match(line)
        counts = line[match.end() :].split() if match else []
        if not match or not counts or not all(c.isdigit() for c in counts):
            continue
        node, zone = int(match[1]), match[2]
        rows += [
            _row("buddyinfo", "nr_free", int(c), node=node, zone=zone, order=order)
            for order, c in enumerate(counts)
        ]
    return _checked(rows, "buddyinfo")


def parse_pagetypeinfo(text: str) -> list[SnapshotRow]:
    """Free blocks by migratetype and order, and pageblocks by migratetype (``pagetypeinfo_show``,
    mm/vmstat.c).

    The kernel stops counting a list at 100000 and prints ``>100000``: ``nr_free`` is then a lower bound and a
    row ``nr_free_capped`` of value 1 stands beside it.
    """
    rows: list[SnapshotRow] = []
    types: list[str] = []
    for line in text.splitlines():
        if line.startswith("Page block order:"):
            rows.append(_row("pagetypeinfo", "pageblock_order", int(line.split(":")[1])))
        elif line.startswith("Pages per block:"):
            rows.append(_row("pagetypeinfo", "pages_per_block", int(line.split(":")[1])))
        elif line.startswith("Number of blocks type"):
            types = line.split()[4:]
        elif match := _ZONE.match(line):
            node, zone = int(match[1]), match[2]
            rest = line[match.end() :].split()
            if rest[:1] == ["type"]:
                rows += _free_counts(rest[1], rest[2:], node, zone)
            elif types and len(rest) == len(types) and all(c.isdigit() for c in rest):
                rows += [
                    _row("pagetypeinfo", "nr_blocks", int(c), node=node, zone=zone, migratetype=t)
                    for t, c in zip(types, rest, strict=True)
                ]
    return _checked(rows, "pagetypeinfo")


def _free_counts(migratetype: str, counts: list[str], node: int, zone: str) -> list[SnapshotRow]:
    rows = []
    for order, text in enumerate(counts):
        number = text.lstrip(">")
        if not number.isdigit():
            break
        at = {"node": node, "order": order}
        rows.append(_row("pagetypeinfo", "nr_free", int(number), zone=zone, migratetype=migratetype, **at))
        if number != text:
            rows.append(_row("pagetypeinfo", "nr_free_capped", 1, zone=zone, migratetype=migratetype, **at))
    return rows


def parse_zoneinfo(text: str) -> list[SnapshotRow]:
    """Geometry, watermarks, counters and per-CPU lists of each zone (``zoneinfo_show_print``, mm/vmstat.c).
    Pages.

    Names are the kernel's (``free boost min low high promo spanned present managed cma start_pfn
    node_unreclaimable nr_*``); ``protection:`` becomes ``protection.0`` ..., the per-node part has no zone,
    and rows of a pageset (``count high batch high_min high_max vm_stats_threshold``) carry the CPU.
    """
    rows: list[SnapshotRow] = []
    node: int | None = None
    zone: str | None = None
    cpu: int | None = None
    per_node = False
    for line in text.splitlines():
        if match := _ZONE.match(line):
            node, zone, cpu, per_node = int(match[1]), match[2], None, False
            continue
        if node is None:
            continue
        bare = line.strip()
        if bare == "per-node stats":
            per_node = True
        elif bare.startswith("pages free"):
            per_node, cpu = False, None
            rows.append(_row("zoneinfo", "free", int(bare.split()[-1]), node=node, zone=zone))
        elif bare.startswith("protection:"):
            marks = re.findall(r"\d+", bare)
            rows += [
                _row("zoneinfo", f"protection.{i}", int(m), node=node, zone=zone) for i, m in enumerate(marks)
            ]
        elif bare.startswith("cpu:"):
            cpu = int(bare.split(":")[1])
        elif bare.startswith("vm stats threshold:"):
            value = int(bare.split(":")[1])
            rows.append(_row("zoneinfo", "vm_stats_threshold", value, node=node, zone=zone, cpu=cpu))
        elif match := _COUNT.match(line):
            name, value = match[1], int(match[2])
            if name in ("node_unreclaimable", "start_pfn"):
                cpu = None
            where = None if per_node else zone
            rows.append(_row("zoneinfo", name, value, node=node, zone=where, cpu=cpu))
    return _checked(rows, "zoneinfo")


def parse_vmstat(text: str) -> list[SnapshotRow]:
    """Counters of the whole host, by name (``vmstat_show``, mm/vmstat.c)."""
    rows = []
    for line in text.splitlines():
        parts = line.split()
        if len(parts) == 2 and parts[1].isdigit():
            rows.append(_row("vmstat", parts[0], int(parts[1])))
    return _checked(rows, "vmstat")


def parse_meminfo_directmap(text: str) -> list[SnapshotRow]:
    """How the kernel's direct map is mapped, in kB: ``DirectMap4k``, ``DirectMap2M``, ``DirectMap1G`` (x86
    only).

    An empty list where the architecture prints none; ImportFormatError when the text is no meminfo.
    """
    rows = []
    seen = False
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        parts = rest.split()
        if not parts or not parts[0].isdigit():
            continue
        seen = True
        if name.startswith("DirectMap"):
            rows.append(_row("directmap", name, int(parts[0])))
    return rows if seen else _checked(rows, "meminfo")


PROC_PARSERS: Mapping[str, Callable[[str], list[SnapshotRow]]] = {
    "buddyinfo": parse_buddyinfo,
    "pagetypeinfo": parse_pagetypeinfo,
    "zoneinfo": parse_zoneinfo,
    "vmstat": parse_vmstat,
    "meminfo": parse_meminfo_directmap,
}
"""Name of the file under /proc -> its parser."""
