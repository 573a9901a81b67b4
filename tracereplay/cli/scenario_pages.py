"""Renews the tables in docs/scenarios: ``python -m tracereplay.cli.scenario_pages [DIRECTORY]`` (``make scenarios``).

A page holds the table between a line ``$ tracereplay scenarios NAME`` and the end of its code block.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tracereplay.cli.scenarios import table
from tracereplay.scenarios.catalogue import SCENARIOS
from tracereplay.scenarios.scenario import run_scenario

BLOCK = re.compile(r"(```\n\$ tracereplay scenarios ([\w-]+)\n).*?(\n```)", re.S)


def renewed(text: str) -> str:
    """A page's text with the tables of this version."""
    return BLOCK.sub(lambda m: m[1] + table(run_scenario(SCENARIOS[m[2]])) + m[3], text)


def main() -> None:
    """Renew all pages of a directory in place."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/scenarios")
    for path in sorted(directory.glob("*.md")):
        path.write_text(renewed(path.read_text()))


if __name__ == "__main__":
    main()
