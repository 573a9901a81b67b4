"""``tracereplay analyze`` of several traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracereplay.cli.analyze_table import table, terminal_width
from tracereplay.cli.analyze_view import finite, flat, write_rows
from tracereplay.cli.console import Format, emit, emit_frame, emit_json, note, progress
from tracereplay.cli.fleet_view import fleet_of, remark, warn_of
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from tracereplay.analysis.analysis import Analysis, Value
    from tracereplay.analysis.fleet import FleetAnswer
    from tracereplay.analysis.selection import Selection

TRACE_ROWS = 5
"""Rows of each trace that a table shows, of an analysis whose rows are best first."""
TABLE_ROWS = 100
"""Rows that a table shows in all; those of the fleet are always among them."""


def analyze(
    arguments: Sequence[str],
    analysis: Analysis,
    chosen: Selection,
    options: Mapping[str, Value],
    *,
    top: int | None,
    strict: bool,
    format: Format,
    output: str | None,
    svg: str | None,
) -> None:
    """Answer, and write or show it. Raises UsageError for a picture of what does not add up."""
    from tracereplay.analysis.fleet import analyze_fleet
    from tracereplay.trace.fleet import TRACE

    pictures = [path for path in (output, svg) if path is not None and path.endswith(".svg")]
    if pictures and isinstance(analysis.together, str):
        raise UsageError(f"{analysis.name} has no picture of several traces: {analysis.together}", hint="draw one")
    fleet = fleet_of(arguments, strict=strict)
    shown = format is Format.TABLE and output is None
    limit = TRACE_ROWS if top is None and shown else top
    with progress(analysis.name, len(fleet.members)) as advance:
        found = analyze_fleet(fleet, analysis, chosen, top=limit, options=options, strict=strict, progress=advance)
    if output is None:
        _show(found, analysis, chosen, format, top)
    for path in filter(None, (output, svg)):
        write_rows(path, analysis, found.frame, found.whole, lambda: document(found, analysis, chosen))
        note(f"wrote {path}")
    warn_of(found.failures)
    _remark(found)
    answered = {t[TRACE] for t in found.traces}
    remark([m for m in fleet.members if m.location in answered], found.failures)


def _show(found: FleetAnswer, analysis: Analysis, chosen: Selection, format: Format, top: int | None) -> None:
    if format is Format.JSON:
        emit_json(document(found, analysis, chosen))
    elif format is Format.TABLE:
        emit(table(_readable(found, top), terminal_width()))
    else:
        emit_frame(flat(found.frame) if format is Format.CSV else found.frame, format)


def _readable(found: FleetAnswer, top: int | None) -> pl.DataFrame:
    """At most TABLE_ROWS rows, those of the fleet last; where each trace lies only if host and date do not tell."""
    import polars as pl

    from tracereplay.trace.fleet import TRACE, WHOLE

    frame = found.frame
    whole = frame.filter(pl.col("host") == WHOLE)
    rows = frame.filter(pl.col("host") != WHOLE)
    if top is None and len(whole) + len(rows) > TABLE_ROWS:
        note(f"note: {len(frame):,} rows, not all are shown; --format csv or -o FILE.parquet has them")
        whole = whole.head(TABLE_ROWS // 2)
        rows = rows.head(TABLE_ROWS - len(whole))
    named = [{k: v for k, v in t.items() if k in frame.columns and k != TRACE} for t in found.traces]
    alike = len({tuple(t.values()) for t in named}) == len(named)
    return pl.concat([rows, whole]).select(pl.exclude(TRACE) if alike else pl.all())


def document(found: FleetAnswer, analysis: Analysis, chosen: Selection) -> dict[str, Any]:
    """The answer as plain values, with the accounting of each trace."""
    return {
        "schema": 1,
        "analysis": analysis.name,
        "fleet": {
            "traces": len(found.traces),
            "hosts": len({t["host"] for t in found.traces}),
            "adds_up": not found.apart,
            "note": found.apart,
            "account": dict(found.account),
            "failed": [f.to_json() for f in found.failures],
        },
        "selection": chosen.to_json(),
        "traces": found.traces,
        "rows": [{k: finite(v) for k, v in row.items()} for row in found.frame.to_dicts()],
    }


def _remark(found: FleetAnswer) -> None:
    if found.apart:
        note(f"note: no rows of the fleet: {found.apart}")
    for method in dict.fromkeys(t["method"] for t in found.traces):
        note(f"method: {method}")
    if found.account:
        note("account: " + ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in found.account.items()))
