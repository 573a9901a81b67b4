"""What a grid may vary, and how its values are written. Imports no Numba.

``--grid NAME=VALUES`` with VALUES a list ``a,b`` (``a;b`` where values hold commas), a range ``a:b:step`` with both
ends, or a doubling ``a..b``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from tracereplay.errors import GridError, TracereplayError, nearest
from tracereplay.machine.options import KEYS, parse_option

if TYPE_CHECKING:
    from tracereplay.strategies.registry import Choice

DEFAULT = "default"
"""Value of a machine's axis: what the machine has without the option, such as the recorded fragmentation."""
MOST_VALUES = 100_000
"""Values of one axis."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Something that a grid may vary."""

    name: str
    group: str
    """``machine``, ``demand``, ``strategy`` or ``cost``."""
    takes: str
    """Its values, in words."""
    check: Callable[[str], object]
    """Raises a TracereplayError or ValueError for a value that it does not take."""


def known_axes(choices: Sequence[Choice]) -> dict[str, Axis]:
    """Axes by name: machine keys, demand, profile and seed, and ``LABEL.PARAMETER`` of each strategy of a run."""
    found = {name: Axis(name, "machine", key.takes, _machine(name)) for name, key in KEYS.items() if name != "seed"}
    found |= {axis.name: axis for axis in _demand_axes()}
    found["profile"] = Axis("profile", "cost", "name or TOML file of a cost profile", _profile)
    found["seed"] = Axis("seed", "machine", "whole number", int)
    for choice in choices:
        for info in type(choice.params).infos().values():
            name = f"{choice.label}.{info.name}"
            found[name] = Axis(name, "strategy", f"{info.range_text} ({info.unit})", info.parse)
    return found


def axes_of(texts: Iterable[str], choices: Sequence[Choice]) -> dict[str, tuple[str, ...]]:
    """``--grid`` texts as axes with their values, in the order given.

    Raises GridError: no value, a name that is none (with the nearest), a name twice, a value twice or that the axis
    does not take.
    """
    known = known_axes(choices)
    axes: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, sep, values = (part.strip() for part in text.partition("="))
        if not sep or not values:
            raise GridError(
                f"--grid {text!r} has no values", hint="write --grid NAME=a,b or NAME=a:b:step or NAME=a..b"
            )
        if name not in known:
            raise unknown_axis(name, known)
        if name in axes:
            raise GridError(f"--grid names {name} twice", hint=f"give all its values at once: --grid {name}=a,b,c")
        axes[name] = values_of(values)
        _check(known[name], axes[name])
    return axes


def unknown_axis(name: str, known: Iterable[str]) -> GridError:
    """The error for a name that a grid cannot vary."""
    listing = f"a grid varies: {', '.join(known)}"
    guess = nearest(name, known)
    return GridError(f"no axis {name!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing)


def _check(axis: Axis, values: tuple[str, ...]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise GridError(f"--grid {axis.name} has {value!r} twice", hint="each value once")
        seen.add(value)
        try:
            axis.check(value)
        except TracereplayError as error:
            raise GridError(f"--grid {axis.name}: {error.message}", hint=error.hint) from error
        except ValueError:
            raise GridError(f"--grid {axis.name} cannot be {value!r}", hint=f"it takes {axis.takes}") from None


_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER}):({_NUMBER}):({_NUMBER})")
_DOUBLING = re.compile(r"(\d+)([a-zA-Z]*)\.\.(\d+)([a-zA-Z]*)")


def values_of(text: str) -> tuple[str, ...]:
    """Values of a list, range or doubling. Raises GridError for one that holds none, or more than MOST_VALUES."""
    if found := _RANGE.fullmatch(text):
        return _range(text, *map(Decimal, found.groups()))
    if found := _DOUBLING.fullmatch(text):
        first, unit, last, last_unit = found.groups()
        if unit.lower() not in ("", last_unit.lower()):
            raise GridError(f"{text!r} has two units", hint="write both ends in one unit, such as 1GiB..16GiB")
        return tuple(f"{value}{last_unit}" for value in _doubling(text, int(first), int(last)))
    values = tuple(part.strip() for part in text.split(";" if ";" in text else ","))
    if not all(values):
        raise GridError(f"{text!r} has an empty value", hint="write a,b,c")
    return values


def _range(text: str, first: Decimal, last: Decimal, step: Decimal) -> tuple[str, ...]:
    if not step or (last - first) / step < 0:
        raise GridError(f"the range {text!r} holds no value", hint="write FIRST:LAST:STEP, such as 0:0.9:0.1")
    count = int((last - first) / step) + 1
    if count > MOST_VALUES:
        raise GridError(f"the range {text!r} holds {count} values", hint=f"at most {MOST_VALUES}")
    return tuple(f"{(first + i * step).normalize():f}" for i in range(count))


def _doubling(text: str, first: int, last: int) -> list[int]:
    if not 0 < first <= last:
        raise GridError(f"the doubling {text!r} holds no value", hint="write FIRST..LAST, such as 1..128")
    values = [first]
    while values[-1] * 2 <= last:
        values.append(values[-1] * 2)
    return values


# ---------------------------------------------------------------- values
def _machine(name: str) -> Callable[[str], object]:
    return lambda text: None if text == DEFAULT else parse_option(name, text)


def _profile(text: str) -> object:
    from tracereplay.cost.profile import load_profile

    return load_profile(text)


def _demand_axes() -> list[Axis]:
    return [
        Axis("copies", "demand", "copies of the demand beside each other, 1 to 128", _copies),
        Axis("rate", "demand", "how many times as fast the recording's clock runs, 0.001 to 1000000", _rate),
        Axis("request_pages", "demand", "most pages that a targeted request asks for at once; none", _request_pages),
        Axis("target", "demand", "selector of the requests that strategies serve, as --target", _target),
        Axis("path", "demand", "dm-crypt, blk-crypto, f2fs-compress with options, or none", _path),
        Axis("max_write", "demand", "largest request of a path, bytes; none", _max_write),
        Axis("device", "demand", "MAJ,MIN of the device whose bios the path takes (several: A;B)", str),
        Axis("load", "demand", "kvfree:... or network:... as --load; none", _load),
    ]


def none_or(text: str) -> str | None:
    """A value, or None for ``none``."""
    return None if text == "none" else text


def _copies(text: str) -> int:
    from tracereplay.demand.copies import MOST_COPIES

    if not 1 <= (copies := int(text)) <= MOST_COPIES:
        raise ValueError(text)
    return copies


def _rate(text: str) -> float:
    from tracereplay.demand.rate import LEAST_RATE, MOST_RATE

    if not LEAST_RATE <= (rate := float(text)) <= MOST_RATE:
        raise ValueError(text)
    return rate


def _request_pages(text: str) -> int | None:
    if none_or(text) is None:
        return None
    from tracereplay.demand.stream import MAX_REQUEST_PAGES

    if not 1 <= (pages := int(text)) <= MAX_REQUEST_PAGES:
        raise ValueError(text)
    return pages


def _max_write(text: str) -> int | None:
    return None if none_or(text) is None else int(text)


def _target(text: str) -> object:
    from tracereplay.demand.target import Target

    return Target((text,), path=True)


def _path(text: str) -> object:
    from tracereplay.demand.paths import parse_path

    return None if none_or(text) is None else parse_path(text)


def _load(text: str) -> object:
    from tracereplay.demand.load import parse_load
    from tracereplay.demand.loaded import LOADS

    return None if none_or(text) is None else parse_load(text, LOADS)
