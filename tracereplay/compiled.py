"""Numba as tracereplay uses it: one place for compile options, the disk cache and separate compilation.

Compiled modules import :func:`kernel`, :func:`entry`, :func:`inner` and :func:`hot` from here and never import numba
themselves. Importing this module imports numba (0.3 s), so verbs that compile nothing must not.

Numba puts a copy of every function that is called, and of all that it calls, into each caller and optimises the whole
again: compile time then grows with the number of callers times the size of what lies below. Functions marked
:func:`entry` are compiled once, by themselves, and reached by address; they are what the machine offers to strategies,
to the replay loop and to the twin.

Environment switches, read at import: ``TRACEREPLAY_NRT=1`` compiles with Numba's reference-counting run time
(slow; the code must not depend on its absence), ``TRACEREPLAY_BOUNDSCHECK=1`` checks every array index.
"""

from __future__ import annotations

import copy
import os
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from tracereplay.compile_cache import directory_for

os.environ.pop("NUMBA_CACHE_DIR", None)  # each module has a directory of its own (see _jit)

import numba
from llvmlite import binding  # type: ignore[import-untyped]
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher

F = TypeVar("F", bound=Callable[..., Any])

NRT = os.environ.get("TRACEREPLAY_NRT", "") == "1"
BOUNDSCHECK = os.environ.get("TRACEREPLAY_BOUNDSCHECK", "") == "1"
_settings: Any = numba.config
intrinsic: Any = numba.extending.intrinsic
"""For the few operations that need LLVM itself, such as an unaligned load."""

_OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": BOUNDSCHECK, "error_model": "numpy", "_nrt": NRT}
_FOR_COMPILED = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _jit(function: Callable[..., Any], cached: bool, *sources: Path, **options: Any) -> Any:
    directory = directory_for(Path(function.__code__.co_filename).resolve(), *sources) if cached else None
    _settings.CACHE_DIR = str(directory or "")
    return numba.njit(cache=directory is not None, **(_OPTIONS | options))(function)


def kernel(function: F) -> F:
    """Compile a function and cache it on disk. It may not allocate, nor raise with a run-time value.

    Integer division by zero gives zero (NumPy's rules), the GIL is released, arrays are not counted.
    """
    dispatcher = _jit(function, True, forceinline=False)
    compile_it = dispatcher.compile

    def compile_with_entries(signature: Any) -> Any:
        with global_compiler_lock:  # another thread that needs the same entries waits until they have their addresses
            _load_entries(dispatcher)
            return compile_it(signature)

    dispatcher.compile = compile_with_entries
    return cast(F, dispatcher)


def hot(function: F, *, checked: bool = BOUNDSCHECK) -> F:
    """Compile a small function so that it is always inlined into its callers (which cache it with them).

    For the few steps every event takes: each use costs compile time. ``checked``: an index outside of its array raises
    IndexError.
    """
    return cast(F, _widened(_jit(function, False, forceinline=True, boundscheck=checked, **_FOR_COMPILED)))


def inner(function: F, *, checked: bool = BOUNDSCHECK) -> F:
    """Compile a function out of line for compiled callers only, which cache it with them.

    Python cannot call it: without the wrappers for that it compiles in a fraction of the time. ``checked`` as of
    :func:`hot`.
    """
    _out_of_line.add((function.__module__, function.__qualname__))
    return cast(F, _widened(_jit(function, False, forceinline=False, boundscheck=checked, **_FOR_COMPILED)))


def entry(*types: Any) -> Callable[[F], F]:
    """Compile a function once, by itself, for compiled callers; it is cached on disk in its own right.

    ``types`` are those of its parameters: ``int``, ``bool``, a NamedTuple of one-dimensional arrays, or the annotation
    of such an array (``I64``). For what is called from several places and has much below it: a call hands all arguments
    over in memory and is never inlined.
    """

    def decorate(function: F) -> F:
        dispatcher = _jit(function, True, forceinline=False, **_FOR_COMPILED)
        signature = tuple(map(_numba_type, types))
        resolve = dispatcher.get_call_template

        def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
            with global_compiler_lock:
                _load_entries(dispatcher)
                _load(dispatcher)
                return resolve(args, kws)

        dispatcher.get_call_template = get_call_template
        _entries[id(dispatcher)] = (dispatcher, signature)
        return cast(F, dispatcher)

    return decorate


