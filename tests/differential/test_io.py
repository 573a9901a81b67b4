"""I/Os by layer: the compiled pass against the slow one, on made-up and on recorded events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.io_samples import DISK, DM, Stack, write_bios
from tests.reference.slow_io import slow_io
from tracereplay import Trace
from tracereplay.analysis.io import COLUMNS, IO, Devices, IoCounts, io_table
from tracereplay.cli.app import app

TRACES = Path(__file__).parents[2] / "traces"
PART = DISK + 1
NOT_TOLD = {"flags", "cpu", "c_cpu", "stack_id", "q2d_ns", "d2c_ns", "q2c_ns"}


def found_in(trace: Trace, counts: IoCounts | None = None, **how: int) -> list[dict[str, Any]]:
    table = pa.Table.from_batches(io_table(trace, counts, **how), schema=IO)
    rows = [{k: v for k, v in r.items() if k not in NOT_TOLD} for r in table.to_pylist()]
    return sorted(rows, key=lambda r: r["id"])


def disks(trace: Trace) -> dict[int, int]:
    devices = Devices.of(trace)
    return dict(zip(devices.numbers.tolist(), devices.numbers[devices.disk].tolist(), strict=True))


KINDS = ["queue"] * 5 + ["remap"] * 2 + ["issue", "complete"] * 4 + ["split", "insert", "requeue", "bio_complete"]


@st.composite
def soup(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events that need not make sense, on few sectors of few devices."""
    left_out = draw(st.sets(st.sampled_from(["queue", "issue", "remap", "complete"]), max_size=1))
    made = []
    for number in range(draw(st.integers(1, 50))):
        kind = draw(st.sampled_from([k for k in [*KINDS, "error", "backmerge"] if k not in left_out]))
        row: dict[str, Any] = {"ts_ns": number // 2, "cpu": 0, "kind": kind, "pid": draw(st.integers(1, 3))}
        row["dev"] = draw(st.sampled_from([DISK, DISK, DM, PART] if kind in ("queue", "remap") else [DISK, DISK, DM]))
        row["sector"] = draw(st.sampled_from([0, 8, 8, 16, 24, 1 << 40, 2**63, 2**64 - 1]))
        row["nr_sectors"] = draw(st.sampled_from([8, 8, 16, 24, 3, 0, 2**32 - 1]))
        row["op"] = draw(st.sampled_from(["W", "W", "W", "R", "F", "ZA"]))
        if kind == "remap":
            row |= {"old_dev": draw(st.sampled_from([DM, DM, PART])), "old_sector": draw(st.sampled_from([0, 8, 16]))}
        if kind == "split":
            row |= {"new_sector": draw(st.sampled_from([4, 8, 12, 16, 20])), "nr_sectors": None}
        if kind in ("complete", "error", "bio_complete"):
            row["error"] = draw(st.sampled_from([0, 0, -5]))
        if kind == "issue":
            row["nr_bytes"] = min(row["nr_sectors"] * 512, 2**32 - 1) or draw(st.sampled_from([0, 4096]))
        made.append(row)
    return made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=soup(), loss=st.lists(st.integers(0, 25), max_size=2))
