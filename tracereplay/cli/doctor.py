"""``tracereplay doctor``: what this host allows, item by item."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import Format, emit, emit_json, emit_rows

if TYPE_CHECKING:
    from tracereplay.trace.hostcheck import HostReport

WIDTH = 80
COLUMNS = ("name", "found", "needed", "ok", "effect", "remedy")


def run(
    format: Annotated[Format, typer.Option("--format", help="How to print the findings.")] = Format.TABLE,
) -> None:
    """Say what this host allows, item by item, with the remedy for what is missing.

    Tries for real: compiles and loads a BPF program, maps a ring buffer, reads every tracepoint's format.
    Exit code 0 also when capture is impossible: the JSON has {"capture": {"possible", "reason"}}.

    Example: tracereplay doctor --format json | jq .capture
    """
    from tracereplay.trace.hostcheck import examine_host

    report = examine_host()
    if format is Format.JSON:
        emit_json(report.to_json())
    elif format is Format.TABLE:
        emit(_text(report))
    else:
        emit_rows(COLUMNS, [[getattr(i, c) for c in COLUMNS] for i in report.items], format)


def _text(report: HostReport) -> str:
    """One line an item; for what is missing the effect and the remedy below it."""
    lines = []
    indent = " " * 8
    for item in report.items:
        mark = "ok" if item.ok else "NO" if item.blocks else "-"
        lines += _wrapped(f"  {mark:<4}  {item.name}: ", item.found, indent)
        if not item.ok:
            if item.effect:
                lines += _wrapped(f"{indent}without it: ", item.effect, indent + "  ")
            if item.remedy:
                lines += _wrapped(f"{indent}remedy: ", item.remedy, indent + "  ")
    prefix = "" if report.possible else "not possible here: "
    conclusion = f"capture: {prefix}{report.reason}"
    return "\n".join([*lines, "", *textwrap.wrap(conclusion, WIDTH)])


def _wrapped(head: str, text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=indent) or [head.rstrip()]
