"""The slow, obvious reader of one ring-buffer page: a loop over its records, as kernel/trace/ring_buffer.c does it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class SlowPage:
    """What a page holds."""

    stamp: int
    missed: bool
    lost: int | None
    """How many records were overwritten before the page; None: it does not say."""
    events: list[tuple[int, bytes]] = field(default_factory=list)
    """(time, data) of each data record."""


def read_page(page: bytes, *, commit_at: int = 8, data_at: int = 16) -> SlowPage:
    """One little-endian page. Raises ValueError for records that run over its used bytes."""
    (stamp,) = struct.unpack_from("<Q", page, 0)
    (word,) = struct.unpack_from("<I", page, commit_at)
    used = word & 0x3FFFFFFF
    missed = bool(word >> 31)
    lost = None
    if missed and word >> 30 & 1:
        (lost,) = struct.unpack_from("<Q", page, data_at + used)
    out = SlowPage(stamp, missed, lost)
    now = stamp
    at = 0
    while at < used:
        (head,) = struct.unpack_from("<I", page, data_at + at)
        kind, delta = head & 31, head >> 5
        if kind == 29 and delta == 0:
            break
        following = struct.unpack_from("<I", page, data_at + at + 4)[0] if at + 8 <= used else 0
        if kind == 30:
            now += delta + (following << 27)
            size = 8
        elif kind == 31:
            absolute = delta + (following << 27)
            if stamp >> 59:
                absolute |= stamp >> 59 << 59
                if absolute < stamp:
                    absolute += 1 << 59
            now = absolute
            size = 8
        elif kind == 29:
            now += delta if delta != 1 else 0
            size = 4 + (following + 3) // 4 * 4
        else:
            now += delta
            data_from = 8 if kind == 0 else 4
            size = 4 + (following + 3) // 4 * 4 if kind == 0 else 4 + 4 * kind
            out.events.append((now, page[data_at + at + data_from : data_at + at + size]))
        at += size
        if at > used:
            raise ValueError("a record runs over the end of the page")
    return out
