"""What a flame graph is compared with: another trace, or another stretch of time of the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tracereplay.analysis.amounts import duration_of
from tracereplay.analysis.view import View
from tracereplay.errors import UsageError
from tracereplay.trace.reader import Trace

HINT = "FROM:UNTIL since the first event, such as 0s:5s, or the path of a trace"


def other_view(view: View, against: str) -> tuple[View, float, str]:
    """What ``against`` names, under the same filters; what to multiply its weights with, so that both are of equally
    long times; and a sentence about it. Raises UsageError, and what opening a trace raises.
    """
    if Path(against).is_dir():
        other = View(Trace.open(against), view.selection)
        name = against
    elif ":" in against:
        first, _, last = against.partition(":")
        low, high = (None if part in ("", "0") else _moment(against, part) for part in (first, last))
        if low is not None and high is not None and low >= high:
            raise UsageError(f"against={against} ends before it begins", hint=HINT)
        other = View(view.trace, replace(view.selection, time=(low, high)))
        name = f"{against} of the same trace"
    else:
        raise UsageError(f"against={against}: no trace and no stretch of time", hint=HINT)
    if other.end_ns <= other.start_ns:
        raise UsageError(f"against={against}: there is nothing then", hint=HINT)
    scale = view.seconds / other.seconds
    return other, scale, f"before: {name}, {other.seconds:.3g} s, times {scale:.4g} to be of {view.seconds:.3g} s"


def _moment(against: str, text: str) -> int:
    return 0 if text.rstrip("nmush") == "0" else duration_of("against", text)
