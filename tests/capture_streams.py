"""Builds a collector's stream by hand: the frames of a small capture, for tests of the reading side."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from collectors.kernel import describe_lanes, describe_rings
from collectors.layout import BIO, PAGE, TASK, Ring, rings_for
from collectors.programs import Plan, lanes_of
from collectors.protocol import FrameType, frame_header, json_frame, stream_header
from collectors.tracepoints import PROBES, parse_format
from tests.kernel_formats import formats

LANES = lanes_of(PROBES, raw=True)
RINGS = rings_for()
KIND = {lane.probe.kind + ("_nested" if lane.role == "nested" else ""): i for i, lane in enumerate(LANES)}
"""Kind of event -> number of its program; ``alloc_nested``, ``free_nested`` for the second taps."""
_CODES = {"u8": "B", "u16": "H", "u32": "I", "s32": "i", "u64": "Q"}


def record(ring: Ring, **values: Any) -> bytes:
    """A committed record with its ring header; fields not given are 0."""
    out = struct.pack("=II", ring.size, 0)
    for field in ring.fields:
        if field.base == "char":
            out += values.get(field.name, b"").ljust(field.size, b"\0")
        elif field.count:
            numbers = list(values.get(field.name, ()))
            out += struct.pack(f"={field.count}" + _CODES[field.base], *numbers, *[0] * (field.count - len(numbers)))
        else:
            out += struct.pack("=" + _CODES[field.type], values.get(field.name, 0))
    return out


def hello(*, stacks: bool = False, **changes: Any) -> dict[str, Any]:
    """A hello with every probe attached, as a 6.18 kernel would give."""
    parsed = {event: parse_format(text) for event, text in formats("6.18").items()}
    plan = Plan(LANES, parsed, stacks=stacks)
    value = {
        "protocol": 1,
        "byteorder": "little",
        "python": "3.11.2",
        "bcc": "0.26.0",
        "tracefs": {"path": "/sys/kernel/tracing", "how": "mounted"},
        "host": {"hostname": "h", "release": "6.18.0", "arch": "x86_64", "cpus": 2, "page_size": 4096},
        "cpus": [0, 1],
        "clock": {"name": "monotonic", "resolution_ns": 1, "triple": [1, 2, 3]},
        "groups": ["page", "bio", "buddy"],
        "drain_ms": 10.0,
        "rings": describe_rings(plan, [1 << 20] * len(plan.rings)),
        "probes": describe_lanes(plan, {}),
        "missing": {},
        "no_raw_tap": "",
    }
    return {**value, **changes}


class Stream:
    """Collects frames; positions are kept per ring and CPU, sequence numbers per program as well."""

    def __init__(self, greeting: dict[str, Any] | None = None) -> None:
        greeting = greeting or hello()
        self.data = stream_header() + json_frame(FrameType.HELLO, greeting, mono_ns=100)
        self._rings = [ring["name"] for ring in greeting["rings"]]
        self._position: dict[tuple[int, int], int] = {}
        self._seq: dict[tuple[Ring, int, int], int] = {}
        self._lost: dict[tuple[Ring, int, int], dict[str, int]] = {}

    def skip(self, ring: Ring, cpu: int, n: int, *, kind: str = "alloc", why: str = "full") -> None:
        """Let the kernel lose ``n`` records of a program."""
        key = (ring, cpu, KIND[kind])
        self._seq[key] = self._seq.get(key, 0) + n
        of = self._lost.setdefault(key, {})
        of[why] = of.get(why, 0) + n

    def one(self, ring: Ring, cpu: int, kind: str = "alloc", **values: Any) -> bytes:
        """The next record of a program."""
        key = (ring, cpu, KIND[kind])
        seq = self._seq.get(key, 0)
        self._seq[key] = seq + 1
        return record(ring, seq=seq & 0xFFFFFFFF, kind=KIND[kind], **values)

    def batch(self, ring: Ring, cpu: int, *records: bytes) -> Stream:
        """Send records of one CPU."""
        payload = b"".join(records)
        key = (self._rings.index(ring.name), cpu)
        position = self._position.get(key, 0)
        self._position[key] = position + len(payload)
        self.data += frame_header(FrameType.BATCH, len(payload), ring=key[0], cpu=cpu, position=position) + payload
        return self

    def watermark(self, mono_ns: int) -> Stream:
        """Everything before has been sent."""
        self.data += frame_header(FrameType.WATERMARK, 0, mono_ns=mono_ns)
        return self

    def json(self, frame_type: int, value: Any, mono_ns: int = 1000) -> Stream:
        """A JSON frame."""
        self.data += json_frame(frame_type, value, mono_ns=mono_ns)
        return self

    def started(self, at_ns: int = 1000) -> Stream:
        """The gate opens."""
        return self.json(FrameType.STATUS, {"event": "started", "started_ns": at_ns, "cost": {"cpu_seconds": 0.1}})

    def counters(self) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
        """What the kernel counted, as the closing frame gives it."""
        found: dict[str, dict[str, dict[str, dict[str, int]]]] = {name: {} for name in self._rings}
        for (ring, cpu, number), seq in self._seq.items():
            lost = self._lost.get((ring, cpu, number), {})
            counted = {"seq": seq, "full": 0, "lock": 0, "no_ring": 0, **lost}
            found[ring.name].setdefault(str(cpu), {})[str(number)] = counted
        return found

    def close(self, stopped_ns: int = 9000, **changes: Any) -> Stream:
        """The closing frame."""
        value = {
            "reason": "duration",
            "started_ns": 1000,
            "stopped_ns": stopped_ns,
            "clock": [4, 5, 6],
            "counters": self.counters(),
            "drained": {},
            "refused_cpus": {},
            "programs": {},
            "cost": {"cpu_seconds": 0.2, "max_rss_bytes": 1},
        }
        return self.json(FrameType.CLOSING, {**value, **changes})

    def open(self, folder: Path) -> int:
        """A file descriptor that reads the stream."""
        path = folder / "stream.raw"
        path.write_bytes(self.data)
        return os.open(path, os.O_RDONLY)


__all__ = ["BIO", "KIND", "PAGE", "TASK", "Stream", "hello", "record"]
