"""Where an export goes: files and directories that appear only when they are whole, and replace nothing unasked."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tracereplay.errors import OutputExistsError, StorageError


def check_file(path: Path, *, force: bool) -> None:
    """Raise OutputExistsError for something that is there (with ``force``: that is no file), StorageError when there
    is no directory for it."""
    if (path.exists() or path.is_symlink()) and not (force and path.is_file()):
        raise OutputExistsError(path)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise StorageError(f"no directory {parent}", hint="create it, or choose another path")


def check_directory(path: Path, names: Collection[str], *, force: bool) -> None:
    """The same for a directory; ``force`` replaces one that holds nothing but files of these names."""
    if path.exists() or path.is_symlink():
        ours = force and path.is_dir() and not path.is_symlink() and {p.name for p in path.iterdir()} <= set(names)
        if not ours:
            raise OutputExistsError(path)
    elif not path.absolute().parent.is_dir():
        raise StorageError(f"no directory {path.absolute().parent}", hint="create it, or choose another path")


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place in the end; nothing is left when that fails.

    Raises StorageError when the disk refuses.
    """
    made = path.with_name(f".{path.name}.tmp")
    try:
        _remove(made)
        yield made
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        made.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}", hint="free some space, or choose another path"
        ) from None
    finally:
        _remove(made)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write bytes to. As :func:`temporary`."""
    with temporary(path) as made, made.open("wb", buffering=1 << 20) as file:
        yield file


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
