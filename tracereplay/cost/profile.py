"""Cost profiles: named coefficients with unit, range, origin, and the machine counters they multiply.

A profile is a TOML file (docs/cost-model.md). A coefficient is either a number with a 95 % range or a
*formula* over the profile's parameters. Formulas are how one measurement that covers several primitives (a
page allocated and freed in 55.472 ns) is split into parts without letting the uncertainty of the split leak
into the sum that was measured.

Every counter of ``machine/counters.py`` is multiplied by a coefficient, or listed under ``[implied]`` (it
costs nothing beyond what other counters already price) or ``[unpriced]`` (it is work, but no figure is
known), with the reason. Imports neither NumPy nor Numba.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracereplay.cost.formula import FormulaError, evaluate, names
from tracereplay.errors import ProfileError, UnknownProfileError, nearest
from tracereplay.machine.counters import COUNTERS

DEFAULT_PROFILE = "brouer-2021"
UNITS = ("ns", "instructions")
EVIDENCE = ("measured", "derived", "assumption")
"""``measured``: a published or own measurement of this very thing. ``derived``: arithmetic on measurements.
``assumption``: reasoned, with nothing to check it against."""

_SHIPPED = Path(__file__).parent / "profiles"
_BOUNDS = ("value", "low", "high")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A measured or assumed figure that coefficients are built from; ``low..high`` is its 95 % range."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    evidence: str
    source: str


@dataclass(frozen=True, slots=True)
class Coefficient:
    """Price of one primitive: ``value`` (in ``unit``) times the sum of ``counters``."""

    name: str
    counters: tuple[str, ...]
    unit: str
    value: float
    low: float | None
    """End of the 95 % range; None where ``formula`` is set: the range follows from the parameters."""
    high: float | None
    formula: str | None
    group: str
    """Heading under which reports add primitives up, e.g. ``zone lock and buddy``."""
    evidence: str
    source: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A validated cost profile."""

    name: str
    title: str
    unit: str
    machine: str
    parameters: tuple[Parameter, ...]
    coefficients: tuple[Coefficient, ...]
    unpriced: Mapping[str, str]
    """Counter that is work -> why it has no price. Reports show it next to the total."""
    implied: Mapping[str, str]
    """Counter -> the counters that already price it."""
    sha256: str
    """Of the file (and of the profile it is based on): which figures these were."""
    correlation: tuple[tuple[str, ...], tuple[tuple[float, ...], ...]] | None = None
    """Names of numbers that were fitted together, and the lower triangle of their correlation matrix, row by row."""
    kernel: str | None = None
    """Kernel whose rows it was fitted from, as they name it."""
    timers: tuple[float, float] | None = None
    """What those rows hold for the time stamps: of an allocation and of a release. Nobody pays for them."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Headings in the order of the profile."""
        return tuple(dict.fromkeys(c.group for c in self.coefficients))

    def with_parameters(self, **values: float) -> Profile:
        """The same profile with other parameter values (``cpus=80``); formulas follow.

        Raises :class:`ProfileError` when there is no such parameter. The given value is taken as exact.
        """
        known = [p.name for p in self.parameters]
        for name in values:
            if name not in known:
                raise ProfileError(
                    f"profile {self.name!r} has no parameter {name!r}", hint=f"parameters: {', '.join(known)}"
                )
        parameters = tuple(
            replace(p, value=values[p.name], low=values[p.name], high=values[p.name]) if p.name in values else p
            for p in self.parameters
        )
        table = {p.name: p.value for p in parameters}
        coefficients = tuple(
            replace(c, value=float(evaluate(c.formula, table))) if c.formula else c for c in self.coefficients
        )
        return replace(self, parameters=parameters, coefficients=coefficients)

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to price again, as JSON: the ``profile`` of a result."""
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "machine": self.machine,
            "sha256": self.sha256,
            "parameters": {
                p.name: _plain(p, ("value", "low", "high", "unit", "evidence", "source")) for p in self.parameters
            },
            "coefficients": {
                c.name: {"counters": list(c.counters)}
                | _plain(c, ("unit", "value", "low", "high", "formula", "group", "evidence", "source"))
                for c in self.coefficients
            },
            "unpriced": dict(self.unpriced),
            "implied": dict(self.implied),
        } | self._fitted()

    def _fitted(self) -> dict[str, Any]:
        """What only profiles have that were fitted from rows."""
        found: dict[str, Any] = {}
        if self.correlation is not None:
            names_, rows = self.correlation
            found["correlation"] = {"names": list(names_), "rows": [list(row) for row in rows]}
        if self.kernel is not None:
            found["kernel"] = self.kernel
        if self.timers is not None:
            found["timer"] = dict(zip(("alloc", "free"), self.timers, strict=True))
        return found

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Profile:
        """The profile of a stored result. Raises :class:`ProfileError`."""
        tables = {
            "parameter": data.get("parameters", {}),
            "coefficient": data.get("coefficients", {}),
        }
        return _build({**data, **tables}, "the result's profile", str(data.get("sha256", "")))


def shipped_profiles() -> tuple[str, ...]:
    """Names of the profiles that come with tracereplay."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def load_profile(name_or_path: str | Path = DEFAULT_PROFILE) -> Profile:
    """A shipped profile by name, or one of the user's by path (anything with a slash or ending in ``.toml``).

    Raises :class:`UnknownProfileError` (no such name or file) and :class:`ProfileError` (the file is not a
    profile: not TOML, an unknown counter, a missing unit, a negative price, a counter left out).
    """
    text = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or "/" in text or text.endswith(".toml")
    path = Path(text) if is_path else _SHIPPED / f"{text}.toml"
    if not path.is_file():
        raise UnknownProfileError(text, shipped_profiles())
    data, digest = _read(path, seen=())
    return _build(data, str(path) if is_path else f"profile {text}", digest)


