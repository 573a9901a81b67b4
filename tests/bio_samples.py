"""Traces of bios made of plain values, and random ones that look like a disk's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.trace_samples import metadata, rows_batch
from tracereplay import Trace
from tracereplay.trace.writer import TraceWriter

DISK = 8 << 20
OTHER = 8 << 20 | 16
DEFAULTS = {"cpu": 0, "kind": "queue", "dev": DISK, "sector": 0, "nr_sectors": 8, "op": "W", "flags": "W", "pid": 7}


def bio_trace(path: Path, rows: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]] = ()) -> Trace:
    """A trace of bio events, which have the values of DEFAULTS where a row says nothing else."""
    with TraceWriter(path, metadata(events=["block:block_bio_queue"]), rotate_rows=5000) as writer:
        if rows:
            writer.write("bio_events", rows_batch("bio_events", [{**DEFAULTS, **row} for row in rows]))
        if tasks:
            writer.write("tasks", rows_batch("tasks", tasks))
    return Trace.open(path)


def random_bios(n: int, seed: int) -> list[dict[str, Any]]:
    """Queued bios of two disks: runs and jumps, reads and writes, a few discards, flushes and events of other kinds."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    ts = 1_000_000
    ends = {DISK: 0, OTHER: 0}
    for _ in range(n):
        ts += int(rng.integers(1, 200_000)) if rng.random() < 0.9 else 0
        dev = DISK if rng.random() < 0.7 else OTHER
        op = str(rng.choice(["R", "W", "W", "D"]))
        sector = ends[dev] if rng.random() < 0.5 else int(rng.integers(0, 4000))
        count = int(rng.integers(1, 40))
        kind = str(rng.choice(["queue", "queue", "queue", "insert"]))
        flags = op + str(rng.choice(["", "S", "SM", "FS", "A"]))
        if rng.random() < 0.05:
            op, flags, sector, count = "W", "FWS", 0, 0
        if kind == "queue" and count and op != "D":
            ends[dev] = sector + count
        rows.append(
            {
                "ts_ns": ts,
                "dev": dev,
                "op": op,
                "flags": flags,
                "sector": sector,
                "nr_sectors": count,
                "kind": kind,
                "cpu": int(rng.integers(0, 2)),
                "pid": int(rng.integers(7, 10)),
            }
        )
    return rows
