"""Loss on purpose: a collector that is stopped while the kernel makes events, and what its trace then has to say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from tracereplay.trace import frames
from tracereplay.trace.collector_process import CollectorProcess
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.reader import Trace
from tracereplay.trace.recording import CaptureSummary, Recording
from tracereplay.trace.writer import TraceWriter


def capture_with_stalls(out: Path, arguments: list[str], *, stalls: int, pause_s: float) -> CaptureSummary:
    """A capture whose collector is stopped in its tracks while pages are touched, so often, and may drain in between
    for so long: a gap then has an end before the next one begins."""
    collector = CollectorProcess(["--attended", *arguments])
    touch = [sys.executable, str(Path(__file__).with_name("workloads.py")), "touch", "8000"]

    def load() -> None:
        os.kill(collector.pid, signal.SIGSTOP)
        for _ in range(stalls):
            subprocess.run(touch, check=True, stdout=subprocess.DEVNULL)
            os.kill(collector.pid, signal.SIGCONT)
            time.sleep(pause_s)
            os.kill(collector.pid, signal.SIGSTOP)
        os.kill(collector.pid, signal.SIGCONT)
        collector.ask_to_stop()

    recording = Recording(TraceWriter(out, TraceMetadata(source={"kind": "capture"})), on_started=load)
    try:
        return recording.run(frames.read_ahead(frames.read_packets(collector.frames_fd)))
    finally:
        collector.end()


def assert_losses_equal_the_kernels(trace: Trace, summary: CaptureSummary) -> pl.DataFrame:
    """The rows of ``loss`` add up to what the kernel counted, class by class; the rows."""
    loss = trace.loss.with_columns(pl.col("table", "class").cast(pl.String)).collect()
    counted = trace.metadata.loss["by_class"]
    assert dict(loss.group_by("class").agg(pl.col("n").sum()).rows()) == counted
    assert summary.lost == sum(counted.values())
    return loss
