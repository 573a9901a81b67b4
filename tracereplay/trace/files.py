"""The Parquet files of a bundle: which belong to a table, and whether each can be read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from os import PathLike
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tracereplay.errors import TruncatedTraceError
from tracereplay.trace.manifest import FileEntry, Manifest, part_number
from tracereplay.trace.schema import TABLES

FOOTER_BYTES = 1 << 16
"""The end of a Parquet file says where and how large its columns are, and their bounds."""


class Bundle:
    """The place of a trace: a directory. Its files and folders are named by their paths inside it, with ``/``."""

    def __init__(self, path: Path, location: str | None = None) -> None:
        self.path = path
        """Directory on this machine."""
        self.location = str(path) if location is None else location
        """What a user calls it."""

    def names(self, folder: str = "") -> list[str]:
        """Files in the bundle, or in one of its folders only; sorted."""
        found = (self.path / folder).rglob("*")
        return sorted(p.relative_to(self.path).as_posix() for p in found if p.is_file())

    def part(self, name: str, entry: FileEntry | None) -> PartFile:
        """One of its files."""
        return PartFile(self.path / name, entry, self.location)

    def fetch(self, parts: Iterable[PartFile]) -> None:
        """Have the files here, where that takes time."""


@dataclass
class PartFile:
    """One Parquet file of a table."""

    path: Path
    entry: FileEntry | None
    """What the manifest says; None for a file finished after the manifest was last written."""
    location: str
    """Of its bundle."""

    @property
    def name(self) -> str:
        """Path inside the bundle, with ``/``."""
        return f"{self.path.parent.name}/{self.path.name}"

    @cached_property
    def problem(self) -> str | None:
        """Why the file cannot be read, from its size and footer; None when these are sound."""
        return self._missing() or self._damage()

    def _missing(self) -> str | None:
        """Why the file cannot be had; None when it is on this machine."""
        return None if self.path.exists() else "missing"

    def _damage(self) -> str | None:
        try:
            size = self.path.stat().st_size
        except OSError as error:
            return error.strerror or str(error)
        if self.entry is not None and size != self.entry.bytes:
            return wrong_size(size, self.entry.bytes)
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

    def fingerprint(self) -> str:
        """Size of the file and a hash over its end: other content has another."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - FOOTER_BYTES))
                return f"{size} {sha256(file.read()).hexdigest()}"
        except OSError:
            return "unreadable"

    def check(self) -> None:
        """Raise TruncatedTraceError when the file cannot be read."""
        if self.problem is not None:
            raise self.unreadable(self.problem)

    def unreadable(self, reason: object) -> TruncatedTraceError:
        """The error for a damaged file."""
        return TruncatedTraceError(
            f"{self.name} of {self.location} is truncated or damaged: {reason}",
            hint=f"`tracereplay validate {self.location}` says which files are sound; restore this one from a copy",
        )


def wrong_size(found: int, said: int) -> str:
    """A file does not have the size that the manifest says."""
    return f"{found} bytes long, the manifest says {said}"


def split_host(path: str | PathLike[str]) -> tuple[Path, str | None]:
    """``BUNDLE#HOST`` as bundle and host; a path that is there by that very name is one, and has no host."""
    bundle = Path(path)
    name, mark, host = bundle.name.rpartition("#")
    return (bundle.with_name(name), host) if mark and name and not bundle.exists() else (bundle, None)


def table_files(bundle: Bundle, manifest: Manifest) -> dict[str, list[PartFile]]:
    """Files of every table, in order: those of the manifest and finished ones that it does not list yet.

    ``.tmp`` files are never among them, nor are files that were dropped and then not removed. Tables without a
    file are absent.
    """
    found: dict[str, list[PartFile]] = {}
    for name in TABLES:
        listed = {e.file: e for e in manifest.tables.get(name, [])}
        floor = manifest.dropped_below.get(name, 0)
        on_disk = {f for f in bundle.names(name) if f.count("/") == 1 and _counts(f, floor)}
        names = sorted(listed.keys() | on_disk, key=lambda f: (part_number(f) or 0, f))
        if names:
            found[name] = [bundle.part(f, listed.get(f)) for f in names]
    return found


def _counts(file: str, floor: int) -> bool:
    number = part_number(file)
    return number is not None and number >= floor
