"""A fit as a profile: the TOML file that ``profiles fit`` writes. Format: docs/cost-model.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tracereplay.cost.alone import ALONE
from tracereplay.cost.fit import TIMERS, Fit
from tracereplay.cost.primitives import FACTOR, PRIMITIVES, Primitive
from tracereplay.cost.profile import Profile, load_profile
from tracereplay.cost.rows import Row
from tracereplay.machine.counters import COUNTERS

CORRELATION_DIGITS = 3
IMPLIED = {
    "pcp_refill_pages": "refill_block",
    "pcp_drain_pages": "drain_block",
    "pcp_drains": "zone_lock, drain_block",
}
"""Counters that these primitives price."""
ALONE_WIDTH = 0.2
"""Range of a primitive timed alone: the code around it differs from caller to caller; an assumption."""


def profile_text(
    fit: Fit,
    rows: Sequence[Row],
    name: str,
    source: str,
    base: Profile | None = None,
    alone: Mapping[str, float] | None = None,
) -> str:
    """The profile as TOML. ``source``: where the rows come from.

    ``base``: a profile of the same unit that prices what the rows do not use, as assumption; without it, rough figures
    do where there are any, and the rest has no price. ``alone``: coefficients of primitives that were timed alone
    (cost/alone.py), instead of either.
    """
    unit, kernel = rows[0].unit, rows[0].kernel
    lines = [
        f"# Fitted by `tracereplay profiles fit` to {len(rows)} measured cases of kernel {kernel}.",
        "# `low` and `high` are a 95 % range: refits to rows drawn anew. Reading: docs/cost-model.md.",
        f"name = {_text(name)}",
        f"title = {_text(f'kernel {kernel}, fitted to {len(rows)} measured cases')}",
        f"unit = {_text(unit)}",
        f"kernel = {_text(kernel)}",
        f"machine = {_text(source)}",
        "",
        "[timer]  # what a row holds for its time stamps; nobody pays it",
        *(f"{half} = {_number(fit.values[fit.names.index(f'timer_{half}')])}" for half in TIMERS),
    ]
    priced: set[str] = set()
    alone = alone or {}
    for a in ALONE:
        if a.name in alone:
            numbers = (alone[a.name], alone[a.name] * (1 - ALONE_WIDTH), alone[a.name] * (1 + ALONE_WIDTH))
            priced.update(a.counters)
            lines += ["", *_table(a.name, a.counters, unit, numbers, a.group, "measured", f"{a.meaning}; timed alone")]
    for primitive in PRIMITIVES:
        if priced.intersection(primitive.counters):
            continue
        priced.update(primitive.counters)
        lines += ["", *_coefficient(primitive, fit, unit, base)]
    if base is not None:
        for c in base.coefficients:
            if not priced & set(c.counters):
                priced.update(c.counters)
                low, high = (c.low, c.high) if c.low is not None and c.high is not None else (c.value, c.value)
                why = f"not among the cases: as {base.name}. {c.source}"
                lines += ["", *_table(c.name, c.counters, unit, (c.value, low, high), c.group, "assumption", why)]
    lines += _unpriced(priced, base or load_profile())
    return "\n".join([*lines, *_correlation(fit)]) + "\n"


def _coefficient(primitive: Primitive, fit: Fit, unit: str, base: Profile | None) -> list[str]:
    """A coefficient's table: the fitted value; or the base's, or the rough one, where the rows do not use it."""
    if primitive.name in fit.names:
        i = fit.names.index(primitive.name)
        numbers = (fit.values[i], fit.low[i], fit.high[i])
        evidence = "measured" if fit.decided[i] else "derived"
        why = f"{primitive.meaning}; fitted"
        if not fit.decided[i]:
            why += ", hardly told from others, whose sum is"
    else:
        rough = primitive.rough * fit.scale
        numbers = (rough, rough / FACTOR, rough * FACTOR)
        evidence, why = "assumption", f"{primitive.meaning}; not among the cases, a rough figure within a factor of 3"
        for c in base.coefficients if base is not None else ():
            if c.name == primitive.name and c.low is not None and c.high is not None:
                numbers, why = (c.value, c.low, c.high), f"{primitive.meaning}; not among the cases: as {c.source}"
    return _table(primitive.name, primitive.counters, unit, numbers, primitive.group, evidence, why)


def _table(
    name: str, counters: Sequence[str], unit: str, numbers: tuple[float, float, float], group: str, evidence: str,
    source: str,
) -> list[str]:  # fmt: skip
    return [
        f"[coefficient.{name}]",
        f"counters = {json.dumps(list(counters))}",
        f"unit = {_text(unit)}",
        *(f"{key} = {_number(v)}" for key, v in zip(("value", "low", "high"), numbers, strict=True)),
        f"group = {_text(group)}",
        f"evidence = {_text(evidence)}",
        f"source = {_text(source)}",
    ]


def _unpriced(priced: set[str], base: Profile) -> list[str]:
    """The counters that have no price: those that others imply, and work of which nothing is known."""
    implied = {name: why for name, why in ({**base.implied, **IMPLIED}).items() if name not in priced}
    why = "not among the measured cases"
    unpriced = {c: base.unpriced.get(c, why) for c in COUNTERS if c not in priced and c not in implied}
    lines = ["", "[implied]", *(f"{name} = {_text(reason)}" for name, reason in implied.items())]
    return [*lines, "", "[unpriced]", *(f"{name} = {_text(reason)}" for name, reason in unpriced.items())]


def _correlation(fit: Fit) -> list[str]:
    names = [name for name in fit.names if not name.startswith("timer_")]
    rows = []
    for i in range(len(names)):
        row = [round(float(v), CORRELATION_DIGITS) + 0.0 for v in fit.correlation[i, : i + 1]]
        rows.append(f"    {json.dumps([*row[:-1], 1.0])},")
    return ["", "[correlation]", f"names = {json.dumps(names)}", "rows = [", *rows, "]"]


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    return repr(float(f"{value:.6g}"))
