"""A large trace of page allocations with stacks, for benchmarks: ``python -m tests.bench.page_bundle PATH ROWS``.

Each CPU goes through bursts: one task that allocates from one stack, or frees; rows of CPUS CPUs alternate. Stacks are
as unevenly used as real ones (Zipf), gfp and migratetype follow from the stack, orders nearly so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.trace_samples import metadata
from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.writer import TraceWriter

CPUS, STACKS, CALLERS, TASKS, FRAMES = 8, 4000, 300, 400, 1 << 22
BLOCK = 1 << 20


def page_block(rng: np.random.Generator, start_ns: int) -> pa.RecordBatch:
    """BLOCK events from ``start_ns`` on."""
    lengths = rng.integers(4, 200, BLOCK // 64)
    bursts = np.repeat(np.arange(len(lengths)), lengths)
    cpu = rng.integers(0, CPUS, BLOCK)
    burst = np.empty(BLOCK, np.int64)
    for c in range(CPUS):
        own = np.flatnonzero(cpu == c)
        burst[own] = bursts[c * BLOCK // CPUS :][: len(own)]
    free = (rng.random(len(lengths)) < 0.5)[burst]
    stack = (rng.zipf(1.3, len(lengths)) % STACKS).astype(np.uint32)[burst]
    gfp = np.array([0x140DCA, 0xCC0, 0x400DC0, 0x52CC0, 0x152C4A], np.uint32)[stack % 5]
    return pa.RecordBatch.from_pydict(
        {
            "ts_ns": pa.array(start_ns + np.cumsum(rng.integers(80, 1500, BLOCK))),
            "cpu": pa.array(cpu.astype(np.uint16)),
            "kind": pa.DictionaryArray.from_arrays(
                pa.array(np.where(free, 2, 0).astype(np.int8)), kind_dictionary("page_events")
            ),
            "pfn": pa.array(rng.integers(0, FRAMES, BLOCK).astype(np.uint64)),
            "order": pa.array(np.where(rng.random(BLOCK) < 0.03, stack % 4, 0).astype(np.uint8)),
            "gfp": pa.array(gfp, mask=free),
            "migratetype": pa.array((gfp == 0x140DCA).astype(np.uint8), mask=free),
            "pid": pa.array(rng.integers(1, TASKS, len(lengths)).astype(np.uint32)[burst]),
            "stack_id": pa.array(stack, mask=free),
        }
    )


def stack_rows() -> pa.RecordBatch:
    """Frames of the stacks: allocator functions, then one of CALLERS callers, then its own callers."""
    frames = ["__alloc_pages_noprof", "alloc_pages_mpol_noprof", None, None, "do_syscall_64", "entry_SYSCALL_64"]
    ids = np.repeat(np.arange(STACKS, dtype=np.uint32), len(frames))
    symbols = [
        name or (f"caller_{stack % CALLERS}" if depth == 2 else f"step_{stack % 37}")
        for stack in range(STACKS)
        for depth, name in enumerate(frames)
    ]
    return pa.RecordBatch.from_pydict(
        {
            "stack_id": pa.array(ids),
            "depth": pa.array(np.tile(np.arange(len(frames), dtype=np.uint16), STACKS)),
            "symbol": pa.array(symbols).dictionary_encode(),
        }
    )


def write_bundle(path: Path, rows: int) -> None:
    """Write a trace of at least ``rows`` page events."""
    rng = np.random.default_rng(11)
    last = 0
    with TraceWriter(path, metadata()) as writer:
        writer.write("stacks", stack_rows())
        tasks = {"pid": np.arange(1, TASKS, dtype=np.uint32), "comm": [f"task-{i % 40}" for i in range(1, TASKS)]}
        writer.write("tasks", pa.RecordBatch.from_pydict(tasks))
        for _ in range(0, rows, BLOCK):
            batch = page_block(rng, last)
            last = batch.column(0)[-1].as_py()
            writer.write("page_events", batch)


if __name__ == "__main__":
    write_bundle(Path(sys.argv[1]), int(sys.argv[2]))
