"""Derived tables: made from a trace once, kept as Parquet under ``derived/`` of the bundle.

A file is named by the table and a hash over what it was made from: the manifest, the footer of each data file, the
host chosen, and the sources of the code that made it. Whatever changes makes another name, so a file is never stale.
It appears by one rename when it is whole. Builders of one table wait for each other. Removing ``derived/`` loses
nothing. A bundle that cannot be written is left alone: its tables go to a directory that lasts as long as the process.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracereplay.analysis.ready_tables import READY_TABLES, ReadyTable
from tracereplay.compile_cache import PACKAGE, source_digest
from tracereplay.errors import MissingTableError, StorageError
from tracereplay.trace.hosts import one_host
from tracereplay.trace.manifest import fsync_directory
from tracereplay.trace.partwriter import storage

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.trace.reader import Trace

ROW_GROUP_ROWS = 1 << 19
STALE_AFTER_S = 3600
"""A file of other inputs or other code that was not used for this long is removed when a new one is made."""
_KEY = b"tracereplay.derived"
_temporary: dict[Path, Path] = {}
Note = Callable[[str], None]


def derived(trace: Trace, name: str, *, note: Note | None = None) -> pl.LazyFrame:
    """A ready-made table of a trace, made now if it was not made before. ``note`` is told what takes time or goes
    elsewhere.

    Raises MissingTableError for a name that there is not, what the table's maker raises (EmptyTraceError without the
    events), StorageError.
    """
    import polars as pl

    return pl.scan_parquet(derived_file(trace, name, note=note), glob=False)


def is_ready(trace: Trace, name: str) -> bool:
    """The table was made before, of these very inputs by this very code."""
    table = _named(name)
    return any(_sound(path, table) for path in _places(trace, _file_name(trace, table)))


def derived_file(trace: Trace, name: str, *, note: Note | None = None) -> Path:
    """The Parquet file of a table; makes it where needed. Raises as :func:`derived`."""
    table = _named(name)
    one_host(trace, f"table {name}")
    file = _file_name(trace, table)
    for path in _places(trace, file):
        if _sound(path, table):
            with contextlib.suppress(OSError):
                os.utime(path)
            return path
    tell = note or (lambda _text: None)
    tell(f"making table {name} (once; kept for the next time) ...")
    directory = trace.derived
    if not _writable(directory):
        directory = _temporary_directory(trace.path)
        tell(f"note: {trace.derived} cannot be written; table {name} is made anew by each process")
    path = directory / file
    with _lock(directory, name):
        if not _sound(path, table):  # else: another process made it meanwhile
            _make(trace, table, path)
            _remove_stale(path, name)
    return path


def kept_file(trace: Trace, name: str, module: str, said: str, make: Callable[[Path], None]) -> Path:
    """A Parquet file of another kind beside the tables, for what depends on more than the trace.

    It is named by the trace, the sources of ``module`` and ``said``; ``make`` writes it where it is not there.
    Raises what ``make`` raises, StorageError.
    """
    key = hashlib.sha256((key_of(trace, ReadyTable(name, "", module, "", "", ())) + said).encode()).hexdigest()[:20]
    file = f"{name}-{key}.parquet"
    for path in _places(trace, file):
        if path.exists():
            with contextlib.suppress(OSError):
                os.utime(path)
            return path
    directory = trace.derived if _writable(trace.derived) else _temporary_directory(trace.path)
    path = directory / file
    with _lock(directory, name):
        if not path.exists():
            temporary = path.with_name(f".{file}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                make(temporary)
                with storage(path):
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            _remove_stale(path, name)
    return path


def _named(name: str) -> ReadyTable:
    if name not in READY_TABLES:
        raise MissingTableError(name, list(READY_TABLES))
    return READY_TABLES[name]


# ---------------------------------------------------------------- names
def _places(trace: Trace, file: str) -> Iterator[Path]:
    """Where a table's file may be."""
    yield trace.derived / file
    if trace.path in _temporary:
        yield _temporary[trace.path] / file


def _file_name(trace: Trace, table: ReadyTable) -> str:
    return f"{table.name}-{key_of(trace, table)}.parquet"


def key_of(trace: Trace, table: ReadyTable) -> str:
    """Hash of what the table is made from: 20 hexadecimal digits."""
    said = [trace.manifest.to_json(), getattr(trace, "host", None), pa.__version__]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for parts in trace.files.values():
        for part in parts:
            digest.update(f"\0{part.name}\0{part.fingerprint()}".encode())
    source = PACKAGE.joinpath(*table.module.split(".")[1:]).with_suffix(".py")
    digest.update(source_digest(source, Path(__file__)).encode())
    return digest.hexdigest()[:20]


def _sound(path: Path, table: ReadyTable) -> bool:
    """The file is there, whole, and says of itself that it is this one."""
    try:
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    said = (footer.metadata or {}).get(_KEY)
    return said == path.stem.encode() and footer.schema.to_arrow_schema().names == [c[0] for c in table.columns]


# ---------------------------------------------------------------- making
def _make(trace: Trace, table: ReadyTable, path: Path) -> None:
    module: Any = import_module(table.module)
    schema: pa.Schema = getattr(module, table.schema).with_metadata({_KEY: path.stem.encode()})
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    batches = _gathered(getattr(module, table.function)(trace), schema)
    try:
        with storage(path):
            with pq.ParquetWriter(temporary, schema, compression="zstd", compression_level=1) as out:
                for rows in batches:
                    out.write_table(rows, rows.num_rows)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _gathered(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows in row groups of a fair size."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= ROW_GROUP_ROWS:
            yield _table(held, schema)
            held, rows = [], 0
    if rows:
        yield _table(held, schema)


def _table(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches(batches).unify_dictionaries().cast(schema)


def _remove_stale(kept: Path, name: str) -> None:
    limit = time.time() - STALE_AFTER_S
    for path in kept.parent.glob(f"{name}-*.parquet"):
        with contextlib.suppress(OSError):
            if path != kept and path.stat().st_mtime < limit:
                path.unlink()


# ---------------------------------------------------------------- places
def _writable(directory: Path) -> bool:
    """Make the directory; whether files can be made in it."""
    try:
        directory.mkdir(exist_ok=True)
        probe = directory / f".{uuid.uuid4().hex[:8]}.tmp"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _temporary_directory(bundle: Path) -> Path:
    if bundle not in _temporary:
        try:
            made = Path(tempfile.mkdtemp(prefix="tracereplay-derived-"))
        except OSError as error:
            raise StorageError(
                f"no place for a table made from {bundle}: {error.strerror}",
                hint="set TMPDIR to a directory that can be written",
            ) from None
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        _temporary[bundle] = made
    return _temporary[bundle]


@contextlib.contextmanager
def _lock(directory: Path, name: str) -> Iterator[None]:
    """One builder of a table at a time; where a file system has no locks, several build the same, and all are right."""
    with (directory / f".{name}.lock").open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
