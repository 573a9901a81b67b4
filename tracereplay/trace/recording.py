"""From a collector's packets, live or from a file, to a finished trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from tracereplay.errors import CollectorError, TracereplayError
from tracereplay.trace import frames
from tracereplay.trace.accounts import CostAccount, RecursionLedger, closing_notes, kernel_losses, named_error
from tracereplay.trace.bulk_batches import BulkBatches, merged
from tracereplay.trace.decode import Loss, RingDecoder, RingLayout
from tracereplay.trace.event_batches import BioBatches, MmBatches, PageBatches, loss_batch
from tracereplay.trace.ftrace_decode import FtraceDecoder
from tracereplay.trace.ftrace_decode import kernel_losses as ftrace_losses
from tracereplay.trace.keeper import SILENCE_NS, Keeper
from tracereplay.trace.printfmt import gfp_names
from tracereplay.trace.progress import LiveTally, Progress
from tracereplay.trace.schema import EVENT_TABLES
from tracereplay.trace.sidetables import SideTables
from tracereplay.trace.stacks import stack_errors
from tracereplay.trace.unnoticed import CLASS, UnnoticedFrees
from tracereplay.trace.unseen import NO_ALLOCATIONS
from tracereplay.trace.writer import TraceWriter


@dataclass(slots=True)
class CaptureSummary:
    """What a capture brought home."""

    path: Path
    duration_s: float = 0.0
    events: dict[str, int] = field(default_factory=dict)
    """Rows by event table."""
    lost: int = 0
    bytes_on_disk: int = 0
    reason: str = ""
    """Why it ended: duration, asked, a signal's name."""
    fallback: str = ""
    """Why the events came through tracefs instead of eBPF; empty: they did not, or that was asked for."""
    missing: dict[str, str] = field(default_factory=dict)
    """Tracepoints that were wanted and could not be used, with the reason."""
    self_cost: dict[str, Any] = field(default_factory=dict)
    command_status: int | None = None


_TABLE_OF_GROUP = {
    "page": "page_events",
    "buddy": "page_events",
    "bulk": "page_events",
    "bio": "bio_events",
    "reclaim": "mm_events",
}


