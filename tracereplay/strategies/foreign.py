"""Strategies that are not ours: loaded from a file, checked for what they declare, found again in another process.

A file is executed once under a module name that holds the hash of its text, and stays in ``sys.modules``: compiled
code on the disk refers to the module by that name, so another process that loads the same text takes the code from
there, and a changed text is another module. Importing a strategy executes it; what it may raise then becomes a
:class:`~tracereplay.errors.PluginError` with file and line.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import sys
import traceback
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, resolve_name, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

from tracereplay.errors import ParameterError, PluginError, nearest
from tracereplay.strategies.contract import COMPILED, OPTIONAL, Params

FILE_MODULE = "tracereplay_file_"
"""Modules loaded from a path are called so, with the file's stem and the hash of its text behind."""
ARGUMENTS = {
    "init": ("m", "st"),
    "allocate": ("m", "st", "req", "out"),
    "release": ("m", "st", "block", "cpu", "now"),
    "timer": ("m", "st", "number", "now"),
    "shrink": ("m", "st", "pages"),
    "finish": ("m", "st"),
}
"""Parameters of a strategy's functions (contract.py)."""
INT64 = 1 << 63


def load_file(path: Path) -> ModuleType:
    """The module of a strategy file. Raises PluginError: no such file, or what it raised, with the line."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise PluginError(
            f"strategy file {str(path)!r} cannot be read: {error.strerror}", hint="write -s path/to/file.py:Name"
        ) from error
    name = f"{FILE_MODULE}{path.stem}_{hashlib.sha256(text).hexdigest()[:20]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(path.resolve()))
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(text, loader.path, "exec"), vars(module))
    except SyntaxError as error:
        del sys.modules[name]
        raise PluginError(f"{error.filename}:{error.lineno}: {error.msg}", hint="this is no valid Python") from error
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        where = place_in(error, {loader.path}) or loader.path
        raise PluginError(f"{where}: {describe(error)}", hint="the file raised this when it was imported") from error
    return module


def describe(error: BaseException) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0] if str(error) else type(error).__name__


def place_in(error: BaseException, files: set[str]) -> str | None:
    """``file:line`` of the innermost frame of a traceback that lies in one of ``files``; None when none does."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def from_file(path: Path, name: str | None) -> type[Params]:
    """The strategy called ``name`` in a file; its only one without a name. Raises PluginError."""
    module = load_file(path)
    own = {
        n: v
        for n, v in vars(module).items()
        if isinstance(v, type) and issubclass(v, Params) and v.__module__ == module.__name__
    }
    if name is None and len(own) == 1:
        return next(iter(own.values()))
    if name is None or name not in own:
        listing = f"it has: {', '.join(own) or 'none'}"
        guess = nearest(name, own) if name else None
        raise PluginError(
            f"{path} has no Params class {name!r}" if name else f"{path} does not say which Params class to take",
            hint=f"did you mean {guess!r}? {listing}" if guess else f"write {path}:Name; {listing}",
        )
    return own[name]


def is_foreign(params: type[Params]) -> bool:
    """Whether a strategy is none of ours: it runs checked, and in a process of its own."""
    return not params.__module__.startswith("tracereplay.")


def own_files(module: ModuleType) -> list[Path]:
    """The file of a strategy's module and those of all it imports that is neither ours, nor Python's, nor NumPy."""
    found: dict[str, ModuleType] = {}
    todo = [module]
    while todo:
        one = todo.pop()
        if one.__name__ in found or not getattr(one, "__file__", None):
            continue
        found[one.__name__] = one
        for name in _imports(one):
            known = name.split(".")[0] in sys.stdlib_module_names | {"tracereplay", "numpy", "numba", "llvmlite"}
            if not known and (other := sys.modules.get(name)) is not None:
                todo.append(other)
    return sorted(Path(m.__file__ or "") for m in found.values())


