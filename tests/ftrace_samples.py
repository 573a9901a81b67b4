"""Ring-buffer pages made by hand, and the hello of a capture through tracefs: for tests of the reading side."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from typing import Any

from collectors.layout import rings_for
from collectors.protocol import FrameType, frame_header, json_frame, stream_header
from collectors.tracefs_tasks import NEW_TASK
from collectors.tracepoints import PROBES, Format, parse_format
from tests.kernel_formats import format_text, formats

HEADER_PAGE = """\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
"""
PAGE_BYTES, DATA_AT = 4096, 16
RINGS = rings_for()
ALL_PROBES = (*PROBES, NEW_TASK)
_ODD_SIZES = {1: "b", 2: "h", 4: "i", 8: "q"}


class Page:
    """One page, filled record by record. Every method returns the page."""

    def __init__(self, stamp: int, size: int = PAGE_BYTES) -> None:
        self.stamp = stamp
        self.size = size
        self.data = bytearray()
        self.missed: int | None = None
        """How many records were overwritten before; -1: some, and the page does not say."""

    @property
    def room(self) -> int:
        """Bytes left."""
        return self.size - DATA_AT - len(self.data)

    def _head(self, kind: int, delta: int) -> None:
        assert 0 <= delta < 1 << 27
        self.data += struct.pack("<I", kind | delta << 5)

    def event(self, delta: int, data: bytes) -> Page:
        """A data record, in the short form where it fits it, as the kernel does."""
        data = data.ljust((len(data) + 3) // 4 * 4, b"\0")
        if 0 < len(data) <= 112:
            self._head(len(data) // 4, delta)
        else:
            self._head(0, delta)
            self.data += struct.pack("<I", len(data) + 4)
        self.data += data
        return self

    def extend(self, delta: int) -> Page:
        """Time that does not fit 27 bits."""
        self._head(30, delta & (1 << 27) - 1)
        self.data += struct.pack("<I", delta >> 27)
        return self

    def absolute(self, stamp: int) -> Page:
        """An absolute time of 59 bits."""
        self._head(31, stamp & (1 << 27) - 1)
        self.data += struct.pack("<I", stamp >> 27 & (1 << 32) - 1)
        return self

    def discarded(self, delta: int, size: int) -> Page:
        """A record taken back: ``size`` bytes behind its first word; time 0 is told as 1."""
        self._head(29, delta or 1)
        self.data += struct.pack("<I", size).ljust(size, b"\xaa")
        return self

    def tail(self) -> Page:
        """Fill the rest with padding that ends the page."""
        room = self.room
        self._head(29, 0)
        self.data += b"\x55" * (room - 4)
        return self

    def lost(self, n: int) -> Page:
        """``n`` records were overwritten before this page; -1: it does not say how many."""
        self.missed = n
        return self

    def bytes(self, *, cut: bool = False) -> bytes:
        """The page; ``cut``: without the unused rest, as the last one of a frame comes."""
        word, more = len(self.data), b""
        if self.missed is not None:
            word |= 1 << 31
            if self.missed >= 0:
                word |= 1 << 30
                more = struct.pack("<Q", self.missed)
            word |= 0xFFFFFFFF << 32  # the kernel adds the flags as negative numbers
        out = struct.pack("<QQ", self.stamp, word) + self.data + more
        assert len(out) <= self.size
        return out if cut else out.ljust(self.size, b"\0")


def format_with_id(text: str, number: int) -> str:
    """A format text with an id of its own."""
    return text.replace("ID: 1\n", f"ID: {number}\n", 1)


def all_formats(kernel: str) -> dict[str, Format]:
    """Formats of all probes on a kernel, task_newtask included."""
    texts = formats(kernel)
    flags = "unsigned long clone_flags"
    texts[NEW_TASK.event] = format_text("task_newtask", "pid_t pid", "char comm[16]", flags, "short oom_score_adj")
    return {
        event: parse_format(format_with_id(text, 300 + index))
        for index, (event, text) in enumerate(sorted(texts.items()))
    }


def hello(kernel: str = "6.18", **changes: Any) -> dict[str, Any]:
    """What the collector would say on a kernel that has all events."""
    known = all_formats(kernel)
    probes = []
    for probe in ALL_PROBES:
        if probe.event not in known:
            continue
        ring = next(i for i, r in enumerate(RINGS) if r.name == probe.ring)
        fmt = known[probe.event]
        number = int(fmt.text.split("ID: ")[1].split()[0])
        probes.append(
            {**probe.describe(), "id": number, "ring": ring, "tap": "tracefs", "attached": True, "format": fmt.text}
        )
    value = {
        "protocol": 1,
        "byteorder": "little",
        "python": "3.11.2",
        "bcc": "",
        "tracer": "tracefs",
        "tracer_reason": "the kernel refuses bpf()",
        "tracefs": {"path": "/sys/kernel/tracing", "how": "mounted"},
        "ftrace": {"header_page": HEADER_PAGE, "page_bytes": PAGE_BYTES, "buffer_bytes_per_cpu": 1 << 20},
        "host": {"hostname": "h", "release": kernel + ".0", "arch": "x86_64", "cpus": 2, "page_size": 4096},
        "cpus": [0, 1],
        "clock": {"name": "monotonic", "resolution_ns": 1, "triple": [1, 2, 3]},
        "groups": ["page", "bio", "buddy", "reclaim"],
        "drain_ms": 10.0,
        "filters": {},
        "filters_note": "",
        "sampling": {},
        "rings": [dict(ring.describe(), bytes_per_cpu=1 << 20) for ring in RINGS],
        "probes": probes,
        "missing": {},
        "no_raw_tap": "",
    }
    return {**value, **changes}


def event(fmt: Format, number: int, values: Mapping[str, Any], pid: int = 0, fill: int = 0) -> bytes:
    """An event's bytes; fields not given hold ``fill`` bytes."""
    size = max(f.offset + f.size for f in fmt.fields.values())
    out = bytearray([fill]) * size
    for name, value in {"common_type": number, "common_pid": pid, **values}.items():
        field = fmt.fields[name]
        if isinstance(value, bytes):
            raw = value.ljust(field.size, bytes([fill])) if value.endswith(b"\0") else value.ljust(field.size, b"\0")
        else:
            raw = (value & (1 << 8 * field.size) - 1).to_bytes(field.size, "little")
        out[field.offset : field.offset + field.size] = raw[: field.size]
    return bytes(out)


