"""Captures through a private instance of tracefs: the same tables as through eBPF, exact loss, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from collectors.kernel import ensure_tracefs
from collectors.tracefs_instance import leftovers, parse_stats
from tests.live.conftest import wait_for
from tests.live.stalls import assert_losses_equal_the_kernels, capture_with_stalls
from tracereplay.trace import frames
from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.collector_process import collectors_directory
from tracereplay.trace.hostcheck import capture_path
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_instance_stays")]
WORKLOADS = str(Path(__file__).with_name("workloads.py"))
REFUSE_BPF = str(Path(__file__).with_name("refuse_bpf.py"))
COLLECTOR = ["/usr/bin/python3", "-B", str(collectors_directory())]


def instances() -> set[str]:
    """Names of the collectors' instances."""
    return {path.name for path in leftovers(ensure_tracefs()[0])}


@pytest.fixture
def no_instance_stays() -> Iterator[None]:
    """After the test there is no instance that was not there before (others may capture at the same time)."""
    before = instances()

    def ours() -> set[str]:
        return {name for name in instances() - before if not Path(f"/proc/{name.split('-')[1]}").exists()}

    yield
    wait_for(lambda: not ours(), "an instance of tracefs is left")


def run(out: Path, *arguments: str, tracer: str = "tracefs", groups: tuple[str, ...] = ("page", "bio")) -> Trace:
    """Capture while a workload runs."""
    command = (sys.executable, WORKLOADS, *arguments)
    options = CaptureOptions(groups=groups, command=command, tracer=tracer, page_map=False)
    assert capture(out, options).command_status == 0
    return Trace.open(out)


