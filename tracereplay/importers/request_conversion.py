"""A foreign block trace as a conversion: a reader's requests, written in time order, with what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import pyarrow as pa

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import ImportOptions, ImportSummary
from tracereplay.importers.ordering import Columns
from tracereplay.importers.rejects import Rejects, first_text
from tracereplay.importers.requests import RequestRows, Requests
from tracereplay.importers.source import DAMAGED
from tracereplay.trace.ahead import ahead
from tracereplay.trace.metadata import TraceMetadata

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

QUEUE, COMPLETE = "block:block_bio_queue", "block:block_bio_complete"
"""The kernel's events that requests and completions stand for."""
LATE = "older than the window in which rows are sorted"
_LATE_AT_LEAST = 100_000
_AHEAD = 2


class RequestReader(Protocol):
    """One format's bytes into requests. All but ``requests`` is complete once these are exhausted."""

    format: str
    """As in ``metadata.source``."""
    unit: str
    """What an entry is called: line or record."""
    remedy: str
    """What to do when nothing fits."""
    sorting: str
    """How to bring a source into the order of time."""
    rejects: Rejects
    other_events: dict[str, int]
    """Entries by name that are no requests."""
    latency: bool
    """The format records how long a request took."""

    @property
    def lines(self) -> int:
        """Entries read."""
        ...

    def requests(self, stream: BinaryIO) -> Iterator[Requests]:
        """Requests that fit an event, in the order of the source."""
        ...

    def clock(self, first_ns: int | None) -> dict[str, Any]:
        """``metadata.clock``."""
        ...

    def device_name(self, dev: int) -> str:
        """What the source calls a device."""
        ...

    def facts(self) -> dict[str, Any]:
        """More of ``metadata.source``."""
        ...

    def notes(self, rows: int, span_ns: int) -> list[str]:
        """What a user of the numbers should know."""
        ...


class RequestConversion:
    """Imports one source through a reader."""

    def __init__(
        self, source: Source, options: ImportOptions, advance: Callable[[int], None], reader: RequestReader
    ) -> None:
        self.metadata = TraceMetadata()
        self.summary = ImportSummary()
        self._source, self._options, self._advance, self._reader = source, options, advance, reader
        self._rows = RequestRows(options.reorder_rows)
        self._late = 0

    def batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Rows of ``bio_events`` in time order; parsing runs on a thread, a little ahead.

        Raises ImportFormatError: compressed data cut short or damaged, a bad entry with ``strict``, no request at
        all, or an order of time that no window can mend.
        """
        for batch in ahead(self._batches(), _AHEAD, "tracereplay-parse"):
            yield "bio_events", batch

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            with self._source.open(self._advance) as stream:
                for requests in self._reader.requests(stream):
                    self._check_strict()
                    ready, late = self._rows.push(requests)
                    if late is not None:
                        self._count_late(late)
                    yield from ready
        except DAMAGED as error:
            raise ImportFormatError(
                f"{self._source.name} cannot be read to its end: {error}",
                hint="the file is cut short or damaged: copy it again from where it was made",
            ) from error
        self._check_strict()
        self._finish()
        yield from self._rows.flush()

    # ------------------------------------------------------------ checks
    def _check_strict(self) -> None:
        self._reader.rejects.check_strict(self._options.strict, self._source.name, "entries")

    def _count_late(self, late: Columns) -> None:
        what = "request at {ts} ns on device {n}"
        self._reader.rejects.add_late(late["ts_ns"], late["dev"], what, LATE)
        self._late += late["ts_ns"].size
        self._check_strict()
        tally = self._rows.tally
        if self._late > _LATE_AT_LEAST and self._late > tally.requests:
            raise ImportFormatError(
                f"{self._source.name} is not in the order of time: of its first {self._late + tally.requests:,} "
                f"requests most come more than {self._options.reorder_rows:,} rows too late",
                hint=f"sort it by time first: {self._reader.sorting}",
            )

    # ------------------------------------------------------------ end
    def _finish(self) -> None:
        reader, tally, meta, summary = self._reader, self._rows.tally, self.metadata, self.summary
        rejects = reader.rejects
        summary.lines, summary.rejected, summary.samples = reader.lines, rejects.count, rejects.samples()
        summary.other_events = dict(reader.other_events)
        if not tally.requests:
            refused = f" ({rejects.count:,} refused; {first_text(summary.samples)})" if rejects.count else ""
            raise ImportFormatError(
                f"no {reader.unit} of {self._source.name} is a request of {reader.format}{refused}", hint=reader.remedy
            )
        summary.events = {QUEUE: tally.requests}
        if reader.latency:
            summary.events[COMPLETE] = tally.completions
        summary.first_ns, summary.last_ns = tally.first_ns, tally.last_ns
        meta.events = sorted(summary.events)
        meta.clock = reader.clock(tally.first_ns)
        if self._options.clock:
            meta.clock["name"] = self._options.clock
        meta.rejected = rejects.metadata()
        meta.source = {
            "kind": "import",
            "format": reader.format,
            **self._source.facts(),
            "lines": reader.lines,
            "latency": reader.latency,
            "devices": {str(dev): reader.device_name(dev) for dev in self._rows.devices()},
            **reader.facts(),
        }
        if reader.other_events:
            meta.source["other_events"] = dict(reader.other_events)
        self._note(reader.notes(tally.requests, (tally.last_ns or 0) - (tally.first_ns or 0)))
        summary.notes = meta.notes

    def _note(self, notes: list[str]) -> None:
        tally, source = self._rows.tally, self.metadata.source
        if not self._reader.latency:
            notes.append("the source records no latency: there are no completions, and no queue depth")
        for name, count, says in (
            (
                "unaligned",
                tally.unaligned,
                "requests are no whole sectors: each stands for the sectors that it touches",
            ),
            ("empty", tally.empty, "reads or writes have length 0"),
            ("absurd_latencies", tally.absurd_latencies, "latencies are above an hour or negative: no completion"),
            ("late", self._late, "rows came too late to be sorted in and are left out"),
        ):
            if count:
                source[name] = count
                notes.append(f"{count:,} {says}")
        self.metadata.notes += notes
