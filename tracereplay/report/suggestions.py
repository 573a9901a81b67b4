"""What is worth varying, as text for an 80-column terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tracereplay.report.numbers import UNKNOWN, count, figure, share
from tracereplay.report.terminal import WIDTH, short, table
from tracereplay.whatif.effects import LEAST_PERCENT, NO_EFFECT

if TYPE_CHECKING:
    from tracereplay.whatif.suggest import Suggested

MOST = 25
"""Changes that are shown."""


def suggestions(found: Suggested, trace: str) -> str:
    """What ``whatif suggest`` prints; its last line is the command to go on with. Only that may exceed 80 columns."""
    rows = found.frame.to_dicts()
    telling = [row for row in rows if row["verdict"] != NO_EFFECT and row["effect_percent"] is not None]
    base = ", ".join(f"{label} {figure(cost)}" for label, cost in sorted(found.base.items(), key=lambda kv: kv[1]))
    part = f"the first {count(found.operations)} operations of its demand ({share(found.seconds, found.of_seconds)} of "
    part += f"its {figure(found.of_seconds)} s"
    if found.whole:
        part = f"all {count(found.operations)} operations of its demand ({figure(found.of_seconds)} s"
    parts = [
        _fill(f"{trace}: {count(len(rows))} changes, each by itself, on {part}; {count(found.pages)} targeted pages)."),
        _fill(f"As it is: {base} {found.unit} per page."),
    ]  # fmt: skip
    if telling:
        head = ("tunable", "from", "to", "effect", "95 %", "of")
        lines = [
            (
                short(row["tunable"], 24),
                short(row["from"], 9),
                short(row["to"], 9),
                _percent(row["effect_percent"]),
                f"{_percent(row['low95'])} to {_percent(row['high95'])}",
                short(row["strategy"], 14),
            )
            for row in telling[:MOST]
        ]
        shown = table(head, lines).splitlines()
        said = shown[:2]
        for line, row in zip(shown[2:], telling, strict=False):
            said.append(short(line, WIDTH))
            if "same ranking" not in row["verdict"]:
                said.append(f"    {row['verdict']}")
        if len(telling) > MOST:
            said.append(f"... {len(telling) - MOST} changes more with an effect")
        parts.append("\n".join(said))
    with_effect = {row["tunable"] for row in telling}
    none = dict.fromkeys(row["tunable"] for row in rows if row["verdict"] == NO_EFFECT)
    if idle := [name for name in none if name not in with_effect]:
        parts.append(_fill(f"No effect beyond its interval, or under {LEAST_PERCENT} %: {', '.join(idle)}."))
    parts += [
        _fill(f"{row['tunable']}={row['to']} was {row['verdict']}")
        for row in rows
        if row["effect_percent"] is None and row["verdict"] != NO_EFFECT
    ]
    parts.append(found.command or "Nothing that was changed matters for this trace.")
    return "\n\n".join(parts)


def _percent(x: float | None) -> str:
    return UNKNOWN if x is None else f"{'+' if x > 0 else ''}{figure(x)} %"


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")
