"""What capturing page events costs the traced tasks: in the kernel, and beside other tracers.

python -m pytest -m bench tests/bench/bench_capture_cost.py -s
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.bench import tracers
from tests.bench.tracers import Recorded
from tracereplay.trace.collector_process import SYSTEM_PYTHON, collectors_directory
from tracereplay.trace.hostcheck import capture_possible
from tracereplay.trace.reader import Trace

pytestmark = [pytest.mark.bench, pytest.mark.live]

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
PAGES = int(os.environ.get("BENCH_PAGES", "600000"))
STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")

Tracer = Callable[[Path], contextlib.AbstractContextManager[Recorded]]


class Load:
    """Processes that touch pages when told, one pinned to each CPU of a list."""

    def __init__(self, cpus: Sequence[int]) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(HERE / "page_touch.py"), str(cpu)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for cpu in cpus
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def round(self, pages: int = PAGES) -> tuple[float, float, int]:
        """Touch so many pages in each process: ns of wall time and of CPU time per page, and pages in all."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{pages}\n")
            process.stdin.flush()
        rows = []
        for process in self._processes:
            assert process.stdout is not None
            rows.append([float(word) for word in process.stdout.readline().split()])
        walls, cpus, touched = zip(*rows, strict=True)
        total = sum(touched)
        return sum(walls) * 1e9 / total, sum(cpus) * 1e9 / total, int(total)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.communicate()


@pytest.fixture
def possible() -> None:
    """Skips where this host allows no capture, for the reason that ``doctor`` gives."""
    allowed, reason = capture_possible()
    if not allowed:
        pytest.skip(reason)


@contextlib.contextmanager
def statistics_on() -> Iterator[None]:
    """The kernel counts run time and runs of every BPF program."""
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        yield
    finally:
        STATISTICS.write_text(before)


