"""One Parquet file of a bundle while it is being written: row groups, encodings, and a durable end."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracereplay.errors import StorageError
from tracereplay.trace.columns import assemble
from tracereplay.trace.manifest import FileEntry, fsync_directory, part_name
from tracereplay.trace.schema import Table

ROW_GROUP_ROWS = 1 << 20
PAGE_BYTES = 4 << 20
COMPRESSION = "zstd"
COMPRESSION_LEVEL = 3
"""On a real capture 26 % smaller than level 1 and read 20 % faster, written 2 to 18 % slower (tests/bench)."""
HARD_LEVEL = 7
"""Page frame numbers, more than half of a page event's bytes: a quarter smaller than at level 3 for 20 ns a row more.
Three bytes an event is what a host that makes a million of them a second can keep."""


@contextlib.contextmanager
def storage(what: Path) -> Iterator[None]:
    """Operating-system errors become StorageError with the next step."""
    try:
        yield
    except OSError as error:
        number = error.errno
        if number is None and "No space left" in str(error):  # Arrow sometimes keeps the text only
            number = errno.ENOSPC
        reason = os.strerror(number) if number else str(error)
        hint = (
            "free some space or write to another disk; finished files of the trace are kept"
            if number in (errno.ENOSPC, errno.EDQUOT)
            else "check the path and its permissions"
        )
        raise StorageError(f"cannot write {what}: {reason}", hint=hint) from error


class PartWriter:
    """One Parquet file being written: rows gather until they fill a row group."""

    def __init__(self, bundle: Path, table: Table, number: int, row_group_rows: int) -> None:
        self.table = table
        self.bundle = bundle
        self.number = number
        self.name = part_name(table.name, number)
        self.path = bundle / f"{self.name}.tmp"
        self.rows = 0
        self.first: int | None = None
        self.last: int | None = None
        self._row_group_rows = row_group_rows
        self._parts: list[dict[str, pa.Array]] = []
        self._waiting = 0
        self._sink: pa.NativeFile | None = None
        self._parquet: pq.ParquetWriter | None = None

    @property
    def room(self) -> int:
        """Rows until the row group is full."""
        return self._row_group_rows - self._waiting

    def add(self, columns: dict[str, pa.Array], rows: int) -> None:
        """Take at most ``room`` rows; a full row group goes to disk."""
        if self.table.sorted_by is not None:
            values = columns[self.table.sorted_by]
            self.first = values[0].as_py() if self.first is None else self.first
            self.last = values[-1].as_py()
        self._parts.append(columns)
        self._waiting += rows
        self.rows += rows
        if self._waiting >= self._row_group_rows:
            self.flush()

    def flush(self) -> None:
        """Write what waits as one row group."""
        if not self._waiting:
            return
        with storage(self.bundle / self.name):
            if self._parquet is None:
                self._open()
            assert self._parquet is not None
            self._parquet.write_table(assemble(self.table, self._parts, self._waiting), self._waiting)
        self._parts, self._waiting = [], 0

    @property
    def gathering(self) -> int:
        """Rows that wait in memory for their row group to fill."""
        return self._waiting

    @property
    def bytes(self) -> int:
        """Bytes written so far, without the row group that gathers."""
        return 0 if self._sink is None else int(self._sink.tell())

    @property
    def span(self) -> int:
        """How far the sort column has moved in this file."""
        return 0 if self.first is None or self.last is None else self.last - self.first

    def _open(self) -> None:
        if not self.path.parent.is_dir():
            self.path.parent.mkdir()
            fsync_directory(self.bundle)
        self._sink = pa.OSFile(str(self.path), "wb")
        self._parquet = pq.ParquetWriter(self._sink, self.table.schema, **parquet_options(self.table))

    def close(self) -> FileEntry | None:
        """Finish the file: footer, fsync, rename, fsync of the directory. None when it holds no row."""
        self.flush()
        if self._parquet is None or self._sink is None:
            return None
        with storage(self.bundle / self.name):
            self._parquet.close()
            self._sink.close()
            fd = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(fd)
                size = os.fstat(fd).st_size
            finally:
                os.close(fd)
            self.path.rename(self.bundle / self.name)
            fsync_directory(self.path.parent)
        return FileEntry(self.name, self.rows, size, self.first, self.last)

    def drop(self) -> None:
        """Forget the file and remove what of it is on disk."""
        self._parts, self._waiting = [], 0
        if self._parquet is not None and self._sink is not None:
            # Closing writes a footer, which a full disk refuses: the file goes away in any case.
            with contextlib.suppress(OSError, pa.ArrowException):
                self._parquet.close()
            with contextlib.suppress(OSError, pa.ArrowException):
                self._sink.close()
        self.path.unlink(missing_ok=True)


def parquet_options(table: Table) -> dict[str, Any]:
    """Arguments of ``pyarrow.parquet.ParquetWriter`` for a table."""
    plain = {*table.delta, *table.plain}
    encodings = dict.fromkeys(table.delta, "DELTA_BINARY_PACKED") | dict.fromkeys(table.plain, "PLAIN")
    return {
        "compression": COMPRESSION,
        "compression_level": {
            name: HARD_LEVEL if name in table.hard else COMPRESSION_LEVEL for name in table.schema.names
        },
        "use_dictionary": [name for name in table.schema.names if name not in plain],
        "column_encoding": encodings or None,
        "write_statistics": [name for name in table.schema.names if name in (table.statistics or (name,))],
        # One page a column and row group: the rows of a group are always read together.
        "data_page_size": PAGE_BYTES,
        "max_rows_per_page": ROW_GROUP_ROWS,
    }