def address_of(
    function: Callable[..., Any],
    returns: Any,
    *types: Any,
    checked: bool = BOUNDSCHECK,
    sources: Sequence[Path] = (),
) -> int:
    """Compile a function like an :func:`entry`, for callers that get to know it at run time; the address of its code.

    ``function`` may be one that :func:`inner` or :func:`hot` made already. It is never unloaded. ``checked`` as of
    :func:`hot`; ``sources``: files that its code depends on, besides its own and those of tracereplay that it imports.
    """
    plain = getattr(function, "py_func", function)
    with global_compiler_lock:
        dispatcher = _pointed.get(plain)
        if dispatcher is None:
            dispatcher = _pointed[plain] = _jit(
                plain, True, *sources, forceinline=False, boundscheck=checked, **_FOR_COMPILED
            )
        signature = _numba_type(returns)(*map(_numba_type, types))
        _load_entries(dispatcher)
        dispatcher.compile(signature)
        result = dispatcher.overloads[signature.args]
        return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def indirect(returns: Any, *types: Any) -> Any:
    """A compiled ``call(address, arguments)`` for addresses that :func:`address_of` gave for these very types.

    ``arguments`` is a tuple. Nothing checks that the address is one of such a function.
    """
    result, given = _numba_type(returns), tuple(map(_numba_type, types))

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address, packed = values
        convention = context.call_conv
        pointer = convention.get_function_type(result, given).as_pointer()
        arguments = [
            context.cast(builder, builder.extract_value(packed, i), source, target)
            for i, (source, target) in enumerate(zip(signature.args[1].types, given, strict=True))
        ]
        target = builder.inttoptr(address, pointer)
        status, value = convention.call_function(builder, target, result, given, arguments)
        with builder.if_then(status.is_error, likely=False):
            convention.return_status_propagate(builder, status)
        return value

    def call(typingctx: Any, address: Any, arguments: Any) -> Any:
        return result(numba.int64, arguments), emit

    return intrinsic(call)


_pointed: dict[Callable[..., Any], Any] = {}
_entries: dict[int, tuple[Any, tuple[Any, ...]]] = {}
_loaded: set[int] = set()
_out_of_line: set[tuple[str, str]] = set()


def _numba_type(given: Any) -> Any:
    if given is None:
        return numba.none
    if given in (int, bool):
        return numba.int64 if given is int else numba.boolean
    if fields := getattr(given, "_fields", None):
        hints = typing.get_type_hints(given)
        record: Any = numba.types.BaseTuple.from_types
        return record([_numba_type(hints[f]) for f in fields], given)
    scalar = typing.get_args(typing.get_args(given)[1])[0]  # ndarray[shape, dtype[scalar]]
    return numba.types.Array(numba.from_dtype(scalar), 1, "C")


def _load_entries(dispatcher: Any, seen: set[int] | None = None) -> None:
    """Have the entries below a function at their addresses, callees first.

    Code from the disk is linked by name as soon as it is loaded, and a name without an address ends the process.
    """
    seen = set() if seen is None else seen
    for callee in _callees(dispatcher):
        if id(callee) not in seen:
            seen.add(id(callee))
            _load_entries(callee, seen)
            if id(callee) in _entries:
                _load(callee)


def _callees(dispatcher: Any) -> Iterator[Any]:
    """Compiled functions that a function's code names."""
    function = dispatcher.py_func
    names = function.__code__.co_names
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, CPUDispatcher):
            yield value
        elif isinstance(value, ModuleType) and value.__name__.startswith("tracereplay"):
            for attribute in names:
                if isinstance(found := getattr(value, attribute, None), CPUDispatcher):
                    yield found


def _load(dispatcher: Any) -> None:
    """Compile an entry or read it from the disk, and give its address the name that callers link to."""
    if id(dispatcher) in _loaded:
        return
    _loaded.add(id(dispatcher))
    signature = _entries[id(dispatcher)][1]
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    result = dispatcher.overloads[signature]
    known = copy.copy(result.fndesc)
    known.mangled_name = f"{known.modname}.{known.qualname}"
    binding.add_symbol(known.mangled_name, result.library.get_pointer_to_function(result.fndesc.llvm_func_name))
    context = dispatcher.targetctx
    context.remove_user_function(result.entry_point)
    context.insert_user_function(result.entry_point, known, [])


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
