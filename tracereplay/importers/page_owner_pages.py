"""Blocks of a page_owner dump into pages: ``print_page_owner`` of mm/page_owner.c, kernels 4.6 to 6.18.

A block is a page, or the head of a block of pages, and ends with a blank line::

    Page allocated via order 0, mask 0x140cca(GFP_USER|__GFP_COMP), pid 9, tgid 9 (sh), ts 12 ns, free_ts 5 ns
    PFN 0x1234 type Movable Block 2 type Movable Flags 0x17ffffc0000000(lru|node=0)
     post_alloc_hook+0x177/0x1a0
     dm_crypt_map+0x10/0x20 [dm_crypt]
    Page has been migrated, last migrate reason: compaction
    Charged to memcg name

Before 5.11 there is neither pid nor time, before 5.18 no tgid and no name, before 6.1 the frame is decimal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tracereplay.importers.rejects import Rejects

MIGRATETYPES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate")
"""``migratetype_names`` in the order of their numbers (mm/page_alloc.c) with CONFIG_CMA."""
NO_PID = NO_STACK = 2**32 - 1
PAGE = np.dtype(
    [
        ("ts_ns", "<i8"),
        ("pfn", "<u8"),
        ("gfp", "<u4"),
        ("pid", "<u4"),
        ("stack_id", "<u4"),
        ("order", "u1"),
        ("type", "u1"),
    ]
)
"""A page of the dump. ``pid`` NO_PID, ``stack_id`` NO_STACK and ``type`` 255 stand for null."""
NULL_TYPE = 255
_CHUNK = 4 << 20
_LONGEST = 1 << 20

_HEAD = re.compile(
    rb"Page allocated via order (\d+), mask (0x[0-9a-f]+)(?:\([^)]*\))?"
    rb"(?:, pid (-?\d+)(?:, tgid (-?\d+))?(?: \((.*)\))?, ts (\d+) ns(?:, free_ts \d+ ns)?)?\s*",
    re.DOTALL,
)
_FRAME_NUMBER = re.compile(rb"PFN (0x[0-9a-f]+|\d+) (?:type (\w+) )?")
_MEMCG = re.compile(rb"Charged (?:\(via objcg\) ?)?to (?:offline )?memcg (.*\S)")
_STACK_LINE = re.compile(
    rb"\s*(?:\[<([0-9a-f]+)>\] )?"
    rb"(?:0x([0-9a-f]+)\s*|(\S+?)(?:\+0x([0-9a-f]+)(?:/0x[0-9a-f]+)?)?(?: \[([^\s\]]+)[^\]]*\])?\s*)$"
)
NO_HEAD = "no line 'Page allocated via order' with numbers in range"
NO_FRAME = "no line 'PFN' with a number in range"
CUT = "the file ends within this page"


@dataclass
class Task:
    """Who allocated, by pid and name."""

    tgid: int | None
    first_ns: int
    last_ns: int
    memcgs: Counter[bytes] = field(default_factory=Counter)


class PageReader:
    """Reads pages; what they share is numbered."""

    def __init__(self) -> None:
        self.lines = 0
        self.rejects = Rejects()
        self.pages = 0
        self.migrated = 0
        self.untimed = 0
        self.stacks: dict[bytes, int] = {}
        """Text of the frames -> number."""
        self.tasks: dict[tuple[int, bytes | None], Task] = {}

    def runs(self, stream: BinaryIO, rows: int) -> Iterator[npt.NDArray[Any]]:
        """Up to ``rows`` pages at a time, in the order of the dump. What the stream raises comes out."""
        found: list[tuple[int, ...]] = []
        rest = b""
        while chunk := stream.read(_CHUNK):
            *blocks, rest = (rest + chunk.replace(b"\r\n", b"\n")).split(b"\n\n")
            if len(rest) > _LONGEST:
                blocks.append(rest)
                rest = b""
            for block in blocks:
                self._take(block, found)
                self.lines += block.count(b"\n") + 2
            if len(found) >= rows:
                yield np.array(found, PAGE)
                found = []
        if rest.strip():
            if rest.endswith(b"\n"):
                self._take(rest, found)
            else:
                self._refuse(rest, CUT)
            self.lines += rest.count(b"\n") + 1
        if found:
            yield np.array(found, PAGE)

    def _refuse(self, block: bytes, reason: str) -> None:
        blanks = len(block) - len(block.lstrip(b"\n"))
        self.rejects.add(self.lines + 1 + blanks, block.lstrip(b"\n").split(b"\n")[0], reason)

    def _take(self, block: bytes, found: list[tuple[int, ...]]) -> None:
        """One block of the dump."""
        parts = block.lstrip(b"\n").split(b"\n", 2)
        if not parts[0].strip() and len(parts) == 1:
            return
        head = _HEAD.fullmatch(parts[0])
        order = int(head[1]) if head else 99
        gfp = int(head[2], 16) if head else 0
        ts = int(head[6] or 0) if head else 0
        pid = int(head[3]) if head and head[3] else NO_PID
        if head is None or order > 63 or gfp >= 2**32 or ts >= 2**63 or pid > NO_PID:
            self._refuse(block, NO_HEAD)
            return
        frame = _FRAME_NUMBER.match(parts[1]) if len(parts) > 1 else None
        pfn = int(frame[1], 0 if frame[1].startswith(b"0x") else 10) if frame else 2**64
        if frame is None or pfn >= 2**64:
            self._refuse(block, NO_FRAME)
            return
        text = parts[2] if len(parts) > 2 else b""
        stack, memcg = self._stack_and_memcg(text)
        kind = _TYPES.get(frame[2], NULL_TYPE)
        self.pages += 1
        if head[6] is None:
            self.untimed += 1
        pid = NO_PID if pid < 0 else pid
        number = self.stacks.setdefault(stack, len(self.stacks)) if stack else NO_STACK
        found.append((ts, pfn, gfp, pid, number, order, kind))
        if pid != NO_PID:
            self._count(pid, head[5], head[4], ts, memcg)

    def _stack_and_memcg(self, text: bytes) -> tuple[bytes, bytes | None]:
        """Text of the frames, and the memory cgroup that is charged."""
        memcg = None
        if (
            b"\nCharged " in text
            or b"\nPage has" in text
            or b"\nSlab cache" in text
            or not text.startswith((b" ", b"["))
        ):
            frames = []
            for line in text.split(b"\n"):
                if line.startswith((b" ", b"[<")):
                    frames.append(line)
                elif match := _MEMCG.match(line):
                    memcg = match[1]
                elif line.startswith(b"Page has been migrated"):
                    self.migrated += 1
            text = b"\n".join(frames)
        return text.rstrip(b"\n"), memcg

    def _count(self, pid: int, comm: bytes | None, tgid: bytes | None, ts: int, memcg: bytes | None) -> None:
        task = self.tasks.get((pid, comm))
        if task is None:
            task = self.tasks[pid, comm] = Task(int(tgid) if tgid and tgid[:1] != b"-" else None, ts, ts)
        task.first_ns = min(task.first_ns, ts)
        task.last_ns = max(task.last_ns, ts)
        if memcg is not None:
            task.memcgs[memcg] += 1


_TYPES = {name.encode(): number for number, name in enumerate(MIGRATETYPES)}


def frames_of(stack: bytes) -> list[tuple[int | None, str | None, int | None, str | None]]:
    """(address, function, offset, module) of each line of a stack, innermost first."""
    frames: list[tuple[int | None, str | None, int | None, str | None]] = []
    for line in stack.split(b"\n") if stack else []:
        match = _STACK_LINE.match(line)
        if match is None:
            frames.append((None, line.strip().decode("utf-8", "backslashreplace")[:1024], None, None))
            continue
        address = match[1] or match[2]
        name, module = (
            None if part is None else part.decode("utf-8", "backslashreplace") for part in (match[3], match[5])
        )
        value, offset = (None if part is None else int(part, 16) for part in (address, match[4]))
        frames.append(
            (
                value if value is None or value < 2**64 else None,
                name,
                offset if offset is None or offset < 2**64 else None,
                module,
            )
        )
    return frames
