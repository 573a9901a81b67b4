"""Snapshots of the host's memory: from /proc texts to the ``snapshots`` table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from tracereplay.errors import TraceError
from tracereplay.kernel.procfs import PROC_PARSERS, SnapshotRow
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
