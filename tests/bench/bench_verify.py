"""The twin check's speed: events a second of its two loops alone and of the whole run, beside reading alone.

pytest -m bench tests/bench/bench_verify.py -s

A shipped trace, replayed from memory as often as a second holds; TRACEREPLAY_BENCH_TRACE names another trace.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from tracereplay.trace.reader import Trace
from tracereplay.verify import run as twin_run
from tracereplay.verify.layout import VC_INDEX

SHIPPED = Path(__file__).parents[2] / "traces" / "mixed-6.18"


class Inline(Executor):
    """Runs what is submitted at once, and adds up how long it took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        started = time.perf_counter()
        future.set_result(fn(*args, **kwargs))
        self.seconds += time.perf_counter() - started
        return future


@pytest.mark.bench
def test_verify_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace.open(Path(os.environ.get("TRACEREPLAY_BENCH_TRACE", SHIPPED)))
    twin_run.Twin(trace).run()  # compiles
    loops = {"seconds": 0.0}
    run_events = twin_run.run_events

    def timed(*args: Any) -> None:
        started = time.perf_counter()
        run_events(*args)
        loops["seconds"] += time.perf_counter() - started

    events, free, whole, reading = 0, 0.0, 0.0, 0.0
    while events == 0 or whole < 1:
        twin = twin_run.Twin(trace)
        started = time.perf_counter()
        twin.run()
        whole += time.perf_counter() - started
        again, inline = twin_run.Twin(trace), Inline()
        with monkeypatch.context() as patched:
            patched.setattr(twin_run, "run_events", timed)
            again._run(inline)
        free += inline.seconds
        events += int(twin.v[VC_INDEX])
        started = time.perf_counter()
        for _ in trace.batches("page_events", twin_run.COLUMNS):
            pass
        reading += time.perf_counter() - started
    print(
        f"\ntwin's loop {events / loops['seconds'] / 1e6:.1f} M events/s, free-running loop {events / free / 1e6:.1f}"
    )
    print(f"whole run, both loops at once {events / whole / 1e6:.1f}, reading alone {events / reading / 1e6:.1f}")
    assert events > 0