class Recording:
    """Turns the packets of one stream, live or from a file, into a finished trace."""

    def __init__(
        self,
        writer: TraceWriter,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        on_started: Callable[[], None] | None = None,
        live: bool = True,
        keeper: Keeper | None = None,
    ) -> None:
        """``live``: this process's CPU is part of what the capture costs. ``keeper`` hears what is written."""
        self._writer = writer
        self._keeper = keeper
        self._tally = LiveTally(on_progress) if on_progress is not None else None
        self._on_started = on_started
        self._decoders: list[RingDecoder] = []
        self._ftrace: FtraceDecoder | None = None
        """Set where the events come as pages of a tracefs instance."""
        self._builders: dict[str, PageBatches | BioBatches | MmBatches | BulkBatches] = {}
        self._side = SideTables(writer)
        self._rows: dict[str, int] = {}
        """Event table -> rows; those that the groups asked for, from the start."""
        self._lost: dict[str, int] = {}
        self._missing: dict[str, str] = {}
        self._started_ns = 0
        self._cost = CostAccount(live=live)
        self._recursion = RecursionLedger()
        self._unnoticed = UnnoticedFrees()

    def run(self, packets: Iterator[frames.Packet]) -> CaptureSummary:
        """Consume the stream to its end, finish the trace, say what came.

        Raises the error that an ERROR frame names, and CollectorError for a stream that makes no sense.
        """
        for packet in packets:
            if isinstance(packet, frames.Batches):
                self._take_pages(packet.pages)
                self._flush(packet.slabs, packet.watermark_ns)
            elif isinstance(packet, frames.Blob):
                self._blob(packet)
            elif packet.type == frames.CLOSING:
                return self._close(packet.value)
            else:
                self._message(packet)
            if self._keeper is not None:
                if isinstance(packet, frames.Batches):
                    self._keeper.on_time(packet.watermark_ns)
                elif packet.type == frames.STATUS:  # comes in silence too, ahead of what still comes
                    self._keeper.on_time(packet.mono_ns - SILENCE_NS)
        raise CollectorError("the collector's stream ended without its closing frame")

    @property
    def events(self) -> dict[str, int]:
        """Rows written so far, by event table."""
        return dict(self._rows)

    def give_up(self) -> None:
        """Keep what came, mark the trace incomplete; a trace without any event is removed."""
        with contextlib.suppress(TracereplayError):
            self._take_pages()
            self._flush({}, None)
            self._write_losses(self._unnoticed.settle(all_of_it=True))
        if not any(self._rows.values()):
            self._writer.discard()
            return
        with contextlib.suppress(TracereplayError):
            self._side.finish()
            if self._keeper is not None:
                self._keeper.close("the collector's death")
        self._writer.abort()

    # ------------------------------------------------------------ frames
    def _message(self, message: frames.Message) -> None:
        if message.type == frames.HELLO:
            self._hello(message.value)
        elif message.type == frames.SNAPSHOT:
            self._side.snapshot(message)
        elif message.type == frames.STATUS:
            self._status(message)
        elif message.type == frames.SYMBOLS:
            self._side.symbols(message.value)
        elif message.type == frames.CGROUPS:
            self._side.tasks.name_cgroups(message.value)
        elif message.type == frames.ERROR:
            raise named_error(message.value)

    def _blob(self, blob: frames.Blob) -> None:
        if blob.type == frames.PAGE_MAP:
            self._side.page_map(blob)

    def _take_pages(self, blobs: Sequence[frames.Blob] = ()) -> None:
        """Write what the pages of a tracefs instance hold, and the names of tasks told since the last ones."""
        if self._ftrace is None:
            if blobs:
                raise CollectorError("the collector's stream has pages of tracefs, which its hello does not announce")
            return
        for blob in blobs:
            self._ftrace.feed(blob.cpu, blob.payload, blob.mono_ns)
        self._flush(self._ftrace.take(), self._ftrace.watermark_ns)
        if self._ftrace.losses:
            self._write_losses(self._ftrace.losses)
            self._ftrace.losses.clear()

    def _hello(self, hello: Mapping[str, Any]) -> None:
        try:
            probes: list[dict[str, Any]] = list(hello["probes"])
            layouts = [RingLayout.from_hello(ring) for ring in hello["rings"]]
            by_name = {layout.name: layout for layout in layouts}
            sampling = dict(hello.get("sampling", {}))
            self._side.begin(by_name, int(sampling.get("stack_sample", 1)))
            stack_ids = self._side.stacks.ids if self._side.stacks is not None else None
            self._builders = {
                "page": PageBatches(by_name["page"], probes, stack_ids),
                "bio": BioBatches(by_name["bio"], probes, stack_ids),
            }
            if "mm" in by_name:
                self._builders["mm"] = MmBatches(by_name["mm"], probes)
            if "bulk" in by_name:
                callers = self._side.stacks.ids_of_addresses if self._side.stacks is not None else None
                self._builders["bulk"] = BulkBatches(by_name["bulk"], probes, callers)
            self._missing = dict(hello.get("missing", {}))
            metadata = self._writer.metadata
            metadata.host = dict(hello["host"])
            clock = hello["clock"]
            metadata.clock = {
                "name": clock["name"],
                "resolution_ns": clock["resolution_ns"],
                "triples": [clock["triple"]],
            }
            recorded = [p["event"] for p in probes if p["attached"] and p["group"] != "task"]
            metadata.events = list(dict.fromkeys(recorded))
            formats = {p["event"]: p["format"] for p in probes if p["format"]}
            metadata.gfp_flags = gfp_names(formats.get("kmem:mm_page_alloc", ""))
            self._rows = {t: 0 for t in EVENT_TABLES if any(_TABLE_OF_GROUP.get(g) == t for g in hello["groups"])}
            metadata.filters = dict(hello.get("filters", {}))
            metadata.sampling = sampling
            self._unnoticed.begin(metadata.events, metadata.filters)
            metadata.source.update(
                tracer=hello.get("tracer", "ebpf"),
                collector={k: hello[k] for k in ("protocol", "bcc", "python", "tracefs", "drain_ms", "groups")},
                taps={p["event"]: p["tap"] for p in probes if p["tap"] != "nested"},
                rings={r["name"]: r["bytes_per_cpu"] for r in hello["rings"]},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CollectorError(f"the collector's hello is damaged: {error!r}") from None
        metadata.notes += [f"not recorded: {reason}" for reason in self._missing.values()]
        if self._keeper is not None:
            self._keeper.on_hello(metadata.events)
            self._keeper.on_cut = self._side.checkpoint
        self._decoders = [RingDecoder(layout) for layout in layouts]
        if self._tally is not None:
            self._tally.ring_bytes = dict(metadata.source["rings"])
        if hello.get("tracer") == "tracefs":
            self._ftrace = FtraceDecoder(hello, layouts)
            metadata.source.update(format="tracefs", rings=self._ftrace.buffers)
            metadata.notes += self._ftrace.hello_notes

    def _status(self, message: frames.Message) -> None:
        event = message.value.get("event")
        if event == "started":
            self._started_ns = int(message.value["started_ns"])
            if self._keeper is not None:
                self._keeper.on_started(self._started_ns)
            self._cost.start(float(message.value["cost"]["cpu_seconds"]))
            self._recursion.start(self._started_ns)
            if self._on_started is not None:
                self._on_started()
        elif event == "shed":
            self._side.shed_change(message.value)
            self._unnoticed.sampled(int(message.value["sample"]))
            if self._tally is not None:
                self._tally.shed_change(message.value)
            return
        elif event == "tick":
            self._write_losses(self._recursion.look(message.value.get("programs", {}), message.mono_ns))
            self._write_losses(self._unnoticed.settle())
        if self._ftrace is not None:
            self._take_pages()
            self._ftrace.status(message.value, message.mono_ns)
        if self._tally is not None and event in ("started", "tick"):
            totals = [d.totals() for d in self._decoders if d.layout.table in EVENT_TABLES]
            if self._ftrace is not None:
                totals.append({"seen": 0, "lost": self._ftrace.totals()["lost"]})
            self._tally.tell(
                (message.mono_ns - self._started_ns) / 1e9,
                totals,
                cost=message.value.get("cost") or {},
                lost_by_class=dict(self._lost),
                bytes_written=self._writer.finished_bytes + self._writer.open_bytes,
                writer_cpu_s=self._cost.writer_seconds(),
                stacks=self._side.stacks,
            )

    def _flush(self, slabs: Mapping[frames.SlabKey, frames.Bytes], watermark_ns: int | None) -> None:
        if slabs and not self._decoders:
            raise CollectorError("the collector's stream has records before its hello")
        batches: dict[str, pa.RecordBatch] = {}
        for index, decoder in enumerate(self._decoders):
            mine = {cpu: data for (ring, cpu), data in slabs.items() if ring == index}
            records = decoder.flush(mine, watermark_ns)
            if records is not None:
                builder = self._builders.get(decoder.layout.name)
                if builder is not None:
                    batch, table = builder.batch(records), decoder.layout.table
                    batches[table] = merged(batches[table], batch) if table in batches else batch
                else:
                    self._side.records(decoder.layout.name, records)
            if decoder.losses:
                self._write_losses(decoder.losses)
                decoder.losses.clear()
        for table, batch in batches.items():
            self._writer.write(table, batch)
            if self._tally is not None:
                self._tally.add(table, batch)
            if table == "page_events":
                self._side.unseen.events(batch)
                self._unnoticed.events(batch)
            self._rows[table] = self._rows.get(table, 0) + batch.num_rows

    def _write_losses(self, losses: Sequence[Loss]) -> None:
        if not losses:
            return
        for loss in losses:
            self._unnoticed.lost(loss)
            self._lost[loss.cls] = self._lost.get(loss.cls, 0) + loss.n
            if loss.table in ("page_events", "all") and loss.cls not in NO_ALLOCATIONS:
                self._side.unseen.lost(loss.t0_ns, loss.t1_ns, loss.n)
        self._writer.write("loss", loss_batch(losses))

    # ------------------------------------------------------------ end
    def _close(self, closing: Mapping[str, Any]) -> CaptureSummary:
        self._take_pages()
        self._flush({}, None)
        try:
            started, stopped = int(closing["started_ns"]), int(closing["stopped_ns"])
            for decoder in self._decoders:
                decoder.close(closing["counters"].get(decoder.layout.name, {}), stopped)
                self._write_losses(decoder.losses)
            counted_pages = self._close_pages(closing.get("ftrace", {}), stopped)
            recursion = self._recursion.close(closing["programs"], stopped)
            for losses in (recursion, stack_errors(closing["counters"], started, stopped)):
                self._write_losses(losses)
            self._write_losses(self._unnoticed.settle(all_of_it=True))
            unnoticed = {CLASS: self._lost[CLASS]} if CLASS in self._lost else {}
            metadata = self._writer.metadata
            metadata.clock["triples"].append(closing["clock"])
            metadata.loss = {
                "by_class": {
                    **kernel_losses(closing["counters"]),
                    **counted_pages,
                    **self._recursion.by_class(),
                    **unnoticed,
                }
            }
            metadata.self_cost = self._cost.result(closing, stopped - started, sum(self._rows.values()))
            metadata.notes += closing_notes(closing)
        except (KeyError, TypeError, ValueError) as error:
            raise CollectorError(f"the collector's closing frame is damaged: {error!r}") from None
        if any(d.late for d in self._decoders):
            metadata.notes.append(f"{sum(d.late for d in self._decoders)} records came late and were moved in time")
        self._side.finish()
        reason, whole_from = str(closing.get("reason")), started
        if self._keeper is not None:
            reason = self._keeper.close(reason, stopped)
            whole_from = max(started, self._keeper.from_ns or 0)
        self._side.reckon_unseen(whole_from, stopped)
        path = self._writer.finish()
        return CaptureSummary(
            path=path,
            duration_s=(stopped - started) / 1e9,
            events={table: sum(e.rows for e in self._writer.files(table)) for table in self._rows},
            lost=sum(n for cls, n in self._lost.items() if cls != "stack")
            - (self._keeper.lost_before if self._keeper is not None else 0),
            bytes_on_disk=sum(f.stat().st_size for f in path.rglob("*.parquet")),
            reason=reason,
            fallback=self._ftrace.fallback if self._ftrace is not None else "",
            missing=self._missing,
            self_cost=metadata.self_cost,
        )

    def _close_pages(self, stats: Mapping[str, Mapping[str, int]], stopped_ns: int) -> dict[str, int]:
        """Book what a tracefs instance lost at the end; its losses by class, as the kernel counted them."""
        if self._ftrace is None:
            return {}
        self._ftrace.close(stats, stopped_ns)
        if self._ftrace.losses:
            self._write_losses(self._ftrace.losses)
        self._writer.metadata.notes += self._ftrace.notes
        return ftrace_losses(stats)
