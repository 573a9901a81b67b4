"""Where compiled code is kept on disk, under names that no change of a source can make stale.

Numba's own cache looks at the file of the compiled function alone: after a change in a *callee's* file it
serves stale code. Each module's compiled functions therefore live in a directory named by a hash over the module and
all it imports from tracereplay, directly or not, the versions of Numba and Python, the CPU and the options. A change
compiles anew what can see it, and nothing else. ``TRACEREPLAY_CACHE_DIR``, else ``XDG_CACHE_HOME/tracereplay``, else
``~/.cache/tracereplay`` holds them. Where no private directory can be written, every process compiles anew.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
STALE_AFTER_S = 30 * 86400
"""A directory that no process used for this long is removed when a new one is made."""

_IMPORT = re.compile(rb"^\s*(?:from|import)\s+(tracereplay(?:\.\w+)*|\.[.\w]*)", re.MULTILINE)


def sources_of(*files: Path) -> list[Path]:
    """``files`` and all they import from tracereplay, directly or not, sorted.

    An import from a package (``from tracereplay.machine import x``) counts for every module in it.
    """
    found: set[Path] = set()
    todo = list(files)
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imports(path)
    return sorted(found)


@functools.cache
def _text(path: Path) -> bytes:
    """A source as this process has it: what is imported later belongs to what was imported before."""
    return path.read_bytes()


@functools.cache
def _imports(path: Path) -> tuple[Path, ...]:
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[Path]:
    for match in _IMPORT.findall(_text(path)):
        if match.startswith(b"."):
            yield from path.parent.glob("*.py")
            continue
        target = PACKAGE.joinpath(*match.decode().split(".")[1:])
        if target.is_dir():
            # the root package holds public names only; its modules are imported by their full names
            yield from target.glob("*.py") if target != PACKAGE else (PACKAGE / "__init__.py",)
        elif (module := target.with_suffix(".py")).is_file():
            yield module


@functools.cache
def _digest_of(path: Path) -> bytes:
    return hashlib.sha256(_text(path)).digest()


def source_digest(*files: Path) -> str:
    """A name for what ``files`` and all they import from tracereplay say: results of other code have another."""
    digest = hashlib.sha256()
    for path in sources_of(*files):
        digest.update(str(path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path).encode() + b"\0")
        digest.update(_digest_of(path))
    return digest.hexdigest()


@functools.cache
def _environment() -> bytes:
    """What besides the sources decides the code: Python, Numba, the CPU as LLVM sees it, options."""
    from llvmlite import binding  # type: ignore[import-untyped]

    options = sorted(
        f"{k}={v}"
        for k, v in os.environ.items()
        if k.startswith(("NUMBA_", "TRACEREPLAY_NRT", "TRACEREPLAY_BOUNDSCHECK"))
        and k not in ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS")
    )
    cpu = (platform.machine(), binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())
    return "\0".join((sys.version, version("numba"), version("llvmlite"), *cpu, *options)).encode()


def cache_key(sources: Sequence[Path]) -> str:
    """Name of the directory for code compiled from these sources."""
    digest = hashlib.sha256(_environment())
    for path in sources:
        name = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path
        digest.update(f"\0{name}\0".encode())
        digest.update(_digest_of(path))
    return digest.hexdigest()[:20]


def cache_root() -> Path | None:
    """Where cache directories live, or None when the environment names no place."""
    if own := os.environ.get("TRACEREPLAY_CACHE_DIR"):
        return Path(own) / "numba"
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "tracereplay" / "numba"
    try:
        return Path.home() / ".cache" / "tracereplay" / "numba"
    except RuntimeError:
        return None


@functools.cache
def directory_for(*files: Path) -> Path | None:
    """The directory for code compiled from ``files`` and what they import; None when no private one can be written."""
    root = cache_root()
    if root is None:
        return None
    directory = root / cache_key(sources_of(*files))
    return directory if _usable(directory) else None


def _usable(directory: Path) -> bool:
    """Make the directory, private to this user, and see that it can be written.

    Cached code is loaded as pickles: a directory that somebody else owns or may write to is not used.
    """
    try:
        fresh = not directory.exists()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = directory.stat()
        if state.st_uid != os.geteuid() or state.st_mode & 0o022:
            return False
        if not os.access(directory, os.W_OK | os.X_OK):
            return False
        os.utime(directory)
        if fresh:
            _remove_stale(directory.parent)
    except OSError:
        return False
    return True


@functools.cache
def _remove_stale(root: Path) -> None:
    limit = time.time() - STALE_AFTER_S
    for old in root.iterdir():
        if old.is_dir() and old.stat().st_mtime < limit:
            shutil.rmtree(old, ignore_errors=True)
