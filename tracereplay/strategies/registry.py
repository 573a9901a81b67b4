"""Strategies by name: found through the entry-point group ``tracereplay.strategies``, built-in or foreign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from tracereplay.errors import ParameterError, PluginError, UnknownStrategyError, UsageError
from tracereplay.strategies.contract import Params

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
    except Exception as error:
        raise PluginError(
            f"strategy {name!r} cannot be loaded: {error}", hint=f"its entry point is {known[name].value}"
        ) from error
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise PluginError(f"strategy {name!r} is not a Params class", hint=f"its entry point is {known[name].value}")
    return params


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy with its parameters, under a label of the user's."""

    label: str
    params: Params


def choose(specs: Sequence[str], settings: Sequence[str] = ()) -> list[Choice]:
    """Strategies of ``-s`` texts: ``NAME``, ``NAME:key=value,key=value`` or ``LABEL=NAME:...``.

    ``settings`` are ``--set LABEL.key=value``. Raises UsageError, UnknownStrategyError or ParameterError.
    """
    options: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    for spec in specs:
        head, _, tail = spec.partition(":")
        label, _, name = head.rpartition("=")
        label = label or name
        if label in names:
            raise UsageError(f"two strategies are labelled {label!r}", hint=f"give one a label: -s LABEL={name}")
        names[label] = name
        options[label] = _pairs(tail, spec)
    for setting in settings:
        target, _, value = setting.partition("=")
        label, _, key = target.rpartition(".")
        if label not in names or not value:
            raise UsageError(
                f"--set {setting!r} names no strategy of this run",
                hint=f"write LABEL.PARAMETER=VALUE with one of: {', '.join(names)}",
            )
        options[label][key] = value
    return [Choice(label, load_strategy(name).from_text(options[label])) for label, name in names.items()]


def _pairs(text: str, spec: str) -> dict[str, str]:
    pairs = {}
    for item in filter(None, text.split(",")):
        key, sep, value = item.partition("=")
        if not sep:
            raise ParameterError(f"{item!r} in -s {spec!r} has no value", hint="write NAME:parameter=value,...")
        pairs[key.strip()] = value.strip()
    return pairs
