"""The supervised trials of a strategy, as plain Python, in the process that :mod:`tracereplay.testing.check` starts.

``python -m tracereplay.testing.trial REFERENCE OUT`` writes what it found to the file OUT (JSON) and ends with 0.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import resource
import signal
import sys
import traceback
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tracereplay.errors import ParameterError, StrategyError, TracereplayError
from tracereplay.strategies import contract
from tracereplay.strategies.contract import Params
from tracereplay.strategies.foreign import declaration_problems, from_reference, function_problems, own_files
from tracereplay.testing.findings import Finding
from tracereplay.testing.interpreted import Records, install

if TYPE_CHECKING:
    from tracereplay.testing.supervise import Supervisor
    from tracereplay.testing.workload import Trial

SECONDS = 6
"""CPU time after which a trial is run again line by line, where a call has FUEL."""
MEMORY = 8 << 30
"""Address space of the process, bytes."""


class TooLongError(Exception):
    """A trial takes long."""


def main() -> None:
    """Entry point of the child process."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    reference, out = sys.argv[1:]
    install()
    findings, passed, counted, files = check(reference)
    found = {
        "findings": [vars_of(f) for f in findings],
        "passed": passed,
        "counted": counted,
        "files": {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    part = Path(f"{out}.tmp")
    part.write_text(json.dumps(found))
    part.replace(out)
    os._exit(0)  # whatever a strategy's file has started


def vars_of(finding: Finding) -> dict[str, Any]:
    """A finding as plain values."""
    return {name: getattr(finding, name) for name in Finding.__dataclass_fields__}


def check(reference: str) -> tuple[list[Finding], list[str], dict[str, list[int]], list[Path]]:
    """Findings, the rules that hold, what the trials with the defaults counted, by trial, and the strategy's files."""
    try:
        signal.signal(signal.SIGPROF, _alarm)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        params = from_reference(reference)
    except (TracereplayError, TooLongError) as error:
        return [_declared(str(error) or "importing it does not come to an end")], [], {}, []
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    module = sys.modules[params.__module__]
    problems = declaration_problems(params) + function_problems(params)
    if problems:
        return [Finding("declared", problem, module.__file__) for problem in problems], [], {}, []
    try:
        from tracereplay.testing.supervise import Supervisor

        supervisor = Supervisor(module, files_of(params))
    except AttributeError as error:
        return [Finding("declared", str(error), module.__file__)], ["declared"], {}, []
    return *_try_all(params, supervisor), own_files(module)


def _declared(message: str) -> Finding:
    file, _, rest = message.partition(": ")
    path, _, line = file.rpartition(":")
    return Finding("declared", rest, path, int(line)) if line.isdigit() else Finding("declared", message)


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise TooLongError


def files_of(params: type[Params]) -> set[str]:
    """Files of a strategy: its module's, and those of marked functions that it has from elsewhere."""
    module = sys.modules[params.__module__]
    files = {module.__file__ or ""}
    for value in vars(module).values():
        if callable(value) and contract.mark_of(value) and value.__module__ in sys.modules:
            files.add(sys.modules[value.__module__].__file__ or "")
    return files


def _try_all(params: type[Params], supervisor: Supervisor) -> tuple[list[Finding], list[str], dict[str, list[int]]]:
    from tracereplay.testing.workload import trials

    counted = {}
    for trial in trials():
        found = run(params(), supervisor, trial)
        if isinstance(found, Finding):
            return [found], ["declared"], {}
        counted[trial.name] = found
    again = run(params(), supervisor, trials()[0])
    if again != counted[trials()[0].name]:
        return [_repeats(params)], ["declared"], {}
    short = [t for t in trials() if not t.largest]
    for values in variants(params):
        try:
            chosen = params(**values)
        except ParameterError:
            continue  # it refuses the two together
        text = ",".join(f"{k}={v}" for k, v in values.items())
        for trial in short:
            found = run(chosen, supervisor, trial, cycles=1, parameters=text)
            if isinstance(found, Finding):
                return [found], ["declared"], {}
    rules = ["declared", "bounds", "status", "blocks", "frees", "leaks", "waits", "ends", "raises", "repeats"]
    return [], rules, counted


def _repeats(params: type[Params]) -> Finding:
    file = sys.modules[params.__module__].__file__ or ""
    lines = Path(file).read_text().splitlines()
    line = next((i for i, text in enumerate(lines, 1) if "random" in text and not text.lstrip().startswith("#")), None)
    return Finding(
        "repeats",
        "two runs of the same demand count differently: a strategy keeps nothing outside of st, and takes chance from "
        "ops.chance alone",
        file,
        line,
    )


def variants(params: type[Params]) -> list[dict[str, Any]]:
    """Each parameter at the ends of its range, or with each of its other choices; the rest as they are by default."""
    found: list[dict[str, Any]] = []
    for info in params.infos().values():
        values: list[Any] = list(info.choices) if info.choices else [info.low, info.high]
        if info.kind is bool:
            values = [True, False]
        found += [{info.name: v} for v in values if v is not None and v != info.default]
    return found


def run(
    params: Params, supervisor: Supervisor, trial: Trial, *, cycles: int | None = None, parameters: str = ""
) -> Finding | list[int]:
    """One trial: what it counted, or what broke. What breaks, or takes long, is run again, line by line."""
    found: Finding | list[int] = []
    for supervisor.traced in (False, True):
        signal.setitimer(signal.ITIMER_PROF, SECONDS * (10 if supervisor.traced else 1))
        try:
            return _counters(params, supervisor, trial, cycles, stuck=bool(parameters))
        except (Exception, RecursionError) as error:
            sys.settrace(None)
            found = _finding(error, supervisor, trial, parameters)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return found


def _counters(params: Params, supervisor: Supervisor, trial: Trial, cycles: int | None, *, stuck: bool) -> list[int]:
    """``stuck``: requests may wait for ever, as with a parameter that takes a lock away to show what it is for."""
    import numpy as np

    from tracereplay.machine import layout as at
    from tracereplay.replay import audit
    from tracereplay.replay import layout as loop
    from tracereplay.replay.engine import Engine
    from tracereplay.testing import workload
    from tracereplay.testing.supervise import BrokenRuleError

    np.seterr(all="ignore")  # compiled code has these rules too
    machine = trial.machine
    frames = (max(z.end for z in machine.zones) + 1023) & ~1023
    supervisor.watch(frames, lambda _frame: False)
    engine = Engine(params, machine, **workload.engine_options(trial))
    supervisor.watch(frames, lambda frame: bool((engine.arrays.fm == frame + 1).any()))
    kept: list[int] = []
    for i, demand in enumerate(workload.batches(trial)):
        if i == cycles:
            break
        engine.feed(Records(demand.batch()))  # type: ignore[arg-type]
        if what := audit.problem(engine.machine, engine.arrays):
            raise BrokenRuleError("leaks", what + " after everything was freed")
        waiting = int(engine.arrays.x[loop.X_PARKED])
        if waiting and not stuck:
            raise BrokenRuleError("waits", f"{waiting} requests still wait when everything else was freed long ago")
        kept.append(int(engine.machine.w[at.CFG_RESERVE]))
    grown = [b - a for a, b in pairwise(kept)]
    if len(grown) >= 3 and 0 < max(grown) <= 2 * min(grown):  # a cache that fills up grows less and less
        raise BrokenRuleError("leaks", f"the reserve grows with each repetition of the same demand: {kept} pages")
    outcome = engine.finish()
    return workload.counted(outcome)


def _finding(error: BaseException, supervisor: Supervisor, trial: Trial, parameters: str) -> Finding:
    from tracereplay.testing.supervise import FUEL, BrokenRuleError, OutOfFuelError

    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in supervisor.files]
    where = (frames[-1].filename, frames[-1].lineno) if frames else supervisor.where or (None, None)
    rule, message = "raises", f"{type(error).__name__}: {error}"
    match error:
        case BrokenRuleError():
            rule, message = error.rule, str(error)
            if rule == "leaks" and supervisor.suspect:
                words, seen = supervisor.suspect
                message += f"; first seen here: {words}"
                where = seen or where
            if rule == "waits":
                where = supervisor.waited or where
        case OutOfFuelError():
            rule, message = "ends", f"a call of the strategy does not come to an end: {FUEL:,} lines were run"
        case TooLongError():
            rule, message = "ends", "the trial does not come to an end"
        case IndexError():
            rule, message = "bounds", f"an index is outside of its array: {error}"
        case ZeroDivisionError():
            message = "division by zero: compiled it gives 0"
        case OverflowError():
            message = f"a number does not fit into 64 bits: {error}"
        case ParameterError():
            rule, message = "declared", error.message
        case StrategyError():
            rule = "waits" if " waits " in error.message or "mutex" in error.message else "blocks"
            rule, message = "ends" if "over and over" in error.message else rule, error.message
    return Finding(rule, f"{message} [{trial.name}]", where[0], where[1], parameters)


if __name__ == "__main__":
    main()
