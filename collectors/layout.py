# SPDX-License-Identifier: GPL-2.0-only
"""Record layouts: one fixed size per ring, the same text drives the C struct and the reader's columns (via
hello)."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """A field of a record: C type, ``charN`` for N bytes of text padded with NULs, or ``u64xN`` for N numbers."""

    name: str
    type: str

    @property
    def base(self) -> str:
        """C type of the field, or of its elements."""
        return "char" if self.type.startswith("char") else self.type.split("x")[0]

    @property
    def count(self) -> int:
        """Elements of an array; 0 for a scalar."""
        if self.base == "char":
            return int(self.type[4:])
        return int(self.type.split("x")[1]) if "x" in self.type else 0

    @property
    def alignment(self) -> int:
        """Bytes of an element."""
        return 1 if self.base == "char" else C_TYPES[self.base]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.alignment * max(1, self.count)

    @property
    def declaration(self) -> str:
        """The field in C."""
        return f"{self.base} {self.name}[{self.count}];" if self.count else f"{self.base} {self.name};"


@dataclass(frozen=True)
class Ring:
    """A family of rings, one per CPU, that carries records of one layout."""

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
            if at % field.alignment:
                raise ValueError(f"{self.name}.{field.name} is not aligned at {at}")
            found[field.name] = at
            at += field.size
        if at % 8:
            raise ValueError(f"{self.name} records are {at} bytes, not a multiple of 8")
        return found

    def c_struct(self) -> str:
        """The record as C."""
        body = "\n".join(f"    {field.declaration}" for field in self.fields)
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


# Every record begins with ts and has seq, kind (index of the program in hello `probes`) and flags.
PAGE = Ring(
    "page",
    "page_events",
    _fields("ts:u64 pfn:u64 gfp:u32 pid:u32 seq:u32 kind:u8 order:u8 migratetype:u8 flags:u8"),
    1,
)
BIO = Ring(
    "bio",
    "bio_events",
    _fields(
        "ts:u64 sector:u64 other_sector:u64 dev:u32 old_dev:u32 nr_sectors:u32 nr_bytes:u32 error:s32"
        " pid:u32 seq:u32 kind:u8 flags:u8 pad:u16 rwbs:char12 reserved:u32"
    ),
    4,
)
TASK = Ring(
    "task",
    "tasks",
    _fields("ts:u64 cgroup:u64 pid:u32 tgid:u32 comm:char16 seq:u32 kind:u8 flags:u8 pad:u16"),
    64,
)
MM = Ring(
    "mm",
    "mm_events",
    _fields("ts:u64 result:u64 gfp:u32 pid:u32 seq:u32 kind:u8 order:u8 flags:u8 pad:u8"),
    64,
)
STACK_FRAMES = 32
STACK = Ring(
    "stack",
    "stacks",
    _fields(f"ts:u64 hash:u64 seq:u32 depth:u16 kind:u8 flags:u8 frames:u64x{STACK_FRAMES}"),
    16,
)
"""Stacks at first sight; events name them by hash."""
BULK = Ring(
    "bulk",
    "page_events",
    _fields("ts:u64 caller:u64 requested:u32 returned:u32 gfp:u32 pid:u32 seq:u32 kind:u8 flags:u8 pad:u16"),
    16,
)

_WITH_STACK = ("page", "bio")


def rings_for(*, stacks: bool = False, bulk: bool = False) -> tuple[Ring, ...]:
    """The rings of a capture, in the order of their numbers in BATCH frames."""
    rings = [PAGE, BIO, TASK, MM]
    if stacks:
        field = _fields("stack:u64")
        rings = [replace(r, fields=r.fields + field) if r.name in _WITH_STACK else r for r in rings]
        rings.append(STACK)
    if bulk:
        rings.append(BULK)
    return tuple(rings)
