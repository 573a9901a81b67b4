"""The shipped captures of Debian 6.1 and 6.12: dm-crypt writes, and calls of the bulk allocator beside them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from tests.reference.stream_check import check_stream
from tracereplay.demand import open_demand
from tracereplay.trace.reader import Trace
from tracereplay.trace.summary import summarize
from tracereplay.trace.validate import validate_trace

SHIPPED = Path(__file__).parents[2] / "traces"


@dataclass(frozen=True)
class Case:
    name: str
    release: str
    function: str
    kinds: dict[str, int]
    bulk_pages: int
    pgalloc: int
    """What vmstat counted between two readings that lie within the events."""
    sizes: dict[str, int]
    """Requests of dm-crypt by pages."""
    callers: dict[str, int]
    """Pages of bulk calls by the function that called."""


CASES = [
    Case(
        "dmcrypt-6.1-bulk",
        "6.1.0-56-amd64",
        "kprobe:__alloc_pages_bulk",
        {"alloc": 7628, "free": 7408, "free_batched": 3717, "zone_locked": 2711, "bulk": 19, "extfrag": 3},
        1544,
        9677,
        {"256": 8},
        {"__vmalloc_node_range": 1544},
    ),
    Case(
        "dmcrypt-6.12-bulk",
        "6.12.117+deb12-amd64",
        "kprobe:alloc_pages_bulk_noprof",
        {
            "free": 7512,
            "zone_locked": 6694,
            "alloc": 5698,
            "free_batched": 3714,
            "drain": 1189,
            "bulk": 37,
            "extfrag": 1,
        },
        3628,
        11874,
        {"32": 64},
        {"__vmalloc_node_range_noprof": 1580, "copy_splice_read": 2048},
    ),
]
NAMES = [case.name for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_it_is_whole(case: Case) -> None:
    folder = SHIPPED / case.name
    trace = Trace.open(folder)
    assert trace.complete
    report = validate_trace(trace)
    assert (report.errors, report.warnings) == ([], [])
    assert trace.metadata.host["release"] == case.release
    assert case.function in trace.metadata.events
    assert {k.kind: k.events for k in summarize(trace).kinds if k.table == "page_events"} == case.kinds
    assert trace.loss_summary()["lost"] == 0
    sums = [line.split() for line in (SHIPPED / "SHA256SUMS").read_text().splitlines()]
    listed = {path: digest for digest, path in sums if path.startswith(f"{folder.name}/")}
    files = [folder / "manifest.json", *(f for f in folder.glob("*/*.parquet") if f.parent.name != "derived")]
    assert listed == {str(f.relative_to(SHIPPED)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    assert sum(f.stat().st_size for f in files) < 300 << 10


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_bulk_calls_are_there_with_their_callers(case: Case) -> None:
    trace = Trace.open(SHIPPED / case.name)
    bulk = trace.page_events.filter(pl.col("kind") == "bulk").collect()
    assert bulk["returned"].sum() == case.bulk_pages
    assert (bulk["returned"] <= bulk["requested"]).all()
    assert bulk.select(pl.col("requested", "gfp", "pid", "stack_id").null_count()).row(0) == (0, 0, 0, 0)
    assert bulk.select(pl.col("pfn", "order").null_count()).row(0) == (len(bulk), len(bulk))
    outermost = trace.table("stacks").filter(pl.col("depth") == 0).select("stack_id", "symbol").collect()
    pages = bulk.join(outermost, on="stack_id").group_by("symbol").agg(pl.col("returned").sum())
    assert dict(pages.iter_rows()) == case.callers
    assert trace.page_events.select("ts_ns").collect()["ts_ns"].is_sorted()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_no_page_is_unseen(case: Case) -> None:
    bulk = summarize(Trace.open(SHIPPED / case.name)).bulk
    assert bulk is not None
    assert bulk.pgalloc_delta == case.pgalloc
    assert bulk.traced_pages + bulk.bulk_pages == case.pgalloc
    assert bulk.unseen_pages == 0


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_demand_finds_the_writes(case: Case) -> None:
    stream = open_demand(Trace.open(SHIPPED / case.name), path="dm-crypt")
    found = check_stream(stream, stream.info)
    crypt = [c for c in stream.report.by_caller if c["caller"] == "dm-crypt (kworker)"]
    assert [c["sizes"] for c in crypt] == [case.sizes]
    written = [r for r in found.requests if stream.report.callers[r.caller] == "dm-crypt (kworker)"]
    assert sum(r.pages for r in written) == 8 << 8  # 8 MiB
    assert stream.report.bios["matched"] == stream.report.bios["writes"] == 8
