"""The compiled ftrace parser, driven: blocks of text in, rows and notes out.

Owns the parser's state: grows what is full, drains rows after each call, and attaches a stack to its row even when
the two are in different blocks.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.importers import ftrace_state as st
from tracereplay.importers.blocks import Block, line_blocks
from tracereplay.importers.ftrace_columns import NO_STACK
from tracereplay.importers.ftrace_parser import DONE, GROW, finish, parse
from tracereplay.importers.ftrace_stacks import HAS_ADDRESS, HAS_OFFSET
from tracereplay.importers.ftrace_vocabulary import CUT, FTRACE_GRAMMAR, REASONS, TOO_LONG, known_events
from tracereplay.importers.interning import Texts, rehash
from tracereplay.importers.losses import LossTracker
from tracereplay.importers.ordering import Columns
from tracereplay.importers.rejects import Rejects
from tracereplay.trace.schema import STACKS, TASKS

T = TypeVar("T", bound=np.generic)

LEAST_LINE = 48
"""Bytes: rows are sized so that a block of lines this short needs one call."""
NOTES = 1 << 12
SPECIAL_BYTES = 1024
COMMENTS = 256
"""Comment lines that are kept: the header of perf script."""
MM_BYTES = 512
UNCLEAR_LOSS = "it begins like a loss line and does not say what was lost"
_TABLES = {"page_events": st.TABLE_PAGE, "bio_events": st.TABLE_BIO}


class FtraceBlocks:
    """Parser state over one source."""

    def __init__(self, block_bytes: int, grammar: int = FTRACE_GRAMMAR) -> None:
        self._block_bytes = block_bytes
        self.events, self.gfp, self.rwbs, self.symbols = Texts(), Texts(), Texts(), Texts(4096)
        self.tasks, self.modules = Texts(4096), Texts()
        actions = known_events()
        for name in actions:
            self.events.add(name.encode())
        rows = max(16, block_bytes // LEAST_LINE)
        self._state = st.State(
            scalars=st.scalars(grammar),
            page=st.page_rows(rows),
            bio=st.bio_rows(rows),
            mm=st.mm_rows(min(rows, NOTES)),
            notes=st.notes(min(rows, NOTES)),
            cpus=st.cpus(),
            stacks=st.stacks(),
            tasks=st.Tasks(*(np.full(4096, -1, np.int64) for _ in range(3))),
            events=self.events.table,
            actions=np.array(list(actions.values()), np.int8),
            counts=np.zeros(1024, np.int64),
            gfp=self.gfp.table,
            rwbs=self.rwbs.table,
            task_texts=self.tasks.table,
            symbols=self.symbols.table,
            modules=self.modules.table,
        )
        self.comments: list[bytes] = []
        """The first comment lines."""
        self.rejects = Rejects()
        self.losses = LossTracker()
        self.late_stacks = 0
        """Stacks that came too long after their event to be attached."""
        self._previous: dict[str, Columns] = {}
        self._bases: dict[str, int] = {}

    # ------------------------------------------------------------ facts
    def scalar(self, slot: int) -> int:
        """A scalar of the parser's state (``ftrace_state``)."""
        return int(self._state.scalars[slot])

    def counts(self) -> dict[str, int]:
        """Events accepted, by the name in the text."""
        pairs = zip(self.events.texts(), self._state.counts.tolist(), strict=False)
        return {name.decode("utf-8", "backslashreplace"): n for name, n in pairs if n}

    def cpus_seen(self) -> npt.NDArray[np.int64]:
        """CPUs that have an event."""
        return np.flatnonzero(self._state.cpus.first >= 0)

    def started_ns(self) -> int | None:
        """First event of the CPU that begins last: from here on every CPU's ring held events."""
        seen = self.cpus_seen()
        return int(self._state.cpus.first[seen].max()) if seen.size else None

    # ------------------------------------------------------------ parsing
    def chunks(self, stream: BinaryIO) -> Iterator[dict[str, Columns]]:
        """Rows by table, in line order, as they become final; ``mm_events`` rows carry their arguments as text."""
        for block in line_blocks(stream, self._block_bytes):
            scalars = self._state.scalars
            if block.too_long is not None:
                self.rejects.add(int(scalars[st.LINE]), block.too_long, REASONS[TOO_LONG])
                scalars[st.LINE] += 1
            yield from self._parse(block)
            if block.cut is not None:
                self.rejects.add(int(scalars[st.LINE]), block.cut, REASONS[CUT])
                scalars[st.LINE] += 1
        finish(self._state)
        self._attach({}, {})
        if self._previous:
            yield self._previous
        self.losses.finish(self.started_ns())

    def _parse(self, block: Block) -> Iterator[dict[str, Columns]]:
        self._state.scalars[st.POSITION] = 0
        code = GROW
        while code != DONE:
            if code == GROW:
                self._grow()
            code = parse(block.buffer, block.end, self._state)
            rows = self._drain(block)
            if self._previous:
                yield self._previous
            self._previous = rows

    def _grow(self) -> None:
        """Double what is nearly full."""
        s = self._state
        for texts in (self.events, self.gfp, self.rwbs, self.tasks, self.symbols, self.modules):
            texts.grow()
        counts, tasks, stacks = s.counts, s.tasks, s.stacks
        if counts.size < self.events.table.hashes.size:
            counts = _longer(counts, self.events.table.hashes.size, 0)
        if tasks.first.size < self.tasks.table.hashes.size:
            tasks = st.Tasks(*(_longer(a, self.tasks.table.hashes.size, -1) for a in tasks))
        number = int(s.scalars[st.STACKS])
        if 2 * number >= stacks.hashes.size:
            size = 2 * stacks.hashes.size
            slots, hashes = np.full(2 * size, -1, np.int32), _longer(stacks.hashes, size, 0)
            rehash(slots, hashes, number)
            starts, lengths = _longer(stacks.starts, size, 0), _longer(stacks.lengths, size, 0)
            stacks = stacks._replace(slots=slots, hashes=hashes, starts=starts, lengths=lengths)
        if 2 * int(s.scalars[st.FRAMES]) >= stacks.symbol.size:
            size = 2 * stacks.symbol.size
            stacks = stacks._replace(
                symbol=_longer(stacks.symbol, size, 0),
                module=_longer(stacks.module, size, 0),
                address=_longer(stacks.address, size, 0),
                offset=_longer(stacks.offset, size, 0),
                has=_longer(stacks.has, size, 0),
            )
        self._state = s._replace(
            events=self.events.table,
            gfp=self.gfp.table,
            rwbs=self.rwbs.table,
            task_texts=self.tasks.table,
            symbols=self.symbols.table,
            modules=self.modules.table,
            counts=counts,
            tasks=tasks,
            stacks=stacks,
        )

    def _drain(self, block: Block) -> dict[str, Columns]:
        s, k = self._state, self._state.scalars
        pages, bios, mms = int(k[st.PAGES]), int(k[st.BIOS]), int(k[st.MMS])
        rows: dict[str, Columns] = {
            "page_events": {name: column[:pages].copy() for name, column in s.page._asdict().items()},
            "bio_events": {name: column[:bios].copy() for name, column in s.bio._asdict().items()},
            "mm_events": {name: column[:mms].copy() for name, column in s.mm._asdict().items()},
        }
        for name, n in (("page_events", pages), ("bio_events", bios)):
            rows[name]["stack_id"] = np.full(n, NO_STACK, np.int64)
        spans = zip(s.mm.start[:mms].tolist(), s.mm.length[:mms].tolist(), strict=True)
        rows["mm_events"]["text"] = np.array([_span(block, a, n, MM_BYTES) for a, n in spans], object)
        bases = {"page_events": int(k[st.PAGE_BASE]), "bio_events": int(k[st.BIO_BASE])}
        self._attach(rows, bases)
        self._read_notes(block)
        self._bases = bases
        k[st.PAGE_BASE] += pages
        k[st.BIO_BASE] += bios
        for slot in (st.PAGES, st.BIOS, st.MMS, st.REJECTS, st.SPECIALS, st.CLOSES):
            k[slot] = 0
        return rows

    def _attach(self, rows: dict[str, Columns], bases: dict[str, int]) -> None:
        """Give stacks to the rows of this call and the one before."""
        notes, n = self._state.notes, self.scalar(st.PATCHES)
        self._state.scalars[st.PATCHES] = 0
        for name, code in _TABLES.items():
            mine = notes.patch_table[:n] == code
            row, stack = notes.patch_row[:n][mine], notes.patch_stack[:n][mine]
            done = 0
            for chunk, base in ((rows, bases.get(name)), (self._previous, self._bases.get(name))):
                if base is None or not row.size:
                    continue
                column = chunk[name]["stack_id"]
                inside = (row >= base) & (row < base + column.size)
                column[row[inside] - base] = stack[inside]
                done += int(inside.sum())
            self.late_stacks += int(row.size) - done

    def _read_notes(self, block: Block) -> None:
        """Refused lines, and the lines about losses, in line order."""
        notes, k = self._state.notes, self._state.scalars
        n = int(k[st.REJECTS])
        for i in range(n):
            text = _span(block, int(notes.reject_start[i]), int(notes.reject_length[i]), SPECIAL_BYTES)
            self.rejects.add(int(notes.reject_line[i]), text, REASONS[notes.reject_reason[i]])
        specials, closes = int(k[st.SPECIALS]), int(k[st.CLOSES])
        order = [(int(notes.special_line[i]), 0, i) for i in range(specials)]
        order += [(int(notes.close_line[i]), 1, i) for i in range(closes)]
        for line, is_close, i in sorted(order):
            if is_close:
                self.losses.event_after(int(notes.close_cpu[i]), int(notes.close_ts[i]))
            else:
                self._special(block, i, line)

    def _special(self, block: Block, i: int, line: int) -> None:
        notes = self._state.notes
        text = _span(block, int(notes.special_start[i]), int(notes.special_length[i]), SPECIAL_BYTES)
        cpu, t0 = int(notes.special_cpu[i]), int(notes.special_t0[i])
        known = t0 if t0 >= 0 else None
        if cpu == st.ANY_CPU:
            seen = self.cpus_seen()
            before = seen[self._state.cpus.first_line[seen] < line]
            if not self.losses.lost_somewhere(text, known, before.tolist()):
                self.rejects.add(line, text, UNCLEAR_LOSS)
        elif cpu < 0:
            if text.startswith(b"#"):
                self.losses.comment(text)
                if len(self.comments) < COMMENTS:
                    self.comments.append(text)
        elif not self.losses.loss_line(text, cpu, known):
            self.rejects.add(line, text, UNCLEAR_LOSS)

    # ------------------------------------------------------------ tables at the end
    def task_batch(self, instances: Sequence[str] = ()) -> pa.RecordBatch:
        """Rows of ``tasks``: one per pid and name.

        trace-cmd report puts ``INSTANCE: `` before the name where a recording is of an ftrace instance.
        """
        n = len(self.tasks)
        tasks = self._state.tasks
        tgid = tasks.tgid[:n]
        comms = [text.decode("utf-8", "backslashreplace") for text in self.tasks.texts()]
        for name in instances:
            comms = [
                comm.removeprefix(f"{name}:").lstrip(" ") if comm.startswith(f"{name}: ") else comm for comm in comms
            ]
        columns = {
            "pid": pa.array(self.tasks.table.keys[:n], pa.uint32()),
            "tgid": pa.array(np.where(tgid < 0, 0, tgid), pa.uint32(), mask=tgid < 0),
            "comm": pa.array([None if comm == "<...>" else comm for comm in comms], pa.string()),
            "cgroup": pa.nulls(n, pa.string()),
            "first_ns": pa.array(tasks.first[:n]),
            "last_ns": pa.array(tasks.last[:n]),
        }
        return pa.RecordBatch.from_arrays([columns[f.name] for f in TASKS], schema=TASKS)

    def stack_batch(self) -> pa.RecordBatch:
        """Rows of ``stacks``: the frames of every distinct stack, innermost first."""
        n, frames = self.scalar(st.STACKS), self.scalar(st.FRAMES)
        stacks = self._state.stacks
        lengths = stacks.lengths[:n]
        starts = np.repeat(stacks.starts[:n], lengths)
        symbol, module, has = stacks.symbol[:frames], stacks.module[:frames], stacks.has[:frames]
        modules = pa.array(
            [module_name(t.decode("utf-8", "backslashreplace")) for t in self.modules.texts()], pa.string()
        )
        names = pa.array([t.decode("utf-8", "backslashreplace") for t in self.symbols.texts()], pa.string())
        columns = {
            "stack_id": pa.array(np.repeat(np.arange(n, dtype=np.uint32), lengths)),
            "depth": pa.array((np.arange(frames) - starts).astype(np.uint16)),
            "address": pa.array(stacks.address[:frames], mask=has & HAS_ADDRESS == 0),
            "symbol": pa.DictionaryArray.from_arrays(
                pa.array(np.where(symbol < 0, 0, symbol), pa.int32(), mask=symbol < 0), names
            ),
            "offset": pa.array(stacks.offset[:frames], mask=has & HAS_OFFSET == 0),
            "module": pa.DictionaryArray.from_arrays(
                pa.array(np.where(module < 0, 0, module), pa.int32(), mask=module < 0), modules
            ),
        }
        return pa.RecordBatch.from_arrays([columns[f.name] for f in STACKS], schema=STACKS)


def module_name(dso: str) -> str:
    """Module of what perf calls a frame's file: ``[dm_crypt]``, or ``/lib/modules/6.1/.../dm-crypt.ko.xz``."""
    name = dso.rpartition("/")[2]
    if (at := name.find(".ko")) > 0:
        return name[:at].replace("-", "_")
    return name.strip("[]")


def _span(block: Block, start: int, length: int, most: int) -> bytes:
    return block.buffer[start : start + min(length, most)].tobytes()


def _longer(array: npt.NDArray[T], size: int, value: int) -> npt.NDArray[T]:
    longer = np.full(size, value, array.dtype)
    longer[: array.size] = array
    return longer
