"""All that a page shows, from what the user names: a trace, the results of a replay, or the table of a sweep."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from tracereplay.cost.priced import repriced
from tracereplay.cost.profile import load_profile
from tracereplay.errors import ResultsError, TraceNotFoundError, TracereplayError, UsageError
from tracereplay.report.accuracy import Accuracy, of_captures, of_check
from tracereplay.report.check import TimedCheck
from tracereplay.report.data import Fact, build_comparison
from tracereplay.report.html import Report
from tracereplay.report.provenance import of_results, of_trace
from tracereplay.report.results import load_results
from tracereplay.report.sweep import load_sweep
from tracereplay.report.tracedata import build_trace_data
from tracereplay.trace.completeness import completeness
from tracereplay.trace.files import split_host
from tracereplay.trace.manifest import MANIFEST_NAME
from tracereplay.trace.outputs import exists, read_bytes, suffix_of
from tracereplay.trace.reader import Trace
from tracereplay.trace.store import Place, below, is_url, path_of

Tell = Callable[[str], None]
Check = tuple[str, str | None, Accuracy]
"""The file that a check is in, the trace that it is of, and what it found."""
TABLES = (".parquet", ".pq")


def report_of(
    source: Place, made_by: str, tell: Tell, *, profile: str | None, check_s: float, verified: Place | None
) -> Report:
    """What is known of a source. ``made_by``: the command that is told; ``tell`` gets what the page goes without.

    Raises TraceNotFoundError, ResultsError, UsageError for a profile where no prices are, and what traces raise.
    """
    if is_trace(source):
        if profile is not None:
            raise UsageError(
                "a trace has no prices", hint="replay it, and give its results: tracereplay replay -o FILE"
            )
        trace = Trace.open(source)
        return Report(trace=build_trace_data(trace), provenance=of_trace(trace), commands=(made_by,))
    if not exists(source):
        raise TraceNotFoundError(
            f"no such trace, results or sweep: {source}",
            hint="give a trace directory, a results file or the table of a sweep",
        )
    made = _verified(verified)
    check_s = 0.0 if made is not None else check_s
    if suffix_of(source) not in TABLES:
        return _comparison(source, profile, made_by, tell, check_s, made)
    if profile is not None:
        raise UsageError(
            "a sweep has the prices that it was run with", hint="run it with others: tracereplay whatif --profile"
        )
    return _sweep(source, made_by, tell, check_s, made)


def is_trace(source: Place) -> bool:
    """A directory, which is a trace or nothing; behind a URL, a manifest."""
    if is_url(source):
        return exists(below(str(source).partition("#")[0], MANIFEST_NAME))
    return split_host(path_of(source))[0].is_dir()


def _comparison(
    source: Place, profile: str | None, made_by: str, tell: Tell, check_s: float, made: Check | None
) -> Report:
    result = load_results(source)
    if profile is not None:
        result = repriced(result, load_profile(profile))
    comparison = build_comparison(result)
    trace = _recorded(str(result["trace"].get("path") or ""), result["trace"].get("id"), tell)
    with _checking(trace, check_s) as running:
        data = None if trace is None else build_trace_data(trace)
        accuracy = _own(made, [result["trace"].get("id")]) or _accuracy(
            running, [str(result["machine"].get("generation"))]
        )
    commands = (comparison.command,) if comparison.command else ()
    return Report(comparison, data, accuracy=accuracy, provenance=of_results(result), commands=(*commands, made_by))


def _sweep(source: Place, made_by: str, tell: Tell, check_s: float, made: Check | None) -> Report:
    sweep = load_sweep(source)
    trace = None
    if len(sweep.traces) == len(sweep.trace_ids) == 1:
        trace = _recorded(sweep.traces[0], sweep.trace_ids[0], tell)
    with _checking(trace, check_s) as running:
        accuracy = _own(made, sweep.trace_ids) or _accuracy(running, sweep.generations, len(sweep.traces))
    complete = () if trace is None else (Fact("completeness of the trace", completeness(trace).line()),)
    return Report(
        sweep=replace(sweep, facts=(*sweep.facts, *complete)),
        accuracy=accuracy,
        provenance=sweep.provenance,
        commands=(*sweep.commands, made_by),
    )


def _recorded(path: str, trace_id: str | None, tell: Tell) -> Trace | None:
    """The trace that figures are of, where it is still there."""
    try:
        trace = Trace.open(path)
    except TracereplayError as error:
        tell(f"note: the report goes without the charts of its trace: {error.message}")
        return None
    if trace.metadata.trace_id == trace_id:
        return trace
    tell(f"note: {path} is another trace by now; the report goes without its charts")
    return None


def _checking(trace: Trace | None, seconds: float) -> AbstractContextManager[TimedCheck | None]:
    """The machine's check on a trace, under way beside the rest."""
    return nullcontext(None) if trace is None else TimedCheck(trace, seconds)


def _accuracy(running: TimedCheck | None, generations: Sequence[str], traces: int = 1) -> Accuracy:
    found = None if running is None else running.result()
    if found is not None:
        return of_check(found)
    without = "its file is not here" if traces == 1 else f"the sweep is over {traces} traces"
    return of_captures(generations, without if running is None else running.reason)


def _verified(path: Place | None) -> Check | None:
    """A check that was made before: what it is called, and what it found."""
    if path is None:
        return None
    try:
        document = json.loads(read_bytes(path))
        return str(path), document["trace"]["id"], of_check(document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{path}: holds no twin check ({error})", hint="it comes from: tracereplay verify TRACE -o check.json"
        ) from None


def _own(made: Check | None, trace_ids: Sequence[str | None]) -> Accuracy | None:
    """What that check found, if it is one of the only trace that there is. Raises UsageError if not."""
    if made is None:
        return None
    path, checked, accuracy = made
    if list(trace_ids) != [checked]:
        raise UsageError(
            f"{path} checks another trace ({str(checked)[:12]})",
            hint=f"verify the trace that the costs are of: {', '.join(str(name)[:12] for name in trace_ids)}",
        )
    return accuracy