def test_soup(rows: list[dict[str, Any]], loss: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    trace = write_bios(tmp_path_factory.mktemp("t") / "trace", rows, [(t, t) for t in loss])
    counts = IoCounts()
    fast = found_in(trace, counts, most_open=512)
    assert fast == slow_io(rows, disks(trace), loss)
    # a queue event is one row, and one row's
    queued = [r["ts_ns"] for r in rows if r["kind"] == "queue"]
    told = [r["q_ns"] for r in fast if r["q_ns"] is not None]
    assert len(told) >= len(queued)
    assert sum(counts.account[c] for c in ("complete", "broken")) <= len(fast)
    for r in fast:
        times = [t for t in (r["q_ns"], r["d_ns"], r["c_ns"]) if t is not None]
        assert times == sorted(times)
    assert [r["id"] for r in fast] == list(range(len(fast)))


@pytest.mark.parametrize("seed", range(12))
def test_a_stack_that_knows(seed: int, tmp_path: Path) -> None:
    stack = Stack(seed)
    trace = write_bios(tmp_path / "t", stack.events)
    rows = found_in(trace)
    assert rows == slow_io(stack.events)
    assert len(rows) == len(stack.truth)
    assert {r["class"] for r in rows} == {"complete"}
    for row, truth in zip(rows, stack.truth, strict=True):
        assert {k: row[k] for k in truth if k != "merged"} == {k: v for k, v in truth.items() if k != "merged"}
        assert (row["merged_into"] is not None) == truth["merged"]
        assert row["layer"] == (0 if row["dev"] == DM else 1)
    upper = {r["id"]: r["bytes"] for r in rows if r["dev"] == DM}
    for r in rows:  # bytes are conserved on the way down
        if r["parent_id"] is not None:
            upper[r["parent_id"]] -= r["bytes"]
    assert set(upper.values()) == {0}
    assert sum(r["merges"] for r in rows) == sum(t["merged"] for t in stack.truth)


@pytest.mark.parametrize("kinds", [{"queue"}, {"issue", "insert", "requeue"}, {"remap"}, {"split"}])
def test_a_stack_of_which_less_was_recorded(kinds: set[str], tmp_path: Path) -> None:
    stack = Stack(5)
    events = [e for e in stack.events if e["kind"] not in kinds]
    rows = found_in(write_bios(tmp_path / "t", events))
    assert rows == slow_io(events)
    data = [r for r in rows if r["dev"] == DISK]
    if kinds == {"queue"}:  # requests are what there is, and are whole
        assert {r["class"] for r in data} == {"complete"}
        assert all(r["q_ns"] is None for r in data)
    else:
        truth = [t for t in stack.truth if t["dev"] == DISK]
        assert [(r["q_ns"], r["c_ns"]) for r in data] == [(t["q_ns"], t["c_ns"]) for t in truth]
    if kinds == {"remap"}:
        assert {r["layer"] for r in rows} == {0}


@pytest.mark.parametrize("name", ["dmcrypt-6.12-bulk", "dmcrypt-6.12-frag3", "mixed-6.1", "pages-6.18"])
def test_recorded(name: str) -> None:
    trace = Trace.open(TRACES / name)
    events = trace.bio_events.select(COLUMNS).with_columns(pl.col("kind", "op").cast(pl.String)).collect().to_dicts()
    rows = found_in(trace)
    assert rows == slow_io(events, disks(trace))
    assert sum(r["q_ns"] is not None for r in rows) == sum(e["kind"] == "queue" for e in events)


def test_the_middle_of_a_trace() -> None:
    """A recording that begins while I/Os are under way: what was queued before is told as such."""
    trace = Trace.open(TRACES / "dmcrypt-6.12-bulk")
    events = trace.bio_events.select(COLUMNS).with_columns(pl.col("kind", "op").cast(pl.String)).collect().to_dicts()
    rows = slow_io(events[60:])
    classes = {c: sum(r["class"] == c for r in rows) for c in ("complete", "left_censored")}
    assert classes["left_censored"] > 0
    assert classes["complete"] > 40


def test_what_never_ends_is_given_up(tmp_path: Path) -> None:
    bio = {"cpu": 0, "dev": DISK, "nr_sectors": 8, "op": "R", "pid": 7}
    events = [{**bio, "ts_ns": n, "kind": "queue", "sector": 8 * n} for n in range(100)]
    events += [{**bio, "ts_ns": 200 + n, "kind": "queue", "sector": 8} for n in range(100)]
    counts = IoCounts()
    rows = found_in(write_bios(tmp_path / "t", events), counts, most_open=50)
    assert counts.account["evicted"] > 0
    assert len(rows) == 200
    assert [r["class"] for r in rows].count("right_censored") <= 51
    assert counts.account["broken"] + counts.account["right_censored"] == 200


def test_lost_events(tmp_path: Path) -> None:
    """The completion of the first I/O was lost: the second at its sector is not taken for it."""
    bio = {"cpu": 0, "dev": DISK, "sector": 8, "nr_sectors": 8, "op": "R", "pid": 7}
    kinds = [(1, "queue"), (2, "issue"), (20, "queue"), (21, "issue"), (30, "complete")]
    events = [{**bio, "ts_ns": t, "kind": kind} for t, kind in kinds]
    rows = found_in(write_bios(tmp_path / "t", events, [(3, 10)]))
    assert [(r["q_ns"], r["d_ns"], r["c_ns"], r["class"]) for r in rows] == [
        (1, 2, None, "broken"),
        (20, 21, 30, "complete"),
    ]


def test_the_same_bio_goes_on_below(tmp_path: Path) -> None:
    """md remaps a bio without queueing it again, in parts on two disks: it is complete when both are."""
    md, other = 9 << 20, DISK + 16
    bio = {"cpu": 0, "op": "R", "pid": 7}
    halves = [(DISK, 0, 100), (other, 8, 200)]
    events = [{**bio, "kind": "queue", "dev": md, "sector": 0, "nr_sectors": 16}]
    events += [{**bio, "kind": "split", "dev": md, "sector": 0, "new_sector": 8}]
    for kind in ("remap", "issue", "complete"):
        for dev, upper, at in halves:
            old = {"old_dev": md, "old_sector": upper} if kind == "remap" else {}
            events.append({**bio, "kind": kind, "dev": dev, "sector": at, "nr_sectors": 8, **old})
    events = [{**e, "ts_ns": n} for n, e in enumerate(events)]
    rows = found_in(write_bios(tmp_path / "t", events))
    assert rows == slow_io(events)
    assert [(r["dev"], r["layer"], r["q_ns"], r["d_ns"], r["c_ns"], r["below_c_ns"]) for r in rows] == [
        (md, 0, 0, 2, 7, 7),
        (DISK, 1, 2, 4, 6, None),
        (other, 1, 3, 5, 7, None),
    ]


def test_a_flush_before_data(tmp_path: Path) -> None:
    """dm sends the flush of a bio with data below by itself, at the bio's sector and without sectors (kernel 6.12)."""
    dm, disk = {"cpu": 0, "dev": DM, "op": "W", "pid": 7}, {"cpu": 0, "dev": DISK, "op": "W", "pid": 8}
    here = {"sector": 120, "nr_sectors": 8}
    down = {**disk, "kind": "remap", "old_dev": DM, "old_sector": 120}
    events = [
        {**dm, **here, "kind": "queue"},
        {**down, "sector": 120, "nr_sectors": 0},
        {**disk, "kind": "queue", "sector": 0, "nr_sectors": 0},
        {**disk, "kind": "issue", "sector": 0, "nr_sectors": 0, "op": "F", "nr_bytes": 0},
        {**disk, "kind": "complete", "sector": 2**64 - 1, "nr_sectors": 0, "op": "F"},
        {**disk, "kind": "complete", "sector": 120, "nr_sectors": 0},
        {**down, **here},
        {**disk, **here, "kind": "queue"},
        {**disk, **here, "kind": "issue"},
        {**disk, **here, "kind": "complete"},
        {**dm, **here, "kind": "bio_complete"},
    ]
    events = [{**e, "ts_ns": n} for n, e in enumerate(events)]
    rows = found_in(write_bios(tmp_path / "t", events))
    assert rows == slow_io(events)
    assert [(r["op"], r["nr_sectors"], r["parent_id"], r["q_ns"], r["d_ns"], r["c_ns"]) for r in rows] == [
        ("W", 8, None, 0, 6, 10),
        ("W", 0, 0, 2, None, 5),
        ("F", 0, None, None, 3, 4),
        ("W", 8, 0, 7, 8, 9),
    ]


def test_a_partition_below_dm_crypt(tmp_path: Path) -> None:
    """A recording of blkparse: ext4 on dm-crypt over a partition, of which no I/O is left open or untold."""
    recorded = TRACES.parent / "tests" / "data" / "blktrace" / "6.12.blkparse.txt.zst"
    done = CliRunner().invoke(app, ["import", str(recorded), str(tmp_path / "t")])
    assert done.exit_code == 0, done.stderr
    trace = Trace.open(tmp_path / "t")
    rows = found_in(trace)
    assert {r["class"] for r in rows} == {"complete"}
    upper = {r["id"]: r["bytes"] for r in rows if r["layer"] == 0 and r["q_ns"] is not None}
    for r in rows:
        if r["parent_id"] is not None:
            upper[r["parent_id"]] -= r["bytes"]
    assert set(upper.values()) == {0}
    assert {(r["layer"], r["disk"] >> 20) for r in rows if r["q_ns"] is not None} == {(0, 253), (1, 8)}


def test_no_bio_events(tmp_path: Path) -> None:
    assert found_in(write_bios(tmp_path / "t", [])) == []
