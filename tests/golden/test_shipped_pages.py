"""The shipped captures of small loads on 6.1, 6.12 and 6.18: whole, with snapshots and a complete page map."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tracereplay.trace.reader import Trace
from tracereplay.trace.summary import summarize
from tracereplay.trace.validate import validate_trace

SHIPPED = Path(__file__).parents[2] / "traces"


@dataclass(frozen=True)
class Case:
    name: str
    release: str
    kinds: dict[str, int]
    pgalloc: int
    """What vmstat counted between two readings that lie within the events."""
    bulk_pages: int
    unseen: int
    frames: int
    """Page frames that the page map tells the kinds of."""
    kib: int
    """More than the files take."""


CASES = [
    Case(
        "pages-6.1",
        "6.1.0-56-amd64",
        {"alloc": 18588, "free": 18565, "free_batched": 14325, "zone_locked": 760, "bulk": 26},
        pgalloc=33107,
        bulk_pages=104,
        unseen=0,
        frames=2 << 18,
        kib=210,
    ),
    Case(
        "pages-6.12",
        "6.12.117+deb12-amd64",
        {"alloc": 18050, "free": 17972, "free_batched": 13893, "zone_locked": 1834, "bulk": 15},
        pgalloc=32468,
        bulk_pages=60,
        unseen=0,
        frames=2 << 18,
        kib=210,
    ),
    Case(
        "pages-6.18",
        "6.18.44-fc-v669",
        {"alloc": 17323, "free": 15092, "free_batched": 11926, "zone_locked": 2129},
        pgalloc=27175,
        bulk_pages=0,
        unseen=77,
        frames=24 << 18,
        kib=530,
    ),
    Case(
        "mixed-6.1",
        "6.1.0-56-amd64",
        {"alloc": 24700, "free": 24661, "free_batched": 24575, "zone_locked": 16790, "drain": 16642, "bulk": 1},
        pgalloc=24813,
        bulk_pages=4,
        unseen=0,
        frames=2 << 18,
        kib=320,
    ),
    Case(
        "mixed-6.12",
        "6.12.117+deb12-amd64",
        {"alloc": 24624, "free": 24599, "free_batched": 24463, "zone_locked": 18795, "drain": 17636, "bulk": 4},
        pgalloc=24688,
        bulk_pages=16,
        unseen=0,
        frames=2 << 18,
        kib=300,
    ),
]
NAMES = [case.name for case in CASES]


def _steps(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """Frames and whether they were allocated, page by page, by frame and then in the order of the events."""
    events = trace.page_events.filter(pl.col("kind").cast(pl.String).is_in(["alloc", "free"]))
    rows = events.select(pl.col("kind").cast(pl.String) == "alloc", "pfn", pl.col("order").cast(pl.Int64)).collect()
    sizes = 1 << rows["order"].to_numpy()
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    frames = np.repeat(rows["pfn"].cast(pl.Int64).to_numpy(), sizes) + within
    by_frame = np.argsort(frames, kind="stable")
    return frames[by_frame], np.repeat(rows["kind"].to_numpy(), sizes)[by_frame]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_it_is_whole(case: Case) -> None:
    folder = SHIPPED / case.name
    trace = Trace.open(folder)
    assert trace.complete
    report = validate_trace(trace)
    assert (report.errors, report.warnings) == ([], [])
    assert trace.metadata.host["release"] == case.release
    assert {k.kind: k.events for k in summarize(trace).kinds if k.table == "page_events"} == case.kinds
    assert trace.loss_summary()["lost"] == 0
    sums = [line.split() for line in (SHIPPED / "SHA256SUMS").read_text().splitlines()]
    listed = {path: digest for digest, path in sums if path.startswith(f"{folder.name}/")}
    files = [folder / "manifest.json", *(f for f in folder.glob("*/*.parquet") if f.parent.name != "derived")]
    assert listed == {str(f.relative_to(SHIPPED)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    assert sum(f.stat().st_size for f in files) < case.kib << 10


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_group_was_recorded(case: Case) -> None:
    events = set(Trace.open(SHIPPED / case.name).metadata.events)
    assert events >= {
        "kmem:mm_page_alloc",
        "kmem:mm_page_free",
        "kmem:mm_page_alloc_zone_locked",
        "kmem:mm_page_pcpu_drain",
        "kmem:mm_page_alloc_extfrag",
        "vmscan:mm_vmscan_kswapd_wake",
        "compaction:mm_compaction_begin",
        "block:block_bio_queue",
    }


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_no_frame_is_given_away_twice(case: Case) -> None:
    frames, allocated = _steps(Trace.open(SHIPPED / case.name))
    again = (frames[1:] == frames[:-1]) & allocated[1:] & allocated[:-1]
    assert len(frames) > 40_000
    assert again.sum() == 0


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_state_at_the_start_is_known(case: Case) -> None:
    trace = Trace.open(SHIPPED / case.name)
    summary = summarize(trace)
    page_map = trace.table("page_map").collect()
    assert sum(summary.page_map.values()) == case.frames
    assert page_map["pages"].sum() == case.frames
    assert (page_map["pfn"][1:] >= (page_map["pfn"] + page_map["pages"])[:-1]).all()
    assert not [note for note in trace.metadata.notes if "page map" in note]
    start = trace.table("snapshots").filter(pl.col("phase").cast(pl.String) == "start").collect()
    assert set(start["source"].cast(pl.String)) >= {"buddyinfo", "pagetypeinfo", "zoneinfo", "vmstat"}


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_what_no_event_tells_is_known(case: Case) -> None:
    bulk = summarize(Trace.open(SHIPPED / case.name)).bulk
    assert bulk is not None
    assert (bulk.pgalloc_delta, bulk.bulk_pages, bulk.unseen_pages) == (case.pgalloc, case.bulk_pages, case.unseen)
