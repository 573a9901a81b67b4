"""Writing a trace bundle: rotating Parquet files that survive a crash.

At every instant the bundle on disk either is not there or opens. Its directory appears by one rename with a
manifest in it; data files are written as ``part-NNNNNN.parquet.tmp``, flushed to disk, renamed, and only then
listed in the manifest, which is replaced as a whole. A crash loses the files that were open, nothing else;
readers ignore ``.tmp``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from tracereplay.errors import (
    InvariantError,
    OutputExistsError,
    StorageError,
    TraceError,
    TracereplayError,
    UsageError,
)
from tracereplay.trace.columns import assemble, conform, sort_bounds, table_named
from tracereplay.trace.manifest import FileEntry, Manifest, fsync_directory, read_manifest, write_manifest
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.schema import EVENT_TABLES, Table

ROW_GROUP_ROWS = 1 << 20
ROTATE_ROWS = 1 << 26
ROTATE_BYTES = 256 << 20
MIN_FREE_BYTES = 64 << 20
PAGE_BYTES = 4 << 20

COMPRESSION = "zstd"
COMPRESSION_LEVEL = 1


@contextlib.contextmanager
def _storage(what: Path) -> Iterator[None]:
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


class _OpenFile:
    """One Parquet file being written: rows gather until they fill a row group."""

    def __init__(self, bundle: Path, table: Table, number: int, row_group_rows: int) -> None:
        self.table = table
        self.bundle = bundle
        self.name = f"{table.name}/part-{number:06d}.parquet"
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
        with _storage(self.bundle / self.name):
            if self._parquet is None:
                self._open()
            assert self._parquet is not None
            self._parquet.write_table(assemble(self.table, self._parts, self._waiting), self._waiting)
        self._parts, self._waiting = [], 0

    @property
    def bytes(self) -> int:
        """Bytes written so far, without the row group that gathers."""
        return 0 if self._sink is None else int(self._sink.tell())

    @property
    def span(self) -> int:
        """How far the sort column has moved in this file."""
        return 0 if self.first is None or self.last is None else self.last - self.first

    def _open(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self._sink = pa.OSFile(str(self.path), "wb")
        self._parquet = pq.ParquetWriter(self._sink, self.table.schema, **parquet_options(self.table))

    def close(self) -> FileEntry | None:
        """Finish the file: footer, fsync, rename, fsync of the directory. None when it holds no row."""
        self.flush()
        if self._parquet is None or self._sink is None:
            return None
        with _storage(self.bundle / self.name):
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
        "compression_level": COMPRESSION_LEVEL,
        "use_dictionary": [name for name in table.schema.names if name not in plain],
        "column_encoding": encodings or None,
        "write_statistics": [name for name in table.schema.names if name in (table.statistics or (name,))],
        # One page a column and row group: the rows of a group are always read together.
        "data_page_size": PAGE_BYTES,
        "max_rows_per_page": ROW_GROUP_ROWS,
    }


class TraceWriter:
    """Writes one bundle. Nothing is on disk before the first write; use it as a context manager.

    Leaving the ``with`` block finishes the trace; an exception discards it when no file was finished, and
    keeps the finished files (marked incomplete) otherwise.

    ``rotate_rows``, ``rotate_bytes`` close a table's file at that size; ``rotate_ns`` closes all open files
    when an event table has moved that far in trace time. ``min_free_bytes``: below that much free disk the
    writer closes its files and raises StorageError.

    Raises OutputExistsError at once when ``path`` exists and ``force`` is not set. With ``force`` an older
    bundle (or an empty directory) is replaced when the new one is finished or aborted, and is put back by
    ``discard``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: TraceMetadata,
        *,
        force: bool = False,
        rotate_rows: int = ROTATE_ROWS,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_ns: int | None = None,
        row_group_rows: int = ROW_GROUP_ROWS,
        min_free_bytes: int = MIN_FREE_BYTES,
    ) -> None:
        self.path = Path(path).absolute()
        self.metadata = metadata
        self._rotate_rows = max(1, rotate_rows)
        self._rotate_bytes = rotate_bytes
        self._rotate_ns = rotate_ns
        self._row_group_rows = max(1, row_group_rows)
        self._min_free_bytes = min_free_bytes
        self._files: dict[str, _OpenFile] = {}
        self._last: dict[str, int] = {}
        self._count: dict[str, int] = {}
        self._manifest = Manifest(metadata)
        self._replaced: Path | None = None
        self._refusal: StorageError | None = None
        self._begun = False
        self._ended = False
        if self.path.is_symlink() or self.path.exists():
            if not force:
                raise OutputExistsError(path)
            _refuse_stranger(self.path)

    # ------------------------------------------------------------ writing
    def write(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        """Append rows to a table. Columns may be missing (null) where the schema allows it.

        Rows must come in the table's order. Raises TraceError for rows that do not fit the schema or the
        order (nothing of the batch is written then), StorageError when the disk refuses.
        """
        self._check_running()
        if self._refusal is not None:
            raise self._refusal
        entry = table_named(table)
        batches = batch.to_batches() if isinstance(batch, pa.Table) else [batch]
        ready = []
        last = self._last.get(table)
        for part in batches:
            if part.num_rows == 0:
                continue
            columns = conform(entry, part)
            bounds = sort_bounds(entry, columns)
            if bounds is not None:
                if last is not None and bounds[0] < last:
                    raise TraceError(
                        f"{table} is not sorted by {entry.sorted_by}: a batch starts at {bounds[0]}, "
                        f"before the last row written, {last}",
                        hint="sort the batches before writing them",
                    )
                last = bounds[1]
            ready.append((columns, part.num_rows))
        for columns, rows in ready:
            self._append(entry, columns, rows)
        if last is not None:
            self._last[table] = last

    def _append(self, table: Table, columns: dict[str, pa.Array], rows: int) -> None:
        self._begin()
        start = 0
        flushed = False
        while start < rows:
            file = self._files.get(table.name) or self._open(table)
            take = min(rows - start, self._rotate_rows - file.rows, file.room)
            part = columns if take == rows else {n: c.slice(start, take) for n, c in columns.items()}
            before = file.bytes
            with self._dropping(table.name):
                file.add(part, take)
            start += take
            flushed |= file.bytes != before
            if file.rows >= self._rotate_rows or file.bytes >= self._rotate_bytes:
                self._close([table.name])
        if self._rotate_ns is not None and table.name in EVENT_TABLES:
            current = self._files.get(table.name)
            if current is not None and current.span >= self._rotate_ns:
                self.rotate()
        if flushed:
            self._check_free()

    def _open(self, table: Table) -> _OpenFile:
        number = self._count.get(table.name, 0)
        self._count[table.name] = number + 1
        file = self._files[table.name] = _OpenFile(self.path, table, number, self._row_group_rows)
        return file

    def _check_free(self) -> None:
        with _storage(self.path):
            free = os.statvfs(self.path)
        if free.f_bavail * free.f_frsize < self._min_free_bytes:
            self.rotate()
            self._refusal = StorageError(
                f"less than {self._min_free_bytes >> 20} MiB free at {self.path}; stopped writing",
                hint="free some space or write to another disk; everything written so far is kept",
            )
            raise self._refusal

    # ------------------------------------------------------------ ending
    def rotate(self) -> None:
        """Close the open files now: what was written so far survives a crash."""
        self._check_running()
        self._close(list(self._files))

    def finish(self) -> Path:
        """Close everything and mark the trace complete; its path."""
        self._check_running()
        self._begin()
        self._close(list(self._files), manifest=False)
        self._manifest.complete = True
        self._write_manifest()
        self._end()
        return self.path

    def abort(self) -> None:
        """Stop. Finished files are kept, open ones closed if the disk allows; the trace stays incomplete."""
        if self._ended:
            return
        if self._begun:
            for name in list(self._files):
                with contextlib.suppress(StorageError):  # the file is dropped, which frees its space
                    self._close([name], manifest=False)
            # If even this fails, readers find the finished files by their names.
            with contextlib.suppress(StorageError):
                self._write_manifest()
        self._end()

    def discard(self) -> None:
        """Remove everything this writer created; a replaced bundle comes back."""
        if self._ended:
            return
        self._ended = True
        self._drop_files()
        if self._begun:
            shutil.rmtree(self.path, ignore_errors=True)
            if self._replaced is not None:
                self._replaced.rename(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ended:
            return
        if kind is None:
            self.finish()
        elif any(self._manifest.tables.values()):
            self.abort()
        else:
            self.discard()

    # ------------------------------------------------------------ inner
    def _check_running(self) -> None:
        if self._ended:
            raise InvariantError("the trace writer has ended")

    def _begin(self) -> None:
        """Let the bundle appear: a directory with a manifest, by one rename."""
        if self._begun:
            return
        staging = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.tmp")
        with _storage(self.path):
            staging.mkdir(parents=True)
            try:
                write_manifest(staging, self._manifest)
                if self.path.exists():
                    self._replaced = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.replaced")
                    self.path.rename(self._replaced)
                staging.rename(self.path)
                fsync_directory(self.path.parent)
            except OSError:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        self._begun = True

    def _close(self, tables: list[str], *, manifest: bool = True) -> None:
        closed = False
        for name in tables:
            with self._dropping(name):
                entry = self._files[name].close()
            del self._files[name]
            if entry is not None:
                self._manifest.tables.setdefault(name, []).append(entry)
                closed = True
        if closed and manifest:
            self._write_manifest()

    @contextlib.contextmanager
    def _dropping(self, table: str) -> Iterator[None]:
        """A file that the disk refuses is removed, and the writer takes no more rows: they would leave a hole."""
        try:
            yield
        except StorageError as error:
            self._refusal = error
            self._files.pop(table).drop()
            raise

    def _write_manifest(self) -> None:
        self._manifest.metadata = self.metadata
        with _storage(self.path):
            write_manifest(self.path, self._manifest)

    def _drop_files(self) -> None:
        for file in self._files.values():
            file.drop()
        self._files.clear()

    def _end(self) -> None:
        self._ended = True
        if self._replaced is not None:
            shutil.rmtree(self._replaced, ignore_errors=True)


def _refuse_stranger(path: Path) -> None:
    """--force replaces a trace or an empty directory, and never anything else."""
    if path.is_dir() and not path.is_symlink():
        if not any(path.iterdir()):
            return
        try:
            read_manifest(path)
        except TracereplayError:
            pass
        else:
            return
    raise UsageError(
        f"{path} is not a trace; --force does not replace it",
        hint="choose another path, or remove it yourself",
    )
