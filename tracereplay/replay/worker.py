"""The other end of :class:`~tracereplay.replay.remote.RemoteEngine`: an engine whose strategy is not ours.

``python -m tracereplay.replay.worker PIPE MEMORY`` with two inherited descriptors. Indexes are checked in the
strategy's own functions, and its counters are not handed over before the books balance (audit.py).
"""

from __future__ import annotations

import ast
import mmap
import re
import sys
from dataclasses import replace as changed
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tracereplay.demand.stream import OP
from tracereplay.errors import StrategyError, TracereplayError
from tracereplay.machine.layout import Machine
from tracereplay.replay import audit
from tracereplay.replay.child import begin_child
from tracereplay.replay.engine import Engine
from tracereplay.replay.remote import SLOT_BYTES, SLOTS, request_in_words
from tracereplay.strategies.contract import Params
from tracereplay.strategies.foreign import declaration_problems, describe, from_reference, function_problems, place_in


def main() -> None:
    """Entry point of the process."""
    pipe = begin_child()
    memory = mmap.mmap(int(sys.argv[2]), 0)
    serve(pipe, memory)


def serve(pipe: Connection, memory: mmap.mmap) -> None:
    """Answer until the other end has what it wants or hangs up."""
    x = np.frombuffer(memory, np.int64, offset=SLOTS * SLOT_BYTES)
    params: Params | None = None
    try:
        reference, values, config, options = pipe.recv()
        strategy = from_reference(reference)
        if problems := declaration_problems(strategy) + function_problems(strategy):
            raise StrategyError(f"{reference}: {problems[0]}", hint="see docs/write-a-strategy.md")
        params = strategy(**values)
        engine = Engine(params, config, **options)
        x[:] = engine.arrays.x
        engine.arrays = engine.arrays._replace(x=x)
        engine.feed(np.zeros(0, OP))  # compiles what is not on the disk
        pipe.send(("machine", without_pages(engine.machine)))
        while (message := pipe.recv()) is not None:
            engine.feed(batch_of(message, memory))
            pipe.send(("fed", None))
        outcome = engine.finish()
        if what := audit.problem(engine.machine, engine.arrays):
            raise StrategyError(f"strategy {params.name!r} {what}", hint="this is a bug in the strategy's code")
        pipe.send(("outcome", changed(outcome, machine=without_pages(outcome.machine))))
    except EOFError:
        return
    except TracereplayError as error:
        pipe.send(("error", (type(error).__name__, error.message, error.hint)))
    except Exception as error:
        message, hint = explained(error, params, x)
        pipe.send(("error", ("StrategyError", message, hint)))


def batch_of(message: Any, memory: mmap.mmap) -> np.ndarray[Any, Any]:
    """The batch that a message is or tells the place of."""
    if isinstance(message, np.ndarray):
        return message
    slot, n = message
    return np.frombuffer(memory, OP, n, offset=slot * SLOT_BYTES)


def without_pages(machine: Machine) -> Machine:
    """A machine's words and counters: its page records are large, and nobody looks at them afterwards."""
    return machine._replace(pg=machine.pg[:0].copy(), pb=machine.pb[:0].copy())


def explained(error: Exception, params: Params | None, x: np.ndarray[Any, Any]) -> tuple[str, str]:
    """What an exception out of a strategy means, and the next step."""
    name = f"strategy {params.name!r}" if params else "the strategy"
    file = sys.modules[type(params).__module__].__file__ or "" if params else ""
    if type(error).__module__.startswith("numba"):
        where, reason = compile_problem(str(error), file)
        return f"{name} does not compile: {where}: {reason}", "docs/write-a-strategy.md says what compiles and what not"
    where = place_in(error, {file}) or file
    if isinstance(error, IndexError):
        return (
            f"{name} used an index outside of its array in {where} {request_in_words(x)}",
            "the check names the line, if it finds it: tracereplay strategies --check",
        )
    return f"{name} raised {describe(error)} in {where} {request_in_words(x)}", "this is a bug in the strategy's code"


def compile_problem(text: str, file: str) -> tuple[str, str]:
    """``file:line`` and the reason, from what Numba says: it names the innermost place first."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    name = re.escape(Path(file).name)
    lines = re.findall(rf'File "[^"]*{name}", line (\d+)', text) or re.findall(rf"{name}[: (]+(\d+)\)", text)
    reason = next((line.strip() for line in text.splitlines() if not line.startswith("Failed in nopython")), "")
    line = lines[0] if lines else "?"
    if found := re.search(r"Untyped global name '(\w+)'.*<class 'function'>", text):
        reason = f"{found[1]} is called and not marked: write @compiled above it"
    elif found := re.search(r"name '(\w+)' is not defined", text):
        reason = f"the name {found[1]} is not defined"
        line = str(line_of_name(file, found[1]) or line)
    elif found := re.search(r">>> (.*)", text):
        reason = f"there is no {found[1].strip()} for these types"
    elif reason.startswith("Internal error"):
        reason = text.strip().splitlines()[-1]
    return f"{file}:{line}", reason or "Numba refuses it"


def line_of_name(file: str, name: str) -> int | None:
    """The first line of a file that uses a name."""
    nodes = ast.walk(ast.parse(Path(file).read_bytes()))
    return min((node.lineno for node in nodes if isinstance(node, ast.Name) and node.id == name), default=None)


if __name__ == "__main__":
    main()
