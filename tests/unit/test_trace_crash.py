"""A writer killed with SIGKILL at any instant leaves a bundle that opens, or none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.trace_samples import page_batch
from tracereplay import Trace
from tracereplay.errors import TraceNotFoundError
from tracereplay.trace.manifest import write_manifest
from tracereplay.trace.validate import validate_trace

BATCH = 2000
FILE = 3 * BATCH

# The child writes batch after batch and says after each how many rows it has handed over.
CHILD = textwrap.dedent(
    """
    import sys
    from tests.trace_samples import metadata, page_batch, snapshot
    from tracereplay import TraceWriter

    path, batch, file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    writer = TraceWriter(path, metadata(), rotate_rows=file, row_group_rows=batch)
    writer.write("snapshots", snapshot("6.1", 0, "start"))
    writer.rotate()
    print("ready", flush=True)
    for number in range(100_000):
        writer.write("page_events", page_batch(batch, seed=number, start_ns=number * 10**8))
        print(number + 1, flush=True)
    """
)


def kill_after(path: Path, lines: int, spin: int) -> int:
    """Run the child, kill it some instructions after it has printed ``lines`` lines; batches it reported."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(BATCH), str(FILE)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    reported = 0
    for _ in range(lines):
        line = child.stdout.readline()
        assert line, "the child died by itself"
        reported = 0 if line == "ready\n" else int(line)
    for _ in range(spin):  # lands the signal at another point of the next write
        pass
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read().split("\n")
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    done = [int(line) for line in rest[:-1] if line.isdigit()]
    return max([reported, *done])


@pytest.mark.parametrize("seed", range(8))
def test_killed_writer_loses_at_most_the_open_file(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "t"
    batches = kill_after(path, lines=rng.randint(1, 20), spin=rng.randint(0, 60_000))

    trace = Trace.open(path)
    assert not trace.complete
    assert trace.rows("snapshots") > 0
    kept = trace.rows("page_events")
    assert kept % FILE == 0
    assert batches * BATCH - kept <= FILE  # the file that was open
    # A file renamed after the last report is read too, listed or not.
    assert kept <= (batches + 1) * BATCH

    times = [t for b in trace.batches("page_events", ["ts_ns"]) for t in b.column(0).to_pylist()]
    expected = [
        t
        for number in range(kept // BATCH)
        for t in page_batch(BATCH, seed=number, start_ns=number * 10**8).column("ts_ns").to_pylist()
    ]
    assert times == expected
    assert trace.page_events.collect().height == kept

    report = validate_trace(trace)
    assert report.ok
    assert {f.code for f in report.findings} <= {"incomplete", "unfinished-file", "not-listed"}
    assert "incomplete" in {f.code for f in report.findings}


def test_a_file_renamed_but_not_listed_is_read(tmp_path: Path) -> None:
    """The instant between the rename of a data file and the new manifest."""
    path = tmp_path / "t"
    kill_after(path, lines=8, spin=0)
    before = Trace.open(path)
    listed = before.manifest.tables["page_events"]
    newest = listed[-1]
    # As if the manifest had not been replaced yet.
    before.manifest.tables["page_events"] = listed[:-1]
    write_manifest(path, before.manifest)
    after = Trace.open(path)
    assert after.rows("page_events") == sum(e.rows for e in listed)
    assert after.sort_range("page_events") == (listed[0].min, newest.max)
    findings = validate_trace(after).findings
    assert ("note", "not-listed", newest.file) in {(f.severity, f.code, f.where) for f in findings}


def test_before_the_first_write_there_is_no_trace(tmp_path: Path) -> None:
    """The instant between making the staging directory and its rename."""
    (tmp_path / ".t.12345678.tmp").mkdir()
    with pytest.raises(TraceNotFoundError):
        Trace.open(tmp_path / "t")
