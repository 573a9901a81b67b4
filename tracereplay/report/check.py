"""The twin check of a trace within a time: in a process of its own, beside the rest of the report.

``python -m tracereplay.report.check TRACE`` writes the document of ``verify --format json``. Where the machine has not
been compiled on this host before, compiling alone takes longer than a report may: the check is then given up and said
to be.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tracereplay.errors import TracereplayError

if TYPE_CHECKING:
    from tracereplay.trace.reader import Trace

EVENTS_PER_SECOND = 400_000
"""Of a slow host: a trace of more events than the time allows at this rate is not begun with."""


class TimedCheck:
    """A check that is under way; ``reason`` says why there is no result. Leaving it ends it."""

    def __init__(self, trace: Trace, seconds: float) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self.reason = _hindrance(trace, seconds)
        if not self.reason:
            self._out = tempfile.TemporaryFile()  # noqa: SIM115  closed in __exit__
            name = str(trace.identity()["path"])
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tracereplay.report.check", name], stdout=self._out, stderr=subprocess.DEVNULL
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._out.close()

    def result(self) -> dict[str, Any] | None:
        """Its document, waited for until the time is over; None with a ``reason``."""
        if self._process is None:
            return None
        try:
            code = self._process.wait(max(0.0, self._end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.reason = f"the check takes longer than {self._seconds:g} s"
            return None
        self._out.seek(0)
        try:
            document: dict[str, Any] = json.loads(self._out.read())
        except ValueError:
            self.reason = f"the check ended with status {code}"
            return None
        if "reason" in document:
            self.reason = str(document["reason"])
            return None
        return document


def _hindrance(trace: Trace, seconds: float) -> str:
    """Why a check is not begun with; empty: it is."""
    from tracereplay.verify.result import require_events

    if seconds <= 0:
        return "it was not asked for"
    if trace.hosts:
        return "it is of several hosts"
    try:
        require_events(trace)
    except TracereplayError as error:
        return error.message.partition(" in /")[0].partition(f" in {trace.path}")[0]
    if trace.rows("page_events") > seconds * EVENTS_PER_SECOND:
        return f"its {trace.rows('page_events'):,} page events would take longer than {seconds:g} s"
    return ""


def main(path: str) -> None:
    """Check a trace and write the result to stdout, or the reason why there is none."""
    from tracereplay.trace.reader import Trace
    from tracereplay.verify.result import run_check

    try:
        _, result = run_check(Trace.open(path))
    except TracereplayError as error:
        sys.stdout.write(json.dumps({"reason": error.message}))
        return
    sys.stdout.write(json.dumps(result.to_json(), allow_nan=False))


if __name__ == "__main__":
    main(sys.argv[1])
