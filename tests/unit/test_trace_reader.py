"""The reader: what a bundle may look like on disk, and what comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trace_samples import metadata, page_batch, rows_batch, write_sample
from tracereplay import Trace, TraceWriter
from tracereplay.errors import (
    MissingTableError,
    SchemaTooNewError,
    SchemaTooOldError,
    TraceError,
    TraceFormatError,
    TraceNotFoundError,
    TracereplayError,
    TruncatedTraceError,
)
from tracereplay.trace import reader
from tracereplay.trace.schema import PAGE_KINDS, TABLES


def edit_manifest(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    file = path / "manifest.json"
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def test_a_sample_comes_back(tmp_path: Path) -> None:
    trace = Trace.open(str(write_sample(tmp_path / "t")))
    assert trace.complete
    assert trace.tables == ["page_events", "bio_events", "loss", "tasks", "snapshots"]
    assert trace.rows("page_events") == 1000
    assert trace.rows("stacks") == 0
    assert trace.page_events.collect().height == 1000
    assert trace.page_events.filter(pl.col("kind") == "alloc").collect().height > 0
    assert trace.bio_events.collect()["kind"].to_list() == ["queue", "bio_complete"]
    assert trace.tasks.collect()["comm"].to_list() == ["fio"]
    for name in TABLES:
        frame = getattr(trace, name)
        assert frame.collect_schema().names() == TABLES[name].schema.names
    assert trace.derived == tmp_path / "t" / "derived"
    assert not trace.derived.exists()


def test_absent_tables_are_empty_frames(tmp_path: Path) -> None:
    trace = Trace.open(write_sample(tmp_path / "t"))
    assert trace.mm_events.collect().shape == (0, len(TABLES["mm_events"].schema))
    assert list(trace.batches("mm_events")) == []
    assert trace.bounds("mm_events", "ts_ns") is None


def test_batches_in_order_and_cut(tmp_path: Path) -> None:
    trace = Trace.open(write_sample(tmp_path / "t", rows=1000, files=4))
    batches = list(trace.batches("page_events", ["pid", "ts_ns"], rows=60))
    assert all(b.schema.names == ["pid", "ts_ns"] for b in batches)
    assert max(b.num_rows for b in batches) == 60
    frame = trace.page_events.collect()
    assert pa.Table.from_batches(batches)["ts_ns"].to_pylist() == frame["ts_ns"].to_list()
    assert pa.Table.from_batches(batches)["pid"].to_pylist() == frame["pid"].to_list()
    assert frame["ts_ns"].is_sorted()


def test_an_abandoned_iterator_ends_its_thread(tmp_path: Path) -> None:
    trace = Trace.open(write_sample(tmp_path / "t", rows=1000, files=10))
    iterator = trace.batches("page_events", rows=10)
    next(iterator)
    assert any(t.name == "trace-reader" for t in threading.enumerate())
    iterator.close()  # type: ignore[attr-defined]
    assert not any(t.name == "trace-reader" for t in threading.enumerate())


def test_bounds_come_from_statistics_and_else_from_the_column(tmp_path: Path) -> None:
    trace = Trace.open(write_sample(tmp_path / "t"))
    frame = trace.page_events.collect()
    for column in ("ts_ns", "pfn", "cpu", "pid", "gfp"):  # the last two have no statistics
        assert trace.bounds("page_events", column) == (frame[column].min(), frame[column].max())
    assert trace.bounds("page_events", "stack_id") is None
    with pytest.raises(TraceError) as caught:
        trace.bounds("page_events", "ts")
    assert caught.value.hint == "did you mean 'ts_ns'?"


def test_unknown_names(tmp_path: Path) -> None:
    trace = Trace.open(write_sample(tmp_path / "t"))
    with pytest.raises(MissingTableError, match="no table 'page_evnts'") as caught:
        trace.table("page_evnts")
    assert "'page_events'" in str(caught.value.hint)
    with pytest.raises(TraceError, match="no column 'pfm'"):
        trace.batches("page_events", ["pfm"])


def test_a_foreign_writers_dictionary_is_remapped(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    part = path / "page_events" / "part-000001.parquet"
    table = pq.read_table(part)
    kinds = [str(k) for k in table["kind"].to_pylist()]
    own = pa.array(kinds).dictionary_encode()
    assert own.dictionary.to_pylist() != list(PAGE_KINDS)
    slim = table.select(["pid", "ts_ns", "pfn", "cpu"]).append_column("kind", own)
    pq.write_table(slim, part, row_group_size=100)
    edit_manifest(path, lambda m: m["tables"]["page_events"].pop())  # type: ignore[index]
    trace = Trace.open(path)
    read = pa.Table.from_batches(trace.batches("page_events"))
    assert read.schema.equals(TABLES["page_events"].schema)
    assert read["kind"].to_pylist()[500:] == kinds
    assert all(c.dictionary.to_pylist() == list(PAGE_KINDS) for c in read["kind"].chunks)
    assert read["order"].null_count == 500
    assert trace.page_events.select("order", "kind").collect()["order"].null_count() == 500


def test_a_huge_row_group_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sample(tmp_path / "t")
    expected = pa.Table.from_batches(Trace.open(path).batches("page_events"))
    monkeypatch.setattr(reader, "_MOST_ROWS_AT_ONCE", 64)
    batches = list(Trace.open(path).batches("page_events"))
    assert max(b.num_rows for b in batches) == 64
    assert pa.Table.from_batches(batches).equals(expected)


def test_identity(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    trace = Trace.open(path)
    frame = trace.page_events.collect()
    first, last = frame["ts_ns"][0], frame["ts_ns"][-1]
    assert trace.identity() == {
        "id": trace.metadata.trace_id,
        "path": str(path),
        "source": {"kind": "synthetic"},
        "kernel": "6.12.95",
        "host": "sample",
        "events": {"page_events": 1000, "bio_events": 2},
        "duration_ns": max(last, 20) - min(first, 10),
        "complete": True,
    }


def test_loss_summary_keeps_unknown_counts_apart(tmp_path: Path) -> None:
    row = {"table": "page_events", "cpu": 0, "class": "ring_full"}

    def summary(rows: list[dict[str, object]]) -> dict[str, object]:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        with TraceWriter(path, metadata()) as writer:
            writer.write("loss", rows_batch("loss", [{**row, **r} for r in rows]))
        return Trace.open(path).loss_summary()

    assert summary([{"n": 3}, {"n": 4}, {"n": 9, "class": "stack"}]) == {
        "lost": 7,
        "intervals": 3,
        "by_class": {"ring_full": 7, "stack": 9},
    }
    assert summary([{"n": 3}, {"n": None, "class": "reported"}]) == {
        "lost": None,
        "intervals": 2,
        "by_class": {"reported": None, "ring_full": 3},
    }
    assert summary([{"n": 0}]) == {"lost": 0, "intervals": 0, "by_class": {}}


# ---------------------------------------------------------------- bad input
def _nothing(path: Path) -> None:
    pass


def _empty(path: Path) -> None:
    path.mkdir()


def _text(path: Path) -> None:
    path.write_text("# tracer: nop\n")


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "a.txt").write_text("x")


def _manifest(text: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "manifest.json").write_text(text)

    return make


FORMAT = '"format": "tracereplay-trace"'


@pytest.mark.parametrize(
    ("make", "error", "message", "hint"),
    [
        (_nothing, TraceNotFoundError, "does not exist", "check the path"),
        (_empty, TraceNotFoundError, "is empty", "tracereplay capture"),
        (_text, TraceFormatError, "is a file", "tracereplay import"),
        (_directory, TraceFormatError, "no manifest.json", "directory written by"),
        (_manifest("{"), TraceFormatError, "not JSON", "copy"),
        (_manifest("[]"), TraceFormatError, "not the manifest", "directory written by"),
        (_manifest('{"format": "other"}'), TraceFormatError, "not the manifest", "directory written by"),
        (_manifest(f"{{{FORMAT}}}"), TraceFormatError, "no schema version", "damaged"),
        (_manifest(f'{{{FORMAT}, "schema": 2}}'), SchemaTooNewError, "schema 2", "update tracereplay"),
        (_manifest(f'{{{FORMAT}, "schema": 0}}'), SchemaTooOldError, "schema 0", "older tracereplay"),
        (_manifest(f'{{{FORMAT}, "schema": 1, "metadata": 3}}'), TraceFormatError, "metadata", "damaged"),
        (
            _manifest(f'{{{FORMAT}, "schema": 1, "metadata": {{"host": []}}}}'),
            TraceFormatError,
            "metadata.host",
            "damaged",
        ),
        (
            _manifest(f'{{{FORMAT}, "schema": 1, "tables": {{"tasks": [{{}}]}}}}'),
            TraceFormatError,
            "file list",
            "copy",
        ),
    ],
)
def test_what_is_no_trace(
    tmp_path: Path, make: Callable[[Path], None], error: type[TracereplayError], message: str, hint: str
) -> None:
    path = tmp_path / "t"
    make(path)
    before = sorted((p, p.stat().st_size) for p in tmp_path.rglob("*"))
    with pytest.raises(error, match=message) as caught:
        Trace.open(path)
    assert type(caught.value) is error
    assert caught.value.exit_code == 3
    assert hint in str(caught.value.hint)
    assert sorted((p, p.stat().st_size) for p in tmp_path.rglob("*")) == before


def _truncate(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-100])


def _flip(part: Path) -> None:
    """Same size, sound footer, broken pages."""
    data = bytearray(part.read_bytes())
    data[4:1000] = b"\xff" * 996
    part.write_bytes(bytes(data))


def _remove(part: Path) -> None:
    part.unlink()


@pytest.mark.parametrize("damage", [_truncate, _flip, _remove])
def test_a_damaged_file_is_named_and_the_rest_is_read(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = write_sample(tmp_path / "t", rows=4000)
    damage(path / "page_events" / "part-000001.parquet")
    trace = Trace.open(path)
    with pytest.raises(TruncatedTraceError, match=r"page_events/part-000001\.parquet") as caught:
        list(trace.batches("page_events"))
    assert "tracereplay validate" in str(caught.value.hint)
    assert trace.bio_events.collect().height == 2
    assert trace.identity()["events"]["page_events"] == 4000
    if damage is not _flip:  # a lazy frame notices broken pages only when they are read
        with pytest.raises(TruncatedTraceError, match=r"part-000001\.parquet"):
            trace.table("page_events")
        assert trace.table("page_events", skip_damaged=True).collect().height == 2000


def test_tmp_and_foreign_files_are_never_read(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    part = path / "page_events" / "part-000001.parquet"
    for name in ("part-000002.parquet.tmp", "part-000001 (copy).parquet", "x.parquet"):
        (path / "page_events" / name).write_bytes(part.read_bytes())
    assert Trace.open(path).rows("page_events") == 1000
    assert sum(b.num_rows for b in Trace.open(path).batches("page_events")) == 1000


def test_metadata_of_a_later_tool_is_read(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    edit_manifest(path, lambda m: m["metadata"].update(weather="fine"))  # type: ignore[attr-defined]
    assert Trace.open(path).metadata.host["hostname"] == "sample"


def test_page_batch_is_accepted_by_the_reader_as_written(tmp_path: Path) -> None:
    batch = page_batch(5000)
    with TraceWriter(tmp_path / "t", metadata()) as writer:
        writer.write("page_events", batch)
    (read,) = Trace.open(tmp_path / "t").batches("page_events", batch.schema.names)
    assert read.equals(batch.cast(read.schema))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_shares_hold_every_row_once(tmp_path: Path, n: int) -> None:
    trace = Trace.open(write_sample(tmp_path / "t.trace", rows=1000, files=4))
    columns = ["ts_ns", "kind", "returned"]
    shares = trace.shares("page_events", columns, n)

    def rows(batches: Iterator[pa.RecordBatch]) -> list[tuple[object, ...]]:
        return [row for batch in batches for row in zip(*batch.to_pydict().values(), strict=True)]

    found = [row for share in shares for row in rows(share)]
    whole = rows(trace.batches("page_events", columns))
    assert len(shares) == n
    assert sorted(found, key=str) == sorted(whole, key=str)
    with pytest.raises(TraceError, match="no column 'tss'"):
        trace.shares("page_events", ["tss"], n)