def test_a_known_workload_gives_the_same_tables_and_counts_as_through_ebpf(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if capture_path()[0] != "ebpf":
        pytest.skip(f"doctor: {capture_path()[1]}")
    pages = 20_000
    seen = {}
    for tracer in ("tracefs", "ebpf"):
        trace = run(tmp_path / tracer, "touch", str(pages), tracer=tracer, groups=("page", "bio", "buddy"))
        pid = int(capfd.readouterr().out)
        assert validate_trace(trace).ok
        assert trace.metadata.source["tracer"] == tracer
        assert trace.metadata.loss["by_class"] == {}
        mine = trace.page_events.filter(pl.col("pid") == pid).with_columns(pl.col("kind").cast(pl.String)).collect()
        movable = trace.metadata.gfp_flags["GFP_HIGHUSER_MOVABLE"]
        anonymous = mine.filter(
            (pl.col("kind") == "alloc") & (pl.col("order") == 0) & (pl.col("gfp") & movable == movable)
        )
        kinds = dict(mine.group_by("kind").len().rows())
        seen[tracer] = {
            "alloc": len(anonymous),
            "free": kinds["free"],
            "batched": kinds["free_batched"],
            "columns": trace.page_events.collect_schema(),
            "tables": {t for t in trace.tables if t != "loss"},
            "events": sorted(trace.metadata.events),
            "gfp": trace.metadata.gfp_flags,
            "types": anonymous["migratetype"].unique().to_list(),
            "refills": kinds["zone_locked"] > 0,
        }
        names = trace.tasks.filter(pl.col("pid") == pid).collect()
        assert pid in names["tgid"].to_list()
        assert "python" in "".join(names["comm"].to_list())
    one, other = seen["tracefs"], seen["ebpf"]
    for name in ("columns", "tables", "events", "gfp", "types", "refills"):
        assert one[name] == other[name], name
    for name in ("alloc", "free", "batched"):
        # The interpreter around the workload allocates a little more or less from run to run.
        assert one[name] >= pages
        assert abs(one[name] - other[name]) < pages / 50, name


def test_direct_writes_are_seen_from_queueing_to_completion(
    out: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    count, size = 16, 64 * 1024
    trace = run(out, "write", str(tmp_path / "data"), str(count), str(size))
    pid = int(capfd.readouterr().out)
    bios = trace.bio_events.with_columns(pl.col("kind", "op", "flags").cast(pl.String)).collect()
    direct = bios.filter(
        (pl.col("kind") == "queue")
        & (pl.col("pid") == pid)
        & (pl.col("op") == "W")
        & (pl.col("nr_sectors") == size // 512)
    )
    assert len(direct) >= count
    assert all("S" in flags for flags in direct["flags"].to_list())
    ended = bios.filter(pl.col("kind").is_in(["complete", "bio_complete"]))
    ends = direct.join(ended, on=["dev", "sector"], suffix="_end").filter(pl.col("ts_ns_end") >= pl.col("ts_ns"))
    assert ends["sector"].n_unique() >= count
    assert set(ends["error_end"].to_list()) == {0}


def test_filters_are_kept_by_the_kernel(out: Path) -> None:
    command = (sys.executable, WORKLOADS, "touch", "3000")
    options = CaptureOptions(
        groups=("page",),
        command=command,
        tracer="tracefs",
        orders=(0,),
        gfp=0x100,
        comms=("python", "python3"),
        page_map=False,
    )
    capture(out, options)
    trace = Trace.open(out)
    events = trace.page_events.with_columns(pl.col("kind").cast(pl.String)).collect()
    allocs = events.filter(pl.col("kind") == "alloc")
    assert len(allocs) >= 3000
    assert set(events["order"].to_list()) == {0}
    assert (allocs["gfp"] & 0x100 == 0x100).all()
    names = trace.tasks.filter(pl.col("pid").is_in(allocs["pid"].unique().implode())).collect()
    assert set(names["comm"].to_list()) >= {"python"} or set(names["comm"].to_list()) >= {"python3"}
    assert trace.metadata.filters["gfp"] == 0x100
    assert any("frees of all pages" in note for note in trace.metadata.notes)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["--stacks"], "--stacks"), (["--tgid", "1"], "--tgid"), (["--max-rate", "10"], "--max-rate")],
)
def test_what_tracefs_cannot_do_is_refused_by_name(arguments: list[str], name: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    command = [*COLLECTOR, "--tracer", "tracefs", "--duration", "1", "--raw", str(raw), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert f"{name} cannot be done through tracefs" in done.stderr
    assert b'"hint":"through tracefs work: --events' in raw.read_bytes()


@pytest.fixture(params=["seccomp", "capabilities"])
def refusing_python(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system Python to which the kernel refuses bpf(), as in a container or with a bounded root."""
    wrapped = {
        "seccomp": f"exec /usr/bin/python3 {REFUSE_BPF} /usr/bin/python3",
        "capabilities": "exec setpriv --bounding-set -bpf,-sys_admin,-perfmon /usr/bin/python3",
    }[request.param]
    made = tmp_path / "python3"
    made.write_text(f'#!/bin/sh\n{wrapped} "$@"\n')
    made.chmod(0o755)
    monkeypatch.setenv("TRACEREPLAY_SYSTEM_PYTHON", str(made))
    return str(request.param)


def test_where_ebpf_is_refused_a_capture_falls_back_and_says_so(
    refusing_python: str, cli: list[str], out: Path
) -> None:
    workload = [sys.executable, WORKLOADS, "touch", "3000"]
    done = subprocess.run([*cli, "capture", str(out), "--", *workload], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "captured through tracefs: eBPF cannot be used: the kernel refuses bpf()" in " ".join(done.stderr.split())
    trace = Trace.open(out)
    assert trace.complete
    assert trace.metadata.source["tracer"] == "tracefs"
    assert any("eBPF cannot be used: the kernel refuses bpf()" in note for note in trace.metadata.notes)
    mine = trace.page_events.filter(pl.col("pid") == int(done.stdout)).collect()
    assert len(mine) > 6000
    assert validate_trace(trace).ok


def test_where_ebpf_is_refused_doctor_says_which_way_and_what_it_costs(refusing_python: str, cli: list[str]) -> None:
    done = subprocess.run([*cli, "doctor", "--format", "json"], capture_output=True, text=True, check=True)
    value = json.loads(done.stdout)
    assert value["capture"]["possible"] is True
    assert value["capture"]["path"] == "tracefs"
    missing = next(i for i in value["items"] if i["name"] == ("bpf" if refusing_python == "seccomp" else "rights"))
    assert not missing["ok"]
    assert not missing["blocks"]
    assert "captures go through tracefs, without stacks" in missing["effect"]
    assert missing["remedy"]


def test_ebpf_alone_is_not_replaced_and_what_needs_it_is_named(refusing_python: str, cli: list[str], out: Path) -> None:
    only = subprocess.run(
        [*cli, "capture", str(out), "--tracer", "ebpf", "--duration", "1s"], capture_output=True, text=True, check=False
    )
    assert only.returncode == 4
    assert not out.exists()
    stacks = subprocess.run(
        [*cli, "capture", str(out), "--stacks", "--duration", "1s"], capture_output=True, text=True, check=False
    )
    assert stacks.returncode == 4
    assert "--stacks cannot be done through tracefs" in stacks.stderr
    assert "refuses bpf()" in stacks.stderr
    assert not out.exists()


def test_forced_loss_adds_up_to_the_kernels_counters(out: Path) -> None:
    """Buffers of 64 KiB, and a collector that is stopped in its tracks while pages are touched."""
    arguments = ["--events", "page", "--ring-mib", "0.04", "--tracer", "tracefs", "--no-page-map"]
    summary = capture_with_stalls(out, arguments, stalls=4, pause_s=0.3)
    trace = Trace.open(out)
    loss = assert_losses_equal_the_kernels(trace, summary)
    counted = trace.metadata.loss["by_class"]
    assert counted["overwritten"] > 20_000
    assert not [note for note in trace.metadata.notes if note.startswith("CPU ")]
    gaps = loss.filter(pl.col("class") == "overwritten")
    assert set(gaps["table"]) == {"all"}
    inner = gaps.filter(pl.col("t0_ns").is_not_null() & pl.col("t1_ns").is_not_null())
    assert len(inner) >= 2  # the first gap of a CPU may have no event before it
    assert (inner["t0_ns"] < inner["t1_ns"]).all()
    # No event of the CPU lies within a gap of it.
    for cpu, t0, t1 in inner.select("cpu", "t0_ns", "t1_ns").rows():
        between = trace.page_events.filter(
            (pl.col("cpu") == cpu) & (pl.col("ts_ns") > t0) & (pl.col("ts_ns") < t1)
        ).collect()
        assert len(between) == 0 or t1 - t0 > 400_000_000  # rows that stand for several gaps span what is between
    assert validate_trace(trace).ok


class Running:
    """A collector with an instance, writing to a file."""

    def __init__(self, raw: Path, *arguments: str) -> None:
        command = [
            *COLLECTOR,
            "--tracer",
            "tracefs",
            "--events",
            "page",
            "--raw",
            str(raw),
            "--no-page-map",
            *arguments,
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.name = f"tracereplay-{self.process.pid}"
        self.path = ensure_tracefs()[0] / "instances" / self.name
        try:
            wait_for(lambda: raw.exists() and b'"event":"started"' in raw.read_bytes(), "the capture's start")
        except AssertionError:
            self.process.kill()
            self.process.wait()
            raise
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (self.guard,) = [int(pid) for pid in children]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(number: signal.Signals, tmp_path: Path) -> None:
    running = Running(tmp_path / "raw")
    assert (running.path / "trace_clock").read_text().find("[mono]") > 0
    running.process.send_signal(number)
    assert running.process.wait(20) == 0
    assert not running.path.exists()
    assert not Path(f"/proc/{running.guard}").exists()
    fd = os.open(tmp_path / "raw", os.O_RDONLY)
    try:
        *_, last = frames.read_packets(fd)
    finally:
        os.close(fd)
    assert isinstance(last, frames.Message)
    assert last.value["reason"] == signal.Signals(number).name
    assert {"entries", "overrun", "commit overrun", "dropped events", "read events"} <= set(last.value["ftrace"]["0"])


def test_a_killed_collector_leaves_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path / "raw")
    running.process.kill()
    running.process.wait()
    wait_for(lambda: not running.path.exists(), "the guard's work")


def test_what_a_killed_collector_and_its_killed_guard_leave_is_removed_by_doctor_and_by_the_next_run(
    tmp_path: Path, cli: list[str]
) -> None:
    for remover in ("doctor", "capture"):
        running = Running(tmp_path / f"raw-{remover}")
        os.kill(running.guard, signal.SIGKILL)
        running.process.kill()
        running.process.wait()
        assert running.path.exists()
        assert parse_stats((running.path / "per_cpu/cpu0/stats").read_text())["overrun"] >= 0
        if remover == "doctor":
            done = subprocess.run([*cli, "doctor", "--format", "json"], capture_output=True, text=True, check=True)
            item = next(i for i in json.loads(done.stdout)["items"] if i["name"] == "leftover instances")
            assert f"removed {running.name}" in item["found"]
        else:
            other = Running(tmp_path / "raw-next")
            other.process.terminate()
            assert other.process.wait(20) == 0
        assert not running.path.exists()


def test_the_instance_of_a_running_capture_is_left_alone(tmp_path: Path) -> None:
    first = Running(tmp_path / "first")
    second = Running(tmp_path / "second")
    assert first.path.exists()
    for running in (second, first):
        running.process.terminate()
        assert running.process.wait(20) == 0
        assert not running.path.exists()


def test_a_reader_that_closes_the_pipe_ends_it() -> None:
    command = [*COLLECTOR, "--tracer", "tracefs", "--events", "page"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.read(16)[:4] == b"\x89TRC"
    process.stdout.close()
    assert process.wait(20) == 141
    assert not (ensure_tracefs()[0] / "instances" / f"tracereplay-{process.pid}").exists()


def test_the_writers_death_ends_it(cli: list[str], out: Path) -> None:
    process = subprocess.Popen([*cli, "capture", str(out), "--tracer", "tracefs"], stderr=subprocess.DEVNULL)
    wait_for(lambda: out.exists(), "the capture's start")
    children = [
        int(p) for t in Path(f"/proc/{process.pid}/task").iterdir() for p in (t / "children").read_text().split()
    ]
    process.kill()
    process.wait()
    for child in children:
        path = ensure_tracefs()[0] / "instances" / f"tracereplay-{child}"
        wait_for(lambda path=path: not path.exists(), "the collector's end")  # type: ignore[misc]
    with contextlib.suppress(FileNotFoundError):
        assert not Trace.open(out).complete
