"""The writer: rotation, order, types, and what stays on disk when something goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trace_samples import metadata, page_batch, rows_batch, write_sample
from tracereplay import Trace, TraceWriter
from tracereplay.errors import InvariantError, OutputExistsError, StorageError, TraceError, UsageError
from tracereplay.trace.schema import PAGE_KINDS, TABLES


def test_nothing_on_disk_before_the_first_write(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t", metadata())
    assert list(tmp_path.iterdir()) == []
    writer.write("page_events", page_batch(1))
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    # The open file is invisible to readers, the bundle already opens.
    assert Trace.open(tmp_path / "t").rows("page_events") == 0
    writer.finish()
    assert Trace.open(tmp_path / "t").rows("page_events") == 1


def test_missing_columns_become_null_and_kind_keeps_its_codes(tmp_path: Path) -> None:
    rows = [
        {"ts_ns": 1, "cpu": 0, "kind": "free", "pfn": 5, "order": 0},
        {"ts_ns": 1, "cpu": 1, "kind": "alloc", "pfn": 6, "order": 3, "gfp": 0xCC0},
    ]
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("page_events", rows_batch("page_events", rows))
    (batch,) = Trace.open(tmp_path / "t").batches("page_events")
    assert batch.schema.equals(TABLES["page_events"].schema)
    assert batch.column("kind").indices.to_pylist() == [PAGE_KINDS.index("free"), PAGE_KINDS.index("alloc")]
    assert batch.column("kind").dictionary.to_pylist() == list(PAGE_KINDS)
    assert batch.column("gfp").to_pylist() == [None, 0xCC0]
    assert batch.column("stack_id").null_count == 2


@pytest.mark.parametrize(
    "kinds",
    [
        pa.array(["free", "alloc"]),
        pa.array(["free", "alloc"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([1, 2], pa.int32()), pa.array(["bulk", "free", "alloc"])),
        pa.array([2, 0], pa.int8()),
        pa.array([2, 0], pa.uint16()),
    ],
    ids=["strings", "own-dictionary", "int32-codes", "codes", "uint16-codes"],
)
def test_kind_is_accepted_in_every_form(tmp_path: Path, kinds: pa.Array) -> None:
    batch = pa.RecordBatch.from_pydict({"ts_ns": [1, 2], "cpu": [0, 0], "kind": kinds, "pfn": [1, 1]})
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("page_events", batch)
    (read,) = Trace.open(tmp_path / "t").batches("page_events", ["kind"])
    assert read.column("kind").indices.to_pylist() == [2, 0]


def test_dictionaries_that_differ_between_batches(tmp_path: Path) -> None:
    row = {"ts_ns": 1, "cpu": 0, "kind": "queue", "dev": 1, "sector": 0}
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        for flags in (["W", "WS"], ["R"], ["WS", "FF"]):
            writer.write("bio_events", rows_batch("bio_events", [{**row, "flags": f} for f in flags]))
    frame = Trace.open(tmp_path / "t").bio_events.collect()
    assert frame["flags"].to_list() == ["W", "WS", "R", "WS", "FF"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"cpu": [0], "kind": ["alloc"]}, "page_events.ts_ns must have a value"),
        ({"ts_ns": [1], "cpu": [None], "kind": ["alloc"]}, "page_events.cpu must have a value"),
        ({"ts_ns": [1], "cpu": [0], "kind": ["allocate"]}, "no kind 'allocate'"),
        ({"ts_ns": [1], "cpu": [0], "kind": pa.array([8], pa.int8())}, "codes outside 0..7"),
        ({"ts_ns": [1], "cpu": [0], "kind": ["alloc"], "frame": [1]}, "no column 'frame'"),
        ({"ts_ns": [1], "cpu": [70000], "kind": ["alloc"]}, "page_events.cpu is uint16"),
        ({"ts_ns": [1], "cpu": [0], "kind": ["alloc"], "pfn": [-1]}, "page_events.pfn is uint64"),
        ({"ts_ns": [2, 1], "cpu": [0, 0], "kind": ["alloc", "alloc"]}, "2 is followed by 1"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    writer = TraceWriter(tmp_path / "t", metadata())
    with pytest.raises(TraceError, match=message):
        writer.write("page_events", pa.RecordBatch.from_pydict(columns))
    assert list(tmp_path.iterdir()) == []


def test_unknown_table_names_the_nearest(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t", metadata())
    with pytest.raises(TraceError) as caught:
        writer.write("page_event", page_batch(1))
    assert caught.value.hint == "did you mean 'page_events'?"


def test_a_batch_before_the_last_row_is_refused_even_after_rotation(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("page_events", page_batch(10, start_ns=1000))
        writer.rotate()
        with pytest.raises(TraceError, match="before the last row written"):
            writer.write("page_events", page_batch(10, start_ns=0))
    assert Trace.open(tmp_path / "t").rows("page_events") == 10


def test_rotation_by_rows_splits_batches(tmp_path: Path) -> None:
    batch = page_batch(25)
    with TraceWriter(tmp_path / "t", metadata(), rotate_rows=10, row_group_rows=4) as writer:
        writer.write("page_events", batch.slice(0, 3))
        writer.write("page_events", batch.slice(3))
    trace = Trace.open(tmp_path / "t")
    entries = trace.manifest.tables["page_events"]
    assert [e.rows for e in entries] == [10, 10, 5]
    assert [e.file for e in entries] == [f"page_events/part-{n:06d}.parquet" for n in range(3)]
    times = batch.column("ts_ns").to_pylist()
    assert [(e.min, e.max) for e in entries] == [
        (times[0], times[9]),
        (times[10], times[19]),
        (times[20], times[24]),
    ]
    assert all(e.bytes == (trace.path / e.file).stat().st_size for e in entries)
    footer = pq.read_metadata(trace.path / entries[0].file)
    assert [footer.row_group(g).num_rows for g in range(footer.num_row_groups)] == [4, 4, 2]
    assert pa.Table.from_batches(trace.batches("page_events", ["ts_ns"]))["ts_ns"].to_pylist() == times


def test_rotation_by_bytes(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t", metadata(), rotate_bytes=20_000, row_group_rows=1000) as writer:
        writer.write("page_events", page_batch(20_000))
    trace = Trace.open(tmp_path / "t")
    entries = trace.manifest.tables["page_events"]
    assert len(entries) > 2
    assert all(20_000 <= e.bytes < 60_000 for e in entries[:-1])
    assert trace.rows("page_events") == 20_000


def test_rotation_by_time_closes_every_open_file(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t", metadata(), rotate_ns=1000) as writer:
        writer.write("tasks", rows_batch("tasks", [{"pid": 1}]))
        for start in (0, 600, 1200):
            row = {"ts_ns": start, "cpu": 0, "kind": "alloc", "pfn": 1}
            writer.write("page_events", rows_batch("page_events", [row]))
        assert {t: [e.rows for e in es] for t, es in Trace.open(tmp_path / "t").manifest.tables.items()} == {
            "tasks": [1],
            "page_events": [3],
        }


def test_encodings_and_statistics(tmp_path: Path) -> None:
    trace = Trace.open(write_sample(tmp_path / "t"))
    group = pq.read_metadata(trace.files["page_events"][0].path).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {c.compression for c in columns.values()} == {"ZSTD"}
    assert "DELTA_BINARY_PACKED" in columns["ts_ns"].encodings
    assert not columns["ts_ns"].has_dictionary_page
    assert "PLAIN" in columns["pfn"].encodings
    assert not columns["pfn"].has_dictionary_page
    assert "RLE_DICTIONARY" in columns["gfp"].encodings
    assert columns["ts_ns"].statistics.has_min_max
    assert columns["pfn"].statistics.has_min_max


def test_existing_output_is_left_alone(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(OutputExistsError):
        TraceWriter(path, metadata())
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputExistsError):
        TraceWriter(tmp_path / "empty", metadata())
    assert (path / "manifest.json").read_bytes() == before


def test_force_replaces_a_trace_and_discard_brings_it_back(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t", rows=100)
    writer = TraceWriter(path, metadata(), force=True)
    assert Trace.open(path).rows("page_events") == 100
    writer.write("page_events", page_batch(7))
    writer.discard()
    assert Trace.open(path).rows("page_events") == 100
    with TraceWriter(path, metadata(), force=True) as writer:
        writer.write("page_events", page_batch(7))
    assert Trace.open(path).rows("page_events") == 7
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_force_never_replaces_what_is_no_trace(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    file = tmp_path / "notes"
    file.write_text("more work")
    for path in (home, file):
        with pytest.raises(UsageError, match="not a trace"):
            TraceWriter(path, metadata(), force=True)
    assert (home / "thesis.txt").read_text() == "years of work"
    assert file.read_text() == "more work"


def test_exception_before_a_file_is_finished_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with TraceWriter(tmp_path / "t", metadata()) as writer:
            writer.write("page_events", page_batch(10))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_exception_after_a_file_is_finished_keeps_it(tmp_path: Path) -> None:
    def interrupted() -> None:
        with TraceWriter(tmp_path / "t", metadata()) as writer:
            writer.write("page_events", page_batch(10))
            writer.rotate()
            writer.write("page_events", page_batch(5, start_ns=10**9))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    trace = Trace.open(tmp_path / "t")
    assert not trace.complete
    assert trace.rows("page_events") == 15  # the disk is fine, so even the open file is closed
    assert list((tmp_path / "t").rglob("*.tmp")) == []


def test_metadata_may_change_until_finish(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t", metadata())
    writer.write("page_events", page_batch(1))
    writer.metadata.notes.append("late")
    writer.finish()
    assert Trace.open(tmp_path / "t").metadata.notes == ["late"]
    with pytest.raises(InvariantError):
        writer.write("page_events", page_batch(1))


def test_a_trace_without_rows_is_a_trace(tmp_path: Path) -> None:
    TraceWriter(tmp_path / "t", metadata()).finish()
    trace = Trace.open(tmp_path / "t")
    assert trace.complete
    assert trace.tables == []


def test_unwritable_parent_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = TraceWriter(tmp_path / "file" / "t", metadata())
    with pytest.raises(StorageError, match="cannot write"):
        writer.write("page_events", page_batch(1))


def test_low_disk_stops_and_keeps_everything(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    more_than_there_is = free.f_bavail * free.f_frsize * 2
    writer = TraceWriter(tmp_path / "t", metadata(), row_group_rows=10, min_free_bytes=more_than_there_is)
    with pytest.raises(StorageError, match="MiB free") as caught, writer:
        writer.write("page_events", page_batch(15))
    assert "kept" in str(caught.value.hint)
    trace = Trace.open(tmp_path / "t")
    assert trace.rows("page_events") == 15
    assert not trace.complete


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root")
def test_full_disk_keeps_finished_files(small_disk: Path) -> None:
    path = small_disk / "t"
    rng = np.random.default_rng(1)
    written = 0

    def fill() -> None:
        nonlocal written
        options = {"row_group_rows": 20_000, "rotate_rows": 60_000, "min_free_bytes": 0}
        with TraceWriter(path, metadata(), **options) as writer:
            for number in range(100):
                batch = page_batch(20_000, seed=number, start_ns=number * 10**9)
                noise = pa.array(rng.integers(0, 2**63, 20_000).astype(np.uint64))
                writer.write("page_events", batch.set_column(3, "pfn", noise))
                written += 20_000

    with pytest.raises(StorageError, match="No space left") as caught:
        fill()
    assert "kept" in str(caught.value.hint)
    trace = Trace.open(path)
    assert not trace.complete
    assert 60_000 <= trace.rows("page_events") <= written
    assert sum(b.num_rows for b in trace.batches("page_events")) == trace.rows("page_events")
    assert list(path.rglob("*.tmp")) == []


def test_manifest_is_plain_json(tmp_path: Path) -> None:
    value = json.loads((write_sample(tmp_path / "t") / "manifest.json").read_text())
    assert (value["format"], value["schema"], value["complete"]) == ("tracereplay-trace", 1, True)
    assert value["metadata"]["host"]["release"] == "6.12.95"
    assert value["tables"]["page_events"][0]["rows"] == 500
