"""``tracereplay validate``."""

from __future__ import annotations

from typing import Annotated

import typer

from tracereplay.cli.console import Format, emit, emit_json, emit_rows, note
from tracereplay.errors import UsageError


def run(
    trace: Annotated[str, typer.Argument(help="Trace to check.", metavar="TRACE")],
    format: Annotated[Format, typer.Option("--format", help="Form of the findings.")] = Format.TABLE,
) -> None:
    """Check a trace: files, schema, order, ranges, sums. Exit code 3 when it has errors.

    Example:

    tracereplay validate web.trace && tracereplay replay web.trace -s bulk
    """
    if format is Format.PARQUET:
        raise UsageError("validate does not write Parquet", hint="use --format json or csv")
    from tracereplay.trace.completeness import completeness
    from tracereplay.trace.reader import Trace
    from tracereplay.trace.validate import validate_trace

    opened = Trace.open(trace)
    report = validate_trace(opened)
    complete = completeness(opened)
    columns = ["severity", "code", "where", "rows", "message"]
    findings = [[f.severity, f.code, f.where, f.count, f.message] for f in report.findings]
    if format is Format.JSON:
        emit_json(report.to_json() | {"completeness": complete.to_json()})
    elif format is Format.CSV:
        emit_rows(columns, findings, format)
        note(complete.text())
    else:
        for finding in report.findings:
            times = f" ({finding.count:,} rows)" if finding.count > 1 else ""
            emit(f"{finding.severity}: {finding.where}: {finding.message}{times} [{finding.code}]")
        rows = sum(report.rows.values())
        emit(
            f"{report.path}: {report.sound_files} of {report.files} files sound, {rows:,} rows, "
            f"{len(report.errors)} errors, {len(report.warnings)} warnings"
        )
        emit(complete.text())
    report.raise_for_errors()
