"""``tracereplay merge``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import Format, emit_json, emit_rows, note
from tracereplay.errors import OutputExistsError, UsageError

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace


class Align(StrEnum):
    """``--align``."""

    CLOCK = "clock"
    START = "start"


def run(
    out: Annotated[str, typer.Argument(help="The trace to write: a path or a URL.", metavar="OUT")],
    traces: Annotated[list[str], typer.Argument(help="Traces to put together.", metavar="TRACE...")],
    align: Annotated[
        Align, typer.Option("--align", help="clock: by wall clock; start: each begins at 0.")
    ] = Align.CLOCK,
    offset: Annotated[
        list[str] | None, typer.Option("--offset", help="Add ns to the times of a host.", metavar="HOST=NS")
    ] = None,
    contiguous: Annotated[
        bool, typer.Option("--contiguous", help="Nothing is missing between parts of one boot.")
    ] = False,
    format: Annotated[Format, typer.Option("--format", help="Form of the list of hosts.")] = Format.TABLE,
    force: Annotated[bool, typer.Option("--force", help="Replace an older trace at OUT.")] = False,
) -> None:
    """Put traces of several hosts on one clock, or parts of one boot together.

    Of several hosts, OUT#HOST names what OUT holds of one, wherever a trace is asked for.

    Example:

    tracereplay merge fleet.trace web1.trace web2.trace

    tracereplay replay fleet.trace#web1 -s bulk
    """
    offsets = dict(_offset(text) for text in offset or ())
    from tracereplay.trace.completeness import completeness
    from tracereplay.trace.merge import merge_traces
    from tracereplay.trace.outputs import exists
    from tracereplay.trace.reader import Trace
    from tracereplay.trace.store import is_url
    from tracereplay.trace.upload import bundle_at

    if not is_url(out) and exists(out) and not force:
        raise OutputExistsError(out)
    with bundle_at(out, force=force) as path:
        merged = merge_traces(
            path,
            [Trace.open(trace) for trace in traces],
            align=align is Align.START,
            offsets=offsets,
            contiguous=contiguous,
            force=force,
        )
        _list(merged, format)
        if len(merged.hosts) > 1 and align is Align.CLOCK:
            note("note: how far the hosts' own wall clocks were apart is not in their traces")
        note(completeness(merged).text())


def _offset(text: str) -> tuple[str, int]:
    name, mark, ns = text.rpartition("=")
    try:
        return name, int(ns) if mark and name else int("")
    except ValueError:
        raise UsageError(f"no offset: {text!r}", hint="for example --offset web2=-1500000") from None


def _list(merged: Trace, format: Format) -> None:
    """What was put where."""
    columns = ["host", "boot", "events", "offset_ns", "uncertainty_ns"]
    rows = [
        [
            h["host"],
            (h["boot"] or "")[:8] or None,
            sum(n for t, n in h["rows"].items() if t.endswith("_events")),
            h["offset_ns"],
            h["uncertainty_ns"],
        ]
        for h in merged.metadata.hosts
    ]
    if not rows:
        facts = merged.metadata.host
        events = sum(merged.identity()["events"].values())
        rows = [[facts.get("hostname"), (facts.get("boot_id") or "")[:8] or None, events, 0, 0]]
    if format is Format.JSON:
        emit_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        emit_rows(columns, rows, format)
