"""One host of a trace of several: the same trace, as if nothing else were in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from tracereplay.errors import SeveralHostsError, nearest
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.schema import HOST, TABLES

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T", bound=Trace)


class HostTrace(Trace):
    """The rows of one host, with that host's metadata, on the clock of the whole trace."""

    def __init__(self, whole: Trace, entry: dict[str, Any]) -> None:
        own = TraceMetadata.from_json(entry["metadata"], where=whole.location)
        own.clock = {**whole.metadata.clock, "resolution_ns": entry.get("resolution_ns", 1), "triples": []}
        super().__init__(whole.bundle, replace(whole.manifest, metadata=own))
        self.host = str(entry["host"])
        self._entry = entry

    @property
    def complete(self) -> bool:
        """The capture of this host ended as it should."""
        return bool(self._entry.get("complete", self.manifest.complete))

    def rows(self, table: str) -> int:
        """Rows of this host; stacks are shared."""
        if not _has_host(table):
            return super().rows(table)
        return int(self._entry["rows"].get(table, 0))

    def sort_range(self, table: str) -> tuple[int, int] | None:
        """First and last value of the sort column among this host's rows."""
        found = self._entry["ranges"].get(table)
        return None if found is None else (int(found[0]), int(found[1]))

    def table(self, name: str, *, skip_damaged: bool = False) -> pl.LazyFrame:
        """A table's rows of this host."""
        import polars as pl

        frame = super().table(name, skip_damaged=skip_damaged)
        return frame.filter(pl.col(HOST.name).cast(pl.String) == self.host) if _has_host(name) else frame

    def batches(
        self, table: str, columns: Sequence[str] | None = None, rows: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        """A table's rows of this host, streamed; batches are smaller than those of the whole trace."""
        if not _has_host(table):
            return super().batches(table, columns, rows)
        names = list(TABLES[table].schema.names) if columns is None else list(columns)
        read = super().batches(table, [*dict.fromkeys([*names, HOST.name])], rows)
        return self._own(read, names)

    def _own(self, batches: Iterator[pa.RecordBatch], names: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            host = batch.column(HOST.name)
            code = pc.index(host.dictionary.cast(pa.string()), self.host).as_py()
            if code >= 0:
                kept = batch.filter(pc.equal(host.indices, code)).select(names)
                if kept.num_rows:
                    yield kept

    def shares(self, table: str, columns: Sequence[str], n: int) -> list[Iterator[pa.RecordBatch]]:
        """One share: hosts are taken apart row by row."""
        return [self.batches(table, columns)]

    def bounds(self, table: str, column: str) -> tuple[int, int] | None:
        """Bounds of the whole trace, which may be wider than this host's."""
        return super().bounds(table, column) if self.rows(table) else None

    def identity(self) -> dict[str, Any]:
        """That of the whole trace, with this host's facts."""
        return {**super().identity(), "path": f"{self.location}#{self.host}"}


def _has_host(table: str) -> bool:
    return table in TABLES and TABLES[table].schema.get_field_index(HOST.name) >= 0


def host_of(trace: T, name: str) -> T:
    """One host of a trace of several. Raises SeveralHostsError for one that it does not hold."""
    for entry in trace.metadata.hosts:
        if entry["host"] == name:
            chosen: Any = HostTrace(trace, entry)
            return chosen  # type: ignore[no-any-return]
    if not trace.hosts:
        raise SeveralHostsError(f"{trace.location} is of one host", hint=f"leave out #{name}")
    guess = nearest(name, trace.hosts)
    listing = f"it has: {', '.join(trace.hosts)}"
    raise SeveralHostsError(
        f"{trace.location} has no host {name!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing
    )


def one_host(trace: Trace, what: str) -> None:
    """Refuse a trace of several hosts for something that would mix up their CPUs, tasks and frames.

    Raises SeveralHostsError.
    """
    if trace.metadata.hosts:
        names = [str(entry["host"]) for entry in trace.metadata.hosts]
        raise SeveralHostsError(
            f"{what} is of one host at a time: {trace.location} holds {', '.join(names)}",
            hint=f"choose one: {trace.location}#{names[0]}",
        )
