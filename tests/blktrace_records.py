"""blktrace records for tests: written and read one by one with struct, and the rows that they should become.

Slow and obvious on purpose; the layouts are those of include/uapi/linux/blktrace_api.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tracereplay.kernel.rwbs import operation

MAGIC = 0x65617400
V7 = "IIQQIIIIIHH"
V8 = "IIQQIIQIIHH12x"
WRITE, FLUSH, SYNC, COMPLETE, FS, PC, NOTIFY = 1 << 1, 1 << 2, 1 << 3, 1 << 7, 1 << 8, 1 << 9, 1 << 10
AHEAD, META, DISCARD, FUA, ZONE_APPEND, ZONE_CLOSE, WRITE_ZEROES = (1 << n for n in (11, 12, 13, 15, 16, 21, 22))
ZONES = dict(zip(range(16, 22), ("ZA", "ZR", "ZRA", "ZF", "ZO", "ZC"), strict=True))
KINDS = {
    1: "queue",
    2: "backmerge",
    3: "frontmerge",
    6: "requeue",
    7: "issue",
    8: "complete",
    12: "insert",
    13: "split",
    15: "remap",
}
ACTS = {"Q": 1, "M": 2, "F": 3, "G": 4, "R": 6, "D": 7, "C": 8, "P": 9, "U": 10, "UT": 11, "I": 12, "X": 13, "A": 15}
SDA = 8 << 20


@dataclass(frozen=True)
class Record:
    """One record; ``pdu`` is what follows it, without the cgroup's id."""

    act: int
    time: int
    sector: int = 0
    nr_bytes: int = 0
    category: int = 0
    pid: int = 1
    dev: int = SDA
    cpu: int = 0
    error: int = 0
    pdu: bytes = b""
    cgroup: int | None = None
    sequence: int = 0


def encode(record: Record, version: int = 7, order: str = "<") -> bytes:
    """Its bytes. ``order``: ``<`` or ``>``."""
    r = record
    action = r.act | r.category << 16 | (0 if r.cgroup is None else 0x100)
    pdu = (b"" if r.cgroup is None else struct.pack(order + "Q", r.cgroup)) + r.pdu
    head = (MAGIC | version, r.sequence, r.time, r.sector, r.nr_bytes)
    tail = (r.dev, r.cpu, r.error & 0xFFFF, len(pdu))
    if version == 7:
        return struct.pack(order + V7, *head, action, r.pid, *tail) + pdu
    return struct.pack(order + V8, *head, r.pid, action, *tail) + pdu


def decode(data: bytes) -> list[Record]:
    """Records of sound little-endian bytes."""
    at, found = 0, []
    while at < len(data):
        if data[at] == 7:
            _, seq, time, sector, size, action, pid, dev, cpu, error, length = struct.unpack_from("<" + V7, data, at)
            at += 48
        else:
            _, seq, time, sector, size, pid, action, dev, cpu, error, length = struct.unpack_from("<" + V8, data, at)
            at += 64
        pdu = data[at : at + length]
        at += length
        cgroup = None
        if action & 0x100:
            cgroup, pdu = struct.unpack("<Q", pdu[:8])[0], pdu[8:]
        error -= (error & 0x8000) << 1
        act = action & 0xFEFF
        found.append(Record(act, time, sector, size, action >> 16, pid, dev, cpu, error, pdu, cgroup, seq))
    return found


def numbered(records: Iterable[Record]) -> list[Record]:
    """The records with the sequence numbers of their devices and CPUs."""
    last: dict[tuple[int, int], int] = {}
    made = []
    for record in records:
        if not record.category & NOTIFY:
            key = (record.dev, record.cpu)
            last[key] = last.get(key, 0) + 1
            record = replace(record, sequence=last[key])
        made.append(record)
    return made


def process(pid: int, comm: str, time: int, cpu: int = 0) -> Record:
    """A note of a task's name."""
    return Record(0, time, category=NOTIFY, pid=pid, cpu=cpu, pdu=comm.encode().ljust(16, b"\0"))


def flags(record: Record) -> str:
    """``rwbs``, as fill_rwbs in kernel/trace/blktrace.c makes it."""
    c = record.category
    zone = next((name for bit, name in ZONES.items() if c >> bit & 1), None)
    text = "F" if c & FLUSH else ""
    if c & DISCARD:
        text += "D"
    elif zone:
        text += zone
    elif c & WRITE_ZEROES:
        text += "WZ"
    elif c & WRITE:
        text += "W"
    else:
        text += "R" if record.nr_bytes else "N"
    for bit, letter in ((FUA, "F"), (AHEAD, "A"), (SYNC, "S"), (META, "M")):
        text += letter if c & bit else ""
    return text


def row(record: Record) -> dict[str, Any] | None:
    """The row of bio_events that a record should become, None for what is only counted."""
    r = record
    kind = KINDS.get(r.act)
    if kind is None or r.category & NOTIFY:
        return None
    if r.act == 8 and r.category & ZONE_APPEND and not r.category & COMPLETE:
        return None
    request = bool(r.category & (FS | PC))
    made: dict[str, Any] = {
        "ts_ns": r.time,
        "cpu": r.cpu,
        "kind": "bio_complete" if kind == "complete" and not request else kind,
        "dev": r.dev,
        "sector": r.sector,
        "nr_sectors": r.nr_bytes // 512,
        "nr_bytes": r.nr_bytes if request else None,
        "op": "F" if flags(r).startswith("FN") else operation(flags(r)),
        "flags": flags(r),
        "pid": r.pid,
        "error": r.error if kind in ("complete", "requeue") else None,
        "old_dev": None,
        "old_sector": None,
        "new_sector": None,
    }
    if kind == "remap":
        made["old_dev"], made["dev"], made["old_sector"] = struct.unpack(">IIQ", r.pdu)
    if kind == "split":
        made["new_sector"] = struct.unpack(">Q", r.pdu)[0]
    return made


_LINE = re.compile(r" *(\d+),(\d+) +(\d+) +(-?\d+) +(\d+)\.(\d{9}) +(\d+) +(\w+) +(\w+) (.*)")


def line_row(line: str) -> dict[str, Any] | None:
    """What a line of blkparse says of the row it stands for (no ``kind`` of completion), None for other actions."""
    match = _LINE.fullmatch(line)
    assert match is not None, line
    major, minor, cpu, _, seconds, nano, pid, action, rwbs, rest = match.groups()
    kind = KINDS.get(ACTS.get(action, 0))
    if kind is None:
        return None
    made: dict[str, Any] = {
        "ts_ns": int(seconds) * 10**9 + int(nano),
        "cpu": int(cpu),
        "kind": kind,
        "dev": int(major) << 20 | int(minor),
        "sector": None if kind in ("queue", "backmerge", "frontmerge") else 0,  # not told where nothing is moved
        "flags": rwbs,
        "pid": int(pid),
        "error": None,
        "old_dev": None,
        "old_sector": None,
        "new_sector": None,
    }
    if span := re.match(r"(\d+)(?: \+ (\d+))?", rest):
        made["sector"] = int(span[1])
    made["nr_sectors"] = int(span[2]) if span and span[2] else 0
    if kind in ("complete", "requeue"):
        error = re.search(r"\[(-?\d+)\]$", rest)
        assert error is not None
        made["error"] = int(error[1])
    if old := re.search(r"<- \((\d+),(\d+)\) (\d+)", rest):
        made["old_dev"], made["old_sector"] = int(old[1]) << 20 | int(old[2]), int(old[3])
    if kind == "split":
        made["new_sector"] = int(rest.split()[2])
        del made["nr_sectors"]  # the text does not tell
    return made
