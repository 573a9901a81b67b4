"""Capture under load: events per second, loss, CPU of collector and writer per event, bytes per event.

python -m pytest -m bench tests/bench/bench_capture.py -s
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.hostcheck import capture_possible
from tracereplay.trace.reader import Trace

LOAD = Path(__file__).with_name("page_fault_load.py")
SECONDS = 8.0


@pytest.mark.bench
@pytest.mark.live
def test_capture_under_a_page_fault_load(tmp_path: Path) -> None:
    possible, reason = capture_possible()
    if not possible:
        pytest.skip(reason)
    processes = os.cpu_count() or 1
    loads: list[subprocess.Popen[str]] = []

    def start() -> None:
        for _ in range(processes):
            command = [sys.executable, str(LOAD), str(SECONDS + 2)]
            loads.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    start()
    try:
        summary = capture(tmp_path / "trace", CaptureOptions(groups=("page", "bio"), duration_s=SECONDS))
    finally:
        for load in loads:
            load.wait()
    pages = sum(int(load.communicate()[0]) for load in loads)
    events = sum(summary.events.values())
    cost = summary.self_cost
    trace = Trace.open(summary.path)
    once = cost["collector"]["startup_cpu_seconds"] + cost["collector"]["page_map_cpu_seconds"]
    collector = cost["collector"]["cpu_seconds"] - once
    writer = cost["writer"]["cpu_seconds"]
    print(
        f"\n{processes} loading processes, {pages:,} pages touched in all"
        f"\nevents/s          {events / summary.duration_s:14,.0f}   (target at least 1,000,000)"
        f"\nlost              {summary.lost:14,}   (target 0)"
        f"\n  by class        {trace.metadata.loss['by_class']}"
        f"\ncollector, core % per 1 M events/s  {collector * 1e8 / events:8.2f}"
        f"\nwriter,    core % per 1 M events/s  {writer * 1e8 / events:8.2f}"
        f"\ntogether                            {(collector + writer) * 1e8 / events:8.2f}   (target at most 20)"
        f"\nbytes/event       {summary.bytes_on_disk / events:14.2f}   (target at most 4)"
        f"\nring high water   {cost['collector']['ring_high_water_bytes']['page'] / (1 << 20):14.1f} MiB"
        f"\nstart-up and page map, CPU s {once:4.2f}"
    )
    assert events > 0
