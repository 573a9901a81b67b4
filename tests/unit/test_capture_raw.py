"""Frames kept as they come: followed in pieces of any size, stored byte for byte, and nothing overwritten."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.protocol import FrameType
from tests.capture_streams import BIO, PAGE, Stream
from tracereplay.errors import CollectorError, OutputExistsError, PrivilegeError, StorageError, UsageError
from tracereplay.trace.capture import CaptureOptions
from tracereplay.trace.rawfile import FrameWatch, RawRecording
from tracereplay.trace.recording import CaptureSummary, Progress


def stream() -> Stream:
    s = Stream().started()
    s.batch(PAGE, 0, s.one(PAGE, 0, ts=1001), s.one(PAGE, 0, ts=1002)).watermark(1500)
    s.skip(PAGE, 0, 3)
    s.json(FrameType.STATUS, {"event": "tick", "counters": s.counters()}, mono_ns=1_000_001_000)
    s.batch(BIO, 1, s.one(BIO, 1, "queue", ts=1003)).watermark(2000)
    return s


WHOLE = stream().close().data


def pieces(data: bytes, size: int) -> Iterator[memoryview]:
    for at in range(0, len(data), size):
        yield memoryview(data[at : at + size])


def store(data: bytes, path: Path, size: int = 100, **options: int | bool) -> CaptureSummary:
    """As ``capture`` does it."""
    recording = RawRecording(path, **options)  # type: ignore[arg-type]
    try:
        return recording.run(pieces(data, size))
    except BaseException:
        recording.give_up()
        raise


@given(st.lists(st.integers(1, 60), min_size=1))
def test_frames_are_found_in_pieces_of_any_size(sizes: list[int]) -> None:
    watch = FrameWatch()
    found, at = [], 0
    while at < len(WHOLE):
        for size in sizes:
            found += list(watch.feed(memoryview(WHOLE[at : at + size])))
            at += size
    assert [m.type for m in found] == [FrameType.HELLO, FrameType.STATUS, FrameType.STATUS, FrameType.CLOSING]
    assert found[2].value["counters"]["page"]["0"]
    assert found[2].mono_ns == 1_000_001_000
    assert watch.at == len(WHOLE)


@pytest.mark.parametrize("size", [1, 17, 1 << 20])
def test_a_stream_is_stored_byte_for_byte(size: int, tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.raw"
    seen: list[Progress] = []
    started: list[int] = []
    recording = RawRecording(path, on_progress=seen.append)
    recording.attach(stop=lambda: None, on_started=lambda: started.append(1))
    summary = recording.run(pieces(WHOLE, size))
    assert path.read_bytes() == WHOLE
    assert started == [1]
    assert [(p.elapsed_s, p.events, p.lost) for p in seen] == [(0, 0, 0), (1.0, 2, 3)]
    assert (summary.path, summary.bytes_on_disk, summary.reason) == (path, len(WHOLE), "duration")
    assert {table: n for table, n in summary.events.items() if n} == {"page_events": 2, "bio_events": 1}
    assert (summary.lost, summary.duration_s) == (3, 8e-6)


def test_events_of_a_tracefs_instance_are_counted(tmp_path: Path) -> None:
    of_cpu = {"read events": 40, "overrun": 2, "commit overrun": 0, "dropped events": 1, "entries": 0}
    s = Stream().json(FrameType.STATUS, {"event": "tasks", "ftrace": {"0": of_cpu}}).started()
    seen: list[Progress] = []
    recording = RawRecording(tmp_path / "run.raw", on_progress=seen.append)
    summary = recording.run(pieces(s.close(counters={}, ftrace={"0": of_cpu, "1": of_cpu}).data, 100))
    assert (summary.events, summary.lost) == ({"events": 80}, 6)
    assert len(seen) == 1  # nothing is shown before the start


def test_an_existing_file_is_refused_before_anything(tmp_path: Path) -> None:
    path = tmp_path / "run.raw"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        RawRecording(path)
    with pytest.raises(UsageError, match="not a recording of raw frames"):
        RawRecording(path, force=True)
    with pytest.raises(UsageError, match="not a recording of raw frames"):
        RawRecording(tmp_path, force=True)
    assert path.read_text() == "mine"


def test_force_replaces_frames_once_there_are_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "run.raw"
    path.write_bytes(WHOLE + b"old")
    failed = Stream()
    failed.data = failed.data[:16]
    failed.json(FrameType.ERROR, {"error": "PrivilegeError", "message": "no", "hint": "do"})
    with pytest.raises(PrivilegeError):
        store(failed.data, path, force=True)
    assert path.read_bytes() == WHOLE + b"old"
    store(WHOLE, path, force=True)
    assert path.read_bytes() == WHOLE


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.raw"
    recording = RawRecording(path)
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        recording.run(pieces(WHOLE, 100))
    recording.give_up()
    assert path.read_text() == "mine"


@pytest.mark.parametrize("data", [b"", b"Welcome to this host, how are you today?\n" * 9, Stream().data])
def test_a_stream_without_a_start_leaves_no_file(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(CollectorError):
        store(data, tmp_path / "run.raw")
    assert not (tmp_path / "run.raw").exists()


def test_a_stream_that_ends_early_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.raw"
    with pytest.raises(CollectorError, match="without its closing frame") as caught:
        store(WHOLE[:-9], path)
    assert path.read_bytes() == WHOLE[:-9]
    assert f"tracereplay import {path}" in (caught.value.hint or "")


def test_what_follows_damage_is_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "run.raw"
    data = stream().data + b"\0" * 500
    with pytest.raises(CollectorError, match=f"is broken at byte {len(stream().data)}"):
        store(data, path)
    assert path.read_bytes() == data


def test_a_frame_that_makes_no_sense_is_named_and_kept(tmp_path: Path) -> None:
    data = stream().json(FrameType.STATUS, {"event": "started", "started_ns": None}).close().data
    with pytest.raises(CollectorError, match="is damaged"):
        store(data, tmp_path / "run.raw")
    assert (tmp_path / "run.raw").read_bytes() == data


def test_a_disk_that_refuses_is_named_and_what_it_took_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.write, len(stream().data)

    def write(fd: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(fd, data[:room])
        room -= count
        return count

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StorageError, match="No space left on device"):
        store(WHOLE, tmp_path / "run.raw")
    assert (tmp_path / "run.raw").read_bytes() == stream().data


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"max_bytes": 1000}, "size limit reached"), ({"min_free_bytes": 1 << 62}, "disk nearly full")],
)
def test_limits_ask_the_collector_to_stop_once(
    options: dict[str, int], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracereplay.trace.rawfile.FREE_LOOK_BYTES", 1000)
    asked: list[int] = []
    recording = RawRecording(tmp_path / "run.raw", **options)
    recording.attach(stop=lambda: asked.append(1), on_started=lambda: None)
    assert recording.run(pieces(WHOLE, 100)).reason == reason
    assert asked == [1]
    assert (tmp_path / "run.raw").read_bytes() == WHOLE


def test_a_flight_recorder_keeps_many_files() -> None:
    with pytest.raises(UsageError, match="flight recorder"):
        CaptureOptions(raw=True, flight_s=600)
