"""Speed and memory of the replay: ratios of one run, on a synthetic trace and one 16 GiB Normal zone.

Run: ``pytest tests/bench/bench_replay.py -m bench -s``. The replay kernel alone takes a stream that lies in memory;
end to end reads Parquet, makes demand on a thread and replays. Counters, time bins and the frame map are on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tracereplay.demand import open_demand
from tracereplay.demand.synthetic import write_trace
from tracereplay.kernel.constants import PAGE_SIZE
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.counters import slot
from tracereplay.replay.engine import Engine, Outcome
from tracereplay.replay.run import BINS, replay
from tracereplay.strategies.contract import Params
from tracereplay.strategies.registry import choose, load_strategy
from tracereplay.trace.reader import Trace

pytestmark = pytest.mark.bench

EVENTS = 10_000_000
FEWER = 4_000_000
FRAMES = (16 << 30) // PAGE_SIZE
CPUS = 4
STRATEGIES = ("per-page", "bulk", "compound", "unmapped-cache")
CALLS = ("alloc_calls", "bulk_calls", "free_calls")
REPEATS = 3

CHILD = """
import sys, time
start = time.perf_counter()
from tests.bench.bench_replay import machine
from tracereplay.replay.run import replay
from tracereplay.strategies.registry import choose
from tracereplay.trace.reader import Trace
done = replay(Trace.open(sys.argv[1]), choose(["per-page"]), machine, target=sys.argv[2])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss has the parent's
print(time.perf_counter() - start, int(peak.split()[1]) / 1024)
"""
START = """
import time
start = time.perf_counter()
from tests.bench.bench_replay import engine
from tracereplay.demand.stream import OP
from tracereplay.strategies.registry import load_strategy
import numpy, sys
engine(load_strategy(sys.argv[1])(), 1024, 0, 1).feed(numpy.zeros(0, OP))
print(time.perf_counter() - start)
"""


def machine(_cpus: int = CPUS) -> MachineConfig:
    """One empty Normal zone of 16 GiB."""
    return MachineConfig(zones=(ZoneConfig("Normal", 0, FRAMES),), cpus=CPUS, occupancy=0.0)


def engine(params: Params, frames: int, start_ns: int, end_ns: int) -> Engine:
    """A strategy on that machine."""
    return Engine(params, machine(), frames=frames, start_ns=start_ns, end_ns=end_ns, bins=BINS)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten million events."""
    return write_trace(tmp_path_factory.mktemp("bench") / "t.trace", events=EVENTS, cpus=CPUS)


def streams(path: Path, target: str) -> tuple[list[np.ndarray], Callable[[str], Engine]]:
    """All batches of the demand in memory, and what makes an engine for it."""
    stream = open_demand(Trace.open(path), target=target)
    batches = list(stream)
    info = stream.info
    return batches, lambda name: engine(load_strategy(name)(), info.frames, info.start_ns, info.end_ns)


def best(batches: list[np.ndarray], make: Callable[[str], Engine], name: str) -> tuple[float, Outcome]:
    """Shortest time of some replays of a stream, seconds; and what they counted."""
    times = []
    for _ in range(REPEATS):
        runner = make(name)
        start = time.perf_counter()
        for batch in batches:
            runner.feed(batch)
        times.append(time.perf_counter() - start)
    return min(times), runner.finish()


def calls_of(outcome: Outcome) -> int:
    """Calls of the allocator, background included."""
    row = outcome.totals + outcome.background
    return int(sum(row[slot(name)] for name in CALLS))


def test_kernel(trace: Path) -> None:
    batches, make = streams(trace, "none")
    seconds, outcome = best(batches, make, "per-page")
    base = seconds / calls_of(outcome)
    rate = EVENTS / seconds / 1e6
    print(f"\nreplay kernel, per-page, nothing targeted: {rate:.1f} M events/s, {base * 1e9:.1f} ns a call")
    del batches
    batches, make = streams(trace, "all")
    for name in STRATEGIES:
        seconds, outcome = best(batches, make, name)
        calls = calls_of(outcome)
        pages = int(outcome.totals[slot("pages_allocated")] + outcome.totals[slot("pages_freed")])
        print(
            f"{name:15s} all targeted: {EVENTS / seconds / 1e6:5.1f} M events/s; {seconds / calls * 1e9:.1f} ns each of"
            f" {calls / 1e6:4.1f} M allocator calls ({seconds / calls / base:.2f} of the background's);"
            f" {seconds / pages * 1e9:5.1f} ns a page; {len(outcome.vectors)} vectors"
        )


@pytest.mark.parametrize("target", ["none", "batches", "all"])
def test_end_to_end(trace: Path, target: str) -> None:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        replay(Trace.open(trace), choose(["per-page"]), machine, target=target)
        times.append(time.perf_counter() - start)
    print(f"\nend to end from Parquet, per-page, target {target}: {EVENTS / min(times) / 1e6:.1f} M events/s")


def child(code: str, *args: str, **environment: str) -> list[float]:
    """Figures that a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


@pytest.mark.parametrize("target", ["none", "all"])
def test_memory(trace: Path, tmp_path: Path, target: str) -> None:
    fewer = write_trace(tmp_path / "fewer.trace", events=FEWER, cpus=CPUS)
    (_, small), (_, large) = child(CHILD, str(fewer), target), child(CHILD, str(trace), target)
    print(f"\npeak memory, target {target}: {small:.0f} MiB for {FEWER:,} events, {large:.0f} MiB for {EVENTS:,}")


@pytest.mark.parametrize("name", STRATEGIES)
def test_start(tmp_path: Path, name: str) -> None:
    cold = child(START, name, TRACEREPLAY_CACHE_DIR=str(tmp_path))
    warm = min(child(START, name, TRACEREPLAY_CACHE_DIR=str(tmp_path)) for _ in range(REPEATS))
    print(f"\n{name}: first start {cold[0]:.1f} s, next ones {warm[0]:.2f} s")
