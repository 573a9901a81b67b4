"""``tracereplay capture``: record this host's page-allocation and bio events into a trace."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracereplay.cli.console import note, warn
from tracereplay.errors import UsageError

if TYPE_CHECKING:
    from tracereplay.trace.recording import CaptureSummary, Progress

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")


def seconds(text: str) -> float:
    """Seconds of ``500ms``, ``10s``, ``2m``, ``1.5h`` or a plain number. Raises UsageError for anything
    else.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"no duration: {text!r}", hint="for example 500ms, 10s, 2m, 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def run(
    out: Annotated[Path, typer.Argument(help="Directory of the new trace.")],
    command: Annotated[
        list[str] | None, typer.Argument(help="After --: capture while this command runs.", show_default=False)
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="Stop after so long: 500ms, 10s, 2m. Default: at Ctrl-C.", show_default=False)
    ] = None,
    events: Annotated[str, typer.Option(help="Groups of events: page, bio, buddy.")] = "page,bio",
    ring_mib: Annotated[float, typer.Option(help="Ring buffer per CPU, in MiB.")] = 16.0,
    force: Annotated[bool, typer.Option("--force", help="Replace an older trace.")] = False,
) -> None:
    """Record page-allocation and block-I/O events of this host into a trace.

    Needs root (or sudo without a password) and BCC for the system Python; `tracereplay doctor` says whether
    this host allows it. Ctrl-C, SIGTERM, the end of the duration and the end of the command each end the
    capture cleanly. Nothing stays attached.

    Example: tracereplay capture run1 --duration 10s
             tracereplay capture build --events page,bio,buddy -- make -j4
    """
    from tracereplay.trace.capture import CaptureOptions, capture

    options = CaptureOptions(
        groups=tuple(g.strip() for g in events.split(",") if g.strip()),
        duration_s=None if duration is None else seconds(duration),
        ring_mib=ring_mib,
        command=tuple(command or ()),
        force=force,
    )
    line = _ProgressLine()
    try:
        summary = capture(out, options, on_progress=line.show)
    finally:
        line.clear()
    _tell(summary)


def _tell(summary: CaptureSummary) -> None:
    """The summary, on stderr."""
    total = sum(summary.events.values())
    parts = ", ".join(f"{rows:,} {table}" for table, rows in summary.events.items())
    per_event = f"{summary.bytes_on_disk / total:.2f} bytes/event" if total else "no events"
    note(f"{summary.path}: {parts} in {summary.duration_s:.1f} s ({summary.reason})")
    note(f"lost: {summary.lost:,}; on disk: {summary.bytes_on_disk:,} bytes, {per_event}")
    if cost := summary.self_cost.get("cpu_ns_per_event"):
        note(f"cost of capturing: {cost:,.0f} ns of CPU per event, outside the traced tasks")
    for reason in summary.missing.values():
        warn(f"not recorded: {reason}")
    if summary.command_status:
        warn(f"the command ended with status {summary.command_status}")


class _ProgressLine:
    """One line on a terminal's stderr, rewritten about once a second."""

    def __init__(self) -> None:
        self._shown = False
        self._last = (0.0, 0)

    def show(self, state: Progress) -> None:
        if not sys.stderr.isatty():
            return
        elapsed, events = self._last
        rate = (state.events - events) / (state.elapsed_s - elapsed) if state.elapsed_s > elapsed else 0.0
        self._last = (state.elapsed_s, state.events)
        text = f"{state.elapsed_s:6.0f} s  {state.events:,} events  {rate:,.0f}/s  lost {state.lost:,}"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
        self._shown = True

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
