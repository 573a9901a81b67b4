"""Small traces made of plain values, for tests of the store and of the verbs that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.schema import TABLES
from tracereplay.trace.snapshots import snapshot_batch, snapshot_rows
from tracereplay.trace.writer import TraceWriter

PROCFS = Path(__file__).parent / "data" / "procfs"


def rows_batch(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Rows as a batch that holds exactly the columns that they name."""
    names = [f.name for f in TABLES[table].schema if any(f.name in r for r in rows)]
    columns = []
    for name in names:
        kind = TABLES[table].schema.field(name).type
        values = pa.array([r.get(name) for r in rows], kind.value_type if pa.types.is_dictionary(kind) else kind)
        columns.append(values)
    return pa.RecordBatch.from_arrays(columns, names=names)


def page_batch(rows: int, *, seed: int = 0, start_ns: int = 0) -> pa.RecordBatch:
    """Random but plausible alloc and free events in the schema's own types; times rise from ``start_ns``."""
    rng = np.random.default_rng(seed)
    free = rng.random(rows) < 0.5
    return pa.RecordBatch.from_pydict(
        {
            "ts_ns": pa.array(start_ns + np.cumsum(rng.integers(0, 2000, rows))),
            "cpu": pa.array(rng.integers(0, 4, rows).astype(np.uint16)),
            "kind": pa.DictionaryArray.from_arrays(
                pa.array(np.where(free, 2, 0).astype(np.int8)), kind_dictionary("page_events")
            ),
            "pfn": pa.array(rng.integers(0, 1 << 22, rows).astype(np.uint64)),
            "order": pa.array((rng.random(rows) < 0.02).astype(np.uint8) * 3),
            "gfp": pa.array(np.full(rows, 0xCC0, np.uint32), mask=free),
            "migratetype": pa.array(rng.integers(0, 2, rows).astype(np.uint8), mask=free),
            "pid": pa.array(rng.integers(1, 300, rows).astype(np.uint32)),
        }
    )


def metadata(**facts: Any) -> TraceMetadata:
    """Metadata of a made-up capture."""
    made = TraceMetadata(
        source={"kind": "synthetic"},
        host={"hostname": "sample", "release": "6.12.95", "arch": "x86_64", "cpus": 4, "page_size": 4096},
        clock={"name": "monotonic", "resolution_ns": 1, "triples": []},
        events=["kmem:mm_page_alloc", "kmem:mm_page_free"],
    )
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def snapshot(kernel: str, ts_ns: int, phase: str) -> pa.RecordBatch:
    """The stored /proc texts of a kernel as a snapshot."""
    texts = {p.name: p.read_text() for p in (PROCFS / kernel).iterdir()}
    return snapshot_batch(snapshot_rows(texts), ts_ns, phase)


def write_sample(path: Path, *, rows: int = 1000, files: int = 2, **facts: Any) -> Path:
    """A complete trace: page events in ``files`` files, two bios, tasks, a loss, a start snapshot."""
    per_file = rows // files
    with TraceWriter(path, metadata(**facts), rotate_rows=per_file) as writer:
        writer.write("snapshots", snapshot("6.12", 0, "start"))
        last = 0
        for number in range(files):
            batch = page_batch(per_file, seed=number, start_ns=last)
            last = batch.column("ts_ns")[-1].as_py()
            writer.write("page_events", batch)
        bio = {"cpu": 0, "dev": 8 << 20, "sector": 64, "nr_sectors": 8, "op": "W", "flags": "WS", "pid": 7}
        writer.write(
            "bio_events",
            rows_batch(
                "bio_events",
                [
                    {**bio, "ts_ns": 10, "kind": "queue"},
                    {**bio, "ts_ns": 20, "kind": "bio_complete", "error": 0},
                ],
            ),
        )
        writer.write("tasks", rows_batch("tasks", [{"pid": 7, "comm": "fio", "first_ns": 1, "last_ns": 2}]))
        writer.write(
            "loss",
            rows_batch(
                "loss",
                [{"t0_ns": 5, "t1_ns": 9, "table": "page_events", "cpu": 1, "n": 3, "class": "ring_full"}],
            ),
        )
    return path
