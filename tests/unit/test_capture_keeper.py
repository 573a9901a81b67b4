"""What ends a capture by itself: triggers, the size of the bundle, the free space of the disk; and files on time."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.trace_samples import metadata, page_batch, rows_batch
from tracereplay import Trace, TraceWriter
from tracereplay.errors import ProbeUnavailableError, StorageError, UsageError
from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.keeper import Bounds, Keeper, check_space
from tracereplay.trace.schema import PAGE_KINDS
from tracereplay.trace.triggers import Fired, Trigger, Triggers, parse_triggers
from tracereplay.trace.validate import validate_trace

SECOND = 1_000_000_000


def events(kind: str, times: list[int]) -> pa.RecordBatch:
    codes = pa.array([PAGE_KINDS.index(kind)] * len(times), pa.int8())
    return pa.RecordBatch.from_pydict(
        {
            "ts_ns": pa.array(times, pa.int64()),
            "cpu": pa.array([0] * len(times), pa.uint16()),
            "kind": pa.DictionaryArray.from_arrays(codes, kind_dictionary("page_events")),
            "order": pa.array([0] * len(times), pa.uint8()),
        }
    )


def columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """As the writer hands them on."""
    return dict(zip(batch.schema.names, batch.columns, strict=True))


# ---------------------------------------------------------------- triggers
def test_triggers_are_read() -> None:
    found = parse_triggers(["alloc_failed", " extfrag=100 "], ["page", "buddy"])
    assert found == (Trigger("alloc_failed"), Trigger("extfrag", 100))
    assert [str(t) for t in found] == ["alloc_failed", "extfrag=100"]


@pytest.mark.parametrize(
    ("text", "groups", "message", "hint"),
    [
        ("alloc_faild", ("page",), "no trigger 'alloc_faild'", "did you mean 'alloc_failed'"),
        ("extfrag", ("page", "buddy"), "needs a rate", "extfrag=100"),
        ("extfrag=0", ("page", "buddy"), "needs a rate", "extfrag=100"),
        ("extfrag=fast", ("page", "buddy"), "needs a rate", "extfrag=100"),
        ("alloc_failed=3", ("page",), "takes no value", "--freeze-on alloc_failed"),
        ("alloc_failed", ("bio",), "group 'page', which is not recorded", "--events bio,page"),
        ("extfrag=5", ("page", "bio"), "group 'buddy', which is not recorded", "--events page,bio,buddy"),
    ],
)
def test_triggers_that_make_no_sense(text: str, groups: tuple[str, ...], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_triggers([text], groups)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_trigger_whose_tracepoint_the_host_lacks() -> None:
    triggers = Triggers([Trigger("extfrag", 5)])
    triggers.check_events(["kmem:mm_page_alloc", "kmem:mm_page_alloc_extfrag"])
    with pytest.raises(ProbeUnavailableError, match="mm_page_alloc_extfrag"):
        triggers.check_events(["kmem:mm_page_alloc"])


def test_the_first_failed_allocation_fires() -> None:
    triggers = Triggers([Trigger("alloc_failed")])
    assert triggers.look("page_events", columns(events("alloc", [1, 2]))) is None
    assert triggers.look("bio_events", columns(events("alloc_failed", [3]))) is None
    assert triggers.look("page_events", columns(events("alloc_failed", [5, 9]))) == Fired(Trigger("alloc_failed"), 5)


def first_dense(times: list[int], rate: int) -> int | None:
    """The obvious way: at each event, count those of the last second."""
    for index, ts in enumerate(times):
        if sum(ts - t < SECOND for t in times[: index + 1]) >= rate:
            return ts
    return None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rate", [1, 2, 7, 30])
def test_a_rate_is_met_over_any_second_whatever_the_batches(seed: int, rate: int) -> None:
    rng = np.random.default_rng([seed, rate])
    gaps = rng.exponential(SECOND / rate * rng.choice([0.3, 0.9, 1.5, 4.0]), 200)
    times = np.cumsum(gaps.astype(np.int64)).tolist()
    triggers = Triggers([Trigger("extfrag", rate)])
    found = None
    at = 0
    while at < len(times) and found is None:
        size = int(rng.integers(1, 40))
        found = triggers.look("page_events", columns(events("extfrag", times[at : at + size])))
        at += size
        assert len(triggers._recent) < rate
    expected = first_dense(times, rate)
    assert (found.ts_ns if found else None) == expected


def test_of_two_triggers_in_a_batch_the_earlier_counts() -> None:
    triggers = Triggers([Trigger("alloc_failed"), Trigger("extfrag", 2)])
    codes = pa.array([PAGE_KINDS.index(k) for k in ("extfrag", "extfrag", "alloc_failed")], pa.int8())
    batch = events("alloc", [1, 2, 3]).set_column(
        2, "kind", pa.DictionaryArray.from_arrays(codes, kind_dictionary("page_events"))
    )
    assert triggers.look("page_events", columns(batch)) == Fired(Trigger("extfrag", 2), 2)


# ---------------------------------------------------------------- the keeper
class Watched:
    """A keeper over a writer; remembers how often the end was asked for."""

    def __init__(self, path: Path, bounds: Bounds, **options: Any) -> None:
        self.asked = 0
        clock = {"name": "monotonic", "resolution_ns": 1, "triples": [[0, 0, 1_700_000_000 * SECOND]]}
        self.writer = TraceWriter(path, metadata(clock=clock), min_free_bytes=0, **options)
        self.keeper = Keeper(self.writer, bounds, self.stop)
        self.writer.metadata.source["via"] = "another clock"
        self.keeper.on_started(2 * SECOND)

    def stop(self) -> None:
        self.asked += 1

    def write(self, batch: pa.RecordBatch) -> int:
        self.writer.write("page_events", batch)
        last: int = batch.column("ts_ns")[-1].as_py()
        self.keeper.on_time(last + 1)
        return last


def test_the_end_is_asked_for_a_while_after_the_trigger(tmp_path: Path) -> None:
    bounds = Bounds(triggers=(Trigger("alloc_failed"),), freeze_after_ns=2 * SECOND)
    watched = Watched(tmp_path / "t", bounds)
    watched.write(events("alloc_failed", [5 * SECOND]))
    watched.write(events("alloc_failed", [6 * SECOND]))
    watched.keeper.on_time(7 * SECOND - 1)
    assert watched.asked == 0
    watched.keeper.on_time(7 * SECOND)
    assert watched.asked == 1
    watched.keeper.on_time(8 * SECOND)
    assert watched.asked == 1
    assert watched.keeper.close("asked") == "alloc_failed at 2023-11-14T22:13:25.000Z, 3.000 s after the start"


def test_a_flight_recorder_names_its_trigger(tmp_path: Path) -> None:
    bounds = Bounds(window_ns=4 * SECOND, triggers=(Trigger("alloc_failed"),))
    assert bounds.aftermath_ns == 2 * SECOND
    watched = Watched(tmp_path / "t", bounds)
    for second in range(3, 20):
        watched.write(events("alloc_failed" if second >= 17 else "free", [second * SECOND]))
        if watched.asked:
            break
    assert second == 19
    reason = watched.keeper.close("asked")
    trace = Trace.open(watched.writer.finish())
    flight = trace.metadata.source["flight"]
    assert flight["frozen_by"] == reason
    assert flight["trigger"] == {"trigger": "alloc_failed", "ts_ns": 17 * SECOND, "utc": "2023-11-14T22:13:37.000Z"}
    assert flight["from_ns"] < 17 * SECOND


def test_what_ended_it_is_told_once(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "t", Bounds())
    watched.keeper.ask("SIGUSR1")
    watched.keeper.ask("max-size")
    assert watched.keeper.close("asked") == "SIGUSR1"
    assert watched.asked == 2  # a second request does no harm, and hurries
    assert Watched(tmp_path / "u", Bounds()).keeper.close("duration") == "duration"


@pytest.mark.parametrize("limit", [1_000_000, 2_000_000, 5_000_000])
def test_a_bundle_ends_below_its_largest_size(tmp_path: Path, limit: int) -> None:
    watched = Watched(tmp_path / "t", Bounds(max_bytes=limit), row_group_rows=5000)
    last, seed = 0, 0
    while not watched.asked:
        last = watched.write(page_batch(2000, seed=seed, start_ns=last))
        seed += 1
    watched.write(page_batch(500, seed=seed, start_ns=last))  # what was in the rings
    assert watched.keeper.close("asked") == "max-size"
    path = watched.writer.finish()
    size = sum(f.stat().st_size for f in path.rglob("*"))
    assert 0.45 * limit < size <= limit
    assert validate_trace(Trace.open(path)).ok


def test_rows_in_memory_are_weighed_before_they_count(tmp_path: Path) -> None:
    """A guess of what gathers is no reason to end: it is written, and its size is known."""
    watched = Watched(tmp_path / "t", Bounds(max_bytes=8_000_000))
    batch = page_batch(1_000_000, seed=1)
    quiet = batch.set_column(3, "pfn", pa.array(np.zeros(len(batch), np.uint64)))  # packs well
    last = watched.write(quiet)
    watched.write(quiet.slice(0, 900_000).set_column(0, "ts_ns", pa.array(np.arange(900_000) + last)))
    assert watched.asked == 0
    assert watched.writer.gathering_bytes < 4_000_000


DiskFree = namedtuple("DiskFree", "f_bavail f_frsize")


def test_the_end_is_asked_for_before_the_disk_falls_below_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = 10 << 20
    watched = Watched(tmp_path / "t", Bounds(min_free_bytes=floor))
    last = watched.write(page_batch(1000))
    assert watched.asked == 0
    waits = watched.writer.gathering_bytes
    assert waits > 0
    enough = floor + watched.keeper._tail() + waits
    for free, asked in ((enough + 1, 0), (enough - 1, 1)):
        # Too little gathers in memory for a closer look.
        monkeypatch.setattr("tracereplay.trace.keeper.os.statvfs", lambda _path, free=free: DiskFree(free, 1))
        watched.keeper.on_time(last + 10)
        assert watched.asked == asked
    assert watched.keeper.close("asked") == "min-free-disk"


def test_a_capture_that_its_floor_would_end_at_once_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the capture would end at"):
        check_space(tmp_path / "not" / "yet", Bounds(min_free_bytes=1 << 60))
    check_space(tmp_path / "not" / "yet", Bounds(min_free_bytes=0))
    assert list(tmp_path.iterdir()) == []


def test_files_are_closed_on_time_in_silence_too(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "t", Bounds(rotate_ns=10 * SECOND))
    watched.write(events("free", [SECOND]))
    for second in range(2, 13):
        watched.keeper.on_time(second * SECOND)
    trace = Trace.open(tmp_path / "t")
    assert not trace.complete
    assert trace.rows("page_events") == 1


def test_rotation_by_size_makes_small_files(tmp_path: Path) -> None:
    rows = [{"ts_ns": 1, "cpu": 0, "dev": 1, "sector": 1, "kind": "queue"}]
    watched = Watched(tmp_path / "t", Bounds(), rotate_bytes=50_000, row_group_rows=2000)
    watched.writer.write("bio_events", rows_batch("bio_events", rows))
    last = 0
    for seed in range(20):
        last = watched.write(page_batch(2000, seed=seed, start_ns=last))
    files = watched.writer.files("page_events")
    assert len(files) == 5
    assert all(50_000 <= e.bytes < 100_000 for e in files)
    assert watched.writer.finished_bytes == sum(e.bytes for e in files)
