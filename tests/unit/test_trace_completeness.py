"""What a trace says of its own completeness, and that every verb which shows a number passes it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.trace_samples import metadata, page_batch, rows_batch, write_sample
from tracereplay import TraceWriter
from tracereplay.cli.app import app
from tracereplay.trace.completeness import Completeness, Shed, completeness
from tracereplay.trace.reader import Trace

SECOND = 1_000_000_000


def made(path: Path, *batches: tuple[str, pa.RecordBatch], **facts: Any) -> Trace:
    """A trace of 1,000 page events over 1 s, and what is given besides."""
    with TraceWriter(path, metadata(**facts)) as writer:
        writer.write("page_events", page_batch(1000))
        for table, batch in batches:
            writer.write(table, batch)
    return Trace.open(path)


def test_a_whole_trace(tmp_path: Path) -> None:
    found = completeness(made(tmp_path / "t"))
    assert found.whole
    assert found.remarks() == []
    assert found.line() == "1,000 events; none lost"
    assert found.events == {"page_events": 1000}


def test_losses_by_class(tmp_path: Path) -> None:
    found = completeness(Trace.open(write_sample(tmp_path / "t")))
    assert not found.whole
    assert (found.lost, found.loss_intervals, found.lost_by_class) == (3, 1, {"ring_full": 3})
    assert found.line() == "1,002 events; 3 lost in 1 interval (ring_full 3)"


def test_losses_that_nobody_counted(tmp_path: Path) -> None:
    rows = [
        {"t0_ns": 1, "t1_ns": 2, "table": "all", "class": "overwritten"},
        {"t0_ns": 1, "t1_ns": 2, "table": "all", "class": "unknown", "n": 4},
    ]
    found = completeness(made(tmp_path / "t", ("loss", rows_batch("loss", rows))))
    assert (found.lost, found.whole) == (None, False)
    assert "an unknown number lost in 2 intervals (overwritten)" in found.line()


def test_an_interrupted_capture(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t", metadata())
    writer.write("page_events", page_batch(1000))
    writer.abort()
    found = completeness(Trace.open(tmp_path / "t"))
    assert not found.whole
    assert "INCOMPLETE" in found.line()


def test_filters_sampled_stacks_and_events_that_the_kernel_lacks(tmp_path: Path) -> None:
    found = completeness(
        made(
            tmp_path / "t",
            filters={"comm": ["dd", "fio"], "gfp": 256},
            sampling={"stack_sample": 16, "max_rate": 1e6},
            notes=["not recorded: kmem:x: the kernel has no tracepoint kmem:x", "CPU 3 came online"],
        )
    )
    assert not found.whole
    assert found.left_out() == [
        "filtered by comm dd|fio, gfp 256",
        "stacks of 1 event in 16",
        "1 wanted event was not recorded",
    ]


def test_limits_alone_leave_nothing_out(tmp_path: Path) -> None:
    assert completeness(made(tmp_path / "t", sampling={"max_rate": 1e6, "stack_sample": 1})).whole


def test_shed_load_counts_within_the_events(tmp_path: Path) -> None:
    trace = made(tmp_path / "plain")
    ends = trace.sort_range("page_events")
    assert ends is not None
    begin, end = ends
    middle = (begin + end) // 2
    rows = [
        {"t0_ns": begin - SECOND, "t1_ns": begin + 1000, "stacks": 0, "sample": 1},
        {"t0_ns": middle, "t1_ns": None, "stacks": 0, "sample": 8},
    ]
    found = completeness(made(tmp_path / "shed", ("shed", rows_batch("shed", rows))))
    assert found.shed == Shed(2, (1000 + end - middle) / 1e9, 8)
    assert not found.whole
    assert "load shed for 0.0 s (1 caller in 8 at the worst)" in found.line()
    stacks_only = completeness(made(tmp_path / "stacks", ("shed", rows_batch("shed", rows[:1]))))
    assert stacks_only.whole  # of events: it is stacks that are missing
    assert "fewer stacks" in stacks_only.line()


def test_a_frozen_flight_recorder(tmp_path: Path) -> None:
    facts = {"kept_s": 600.04, "dropped_events": 12345, "frozen_by": "SIGUSR1", "window_s": 600}
    found = completeness(made(tmp_path / "t", source={"kind": "capture", "flight": facts}))
    assert not found.whole
    assert "flight recorder: the last 600.0 s of a longer run, 12,345 events dropped before" in found.line()
    short = completeness(made(tmp_path / "s", source={"kind": "capture", "flight": {"dropped_events": 0}}))
    assert short.whole


def test_pages_without_an_event(tmp_path: Path) -> None:
    found = completeness(made(tmp_path / "t", unseen={"unseen_pages": 10240, "noise_pages": 12, "intervals": {}}))
    assert found.line().endswith("; 10,240 pages without an event, give or take 12")
    assert found.to_json()["unseen"] == {"unseen_pages": 10240, "noise_pages": 12}
    unknown = completeness(made(tmp_path / "u", unseen={"unseen_pages": None, "reason": "no readings"}))
    assert unknown.line().endswith("; pages without an event: not known (no readings)")


def test_rejected_lines(tmp_path: Path) -> None:
    found = completeness(made(tmp_path / "t", rejected={"lines": 7, "samples": []}))
    assert not found.whole
    assert "7 input lines refused" in found.line()


def test_a_damaged_loss_table_is_said(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "t")
    file = next((path / "loss").iterdir())
    file.write_bytes(file.read_bytes()[:-20])
    found = completeness(Trace.open(path))
    assert (found.damaged, found.whole) == (("loss",), False)
    assert "table loss is damaged" in found.line()
    assert "none lost" not in found.line()


def test_the_text_fits_a_terminal() -> None:
    found = Completeness(
        {"page_events": 123_456_789_012, "bio_events": 1},
        finished=False,
        lost=123_456,
        loss_intervals=789,
        lost_by_class={"recursion": 3, "ring_full": 123_453},
        rejected=5,
        filters={"cgroup": ["/system.slice/a-rather-long-name-of-a-unit.service"], "order": [0, 9]},
        shed=Shed(3, 12.5, 1024),
        unseen={"unseen_pages": 1_000_000, "noise_pages": 2048},
    )
    for width in (80, 40):
        lines = found.text(width).splitlines()
        assert max(len(line) for line in lines if "/system.slice" not in line) <= width
        assert " ".join(line.strip() for line in lines) == f"completeness: {found.line()}"


VERBS: tuple[tuple[str, ...], ...] = (
    ("info",),
    ("validate",),
    ("query", "SELECT COUNT(*) AS n FROM page_events"),
    ("demand",),
    ("replay", "-s", "bulk"),
)


@pytest.fixture
def lacking(tmp_path: Path) -> Path:
    """A trace that lacks much."""
    return write_sample(tmp_path / "t", filters={"comm": ["dd"]})


@pytest.mark.parametrize(
    ("verb", "form"),
    [(verb, form) for verb in VERBS for form in ("table", "json", "csv") if (verb[0], form) != ("info", "csv")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_every_verb_with_numbers_says_it(lacking: Path, verb: tuple[str, ...], form: str) -> None:
    result = CliRunner().invoke(app, [verb[0], str(lacking), *verb[1:], "--format", form])
    assert result.exit_code == 0, result.stderr
    if form == "json" and verb[0] != "query":
        value = json.loads(result.stdout)
        told = value["trace"]["completeness"] if verb[0] == "replay" else value["completeness"]
        assert (told["lost"], told["whole"], told["filters"]) == (3, False, {"comm": ["dd"]})
        assert told["left_out"] == ["filtered by comm dd"]
    else:
        said = " ".join((result.stdout + result.stderr).split())
        assert "filtered by comm dd" in said
        assert "3 lost" in said or "lost: 3" in said
    if form == "csv":
        assert "completeness" not in result.stdout  # it is data, and stays what it was


def test_the_report_says_it(lacking: Path, tmp_path: Path) -> None:
    results = tmp_path / "r.json"
    assert CliRunner().invoke(app, ["replay", str(lacking), "-s", "bulk", "-o", str(results)]).exit_code == 0
    for number, source in enumerate((lacking, results)):
        page = tmp_path / f"{number}.html"
        result = CliRunner().invoke(app, ["report", str(source), "-o", str(page)])
        assert result.exit_code == 0, result.stderr
        text = page.read_text()
        assert "filtered by comm dd" in text
        assert "1,002 events; 3 lost in 1 interval" in text
