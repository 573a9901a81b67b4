"""The tracer's own requests are replayed as background, and are a target only when named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.demand_samples import MemoryTrace
from tracereplay.demand.callers import TRACER
from tracereplay.demand.reconstruct import open_demand

PIPE = 0x100CC2 | 0x400000  # GFP_HIGHUSER | __GFP_ACCOUNT
COLLECTOR, WORKLOAD = 70, 80


def recorded() -> MemoryTrace:
    """Sixteen pages in one burst by each of two tasks; one of them is the collector's."""
    pages: list[dict[str, Any]] = []
    for task, first in ((COLLECTOR, 0), (WORKLOAD, 64)):
        pages += [
            {"ts_ns": 1000 * first + 200 * i, "cpu": 0, "kind": "alloc", "pfn": first + i, "order": 0, "gfp": PIPE}
            | {"migratetype": 0, "pid": task}
            for i in range(16)
        ]
    tasks = [{"pid": COLLECTOR, "tgid": COLLECTOR, "comm": "python3"}, {"pid": WORKLOAD, "tgid": 8, "comm": "python3"}]
    trace = MemoryTrace({"page_events": pages, "tasks": tasks})
    trace.metadata.self_cost = {"collector": {"pid": COLLECTOR}, "writer": {"pid": 71}}
    return trace


@pytest.mark.parametrize(("target", "pages"), [("batches", 16), ("all", 16), (f"comm:{TRACER}", 16), ("none", 0)])
def test_targets(target: str, pages: int) -> None:
    stream = open_demand(recorded(), target=target)  # type: ignore[arg-type]
    total = sum(int((ops["pages"]).sum()) for ops in stream)
    assert total == stream.report.pages == 32
    assert stream.report.targeted_pages == pages


def test_named() -> None:
    stream = open_demand(recorded())  # type: ignore[arg-type]
    for _ in stream:
        pass
    assert any(label.startswith(TRACER) for label in stream.report.callers)
    assert sum(label.startswith("python3") for label in stream.report.callers) == 1
