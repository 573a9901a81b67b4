"""Traces that are written to a URL: a bundle on this machine at first, then put into the store, the manifest last.

So a reader of the store never sees a manifest that names what is not there. What the store refuses is kept here.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tracereplay.errors import OutputExistsError, StorageError, TracereplayError, UsageError
from tracereplay.trace.manifest import MANIFEST_NAME
from tracereplay.trace.remote import AT_ONCE
from tracereplay.trace.store import Place, Store, is_url, name_of, path_of, store_of


@contextmanager
def bundle_at(place: Place, *, force: bool) -> Iterator[Path]:
    """A path to write a bundle to, or a file of raw frames: the place itself, or one that goes to the URL in the end.

    Of a URL: raises OutputExistsError for what is there, with ``force`` UsageError unless it is a trace; StorageError
    when the store refuses. A bundle that did not get there, and what a failed block left of one, is kept and named.
    """
    if not is_url(place):
        yield path_of(place)
        return
    store = store_of(str(place).rstrip("/"))
    _check(store, force)
    try:
        directory = Path(tempfile.mkdtemp(prefix="tracereplay-out-"))
    except OSError as error:
        raise StorageError(f"no place to write {place} at first: {error.strerror}", hint="set TMPDIR") from None
    made = directory / name_of(store.url)
    try:
        yield made
    except TracereplayError as error:
        if not made.exists():
            directory.rmdir()
            raise
        error.hint = f"{error.hint + '; ' if error.hint else ''}what there was is kept in {made}"
        raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    try:
        upload(made, store)
    except StorageError as error:
        last = f", {MANIFEST_NAME} last" if made.is_dir() else ""
        hint = f"it is kept in {made}: copy it there{last}; {error.hint}"
        raise StorageError(error.message, hint=hint) from error
    shutil.rmtree(directory, ignore_errors=True)


def upload(made: Path, store: Store) -> None:
    """Put a bundle (or one file) into a store, in place of a trace that may be there. Raises StorageError."""
    if made.is_file():
        store.put(made)
        return
    manifest = store.inside(MANIFEST_NAME)
    old = set(store.listing() or ())
    if MANIFEST_NAME in old:
        manifest.remove()
    files = {p.relative_to(made).as_posix(): p for p in made.rglob("*") if p.is_file() and p.suffix != ".tmp"}
    pool = ThreadPoolExecutor(AT_ONCE, "trace-upload")
    try:
        for _ in pool.map(lambda name: store.inside(name).put(files[name]), sorted(files.keys() - {MANIFEST_NAME})):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    manifest.put(made / MANIFEST_NAME)
    for name in old - files.keys():
        store.inside(name).remove()


def _check(store: Store, force: bool) -> None:
    store.check_bucket()
    if store.info() is None:  # a prefix is something as well
        return
    if not force:
        raise OutputExistsError(store.url)
    if store.inside(MANIFEST_NAME).info() is None:
        raise UsageError(
            f"{store.url} is not a trace; --force does not replace it",
            hint="choose another URL, or remove it yourself",
        )
