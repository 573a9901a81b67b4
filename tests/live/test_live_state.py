"""State of the allocator as a capture records it on this host: snapshots, page map, pages without an event."""

from __future__ import annotations

import mmap
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.pagemap import pages_by_kind
from tracereplay.trace.reader import Trace
from tracereplay.trace.snapshots import snapshot_times, vmstat_readings, zones
from tracereplay.trace.unseen import unseen_of
from tracereplay.trace.validate import validate_trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
WORKLOADS = str(Path(__file__).with_name("workloads.py"))
SPLICED = 40 * 256


def run(out: Path, *arguments: str, **options: object) -> Trace:
    """Capture page events while a workload runs."""
    command = (sys.executable, WORKLOADS, *arguments)
    summary = capture(out, CaptureOptions(groups=("page",), command=command, **options))  # type: ignore[arg-type]
    assert summary.command_status == 0
    return Trace.open(summary.path)


# Without snapshots in between, what the collector itself does around the gate counts as noise.
@pytest.mark.parametrize("every_s", [10.0, 0.0])
def test_pages_of_the_bulk_allocator_are_counted_and_shown(
    out: Path, cli: list[str], capfd: pytest.CaptureFixture[str], every_s: float
) -> None:
    trace = run(out, "splice", "40", "256", snapshot_every_s=every_s)
    pid = int(capfd.readouterr().out)
    # The premise: they are freed with an event, and were not allocated with one.
    mine = trace.page_events.filter((pl.col("pid") == pid) & (pl.col("order") == 0))
    kinds = dict(mine.group_by(pl.col("kind").cast(pl.String)).len().collect().rows())
    assert kinds["free"] - kinds["alloc"] > SPLICED * 0.9
    unseen = unseen_of(trace)
    assert unseen is not None
    assert unseen["unseen_pages"] >= SPLICED - unseen["noise_pages"]
    # Other tasks of the host may use the bulk allocator at the same time: some, not as much again.
    assert unseen["unseen_pages"] < SPLICED * 1.5 + unseen["noise_pages"]
    assert sum(unseen["intervals"]["unseen"]) == unseen["unseen_pages"]
    # What was stored while the events passed is what the tables say.
    stored, trace.metadata.unseen = trace.metadata.unseen, {}
    assert stored == unseen
    again = unseen_of(trace)
    assert again is not None
    assert abs(again["unseen_pages"] - stored["unseen_pages"]) <= again["noise_pages"] + stored["noise_pages"]
    told = subprocess.run([*cli, "info", str(out)], check=True, capture_output=True, text=True).stdout
    found = re.search(r"allocated without an event: ([\d,]+) pages", told)
    assert found is not None
    assert int(found[1].replace(",", "")) == unseen["unseen_pages"]
    assert max(map(len, told.splitlines())) <= 80 + len(str(out))


def test_ticks_come_in_order_with_the_state_of_every_zone(out: Path) -> None:
    capture(out, CaptureOptions(groups=("page",), duration_s=1.2, snapshot_every_s=0.3, page_map=False))
    trace = Trace.open(out)
    times = snapshot_times(trace)
    phases = [phase for _, phase in times]
    assert phases == ["start", *["tick"] * (len(times) - 2), "end"]
    # At the opening of the gate, every 0.3 s, and before it closes.
    assert len(times) - 2 >= 4
    managed = [sum(zone.managed for zone in zones(trace, ts_ns=ts)) for ts, _ in times]
    assert min(managed) > 0
    assert all(
        set(zone.pcp_count) == set(zone.pcp_batch) != set() for ts, _ in times for zone in zones(trace, ts_ns=ts)
    )
    readings = vmstat_readings(trace)
    assert [ts for ts, *_ in readings] == sorted(ts for ts, *_ in readings if ts is not None)
    grown = [c["pgalloc_normal"] for _, _, c in readings]
    assert grown == sorted(grown)
    assert trace.rows("page_map") == 0
    assert validate_trace(trace).ok


@pytest.fixture
def held_frames() -> Iterator[npt.NDArray[np.uint64]]:
    """Frames of anonymous pages that this process holds meanwhile."""
    pages = 3000
    area = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    view = np.frombuffer(area, np.uint8)
    view.reshape(pages, -1)[:, 0] = 1
    address = view.ctypes.data
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        file.seek(address // mmap.PAGESIZE * 8)
        entries = np.array(struct.unpack(f"={pages}Q", file.read(pages * 8)), np.uint64)
    assert (entries >> np.uint64(63)).all()  # present
    yield entries & np.uint64((1 << 55) - 1)
    del view
    area.close()


def test_the_page_map_knows_the_frames_that_a_process_holds(out: Path, held_frames: npt.NDArray[np.uint64]) -> None:
    capture(out, CaptureOptions(groups=("page",), duration_s=0.3))
    trace = Trace.open(out)
    runs = trace.page_map.with_columns(pl.col("kind").cast(pl.String)).collect()
    starts, lengths = runs["pfn"].to_numpy(), runs["pages"].to_numpy()
    ends = starts + lengths
    assert (starts[1:] >= ends[:-1]).all()
    at = np.searchsorted(starts, held_frames, "right") - 1
    assert (held_frames < ends[at]).all()
    kinds = runs["kind"].to_numpy()[at]
    # A page may be migrated between the look at pagemap and the capture's own.
    assert (kinds == "anon").mean() > 0.98
    assert runs["ts_ns"].is_sorted()
    memory = zones(trace)
    by_kind = pages_by_kind(trace)
    managed = sum(zone.managed for zone in memory)
    assert sum(by_kind.values()) >= managed
    # Free blocks of the snapshot, and frames marked as such; other tasks go on in between.
    free = sum(zone.free or 0 for zone in memory)
    assert abs(by_kind["buddy"] - free) < 0.1 * managed
    assert validate_trace(trace).ok
