"""``tracereplay verify``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracereplay.cli.console import Format, emit, emit_json, emit_rows, note, progress, warn
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracereplay.verify.explain import Disagreement


def run(
    trace: Annotated[str, typer.Argument(help="Trace to check.", metavar="TRACE")],
    explain: Annotated[
        bool, typer.Option("--explain", help="Also show the first disagreements, ten of each kind.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="With --explain: the first N of any kind.")
    ] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Write the result (JSON) here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output.")] = False,
    format: Annotated[Format, typer.Option("--format", help="table, json, csv or parquet.")] = Format.TABLE,
) -> None:
    """Check the simulated allocator against the kernel that was recorded, event by event.

    The machine gets the recorded allocations and frees, predicts each refill, each drain and each page, and is
    compared. csv and parquet give every number by name, with --explain the disagreements.

    Example:

    tracereplay capture web.trace --duration 30s --events page,buddy

    tracereplay verify web.trace --explain
    """
    if limit is not None and (limit < 1 or not explain):
        raise UsageError("--limit is a number of disagreements from 1 on", hint="tracereplay verify TRACE --explain")
    from tracereplay.trace.outputs import check_file, write_text

    if output is not None:
        check_file(output, force=force)
    from tracereplay.trace.reader import Trace
    from tracereplay.verify.explain import ROOM, disagreements
    from tracereplay.verify.result import run_check

    opened = Trace.open(trace)
    with progress("verify"):
        twin, result = run_check(opened, max(ROOM, limit or 0) if explain else 0)
        found = disagreements(twin, limit) if explain else None
    document = result.to_json()
    if found is not None:
        document["explain"] = [d.to_json() for d in found]
    for text in result.warnings:
        warn(text)
    if output is not None:
        write_text(output, json.dumps(document, indent=1, allow_nan=False) + "\n")
        note(f"result: {output}")
    _show(document, found, format)


def _show(document: dict[str, Any], found: list[Disagreement] | None, format: Format) -> None:
    if format is Format.JSON:
        emit_json(document)
    elif format is Format.TABLE:
        from tracereplay.cli.verify_view import disagreements_text, result_text

        parts = [result_text(document)]
        if found is not None:
            parts.insert(0, disagreements_text(document["explain"]))
        emit("\n\n".join(parts))
    else:
        if found is not None:
            columns = ["event", "kind", "cpu", "text"]
            emit_rows(columns, [[getattr(d, c) for c in columns] for d in found], format)
        else:
            emit_rows(["name", "value"], list(flat(document)), format)
        note(f"completeness: {document['completeness']['line']}")


def flat(value: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    """Numbers of a document by dotted name; what is null stays, texts are left out."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flat(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from flat(part, f"{name}.{i}")
    elif value is None or isinstance(value, int | float):
        yield name, None if value is None else float(value)
