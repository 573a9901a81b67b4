"""The importer protocol: one module per foreign format, found by sniffing its first bytes.

An :class:`Importer` says how sure it is that a file is its own, and opens it as a :class:`Conversion`: an iterator of
batches for the tables of a trace, in each table's order, with the metadata beside it. ``convert`` writes them; an
importer never touches the output. A bad line is counted and sampled, never the end of an import (unless ``strict``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from tracereplay.importers.source import Source
    from tracereplay.trace.metadata import TraceMetadata
    from tracereplay.trace.writer import TraceWriter

HEAD_BYTES = 64 << 10
"""How much of a source, decompressed, importers may look at."""
BLOCK_BYTES = 8 << 20
REORDER_ROWS = 1 << 18


class Confidence(enum.IntEnum):
    """How sure an importer is that a source is its own."""

    NO = 0
    POSSIBLE = 1
    """Some of the text fits."""
    CERTAIN = 2
    """A magic number or header says so."""


@dataclass(frozen=True, slots=True)
class Head:
    """The start of a source."""

    name: str
    """File name, or ``-``."""
    data: bytes
    """Up to HEAD_BYTES, decompressed."""
    whole: bool
    """The source ends within ``data``."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user says about a source."""

    release: str | None = None
    """Kernel release, where the source does not tell ("6.1.0")."""
    clock: str | None = None
    """Name of the trace clock, where the source does not tell."""
    strict: bool = False
    """Refuse the source at its first bad line."""
    block_bytes: int = BLOCK_BYTES
    reorder_rows: int = REORDER_ROWS
    """Rows of a table held back so that lines out of order can be sorted in."""


@dataclass(slots=True)
class ImportSummary:
    """What came out of a source."""

    events: dict[str, int] = field(default_factory=dict)
    """``system:event`` -> rows."""
    other_events: dict[str, int] = field(default_factory=dict)
    """Events by name that no table holds."""
    lines: int = 0
    rejected: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Of refused lines: {line, text, reason}."""
    lost: int | None = 0
    """Events known to be lost; None when the source says that some were and not how many."""
    loss_intervals: int = 0
    tasks: int = 0
    stacks: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    notes: list[str] = field(default_factory=list)
    incomplete: str = ""
    """Why the trace lacks its end; empty: it does not."""


class Conversion(Protocol):
    """One source being imported."""

    metadata: TraceMetadata
    """Complete once the batches are exhausted."""
    summary: ImportSummary

    def batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """(table, rows) until the source ends. Raises an ImportFormatError or EmptyTraceError when it cannot go on."""
        ...


@runtime_checkable
class DirectConversion(Protocol):
    """One source being imported, by code that writes the trace itself."""

    metadata: TraceMetadata
    summary: ImportSummary

    def write_to(self, writer: TraceWriter) -> Path:
        """Write everything and end the writer; the trace's path. ``summary.incomplete`` says what is not there.

        Raises ImportFormatError or EmptyTraceError when there is nothing to write.
        """
        ...


class Importer(Protocol):
    """A foreign format."""

    name: str
    """As in ``--from``."""
    title: str
    """One line for lists and errors."""

    def sniff(self, head: Head) -> Confidence:
        """How sure it is that a source with this start is of its format."""
        ...

    def open(
        self, source: Source, options: ImportOptions, advance: Callable[[int], None]
    ) -> Conversion | DirectConversion:
        """Begin to import. ``advance`` is told source bytes as they are used up.

        Raises ImporterToolMissingError where the format needs a program that is not installed.
        """
        ...