def _imports(module: ModuleType) -> list[str]:
    """Names of the modules that a module's text imports, and of what it takes from packages."""
    names = []
    for node in ast.walk(ast.parse(Path(module.__file__ or "").read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                resolve_name("." * node.level + (node.module or ""), module.__package__) if node.level else node.module
            )
            names += [base or "", *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def reference_of(params: type[Params]) -> str:
    """What another process finds a strategy by: ``/path/file.py:Name`` or ``module:Name``. Raises PluginError."""
    module = sys.modules[params.__module__]
    if getattr(module, params.__qualname__, None) is not params:
        raise PluginError(
            f"strategy {params.__qualname__!r} cannot be found again by its name",
            hint="define the class at the top of a module",
        )
    home = module.__file__ if params.__module__.startswith(FILE_MODULE) else params.__module__
    return f"{home}:{params.__qualname__}"


def from_reference(reference: str) -> type[Params]:
    """The strategy of :func:`reference_of`, also ``/path/file.py`` for the only one in it. Raises PluginError."""
    home, _, name = (reference + ":" if reference.endswith(".py") else reference).rpartition(":")
    if home.endswith(".py"):
        return from_file(Path(home), name or None)
    try:
        params = getattr(importlib.import_module(home), name)
    except (Exception, SystemExit) as error:
        raise PluginError(f"strategy {reference!r} cannot be loaded: {describe(error)}") from error
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise PluginError(f"{reference!r} is not a Params class", hint="derive it from contract.Params")
    return params


def declaration_problems(params: type[Params]) -> list[str]:
    """What is wrong with how a strategy declares itself, in words; empty when nothing is."""
    found = [
        f"class {params.__name__} has no text {attribute!r}"
        for attribute in ("name", "summary", "mimics")
        if not isinstance(getattr(params, attribute, None), str) or not getattr(params, attribute)
    ]
    made = getattr(params, "__dataclass_params__", None)
    if "__dataclass_params__" not in vars(params) or made is None or not made.frozen:
        return [*found, f"class {params.__name__} is no frozen dataclass: write @dataclass(frozen=True) above it"]
    bare = [f.name for f in dataclasses.fields(params) if "unit" not in f.metadata]
    if bare:
        return [*found, f"parameter {bare[0]!r} is not declared with param(default, unit=..., doc=..., source=...)"]
    for info in params.infos().values():
        texts = {"unit": info.unit, "doc": info.doc, "source": info.source}
        found += [f"parameter {info.name!r} has no {what}" for what, text in texts.items() if not text]
    try:
        default = params()
        words: list[Any] = list(default.pack())
        state: Any = default.state_words()
    except ParameterError as error:
        return [*found, f"its own defaults are refused: {error.message}; {error.hint}"]
    except Exception as error:
        return [*found, f"its parameters cannot be packed into state words: {describe(error)}"]
    if any(not isinstance(w, int) or not -INT64 <= w < INT64 for w in words):
        found.append("pack() gives words that are no 64-bit integers")
    if not isinstance(state, int) or not len(words) <= state < 1 << 32:
        found.append(f"state_words() is {state}: at least {len(words)} are needed for the parameters, 2^32 is too much")
    return found


def function_problems(params: type[Params]) -> list[str]:
    """What is missing among a strategy's functions, in words."""
    module = sys.modules[params.__module__]
    found = []
    for name in (*COMPILED, *OPTIONAL):
        function = getattr(module, name, None)
        function = getattr(function, "py_func", function)  # as it was before it was compiled
        if function is None:
            if name in COMPILED:
                found.append(f"there is no function {name}({', '.join(ARGUMENTS[name])})")
            continue
        code = getattr(function, "__code__", None)
        if code is None or code.co_argcount != len(ARGUMENTS[name]) or code.co_flags & 0x0C or code.co_kwonlyargcount:
            found.append(f"{name} must be a function of ({', '.join(ARGUMENTS[name])})")
    return found
