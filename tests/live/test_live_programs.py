"""The kernel's verifier on our programs, the raw tap, and an absent tracefs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel_formats import KERNELS, formats
from tracereplay.trace.collector_process import collectors_directory
from tracereplay.trace.reader import Trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
PYTHON = "/usr/bin/python3"
REPOSITORY = str(collectors_directory().parent)

# On the system Python: bcc is only there.
VERIFY = """
import json, sys
sys.path.insert(0, sys.argv[1])
from collectors import kernel, programs
from collectors.filters import Filters
from collectors.tracepoints import PROBES, parse_format
bcc = kernel.import_bcc()
parsed = {event: parse_format(text) for event, text in json.load(sys.stdin).items()}
every = Filters([1, 2], [3], ["fio", "dd"], [(1, 1)], [8 << 20], [0, 3], 0x100, 8, True, 1 << 20)
tasks = Filters(comms=["fio"], page_frames=1 << 20)
variants = [(raw, {"filters": f, "stacks": s, "stack_every_ns": s * 1000})
            for raw in (False, True) for f in (Filters(), tasks, every) for s in (False, True)]
for raw, more in variants:
    lanes = programs.lanes_of(PROBES, raw=raw)
    loaded = kernel.compile_programs(programs.source(programs.Plan(lanes, parsed, **more)))
    for lane in lanes:
        kind = bcc.BPF.TRACEPOINT if lane.role == "tracepoint" else bcc.BPF.RAW_TRACEPOINT
        loaded.load_func(lane.function.encode(), kind)
    loaded.cleanup()
    print(len(lanes))
"""


def collector(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [PYTHON, "-B", str(collectors_directory()), *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("kernel", KERNELS)
def test_programs_for_other_kernels_pass_the_verifier(kernel: str) -> None:
    """Generated from that kernel's formats, loaded here: offsets, widths and missing fields included."""
    done = subprocess.run(
        [PYTHON, "-B", "-c", VERIFY, REPOSITORY],
        input=json.dumps(formats(kernel)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [int(n) for n in done.stdout.split()] == [26] * 6 + [28] * 6


def test_both_taps_see_the_same_workload(tmp_path: Path) -> None:
    """Raw and through perf: the same pages of a known task, on the same columns."""
    seen = {}
    for name, switch in (("raw", []), ("perf", ["--no-raw-tap"])):
        raw = tmp_path / f"{name}.raw"
        command = [PYTHON, "-B", str(collectors_directory()), "--events", "page", "--duration", "1", *switch]
        with subprocess.Popen([*command, "--raw", str(raw)]) as process:
            wait_until_it_records(raw)
            task = subprocess.run(
                [sys.executable, str(Path(__file__).with_name("workloads.py")), "touch", "3000"],
                check=True,
                capture_output=True,
                text=True,
            )
            assert process.wait() == 0
        seen[name] = summarise(raw, tmp_path / name, int(task.stdout))
    assert seen["raw"][0] == "raw"
    assert seen["perf"][0] == "tracepoint"
    for _, faults, migratetypes, orders in seen.values():
        assert faults >= 3000
        assert (migratetypes, orders) == ([1], [0])
    assert abs(seen["raw"][1] - seen["perf"][1]) < 300


def wait_until_it_records(raw: Path) -> None:
    """Until the STATUS frame of the start is in the file."""
    import time

    end = time.monotonic() + 20
    while not (raw.exists() and b'"event":"started"' in raw.read_bytes()):
        assert time.monotonic() < end
        time.sleep(0.02)


def summarise(raw: Path, out: Path, pid: int) -> tuple[str, int, list[int], list[int]]:
    """Tap, and count, types and orders of the task's movable user pages."""
    import os

    import polars as pl

    from tracereplay.trace import frames
    from tracereplay.trace.metadata import TraceMetadata
    from tracereplay.trace.recording import Recording
    from tracereplay.trace.writer import TraceWriter

    fd = os.open(raw, os.O_RDONLY)
    try:
        Recording(TraceWriter(out, TraceMetadata())).run(frames.read_packets(fd))
    finally:
        os.close(fd)
    trace = Trace.open(out)
    mask = trace.metadata.gfp_flags["GFP_HIGHUSER_MOVABLE"] | trace.metadata.gfp_flags["__GFP_ZERO"]
    wanted = (pl.col("pid") == pid) & (pl.col("gfp") & mask == mask) & (pl.col("order") == 0)
    found = trace.page_events.filter(wanted).collect()
    tap = trace.metadata.source["taps"]["kmem:mm_page_alloc"]
    return tap, len(found), found["migratetype"].unique().to_list(), found["order"].unique().to_list()


def test_an_absent_tracefs_is_mounted_for_the_collector_alone() -> None:
    """In a mount namespace without tracefs: a capture works, and the namespace still has none afterwards."""
    script = f"""
umount -l /sys/kernel/tracing 2>/dev/null; umount -l /sys/kernel/debug 2>/dev/null
test ! -d /sys/kernel/tracing/events || exit 77
{PYTHON} -B {collectors_directory()} --events page --duration 0.2 > /dev/null || exit 1
{PYTHON} -B {collectors_directory()} --check
test ! -d /sys/kernel/tracing/events || exit 78
"""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {item["name"]: item for item in json.loads(done.stdout)["items"]}
    assert found["tracefs"]["ok"]
    assert "mounts it for itself alone" in found["tracefs"]["found"]


def test_the_collector_refuses_a_terminal_and_unknown_groups() -> None:
    assert collector("--events", "pages").returncode == 2
    done = subprocess.run(
        ["script", "-qec", f"{PYTHON} -B {collectors_directory()} --duration 1", "/dev/null"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "stdout is a terminal" in done.stdout
