# SPDX-License-Identifier: GPL-2.0-only
"""The stream that a collector writes: a 16-byte stream header, then frames. docs/capture-stream.md repeats this
byte by byte.

Stream header (16 bytes): magic ``89 54 52 43 0D 0A 1A 0A`` ("\\x89TRC\\r\\n\\x1a\\n": survives no text-mode
transfer), u16 version, u16 zero, u32 zero.

Frame header (32 bytes), then ``length`` bytes of payload:

====== ==== =========================================================================================
offset type meaning
====== ==== =========================================================================================
0      u32  marker 0x46435254 (bytes ``TRCF``)
4      u16  frame type, see FrameType; a reader skips the types that it does not know
6      u16  ring (index into hello ``rings``); BATCH only, else 0
8      u32  CPU; BATCH and FTRACE only, else 0
12     u32  payload length in bytes
16     u64  CLOCK_MONOTONIC nanoseconds; for BATCH and WATERMARK: every record of this ring (BATCH) or of all
            rings (WATERMARK) with a smaller time stamp has been sent
24     u64  BATCH: position of the first payload byte in its ring (ever increasing); PAGE_MAP: first page
            frame; else 0
====== ==== =========================================================================================

Header integers are little-endian. A BATCH payload is a byte range of a ring as the kernel laid it out:
records of one size per ring, each preceded by the kernel's 8-byte header (u32 length and flag bits, u32
private), in the byte order of the host (hello ``byteorder``). HELLO, SNAPSHOT, STATUS, SYMBOLS, CGROUPS,
CLOSING and ERROR carry one UTF-8 JSON object. A stream ends with CLOSING (clean end, accounting inside) or
ERROR; anything else is a broken stream.
"""

from __future__ import annotations

import json
import struct

MAGIC = b"\x89TRC\r\n\x1a\n"
VERSION = 1
STREAM_HEADER = struct.Struct("<8sHHI")

FRAME_MARKER = 0x46435254
FRAME_HEADER = struct.Struct("<IHHIIQQ")


class FrameType:
    """Frame types, and when they come."""

    HELLO = 1
    """First frame: versions, host, clocks, rings with record layouts, probes."""
    BATCH = 2
    """Raw records of one ring of one CPU."""
    WATERMARK = 3
    """No payload: the time up to which all rings have been sent."""
    SNAPSHOT = 4
    """Raw texts of /proc files with a phase, ``{"phase", "files": {name: text}, "errors": {name:
    reason}}``."""
    STATUS = 5
    """``{"event": "started" | "tick" | "stopped", ...}`` with counters per ring and CPU."""
    CLOSING = 6
    """Last frame of a clean end: the exact accounting."""
    ERROR = 7
    """Last frame of a failed start or run: ``{"error": CLASS, "message", "hint"}``."""
    SYMBOLS = 8
    """Functions of the addresses in stacks: ``{"symbols": {ADDRESS: [name, offset, module]}, "note"}``; once,
    before CLOSING."""
    CGROUPS = 9
    """Paths of cgroup ids seen since the last such frame: ``{ID: path}``."""
    PAGE_MAP = 10
    """Kinds of a range of page frames, binary (pagemap.py): ``position`` is the first frame, ``mono_ns`` the
    time at which the range had been read."""
    FTRACE = 11
    """Raw pages of a tracefs ring buffer of one CPU (tracefs_session.py)."""


def stream_header() -> bytes:
    """The 16 bytes that open a stream."""
    return STREAM_HEADER.pack(MAGIC, VERSION, 0, 0)


def frame_header(
    frame_type: int, length: int, *, ring: int = 0, cpu: int = 0, mono_ns: int = 0, position: int = 0
) -> bytes:
    """The 32 bytes that precede ``length`` bytes of payload."""
    return FRAME_HEADER.pack(FRAME_MARKER, frame_type, ring, cpu, length, mono_ns, position)


def json_frame(frame_type: int, value: object, *, mono_ns: int = 0) -> bytes:
    """A whole frame with a JSON payload."""
    payload = json.dumps(value, separators=(",", ":")).encode()
    return frame_header(frame_type, len(payload), mono_ns=mono_ns) + payload
