"""Tasks that change their names while the trace runs: exec, and pids that are used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trace_samples import metadata, rows_batch
from tracereplay import Trace
from tracereplay.demand.lifetime import lifetimes
from tracereplay.demand.opening import task_names
from tracereplay.demand.reconstruct import open_demand
from tracereplay.demand.renames import Renames, task_renames
from tracereplay.trace.writer import TraceWriter

GFP = 0xCC0
TASKS = [  # pid 7: sh, then dd from 2,000 us on, then sort; rows in no order
    {"pid": 7, "tgid": 7, "comm": "sort", "first_ns": 3_000_000},
    {"pid": 7, "tgid": 7, "comm": "sh", "first_ns": 1_000_000},
    {"pid": 8, "tgid": 8, "comm": "cat", "first_ns": 1_000_000},
    {"pid": 7, "tgid": 7, "comm": "dd", "first_ns": 2_000_000},
    {"pid": 9, "tgid": 9, "comm": "collector", "first_ns": 0},
    {"pid": 9, "tgid": 9, "comm": "other", "first_ns": 2_500_000},
]


def trace_of(path: Path, times: list[tuple[int, int]]) -> Trace:
    """An allocation of one page for each (us, pid)."""
    rows: list[dict[str, Any]] = [
        {"ts_ns": us * 1000, "cpu": 0, "kind": "alloc", "pfn": 100 + k, "order": 0, "gfp": GFP, "migratetype": 0,
         "pid": pid}
        for k, (us, pid) in enumerate(times)
    ]  # fmt: skip
    with TraceWriter(path, metadata(self_cost={"collector": {"pid": 9}})) as writer:
        writer.write("page_events", rows_batch("page_events", rows))
        writer.write("tasks", rows_batch("tasks", TASKS))
    return Trace.open(path)


TIMES = [(1000, 7), (1500, 8), (1999, 7), (2000, 7), (2001, 8), (2600, 9), (2999, 7), (3000, 7), (9000, 7)]
LABELS = [
    "sh: GFP_KERNEL", "cat: GFP_KERNEL", "sh: GFP_KERNEL", "dd: GFP_KERNEL", "cat: GFP_KERNEL", "(tracer): GFP_KERNEL",
    "dd: GFP_KERNEL", "sort: GFP_KERNEL", "sort: GFP_KERNEL",
]  # fmt: skip


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return trace_of(tmp_path / "t.trace", TIMES)


def test_the_first_name_is_the_first_in_time(trace: Trace) -> None:
    names = task_names(trace)
    assert names == {7: "sh", 8: "cat", 9: "(tracer)"}
    assert task_renames(trace, names) == [(2_000_000, 7, "dd"), (3_000_000, 7, "sort")]


def test_requests_and_lifetimes_bear_the_name_of_their_time(trace: Trace) -> None:
    stream = open_demand(trace)
    batches = list(stream)
    counted: dict[str, int] = {}
    for batch in batches:
        for op in batch[batch["kind"] == 1]:
            label = stream.callers.labels[op["caller"]]
            counted[label] = counted.get(label, 0) + int(op["pages"])
    assert counted == {label: LABELS.count(label) for label in LABELS}
    rows = [row for batch in lifetimes(trace) for row in batch.select(["t_alloc_ns", "caller"]).to_pylist()]
    assert [row["caller"] for row in sorted(rows, key=lambda r: r["t_alloc_ns"])] == LABELS


def test_a_target_takes_a_task_from_its_exec_on(trace: Trace) -> None:
    stream = open_demand(trace, target="comm:dd")
    taken = [op["ts_ns"] for batch in stream for op in batch if op["flags"] & 32 and op["kind"] == 1]
    assert taken == [2_000_000, 2_999_000]


@pytest.mark.parametrize("cuts", [[], [3], [1, 2, 3, 4], [0, 4], [5]])
def test_pieces_do_not_depend_on_how_batches_are_cut(trace: Trace, cuts: list[int]) -> None:
    import numpy as np

    numbers: dict[str, int] = {}
    renames = Renames(task_renames(trace, task_names(trace)), lambda name: numbers.setdefault(name, len(numbers) + 1))
    ts = np.array([us * 1000 for us, _ in TIMES])
    now, found = 0, []
    for part in np.split(ts, cuts):
        for rows, names in renames.pieces(part):
            now = int(names.comm[-1]) if len(names.comm) else now
            found += [now] * (rows.stop - rows.start)
        renames.pass_by(part)
    assert found == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert numbers == {"dd": 1, "sort": 2}
