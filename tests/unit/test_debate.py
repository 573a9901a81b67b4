"""Pages of docs/debate: each command that is shown with its output prints that output."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tracereplay.cli.app import app

ROOT = Path(__file__).parents[2]
SHOWN = re.compile(r"```\n\$ (tracereplay (?:[^\n]*\\\n)*[^\n]*)\n(.*?)```", re.S)
"""A fenced block: a command, which may go on after a backslash, and what it writes to stdout."""


def shown_commands() -> list[tuple[str, str, str]]:
    """Page, command and output of every fenced block that starts with a command."""
    pages = sorted((ROOT / "docs" / "debate").glob("*.md"))
    return [(page.name, command, output) for page in pages for command, output in SHOWN.findall(page.read_text())]


@pytest.mark.parametrize(("page", "command", "output"), shown_commands())
def test_output_is_that_of_the_page(
    page: str, command: str, output: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, shlex.split(command.replace("\\\n", " "))[1:])
    assert result.exit_code == 0, result.output
    if request.config.getoption("--update-golden"):
        path = ROOT / "docs" / "debate" / page
        path.write_text(
            path.read_text().replace(f"```\n$ {command}\n{output}```", f"```\n$ {command}\n{result.stdout}```")
        )
        return
    assert result.stdout == output, "accept with: pytest --update-golden tests/unit/test_debate.py"
