"""Filters in the kernel, on workloads whose events are known: what is wanted is there whole, nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tracereplay.errors import CaptureError
from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.reader import Trace
from tracereplay.trace.validate import validate_trace

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
WORKLOADS = str(Path(__file__).with_name("workloads.py"))
PAGES = 3000


def record(out: Path, *command: str, groups: tuple[str, ...] = ("page",), **filters: object) -> Trace:
    """A capture while a command runs; the trace is sound."""
    options = CaptureOptions(groups=groups, command=command, page_map=False, **filters)  # type: ignore[arg-type]
    summary = capture(out, options)
    assert summary.command_status == 0
    trace = Trace.open(summary.path)
    assert validate_trace(trace).ok
    return trace


def touch(*before: str) -> list[str]:
    """A task that touches PAGES fresh pages and ends."""
    return [*before, sys.executable, WORKLOADS, "touch", str(PAGES)]


def pages(trace: Trace, kind: str) -> pl.DataFrame:
    return trace.page_events.filter(pl.col("kind").cast(pl.String) == kind).collect()


def named(folder: Path, comm: str) -> str:
    """This Python under another name, which becomes its task's name."""
    link = folder / comm
    link.symlink_to(Path(sys.executable).resolve())
    return str(link)


def test_a_task_is_recorded_with_the_frees_of_its_pages_whoever_frees_them(tmp_path: Path, out: Path) -> None:
    python = named(tmp_path, "wanted-task")
    trace = record(out, python, WORKLOADS, "touch", str(PAGES), comms=("wanted-task", "nobody"))
    allocated, freed = pages(trace, "alloc"), pages(trace, "free")
    wanted = trace.tasks.filter(pl.col("comm") == "wanted-task").collect()["pid"]
    assert set(allocated["pid"]) <= set(wanted)
    assert len(allocated) >= PAGES
    assert trace.metadata.filters == {"comm": ["wanted-task", "nobody"]}
    # Its anonymous pages are freed in its own exit or in a kernel task's; all but a few are.
    followed = freed.filter(pl.col("pfn").is_in(allocated["pfn"].implode()))
    assert len(followed) >= PAGES
    strangers = freed.filter(~pl.col("pfn").is_in(allocated["pfn"].implode()))
    assert set(strangers["pid"]) <= set(wanted)


def test_a_process_and_its_threads_by_tgid(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The filter must be known before the task is: a shell tells its pid by becoming the workload."""
    with subprocess.Popen(["sh", "-c", f"read line; exec {' '.join(touch())}"], stdin=subprocess.PIPE) as task:
        assert task.stdin is not None
        gone = f"while grep -q 'State:.[RSD]' /proc/{task.pid}/status; do sleep 0.02; done"
        teller = ["sh", "-c", f"echo go > /proc/{task.pid}/fd/0; {gone}"]
        trace = record(out, *teller, tgids=(task.pid,))
        task.stdin.close()
    allocated = pages(trace, "alloc")
    assert len(allocated) >= PAGES
    assert set(allocated["pid"]) == {task.pid}
    assert trace.tasks.collect()["tgid"].unique().drop_nulls().to_list() == [0, task.pid]
    capfd.readouterr()


def test_orders_and_gfp_bits(out: Path, tmp_path: Path) -> None:
    trace = record(out, *touch(), orders=(0,), gfp=0x100)
    events = trace.page_events.collect()
    assert set(events["order"]) == {0}
    allocated = pages(trace, "alloc")
    assert len(allocated) >= PAGES
    assert (allocated["gfp"] & 0x100 == 0x100).all()
    freed = pages(trace, "free")
    assert set(freed["pfn"]) <= set(allocated["pfn"])  # a free has no mask: only followed pages
    other = record(tmp_path / "large", *touch(), min_bytes=16384)
    assert (other.page_events.collect()["order"] >= 2).all()


def write_directly(path: Path, mib: int) -> list[str]:
    return ["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={mib}", "oflag=direct", "status=none"]


def test_bios_of_a_task_are_followed_to_their_completion(tmp_path: Path, out: Path) -> None:
    trace = record(out, *write_directly(tmp_path / "file", 8), groups=("bio",), comms=("dd",))
    events = trace.bio_events.with_columns(pl.col("kind").cast(pl.String)).collect()
    kinds = dict(events.group_by("kind").len().rows())
    mine = trace.tasks.filter(pl.col("comm") == "dd").collect()["pid"]
    assert set(events.filter(pl.col("kind") == "queue")["pid"]) <= set(mine)
    queued = events.filter((pl.col("kind") == "queue") & (pl.col("op") == "W"))
    done = events.filter(pl.col("kind").is_in(["complete", "bio_complete"]) & (pl.col("op") == "W"))
    assert queued["nr_sectors"].sum() >= 8 << 11
    assert kinds["issue"] > 0
    assert set(done["sector"]) >= set(queued["sector"])


def test_a_device_and_a_size(tmp_path: Path, out: Path) -> None:
    number = tmp_path.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    writer = write_directly(tmp_path / "file", 4)
    seen = record(out, *writer, groups=("bio",), devices=(name,), min_bytes=65536).bio_events.collect()
    assert seen.filter(pl.col("op") == "W")["nr_sectors"].sum() >= 4 << 11
    assert seen.filter(pl.col("kind").cast(pl.String) == "queue")["nr_sectors"].min() >= 128  # type: ignore[operator]
    none = record(tmp_path / "none", *writer, groups=("bio",), devices=("1000:7",))
    assert none.rows("bio_events") == 0


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A control group of our own, below a cgroup2 mount of the host or one made for the test."""
    mounted = [
        line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line
    ]
    root = Path(mounted[0]) if mounted else tmp_path / "cgroup2"
    if not mounted:
        root.mkdir()
        subprocess.run(["mount", "-t", "cgroup2", "none", str(root)], check=True)
    made = root / f"tracereplay-test-{os.getpid()}" / "inner"
    made.mkdir(parents=True)
    yield made
    made.rmdir()
    made.parent.rmdir()
    if not mounted:
        subprocess.run(["umount", str(root)], check=True)


def test_a_control_group_counts_with_its_descendants(group: Path, out: Path) -> None:
    shell = f"echo $$ > {group}/cgroup.procs; exec {' '.join(touch())}"
    trace = record(out, "sh", "-c", shell, cgroups=("/" + group.parent.name,))
    allocated = pages(trace, "alloc")
    assert len(allocated) >= PAGES
    tasks = trace.tasks.filter(pl.col("pid") > 0).collect()
    assert set(tasks["cgroup"]) == {f"/{group.parent.name}/inner"}
    assert set(allocated["pid"]) <= set(tasks["pid"])


@pytest.mark.parametrize(
    ("filters", "words"),
    [({"devices": ("nosuchdisk",)}, "nosuchdisk"), ({"cgroups": ("/no/such/group",)}, "/no/such/group")],
)
def test_a_filter_that_names_nothing_is_refused_before_anything_runs(
    out: Path, filters: dict[str, tuple[str, ...]], words: str
) -> None:
    with pytest.raises(CaptureError, match=words):
        capture(out, CaptureOptions(duration_s=0.2, **filters))  # type: ignore[arg-type]
    assert not out.exists()
