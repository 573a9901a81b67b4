"""A small trace with everything that analyses of page events look at, and what DuckDB says of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from tests.trace_samples import metadata, rows_batch
from tracereplay import Trace, TraceWriter

KINDS = (
    "alloc",
    "alloc",
    "alloc",
    "free",
    "free",
    "alloc_failed",
    "zone_locked",
    "drain",
    "extfrag",
    "bulk",
    "free_batched",
)
GFPS = (0x140DCA, 0xCC0, 0x400DC0, 0x52CC0, 0xF4000CC0, 0)
STACKS = {
    0: ["__alloc_pages_noprof", "alloc_pages_mpol_noprof", "pte_alloc_one", "handle_mm_fault", "asm_exc_page_fault"],
    1: ["__alloc_pages_noprof", "crypt_alloc_buffer", "kcryptd_crypt_write_convert", "worker_thread"],
    2: ["__alloc_pages_noprof", "pte_alloc_one", "do_fork"],
}


def page_rows(rows: int, seed: int, *, stacks: bool) -> list[dict[str, Any]]:
    """Random events of all kinds, each with the columns that such events have."""
    rng = np.random.default_rng(seed)
    made = []
    for number, kind in enumerate(rng.choice(KINDS, rows)):
        row: dict[str, Any] = {"ts_ns": 1000 + number * 7, "cpu": int(rng.integers(3)), "kind": str(kind)}
        row["pid"] = int(rng.choice([7, 8, 9, 70_000]))
        if kind not in ("alloc_failed", "bulk"):
            row["pfn"] = int(rng.integers(1 << 12))
        if kind not in ("extfrag", "bulk", "free_batched"):
            row["order"] = int(rng.choice([0, 0, 0, 1, 3, 9]))
        if kind in ("alloc", "alloc_failed"):
            row |= {"gfp": int(rng.choice(GFPS)), "migratetype": int(rng.integers(2))}
            if stacks and rng.random() < 0.8:
                row["stack_id"] = int(rng.integers(len(STACKS)))
        elif kind in ("zone_locked", "drain"):
            row |= {"migratetype": int(rng.integers(3)), "percpu_refill": bool(rng.random() < 0.9)}
        elif kind == "extfrag":
            row |= {"alloc_order": int(rng.integers(5)), "fallback_order": int(rng.choice([3, 9, 10]))}
            row |= {"migratetype": 0, "fallback_migratetype": 1, "change_ownership": bool(rng.integers(2))}
        elif kind == "bulk":
            asked = int(rng.choice([16, 64]))
            row |= {"requested": asked, "returned": int(rng.integers(asked + 1))}
        made.append(row)
    return made


def page_trace(path: Path, rows: int = 4000, *, seed: int = 0, stacks: bool = True) -> Trace:
    """A trace of two files. Pid 7 is ``first``, and ``second`` from the middle on; pid 70,000 has no task."""
    events = page_rows(rows, seed, stacks=stacks)
    middle = events[rows // 2]["ts_ns"]
    with TraceWriter(path, metadata(), rotate_rows=rows // 2 + 1) as writer:
        for at in range(0, rows, 500):
            writer.write("page_events", rows_batch("page_events", events[at : at + 500]))
        task = {"tgid": 7, "first_ns": None, "last_ns": None}
        tasks = [
            {**task, "pid": 7, "comm": "first", "first_ns": 1000, "cgroup": "/a"},
            {**task, "pid": 7, "comm": "second", "first_ns": middle, "cgroup": "/b"},
            {**task, "pid": 8, "comm": "kworker/0:1", "cgroup": "/b"},
            {**task, "pid": 9, "tgid": 9, "comm": "first", "cgroup": "/a"},
        ]
        writer.write("tasks", rows_batch("tasks", tasks))
        if stacks:
            frames = [
                {"stack_id": stack, "depth": depth, "address": 100 * stack + depth, "symbol": name}
                for stack, names in STACKS.items()
                for depth, name in enumerate(names)
            ]
            writer.write("stacks", rows_batch("stacks", frames))
    return Trace.open(path)


def duck(trace: Trace, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a query over ``events`` and ``tasks``, which are the trace's own Parquet files."""
    with duckdb.connect() as connection:
        for name in ("page_events", "tasks", "stacks"):
            if trace.rows(name):
                files = str(trace.path / name / "*.parquet")
                connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{files}')")
        return connection.execute(sql).fetchall()
