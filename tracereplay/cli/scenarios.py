"""``tracereplay scenarios``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracereplay.cli.console import Format, emit, emit_rows, text_table

if TYPE_CHECKING:
    from tracereplay.scenarios.scenario import Scenario

WIDTH = 78


def run(
    name: Annotated[str | None, typer.Argument(help="Run one: its name or letter.", metavar="[NAME]")] = None,
    format: Annotated[Format, typer.Option("--format", help="table, json, csv or parquet.")] = Format.TABLE,
) -> None:
    """List the cases in which strategies differ, or run one and say why they do.

    Example:

    tracereplay scenarios watermark-band
    """
    from tracereplay.scenarios.catalogue import SCENARIOS, find_scenario
    from tracereplay.scenarios.scenario import run_scenario

    if name is None and format is Format.TABLE:
        emit("\n".join(line for s in SCENARIOS.values() for line in _item(s)))
        return
    if name is None:
        columns = ["scenario", "letter", "question"]
        emit_rows(columns, [[s.name, s.letter, s.question] for s in SCENARIOS.values()], format)
        return
    scenario = find_scenario(name)
    rows = run_scenario(scenario)
    if format is Format.TABLE:
        emit(page(scenario, rows))
    else:
        emit_rows(list(rows[0]), [list(row.values()) for row in rows], format)


def page(scenario: Scenario, rows: list[dict[str, Any]]) -> str:
    """A scenario with its table and the reason, for a terminal of 80 columns."""
    question, answer = (textwrap.fill(text, WIDTH) for text in (scenario.question, scenario.answer))
    return f"({scenario.letter}) {scenario.name}\n{question}\n\n{table(rows)}\n\n{answer}"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of a scenario under short headings."""
    from tracereplay.scenarios.scenario import SHORT

    return text_table([SHORT.get(c, c) for c in rows[0]], [list(row.values()) for row in rows])


def _item(scenario: Scenario) -> list[str]:
    question = textwrap.wrap(scenario.question, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return [f"({scenario.letter}) {scenario.name}", *question]
