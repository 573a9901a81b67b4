"""An ftrace text as a conversion: batches for page, bio and reclaim events, tasks, stacks and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa

from tracereplay.errors import EmptyTraceError, ImportFormatError
from tracereplay.importers import ftrace_state as st
from tracereplay.importers.base import ImportOptions, ImportSummary
from tracereplay.importers.features import Features, nowarn_apart
from tracereplay.importers.ftrace_blocks import FtraceBlocks
from tracereplay.importers.ftrace_columns import GfpMasks, Rwbs, bio_batch, mm_batch, mm_fields, page_batch
from tracereplay.importers.ftrace_vocabulary import (
    FTRACE,
    KERNEL_STACK,
    LATE,
    REASONS,
    SYSTEMS,
    TextForm,
    full_name,
    known_events,
)
from tracereplay.importers.ordering import Columns, Reorder
from tracereplay.importers.perf_header import header_facts
from tracereplay.importers.rejects import first_text
from tracereplay.importers.source import DAMAGED
from tracereplay.importers.tool_text import NOTHING_TOLD, Told
from tracereplay.kernel.gfp import gfp_table
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.schema import EVENT_TABLES


class TextSource(Protocol):
    """Where the text comes from: a file, or a program's output."""

    name: str

    def open(self, advance: Callable[[int], None]) -> AbstractContextManager[BinaryIO]:
        """The text's bytes."""
        ...

    def facts(self) -> dict[str, Any]:
        """``path sha256 ...`` for the metadata."""
        ...