def empty_program(load: Load) -> dict[str, float]:
    """What the run-time statistics say of a raw program that does nothing: the cost of measuring, by event."""
    script = HERE / "empty_program.py"
    python = os.environ.get("TRACEREPLAY_SYSTEM_PYTHON", SYSTEM_PYTHON)
    command = [python, "-B", str(script), str(collectors_directory().parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        load.round()
        process.stdin.close()
        counted: dict[str, list[int]] = json.loads(process.stdout.read())
    return {event: ns / runs for event, (ns, runs) in counted.items()}


def in_kernel(directory: Path, load: Load, options: Sequence[str]) -> dict[str, float]:
    """ns per allocation and per free by the run-time statistics, all programs that the event runs together, and
    of that what the second program takes that looks for events within events."""
    # With a limit, however high, the programs' run time is counted all the time.
    with tracers.tracereplay(directory, "--max-overhead", "1000", *options):
        load.round()
    cost = Trace.open(directory / "trace").metadata.self_cost
    programs: dict[str, dict[str, int]] = cost["collector"]["programs"]
    found = {}
    for event in ("alloc", "free"):
        first = programs[f"tr_mm_page_{event}"]
        second = programs.get(f"tr_mm_page_{event}_nested", {"run_time_ns": 0})
        found[event] = (first["run_time_ns"] + second["run_time_ns"]) / first["run_cnt"]
        found[f"{event}, second"] = second["run_time_ns"] / first["run_cnt"]
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned text."""
    cells = [list(head), *([f"{c:,.0f}" if isinstance(c, float) else str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    )


@pytest.mark.usefixtures("possible")
def test_cost_in_the_kernel(tmp_path: Path) -> None:
    load = Load([0])
    variants: dict[str, list[str]] = {
        "without stacks": [],
        "another task's pid": ["--pid", "1"],
        "stacks of 1 event in 16": ["--stacks", "--stack-sample", "16"],
        "stacks of all": ["--stacks"],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    empty: list[dict[str, float]] = []
    try:
        with statistics_on():
            for _ in range(max(2, ROUNDS // 2)):
                empty.append(empty_program(load))
                for name, options in variants.items():
                    found[name].append(in_kernel(tmp_path, load, options))
    finally:
        load.close()

    def median(rows: Sequence[dict[str, float]], key: str) -> float:
        return statistics.median(row[key] for row in rows)

    measuring = {event: median(empty, event) for event in ("alloc", "free")}
    rows = [["(a program that does nothing)", measuring["alloc"], "", measuring["free"], ""]]
    for name, values in found.items():
        told: list[object] = [name]
        for event in ("alloc", "free"):
            seconds = 1 if median(values, f"{event}, second") == 0 else 2
            told += [median(values, event), median(values, event) - seconds * measuring[event]]
        rows.append(told)
    head = ["ns by the run-time counters", "alloc", "less measuring", "free", "less measuring"]
    print(f"\n{table(head, rows)}\ntargets without stacks: 400 per allocation, 120 per free")
    assert median(found["without stacks"], "alloc") > 0


@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("processes", [1, os.cpu_count() or 1], ids=["one process", "one on each CPU"])
def test_added_time(tmp_path: Path, processes: int) -> None:
    load = Load(range(processes))
    kinds: dict[str, Tracer] = {
        "nothing": tracers.nothing,
        "tracereplay": tracers.tracereplay,
        "ftrace ring": tracers.ring,
        "ftrace ring, read": functools.partial(tracers.ring, read=True),
        "perf record": tracers.perf,
    }
    wall: dict[str, list[float]] = {name: [] for name in kinds}
    cpu: dict[str, list[float]] = {name: [] for name in kinds}
    events: dict[str, list[Recorded]] = {name: [] for name in kinds}
    try:
        for _ in range(ROUNDS):
            for name, tracer in kinds.items():
                with tracer(tmp_path) as recorded:
                    a, b, _ = load.round()
                wall[name].append(a)
                cpu[name].append(b)
                events[name].append(recorded)
    finally:
        load.close()
    base = {key: statistics.median(of["nothing"]) for key, of in (("wall", wall), ("cpu", cpu))}
    rows = [
        [
            name,
            statistics.median(wall[name]) - base["wall"],
            f"{min(wall[name]) - base['wall']:,.0f} to {max(wall[name]) - base['wall']:,.0f}",
            statistics.median(cpu[name]) - base["cpu"],
            f"{statistics.median(r.events for r in events[name]):,.0f}",
            f"{sum(r.lost for r in events[name]):,}",
        ]
        for name in kinds
    ]
    head = ["ns added per page", "wall, median", "range", "CPU, median", "events", "lost"]
    print(f"\n{processes} process(es), {PAGES:,} pages each, {base['wall']:,.0f} ns per page untraced, {ROUNDS} rounds")
    print(table(head, rows))
    assert all(r.events >= PAGES for r in events["tracereplay"])
    assert all(r.events >= PAGES for r in events["perf record"])


@pytest.mark.usefixtures("possible")
def test_rate_loss_and_size(tmp_path: Path) -> None:
    load = Load(range(os.cpu_count() or 1))
    try:
        with tracers.tracereplay(tmp_path) as recorded:
            load.round(4 * PAGES)
    finally:
        load.close()
    trace = Trace.open(tmp_path / "trace")
    cost = trace.metadata.self_cost
    collector = cost["collector"]
    spent = collector["cpu_seconds"] - collector["startup_cpu_seconds"] - collector["page_map_cpu_seconds"]
    bytes_on_disk = sum(f.bytes for f in trace.files["page_events"])
    busy = busiest_second(trace)
    print(
        f"\nevents in the busiest second   {busy:12,}   (target 1,000,000)"
        f"\nlost                           {recorded.lost:12,}   (target 0)"
        f"\ncollector, % of a core at 1 M/s{spent * 1e8 / recorded.events:12.1f}   (target at most 10; the page map,"
        f" read once, took {collector['page_map_cpu_seconds']:.2f} s)"
        f"\nwriter, % of a core at 1 M/s   {cost['writer']['cpu_seconds'] * 1e8 / recorded.events:12.1f}"
        f"\nbytes per page event           {bytes_on_disk / recorded.events:12.2f}   (target at most 3)"
        f"\nring high water                {collector['ring_high_water_bytes']['page'] / (1 << 20):12.1f} MiB"
    )
    assert recorded.events > 4 * PAGES


def busiest_second(trace: Trace) -> int:
    """Events of the fullest second."""
    import polars as pl

    counts = trace.page_events.group_by(pl.col("ts_ns") // 1_000_000_000).len().collect(engine="streaming")
    return int(counts["len"].max() or 0)  # type: ignore[arg-type]


def test_cost_of_the_live_view() -> None:
    """CPU of drawing once, and of counting what is drawn, by event."""
    import io
    import time

    from rich.console import Console

    from tests.cli.test_capture_view import BEFORE, STATE
    from tests.trace_samples import page_batch
    from tracereplay.cli.capture_view import CaptureView, Plan
    from tracereplay.trace.progress import LiveTally

    view = CaptureView(Plan("t", 30.0), Console(file=io.StringIO(), force_terminal=True, width=80, height=24))
    view.show(BEFORE)
    start = time.process_time()
    for _ in range(200):
        view.show(STATE)
    drawing = (time.process_time() - start) / 200
    view.close()
    batch = page_batch(1 << 20)
    tally = LiveTally(lambda _state: None)
    tally.add("page_events", batch)
    start = time.process_time()
    for _ in range(20):
        tally.add("page_events", batch)
    counting = (time.process_time() - start) / 20 / batch.num_rows
    print(f"\nlive view: {drawing * 1e3:.1f} ms of CPU a drawing (one a second), {counting * 1e9:.2f} ns per event")
    assert drawing > 0
