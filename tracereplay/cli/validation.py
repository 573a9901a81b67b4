"""Writes the tables of docs/validation.md: ``python -m tracereplay.cli.validation [-o docs/validation.md]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tracereplay.cli.accuracy import replaced
from tracereplay.cli.console import emit, note, verb


@verb
def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the rows need; write the page, or print its tables."""
    from tracereplay.validation.page import all_claims, sections

    parser = argparse.ArgumentParser(prog="python -m tracereplay.cli.validation", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, metavar="PAGE", help="page whose marked sections are rewritten")
    options = parser.parse_args(arguments)
    tables = sections(all_claims())
    if options.output is None:
        emit("\n\n".join(tables.values()))
        return
    page = options.output.read_text()
    for section, text in tables.items():
        page = replaced(page, section, text)
    options.output.write_text(page)
    note(f"wrote {options.output}")


if __name__ == "__main__":
    main()
