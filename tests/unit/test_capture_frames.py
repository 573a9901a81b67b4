"""Reading frames: what a stream may look like when it is whole, cut, foreign or damaged."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from collectors import protocol
from collectors.protocol import FrameType, frame_header, json_frame, stream_header
from tests.capture_streams import PAGE, Stream, hello
from tracereplay.errors import CollectorError
from tracereplay.trace import frames


def packets(data: bytes, folder: Path, **options: int) -> list[frames.Packet]:
    path = folder / "stream.raw"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(frames.read_ahead(frames.read_packets(fd, **options)))
    finally:
        os.close(fd)


def small_stream() -> Stream:
    stream = Stream().started()
    stream.batch(PAGE, 0, stream.one(PAGE, 0, ts=1001), stream.one(PAGE, 0, ts=1002))
    stream.batch(PAGE, 1, stream.one(PAGE, 1, ts=1003)).watermark(2000)
    return stream.close()


def test_both_sides_agree_on_the_protocol() -> None:
    assert frames.MAGIC == protocol.MAGIC
    assert frames.VERSION == protocol.VERSION
    assert frames.FRAME_MARKER == protocol.FRAME_MARKER
    assert frames.FRAME_HEADER.format == protocol.FRAME_HEADER.format
    assert frames.STREAM_HEADER.format == protocol.STREAM_HEADER.format
    ours = {n: getattr(frames, n) for n in vars(FrameType) if n.isupper()}
    assert ours == {n: v for n, v in vars(FrameType).items() if n.isupper()}
    assert frames.FRAME_MARKER.to_bytes(4, "little") == b"TRCF"


def test_batches_of_a_ring_and_cpu_are_joined_until_a_message_comes(tmp_path: Path) -> None:
    got = packets(small_stream().data, tmp_path)
    kinds = [p.type if isinstance(p, frames.Message) else "batches" for p in got]
    assert kinds == [frames.HELLO, frames.STATUS, "batches", frames.CLOSING]
    batches = got[2]
    assert isinstance(batches, frames.Batches)
    assert batches.watermark_ns == 2000
    assert {key: len(data) for key, data in batches.slabs.items()} == {(0, 0): 80, (0, 1): 40}


def test_enough_bytes_or_enough_time_hands_batches_on(tmp_path: Path) -> None:
    stream = Stream()
    for tick in range(4):
        stream.batch(PAGE, 0, stream.one(PAGE, 0, ts=tick)).watermark(tick * 100)
    data = stream.close().data
    by_bytes = [p for p in packets(data, tmp_path, flush_bytes=80) if isinstance(p, frames.Batches)]
    assert [len(p.slabs[0, 0]) for p in by_bytes] == [80, 80]
    assert [p.watermark_ns for p in by_bytes] == [100, 300]
    by_time = [p for p in packets(data, tmp_path, flush_ns=200) if isinstance(p, frames.Batches)]
    assert [p.watermark_ns for p in by_time] == [200, 300]


def test_a_stream_cut_anywhere_is_named(tmp_path: Path) -> None:
    whole = small_stream().data
    for cut in range(0, len(whole), 7):
        with pytest.raises(CollectorError, match=r"ended|not a collector"):
            packets(whole[:cut], tmp_path)


def test_batches_before_the_cut_are_not_lost(tmp_path: Path) -> None:
    whole = small_stream()
    closing = whole.data.rindex(b"TRCF")
    path = tmp_path / "stream.raw"
    path.write_bytes(whole.data[: closing + 40])
    fd = os.open(path, os.O_RDONLY)
    got: list[frames.Packet] = []
    with pytest.raises(CollectorError, match="inside a frame of type 6"):
        got.extend(frames.read_ahead(frames.read_packets(fd)))
    os.close(fd)
    assert isinstance(got[-1], frames.Batches)
    assert sum(len(d) for d in got[-1].slabs.values()) == 120


def test_unknown_frame_types_are_skipped(tmp_path: Path) -> None:
    stream = Stream()
    stream.data += frame_header(99, 5) + b"\xff\xfe\x00ab"
    got = packets(stream.close().data, tmp_path)
    assert [p.type for p in got if isinstance(p, frames.Message)] == [frames.HELLO, frames.CLOSING]


def greeting(value: dict[str, Any]) -> bytes:
    return stream_header() + json_frame(FrameType.HELLO, value)


def damaged() -> dict[str, tuple[bytes, str]]:
    start = stream_header() + json_frame(FrameType.HELLO, hello())
    later = bytearray(stream_header())
    later[8] = 2
    return {
        "text": (b"Traceback (most recent call last):\n", "not a collector's stream"),
        "later version": (bytes(later), "speaks protocol 2"),
        "no marker": (start + b"x" * 32, "no frame marker"),
        "unknown ring": (start + frame_header(FrameType.BATCH, 40, ring=9) + bytes(40), "of ring 9"),
        "batch before hello": (stream_header() + frame_header(FrameType.BATCH, 40) + bytes(40), "hello named 0"),
        "odd batch": (start + frame_header(FrameType.BATCH, 41) + bytes(41), "do not fit ring 0"),
        "huge json": (start + frame_header(FrameType.STATUS, 1 << 31), "claims 2147483648 bytes"),
        "not json": (start + frame_header(FrameType.STATUS, 3) + b"{{{", "not JSON"),
        "no object": (start + json_frame(FrameType.STATUS, [1]), "is a list"),
        "gap in a ring": (
            start
            + frame_header(FrameType.BATCH, 40, position=0)
            + bytes(40)
            + frame_header(FrameType.BATCH, 40, position=80)
            + bytes(40),
            "skips from 40 to 80",
        ),
        "other byte order": (greeting(hello(byteorder="big")), "big-endian host"),
        "hello without rings": (greeting({"byteorder": "little"}), "hello is damaged"),
        "silly stride": (greeting({"byteorder": "little", "rings": [{"stride": 3}]}), "hello is damaged"),
    }  # fmt: skip


@pytest.mark.parametrize("case", damaged())
def test_a_damaged_stream_is_named(case: str, tmp_path: Path) -> None:
    data, message = damaged()[case]
    with pytest.raises(CollectorError, match=message):
        packets(data, tmp_path)


def test_a_stream_that_is_abandoned_is_read_to_its_end(tmp_path: Path) -> None:
    """Nobody reads the descriptor afterwards, and the writing side was not left hanging."""
    stream = Stream()
    for tick in range(1000):
        stream.batch(PAGE, 0, stream.one(PAGE, 0, ts=tick)).watermark(tick * 1000)
    data = stream.close().data
    read_end, write_end = os.pipe()
    writer = threading.Thread(target=write_all, args=(write_end, data * 3))
    writer.start()
    ahead = frames.read_ahead(frames.read_packets(read_end, flush_bytes=1), depth=2)
    assert isinstance(next(ahead), frames.Message)
    ahead.close()
    assert not [t for t in threading.enumerate() if t.name == "frames"]
    assert list(ahead) == []
    os.close(read_end)
    writer.join()


def write_all(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(fd, "wb") as pipe:
        pipe.write(data)
