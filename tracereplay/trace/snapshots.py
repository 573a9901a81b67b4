"""Snapshots of the host's memory: from /proc texts to the ``snapshots`` table, and back to zones and
counters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tracereplay.errors import TraceError
from tracereplay.kernel.procfs import PROC_PARSERS, SnapshotRow
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import SNAPSHOT_PHASES, SNAPSHOTS


def snapshot_rows(texts: Mapping[str, str]) -> list[SnapshotRow]:
    """Rows of one snapshot from its /proc texts, keyed by file name (``buddyinfo``, ``meminfo`` ...).

    Files that no parser knows are ignored. Raises ImportFormatError for a text that is not of its file.
    """
    rows: list[SnapshotRow] = []
    for name, parse in PROC_PARSERS.items():
        if name in texts:
            rows += parse(texts[name])
    return rows


def snapshot_batch(rows: Sequence[SnapshotRow], ts_ns: int | None, phase: str) -> pa.RecordBatch:
    """Rows as a batch of the ``snapshots`` table. ``ts_ns``: trace clock, None when unknown.

    Raises TraceError for a phase other than start, tick or end.
    """
    if phase not in SNAPSHOT_PHASES:
        raise TraceError(f"no snapshot phase {phase!r}", hint=f"one of: {', '.join(SNAPSHOT_PHASES)}")
    height = len(rows)
    columns = {"ts_ns": pa.array([ts_ns] * height, pa.int64()), "phase": pa.array([phase] * height)}
    for field in SNAPSHOTS:
        if field.name not in columns:
            values = [row[field.name] for row in rows]  # type: ignore[literal-required]
            columns[field.name] = pa.array(values, field.type)
    arrays = [columns[field.name].cast(field.type) for field in SNAPSHOTS]
    return pa.RecordBatch.from_arrays(arrays, schema=SNAPSHOTS)


@dataclass(frozen=True, slots=True)
class ZoneFacts:
    """A memory zone as /proc/zoneinfo shows it. Numbers are pages; what the kernel does not print is None."""

    node: int
    zone: str
    managed: int
    """Pages that the allocator owns. It may grow while a host runs (page-allocator.md 8.1)."""
    start_pfn: int | None
    spanned: int | None
    present: int | None
    free: int | None
    min: int | None
    low: int | None
    high: int | None
    pcp_count: dict[int, int]
    """Pages on the per-CPU lists, by CPU."""
    pcp_high: dict[int, int]
    pcp_batch: dict[int, int]
    free_blocks: list[int]
    """Free blocks by order, from /proc/buddyinfo; empty when it was not recorded."""


def zones(trace: Trace, phase: str = "start") -> list[ZoneFacts]:
    """Populated zones of the first snapshot of a phase, ascending by node and first frame."""
    rows = _rows_of(trace, phase)
    zone_values: dict[tuple[int, str], dict[str, int]] = {}
    pcp_values: dict[tuple[int, str], dict[str, dict[int, int]]] = {}
    blocks: dict[tuple[int, str], dict[int, int]] = {}
    for row in rows:
        if row["node"] is None or row["zone"] is None:
            continue
        key = (row["node"], row["zone"])
        if row["source"] == "buddyinfo" and row["order"] is not None:
            blocks.setdefault(key, {})[row["order"]] = row["value"]
        elif row["source"] == "zoneinfo" and row["cpu"] is not None:
            pcp_values.setdefault(key, {}).setdefault(row["name"], {})[row["cpu"]] = row["value"]
        elif row["source"] == "zoneinfo":
            zone_values.setdefault(key, {})[row["name"]] = row["value"]
    found = []
    for key, values in zone_values.items():
        if not values.get("managed"):
            continue
        pcp = pcp_values.get(key, {})
        by_order = blocks.get(key, {})
        found.append(
            ZoneFacts(
                node=key[0],
                zone=key[1],
                managed=values["managed"],
                start_pfn=values.get("start_pfn"),
                spanned=values.get("spanned"),
                present=values.get("present"),
                free=values.get("free"),
                min=values.get("min"),
                low=values.get("low"),
                high=values.get("high"),
                pcp_count=pcp.get("count", {}),
                pcp_high=pcp.get("high", {}),
                pcp_batch=pcp.get("batch", {}),
                free_blocks=[by_order.get(o, 0) for o in range(max(by_order, default=-1) + 1)],
            )
        )
    return sorted(found, key=lambda z: (z.node, z.start_pfn or 0))


def vmstat(trace: Trace, phase: str) -> dict[str, int]:
    """Counters of /proc/vmstat: the last snapshot of phase ``end``, the first of others; empty if none."""
    return {r["name"]: r["value"] for r in _rows_of(trace, phase) if r["source"] == "vmstat"}


def directmap_kib(trace: Trace, phase: str = "start") -> dict[str, int]:
    """``DirectMap4k``, ``DirectMap2M``, ``DirectMap1G`` in KiB; empty where they were not recorded."""
    return {r["name"]: r["value"] for r in _rows_of(trace, phase) if r["source"] == "directmap"}


def snapshot_span(trace: Trace) -> tuple[int, int] | None:
    """Times of the first and the last snapshot, trace clock; None when they have none."""
    return trace.bounds("snapshots", "ts_ns")


def _rows_of(trace: Trace, phase: str) -> list[dict[str, Any]]:
    """Rows of one snapshot: of a phase with several, the first, or for ``end`` the last."""
    found: list[dict[str, Any]] = []
    times: list[int | None] = []
    for batch in trace.batches("snapshots"):
        rows = [r for r in batch.to_pylist() if r["phase"] == phase]
        found += rows
        times += [r["ts_ns"] for r in rows]
    known = [t for t in times if t is not None]
    if not known:
        return found
    chosen = max(known) if phase == "end" else min(known)
    return [r for r in found if r["ts_ns"] is None or r["ts_ns"] == chosen]


def snapshot_problems(trace: Trace) -> list[str]:
    """Sums that a snapshot of a real kernel cannot have. The texts are not read at one instant, so free pages
    may differ between them; what cannot happen is more free pages than managed ones, or watermarks out of
    order.
    """
    problems = []
    for phase in SNAPSHOT_PHASES:
        for zone in zones(trace, phase):
            name = f"{phase}: node {zone.node} zone {zone.zone}"
            free = sum(n << order for order, n in enumerate(zone.free_blocks))
            if free > zone.managed:
                problems.append(f"{name}: buddyinfo shows {free} free pages of {zone.managed} managed")
            if zone.free is not None and zone.free > zone.managed:
                problems.append(f"{name}: {zone.free} free pages of {zone.managed} managed")
            marks = [m for m in (zone.min, zone.low, zone.high) if m is not None]
            if marks != sorted(marks):
                problems.append(f"{name}: watermarks {marks} do not rise")
    return problems
