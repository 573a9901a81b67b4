"""What a capture records of workloads whose events are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.reader import Trace
from tracereplay.trace.snapshots import zones
from tracereplay.trace.validate import validate_trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
WORKLOADS = str(Path(__file__).with_name("workloads.py"))


def run(out: Path, *arguments: str, groups: tuple[str, ...] = ("page", "bio")) -> Trace:
    """Capture while a workload runs."""
    command = (sys.executable, WORKLOADS, *arguments)
    summary = capture(out, CaptureOptions(groups=groups, command=command))
    assert summary.command_status == 0
    return Trace.open(summary.path)


def test_every_page_of_a_known_workload_is_seen_and_freed(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pages = 40_000
    trace = run(out, "touch", str(pages), groups=("page", "bio", "buddy"))
    pid = int(capfd.readouterr().out)
    events = trace.page_events.filter(pl.col("pid") == pid).collect()
    kinds = dict(events.group_by("kind").len().cast({"kind": pl.String}).rows())
    movable = trace.metadata.gfp_flags["GFP_HIGHUSER_MOVABLE"]
    anonymous = events.filter(
        (pl.col("kind").cast(pl.String) == "alloc")
        & (pl.col("order") == 0)
        & (pl.col("gfp") & movable == movable)
        & (pl.col("migratetype") == trace.metadata.migratetypes.index("Movable"))
    )
    assert len(anonymous) >= pages
    assert kinds["free"] >= pages
    # Behind the per-CPU lists: so many pages do not fit them, so refills and drains must show.
    assert kinds["zone_locked"] > 0
    assert events.filter(pl.col("gfp").is_not_null())["kind"].cast(pl.String).unique().to_list() == ["alloc"]
    tasks = trace.tasks.filter(pl.col("pid") == pid).collect()
    assert pid in tasks["tgid"].to_list()
    assert "python" in "".join(tasks["comm"].to_list())


def test_frees_of_a_task_follow_its_allocations(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trace = run(out, "touch", "3000")
    pid = int(capfd.readouterr().out)
    frame = trace.page_events.filter(pl.col("order") == 0).with_columns(pl.col("kind").cast(pl.String)).collect()
    assert frame["ts_ns"].is_sorted()
    mine = frame.filter((pl.col("pid") == pid) & (pl.col("kind") == "alloc"))["pfn"].unique()
    of_mine = frame.filter(pl.col("pfn").is_in(mine.implode()))
    before = pl.col("kind").shift(1).over("pfn")
    pairs = of_mine.with_columns(before.alias("before")).filter(pl.col("before").is_not_null())
    twice = pairs.filter(pl.col("kind") == pl.col("before"))
    # A frame is allocated, freed, allocated ...; a breach is an event without a tracepoint (bulk, migration).
    assert len(twice) <= len(pairs) // 100


def test_direct_writes_are_queued_with_their_sectors(
    out: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    count, size = 16, 64 * 1024
    trace = run(out, "write", str(tmp_path / "data"), str(count), str(size))
    pid = int(capfd.readouterr().out)
    bios = trace.bio_events.with_columns(pl.col("kind", "op", "flags").cast(pl.String)).collect()
    written = bios.filter((pl.col("kind") == "queue") & (pl.col("pid") == pid) & (pl.col("op") == "W"))
    direct = written.filter(pl.col("nr_sectors") == size // 512)
    assert len(direct) >= count
    assert direct.height * size // 512 == direct["nr_sectors"].sum()
    assert direct["sector"].n_unique() >= count
    assert all("S" in flags for flags in direct["flags"].to_list())
    completed = bios.filter(pl.col("kind").is_in(["complete", "bio_complete"]))
    ends = direct.join(completed, on=["dev", "sector"], suffix="_end").filter(pl.col("ts_ns_end") >= pl.col("ts_ns"))
    assert ends["sector"].n_unique() >= count
    assert set(ends["error_end"].to_list()) == {0}


def test_snapshots_clock_and_facts_are_there_and_the_bundle_validates(out: Path) -> None:
    summary = capture(out, CaptureOptions(duration_s=0.3))
    trace = Trace.open(out)
    assert trace.complete
    report = validate_trace(trace)
    assert report.ok, report
    assert summary.reason == "duration"
    for phase in ("start", "end"):
        assert sum(zone.managed for zone in zones(trace, phase)) > 0
        sources = trace.snapshots.filter(pl.col("phase").cast(pl.String) == phase).select("source").collect()
        assert {"buddyinfo", "zoneinfo", "vmstat", "pagetypeinfo"} <= set(sources["source"].cast(pl.String))
    metadata = trace.metadata
    assert metadata.clock["name"] == "monotonic"
    first, last = metadata.clock["triples"]
    assert all(a < b for a, b in zip(first, last, strict=True))
    assert metadata.gfp_flags["__GFP_ZERO"] == 0x100
    assert metadata.migratetypes[:3] == ["Unmovable", "Movable", "Reclaimable"]
    assert metadata.host["release"] == subprocess.check_output(["uname", "-r"], text=True).strip()
    assert "kmem:mm_page_alloc" in metadata.events
    assert metadata.self_cost["collector"]["cpu_seconds"] > 0
