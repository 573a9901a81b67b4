"""Strategies by name: found through the entry-point group ``tracereplay.strategies``, ours or foreign, or by file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from tracereplay.errors import ParameterError, PluginError, UnknownStrategyError, UsageError
from tracereplay.strategies.contract import Params
from tracereplay.strategies.foreign import declaration_problems, from_file, is_foreign

GROUP = "tracereplay.strategies"


def known_strategies() -> dict[str, EntryPoint]:
    """Entry points by strategy name. Raises PluginError when two distributions register one name."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            homes = sorted(str(e.dist.name if e.dist else e.value) for e in (other, entry))
            raise PluginError(f"two strategies are called {entry.name!r}", hint=f"uninstall one of: {', '.join(homes)}")
        found[entry.name] = entry
    return dict(sorted(found.items()))


def load_strategy(name: str) -> type[Params]:
    """Params class of a strategy. Raises UnknownStrategyError (with the nearest name) or PluginError."""
    known = known_strategies()
    if name not in known:
        raise UnknownStrategyError(name, list(known))
    try:
        params = known[name].load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"strategy {name!r} cannot be loaded: {error}", hint=f"its entry point is {known[name].value}"
        ) from error
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise PluginError(f"strategy {name!r} is not a Params class", hint=f"its entry point is {known[name].value}")
    if is_foreign(params) and (problems := declaration_problems(params)):
        raise PluginError(f"strategy {name!r}: {problems[0]}", hint=f"its entry point is {known[name].value}")
    return params


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy with its parameters, under a label of the user's."""

    label: str
    params: Params

    @property
    def foreign(self) -> bool:
        """Whether the strategy is none of ours: it is checked first and runs in a process of its own."""
        return is_foreign(type(self.params))


_FILE = re.compile(r"(?:(?P<label>[^=:/]+)=)?(?P<path>[^:]+\.py)(?::(?P<name>[A-Za-z_]\w*))?(?::(?P<options>.*))?")


@dataclass(frozen=True, slots=True)
class Spec:
    """A ``-s`` text taken apart."""

    label: str | None
    name: str
    """Name of a registered strategy, or ``path/to/file.py`` with ``:Class`` where it was given."""
    options: dict[str, str]

    @property
    def of_file(self) -> bool:
        """Whether it names a file."""
        return is_file(self.name)

    def load(self) -> type[Params]:
        """Its Params class. Raises UnknownStrategyError or PluginError."""
        return find_strategy(self.name)


def is_file(name: str) -> bool:
    """Whether a strategy's name is that of a file, ``path/to/file.py`` or ``path/to/file.py:Name``."""
    return bool(re.fullmatch(r"[^:]+\.py(:[A-Za-z_]\w*)?", name))


def find_strategy(name: str) -> type[Params]:
    """Params class of a registered name or of ``path/to/file.py:Name``. Raises UnknownStrategyError or PluginError."""
    if not is_file(name):
        return load_strategy(name)
    path, _, attribute = name.partition(":")
    params = from_file(Path(path), attribute or None)
    if problems := declaration_problems(params):
        raise PluginError(f"{name}: {problems[0]}", hint=f"see: tracereplay strategies --check {name}")
    return params


def parse_spec(text: str) -> Spec:
    """A ``-s`` text: ``NAME``, ``NAME:key=value,...``, ``LABEL=NAME:...``; a file (``path/to/file.py:Name``) for NAME.

    Raises ParameterError when an option has no value.
    """
    if found := _FILE.fullmatch(text):
        name = found["path"] + (f":{found['name']}" if found["name"] else "")
        return Spec(found["label"], name, _pairs(found["options"] or "", text))
    head, _, tail = text.partition(":")
    label, _, name = head.rpartition("=")
    return Spec(label or None, name, _pairs(tail, text))


def choose(specs: Sequence[str], settings: Sequence[str] = ()) -> list[Choice]:
    """Strategies of ``-s`` texts (see :func:`parse_spec`); one from a file is labelled by its own name.

    ``settings`` are ``--set LABEL.key=value``. Raises UsageError, UnknownStrategyError, PluginError or ParameterError.
    """
    options: dict[str, dict[str, str]] = {}
    classes: dict[str, type[Params]] = {}
    for text in specs:
        spec = parse_spec(text)
        params = spec.load()
        label = spec.label or params.name
        if label in classes:
            raise UsageError(f"two strategies are labelled {label!r}", hint=f"give one a label: -s LABEL={spec.name}")
        classes[label] = params
        options[label] = spec.options
    for setting in settings:
        target, _, value = setting.partition("=")
        label, _, key = target.rpartition(".")
        if label not in classes or not value:
            raise UsageError(
                f"--set {setting!r} names no strategy of this run",
                hint=f"write LABEL.PARAMETER=VALUE with one of: {', '.join(classes)}",
            )
        options[label][key] = value
    return [Choice(label, params.from_text(options[label])) for label, params in classes.items()]


def _pairs(text: str, spec: str) -> dict[str, str]:
    pairs = {}
    for item in filter(None, text.split(",")):
        key, sep, value = item.partition("=")
        if not sep:
            raise ParameterError(f"{item!r} in -s {spec!r} has no value", hint="write NAME:parameter=value,...")
        pairs[key.strip()] = value.strip()
    return pairs
