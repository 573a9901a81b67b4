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


_ZONE = re.compile(r"^Node\s+(\d{1,4}), zone\s+(\S+?),?(?:\s|$)", re.ASCII)
_COUNT = re.compile(r"^\s+(\w+):?\s+(\d{1,20})\s*$", re.ASCII)
_CPU = re.compile(r"^\s+cpu: (\d{1,4})$", re.ASCII)
_NUMBER = re.compile(r"\d{1,20}", re.ASCII)
_LABELLED = re.compile(r"^\s*([\w ]+?):?\s+(\d{1,20})(?: kB)?\s*$", re.ASCII)
_ORDERS = 64
"""More columns than this in a line of counts by order are not a line of counts."""


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
    value &= 2**64 - 1
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


def one_row(source: str, name: str, value: int) -> SnapshotRow:
    """A value of the whole host."""
    return _row(source, name, value)


def _counts(words: list[str]) -> list[int]:
    """Numbers of a line; empty when one of its words is no number."""
    if not words or len(words) > _ORDERS or not all(_NUMBER.fullmatch(w) for w in words):
        return []
    return [int(w) for w in words]


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
        if not match:
            continue
        node, zone = int(match[1]), match[2]
        rows += [
            _row("buddyinfo", "nr_free", count, node=node, zone=zone, order=order)
            for order, count in enumerate(_counts(line[match.end() :].split()))
        ]
    return _checked(rows, "buddyinfo")


_PAGEBLOCK_NAMES = {"Page block order": "pageblock_order", "Pages per block": "pages_per_block"}


def parse_pagetypeinfo(text: str) -> list[SnapshotRow]:
    """Free blocks by migratetype and order, and pageblocks by migratetype (``pagetypeinfo_show``,
    mm/vmstat.c).

    The kernel stops counting a list at 100000 and prints ``>100000``: ``nr_free`` is then a lower bound and a
    row ``nr_free_capped`` of value 1 stands beside it.
    """
    rows: list[SnapshotRow] = []
    types: list[str] = []
    for line in text.splitlines():
        if (label := _LABELLED.match(line)) and label[1] in _PAGEBLOCK_NAMES:
            rows.append(_row("pagetypeinfo", _PAGEBLOCK_NAMES[label[1]], int(label[2])))
        elif line.startswith("Number of blocks type"):
            types = line.split()[4:]
        elif match := _ZONE.match(line):
            node, zone = int(match[1]), match[2]
            rest = line[match.end() :].split()
            if len(rest) > 2 and rest[0] == "type":
                rows += _free_counts(rest[1], rest[2:], node, zone)
            elif len(rest) == len(types):
                rows += [
                    _row("pagetypeinfo", "nr_blocks", count, node=node, zone=zone, migratetype=t)
                    for t, count in zip(types, _counts(rest), strict=False)
                ]
    return _checked(rows, "pagetypeinfo")


def _free_counts(migratetype: str, counts: list[str], node: int, zone: str) -> list[SnapshotRow]:
    rows = []
    for order, value in enumerate(_counts([c.removeprefix(">") for c in counts])):
        at = {"node": node, "order": order}
        rows.append(_row("pagetypeinfo", "nr_free", value, zone=zone, migratetype=migratetype, **at))
        if counts[order].startswith(">"):
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
        label = _LABELLED.match(line)
        if bare == "per-node stats":
            per_node = True
        elif label and label[1] == "pages free":
            per_node, cpu = False, None
            rows.append(_row("zoneinfo", "free", int(label[2]), node=node, zone=zone))
        elif bare.startswith("protection:"):
            rows += [
                _row("zoneinfo", f"protection.{i}", int(mark), node=node, zone=zone)
                for i, mark in enumerate(_NUMBER.findall(bare))
            ]
        elif match := _CPU.match(line):
            cpu = int(match[1])
        elif label and label[1] == "vm stats threshold":
            rows.append(_row("zoneinfo", "vm_stats_threshold", int(label[2]), node=node, zone=zone, cpu=cpu))
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
        if len(parts) == 2 and _NUMBER.fullmatch(parts[1]):
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
        if ":" not in line or not (label := _LABELLED.match(line)):
            continue
        seen = True
        if label[1].startswith("DirectMap"):
            rows.append(_row("directmap", label[1], int(label[2])))
    return rows if seen else _checked(rows, "meminfo")


PROC_PARSERS: Mapping[str, Callable[[str], list[SnapshotRow]]] = {
    "buddyinfo": parse_buddyinfo,
    "pagetypeinfo": parse_pagetypeinfo,
    "zoneinfo": parse_zoneinfo,
    "vmstat": parse_vmstat,
    "meminfo": parse_meminfo_directmap,
}
"""Name of the file under /proc -> its parser."""
