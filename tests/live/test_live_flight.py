"""The flight recorder on this host: frozen by signals and by triggers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from tests.live.conftest import wait_for
from tests.live.test_live_crash import load, sound
from tests.live.test_live_ends import Capture
from tracereplay.trace.reader import Trace
from tracereplay.trace.snapshots import zones

__all__ = ["load"]
pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
FAILURE = [sys.executable, str(Path(__file__).with_name("kernel_memory_limit.py"))]


def phases(trace: Trace) -> dict[int, str]:
    """Time of each snapshot -> its phase."""
    frame = trace.snapshots.select("ts_ns", pl.col("phase").cast(pl.String)).unique().collect()
    return dict(frame.rows())


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT, signal.SIGTERM])
def test_a_signal_freezes_the_last_seconds(cli: list[str], out: Path, number: signal.Signals) -> None:
    capture = Capture(cli, out, "--ring", "1s", "--snapshot-every", "300ms", "--events", "page,bio,buddy")
    wait_for(lambda: Trace.open(out).metadata.source["flight"].get("dropped_files", 0) > 10, "dropped files")
    capture.process.send_signal(number)
    code, err = capture.end()
    assert code == 0, err
    why = "SIGUSR1" if number is signal.SIGUSR1 else "asked"
    assert f"({why})" in err
    trace = sound(cli, out, set())
    assert trace.complete
    facts = trace.metadata.source["flight"]
    assert facts["frozen_by"] == why
    assert facts["dropped_events"] > 0
    assert facts["kept_s"] >= 1.0
    (note,) = [n for n in trace.metadata.notes if "flight recorder" in n]
    assert f"frozen by {why}" in note
    # Events of the window only, of every event table.
    for table in ("page_events", "bio_events"):
        if (ends := trace.sort_range(table)) is not None:
            assert ends[0] >= facts["from_ns"]
    found = sorted(phases(trace).items())
    assert found[0][1] == "start"
    assert found[-1][1] == "end"
    # The first one inside the window; one from before only where none is inside.
    inside = [ts for ts, phase in found if ts >= facts["from_ns"] and phase != "end"]
    assert found[0][0] == min(inside, default=found[0][0])
    assert zones(trace)
    assert trace.rows("page_map") == 0
    seen = set(trace.page_events.select("pid").unique().collect()["pid"])
    assert seen <= set(trace.tasks.collect()["pid"])


def test_a_failed_allocation_freezes_with_its_aftermath(cli: list[str], out: Path) -> None:
    capture = Capture(cli, out, "--ring", "3s", "--freeze-on", "alloc_failed", "--freeze-after", "700ms")
    subprocess.run(FAILURE, check=True, capture_output=True)
    code, err = capture.end()
    assert code == 0, err
    assert "(alloc_failed at " in err
    assert "after the start" in err
    trace = sound(cli, out, set())
    facts = trace.metadata.source["flight"]
    assert facts["frozen_by"].startswith("alloc_failed at ")
    trigger = facts["trigger"]
    assert trigger["trigger"] == "alloc_failed"
    failed = trace.page_events.filter(pl.col("kind").cast(pl.String) == "alloc_failed").collect()
    assert failed["ts_ns"].min() == trigger["ts_ns"]
    assert facts["to_ns"] - trigger["ts_ns"] >= 700_000_000


def test_a_trigger_ends_a_capture_that_keeps_everything(cli: list[str], out: Path) -> None:
    command = [*cli, "capture", str(out), "--duration", "60s", "--freeze-on", "alloc_failed", "--freeze-after", "0s"]
    before = time.monotonic()
    done = subprocess.run([*command, "--", *FAILURE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - before < 60
    trace = Trace.open(out)
    assert trace.complete
    assert "flight" not in trace.metadata.source
    failed = trace.page_events.filter(pl.col("kind").cast(pl.String) == "alloc_failed").collect()
    assert failed.height > 0


def test_size_bounds_a_flight_recorder(cli: list[str], out: Path) -> None:
    load = [sys.executable, str(Path(__file__).parents[1] / "bench" / "page_fault_load.py"), "5"]
    done = subprocess.run(
        [*cli, "capture", str(out), "--ring", "10m", "--max-size", "2MiB", "--", *load],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trace = sound(cli, out, set())
    assert sum(f.stat().st_size for f in out.rglob("*.parquet")) <= 2 << 20
    assert trace.metadata.source["flight"]["dropped_events"] > 0
    assert trace.rows("page_events") > 100_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--freeze-on", "extfrag=10"], "group 'buddy', which is not recorded"),
        (["--freeze-on", "alloc_failed", "--events", "bio"], "group 'page', which is not recorded"),
        (["--freeze-on", "extfrag", "--events", "page,buddy"], "needs a rate"),
        (["--ring", "100ms"], "too short"),
        (["--max-size", "10"], "holds nothing"),
    ],
)
def test_options_that_make_no_sense_are_refused(cli: list[str], out: Path, options: list[str], message: str) -> None:
    done = subprocess.run([*cli, "capture", str(out), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert not out.exists()
