"""Raw frames into a trace: recognised, whole or compressed, and as much as there is when they end early."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from collectors.protocol import FrameType
from tests.capture_streams import BIO, PAGE, TASK, Stream
from tracereplay.errors import EmptyTraceError, ImportFormatError, UnknownFormatError, UsageError
from tracereplay.importers.base import ImportOptions
from tracereplay.importers.convert import Imported, import_trace
from tracereplay.trace import frames
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.recording import Recording
from tracereplay.trace.schema import TABLES
from tracereplay.trace.validate import validate_trace
from tracereplay.trace.writer import TraceWriter

BUDDYINFO = "Node 0, zone   Normal      1      2      3      0      0      0      0      0      0      0      4\n"


def stream(rounds: int = 40) -> Stream:
    """Page, bio and task events of two CPUs, a loss, a snapshot."""
    s = Stream().json(FrameType.SNAPSHOT, {"phase": "start", "files": {"buddyinfo": BUDDYINFO}, "errors": {}}).started()
    for n in range(rounds):
        t = 2000 + n * 100
        if n == 7:
            s.skip(PAGE, 1, 5)
        s.batch(PAGE, 0, *(s.one(PAGE, 0, ts=t + i, pfn=n * 8 + i, pid=7) for i in range(8)))
        s.batch(
            PAGE, 1, s.one(PAGE, 1, "free", ts=t + 3, pfn=n), s.one(PAGE, 1, ts=t + 4, pfn=n, flags=0x40 * (n == 7))
        )
        s.batch(BIO, 0, s.one(BIO, 0, "queue", ts=t + 5, dev=8 << 20, sector=n, nr_sectors=8, rwbs=b"W"))
        s.batch(TASK, 0, s.one(TASK, 0, "rename", ts=t + 6, pid=n, tgid=n, comm=b"task")).watermark(t + 90)
    return s


WHOLE = stream().close().data


def run(data: bytes, folder: Path, **options: bool | str) -> Imported:
    source = folder / "run.raw"
    source.write_bytes(data)
    return import_trace(source, folder / "trace", options=ImportOptions(**options))  # type: ignore[arg-type]


def live(data: bytes, folder: Path) -> Trace:
    """The same frames through a capture's code, from a pipe."""
    (folder / "piped.raw").write_bytes(data)
    fd = os.open(folder / "piped.raw", os.O_RDONLY)
    try:
        recording = Recording(TraceWriter(folder / "live", TraceMetadata()))
        return Trace.open(recording.run(frames.read_ahead(frames.read_packets(fd))).path)
    finally:
        os.close(fd)


