"""What comes beside the events of a capture: snapshots, the page map, tasks, cgroups, stacks, shed load."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tracereplay.errors import CollectorError
from tracereplay.trace import frames
from tracereplay.trace.decode import Records
from tracereplay.trace.event_batches import TaskTable
from tracereplay.trace.printfmt import migratetype_names
from tracereplay.trace.schema import SHED
from tracereplay.trace.snapshots import snapshot_batch, snapshot_of
from tracereplay.trace.unseen import UnseenTally
from tracereplay.trace.writer import TraceWriter

if TYPE_CHECKING:
    from tracereplay.trace.flight import FlightRecorder
    from tracereplay.trace.stacks import StackTable


class SideTables:
    """Takes the frames and records that are not events, and writes their tables, some at once, some at the end."""

    def __init__(self, writer: TraceWriter) -> None:
        self._writer = writer
        self.tasks = TaskTable()
        self.stacks: StackTable | None = None
        """None: this capture takes no stacks."""
        self.shed: list[dict[str, Any]] = []
        """Rows of table ``shed``; the last one may be open (``t1_ns`` None)."""
        self.unseen = UnseenTally()
        """Takes the page events and losses too, as they are written."""
        self._asked_stacks: int | None = None
        self._size: dict[str, int] = {}
        """Table -> how far it had grown when it was last written."""

    def begin(self, rings: Collection[str], stack_sample: int) -> None:
        """The rings of this capture, and of how many events one gets its stack."""
        if "stack" in rings:
            self._asked_stacks = stack_sample
        if "stack" in rings or "bulk" in rings:
            from tracereplay.trace.stacks import StackTable

            self.stacks = StackTable()

    # ------------------------------------------------------------ as they come
    def snapshot(self, message: frames.Message) -> None:
        """A SNAPSHOT frame: rows of ``snapshots``, and notes for what could not be read."""
        files = message.value.get("files", {})
        phase = str(message.value.get("phase"))
        metadata = self._writer.metadata
        rows, problems = snapshot_of(message.value)
        for name, reason in problems.items():
            note = f"snapshot {phase}: {name} not read: {reason}"
            if note not in metadata.notes:
                metadata.notes.append(note)
        if not metadata.migratetypes:
            metadata.migratetypes = migratetype_names(files.get("pagetypeinfo", ""))
        counters = {row["name"]: row["value"] for row in rows if row["source"] == "vmstat"}
        self.unseen.reading(message.value.get("read_ns", {}).get("vmstat", message.mono_ns), counters)
        if rows:
            self._writer.write("snapshots", snapshot_batch(rows, message.mono_ns, phase))

    def page_map(self, blob: frames.Blob) -> None:
        """A PAGE_MAP frame."""
        from tracereplay.trace.pagemap import page_map_batch

        self._writer.write("page_map", page_map_batch(blob))

    def records(self, ring: str, records: Records) -> None:
        """Records of the rings ``task`` and ``stack``; others are of a later collector and left out."""
        if ring == "task":
            self.tasks.add(records)
        elif ring == "stack" and self.stacks is not None:
            self.stacks.add(records)

    def symbols(self, value: Mapping[str, Any]) -> None:
        """A SYMBOLS frame."""
        if value.get("note"):
            self._writer.metadata.notes.append(f"symbols: {value['note']}")
        if self.stacks is not None:
            self.stacks.symbols(value)

    def shed_change(self, value: Mapping[str, Any]) -> None:
        """A STATUS frame ``shed``: the interval before ends, and unless everything is recorded again a new one
        begins."""
        try:
            now, stage = int(value["t_ns"]), int(value["stage"])
            row = {
                "t0_ns": now,
                "t1_ns": None,
                "stacks": None if self._asked_stacks is None else int(value["stacks"]),
                "sample": int(value["sample"]),
                "reason": str(value["reason"]),
                "overhead": float(value["overhead"]),
                "rate": float(value["rate"]),
            }
        except (KeyError, TypeError, ValueError) as error:
            raise CollectorError(f"the collector's word on shed load is damaged: {error!r}") from None
        self._end_shed(now)
        if stage:
            self.shed.append(row)

    def _end_shed(self, now_ns: int) -> None:
        if self.shed and self.shed[-1]["t1_ns"] is None:
            self.shed[-1]["t1_ns"] = now_ns

    # ------------------------------------------------------------ from time to time
    def checkpoint(self, flight: FlightRecorder | None) -> None:
        """Write what is kept in memory as far as it is known, so that a crash does not cost it; files of events
        have just been closed. Tables are written again when they have grown by an eighth.

        A flight recorder's are first reduced to its window.
        """
        if flight is not None and flight.from_ns is not None:
            self.tasks.forget(flight.from_ns, flight.seen_tasks)
            self.unseen.forget(flight.from_ns)
            self.shed = [r for r in self.shed if r["t1_ns"] is None or r["t1_ns"] >= flight.from_ns]
            for name in ("tasks", "shed"):
                self._size[name] = min(self._size.get(name, 0), self._rows(name))
        for name in ("tasks", "stacks", "shed"):
            rows = self._rows(name)
            if rows > self._size.get(name, 0) * 9 // 8:
                self._put(name)
                self._size[name] = rows

    def _rows(self, name: str) -> int:
        """How far a table has grown."""
        if name == "tasks":
            return len(self.tasks.rows)
        if name == "shed":
            return 2 * len(self.shed) - (bool(self.shed) and self.shed[-1]["t1_ns"] is None)
        return 0 if self.stacks is None else len(self.stacks)

    def _put(self, name: str) -> None:
        """Write a table as it is now, in place of what was written of it before."""
        if name == "tasks":
            batch = self.tasks.batch()
        elif name == "shed":
            columns = {f.name: pa.array([row[f.name] for row in self.shed], _plain(f.type)) for f in SHED}
            batch = pa.RecordBatch.from_pydict(columns)
        else:
            assert self.stacks is not None
            batch = self.stacks.batch()
        self._writer.replace(name, batch, [entry.file for entry in self._writer.files(name)])

    # ------------------------------------------------------------ end
    def reckon_unseen(self, started_ns: int, stopped_ns: int) -> None:
        """Store the estimate of pages that were allocated without an event (once the losses are all told)."""
        metadata = self._writer.metadata
        metadata.unseen = self.unseen.result(
            started_ns=started_ns,
            stopped_ns=stopped_ns,
            shed=[(row["t0_ns"], row["t1_ns"], row["sample"]) for row in self.shed],
            facts={
                "filters": metadata.filters,
                "events": metadata.events,
                "release": metadata.host.get("release"),
            },
        )

    def finish(self) -> None:
        """Write what was gathered."""
        self._put("tasks")
        if self.stacks is not None:
            self._put("stacks")
            self._writer.metadata.notes += self.stacks.notes()
        if self.shed:
            self._put("shed")


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
