"""A foreign source into a trace bundle: recognise, convert, write; all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tracereplay.errors import UsageError
from tracereplay.importers.base import DirectConversion, ImportOptions, ImportSummary
from tracereplay.importers.neighbours import SnapshotFiles, snapshots_at, snapshots_beside
from tracereplay.importers.registry import importer_named, recognise
from tracereplay.importers.source import Source
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.snapshots import snapshot_batch, snapshot_rows
from tracereplay.trace.writer import TraceWriter


@dataclass(frozen=True, slots=True)
class Imported:
    """A finished import."""

    path: Path
    format: str
    summary: ImportSummary
    metadata: TraceMetadata
    snapshots: SnapshotFiles | None


def import_trace(
    source_path: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    force: bool = False,
    options: ImportOptions | None = None,
    snapshots: Path | None = None,
    find_snapshots: bool = True,
    advance: Callable[[int], None] = lambda _n: None,
) -> Imported:
    """Import a file (``-``: standard input) as a new trace at ``out``.

    ``format`` None: recognised. ``snapshots``: their common prefix; None: those beside the source, unless
    ``find_snapshots`` is false. ``advance`` is told source bytes as they are used up, from a reading thread.

    Raises OutputExistsError, UnknownFormatError, ImporterToolMissingError, ImportFormatError, EmptyTraceError,
    StorageError; then nothing new is on disk, and what ``force`` would have replaced is still there.
    """
    options = options or ImportOptions()
    files = _snapshot_files(Path(source_path), snapshots, find_snapshots)
    writer = TraceWriter(out, TraceMetadata(), force=force)  # refuses an existing output before any reading
    try:
        with Source(source_path) as source:
            head = source.head()
            importer = importer_named(format) if format else recognise(head)
            conversion = importer.open(source, options, advance)
            writer.metadata = conversion.metadata
            if isinstance(conversion, DirectConversion):
                if snapshots is not None:
                    raise UsageError(f"{importer.name} holds its own snapshots", hint="leave --snapshots out")
                path = conversion.write_to(writer)
                return Imported(path, importer.name, conversion.summary, conversion.metadata, None)
            batches = conversion.batches()
            for table, batch in batches:
                writer.write(table, batch)
        if files:
            _write_snapshots(writer, files, conversion.metadata)
        path = writer.finish()
    except BaseException:
        writer.discard()
        raise
    return Imported(path, importer.name, conversion.summary, conversion.metadata, files)


def _snapshot_files(source: Path, prefix: Path | None, find: bool) -> SnapshotFiles | None:
    if prefix is None:
        return snapshots_beside(source) if find and str(source) != "-" else None
    files = snapshots_at(prefix)
    if files is None:
        raise UsageError(
            f"no snapshot files at {prefix}: neither {prefix}.before.* nor {prefix}.after.*",
            hint="name the part before .before.buddyinfo, .after.buddyinfo and so on",
        )
    return files


def _write_snapshots(writer: TraceWriter, files: SnapshotFiles, metadata: TraceMetadata) -> None:
    names: list[str] = []
    for phase in files.phases:
        rows = snapshot_rows(files.texts(phase))
        if rows:
            writer.write("snapshots", snapshot_batch(rows, None, phase))
        types = [r["migratetype"] for r in rows if r["source"] == "pagetypeinfo" and r["migratetype"] is not None]
        names = names or list(dict.fromkeys(types))
    # pagetypeinfo lists the types of this kernel in the order of their numbers.
    metadata.migratetypes = metadata.migratetypes or names
    metadata.notes.append(
        f"memory snapshots ({', '.join(files.phases)}) were taken from files beside the source: {files.prefix.name}.*"
    )
