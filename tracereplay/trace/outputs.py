"""Where results go, and are read from again: a path, or a URL. What is written appears when it is whole, and replaces
nothing unasked.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tracereplay.errors import OutputExistsError, StorageError, UsageError
from tracereplay.trace.store import Place, is_url, name_of, path_of, store_of


def read_bytes(place: Place) -> bytes:
    """Content of a file. Raises OSError as reading a path does (FileNotFoundError for a URL too), StorageError."""
    return store_of(str(place)).read() if is_url(place) else path_of(place).read_bytes()


def exists(place: Place) -> bool:
    """There is such a file or, of paths, anything by that name. Raises StorageError."""
    if is_url(place):
        return store_of(str(place)).info() is not None
    path = path_of(place)
    return path.exists() or path.is_symlink()


def suffix_of(place: Place) -> str:
    """``.parquet`` of ``s3://bucket/a.parquet``; empty where the name has none."""
    return Path(name_of(place)).suffix


def check_file(place: Place, *, force: bool) -> None:
    """Raise OutputExistsError for something that is there, unless ``force``; UsageError for a directory that is there,
    or when there is none for it; StorageError when the store refuses.
    """
    if is_url(place):
        store = store_of(str(place))
        store.check_bucket()
        if not force and store.info() is not None:
            raise OutputExistsError(place)
    elif exists(place):
        if not force:
            raise OutputExistsError(place)
        if not path_of(place).is_file():
            raise UsageError(f"{place} is not a file", hint="name a file in a directory that exists")
    else:
        _check_parent(path_of(place))


def check_directory(place: Place, names: Collection[str], *, force: bool) -> None:
    """The same for a directory; ``force`` replaces one that holds nothing but files of these names."""
    if is_url(place):
        store = store_of(str(place))
        store.check_bucket()
        held = set(store.listing() or ())
        if held and not (force and held <= set(names)):
            raise OutputExistsError(place)
        return
    path = path_of(place)
    if exists(place):
        ours = force and path.is_dir() and not path.is_symlink() and {p.name for p in path.iterdir()} <= set(names)
        if not ours:
            raise OutputExistsError(place)
    else:
        _check_parent(path)


def _check_parent(path: Path) -> None:
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"no directory {parent}", hint="create it, or name a file in a directory that exists")


@contextmanager
def written(place: Place, *, keep: bool = True) -> Iterator[Path]:
    """A path on this machine to write a file or a directory to, which takes its place when the block ends. Its suffix
    is that of the place.

    Of a block that fails nothing is left. Raises StorageError when the disk or the store refuses; what was to go to a
    store is kept then, and named (``keep``; else it is written again).
    """
    if is_url(place):
        yield from _uploaded(str(place), keep)
        return
    path = path_of(place)
    made = path.with_name(f".tmp-{path.name}")
    try:
        _remove(made)
        yield made
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        made.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write {place}: {error.strerror or error}", hint="free some space, or choose another path"
        ) from None
    finally:
        _remove(made)


@contextmanager
def new_file(place: Place) -> Iterator[BinaryIO]:
    """A file to write bytes to. As :func:`written`."""
    with written(place) as made, made.open("wb", buffering=1 << 20) as file:
        yield file


def write_text(place: Place, text: str) -> None:
    """Write a file at once. Raises StorageError."""
    with written(place) as made:
        made.write_text(text, encoding="utf-8")


def _uploaded(url: str, keep: bool) -> Iterator[Path]:
    store = store_of(url)
    try:
        directory = Path(tempfile.mkdtemp(prefix="tracereplay-out-"))
    except OSError as error:
        raise StorageError(f"no place to write {url} at first: {error.strerror}", hint="set TMPDIR") from None
    made = directory / name_of(url)
    try:
        yield made
        files = [made] if made.is_file() else sorted(p for p in made.rglob("*") if p.is_file())
    except BaseException as error:
        _remove(directory)
        if isinstance(error, OSError):
            hint = "free some space, or set TMPDIR to a directory that has more"
            raise StorageError(f"cannot write {made} for {url}: {error.strerror or error}", hint=hint) from None
        raise
    try:
        for file in files:
            (store if file == made else store.inside(file.relative_to(made).as_posix())).put(file)
        if made.is_dir():
            for name in set(store.listing() or ()) - {file.relative_to(made).as_posix() for file in files}:
                store.inside(name).remove()
    except StorageError as error:
        if not keep:
            _remove(directory)
            raise
        raise StorageError(error.message, hint=f"the result is kept in {made}; {error.hint}") from error
    _remove(directory)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