def _read(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], str]:
    """The tables of a file, laid over those of its ``base``, and the digest of all bytes read."""
    try:
        raw = path.read_bytes()
        data = tomllib.loads(raw.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(
            f"{path}: not a readable TOML file: {error}", hint="see docs/cost-model.md for the format"
        ) from None
    digest = hashlib.sha256(raw)
    if "base" in data:
        base = path.parent / f"{data['base']}.toml"
        base = base if base.is_file() else _SHIPPED / f"{data['base']}.toml"
        if not base.is_file() or base in (*seen, path):
            raise ProfileError(
                f"{path}: base {data['base']!r} is not another profile",
                hint=f"shipped: {', '.join(shipped_profiles())}",
            )
        inherited, base_digest = _read(base, (*seen, path))
        digest.update(base_digest.encode())
        own = _counters_of(data)
        for table in ("unpriced", "implied"):  # what the file prices is no longer without a price
            inherited[table] = {name: why for name, why in inherited.get(table, {}).items() if name not in own}
        for table in ("parameter", "coefficient", "unpriced", "implied"):
            data[table] = {**inherited.get(table, {}), **data.get(table, {})}
        data = {**inherited, **data}
    return data, digest.hexdigest()


def _counters_of(data: Mapping[str, Any]) -> set[str]:
    """Counters that the coefficients of a file name, whatever else is wrong with it."""
    rows = [row.get("counters") for row in data.get("coefficient", {}).values() if isinstance(row, Mapping)]
    return {name for counters in rows if isinstance(counters, list) for name in counters if isinstance(name, str)}


def _build(data: Mapping[str, Any], where: str, digest: str) -> Profile:
    """Check everything and make the profile."""
    unit = _text(data, "unit", where)
    if unit not in UNITS:
        raise ProfileError(f"{where}: unit {unit!r} is not one of {', '.join(UNITS)}")
    parameters = tuple(
        _parameter(name, _table(row, f"{where}, parameter {name}"), f"{where}, parameter {name}")
        for name, row in _table(data.get("parameter", {}), where).items()
    )
    values = {p.name: p.value for p in parameters}
    coefficients = tuple(
        _coefficient(name, _table(row, f"{where}, coefficient {name}"), values, unit, f"{where}, coefficient {name}")
        for name, row in _table(data.get("coefficient", {}), where).items()
    )
    unpriced = _reasons(data, "unpriced", where)
    implied = _reasons(data, "implied", where)
    _check_counters(coefficients, unpriced, implied, where)
    return Profile(
        name=_text(data, "name", where),
        title=_text(data, "title", where),
        unit=unit,
        machine=_text(data, "machine", where),
        parameters=parameters,
        coefficients=coefficients,
        unpriced=unpriced,
        implied=implied,
        sha256=digest,
        correlation=_correlation(data, [*values, *(c.name for c in coefficients)], where),
        kernel=_text(data, "kernel", where) if "kernel" in data else None,
        timers=_timers(data, where),
    )


def _correlation(
    data: Mapping[str, Any], known: list[str], where: str
) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]] | None:
    """The ``[correlation]`` table: ``names``, and ``rows`` of a lower triangle with ones on the diagonal."""
    if "correlation" not in data:
        return None
    where = f"{where}, [correlation]"
    table = _table(data["correlation"], where)
    given, rows = table.get("names"), table.get("rows")
    if not isinstance(given, list) or not isinstance(rows, list) or len(given) != len(rows):
        raise ProfileError(f"{where}: names and rows must be lists of one length")
    for name in given:
        if name not in known or given.count(name) > 1:
            raise ProfileError(f"{where}: {name!r} is not a parameter or coefficient, or stands there twice")
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != i + 1 or row[i] != 1 or not all(_is_share(v) for v in row):
            raise ProfileError(f"{where}: row {i} must hold {i + 1} numbers from -1 to 1, the last of them 1")
    return tuple(given), tuple(tuple(float(v) for v in row) for row in rows)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 1


