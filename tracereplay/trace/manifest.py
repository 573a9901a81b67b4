"""``manifest.json``: what a bundle is, and which finished files it holds.

Layout: ``{"format", "schema", "complete", "metadata": {...}, "tables": {TABLE: [{"file", "rows", "bytes",
"min", "max"}]}, "dropped_below": {TABLE: n}}``; ``min`` and ``max`` are those of the column the table is sorted
by. It is always replaced as a whole.

``dropped_below`` is there only where files were dropped on purpose (flight recorder): files of the table with
a smaller number that the manifest does not list are leftovers, not part of the trace.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tracereplay.errors import (
    SchemaTooNewError,
    SchemaTooOldError,
    TraceFormatError,
    TraceNotFoundError,
    TracereplayError,
    UsageError,
)
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.schema import BUNDLE_FORMAT, MIN_SCHEMA_VERSION, SCHEMA_VERSION

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A finished Parquet file of the bundle."""

    file: str
    """Path inside the bundle, with ``/``."""
    rows: int
    bytes: int
    min: int | None = None
    """First value of the table's sort column; None for an unsorted table."""
    max: int | None = None


@dataclass(slots=True)
class Manifest:
    """Content of manifest.json."""

    metadata: TraceMetadata
    complete: bool = False
    """The writer ended as it should. False: it still runs, was aborted, or died."""
    tables: dict[str, list[FileEntry]] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION
    dropped_below: dict[str, int] = field(default_factory=dict)
    """Table -> number below which files that are not listed do not count."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order in which they are written."""
        dropped = {"dropped_below": dict(self.dropped_below)} if self.dropped_below else {}
        return {
            "format": BUNDLE_FORMAT,
            "schema": self.schema,
            "complete": self.complete,
            "metadata": self.metadata.to_json(),
            "tables": {name: [asdict(e) for e in entries] for name, entries in self.tables.items()},
            **dropped,
        }


_NUMBER = re.compile(r"part-(\d{6,})\.parquet")


def part_name(table: str, number: int) -> str:
    """Path inside the bundle of a table's file. Numbers grow beyond six digits where a recorder runs for long."""
    return f"{table}/part-{number:06d}.parquet"


def part_number(file: str) -> int | None:
    """Number of a data file by its name or path; None for a name that is none."""
    match = _NUMBER.fullmatch(file.rsplit("/", 1)[-1])
    return None if match is None else int(match[1])


def fsync_directory(path: Path) -> None:
    """Make renames inside a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically and durably."""
    target = bundle / MANIFEST_NAME
    temporary = bundle / f"{MANIFEST_NAME}.tmp"
    with temporary.open("w", encoding="utf-8") as out:
        json.dump(manifest.to_json(), out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(target)
    fsync_directory(bundle)


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle.

    Raises TraceNotFoundError (nothing there, or an empty directory), TraceFormatError (something else is
    there, or the manifest is damaged), SchemaTooNewError, SchemaTooOldError.
    """
    path = bundle / MANIFEST_NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise _no_manifest(bundle) from None
    except NotADirectoryError:
        raise TraceFormatError(
            f"{bundle} is a file, and a trace is a directory",
            hint=f"import it first: tracereplay import {bundle} OUT",
        ) from None
    except OSError as error:
        raise TraceNotFoundError(
            f"cannot read {path}: {error.strerror}", hint="check the path and its permissions"
        ) from None
    return parse_manifest(text, path)


def parse_manifest(text: bytes, path: Path | str) -> Manifest:
    """A manifest from its text; ``path`` names it in errors. Raises as :func:`read_manifest`."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise TraceFormatError(
            f"{path} is not JSON: {error}",
            hint="restore it from a copy; the Parquet files beside it are readable on their own",
        ) from None
    return _parse(value, path)


def _no_manifest(bundle: Path) -> TraceNotFoundError | TraceFormatError:
    if not bundle.exists():
        return TraceNotFoundError(f"no trace at {bundle}: it does not exist", hint="check the path")
    if not list(bundle.iterdir()):
        return TraceNotFoundError(
            f"no trace at {bundle}: the directory is empty",
            hint="make one: tracereplay capture OUT, or tracereplay import SOURCE OUT",
        )
    return TraceFormatError(
        f"{bundle} is no trace: it has no {MANIFEST_NAME}",
        hint="a trace is a directory written by tracereplay capture or tracereplay import",
    )


def _parse(value: Any, path: Path | str) -> Manifest:
    if not isinstance(value, dict) or value.get("format") != BUNDLE_FORMAT:
        raise TraceFormatError(
            f"{path} is not the manifest of a trace: its format is not {BUNDLE_FORMAT!r}",
            hint="a trace is a directory written by tracereplay capture or tracereplay import",
        )
    version = value.get("schema")
    if not isinstance(version, int) or isinstance(version, bool):
        raise TraceFormatError(f"{path} has no schema version", hint="the manifest is damaged")
    if version > SCHEMA_VERSION:
        raise SchemaTooNewError(
            f"{path} has schema {version}; this tracereplay reads up to {SCHEMA_VERSION}",
            hint="update tracereplay",
        )
    if version < MIN_SCHEMA_VERSION:
        raise SchemaTooOldError(
            f"{path} has schema {version}; this tracereplay reads from {MIN_SCHEMA_VERSION}",
            hint="open it with an older tracereplay, or capture or import it again",
        )
    metadata = TraceMetadata.from_json(value.get("metadata", {}), where=path)
    tables: dict[str, list[FileEntry]] = {}
    try:
        for name, entries in value.get("tables", {}).items():
            tables[name] = [
                FileEntry(str(e["file"]), int(e["rows"]), int(e["bytes"]), _number(e.get("min")), _number(e.get("max")))
                for e in entries
            ]
        dropped = {str(name): int(number) for name, number in value.get("dropped_below", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TraceFormatError(
            f"the file list in {path} is damaged: {error!r}", hint="restore the manifest from a copy"
        ) from None
    return Manifest(metadata, bool(value.get("complete", False)), tables, version, dropped)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def refuse_stranger(path: Path) -> None:
    """--force replaces a trace or an empty directory, and never anything else: UsageError."""
    if path.is_dir() and not path.is_symlink():
        if not list(path.iterdir()):
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
