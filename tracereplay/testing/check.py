"""The conformance kit: what a strategy breaks, in words, with file and line.

A strategy is tried as plain Python first, in a process that may die (trial.py), then compiled, as it will run, in
another (replay/remote.py); both must count the same. What passed is remembered until a file of the strategy or of
tracereplay changes, so only the first run of a new strategy takes the time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tracereplay
from tracereplay.errors import PluginError, StrategyError
from tracereplay.strategies.contract import Params
from tracereplay.strategies.foreign import reference_of
from tracereplay.strategies.registry import is_file, known_strategies, load_strategy
from tracereplay.testing.findings import RULES, Finding, Verdict

PATIENCE_S = 900
"""Seconds after which the process that tries a strategy is ended."""
PARTS = ("kernel", "demand", "machine", "strategies", "replay", "testing")
"""Parts of tracereplay that a verdict depends on."""


def check_strategy(strategy: str | Path | type[Params], *, compiled: bool = True) -> Verdict:
    """Try a strategy: a registered name, ``path/to/file.py:Name``, or a Params class at the top of a module.

    ``compiled``: compile it as well, which takes a while. Raises UnknownStrategyError for a name that nobody has.
    """
    reference = _reference(strategy)
    found = _tried(reference)
    findings = [Finding(**f) for f in found["findings"]]
    passed = list(found["passed"])
    if not findings and compiled:
        findings = _compiled(reference, found["counted"])
        passed += [rule for rule in ("compiles", "same") if not findings]
    broken = {f.rule for f in findings}
    name = reference.rpartition(":")[2] or reference
    verdict = Verdict(name, reference, tuple(r for r in RULES if r in passed and r not in broken), tuple(findings))
    if compiled:
        _remember(verdict, found.get("files", {}))
    return verdict


def admit(name: str, note: Callable[[str], None] = lambda _text: None) -> None:
    """Let a strategy run that is none of ours, once it has passed. Raises StrategyError with what it breaks.

    ``name``: as users give it; a strategy of ours passes unseen. ``note`` is told when a check begins.
    """
    if not is_file(name):
        entry = known_strategies().get(name)
        if entry is None or entry.value.startswith("tracereplay."):
            return
    reference = _reference(name)
    verdict = _remembered(reference)
    if verdict is None:
        note(f"checking the strategy {name} (once, until it changes)")
        verdict = check_strategy(name)
    verdict.raise_for_findings()


def _reference(strategy: str | Path | type[Params]) -> str:
    if isinstance(strategy, type):
        return reference_of(strategy)
    text = str(strategy)
    if is_file(text):
        path, sep, name = text.partition(":")
        if not Path(path).is_file():
            raise PluginError(f"no strategy file {path!r}", hint="write path/to/file.py:Name")
        return f"{Path(path).resolve()}{sep}{name}"
    known = known_strategies()
    return known[text].value if text in known else reference_of(load_strategy(text))


# ---------------------------------------------------------------- as plain Python
def _tried(reference: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tracereplay-check-") as directory:
        out = Path(directory) / "found.json"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}
        command = [sys.executable, "-m", "tracereplay.testing.trial", reference, str(out)]
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _gone("ends", f"trying it does not come to an end within {PATIENCE_S} s", reference, "")
        if out.is_file():
            found: dict[str, Any] = json.loads(out.read_text())
            return found
        code, said = done.returncode, done.stdout.decode(errors="replace")
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        last = (said.strip().splitlines() or ["nothing was said"])[-1]
        return _gone("raises", f"the process in which it was tried {how}: {last}", reference, said)


def _gone(rule: str, message: str, reference: str, said: str) -> dict[str, Any]:
    file = reference.rpartition(":")[0]
    lines = re.findall(rf'File "{re.escape(file)}", line (\d+)', said)
    finding = {"rule": rule, "message": message, "file": file or None, "line": int(lines[0]) if lines else None}
    return {"findings": [finding], "passed": [], "counted": {}, "files": {}}


# ---------------------------------------------------------------- compiled
def _compiled(reference: str, counted: dict[str, list[int]]) -> list[Finding]:
    """Run the trials again at full speed; they must count the same."""
    from tracereplay.replay.remote import RemoteEngine
    from tracereplay.strategies.foreign import from_reference
    from tracereplay.testing import workload

    params = from_reference(reference)
    for trial in workload.trials():
        try:
            engine = RemoteEngine(params(), trial.machine, **workload.engine_options(trial))
            for demand in workload.batches(trial):
                engine.feed(demand.batch())
            outcome = engine.finish()
        except StrategyError as error:
            return [_refused(error, trial.name)]
        if workload.counted(outcome) != counted[trial.name]:
            return [
                Finding(
                    "same", f"compiled it counts differently [{trial.name}]", sys.modules[params.__module__].__file__
                )
            ]
    return []


def _refused(error: StrategyError, trial: str) -> Finding:
    compiling = " does not compile: "
    if compiling in error.message:
        where, _, reason = error.message.partition(compiling)[2].partition(": ")
        file, _, line = where.rpartition(":")
        return Finding("compiles", reason, file, int(line) if line.isdigit() else None)
    return Finding("same", f"{error.message} [{trial}]")


# ---------------------------------------------------------------- memory of verdicts
@functools.cache
def _tool() -> str:
    """What of tracereplay a verdict depends on."""
    root = Path(tracereplay.__file__).parent
    digest = hashlib.sha256(sys.version.encode())
    for part in PARTS:
        for path in sorted((root / part).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _place(reference: str) -> Path | None:
    own, xdg = os.environ.get("TRACEREPLAY_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(own) if own else Path(xdg) / "tracereplay" if xdg else Path.home() / ".cache" / "tracereplay"
    except RuntimeError:
        return None
    return root / "verdicts" / f"{hashlib.sha256(reference.encode()).hexdigest()[:20]}.json"


def _remember(verdict: Verdict, files: dict[str, str]) -> None:
    place = _place(verdict.reference)
    if place is None or not files:
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(f".{os.getpid()}.tmp")
        part.write_text(json.dumps({"tool": _tool(), "files": files, "verdict": verdict.to_json()}))
        part.replace(place)
    except OSError:
        return


def _remembered(reference: str) -> Verdict | None:
    place = _place(reference)
    try:
        kept = json.loads(place.read_text()) if place else {}
        if kept.get("tool") != _tool():
            return None
        for path, digest in kept["files"].items():
            if hashlib.sha256(Path(path).read_bytes()).hexdigest() != digest:
                return None
        value = kept["verdict"]
        return Verdict.from_json({k: value[k] for k in ("strategy", "reference", "passed", "findings")})
    except (OSError, ValueError, KeyError, TypeError):
        return None