class Stream:
    """Collects frames of a capture through tracefs."""

    def __init__(self, greeting: dict[str, Any] | None = None) -> None:
        self.data = stream_header() + json_frame(FrameType.HELLO, greeting or hello(), mono_ns=100)

    def pages(self, cpu: int, *pages: Page, floor: int = 0) -> Stream:
        """A frame with some pages, the last one cut."""
        payload = b"".join([*(p.bytes() for p in pages[:-1]), pages[-1].bytes(cut=True)])
        self.data += frame_header(FrameType.FTRACE, len(payload), cpu=cpu, mono_ns=floor) + payload
        return self

    def json(self, frame_type: int, value: Any, mono_ns: int = 1000) -> Stream:
        """A JSON frame."""
        self.data += json_frame(frame_type, value, mono_ns=mono_ns)
        return self

    def close(self, stats: Mapping[str, Mapping[str, int]], stopped_ns: int = 9000) -> Stream:
        """The closing frame."""
        value = {
            "reason": "duration",
            "started_ns": 1000,
            "stopped_ns": stopped_ns,
            "clock": [4, 5, 6],
            "counters": {},
            "ftrace": stats,
            "drained": {},
            "refused_cpus": {},
            "programs": {},
            "cost": {"cpu_seconds": 0.2, "max_rss_bytes": 1},
        }
        return self.json(FrameType.CLOSING, value)


def stats(read: int, overrun: int = 0, **more: int) -> dict[str, int]:
    """Counters of a CPU's buffer."""
    given = {"entries": 0, "overrun": overrun, "commit overrun": 0, "dropped events": 0, "read events": read}
    return {**given, **more}


def random_page(rng: random.Random, stamp: int, *, full: bool = False) -> Page:
    """A page with records of every kind."""
    page = Page(stamp)
    now = stamp
    for _ in range(rng.randrange(1, 400 if full else 40)):
        size = rng.choice([0, 4, 8, 20, 36, 112, 116, 300])
        if page.room < size + 24:
            break
        choice = rng.random()
        delta = rng.choice([0, 1, 2, rng.randrange(1 << 27)])
        if choice < 0.7:
            page.event(delta, rng.randbytes(size))
        elif choice < 0.8:
            page.extend(rng.randrange(1 << 40))
        elif choice < 0.9:
            page.discarded(delta, 4 + size)
        else:
            now += rng.randrange(1 << 45)
            page.absolute(now & (1 << 59) - 1)
    if full and page.room >= 8:
        page.tail()
    return page
