"""Writes the tables of docs/validation.md: ``python -m tracereplay.cli.validation [-o docs/validation.md]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tracereplay.cli.console import verb
from tracereplay.cli.sections import put_sections


@verb
def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the rows need; write the page, or print its tables."""
    from tracereplay.validation.page import all_claims, sections

    parser = argparse.ArgumentParser(prog="python -m tracereplay.cli.validation", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, metavar="PAGE", help="page whose marked sections are rewritten")
    options = parser.parse_args(arguments)
    put_sections(sections(all_claims()), options.output)


if __name__ == "__main__":
    main()
