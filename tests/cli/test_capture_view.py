"""The live view of a capture: what it draws at 80 and at 40 columns, and what it does to a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from tests.trace_samples import page_batch
from tracereplay.cli.capture_view import CaptureView, Plan, draw, view_of
from tracereplay.kernel.kallsyms import KernelSymbols
from tracereplay.trace.capture import CaptureOptions
from tracereplay.trace.progress import LiveTally, Progress, counted_kinds
from tracereplay.trace.stacks import StackTable

PLAN = Plan("web.trace", 30.0, ("keeps the last 600 s",))
BEFORE = Progress(
    11.0,
    2_000_000,
    0,
    kinds={"alloc": 1_000_000, "free": 1_000_000},
    cost={"cpu_seconds": 1.0, "bpf_share": 0.05},
    writer_cpu_s=2.0,
)
STATE = Progress(
    12.0,
    3_012_340,
    37,
    kinds={"alloc": 1_512_340, "free": 1_500_000, "queue": 12},
    lost_by_class={"ring_full": 30, "recursion": 7},
    bytes_written=9_123_456,
    cost={
        "cpu_seconds": 1.031,
        "bpf_share": 0.0812,
        "ring_fill": {"page": 0.031, "bio": 0.0},
        "ring_high_water_bytes": {"page": 2 << 20, "bio": 0},
    },
    writer_cpu_s=2.109,
    ring_bytes={"page": 16 << 20, "bio": 4 << 20},
    shed={"stage": 3, "stacks": 0, "sample": 8, "reason": "overhead"},
)
SYMBOLS = KernelSymbols(
    b"0000000000001000 T bpf_trace_run4\n"
    b"0000000000002000 T __alloc_pages_noprof\n"
    b"0000000000003000 t alloc_pages_mpol\n"
    b"0000000000004000 t do_anonymous_page\t[mm]\n"
    b"0000000000005000 D some_data\n"
    b"0000000000006000 T pipe_write\n"
)


def test_at_80_columns() -> None:
    assert draw(STATE, BEFORE, PLAN, width=80) == [
        "web.trace  12 of 30 s, 18 to go  9.1 MB written  keeps the last 600 s",
        "LOST 37 (recursion 7, ring_full 30)",
        "",
        "event      per second           total",
        "alloc         512,340       1,512,340",
        "free          500,000       1,500,000",
        "queue              12              12",
        "all         1,012,352       3,012,340",
        "",
        "rings     page 3.1 % (highest 12 %)",
        "own cost  collector 3.1 %, BPF programs 8.1 %, writer 11 %, of one core",
        "left out  all but 1 caller in 8, (overhead)",
    ]


def test_at_40_columns() -> None:
    lines = draw(STATE, BEFORE, PLAN, width=40)
    assert max(map(len, lines)) <= 40
    assert lines[:3] == [
        "web.trace  12 of 30 s, 18 to go",
        "9.1 MB written  keeps the last 600 s",
        "LOST 37 (recursion 7, ring_full 30)",
    ]
    text = "\n".join(lines)
    for part in ("512,340", "page 3.1 % (highest 12 %)", "collector 3.1 %", "BPF programs 8.1 %", "writer 11 %"):
        assert part in text


@pytest.mark.parametrize("width", [24, 31, 40, 60, 80, 200])
@pytest.mark.parametrize("height", [3, 10, 24])
def test_it_fits_every_terminal(width: int, height: int) -> None:
    kinds = {f"a_rather_long_kind_{i}": 10**i for i in range(14)}
    stacks = tuple(((0x4010 + i, 0xFFFFFFFF81000000), 10**9) for i in range(8))
    state = replace(STATE, kinds=kinds, events=10**14, stacks=stacks, lost_by_class={f"class_{i}": i for i in range(9)})
    for symbols in (None, SYMBOLS):
        lines = draw(state, BEFORE, PLAN, symbols, width=width, height=height)
        assert max(map(len, lines)) <= max(width, 24)
        assert len(lines) <= height


def test_the_first_drawing_has_rates_since_the_start() -> None:
    lines = draw(BEFORE, None, Plan("t"), width=80)
    assert lines[0] == "t  11 s  0 B written"
    assert lines[1] == "none lost"
    assert "all           181,818       2,000,000" in lines
    assert not any("collector" in line for line in lines)  # nothing to take a difference from


def test_without_anything() -> None:
    lines = draw(Progress(0.0, 0, 0), None, Plan("t"), width=80)
    assert lines[-1] == ""
    assert "all" in lines[-2]


def test_stacks_left_out() -> None:
    shed = {"stage": 1, "stacks": 16, "sample": 1, "reason": "rate"}
    assert "left out  all but 1 stack in 16, (rate)" in draw(replace(STATE, shed=shed), BEFORE, PLAN)
    shed["stacks"] = 0
    assert "left out  all stacks, (rate)" in draw(replace(STATE, shed=shed), BEFORE, PLAN)


def test_callers_by_name() -> None:
    stacks = (
        ((0x1010, 0x2010, 0x3010, 0x4010, 0x9), 600),
        ((0x1010, 0x2010, 0x6010), 50),
        ((0x1010, 0x2010, 0x3010, 0x4020), 7),
        ((0x1010, 0x2010), 1),  # nothing but the allocator
    )
    lines = draw(replace(STATE, stacks=stacks), BEFORE, PLAN, SYMBOLS)
    at = lines.index("        pages  allocated by")
    assert [line.split() for line in lines[at + 1 :]] == [
        ["607", "do_anonymous_page"],
        ["50", "pipe_write"],
        ["1", "__alloc_pages_noprof"],
    ]


def test_callers_by_address_where_names_are_not_to_be_had() -> None:
    stacks = (((0x1010, 0x2010, 0x4010, 0x7), 600), ((0x1010, 0x2010, 0x6010), 50))
    hidden = KernelSymbols(b"0000000000000000 T bpf_trace_run4\n0000000000000000 T x\n")
    assert len(hidden) == 0
    for symbols in (None, hidden):
        text = "\n".join(draw(replace(STATE, stacks=stacks), BEFORE, PLAN, symbols))
        assert "0x4010" in text
        assert "0x6010" in text
        assert "0x1010" not in text  # the innermost frames that all have in common say nothing


def test_names_of_addresses() -> None:
    assert SYMBOLS.name(0x1000) is None  # a return address is behind its call
    assert SYMBOLS.name(0x1001) == "bpf_trace_run4"
    assert SYMBOLS.name(0x2000) == "bpf_trace_run4"
    assert SYMBOLS.name(0x5010) == "do_anonymous_page"  # data are no functions
    assert SYMBOLS.name(0x6000 + (1 << 21)) is None
    assert KernelSymbols.of_this_host(Path("/nonexistent")).name(0x1000) is None


# ------------------------------------------------------------ what is counted
def test_the_tally_counts_what_goes_by() -> None:
    told: list[Progress] = []
    tally = LiveTally(told.append)
    tally.add("page_events", page_batch(1000))
    tally.add("page_events", page_batch(500, seed=1))
    tally.shed_change({"stage": 2, "sample": 2})
    facts: dict[str, Any] = {"cost": {}, "lost_by_class": {}, "bytes_written": 5, "writer_cpu_s": 0.5, "stacks": None}
    tally.tell(1.0, [{"seen": 1500, "lost": 2}, {"seen": 0, "lost": 1}], **facts)
    batches = [page_batch(1000), page_batch(500, seed=1)]
    kinds = [k for batch in batches for k in batch.column("kind").to_pylist()]
    assert told[0].kinds == {kind: kinds.count(kind) for kind in ("alloc", "free")}
    assert (told[0].events, told[0].lost, told[0].shed) == (1500, 3, {"stage": 2, "sample": 2})
    tally.shed_change({"stage": 0, "sample": 1})
    tally.tell(2.0, [], **facts)
    assert told[1].shed is None


def test_the_tally_sums_pages_by_stack() -> None:
    batch = page_batch(4000)
    rng = np.random.default_rng(7)
    allocated = np.array(batch.column("kind").to_pylist()) == "alloc"
    ids = rng.integers(0, 3, 4000).astype(np.uint32)
    missing = ~allocated | (rng.random(4000) < 0.1)
    batch = batch.append_column("stack_id", pa.array(ids, mask=missing))
    table = StackTable()
    for key, frames in ((11, (1, 2)), (12, (3,)), (13, (4, 5, 6))):
        numbers, _ = table.ids(np.array([key], np.uint64))
        table._frames[int(numbers[0])] = np.array(frames, np.uint64).tobytes()
    told: list[Progress] = []
    tally = LiveTally(told.append)
    tally.add("page_events", batch)
    tally.tell(1.0, [], stacks=table, cost={}, lost_by_class={}, bytes_written=0, writer_cpu_s=0.0)
    pages = 1 << batch.column("order").to_numpy().astype(np.int64)
    expected = {f: int(pages[~missing & (ids == i)].sum()) for i, f in enumerate([(1, 2), (3,), (4, 5, 6)])}
    assert dict(told[0].stacks) == expected
    assert [n for _, n in told[0].stacks] == sorted(expected.values(), reverse=True)


def test_kinds_from_the_kernels_counters() -> None:
    probes = [{"kind": "alloc"}, {"kind": "free"}, {"kind": "free"}]
    lane = {"seq": 100, "full": 10, "lock": 1, "no_ring": 2, "shed": 50}
    counters = {"page": {"0": {"0": lane, "1": lane}, "1": {"2": lane}}, "task": {"0": {"0": lane}}}
    assert counted_kinds(counters, probes) == {"alloc": 87, "free": 174}


# ------------------------------------------------------------ on a terminal
def terminal(width: int = 80) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=width, height=24, color_system=None, _environ={}), file


def test_it_draws_and_leaves_the_terminal_clean() -> None:
    console, file = terminal()
    view = CaptureView(PLAN, console)
    view.show(BEFORE)
    assert "\x1b[?25l" in file.getvalue()  # no cursor blinks over the numbers
    view.show(STATE)
    assert "512,340" in file.getvalue()
    before_close = len(file.getvalue())
    view.close()
    view.close()
    end = file.getvalue()[before_close:]
    assert "\x1b[?25h" in end
    assert end.count("\x1b[2K") >= 10  # every line is erased


def test_no_terminal_no_words() -> None:
    file = io.StringIO()
    view = CaptureView(PLAN, Console(file=file, _environ={}))
    view.show(BEFORE)
    view.close()
    assert not view.shown
    assert file.getvalue() == ""


def test_no_view_without_a_terminal_or_beside_a_command(tmp_path: Path) -> None:
    assert view_of(tmp_path / "t", CaptureOptions()) is None
    script = (
        "import sys; from pathlib import Path; from tracereplay.cli.capture_view import view_of;"
        "from tracereplay.trace.capture import CaptureOptions as O;"
        "print([view_of(Path('t'), o) is None for o in (O(), O(command=('make',)))])"
    )
    main, other = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=other,
            env={**os.environ, "TERM": "xterm"},
            check=True,
        )
    finally:
        os.close(main)
        os.close(other)
    assert json.loads(done.stdout.decode().lower()) == [False, True]
