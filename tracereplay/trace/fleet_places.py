"""Directories of a fleet, on a disk or behind a URL. Loads nothing heavy for local ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory holds."""

    name: str
    folder: bool


def is_url(location: str) -> bool:
    """``s3://bucket/...`` and the like."""
    return "://" in location


def listing(location: str) -> list[Entry] | None:
    """What a directory holds, by name; None: there is none, or it cannot be read. Opening it as a trace tells which."""
    try:
        if is_url(location):
            return _remote(location)
        with os.scandir(location) as found:
            return sorted((Entry(e.name, e.is_dir()) for e in found), key=lambda e: e.name)
    except OSError:
        return None


def folders(pattern: str) -> list[str]:
    """Directories behind a URL that match a pattern."""
    files = _file_system(pattern)
    protocol = pattern.split("://")[0]
    found = files.glob(pattern, detail=True)
    return sorted(f"{protocol}://{path}" for path, info in found.items() if info.get("type") == "directory")


def _remote(location: str) -> list[Entry] | None:
    files = _file_system(location)
    root = files._strip_protocol(location).rstrip("/")
    found = [e for e in files.ls(location, detail=True) if e["name"].rstrip("/") != root]
    made = {Entry(e["name"].rstrip("/").rpartition("/")[2], e["type"] == "directory") for e in found}
    return sorted(made, key=lambda e: e.name) or None


def _file_system(location: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(location)[0]
