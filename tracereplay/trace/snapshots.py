"""Snapshots of the host's memory: from /proc texts to the ``snapshots`` table, and back to zones and
counters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tracereplay.errors import ImportFormatError, TraceError
from tracereplay.kernel.procfs import PROC_PARSERS, SnapshotRow, one_row
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


def snapshot_of(message: Mapping[str, Any]) -> tuple[list[SnapshotRow], dict[str, str]]:
    """Rows of a collector's SNAPSHOT frame (docs/capture.md), and by file name why it gave none.

    A text that cannot be parsed costs that file only. When a file was read is a row of source ``read_ns``.
    """
    rows: list[SnapshotRow] = []
    problems = {str(name): str(reason) for name, reason in dict(message.get("errors", {})).items()}
    read_ns = message.get("read_ns", {})
    for name, text in dict(message.get("files", {})).items():
        try:
            rows += snapshot_rows({name: text})
        except ImportFormatError as error:
            problems[name] = error.message
            continue
        if isinstance(read_ns.get(name), int):
            rows.append(one_row("read_ns", name, read_ns[name]))
    return rows, problems


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


def zones(trace: Trace, phase: str = "start", ts_ns: int | None = None) -> list[ZoneFacts]:
    """Populated zones of the snapshot taken at ``ts_ns`` (see ``snapshot_times``), else of the first snapshot of
    a phase, of ``end`` the last; ascending by node and first frame."""
    rows = _rows_of(trace, phase, ts_ns, "zoneinfo", "buddyinfo")
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


def vmstat(trace: Trace, phase: str, ts_ns: int | None = None) -> dict[str, int]:
    """Counters of /proc/vmstat: of the snapshot at ``ts_ns``, else of the last one of phase ``end``, the first of
    others; empty if none."""
    return {r["name"]: r["value"] for r in _rows_of(trace, phase, ts_ns, "vmstat")}


def directmap_kib(trace: Trace, phase: str = "start") -> dict[str, int]:
    """``DirectMap4k``, ``DirectMap2M``, ``DirectMap1G`` in KiB; empty where they were not recorded."""
    return {r["name"]: r["value"] for r in _rows_of(trace, phase, None, "directmap")}


def pageblock_order(trace: Trace) -> int | None:
    """Order of a pageblock, from pagetypeinfo; None where that was not readable."""
    found = [r["value"] for r in _rows_of(trace, "start", None, "pagetypeinfo") if r["name"] == "pageblock_order"]
    return found[0] if found else None


def snapshot_span(trace: Trace) -> tuple[int, int] | None:
    """Times of the first and the last snapshot, trace clock; None when they have none."""
    return trace.bounds("snapshots", "ts_ns")


def snapshot_times(trace: Trace) -> list[tuple[int | None, str]]:
    """(ts_ns, phase) of every snapshot in time order; foreign ones without a time in the order of phases."""
    found: dict[tuple[int | None, str], None] = {}
    for batch in trace.batches("snapshots", ["ts_ns", "phase"]):
        pairs = pa.Table.from_batches([batch]).group_by(["ts_ns", "phase"]).aggregate([])
        found.update(dict.fromkeys(zip(*(c.to_pylist() for c in pairs.columns), strict=True)))
    return sorted(found, key=lambda f: (f[0] is not None, f[0] or 0, SNAPSHOT_PHASES.index(f[1])))


def vmstat_readings(trace: Trace) -> list[tuple[int | None, str, dict[str, int]]]:
    """(time, phase, counters) of every reading of /proc/vmstat in time order; the time is that of the reading
    itself where the capture noted it, else that of the snapshot, and None in foreign ones."""
    import polars as pl

    rows = (
        trace.snapshots.filter(
            (pl.col("source") == "vmstat") | ((pl.col("source") == "read_ns") & (pl.col("name") == "vmstat"))
        )
        .select("ts_ns", "phase", "source", "name", "value")
        .collect()
    )
    found: dict[tuple[int | None, str], tuple[list[int], dict[str, int]]] = {}
    for ts_ns, phase, source, name, value in rows.iter_rows():
        times, counters = found.setdefault((ts_ns, phase), ([], {}))
        if source == "read_ns":
            times.append(value)
        else:
            counters[name] = value
    readings = [
        (times[0] if times else ts_ns, phase, counters)
        for (ts_ns, phase), (times, counters) in found.items()
        if counters
    ]
    return sorted(readings, key=lambda r: (r[0] or 0, SNAPSHOT_PHASES.index(r[1])))


def _rows_of(trace: Trace, phase: str, ts_ns: int | None, *sources: str) -> list[dict[str, Any]]:
    """Rows of some sources of one snapshot: that of a time, else of a phase the first, or for ``end`` the last. A
    flight recorder that was killed has no ``start`` any more: its first ``tick`` stands for it."""
    import polars as pl

    wanted = trace.snapshots.filter(pl.col("source").is_in(sources))
    if ts_ns is not None:
        return wanted.filter(pl.col("ts_ns") == ts_ns).collect().to_dicts()
    frame = wanted.filter(pl.col("phase") == phase).collect()
    if phase == "start" and frame.is_empty():
        frame = wanted.filter(pl.col("phase") == "tick").collect()
    times = frame["ts_ns"]
    chosen = times.max() if phase == "end" else times.min()
    if chosen is not None:
        frame = frame.filter(pl.col("ts_ns").is_null() | (pl.col("ts_ns") == chosen))
    return frame.to_dicts()


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
