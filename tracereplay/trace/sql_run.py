"""Running a statement: in memory, in batches, or straight into a file, and never into the host's last memory.

Polars streams scans, filters, group-bys and joins; a sort of everything, or a join with a large right side, still holds
what it needs in memory. The process's memory is watched meanwhile. Polars cannot be stopped in every operator, so a
statement that goes beyond the limit is left running on its thread: the program is to end.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tracereplay.errors import QueryMemoryError, UsageError
from tracereplay.trace.outputs import suffix_of, written
from tracereplay.trace.sql import Extra, Source, Statement
from tracereplay.trace.store import Place

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.trace.reader import Trace

T = TypeVar("T")
_PAGE = os.sysconf("SC_PAGESIZE")
_LEFT_FREE = 1 << 28
"""Memory left to the rest of the host where no limit is given."""
_LOOK_S = 0.02
FILE_FORMATS = (".parquet", ".csv", ".ndjson", ".jsonl")
"""Endings of an output file and what they mean; any other name is Parquet."""


def run(
    trace: Trace | Source, sql: str, *, rows: int | None = None, extra: Extra | None = None, memory: int | None = None
) -> pl.DataFrame:
    """Run one SELECT with the streaming engine; at most ``rows`` rows of the result.

    Raises QueryError, QueryMemoryError beyond ``memory`` bytes (default: what the host has to spare),
    TruncatedTraceError when a file turns out damaged while it is read.
    """
    statement = Statement(trace, sql, extra)
    lazy = statement.lazy()
    limited = lazy if rows is None else lazy.head(rows)

    def whole() -> Iterator[pl.DataFrame]:
        yield limited.collect(engine="streaming")

    return next(_reading(statement, whole, memory))


def batches(
    trace: Trace | Source, sql: str, *, rows: int | None = None, extra: Extra | None = None, memory: int | None = None
) -> Iterator[pl.DataFrame]:
    """The result piece by piece, at least one, in order. Raises as :func:`run`."""
    statement = Statement(trace, sql, extra)
    lazy = statement.lazy()
    limited = lazy if rows is None else lazy.head(rows)

    def pieces() -> Iterator[pl.DataFrame]:
        yield limited.collect_schema().to_frame()
        yield from limited.collect_batches(engine="streaming", maintain_order=True)

    yield from _reading(statement, pieces, memory)


def sink(
    trace: Trace | Source,
    sql: str,
    output: Place,
    *,
    rows: int | None = None,
    extra: Extra | None = None,
    memory: int | None = None,
) -> None:
    """Stream a result to a Parquet file, or by its ending to CSV or NDJSON; it appears only when it is whole.

    Raises as :func:`run`, StorageError when the disk refuses, UsageError for an ending that means another format.
    """
    suffix = suffix_of(output)
    if suffix in (".json", ".tsv", ".xlsx", ".arrow", ".feather"):
        raise UsageError(f"a result is not written as {suffix}", hint=f"name the file {', '.join(FILE_FORMATS)}")
    statement = Statement(trace, sql, extra)
    lazy = statement.lazy()
    limited = lazy if rows is None else lazy.head(rows)

    def write() -> Iterator[bool]:
        if suffix == ".csv":
            limited.sink_csv(temporary, engine="streaming")
        elif suffix in (".ndjson", ".jsonl"):
            limited.sink_ndjson(temporary, engine="streaming")
        else:
            limited.sink_parquet(temporary, compression="zstd", engine="streaming")
        yield True

    with written(output) as temporary:
        temporary.touch()
        next(_watched(statement, write, memory))


# ---------------------------------------------------------------- watching
def _reading(statement: Statement, work: Callable[[], Iterator[T]], memory: int | None) -> Iterator[T]:
    """The same where nothing is written: what the operating system refuses is a file of the trace."""
    try:
        yield from _watched(statement, work, memory)
    except OSError as error:
        raise statement.failed(error) from None


def _watched(statement: Statement, work: Callable[[], Iterator[T]], memory: int | None) -> Iterator[T]:
    """Items of ``work``, made on another thread while this one looks at the memory of the process."""
    from polars.exceptions import PolarsError

    limit = spare() + resident() if memory is None else memory
    made: queue.Queue[T | BaseException | None] = queue.Queue(2)
    given_up = threading.Event()

    def put(item: T | BaseException | None) -> bool:
        while not given_up.is_set():
            try:
                made.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in work():
                if not put(item):
                    return
            put(None)
        except BaseException as error:  # handed to the other thread, whatever it is
            put(error)

    threading.Thread(target=make, name="query", daemon=True).start()
    try:
        while True:
            try:
                item = made.get(timeout=_LOOK_S)
            except queue.Empty:
                if resident() > limit:
                    raise _too_much(limit) from None
                continue
            if item is None:
                return
            if isinstance(item, PolarsError):
                raise statement.failed(item) from None
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        given_up.set()


def _too_much(limit: int) -> QueryMemoryError:
    return QueryMemoryError(
        f"the query needs more memory than {limit >> 20:,} MiB",
        hint="sorting everything and joining two large tables hold them in memory: add LIMIT to ORDER BY, narrow it "
        "(WHERE ts_ns BETWEEN ...), or aggregate first; --memory sets the limit",
    )


def resident() -> int:
    """Bytes of memory that this process has now, without what it mapped from files."""
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE


def spare() -> int:
    """Bytes that this process may still take: of the host, and of its control group."""
    meminfo = Path("/proc/meminfo").read_text().splitlines()
    left = [int(line.split()[1]) << 10 for line in meminfo if line.startswith("MemAvailable:")]
    for most, now in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            left.append(int(Path(most).read_text()) - int(Path(now).read_text()))
        except (OSError, ValueError):  # no such group, or no limit
            continue
    return max(min(left, default=1 << 62) - _LEFT_FREE, _LEFT_FREE)
