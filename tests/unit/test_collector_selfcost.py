"""What a capture measures of itself, and what the other side tells on standard input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from collectors import bpfsys
from collectors.attendance import Attendance, StopRequest
from collectors.output import Output
from collectors.selfcost import WINDOW_NS, SelfCost


class Programs:
    """Run times of one program, as the kernel counts them while statistics are on."""

    def __init__(self) -> None:
        self.ns = 0
        self.runs = 0

    def ran(self, runs: int) -> None:
        self.ns += 100 * runs
        self.runs += runs

    def times(self) -> dict[str, tuple[int, int]]:
        return {"tr_x": (self.ns, self.runs)}


def statistics(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The kernel's switch: descriptors handed out."""
    given: list[int] = []

    def enable() -> int:
        given.append(os.open(tmp_path, os.O_RDONLY))
        return given[-1]

    monkeypatch.setattr(bpfsys, "enable_run_statistics", enable)
    return given


def test_the_statistics_are_switched_once_and_what_ran_before_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = statistics(monkeypatch, tmp_path)
    programs = Programs()
    cost = SelfCost(programs.times, always=False)
    cost.start()
    programs.ran(1000)
    cost.begin(10)
    programs.ran(50)
    cost.step(10 + WINDOW_NS - 1)
    programs.ran(50)
    cost.step(10 + WINDOW_NS)
    programs.ran(9999)  # somebody else keeps them on: not ours to count
    cost.step(10 + 5 * WINDOW_NS)
    told = cost.describe()
    assert told["programs"] == {"tr_x": {"run_time_ns": 10_000, "run_cnt": 100}}
    assert told["measured_ns"] == WINDOW_NS
    assert told["bpf_share"] == 10_000 / WINDOW_NS
    assert len(given) == 1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(given[0])


def test_a_kernel_that_does_not_count_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(bpfsys, "enable_run_statistics", refuse)
    cost = SelfCost(Programs().times, always=True)
    cost.start()
    cost.begin(1)
    cost.step(2)
    told = cost.describe()
    assert told["bpf_refused"] == "Operation not permitted"
    assert told["bpf_share"] is None
    cost.close()


def test_overhead_is_programs_and_writer_of_the_last_interval(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statistics(monkeypatch, tmp_path)
    programs = Programs()
    cost = SelfCost(programs.times, always=True)
    cost.start()
    cost.begin(1)
    monkeypatch.setattr(cost, "_cpu", lambda: cost.writer_seconds)
    cost.look(10**12)
    programs.ran(1_000_000)  # 0.1 s
    cost.writer_seconds = 0.3
    assert cost.look(10**12 + 10**9) == pytest.approx(0.4)
    assert cost.look(10**12 + 2 * 10**9) == 0.0
    cost.close()


def test_lines_tell_the_writers_cpu_and_the_end_asks_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    ours = os.dup(0)
    os.dup2(read, 0)
    out_read, out_write = os.pipe()
    try:
        stop = StopRequest()
        there = Attendance(Output(out_write), stop, attended=True)
        for text, seconds in ((b"cost 0.5\nco", 0.5), (b"st 1.25\nalive\nwhat is this\ncost x\n", 1.25)):
            os.write(write, text)
            there.wait(10_000_000)
            assert (there.writer_seconds, stop.reason) == (seconds, None)
        os.close(write)
        there.wait(10_000_000)
        assert stop.reason == "asked"
    finally:
        os.dup2(ours, 0)
        for fd in (ours, read, out_read, out_write):
            os.close(fd)
