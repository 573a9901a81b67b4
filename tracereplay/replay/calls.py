"""A strategy's functions as the loop calls them: bound, compiled by themselves, their addresses in the loop's words."""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import Any

from tracereplay.compiled import address_of, hot, inner
from tracereplay.errors import StrategyError
from tracereplay.machine.layout import I64, Machine
from tracereplay.replay.layout import X_ALLOCATE, X_FINISH, X_INIT, X_RELEASE, X_SHRINK, X_TIMER
from tracereplay.strategies.contract import COMPILED, Params, mark_of
from tracereplay.strategies.foreign import is_foreign, own_files

INIT = (Machine, I64)
ALLOCATE = (Machine, I64, I64, I64)
RELEASE = (Machine, I64, I64, int, int)
TIMER = (Machine, I64, int, int)
SHRINK = (Machine, I64, int)
FINISH = (Machine, I64)
"""Types of what each function is given (contract.py)."""


def put_addresses(params: type[Params], x: I64) -> None:
    """Compile a strategy's functions and put their addresses into ``x``. Raises StrategyError when it lacks one.

    Those of a strategy that is not ours check every index of theirs (IndexError).
    """
    module = sys.modules[params.__module__]
    missing = [name for name in COMPILED if not hasattr(module, name)]
    if missing:
        raise StrategyError(
            f"strategy {params.name!r} has no function {missing[0]!r}",
            hint="a strategy file defines init, allocate and release; see docs/strategies.md",
        )
    bind(module)
    checks: Any = {"checked": True, "sources": own_files(module)} if is_foreign(params) else {}
    x[X_INIT] = address_of(module.init, None, *INIT, **checks)
    x[X_ALLOCATE] = address_of(module.allocate, int, *ALLOCATE, **checks)
    x[X_RELEASE] = address_of(module.release, None, *RELEASE, **checks)
    for name, place, types in (("timer", X_TIMER, TIMER), ("shrink", X_SHRINK, SHRINK), ("finish", X_FINISH, FINISH)):
        if hasattr(module, name):
            x[place] = address_of(getattr(module, name), None, *types, **checks)


def bind(module: ModuleType) -> None:
    """Compile the marked functions that a strategy module names, in place, so that its functions can call them.

    Those that it imports from another module of strategies are bound there as well, since they call one another.
    """
    checked = {} if module.__name__.startswith("tracereplay.") else {"checked": True}
    for name, value in list(vars(module).items()):
        if isinstance(value, FunctionType) and (mark := mark_of(value)):
            if value.__module__ != module.__name__:
                home = sys.modules[value.__module__]
                bind(home)
                setattr(module, name, getattr(home, value.__name__))
            else:
                setattr(module, name, (inner if mark == "called" else hot)(value, **checked))
