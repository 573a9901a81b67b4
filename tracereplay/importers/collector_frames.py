"""Raw frames of the collector: what ``capture --raw`` and the exported collector's ``--raw`` write.

The same frames as a live capture's, through the same code, so the trace is the one that a capture would have
written. A file that was cut short or damaged gives all that came before, as an incomplete trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tracereplay.errors import (
    CaptureError,
    EmptyTraceError,
    ImportFormatError,
    TraceError,
    TracereplayError,
    UsageError,
)
from tracereplay.importers.base import Confidence, DirectConversion, Head, ImportOptions, ImportSummary

if TYPE_CHECKING:
    from tracereplay.importers.source import Source
    from tracereplay.trace import frames
    from tracereplay.trace.recording import Recording
    from tracereplay.trace.writer import TraceWriter

MAGIC = b"\x89TRC\r\n\x1a\n"

_CHANGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What decoding raises on frames that are whole and whose content was changed on a disk or on the way."""


class CollectorFramesImporter:
    """Recognises a stream of frames by its magic."""

    name = "raw"
    title = "raw frames of the collector (capture --raw)"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN by the magic number."""
        return Confidence.CERTAIN if head.data.startswith(MAGIC) else Confidence.NO

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> DirectConversion:
        """Begin to import. Raises UsageError for facts that such a file states itself."""
        given = {"--kernel": options.release, "--clock": options.clock}
        if said := [name for name, value in given.items() if value is not None]:
            raise UsageError(
                f"{' and '.join(said)}: raw frames name their kernel and clock themselves", hint="leave it out"
            )
        return FramesConversion(source, options, advance)


class FramesConversion:
    """One file of frames being turned into a trace."""

    def __init__(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> None:
        from tracereplay.trace.metadata import TraceMetadata

        self._source = source
        self._options = options
        self._advance = advance
        self.metadata = TraceMetadata(source={"kind": "import", "format": "raw"})
        self.summary = ImportSummary()

    def write_to(self, writer: TraceWriter) -> Path:
        """Write the whole trace and end the writer; the trace's path.

        Damage, also a missing end, is noted and makes the trace incomplete. Raises ImportFormatError for it when
        the options are strict, EmptyTraceError when nothing came before it, StorageError when the disk refuses.
        """
        from tracereplay.trace import frames
        from tracereplay.trace.recording import Recording

        recording = Recording(writer, live=False)
        with self._source.open(self._advance) as opened:
            stream = _Stream(opened)
            packets = frames.read_ahead(frames.read_packets(stream))
            try:
                recording.run(self._whole_before_closing(packets, stream))
            except (CaptureError, TraceError, *_CHANGED) as error:
                packets.close()
                self._end_early(error, stream)
                self._keep(recording, writer)
            finally:
                packets.close()
        if self.summary.incomplete and not any(recording.events.values()):
            raise EmptyTraceError(
                f"{self._source.name} holds no events: {self.summary.incomplete}",
                hint="the capture ended before it recorded anything, or only the start of its file was copied",
            )
        self._sum_up(writer.path)
        return writer.path

    def _whole_before_closing(self, packets: Iterator[frames.Packet], stream: _Stream) -> Iterator[frames.Packet]:
        """The packets; at the closing frame the rest of the file is read first, so that its hash is known."""
        from tracereplay.trace.frames import CLOSING, Message

        for packet in packets:
            if isinstance(packet, Message) and packet.type == CLOSING:
                end = stream.position
                stream.exhaust()
                if stream.position > end:
                    more = stream.position - end
                    self.metadata.notes.append(f"{more:,} bytes after the closing frame, at byte {end}, were ignored")
                self.metadata.source.update(self._source.facts())
            yield packet

    def _end_early(self, error: Exception, stream: _Stream) -> None:
        """Note why and where the frames ended. Raises ImportFormatError when that is not acceptable."""
        at = stream.position
        stream.exhaust()
        said = error.message if isinstance(error, TracereplayError) else f"a frame holds what cannot be, {error!r}"
        reason = f"{stream.damage}; {said}" if stream.damage else said
        self.summary.incomplete = f"the frames end early, at byte {at}: {reason}"
        if self._options.strict:
            raise ImportFormatError(
                f"{self._source.name}: {self.summary.incomplete}", hint="leave --strict out to keep what came before"
            )
        self.metadata.notes.append(self.summary.incomplete)
        self.metadata.source.update(self._source.facts())

    def _keep(self, recording: Recording, writer: TraceWriter) -> None:
        """End the trace with what is in it."""
        try:
            recording.give_up()
        except _CHANGED:  # records that wait and cannot be decoded
            if any(recording.events.values()):
                writer.abort()
            else:
                writer.discard()

    def _sum_up(self, path: Path) -> None:
        """Fill the summary from the trace that was written."""
        from tracereplay.trace.reader import Trace
        from tracereplay.trace.schema import EVENT_TABLES

        trace = Trace.open(path)
        summary = self.summary
        summary.events = {table: trace.rows(table) for table in EVENT_TABLES if trace.rows(table)}
        bounds = [b for table in summary.events if (b := trace.bounds(table, "ts_ns")) is not None]
        if bounds:
            summary.first_ns, summary.last_ns = min(b[0] for b in bounds), max(b[1] for b in bounds)
        loss = trace.loss_summary()
        summary.lost, summary.loss_intervals = loss["lost"], loss["intervals"]
        summary.tasks, summary.stacks = trace.rows("tasks"), trace.rows("stacks")


class _Stream:
    """The source's bytes. Damaged compression and a disk that cannot read on are its end, with the reason."""

    def __init__(self, opened: BinaryIO) -> None:
        self._opened: Any = opened
        self.position = 0
        """Bytes of frames so far, decompressed."""
        self.damage = ""

    def readinto(self, view: memoryview) -> int:
        """Fill part of a buffer; 0 at the end."""
        from tracereplay.importers.source import DAMAGED

        if self.damage:
            return 0
        try:
            count = int(self._opened.readinto(view) or 0)
        except DAMAGED as error:
            self.damage = f"{type(error).__name__}: {error}"
            return 0
        self.position += count
        return count

    def exhaust(self) -> None:
        """Read to the end."""
        buffer = memoryview(bytearray(1 << 20))
        while self.readinto(buffer):
            pass


IMPORTER = CollectorFramesImporter()