def _timers(data: Mapping[str, Any], where: str) -> tuple[float, float] | None:
    if "timer" not in data:
        return None
    table = _table(data["timer"], f"{where}, [timer]")
    found = [table.get(half) for half in ("alloc", "free")]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and v >= 0 for v in found):
        raise ProfileError(f"{where}, [timer]: alloc and free must be numbers from 0")
    return float(found[0] or 0), float(found[1] or 0)


def _reasons(data: Mapping[str, Any], table: str, where: str) -> dict[str, str]:
    rows = _table(data.get(table, {}), f"{where}, [{table}]")
    return {name: _text(rows, name, f"{where}, [{table}]") for name in rows}


def _check_counters(
    coefficients: tuple[Coefficient, ...], unpriced: Mapping[str, str], implied: Mapping[str, str], where: str
) -> None:
    """Every counter stands in exactly one place."""
    if not coefficients:
        raise ProfileError(f"{where}: no coefficient", hint="add a [coefficient.NAME] table; see docs/cost-model.md")
    priced = {counter for c in coefficients for counter in c.counters}
    for counter in [*priced, *unpriced, *implied]:
        if counter not in COUNTERS:
            guess = nearest(counter, COUNTERS)
            hint = f"did you mean {guess!r}?" if guess else "the counters are listed in docs/cost-model.md"
            raise ProfileError(f"{where}: no counter {counter!r}", hint=hint)
    twice = sorted((priced & {*unpriced, *implied}) | (unpriced.keys() & implied.keys()))
    if twice:
        raise ProfileError(f"{where}: priced, unpriced and implied exclude each other: {', '.join(twice)}")
    missing = [c for c in COUNTERS if c not in priced and c not in unpriced and c not in implied]
    if missing:
        raise ProfileError(
            f"{where}: no price and no reason for: {', '.join(missing)}",
            hint="give each a coefficient, or a line with the reason under [unpriced] or [implied]",
        )


def _parameter(name: str, row: Mapping[str, Any], where: str) -> Parameter:
    value, low, high = _range(row, where)
    evidence = _evidence(row, where)
    return Parameter(name, value, low, high, _text(row, "unit", where), evidence, _text(row, "source", where))


def _coefficient(name: str, row: Mapping[str, Any], values: Mapping[str, float], unit: str, where: str) -> Coefficient:
    counters = row.get("counters")
    if not isinstance(counters, list) or not counters or not all(isinstance(c, str) for c in counters):
        raise ProfileError(f"{where}: counters must be a list of counter names")
    own_unit = _text(row, "unit", where)
    if own_unit != unit:
        raise ProfileError(f"{where}: unit {own_unit!r} in a profile of unit {unit!r}", hint="one profile, one unit")
    formula = row.get("formula")
    low: float | None = None
    high: float | None = None
    if formula is None:
        value, low, high = _range(row, where)
    else:
        try:
            value = float(evaluate(str(formula), values))
        except FormulaError as error:
            raise ProfileError(f"{where}: {error}", hint=f"parameters: {', '.join(values) or 'none'}") from None
    if not math.isfinite(value) or value < 0:
        raise ProfileError(f"{where}: price {value:g} is negative or not a number")
    return Coefficient(
        name, tuple(counters), own_unit, value, low, high, None if formula is None else str(formula),
        _text(row, "group", where), _evidence(row, where), _text(row, "source", where),
    )  # fmt: skip


def _range(row: Mapping[str, Any], where: str) -> tuple[float, float, float]:
    numbers = []
    for key in _BOUNDS:
        number = row.get(key)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ProfileError(f"{where}: {key} must be a number", hint="give value, low and high (95 % range)")
        numbers.append(float(number))
    value, low, high = numbers
    if low < 0 or not all(map(math.isfinite, numbers)):
        raise ProfileError(f"{where}: value, low and high must be finite and not negative")
    if not low <= value <= high:
        raise ProfileError(f"{where}: {low:g} <= {value:g} <= {high:g} does not hold", hint="low and high bound value")
    return value, low, high


def _evidence(row: Mapping[str, Any], where: str) -> str:
    evidence = _text(row, "evidence", where)
    if evidence not in EVIDENCE:
        raise ProfileError(f"{where}: evidence {evidence!r} is not one of {', '.join(EVIDENCE)}")
    return evidence


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ProfileError(f"{where}: {key} is missing", hint="see docs/cost-model.md for the format")
    return value.strip()


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ProfileError(f"{where}: expected a table")
    return value


def _plain(item: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    return {field: getattr(item, field) for field in fields if getattr(item, field) is not None}


def parameters_of(coefficient: Coefficient) -> frozenset[str]:
    """Names of the parameters that a coefficient's formula uses."""
    return names(coefficient.formula) if coefficient.formula else frozenset()