class FtraceConversion:
    """Imports one text in a form. ``told``: what a container around it knows; ``format``: that container."""

    def __init__(
        self,
        source: TextSource,
        options: ImportOptions,
        advance: Callable[[int], None],
        *,
        form: TextForm = FTRACE,
        format: str | None = None,
        told: Told = NOTHING_TOLD,
    ) -> None:
        self.metadata = TraceMetadata()
        self.summary = ImportSummary()
        self._source, self._options, self._advance = source, options, advance
        self._form = form
        self._format = format or form.format
        self._host, self._instances = told.host, told.instances
        self._clock = options.clock or told.clock
        self._blocks = FtraceBlocks(options.block_bytes, form.grammar)
        self._rwbs = Rwbs()
        self._told_events: list[str] = []
        self._gfp: GfpMasks | None = None
        self._gfp_table: dict[str, int] = {}
        self._reorder = {table: Reorder(options.reorder_rows) for table in EVENT_TABLES}
        self._rows = dict.fromkeys(EVENT_TABLES, 0)

    def batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Event rows in time order, then tasks, stacks and losses.

        Raises ImportFormatError (compressed data cut short or damaged; with ``strict``, a bad line; no event line
        at all) and EmptyTraceError (no event that a trace has a table for).
        """
        try:
            with self._source.open(self._advance) as stream:
                for chunk in self._blocks.chunks(stream):
                    self._check_strict()
                    yield from self._ordered(chunk)
        except DAMAGED as error:
            raise ImportFormatError(
                f"{self._source.name} cannot be read to its end: {error}",
                hint="the file is cut short or damaged: copy it again from where it was made",
            ) from error
        self._check_strict()
        self._summarise()
        self._check_events()
        for table, reorder in self._reorder.items():
            for rows in reorder.flush():
                yield table, self._batch(table, rows)
        self._finish()
        for table, batch in (
            ("tasks", self._blocks.task_batch(self._instances)),
            ("stacks", self._blocks.stack_batch()),
            ("loss", self._blocks.losses.batch()),
        ):
            if batch.num_rows:
                yield table, batch

    # ------------------------------------------------------------ rows
    def _ordered(self, chunk: dict[str, Columns]) -> Iterator[tuple[str, pa.RecordBatch]]:
        self._learn()
        for table, rows in chunk.items():
            if table == "mm_events":
                rows = self._mm_rows(rows)
            self._rows[table] += rows["ts_ns"].size
            ready, late = self._reorder[table].push(rows)
            if late is not None:
                self._count_late(table, late)
            for part in ready:
                yield table, self._batch(table, part)

    def _learn(self) -> None:
        """Choose the gfp names once, from the first block; then take in texts that are new."""
        blocks = self._blocks
        if self._gfp is None:
            told = header_facts(blocks.comments)
            self._host = {**told.host, **self._host}
            self._clock = self._clock or told.clock
            self._told_events = told.events
            release = self._options.release or self._host.get("release") or self._features().release()
            self._gfp_table = gfp_table(release)
            self._gfp = GfpMasks(self._gfp_table)
            if not (self._options.release or self._host.get("release")):
                says = f"those of {release}, by features seen" if release else "those of the newest kernel known"
                self.metadata.notes.append(f"the source does not name its kernel: gfp names are {says} (--kernel)")
        self._gfp.extend(blocks.gfp.texts(len(self._gfp)))
        self._rwbs.extend(blocks.rwbs.texts(len(self._rwbs)))

    def _features(self) -> Features:
        seen = self._blocks.scalar
        texts = self._blocks.gfp.texts()
        return Features(
            decimal_pfn=None
            if not seen(st.SEEN_HEX_PFN) and not seen(st.SEEN_DECIMAL_PFN)
            else not seen(st.SEEN_HEX_PFN),
            percpu_refill=bool(seen(st.SEEN_PERCPU_REFILL)) if seen(st.SEEN_ZONE_LOCKED) else None,
            ioprio=bool(seen(st.SEEN_IOPRIO)) if seen(st.SEEN_REQUEST) else None,
            nowarn_apart_from_nowait=nowarn_apart(texts),
            gfp_atomic_bit=True if any(b"__GFP_ATOMIC" in t.split(b"|") for t in texts) else None,
        )

    def _mm_rows(self, rows: Columns) -> Columns:
        found = [mm_fields(text, self._gfp_table) for text in rows["text"]]
        columns = {name: rows[name] for name in ("ts_ns", "cpu", "kind", "pid")}
        for name in ("order", "gfp", "result"):
            columns[name] = np.array([-1 if f[name] is None else f[name] for f in found], np.int64)
        return columns

    def _batch(self, table: str, rows: Columns) -> pa.RecordBatch:
        if table == "page_events":
            assert self._gfp is not None
            return page_batch(rows, self._gfp)
        return bio_batch(rows, self._rwbs) if table == "bio_events" else mm_batch(rows)

    def _count_late(self, table: str, late: Columns) -> None:
        self._rows[table] -= late["ts_ns"].size
        what = f"{table} at {{ts}} ns on CPU {{n}}"
        self._blocks.rejects.add_late(late["ts_ns"], late["cpu"], what, REASONS[LATE])
        self._check_strict()

    # ------------------------------------------------------------ checks
    def _check_strict(self) -> None:
        self._blocks.rejects.check_strict(self._options.strict, self._source.name, "lines")

    def _check_events(self) -> None:
        if any(self._rows.values()):
            return
        summary = self.summary
        if not self._blocks.scalar(st.EVENTS) and not summary.other_events:
            refused = f" ({summary.rejected} refused; {first_text(summary.samples)})" if summary.rejected else ""
            raise ImportFormatError(
                f"no line of {self._source.name} is {self._form.line}{refused}", hint=self._form.hint
            )
        most = sorted(summary.other_events.items(), key=lambda item: -item[1])[:5]
        seen = ", ".join(f"{name} ({n})" for name, n in most) or "only damaged lines"
        names = ", ".join(f"{system}:*" for system in SYSTEMS)
        raise EmptyTraceError(
            f"{self._source.name} has no page-allocation or block event; it has: {seen}",
            hint=f"record with events of {names}; for example {self._form.record}",
        )

    # ------------------------------------------------------------ end
    def _summarise(self) -> None:
        blocks, summary = self._blocks, self.summary
        known = known_events()
        for name, n in blocks.counts().items():
            if name not in known:
                summary.other_events[name] = n
            elif known[name] < KERNEL_STACK:
                event = full_name(name.rpartition(":")[2])
                summary.events[event] = summary.events.get(event, 0) + n
        summary.lines = blocks.scalar(st.LINE) - 1
        summary.rejected = blocks.rejects.count
        summary.samples = blocks.rejects.samples()
        summary.tasks = len(blocks.tasks)
        summary.stacks = blocks.scalar(st.STACKS)
        summary.lost = blocks.losses.total()
        summary.loss_intervals = len(blocks.losses.intervals)
        if blocks.scalar(st.EVENTS):
            summary.first_ns, summary.last_ns = blocks.scalar(st.FIRST_TS), blocks.scalar(st.LAST_TS)

    def _finish(self) -> None:
        blocks, meta, summary = self._blocks, self.metadata, self.summary
        fraction = blocks.scalar(st.FRACTION_MOST)
        meta.clock = {"name": self._clock or "unknown", "resolution_ns": 10 ** (9 - fraction) if fraction else 1}
        if not fraction:
            meta.clock["unit"] = "ticks"
            meta.notes.append("times are bare numbers of a counter clock: ts_ns holds ticks, not nanoseconds")
        meta.source = {"kind": "import", "format": self._format, **self._source.facts(), "lines": summary.lines}
        if summary.other_events:
            meta.source["other_events"] = summary.other_events
        meta.host = {**self._host, "features": self._features().facts()}
        if self._options.release:
            meta.host["release"] = self._options.release
        meta.host.setdefault("cpus_seen", int(blocks.cpus_seen().size))
        known = known_events()
        meta.events = sorted({*summary.events, *(e for e in self._told_events if e in known)})
        meta.gfp_flags = dict(self._gfp_table)
        meta.rejected = blocks.rejects.metadata()
        loose = blocks.scalar(st.STACKS_LOOSE) + blocks.late_stacks
        if loose:
            meta.notes.append(f"{loose} stacks follow no event of a table and were left out")
        if guests := blocks.scalar(st.GUESTS):
            meta.notes.append(f"{guests} events are of virtual machines (VM:): their page frames are not the host's")
        if blocks.scalar(st.USER_FRAMES):
            meta.notes.append(
                "call chains are kept as far as they are in the kernel; frames in user space are left out"
            )
        if self._gfp is not None and self._gfp.unknown:
            names = ", ".join(self._gfp.unknown[:5])
            meta.notes.append(f"gfp texts with names this kernel does not have, stored as null: {names}")
        summary.notes = meta.notes
