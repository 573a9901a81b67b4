"""Stacks, tasks with their cgroup, and load shedding, on this host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from collectors.cgroups import CgroupTree
from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.reader import Trace
from tracereplay.trace.stacks import TRACING, folded_stacks
from tracereplay.trace.validate import validate_trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
WORKLOADS = str(Path(__file__).with_name("workloads.py"))
FAULTS = str(Path(__file__).parents[1] / "bench/page_fault_load.py")


def run(out: Path, options: CaptureOptions) -> Trace:
    """A capture whose command ends well, and a bundle that validates."""
    summary = capture(out, options)
    assert summary.command_status == 0
    trace = Trace.open(summary.path)
    report = validate_trace(trace)
    assert report.ok, report
    return trace


def text(frame: pl.LazyFrame) -> pl.DataFrame:
    """Collected, with strings instead of categories."""
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String)).collect()


def test_stacks_are_sampled_resolved_and_few(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = (sys.executable, WORKLOADS, "touch", "20000")
    trace = run(out, CaptureOptions(stacks=True, stack_sample=8, page_map=False, command=command))
    pid = int(capfd.readouterr().out)
    allocs = text(trace.page_events.filter(pl.col("kind").cast(pl.String) == "alloc"))
    with_stack = allocs.filter(pl.col("stack_id").is_not_null())
    # One in 8 of those on each CPU, counted by two programs.
    assert abs(len(with_stack) - len(allocs) / 8) <= 4 * os.cpu_count()  # type: ignore[operator]
    others = text(trace.page_events.filter(pl.col("kind").cast(pl.String) != "alloc"))
    assert others["stack_id"].null_count() == len(others)
    stacks = text(trace.stacks)
    assert stacks["symbol"].null_count() == 0, "every frame has a name"
    assert set(with_stack["stack_id"]) <= set(stacks["stack_id"])
    innermost = stacks.filter(pl.col("depth") == 0)["symbol"].to_list()
    assert not [name for name in innermost if name.startswith(TRACING)]
    folded = folded_stacks(trace.stacks).collect()
    mine = with_stack.filter(pl.col("pid") == pid).join(folded, on="stack_id")
    faults = mine.filter(pl.col("stack").str.contains("handle_mm_fault"))
    assert len(faults) >= 20_000 / 8 * 0.9
    assert faults["stack_id"].n_unique() < 50, "the same stack has the same id"
    assert "stacks" not in " ".join(trace.metadata.notes)


def test_stacks_of_bios_lead_to_their_submission(out: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = (sys.executable, WORKLOADS, "write", str(tmp_path / "data"), "32", "65536")
    trace = run(out, CaptureOptions(groups=("bio",), stacks=True, command=command))
    pid = int(capfd.readouterr().out)
    bios = text(trace.bio_events.filter(pl.col("pid") == pid)).filter(pl.col("kind") == "queue")
    joined = bios.join(folded_stacks(trace.stacks).collect(), on="stack_id", how="left")
    assert len(joined) >= 32
    assert joined["stack"].str.contains("submit_bio").all()
    assert joined.filter(pl.col("stack").str.contains("pwrite64"))["nr_sectors"].sum() >= 32 * 128


def test_one_stack_per_caller_and_interval(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = (sys.executable, WORKLOADS, "touch", "20000")
    trace = run(out, CaptureOptions(stacks=True, stack_every_s=60.0, page_map=False, command=command))
    pid = int(capfd.readouterr().out)
    allocs = text(trace.page_events.filter(pl.col("kind").cast(pl.String) == "alloc")).filter(pl.col("pid") == pid)
    by_caller = allocs.group_by("order", "gfp").agg(pl.len(), stacks=pl.col("stack_id").count())
    assert by_caller["len"].max() >= 20_000  # type: ignore[operator]
    # Every CPU that the task was on may have been first at the same time.
    assert by_caller["stacks"].max() <= os.cpu_count()  # type: ignore[operator]
    assert by_caller["stacks"].min() >= 1  # type: ignore[operator]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of its own, gone afterwards; skips where the hierarchy cannot be written."""
    tree = CgroupTree.find()
    if tree is None or not os.access(tree.mount, os.W_OK):
        pytest.skip("no cgroup v2 mount that can be written")
    directory = tree.mount / f"tracereplay-live-{os.getpid()}"
    directory.mkdir()
    yield directory
    directory.rmdir()


def in_group(group: Path) -> tuple[str, ...]:
    """Command: touch pages in a group below, which then vanishes."""
    script = (
        f"mkdir {group}/inner && echo $$ > {group}/inner/cgroup.procs && {sys.executable} {WORKLOADS} touch 5000; "
        f"sleep 1.5; echo $$ > {group.parent}/cgroup.procs && rmdir {group}/inner"
    )
    return ("sh", "-c", script)


