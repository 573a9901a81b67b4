"""Block events of blktrace or blkparse as a conversion: bio_events, tasks, losses, and the facts beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from tracereplay.errors import EmptyTraceError, ImportFormatError
from tracereplay.importers import blktrace_state as st
from tracereplay.importers.base import ImportOptions, ImportSummary
from tracereplay.importers.blktrace_format import flags_operation
from tracereplay.importers.block_reader import BlockReader
from tracereplay.importers.ftrace_vocabulary import LATE, NULL_ERROR, REASONS
from tracereplay.importers.ordering import Columns, Reorder
from tracereplay.importers.rejects import first_text
from tracereplay.importers.source import DAMAGED
from tracereplay.trace.ahead import ahead
from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.metadata import TraceMetadata

AHEAD_BATCHES = 4
NAMED_FILES = 4
"""Of a source of several files, in its note."""


class BlockConversion:
    """Imports one source of block events. ``hint``: what to do when nothing in it is an event."""

    def __init__(
        self,
        name: str,
        reader: BlockReader,
        options: ImportOptions,
        advance: Callable[[int], None],
        *,
        hint: str,
    ) -> None:
        self.metadata = TraceMetadata()
        self.summary = ImportSummary()
        self._name, self._reader, self._options, self._advance, self._hint = name, reader, options, advance, hint
        self._shared = reader.shared
        self._reorder = Reorder(options.reorder_rows)
        self._rows = 0

    def batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Bio events in time order, then tasks and losses. Parsing goes on while the consumer writes.

        Raises ImportFormatError (compressed data cut short or damaged; with ``strict``, a bad record; nothing of the
        format at all) and EmptyTraceError (no event that a trace has a table for).
        """
        yield from ahead(self._batches(), AHEAD_BATCHES, "tracereplay-import")

    def _batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        try:
            for chunk in self._reader.chunks(self._advance):
                self._check_strict()
                self._rows += chunk["ts_ns"].size
                ready, late = self._reorder.push(chunk)
                if late is not None:
                    self._count_late(late)
                for part in ready:
                    yield self._batch(part)
        except DAMAGED as error:
            raise ImportFormatError(
                f"{self._name} cannot be read to its end: {error}",
                hint="the file is cut short or damaged: copy it again from where it was made",
            ) from error
        self._check_strict()
        for part in self._reorder.flush():
            yield self._batch(part)
        self._summarise()
        self._check_events()
        self._finish()
        for table, batch in (("tasks", self._shared.task_batch()), ("loss", self._shared.losses.batch())):
            if batch.num_rows:
                yield table, batch

    def _batch(self, rows: Columns) -> tuple[str, pa.RecordBatch]:
        self._reader.settle(rows)
        return "bio_events", bio_batch(rows, self._shared.flags())

    # ------------------------------------------------------------ checks
    def _count_late(self, late: Columns) -> None:
        self._rows -= late["ts_ns"].size
        what = "bio_events at {ts} ns on CPU {n}"
        self._shared.rejects.add_late(late["ts_ns"], late["cpu"], what, REASONS[LATE])
        self._check_strict()

    def _check_strict(self) -> None:
        self._shared.rejects.check_strict(self._options.strict, self._name, "places")

    def _check_events(self) -> None:
        if self._rows:
            return
        summary = self.summary
        if not summary.other_events:
            refused = f" ({summary.rejected} refused; {first_text(summary.samples)})" if summary.rejected else ""
            raise ImportFormatError(f"nothing in {self._name} is a block event{refused}", hint=self._hint)
        seen = ", ".join(f"{name} ({n})" for name, n in list(summary.other_events.items())[:5])
        raise EmptyTraceError(
            f"{self._name} has no event on a bio or a request; it has: {seen}",
            hint="record queue, issue and complete: blktrace without -a, or with -a queue -a issue -a complete",
        )

    # ------------------------------------------------------------ end
    def _summarise(self) -> None:
        shared, summary = self._shared, self.summary
        summary.events, summary.other_events = shared.counts()
        summary.rejected = shared.rejects.count
        summary.lines = shared.scalar(st.RECORDS) + summary.rejected
        summary.samples = shared.rejects.samples()
        summary.tasks = len(shared.task_texts)
        summary.lost = shared.losses.total()
        summary.loss_intervals = len(shared.losses.intervals)
        if shared.scalar(st.FIRST_TS) >= 0:
            summary.first_ns, summary.last_ns = shared.scalar(st.FIRST_TS), shared.scalar(st.LAST_TS)

    def _finish(self) -> None:
        shared, meta, summary = self._shared, self.metadata, self.summary
        # blkparse counts from the first event, in its text and in the dumps that it merges.
        relative = summary.first_ns == 0 or self._reader.relative
        name = "since the first event" if relative else "monotonic"
        meta.clock = {"name": self._options.clock or name, "resolution_ns": 1}
        if shared.walls and not relative:
            meta.clock["triples"] = [[ts, None, wall] for ts, wall in shared.walls]
        meta.source = {"kind": "import", "format": self._reader.format(), **self._reader.facts()}
        if summary.other_events:
            meta.source["other_events"] = summary.other_events
        meta.host = {"cpus_seen": shared.cpus()}
        if self._options.release:
            meta.host["release"] = self._options.release
        meta.events = sorted(summary.events)
        meta.rejected = shared.rejects.metadata()
        if files := meta.source.get("files"):
            names = ", ".join(file["path"] for file in files[:NAMED_FILES])
            more = f" and {len(files) - NAMED_FILES} more" if len(files) > NAMED_FILES else ""
            meta.notes.append(f"{len(files)} files were merged by time: {names}{more}")
        if any(shared.state.tasks.cgroup[: len(shared.task_texts)]):
            meta.notes.append("cgroups are known by id (the inode of their directory), not by path")
        summary.notes = meta.notes


def bio_batch(rows: Columns, flags: list[str]) -> pa.RecordBatch:
    """Rows of ``bio_events`` from columns of ``BlockRows``; ``flags``: texts by number."""
    operations = [flags_operation(text) for text in flags]
    distinct = sorted(set(operations))
    codes = np.array([distinct.index(o) for o in operations], np.int32)
    numbers = rows["flags"].astype(np.int32)
    columns: dict[str, pa.Array] = {
        "ts_ns": pa.array(rows["ts_ns"]),
        "cpu": pa.array(rows["cpu"]),
        "kind": pa.DictionaryArray.from_arrays(pa.array(rows["kind"]), kind_dictionary("bio_events")),
        "dev": pa.array(rows["dev"]),
        "sector": pa.array(rows["sector"]),
        "nr_sectors": pa.array(rows["nr_sectors"]),
        "op": pa.DictionaryArray.from_arrays(pa.array(codes[numbers]), pa.array(distinct, pa.string())),
        "flags": pa.DictionaryArray.from_arrays(pa.array(numbers), pa.array(flags, pa.string())),
        "pid": pa.array(rows["pid"]),
    }
    for name, kind, null in (
        ("nr_bytes", np.uint32, rows["nr_bytes"] < 0),
        ("error", np.int32, rows["error"] == NULL_ERROR),
        ("old_dev", np.uint32, rows["old_dev"] < 0),
        ("old_sector", np.uint64, rows["old_dev"] < 0),
        ("new_sector", np.uint64, rows["new_sector"] < 0),
    ):
        if not null.all():
            columns[name] = pa.array(rows[name].astype(kind), mask=null)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
