"""The table of analyses in docs/analyze.md is the registry's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracereplay.analysis.analysis import Analysis, Option
from tracereplay.analysis.registry import analyses
from tracereplay.analysis.selection import FILTERS

PAGE = Path(__file__).parents[2] / "docs" / "analyze.md"
BEGIN, END = "<!-- analyses:begin -->\n", "<!-- analyses:end -->"
LETTERS = dict(zip(FILTERS, "tpcguod", strict=True))


def table() -> str:
    """Every analysis in the order of `analyze --list`, a table a group."""
    groups: dict[str, list[Analysis]] = {}
    for analysis in analyses().values():
        groups.setdefault(analysis.group, []).append(analysis)
    lines = []
    for group, members in groups.items():
        lines += [f"### {group.capitalize()}", "", "| name | what | needs | filters | options | picture |"]
        lines += ["|---|---|---|---|---|---|", *map(row, members), ""]
    return "\n".join(lines)


def row(analysis: Analysis) -> str:
    """A line of a table."""
    needs = " and ".join(f"{'/'.join(need.kinds)} ({need.option.split()[-1]})" for need in analysis.needs)
    filters = "".join(letter for name, letter in LETTERS.items() if name in analysis.filters)
    cells = [
        f"`{analysis.name}`",
        analysis.title,
        needs,
        filters,
        "; ".join(map(option_text, analysis.options)),
        analysis.picture.kind if analysis.picture else "",
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def option_text(option: Option) -> str:
    """An option with its values, the default first."""
    name = "--by" if option.name == "by" else f"--set {option.name}="
    values = [str(option.default), *(c for c in option.choices if c != option.default)]
    return f"`{name}` {' '.join(values) if option.choices else option.default}".rstrip()


def test_table_is_the_registry(request: pytest.FixtureRequest) -> None:
    before, found, rest = PAGE.read_text().partition(BEGIN)
    _, closed, after = rest.partition(END)
    assert found
    assert closed
    wanted = f"{before}{BEGIN}{table()}{END}{after}"
    if request.config.getoption("--update-golden"):
        PAGE.write_text(wanted)
    assert PAGE.read_text() == wanted, "accept with: pytest --update-golden tests/unit/test_docs_analyses.py"
