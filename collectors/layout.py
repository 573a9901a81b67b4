# SPDX-License-Identifier: GPL-2.0-only
"""Record layouts: one fixed size per ring, the same text drives the C struct and the reader's columns (via
hello)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RING_HEADER = 8
"""Bytes that the kernel puts before each record: u32 length and flags, u32 private (kernel/bpf/ringbuf.c)."""

C_TYPES = {"u8": 1, "u16": 2, "u32": 4, "s32": 4, "u64": 8}

FLAG_REFILL = 0x01
"""``flags``: percpu_refill of mm_page_alloc_zone_locked."""
FLAG_LOST_NO_RING = 0x20
"""``flags``: records were lost right before this one because the CPU had no ring (came online later)."""
FLAG_LOST_FULL = 0x40
"""``flags``: records were lost right before this one because the ring was full."""
FLAG_LOST_LOCK = 0x80
"""``flags``: records were lost right before this one although the ring had space (its lock was refused)."""


@dataclass(frozen=True)
class Field:
    """A field of a record: C type, or ``charN`` for N bytes of text padded with NULs."""

    name: str
    type: str

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.type[4:]) if self.type.startswith("char") else C_TYPES[self.type]


@dataclass(frozen=True)
class Ring:
    """A family of rings, one per CPU, that carries records of one layout."""

    index: int
    name: str
    table: str
    """The trace table that its losses are booked under."""
    fields: tuple[Field, ...]
    share: int
    """Size relative to --ring-mib: the ring gets ring_mib / share."""

    @property
    def size(self) -> int:
        """Payload bytes of a record."""
        return sum(f.size for f in self.fields)

    @property
    def stride(self) -> int:
        """Bytes from one record to the next, the kernel's header included."""
        return (self.size + RING_HEADER + 7) & ~7

    def offsets(self) -> dict[str, int]:
        """Offset of each field in the payload. Fields are ordered so that none needs padding (checked)."""
        found: dict[str, int] = {}
        at = 0
        for field in self.fields:
            align = 1 if field.type.startswith("char") else field.size
            if at % align:
                raise ValueError(f"{self.name}.{field.name} is not aligned at {at}")
            found[field.name] = at
            at += field.size
        if at % 8:
            raise ValueError(f"{self.name} records are {at} bytes, not a multiple of 8")
        return found

    def c_struct(self) -> str:
        """The record as C."""
        lines = []
        for field in self.fields:
            if field.type.startswith("char"):
                lines.append(f"    char {field.name}[{field.size}];")
            else:
                lines.append(f"    {field.type} {field.name};")
        body = "\n".join(lines)
        return f"struct {self.name}_rec {{\n{body}\n}};"

    def describe(self) -> dict[str, Any]:
        """What hello says of the layout."""
        at = self.offsets()
        return {
            "name": self.name,
            "table": self.table,
            "record_bytes": self.size,
            "stride": self.stride,
            "fields": [{"name": f.name, "type": f.type, "offset": at[f.name]} for f in self.fields],
        }


def _fields(text: str) -> tuple[Field, ...]:
    return tuple(Field(*item.split(":")) for item in text.split())


# Every record begins with ts and seq; `kind` is the index of the probe in hello `probes`.
PAGE = Ring(
    0,
    "page",
    "page_events",
    _fields("ts:u64 pfn:u64 gfp:u32 pid:u32 seq:u32 kind:u8 order:u8 migratetype:u8 flags:u8"),
    1,
)
BIO = Ring(
    1,
    "bio",
    "bio_events",
    _fields(
        "ts:u64 sector:u64 other_sector:u64 dev:u32 old_dev:u32 nr_sectors:u32 nr_bytes:u32 error:s32"
        " pid:u32 seq:u32 kind:u8 flags:u8 pad:u16 rwbs:char12 reserved:u32"
    ),
    4,
)
TASK = Ring(2, "task", "tasks", _fields("ts:u64 pid:u32 tgid:u32 comm:char16 seq:u32 kind:u8 flags:u8 pad:u16"), 64)
RINGS = (PAGE, BIO, TASK)
