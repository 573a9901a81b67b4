"""Traces held in memory, for tests of demand that need no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tests.reference.slow_demand import Event
from tracereplay.kernel.gfp import gfp_table
from tracereplay.trace.columns import fixed_kind
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.schema import TABLES

ALL_EVENTS = ["kmem:mm_page_alloc", "kmem:mm_page_free", "kmem:mm_page_alloc_zone_locked"]


class MemoryTrace:
    """What reconstruction needs of a Trace, over tables in memory."""

    def __init__(self, tables: dict[str, list[dict[str, Any]]], *, resolution_ns: int = 1, cut: int = 1 << 20) -> None:
        self.path = Path("memory")
        self.location = "memory"
        self.metadata = TraceMetadata(
            host={"release": "6.1.0"},
            clock={"name": "mono", "resolution_ns": resolution_ns},
            events=list(ALL_EVENTS),
            gfp_flags=gfp_table("6.1.0"),
        )
        self.cut = cut
        self._tables: dict[str, pa.Table] = {}
        for name, rows in tables.items():
            schema = TABLES[name].schema
            arrays = []
            for field in schema:
                values = [row.get(field.name) for row in rows]
                if field.name == "kind" and name != "page_map":
                    arrays.append(fixed_kind(name, pa.array(values, pa.string())))
                elif pa.types.is_dictionary(field.type):
                    arrays.append(pa.array(values, pa.string()).dictionary_encode().cast(field.type))
                else:
                    arrays.append(pa.array(values, field.type))
            self._tables[name] = pa.Table.from_arrays(arrays, schema=schema)

    def rows(self, table: str) -> int:
        return self._tables[table].num_rows if table in self._tables else 0

    def table(self, name: str) -> pl.LazyFrame:
        made = pl.from_arrow(self._tables.get(name, TABLES[name].schema.empty_table()))
        assert isinstance(made, pl.DataFrame)
        return made.lazy()

    def __getattr__(self, name: str) -> pl.LazyFrame:
        if name in TABLES:
            return self.table(name)
        raise AttributeError(name)

    def batches(
        self, table: str, columns: Sequence[str] | None = None, rows: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        held = self._tables.get(table)
        if held is not None:
            chosen = held.select(list(columns)) if columns else held
            yield from chosen.combine_chunks().to_batches(max_chunksize=min(rows, self.cut))

    def bounds(self, table: str, column: str) -> tuple[int, int] | None:
        if not self.rows(table):
            return None
        low, high = (v.as_py() for v in pc.min_max(self._tables[table][column]).values())
        return None if low is None else (low, high)

    def sort_range(self, table: str) -> tuple[int, int] | None:
        return self.bounds(table, "ts_ns")

    def loss_summary(self) -> dict[str, Any]:
        rows = self._tables["loss"].to_pylist() if "loss" in self._tables else []
        return {"lost": sum(r["n"] or 0 for r in rows), "intervals": len(rows), "by_class": {}}

    def identity(self) -> dict[str, Any]:
        return {"path": "memory"}


def page_row(event: Event) -> dict[str, Any]:
    """A row of page_events."""
    row: dict[str, Any] = {"ts_ns": event.ts, "cpu": event.cpu, "kind": event.kind, "pid": event.pid}
    if event.kind != "alloc_failed":
        row["pfn"] = event.pfn
    row["order"] = event.order
    if event.kind in ("alloc", "alloc_failed"):
        row["gfp"] = event.gfp
    return row


def trace_of(
    events: Sequence[Event],
    *,
    bios: Sequence[dict[str, Any]] = (),
    losses: Sequence[tuple[int, int]] = (),
    comms: dict[int, str] | None = None,
    **options: Any,
) -> MemoryTrace:
    """A trace of page events, bios (rows), losses (any CPU) and task names."""
    tables: dict[str, list[dict[str, Any]]] = {"page_events": [page_row(e) for e in events]}
    if bios:
        tables["bio_events"] = list(bios)
    if losses:
        tables["loss"] = [
            {"t0_ns": a, "t1_ns": b, "table": "page_events", "n": 1, "class": "ring_full"} for a, b in losses
        ]
    if comms:
        tables["tasks"] = [{"pid": p, "comm": c} for p, c in comms.items()]
    return MemoryTrace(tables, **options)
