"""Traces behind URLs: the manifest and a listing are read when the trace is opened, a data file whole when its table is
first used.

Files are kept on this machine (remote_cache.py) under the state of the trace: its URL, the manifest, and name, size and
version (ETag or time) of every data file in the listing. A trace that changed is another state and is fetched anew. The
version is asked for again after a file was fetched: one that changed under the hands of a reader is an error, never a
mixture. Over HTTP nothing is listed; what the manifest names is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracereplay.errors import StorageError, TraceFormatError, TraceNotFoundError
from tracereplay.trace.files import Bundle, PartFile, wrong_size
from tracereplay.trace.manifest import MANIFEST_NAME, FileEntry, Manifest, parse_manifest, part_number
from tracereplay.trace.remote_cache import Slot, make_room
from tracereplay.trace.store import Store, name_of, store_of

AT_ONCE = 4
"""Files that are fetched at a time."""
_VERSIONS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "updated", "created")
"""Where file systems say which version of a file they speak of, the surest first."""


@dataclass(slots=True)
class Fetched:
    """What this process fetched of remote traces."""

    files: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size: int) -> None:
        """Another file."""
        with self._lock:
            self.files += 1
            self.bytes += size

    def take(self) -> tuple[int, int]:
        """Files and bytes since the last call."""
        with self._lock:
            found, self.files, self.bytes = (self.files, self.bytes), 0, 0
        return found


FETCHED = Fetched()


class RemoteBundle(Bundle):
    """The place of a trace behind a URL. Its path is where files go when they are fetched."""

    def __init__(self, store: Store, manifest: bytes, named: list[str]) -> None:
        """``named``: data files in the manifest, which is all there is to go by where nothing is listed."""
        listing = store.listing()
        self._store = store
        self._listed: dict[str, dict[str, Any]] | None = listing
        self._names = sorted(named if listing is None else listing)
        files = [n for n in self._names if n.endswith(".parquet") and not n.startswith("derived/")]
        state = json.dumps([store.url, *(f"{name} {self.version(name)}" for name in files)]).encode()
        name = name_of(store.url)
        self._slot = Slot(hashlib.sha256(state + manifest).hexdigest()[:20], name if name.strip(".") else "trace")
        super().__init__(self._slot.path, store.url)

    def names(self, folder: str = "") -> list[str]:
        """Files in the store, fetched or not."""
        return [name for name in self._names if not folder or name.startswith(f"{folder}/")]

    def part(self, name: str, entry: FileEntry | None) -> PartFile:
        """One of its files, which is fetched when it is looked into."""
        return RemotePart(self.path / name, entry, self.location, self)

    def fetch(self, parts: Iterable[PartFile]) -> None:
        """Fetch several files, some at a time. Raises StorageError."""
        pool = ThreadPoolExecutor(AT_ONCE, "trace-fetch")
        try:
            for _ in pool.map(lambda part: part.problem, parts):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def size(self, name: str) -> int | None:
        """Bytes in the store, as it was listed; None when nothing was."""
        if self._listed is None:
            return None
        return int(self._listed[name]["size"]) if name in self._listed else 0

    def bring(self, name: str, entry: FileEntry | None) -> str | None:
        """Fetch a file, unless it is here. Why it is not the file of the manifest, where the store's is not.

        Raises StorageError: the store refuses, the file changed or vanished since the trace was opened, no space.
        """
        listed = None if self._listed is None else self._listed.get(name)
        if self._listed is not None and listed is None:
            return "missing"
        size = entry.bytes if entry is not None else 0
        if listed is not None:
            if entry is not None and listed["size"] != size:
                return wrong_size(listed["size"], size)
            size = listed["size"]
        target = self.path / name
        if _is_whole(target, size):
            return None
        with self._slot.alone(name) as temporary:
            if _is_whole(target, size):  # another process fetched it meanwhile
                return None
            make_room(size)
            remote = self._store.inside(name)
            try:
                remote.get(temporary)
            except FileNotFoundError:
                if listed is None:
                    return "missing"
                raise self._changed(remote.url, "vanished") from None
            got = temporary.stat().st_size
            if listed is None and got != size:
                return wrong_size(got, size)
            if listed is not None:
                now = remote.info()
                if now is None or got != size or not _same_version(listed, now):
                    raise self._changed(remote.url, "vanished" if now is None else "changed")
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # a file of the right size is taken for whole
            temporary.replace(target)
        FETCHED.add(size)
        return None

    def version(self, name: str) -> str:
        """Size and version of a file, as listed."""
        listed = (self._listed or {}).get(name, {})
        return f"{listed.get('size')} {_version(listed)}"

    def _changed(self, url: str, how: str) -> StorageError:
        return StorageError(
            f"{url} {how} while its trace was read",
            hint="the trace is being written, replaced or removed; try again when that has ended",
        )


@dataclass
class RemotePart(PartFile):
    """A file in a store. ``path`` is where it goes."""

    bundle: RemoteBundle

    def _missing(self) -> str | None:
        return self.bundle.bring(self.name, self.entry)

    @property
    def bytes(self) -> int:
        """Bytes in the store; where these are not listed, as the manifest says."""
        size = self.bundle.size(self.name)
        return size if size is not None else self.entry.bytes if self.entry is not None else 0

    def fingerprint(self) -> str:
        """What the store says of the file: nothing is fetched for it."""
        return self.bundle.version(self.name)


def open_bundle(url: str) -> tuple[RemoteBundle, Manifest]:
    """A trace behind a URL, and its manifest.

    Raises TraceNotFoundError, TraceFormatError and its kinds as read_manifest does, StorageError.
    """
    store = store_of(url.rstrip("/"))
    manifest = store.inside(MANIFEST_NAME)
    try:
        text = manifest.read()
    except FileNotFoundError:
        raise _no_manifest(store) from None
    parsed = parse_manifest(text, manifest.url)
    named = [entry.file for entries in parsed.tables.values() for entry in entries]
    for name in named:
        folder, _, file = name.partition("/")
        if not folder.isidentifier() or "/" in file or part_number(file) is None:
            # Whoever wrote the manifest must not choose where files go on this machine.
            raise TraceFormatError(
                f"{manifest.url} names {name!r}, which is no data file of a trace",
                hint="fetch the trace with the store's own tool, and look at it before you use it",
            )
    return RemoteBundle(store, text, named), parsed


def _no_manifest(store: Store) -> TraceNotFoundError | TraceFormatError:
    found = store.entries()
    if found:
        return TraceFormatError(
            f"{store.url} is no trace: it has no {MANIFEST_NAME}",
            hint="the manifest comes last when a trace is copied: wait for that, or check the prefix",
        )
    return TraceNotFoundError(
        f"no trace at {store.url}: there is no {MANIFEST_NAME}",
        hint="check bucket, prefix and endpoint",
    )


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _version(info: dict[str, Any]) -> Any:
    return next((info[name] for name in _VERSIONS if info.get(name) is not None), None)


def _same_version(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Nothing that both say tells them apart."""
    if a["size"] != b["size"]:
        return False
    both = [name for name in _VERSIONS if a.get(name) is not None and b.get(name) is not None]
    return not both or a[both[0]] == b[both[0]]