def test_frames_become_the_trace_that_a_capture_writes(tmp_path: Path) -> None:
    imported = run(WHOLE, tmp_path)
    trace, other = Trace.open(imported.path), live(WHOLE, tmp_path)
    assert trace.complete
    assert validate_trace(trace).ok
    for table in TABLES:
        assert trace.table(table).collect().equals(other.table(table).collect()), table
    assert imported.format == "raw"
    source = trace.metadata.source
    assert (source["kind"], source["format"], source["bytes"]) == ("import", "raw", len(WHOLE))
    assert source["path"].endswith("run.raw")
    assert len(source["sha256"]) == 64
    assert "writer" not in trace.metadata.self_cost  # this process's CPU is none of the captured host's
    summary = imported.summary
    assert summary.events == {"page_events": 400, "bio_events": 40}
    assert (summary.first_ns, summary.last_ns) == (2000, 5907)
    assert (summary.lost, summary.loss_intervals, summary.incomplete) == (5, 1, "")


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_frames(name: str, tmp_path: Path) -> None:
    imported = run(PACKERS[name](WHOLE), tmp_path)
    assert Trace.open(imported.path).complete
    assert Trace.open(imported.path).metadata.source["compression"] == name


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_compressed_file_that_was_cut_gives_what_can_be_unpacked(name: str, tmp_path: Path) -> None:
    data = stream(4000).close().data
    packed = PACKERS[name](data)
    imported = run(packed[: len(packed) // 2], tmp_path)
    trace = Trace.open(imported.path)
    assert not trace.complete
    assert 1000 < trace.rows("page_events") < 40_000
    assert "EOFError" in imported.summary.incomplete


def test_a_file_without_its_end_is_an_incomplete_trace(tmp_path: Path) -> None:
    cut = WHOLE[: WHOLE.rindex(b"TRCF") + 50]
    imported = run(cut, tmp_path)
    trace = Trace.open(imported.path)
    assert not trace.complete
    assert validate_trace(trace).ok
    assert trace.rows("page_events") == 400
    assert trace.rows("tasks") > 1
    assert f"the frames end early, at byte {len(cut)}: " in imported.summary.incomplete
    assert imported.summary.incomplete in trace.metadata.notes
    assert trace.metadata.source["bytes"] == len(cut)


def test_damage_in_the_middle_keeps_what_came_before(tmp_path: Path) -> None:
    data = bytearray(WHOLE)
    at = [i for i in range(len(data)) if data.startswith(b"TRCF", i)][100]
    data[at] ^= 0xFF
    imported = run(bytes(data), tmp_path)
    trace = Trace.open(imported.path)
    assert not trace.complete
    assert 0 < trace.rows("page_events") < 400
    assert "no frame marker" in imported.summary.incomplete
    assert trace.metadata.source["bytes"] == len(data)  # the hash is that of the whole file


def test_records_that_still_waited_for_their_watermark_are_kept(tmp_path: Path) -> None:
    s = Stream().started()
    s.batch(PAGE, 0, s.one(PAGE, 0, ts=2000), s.one(PAGE, 0, ts=2001))
    assert Trace.open(run(s.data, tmp_path).path).rows("page_events") == 2


def test_a_collector_that_failed_in_the_middle(tmp_path: Path) -> None:
    failed = stream().json(FrameType.ERROR, {"error": "CollectorError", "message": "ring gone", "hint": ""})
    imported = run(failed.data, tmp_path)
    assert not Trace.open(imported.path).complete
    assert imported.summary.incomplete.endswith("ring gone")


@pytest.mark.parametrize(
    "data",
    [WHOLE[:40], WHOLE[:12], Stream().started().data],
    ids=["in hello", "in header", "cut before events"],
)
def test_a_file_without_events_is_named_and_leaves_nothing(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(EmptyTraceError, match=r"run\.raw holds no events"):
        run(data, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.raw"]


def test_a_capture_that_saw_nothing_is_whole(tmp_path: Path) -> None:
    assert Trace.open(run(Stream().started().close().data, tmp_path).path).complete


def test_a_capture_that_never_began(tmp_path: Path) -> None:
    s = Stream()
    s.data = s.data[:16]
    s.json(FrameType.ERROR, {"error": "PrivilegeError", "message": "not root", "hint": "do"})
    with pytest.raises(EmptyTraceError, match="not root"):
        run(s.data, tmp_path)


def test_strict_refuses_an_early_end_and_keeps_an_older_trace(tmp_path: Path) -> None:
    first = run(WHOLE, tmp_path).metadata.trace_id
    source = tmp_path / "run.raw"
    source.write_bytes(WHOLE[:-9])
    with pytest.raises(ImportFormatError, match="end early"):
        import_trace(source, tmp_path / "trace", force=True, options=ImportOptions(strict=True))
    assert Trace.open(tmp_path / "trace").metadata.trace_id == first
    source.write_bytes(WHOLE[:40])
    with pytest.raises(EmptyTraceError):
        import_trace(source, tmp_path / "trace", force=True)
    assert Trace.open(tmp_path / "trace").metadata.trace_id == first


def test_bytes_after_the_end_are_noted(tmp_path: Path) -> None:
    trace = Trace.open(run(WHOLE + b"x" * 10, tmp_path).path)
    assert trace.complete
    assert f"10 bytes after the closing frame, at byte {len(WHOLE)}, were ignored" in trace.metadata.notes
    assert trace.metadata.source["bytes"] == len(WHOLE) + 10


def test_what_the_frames_say_themselves_cannot_be_given(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--kernel: raw frames name"):
        run(WHOLE, tmp_path, release="6.1.0")
    (tmp_path / "x.before.buddyinfo").write_text(BUDDYINFO)
    with pytest.raises(UsageError, match="holds its own snapshots"):
        import_trace(tmp_path / "run.raw", tmp_path / "trace", snapshots=tmp_path / "x")
    assert not (tmp_path / "trace").exists()


def test_a_later_protocol_is_named(tmp_path: Path) -> None:
    data = bytearray(WHOLE)
    data[8] = 9
    with pytest.raises(EmptyTraceError, match="speaks protocol 9"):
        run(bytes(data), tmp_path)


def test_half_a_magic_is_no_format(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormatError):
        run(WHOLE[:5], tmp_path)
