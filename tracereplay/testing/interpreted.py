"""The machine, the loop and a strategy as plain Python: slow, and every error has its file and line.

:func:`install` puts a stand-in in the place of ``tracereplay.compiled`` whose decorators leave functions as they are.
It acts on what is imported afterwards, so it is for a process of its own, and for its first step. No Numba is needed.
"""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

import tracereplay

REPLACED = "tracereplay.compiled"


def as_it_is(function: Callable[..., Any], **_options: Any) -> Callable[..., Any]:
    """Decorator that changes nothing."""
    return function


def install() -> None:
    """From now on nothing of tracereplay is compiled in this process. Raises RuntimeError when something is already."""
    if REPLACED in sys.modules:
        raise RuntimeError("the compiler is loaded already")
    stand_in: Any = ModuleType(REPLACED, "Nothing is compiled in this process.")
    for name in ("kernel", "hot", "inner", "intrinsic"):
        setattr(stand_in, name, as_it_is)
    stand_in.entry = lambda *_types: as_it_is
    stand_in.address_of = address_of
    stand_in.indirect = lambda *_types: call
    sys.modules[REPLACED] = stand_in
    tracereplay.compiled = stand_in


_functions: list[Callable[..., Any]] = []


def address_of(function: Callable[..., Any], *_types: Any, **_options: Any) -> int:
    """A number that stands for a function, never 0."""
    _functions.append(function)
    return len(_functions)


def call(address: int, arguments: tuple[Any, ...]) -> Any:
    """Call the function of a number."""
    return _functions[address - 1](*arguments)


class Records:
    """A batch of the demand stream whose elements have their fields as attributes, as compiled code sees them."""

    def __init__(self, batch: np.ndarray[Any, Any]) -> None:
        record = namedtuple("Op", batch.dtype.names)  # type: ignore[misc]
        self.shape = batch.shape
        self._rows = [record(*row) for row in batch.tolist()]

    def __getitem__(self, i: int) -> Any:
        return self._rows[i]
