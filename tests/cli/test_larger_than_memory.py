"""A trace ten times larger than the memory that a process may use is summarised within it.

As root the kernel holds the limit (memory control group: what goes beyond is killed); else the peak is measured.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.live.kernel_memory_limit import memory_group
from tests.trace_samples import metadata
from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.schema import TABLES
from tracereplay.trace.writer import TraceWriter

LIMIT = 256 << 20
ROWS = 1 << 20
FILES = 71
CALLERS = 3000
SCHEMA = TABLES["page_events"].schema
MAIN = [sys.executable, "-c", "from tracereplay.cli.app import main; main()"]


def columns(rng: np.random.Generator) -> dict[str, pa.Array]:
    """A million events without their times."""
    free = rng.random(ROWS) < 0.5
    return {
        "cpu": pa.array(rng.integers(0, 8, ROWS).astype(np.uint16)),
        "kind": pa.DictionaryArray.from_arrays(
            pa.array(np.where(free, 2, 0).astype(np.int8)), kind_dictionary("page_events")
        ),
        "pfn": pa.array(rng.integers(0, 1 << 22, ROWS).astype(np.uint64)),
        "order": pa.array(np.zeros(ROWS, np.uint8)),
        "gfp": pa.array(rng.choice(np.array([0xCC0, 0x140CCA, 0x400DC0], np.uint32), ROWS), mask=free),
        "migratetype": pa.array(rng.integers(0, 2, ROWS).astype(np.uint8), mask=free),
        "pid": pa.array(rng.integers(1, 300, ROWS).astype(np.uint32)),
        "stack_id": pa.array(rng.integers(1, CALLERS, ROWS).astype(np.uint32)),
    }


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """2.5 GiB: uncompressed and without dictionaries, as another writer may leave a bundle."""
    path = tmp_path_factory.mktemp("large") / "t.trace"
    with TraceWriter(path, metadata()):
        pass
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "page_events").mkdir(exist_ok=True)
    fixed = columns(np.random.default_rng(0))
    names = [name for name in SCHEMA.names if name == "ts_ns" or name in fixed]
    entries = []
    for number in range(FILES):
        ts = (np.arange(ROWS, dtype=np.int64) + number * ROWS) * 100
        file = path / "page_events" / f"part-{number:06}.parquet"
        made = pa.Table.from_arrays([fixed.get(n, pa.array(ts)) for n in names], names=names)
        pq.write_table(made, file, compression="none", use_dictionary=["kind"])
        entries.append(
            {"file": f"page_events/{file.name}", "rows": ROWS, "bytes": file.stat().st_size,
             "min": int(ts[0]), "max": int(ts[-1])}
        )  # fmt: skip
    manifest["tables"]["page_events"] = entries
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert sum(e["bytes"] for e in entries) > 10 * LIMIT
    yield path
    for file in path.glob("page_events/*"):
        file.unlink()


def limited(*args: str) -> str:
    """Standard output of a command that may not use more than LIMIT."""
    command = [*MAIN, *args]
    if os.geteuid() == 0:
        group, limit = memory_group()
        group.mkdir()
        (group / limit).write_text(str(LIMIT))
        join = f'echo $$ > "{group}/cgroup.procs"; exec "$@"'
        try:
            done = subprocess.run(["sh", "-c", join, "sh", *command], capture_output=True, text=True, check=False)
        finally:
            group.rmdir()
    else:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10 <= LIMIT
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_summarised(large: Path) -> None:
    summary = json.loads(limited("analyze", "summary", str(large), "--format", "json"))
    assert sum(row["events"] for row in summary["rows"]) == FILES * ROWS


def test_it_is_queried(large: Path) -> None:
    sql = "SELECT stack_id, COUNT(*) AS n FROM page_events GROUP BY stack_id"
    groups = json.loads(limited("query", str(large), sql, "--format", "json"))
    assert len(groups) == CALLERS - 1
    assert sum(group["n"] for group in groups) == FILES * ROWS
