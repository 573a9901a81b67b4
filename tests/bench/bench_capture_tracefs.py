"""What a capture through tracefs costs, in turns with eBPF under the same load."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.hostcheck import capture_path

pytestmark = pytest.mark.bench
LOAD = Path(__file__).with_name("page_fault_load.py")
SECONDS = 4
TURNS = 3


def test_tracefs_against_ebpf(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, reason = capture_path()
    if path != "ebpf":
        pytest.skip(f"doctor: {reason}")
    one = f"{sys.executable} {LOAD} {SECONDS}"
    rows = []
    for turn in range(TURNS):
        for tracer in ("tracefs", "ebpf"):
            options = CaptureOptions(
                groups=("page",), command=("sh", "-c", f"{one} & {one}; wait"), tracer=tracer, page_map=False
            )
            summary = capture(tmp_path / f"{tracer}{turn}", options)
            events = sum(summary.events.values())
            cost = summary.self_cost
            collector = cost["collector"]["cpu_seconds"] - cost["collector"]["startup_cpu_seconds"]
            rows.append(
                f"{tracer:8} {events / summary.duration_s / 1e6:5.2f} M events/s  lost {summary.lost:8}  collector "
                f"{collector / events * 1e9:5.1f} ns/event  writer {cost['writer']['cpu_seconds'] / events * 1e9:5.0f} "
                f"ns/event  start {cost['collector']['startup_cpu_seconds']:.2f} s of CPU"
            )
            assert events > 100_000
    capfd.readouterr()
    with capfd.disabled():
        print("\n" + "\n".join(rows))
