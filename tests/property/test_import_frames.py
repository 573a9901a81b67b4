"""A file of frames cut or changed anywhere: whatever came whole before is in the trace, and nothing crashes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.capture_streams import PAGE, RINGS
from tests.unit.test_import_frames import WHOLE, stream
from tracereplay.errors import ImportFormatError, TraceError
from tracereplay.importers.convert import import_trace
from tracereplay.trace.frames import BATCH, FRAME_HEADER, STREAM_HEADER
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

SMALL = stream(6).close().data


def frame_ends(data: bytes) -> list[tuple[int, int]]:
    """(byte after a frame, page records up to there)."""
    at, records, found = STREAM_HEADER.size, 0, []
    while at < len(data):
        _, kind, ring, _, length, _, _ = FRAME_HEADER.unpack_from(data, at)
        at += FRAME_HEADER.size + length
        records += length // PAGE.stride if (kind, ring) == (BATCH, RINGS.index(PAGE)) else 0
        found.append((at, records))
    return found


def imported(data: bytes, *, sound: bool = False) -> Trace | None:
    """None: refused with an error of ours, and nothing was written. ``sound``: what is left is consistent."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "x.raw"), Path(folder, "trace")
        source.write_bytes(data)
        try:
            import_trace(source, out)
        except (TraceError, ImportFormatError):
            assert not out.exists()
            return None
        trace = Trace.open(out)
        report = validate_trace(trace)
        assert report.ok or not sound
        trace.table("page_events").collect()
        return trace


def whole_records(data: bytes, cut: int) -> int:
    """Page records of the frames that end before a cut."""
    return max((records for end, records in frame_ends(data) if end <= cut), default=0)


EDGES = sorted({at for end, _ in frame_ends(SMALL) for at in (end - 1, end, end + 1, end + 31, end + 32)})


@pytest.mark.parametrize("cut", [e for e in EDGES if e < len(SMALL)])
def test_a_cut_at_every_edge_of_a_frame(cut: int) -> None:
    check_cut(SMALL, cut)


@settings(max_examples=60)
@given(st.integers(0, len(WHOLE) - 1))
def test_a_cut_anywhere(cut: int) -> None:
    check_cut(WHOLE, cut)


def check_cut(data: bytes, cut: int) -> None:
    expected = whole_records(data, cut)
    trace = imported(data[:cut], sound=True)
    if trace is None:
        assert expected == 0
        return
    assert trace.rows("page_events") == expected
    assert not trace.complete


@settings(max_examples=150)
@given(st.integers(8, len(SMALL) - 1), st.integers(1, 255))
@example(24, 0x80)
def test_a_changed_byte_never_crashes_and_loses_nothing_before_it(at: int, change: int) -> None:
    data = bytearray(SMALL)
    data[at] ^= change
    before = max((end for end, _ in frame_ends(SMALL) if end <= at), default=0)
    trace = imported(bytes(data))
    if trace is not None:
        assert trace.rows("page_events") >= whole_records(SMALL, before)


@settings(max_examples=60)
@given(st.integers(16, len(SMALL) - 1), st.binary(min_size=1, max_size=200))
def test_garbage_in_the_middle_never_crashes(at: int, garbage: bytes) -> None:
    imported(SMALL[:at] + garbage + SMALL[at:])
