"""Numba as tracereplay uses it: one place for compile options and for the disk cache.

Compiled modules import :func:`kernel` and :func:`hot` from here and never import numba themselves. Importing
this module imports numba (0.3 s), so verbs that compile nothing must not.

Numba's own cache looks at the file of the compiled function alone: after a change in a *callee's* file it
serves stale code. The cache therefore lives in a directory of our own, named by a hash over the sources of
every module that holds compiled code and everything of tracereplay those import, the versions of Numba and
Python, the CPU and the options. ``TRACEREPLAY_CACHE_DIR``, else ``XDG_CACHE_HOME/tracereplay``, else
``~/.cache/tracereplay`` holds it. Where no private directory can be written, every process compiles anew.

Environment switches, read at import: ``TRACEREPLAY_NRT=1`` compiles with Numba's reference-counting run time
(slow; the code must not depend on its absence), ``TRACEREPLAY_BOUNDSCHECK=1`` checks every array index.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

PACKAGE = Path(__file__).resolve().parent
STALE_AFTER_S = 30 * 86400
"""A cache directory that no process used for this long is removed when a new one is made."""

NRT = os.environ.get("TRACEREPLAY_NRT", "") == "1"
BOUNDSCHECK = os.environ.get("TRACEREPLAY_BOUNDSCHECK", "") == "1"

_IMPORT = re.compile(rb"^\s*(?:from|import)\s+(tracereplay(?:\.\w+)*|\.[.\w]*)", re.MULTILINE)


def compiled_sources(package: Path = PACKAGE) -> list[Path]:
    """Files under ``package`` whose text can change compiled code, sorted.

    Those that import this module, and all they import from tracereplay, directly or not. An import from a
    package (``from tracereplay.machine import x``) counts for every module in it.
    """
    imports = {path: set(_imported(path, package)) for path in package.rglob("*.py")}
    here = package / "compiled.py"
    found: set[Path] = set()
    todo = [path for path, targets in imports.items() if here in targets]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += imports[path]
    return sorted(found)


def _imported(path: Path, package: Path) -> Iterator[Path]:
    for match in _IMPORT.findall(path.read_bytes()):
        if match.startswith(b"."):
            yield from path.parent.glob("*.py")
            continue
        target = package.joinpath(*match.decode().split(".")[1:])
        if target.is_dir():
            # the root package holds public names only; its modules are imported by their full names
            yield from target.glob("*.py") if target != package else (package / "__init__.py",)
        elif (module := target.with_suffix(".py")).is_file():
            yield module


def cache_key(sources: Iterable[Path], package: Path = PACKAGE) -> str:
    """Name of the cache directory for these sources on this Python, Numba, CPU and set of options."""
    digest = hashlib.sha256()
    options = sorted(
        f"{k}={v}"
        for k, v in os.environ.items()
        if k.startswith("NUMBA_") and k not in ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS")
    )
    for fact in (sys.version, version("numba"), version("llvmlite"), _cpu(), NRT, BOUNDSCHECK, *options):
        digest.update(f"{fact}\0".encode())
    for path in sources:
        name = path.relative_to(package) if path.is_relative_to(package) else path
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:20]


def _cpu() -> str:
    """Host CPU as LLVM sees it: code compiled for one may not run on another."""
    from llvmlite import binding  # type: ignore[import-untyped]

    features = binding.get_host_cpu_features()
    return f"{platform.machine()} {binding.get_host_cpu_name()} {features.flatten()}"


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


def configure_cache(*extra_sources: Path) -> Path | None:
    """Point Numba at the cache directory for the package's sources and ``extra_sources``; the directory.

    Acts on functions decorated from now on. Called on import without arguments; call it again before
    importing a user's compiled file. None: no private directory can be written, and nothing is cached.
    """
    root = cache_root()
    directory = None
    if root is not None:
        directory = root / cache_key([*compiled_sources(), *(p.resolve() for p in extra_sources)])
        if not _usable(directory):
            directory = None
    _state["directory"] = directory
    if directory is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(directory)
        if "numba" in sys.modules:
            sys.modules["numba"].config.CACHE_DIR = str(directory)
    return directory


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
        with tempfile.TemporaryFile(dir=directory):
            pass
        os.utime(directory)
        if fresh:
            _remove_stale(directory.parent)
    except OSError:
        return False
    return True


def _remove_stale(root: Path) -> None:
    limit = time.time() - STALE_AFTER_S
    for old in root.iterdir():
        if old.is_dir() and old.stat().st_mtime < limit:
            shutil.rmtree(old, ignore_errors=True)


_state: dict[str, Path | None] = {"directory": None}
configure_cache()

import numba  # noqa: E402 - reads NUMBA_CACHE_DIR on import

_jit: Any = numba.njit
intrinsic: Any = numba.extending.intrinsic
"""For the few operations that need LLVM itself, such as an unaligned load."""


def cache_directory() -> Path | None:
    """The cache directory in use; None when nothing is cached."""
    return _state["directory"]


def _options() -> dict[str, Any]:
    return {"nogil": True, "boundscheck": BOUNDSCHECK, "error_model": "numpy", "_nrt": NRT}


_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: F) -> F:
    """Compile a function and cache it on disk. It may not allocate, nor raise with a run-time value.

    Integer division by zero gives zero (NumPy's rules), the GIL is released, arrays are not counted.
    """
    return cast(F, _jit(cache=cache_directory() is not None, forceinline=False, **_options())(function))


def hot(function: F) -> F:
    """Compile a small function so that it is always inlined into its callers (which cache it with them).

    For the few steps every event takes: each use costs compile time.
    """
    return cast(F, _widened(_jit(forceinline=True, **_INNER, **_options())(function)))


def inner(function: F) -> F:
    """Compile a function out of line for compiled callers only, which cache it with them.

    Python cannot call it: without the wrappers for that it compiles in a fraction of the time.
    """
    _out_of_line.add((function.__module__, function.__qualname__))
    return cast(F, _widened(_jit(forceinline=False, **_INNER, **_options())(function)))


def _widened(dispatcher: Any) -> Any:
    """Let compiled callers see one specialisation: constants in arguments count as integers, not as types of their own.

    Numba would compile the function, and all it calls, once more for each constant.
    """
    resolve = dispatcher.get_call_template
    unliteral: Any = numba.types.unliteral

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return resolve(tuple(map(unliteral, args)), {k: unliteral(v) for k, v in kws.items()})

    dispatcher.get_call_template = get_call_template
    return dispatcher


_out_of_line: set[tuple[str, str]] = set()


def _keep_out_of_line() -> None:
    """Have LLVM leave :func:`inner` functions out of line.

    Numba has no option for it, and LLVM copies them into every caller: compile time then multiplies with the depth of
    the call graph (a minute instead of seconds here). Without this the code is as correct and only slower to compile.
    """
    from numba.core.base import BaseContext

    context: Any = BaseContext
    declare = context.declare_function

    def declare_function(self: Any, module: Any, fndesc: Any) -> Any:
        function = declare(self, module, fndesc)
        if (fndesc.modname, fndesc.qualname) in _out_of_line:
            function.attributes.add("noinline")
        return function

    context.declare_function = declare_function


_keep_out_of_line()
