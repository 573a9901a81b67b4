"""Directories of a fleet, on a disk or behind a URL. Loads nothing heavy for local ones."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tracereplay.errors import StorageError
from tracereplay.trace.store import is_url, path_of, store_of


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory holds."""

    name: str
    folder: bool


def listing(location: str) -> list[Entry] | None:
    """What a directory holds, by name; None: there is none, or it cannot be read. Opening it as a trace tells which."""
    try:
        if is_url(location):
            found = store_of(location).entries()
            return None if found is None else [Entry(name, folder) for name, folder in found]
        with os.scandir(path_of(location)) as entries:
            return sorted((Entry(e.name, e.is_dir()) for e in entries), key=lambda e: e.name)
    except (OSError, StorageError):
        return None


def folders(pattern: str) -> list[str]:
    """Directories behind a URL that match a pattern. Raises StorageError."""
    return store_of(pattern).folders()
