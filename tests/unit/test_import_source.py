"""Where imports read from: compression, standard input, damage, sniffing, errors that change nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from tracereplay.errors import (
    EmptyTraceError,
    ImportFormatError,
    OutputExistsError,
    UnknownFormatError,
    UsageError,
)
from tracereplay.importers.base import Confidence, Head, ImportOptions
from tracereplay.importers.convert import import_trace
from tracereplay.importers.ftrace import IMPORTER
from tracereplay.importers.registry import importer_named, importers, recognise
from tracereplay.importers.source import Source
from tracereplay.trace.reader import Trace

EVENT = "bash-1 [000] ..... {}.000001: mm_page_free: page=0 pfn=0x1 order=0\n"
TEXT = "".join(EVENT.format(i) for i in range(5000)).encode()
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_sources_are_read_whatever_their_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(PACKERS[name](TEXT))
    result = import_trace(path, tmp_path / "out")
    assert result.summary.events == {"kmem:mm_page_free": 5000}
    assert result.metadata.source["compression"] == name
    assert result.metadata.source["bytes"] == path.stat().st_size


@pytest.mark.parametrize("name", PACKERS)
def test_several_compressed_parts_are_one_source(name: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    half = len(TEXT) // 2
    path.write_bytes(PACKERS[name](TEXT[:half]) + PACKERS[name](TEXT[half:]))
    assert import_trace(path, tmp_path / "out").summary.events == {"kmem:mm_page_free": 5000}


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_source_cut_short_is_an_error_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    packed = PACKERS[name](TEXT)
    path.write_bytes(packed[: len(packed) * 2 // 3])
    with pytest.raises(ImportFormatError) as caught:
        import_trace(path, tmp_path / "out", format="ftrace")
    assert "cannot be read to its end" in caught.value.message
    assert [p.name for p in tmp_path.iterdir()] == ["trace"]


def test_hash_covers_the_stored_file(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "trace.gz"
    path.write_bytes(gzip.compress(TEXT))
    source = import_trace(path, tmp_path / "out").metadata.source
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(TEXT) if packed else TEXT
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    result = import_trace("-", tmp_path / "out")
    assert result.summary.events == {"kmem:mm_page_free": 5000}
    assert result.metadata.source["path"] == "-"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "it does not exist"),
        (lambda p: p.mkdir(), "it is a directory"),
    ],
)
def test_unreadable_sources(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "source"
    make(path)
    with pytest.raises(ImportFormatError) as caught:
        import_trace(path, tmp_path / "out")
    assert message in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_a_trace_already(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(TEXT)
    import_trace(path, tmp_path / "bundle")
    with pytest.raises(ImportFormatError) as caught:
        import_trace(tmp_path / "bundle", tmp_path / "out")
    assert "it is a trace already" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"Dear reader,\nthis is prose - about 3 things: [4] and more.\n", "text that is no trace"),
        (bytes(range(32)) * 9, "binary"),
        (b"PAR1" + b"x" * 50, "a Parquet file"),
    ],
)
def test_what_no_importer_knows(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with pytest.raises(UnknownFormatError) as caught:
        import_trace(path, tmp_path / "out")
    assert says in caught.value.message
    assert all(i.name in str(caught.value.hint) for i in importers())
    assert not (tmp_path / "out").exists()


def test_format_names() -> None:
    assert importer_named("ftrace") is IMPORTER
    with pytest.raises(UnknownFormatError) as caught:
        importer_named("trace_dat")
    assert "'trace.dat'" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("data", "confidence"),
    [
        (b"# tracer: nop\n#\n", Confidence.CERTAIN),
        (b"cpus=2\n", Confidence.CERTAIN),
        (b"version = 6\ncpus=6\n", Confidence.CERTAIN),
        (b"CPU 1 is empty\ncpus=2\n", Confidence.CERTAIN),
        (EVENT.format(1).encode(), Confidence.POSSIBLE),
        (b"junk\nfio-1  0..... 1.000001: x: y\n", Confidence.POSSIBLE),
        (b"bash-1 (-----) [000] 1.5: x: y\n", Confidence.POSSIBLE),
        (b"a,b,c\n1,2,3\n", Confidence.NO),
        (b"", Confidence.NO),
    ],
)
def test_sniffing(data: bytes, confidence: Confidence) -> None:
    assert IMPORTER.sniff(Head("x", data, True)) is confidence
    if confidence:
        assert recognise(Head("x", data, True)).name == "ftrace"


def test_events_without_a_table_are_named(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("a-1 [000] ..... 1.000001: sched_switch: x\na-1 [000] ..... 1.000002: print: y\n" * 3)
    with pytest.raises(EmptyTraceError) as caught:
        import_trace(path, tmp_path / "out")
    assert "sched_switch (3), print (3)" in caught.value.message
    assert "kmem:*" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_text_named_as_ftrace_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("nothing\nhere\n")
    with pytest.raises(ImportFormatError) as caught:
        import_trace(path, tmp_path / "out", format="ftrace")
    assert "2 refused; line 1: no task, CPU and time" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_strict_refuses_at_the_first_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(TEXT + b"bad line\n" + TEXT)
    with pytest.raises(ImportFormatError) as caught:
        import_trace(path, tmp_path / "out", options=ImportOptions(strict=True, block_bytes=1 << 14, reorder_rows=10))
    assert "line 5001: no task, CPU and time at its start: 'bad line'" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_existing_output_is_refused_before_reading_and_kept(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    first = import_trace(tmp_path / "text", tmp_path / "out")
    with pytest.raises(OutputExistsError):
        import_trace(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "bad").write_text("nothing\n")
    with pytest.raises(UnknownFormatError):
        import_trace(tmp_path / "bad", tmp_path / "out", force=True)
    assert Trace.open(tmp_path / "out").metadata.trace_id == first.metadata.trace_id
    second = import_trace(tmp_path / "text", tmp_path / "out", force=True)
    assert Trace.open(tmp_path / "out").metadata.trace_id == second.metadata.trace_id != first.metadata.trace_id
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "out", "text"]


def test_failure_late_in_a_forced_import_brings_the_old_trace_back(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    first = import_trace(tmp_path / "text", tmp_path / "out")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(TEXT * 20)[:-100])
    options = ImportOptions(block_bytes=1 << 14, reorder_rows=10)
    with pytest.raises(ImportFormatError):
        import_trace(tmp_path / "cut.gz", tmp_path / "out", force=True, options=options)
    assert Trace.open(tmp_path / "out").metadata.trace_id == first.metadata.trace_id
    assert Trace.open(tmp_path / "out").rows("page_events") == 5000


def test_snapshot_prefix_without_files(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    with pytest.raises(UsageError):
        import_trace(tmp_path / "text", tmp_path / "out", snapshots=tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_a_snapshot_that_is_none_stops_the_import(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_bytes(TEXT)
    (tmp_path / "run.before.buddyinfo").write_text("no such thing\n")
    with pytest.raises(ImportFormatError):
        import_trace(tmp_path / "run.txt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert import_trace(tmp_path / "run.txt", tmp_path / "out", find_snapshots=False).snapshots is None


@pytest.mark.parametrize("name", ["run.txt.gz", "run.trace", "run", "run.ftrace.txt.zst"])
def test_snapshots_by_any_stem(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(TEXT)
    (tmp_path / "run.after.buddyinfo").write_text("Node 0, zone      DMA      1      0      3\n")
    result = import_trace(tmp_path / name, tmp_path / "out")
    assert result.snapshots is not None
    assert list(result.snapshots.phases) == ["end"]


def test_head_is_decompressed_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(TEXT * 20))
    with Source(path) as source:
        head = source.head()
    assert head.data == (TEXT * 20)[: 64 << 10]
    assert not head.whole