def test_tasks_know_their_cgroup_even_when_it_is_gone(
    out: Path, group: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trace = run(out, CaptureOptions(page_map=False, command=in_group(group)))
    pid = int(capfd.readouterr().out)
    assert not (group / "inner").exists()
    tasks = trace.tasks.filter(pl.col("pid") == pid).collect()
    assert f"/{group.name}/inner" in tasks["cgroup"].to_list()
    init = trace.tasks.filter(pl.col("pid") == os.getpid()).collect()
    assert f"/{group.name}/inner" not in init["cgroup"].to_list()


def test_a_cgroup_filter_takes_the_group_and_what_is_below(
    out: Path, group: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trace = run(out, CaptureOptions(groups=("page",), cgroups=(f"/{group.name}",), command=in_group(group)))
    pid = int(capfd.readouterr().out)
    events = text(trace.page_events)
    assert len(events.filter((pl.col("pid") == pid) & (pl.col("kind") == "alloc"))) >= 5000
    makers = trace.tasks.filter(pl.col("pid") != 0).collect()
    below = makers.filter(pl.col("cgroup").str.starts_with(f"/{group.name}"))
    allocated_by = set(events.filter(pl.col("kind") == "alloc")["pid"])
    assert allocated_by <= set(below["pid"])


def test_an_unknown_cgroup_is_refused_before_anything_is_written(out: Path, group: Path, cli: list[str]) -> None:
    wrong = f"/{group.name[:-1]}"
    done = subprocess.run(
        [*cli, "capture", str(out), "--cgroup", wrong, "--duration", "1s"], capture_output=True, text=True
    )
    assert done.returncode == 4
    assert wrong in done.stderr
    assert f"/{group.name}" in done.stderr
    assert not out.exists()


def test_a_limit_on_overhead_sheds_in_order_and_frees_follow_their_allocations(out: Path) -> None:
    """A limit so low that it cannot be kept: all stages are gone through, and said."""
    options = CaptureOptions(
        groups=("page",), stacks=True, max_overhead=0.01, page_map=False, command=(sys.executable, FAULTS, "8")
    )
    trace = run(out, options)
    shed = text(trace.table("shed"))
    assert len(shed) >= 2
    assert shed["t0_ns"].to_list()[1:] == shed["t1_ns"].to_list()[:-1], "intervals meet"
    assert shed["t1_ns"][-1] is None
    order = [
        (0 if sample == 1 else sample, 0 if stacks == 0 else 1)
        for stacks, sample in shed.select("stacks", "sample").rows()
    ]
    assert order == sorted(order, key=lambda pair: (pair[0], -pair[1]))
    assert shed["sample"][-1] == 1024
    assert "cannot be kept" in shed["reason"][-1]
    assert (shed["overhead"] > 0.01).all()
    first = shed["t0_ns"][0]
    events = text(trace.page_events)
    before, after = events.filter(pl.col("ts_ns") < first), events.filter(pl.col("ts_ns") >= first)
    span = (after["ts_ns"].max() - first) / (first - before["ts_ns"].min())
    assert len(after) < len(before) * span / 2, "less is recorded"
    last = shed["t0_ns"].to_list()[-1]
    thin = events.filter((pl.col("ts_ns") >= last) & (pl.col("kind") == "alloc"))
    assert thin["stack_id"].null_count() == len(thin)
    unmatched = events.filter(pl.col("order") == 0).with_columns(before=pl.col("kind").shift(1).over("pfn"))
    unmatched = unmatched.filter((pl.col("kind") == "free") & (pl.col("ts_ns") >= first + 1_000_000))
    strays = unmatched.filter(pl.col("before").is_null() | (pl.col("before") == "free"))
    # Parts of larger blocks come without an allocation of their own; a page whose allocation was lost too.
    assert len(strays) <= len(unmatched) // 100
    assert sum((trace.loss_summary()["by_class"] or {}).values()) <= len(events) // 1000


def test_a_limit_on_the_rate_samples_whole_callers(out: Path) -> None:
    """So low a limit that the load exceeds it many times on any host."""
    limit = 5000.0
    command = (sys.executable, FAULTS, "10")
    trace = run(out, CaptureOptions(groups=("page",), max_rate=limit, page_map=False, command=command))
    shed = text(trace.table("shed"))
    assert len(shed) >= 1
    assert shed["stacks"].null_count() == len(shed), "no stacks were asked for"
    samples = shed["sample"].to_list()
    assert samples[0] > 1, "no stacks to shed: sampling comes first"
    assert max(samples) == 1024 or shed["rate"][-1] / samples[-1] <= 2 * limit
    first = shed["t0_ns"][0]
    allocs = text(trace.page_events).filter(pl.col("kind") == "alloc")
    pid = allocs["pid"].mode()[0]
    before, after = (
        allocs.filter(pl.col("pid") == pid, pl.col("ts_ns") < first),
        allocs.filter(pl.col("ts_ns") > first),
    )
    per_slice = after.filter(pl.col("pid") == pid).group_by(pl.col("ts_ns") // 2**27).len()
    slices = (trace.metadata.self_cost["duration_ns"] - (first - before["ts_ns"].min())) // 2**27
    assert len(per_slice) <= slices / 2, "most slices of its time are left out"
    # A slice that is recorded is recorded whole, not one event in so many.
    usual = sorted(before.group_by(pl.col("ts_ns") // 2**27).len()["len"].to_list())
    assert not len(per_slice) or max(per_slice["len"].to_list()) >= usual[len(usual) // 2] / 10


def test_nothing_is_shed_while_a_limit_is_kept(out: Path) -> None:
    command = (sys.executable, WORKLOADS, "touch", "2000")
    trace = run(out, CaptureOptions(stacks=True, max_rate=50_000_000.0, max_overhead=50.0, command=command))
    assert trace.table("shed").collect().height == 0
    assert trace.metadata.sampling["max_overhead"] == 50.0
