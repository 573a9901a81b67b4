"""Pages with tables that a command writes: each between two marks, the text around them by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tracereplay.cli.console import emit, note
from tracereplay.errors import UsageError


def replaced(page: str, section: str, text: str) -> str:
    """``page`` with what is between the marks of ``section`` exchanged. Raises UsageError where it has none."""
    begin, end = f"<!-- {section}:begin -->", f"<!-- {section}:end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UsageError(f"the page has no lines {begin} and {end}", hint="put them where the table goes")
    return f"{before}{begin}\n{text}\n{end}{after}"


def put_sections(tables: Mapping[str, str], output: Path | None) -> None:
    """Write tables into the marked sections of a page; without a page, print them."""
    if output is None:
        emit("\n\n".join(tables.values()))
        return
    page = output.read_text()
    for section, text in tables.items():
        page = replaced(page, section, text)
    output.write_text(page)
    note(f"wrote {output}")
