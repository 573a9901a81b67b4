"""Writing a trace bundle: rotating Parquet files that survive a crash.

At every instant the bundle on disk either is not there or opens. Its directory appears by one rename with a
manifest in it; data files are written as ``part-NNNNNN.parquet.tmp``, flushed to disk, renamed, and only then
listed in the manifest, which is replaced as a whole. A crash loses the files that were open, nothing else;
readers ignore ``.tmp``. Files that are dropped on purpose leave the manifest first and the disk after it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from tracereplay.errors import (
    InvariantError,
    OutputExistsError,
    StorageError,
    TraceError,
)
from tracereplay.trace.columns import conform, sort_bounds, table_named
from tracereplay.trace.manifest import (
    FileEntry,
    Manifest,
    fsync_directory,
    part_number,
    refuse_stranger,
    write_manifest,
)
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.partwriter import ROW_GROUP_ROWS, PartWriter, storage
from tracereplay.trace.schema import EVENT_TABLES, Table, written_table

ROTATE_ROWS = 1 << 26
ROTATE_BYTES = 256 << 20
MIN_FREE_BYTES = 64 << 20
BYTES_PER_ROW = {"page_events": 4.0}
OTHER_BYTES_PER_ROW = 20.0
"""Guesses for rows that gather in memory while no file of their table has been finished."""


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
        self.on_rows: Callable[[str, Mapping[str, pa.Array]], None] | None = None
        """Called after rows were written: table, and the columns that they brought in the schema's types."""
        self._rotate_rows = max(1, rotate_rows)
        self._rotate_bytes = rotate_bytes
        self._rotate_ns = rotate_ns
        self._row_group_rows = max(1, row_group_rows)
        self._min_free_bytes = min_free_bytes
        self._files: dict[str, PartWriter] = {}
        self._last: dict[str, int] = {}
        self._count: dict[str, int] = {}
        self._manifest = Manifest(metadata)
        self._fresh: list[FileEntry] = []
        self._density: dict[str, float] = {}
        self._finished_bytes = 0
        self._replaced: Path | None = None
        self._refusal: StorageError | None = None
        self._begun = False
        self._ended = False
        if self.path.is_symlink() or self.path.exists():
            if not force:
                raise OutputExistsError(path)
            refuse_stranger(self.path)

    # ------------------------------------------------------------ writing
    def write(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        """Append rows to a table. Columns may be missing (null) where the schema allows it.

        Rows must come in the table's order. Raises TraceError for rows that do not fit the schema or the
        order (nothing of the batch is written then), StorageError when the disk refuses.
        """
        self._check_running()
        if self._refusal is not None:
            raise self._refusal
        entry = self._table(table)
        ready = []
        last = self._last.get(table)
        for part in _batches(batch):
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
            if self.on_rows is not None:
                self.on_rows(table, columns)
        if last is not None:
            self._last[table] = last

    def _table(self, name: str) -> Table:
        return written_table(table_named(name), hosts=bool(self.metadata.hosts))

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

    def _open(self, table: Table) -> PartWriter:
        number = self._count.get(table.name, 0)
        self._count[table.name] = number + 1
        file = self._files[table.name] = PartWriter(self.path, table, number, self._row_group_rows)
        return file

    def _check_free(self) -> None:
        with storage(self.path):
            free = os.statvfs(self.path)
        if free.f_bavail * free.f_frsize < self._min_free_bytes:
            self.rotate()
            self._refusal = StorageError(
                f"less than {self._min_free_bytes >> 20} MiB free at {self.path}; stopped writing",
                hint="free some space or write to another disk; everything written so far is kept",
            )
            raise self._refusal

    # ------------------------------------------------------------ size
    @property
    def finished_bytes(self) -> int:
        """Bytes of the finished files that the trace holds."""
        return self._finished_bytes

    @property
    def open_bytes(self) -> int:
        """Bytes of the open files, written or (estimated) still gathering in memory."""
        return sum(file.bytes for file in self._files.values()) + self.gathering_bytes

    @property
    def gathering_bytes(self) -> int:
        """What the rows that gather in memory will take on disk: an estimate from the rows before them."""
        guess = OTHER_BYTES_PER_ROW
        known = BYTES_PER_ROW | self._density
        return sum(int(f.gathering * known.get(n, guess)) for n, f in self._files.items())

    def files(self, table: str) -> list[FileEntry]:
        """Finished files of a table that the trace holds."""
        return list(self._manifest.tables.get(table, ()))

    # ------------------------------------------------------------ dropping
    def drop(self, files: Collection[str]) -> None:
        """Take finished files out of the trace, then off the disk. Each must be the oldest of its table.

        A crash in between leaves files that readers ignore. Raises StorageError.
        """
        self._check_running()
        for table, entries in self._manifest.tables.items():
            gone = [e.file for e in entries if e.file in files]
            if gone != [e.file for e in entries[: len(gone)]]:
                raise InvariantError(f"{table}: {gone} are not its oldest files")
            self._manifest.tables[table] = entries[len(gone) :]
            self._finished_bytes -= sum(e.bytes for e in entries[: len(gone)])
            for file in gone:
                self._raise_floor(file)
        self._write_manifest()
        self._unlink(files)

    def replace(self, table: str, batch: pa.RecordBatch | pa.Table, files: Collection[str]) -> None:
        """Put rows in place of some finished files of a table, as one new file at its end, or none.

        The rows are held in memory. A crash leaves the table as it was, or as it is to be. Raises TraceError
        for rows that do not fit, StorageError.
        """
        self._check_running()
        entry = self._table(table)
        ready = []
        for part in _batches(batch):
            columns = conform(entry, part)
            if part.num_rows:
                sort_bounds(entry, columns)
                ready.append((columns, part.num_rows))
        if table in self._files:
            raise InvariantError(f"{table} is being written; rotate first")
        before = self._manifest.tables.get(table, [])
        gone = [e for e in before if e.file in files]
        new: list[FileEntry] = []
        if ready:
            # The new file does not count before the manifest lists it.
            self._begin()
            self._manifest.dropped_below[table] = self._count.get(table, 0) + 1
            self._write_manifest()
            file = self._open(entry)
            with self._dropping(table):
                for columns, rows in ready:
                    start = 0
                    while start < rows:
                        take = min(file.room, rows - start)
                        file.add({n: c.slice(start, take) for n, c in columns.items()}, take)
                        start += take
                finished = file.close()
            del self._files[table]
            assert finished is not None
            new.append(finished)
        else:
            self._manifest.dropped_below[table] = self._count.get(table, 0)
        self._manifest.tables[table] = [e for e in before if e not in gone] + new
        self._finished_bytes += sum(e.bytes for e in new) - sum(e.bytes for e in gone)
        self._fresh = [e for e in self._fresh if e not in gone] + new
        self._write_manifest()
        self._unlink([e.file for e in gone])

    def _raise_floor(self, file: str) -> None:
        table = file.split("/")[0]
        floor = (part_number(file) or 0) + 1
        self._manifest.dropped_below[table] = max(self._manifest.dropped_below.get(table, 0), floor)

    def _unlink(self, files: Collection[str]) -> None:
        for file in files:
            with storage(self.path / file):
                (self.path / file).unlink(missing_ok=True)

    # ------------------------------------------------------------ ending
    def rotate(self) -> list[FileEntry]:
        """Close the open files now: what was written so far survives a crash.

        Returns every file finished since the last call, those that had reached their size included.
        """
        self._check_running()
        self._close(list(self._files))
        fresh, self._fresh = self._fresh, []
        return fresh

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
        with storage(self.path):
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
                self._fresh.append(entry)
                self._finished_bytes += entry.bytes
                self._density[name] = entry.bytes / entry.rows
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
        with storage(self.path):
            write_manifest(self.path, self._manifest)

    def _drop_files(self) -> None:
        for file in self._files.values():
            file.drop()
        self._files.clear()

    def _end(self) -> None:
        self._ended = True
        if self._replaced is not None:
            shutil.rmtree(self._replaced, ignore_errors=True)


def _batches(rows: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    return rows.to_batches() if isinstance(rows, pa.Table) else [rows]
