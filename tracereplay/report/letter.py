"""Two results as text for a mail to linux-mm: 72 columns, units, intervals, and where it all comes from."""

from __future__ import annotations

import platform
import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

from tracereplay import __version__
from tracereplay.report.numbers import UNKNOWN, count, figure, seconds, share, size_bytes, span
from tracereplay.report.sides import Pair, Side, Sides
from tracereplay.report.terminal import ROWS, short, table

WIDTH = 72
LABEL = 30
INDENT = 13
MOST_COUNTED = 3
"""Strategies whose counters are shown beside each other."""


def letter(sides: Sides) -> str:
    """The comparison. No line is longer than 72 columns, unless a single word of a command is."""
    unit = sides.profile.unit
    parts = [
        f"Simulated page allocation cost per page, {unit}. 95 % intervals below.",
        _costs(sides.pairs),
        _verdict(sides),
        *_counters(sides.pairs),
        _where("A", sides.a),
        _where("B", sides.b),
        _prices(sides),
    ]
    return "\n\n".join(part for part in parts if part)


def _costs(pairs: Sequence[Pair]) -> str:
    rows: list[tuple[str, ...]] = []
    for pair in pairs:
        rows.append((short(pair.label, LABEL), figure(pair.a), figure(pair.b), figure(pair.ratio)))
        rows.append(("", *(_ends(ends) for ends in (pair.a_interval, pair.b_interval, pair.ratio_interval))))
    return table(("", "A", "B", "B/A"), rows)


def _ends(ends: tuple[float, float] | None) -> str:
    return UNKNOWN if ends is None else f"[{span(ends)}]"


def _verdict(sides: Sides) -> str:
    said = []
    for pair in sides.pairs:
        if pair.ratio is None:
            said.append(f"{pair.label}: no page to compare.")
        elif not pair.beyond:
            said.append(f"{pair.label}: no difference beyond the interval.")
        else:
            change = 100 * abs(pair.ratio - 1)
            said.append(f"{pair.label}: B costs {figure(change)} % {'less' if pair.ratio < 1 else 'more'}.")
        said += [
            f"{pair.label} left {count(n)} requests unserved in {side}."
            for side, n in zip("AB", pair.unserved, strict=True)
            if n
        ]
    how = "the same requests in both" if sides.paired else "different requests, drawn independently"
    return "\n".join(_filled(text, 2) for text in [*said, f"Intervals: prices and requests; {how}."])


def _counters(pairs: Sequence[Pair]) -> list[str]:
    """Events per 1,000 pages, a few strategies at a time; what is 0 throughout is left out."""
    blocks = []
    for start in range(0, len(pairs), MOST_COUNTED):
        some = pairs[start : start + MOST_COUNTED]
        rows = []
        for name, names in ROWS:
            values = [_sum(pair, names, side) for pair in some for side in (0, 1)]
            if any(values):
                rows.append((name, *(figure(value) for value in values)))
        heads = [f"{short(pair.label, 12)} {side}" if side == "A" else side for pair in some for side in "AB"]
        if rows:
            blocks.append(table(("per 1,000 pages", *heads), rows))
    return blocks


def _sum(pair: Pair, names: Sequence[str], side: int) -> float:
    return sum(pair.counters[name][side] or 0.0 for name in names if name in pair.counters)


def _where(name: str, side: Side) -> str:
    trace, demand, machine = side.trace, side.demand, side.machine
    complete = trace.get("completeness") or {}
    targeted = demand.get("targeted_pages")
    lines = [
        (name, side.where),
        ("workload", f"{trace.get('path')} (id {str(trace.get('id'))[:12]}), {seconds(trace.get('duration_ns'))}"),
        ("host", f"{trace.get('host') or UNKNOWN}, kernel {trace.get('kernel') or UNKNOWN}"),
        (
            "targeted",
            f"{count(targeted)} pages in {count(demand.get('targeted_requests'))} requests, "
            f"{share(targeted, demand.get('pages'))} of all pages; --target {demand.get('target') or UNKNOWN}",
        ),
        ("complete", str(complete.get("line") or f"{_lost(trace.get('lost'))}")),
        ("machine", _machine(machine)),
        ("version", f"tracereplay {side.version or UNKNOWN}"),
    ]
    told = "\n".join(_filled(f"{label:<{INDENT}}{text}", INDENT) for label, text in lines)
    return f"{told}\n{_command(side.command)}"


def _command(command: str) -> str:
    """A command in lines that a shell puts together again."""
    lines, line = [], "command".ljust(INDENT)
    for word in shlex.split(command) or [UNKNOWN]:
        quoted = shlex.quote(word)
        if len(line) + len(quoted) + 3 > WIDTH and line.strip():
            lines.append(f"{line}\\")
            line = " " * INDENT
        line += f"{quoted} "
    return "\n".join([*lines, line.rstrip()])


def _lost(lost: int | None) -> str:
    return "events were lost, how many is not known" if lost is None else f"{count(lost)} events lost"


def _machine(machine: Any) -> str:
    pcp = machine.get("pcp") or {}
    told = [
        f"simulated {machine.get('generation')}",
        f"{machine.get('cpus')} CPUs",
        f"{machine.get('nodes')} node{'s' if machine.get('nodes') != 1 else ''}",
        size_bytes(int(machine.get("memory_bytes") or 0)),
        f"from {machine.get('source')}",
    ]
    told += [f"pcp {name} {value}" for name, value in pcp.items() if value is not None and name != "scale_max"]
    told += [f"{name} {machine[name]}" for name in ("occupancy", "fragmentation") if machine.get(name) is not None]
    return ", ".join(told)


def _prices(sides: Sides) -> str:
    profile = sides.profile
    assumed = sum(c.evidence == "assumption" for c in profile.coefficients)
    lines = [
        ("prices", f"{profile.name}: {profile.title}; {assumed} of {len(profile.coefficients)} are assumptions"),
        ("seed", f"{sides.a.seed}"),
        ("made by", f"tracereplay {__version__}, Python {platform.python_version()}"),
    ]
    return "\n".join(_filled(f"{label:<{INDENT}}{text}", INDENT) for label, text in lines)


def _filled(text: str, indent: int) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)
