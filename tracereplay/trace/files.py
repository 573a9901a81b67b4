"""The Parquet files of a bundle: which belong to a table, and whether each can be read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tracereplay.errors import TruncatedTraceError
from tracereplay.trace.manifest import FileEntry, Manifest, part_number
from tracereplay.trace.schema import TABLES


@dataclass
class PartFile:
    """One Parquet file of a table."""

    path: Path
    entry: FileEntry | None
    """What the manifest says; None for a file finished after the manifest was last written."""

    @cached_property
    def problem(self) -> str | None:
        """Why the file cannot be read, from its size and footer; None when these are sound."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return error.strerror or str(error)
        if self.entry is not None and size != self.entry.bytes:
            return f"{size} bytes long, the manifest says {self.entry.bytes}"
        try:
            self.footer  # noqa: B018  (reading it is the check)
        except (OSError, pa.ArrowException) as error:
            return str(error).splitlines()[0] or type(error).__name__
        return None

    @cached_property
    def footer(self) -> pq.FileMetaData:
        """The Parquet footer. Raises what PyArrow raises: look at ``problem`` first."""
        return pq.read_metadata(self.path)

    @property
    def rows(self) -> int:
        """Rows in the file, from the manifest or else the footer; 0 when neither can be read."""
        if self.entry is not None:
            return self.entry.rows
        return 0 if self.problem else self.footer.num_rows

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size if self.path.exists() else 0

    def check(self) -> None:
        """Raise TruncatedTraceError when the file cannot be read."""
        if self.problem is not None:
            raise unreadable(self.path, self.problem)


def split_host(path: str | PathLike[str]) -> tuple[Path, str | None]:
    """``BUNDLE#HOST`` as bundle and host; a path that is there by that very name is one, and has no host."""
    bundle = Path(path)
    name, mark, host = bundle.name.rpartition("#")
    return (bundle.with_name(name), host) if mark and name and not bundle.exists() else (bundle, None)


def unreadable(path: Path, reason: object) -> TruncatedTraceError:
    """The error for a damaged file of a bundle."""
    bundle = path.parent.parent
    return TruncatedTraceError(
        f"{path.parent.name}/{path.name} of {bundle} is truncated or damaged: {reason}",
        hint=f"`tracereplay validate {bundle}` says which files are sound; restore this one from a copy",
    )


def table_files(bundle: Path, manifest: Manifest) -> dict[str, list[PartFile]]:
    """Files of every table, in order: those of the manifest and finished ones that it does not list yet.

    ``.tmp`` files are never among them, nor are files that were dropped and then not removed. Tables without a
    file are absent.
    """
    found: dict[str, list[PartFile]] = {}
    for name in TABLES:
        listed = {e.file: e for e in manifest.tables.get(name, [])}
        folder = bundle / name
        present = folder.iterdir() if folder.is_dir() else ()
        floor = manifest.dropped_below.get(name, 0)
        on_disk = {f"{name}/{p.name}" for p in present if _counts(p.name, floor)}
        names = sorted(listed.keys() | on_disk, key=lambda f: (part_number(f) or 0, f))
        if names:
            found[name] = [PartFile(bundle / f, listed.get(f)) for f in names]
    return found


def _counts(name: str, floor: int) -> bool:
    number = part_number(name)
    return number is not None and number >= floor
