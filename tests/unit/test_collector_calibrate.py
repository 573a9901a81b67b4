"""The measuring part without root: what it writes, what it refuses, what it decodes."""

from __future__ import annotations

import json
import os
import platform
import struct
import subprocess
import sys
from typing import Any

import pytest

from collectors import calibrate, calibrate_loads, calibrate_tape
from collectors.calibrate_loads import Loop
from collectors.calibrate_tape import EVENTS, Tape, source
from collectors.errors import CollectorError
from tracereplay.cost.calibrate.samples import read_samples
from tracereplay.trace.collector_files import collectors_directory


class Counting:
    """A load that counts its calls: getppid() in machine code, a method from Python."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self, key: int) -> int:
        self.calls += 1
        return key

    def system_call(self, key: int) -> tuple[int, ...]:
        return (110, key)


def test_the_loop_runs_in_machine_code_where_it_can() -> None:
    loop, load = Loop(), Counting()
    assert loop.tight == (platform.machine() == "x86_64")
    loop.repeat(load, 1, 50)  # type: ignore[arg-type]
    assert load.calls == (0 if loop.tight else 50)


def test_the_loop_falls_back_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    loop, load = Loop(), Counting()
    assert not loop.tight
    loop.repeat(load, 1, 50)  # type: ignore[arg-type]
    assert load.calls == 50


def test_every_event_has_a_program() -> None:
    text = source()
    for letter in EVENTS:
        assert f"int tr_tape_{letter}(" in text
    assert set(calibrate.WITH_PAGES) == set(EVENTS)
    assert max(len(f"tr_tape_{letter}") for letter in EVENTS) <= 15


def test_a_tape_is_read_as_it_was_written() -> None:
    tape = Tape.__new__(Tape)
    gates, records = bytearray(8 * 4), bytearray(16 * 8)
    tape._gates, tape._tape = gates, records  # type: ignore[assignment]
    tape.start(2)
    assert struct.unpack_from("=II", gates, 16) == (os.getpid(), 0)
    for i, (letter, order, page) in enumerate((("E", 0, 0), ("A", 3, 0x1234), ("F", 10, 0xFFFFFF))):
        struct.pack_into("=QQ", records, 16 * i, 1000 + 80 * i, ord(letter) << 56 | order << 48 | page)
    struct.pack_into("=II", gates, 16, os.getpid(), 3)
    assert tape.stop(2) == {"k": "EAF", "o": "03a", "t": [0, 80, 160], "p": [0, 0x1234, 0xFFFFFF]}
    assert struct.unpack_from("=II", gates, 16) == (0, 0)


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(calibrate, "available_mib", lambda: 100)
    monkeypatch.setattr(calibrate.bpfsys, "die_with_parent", lambda _n: None)
    assert calibrate.main(["--no-ebpf"]) == 4
    hello, done = lines_of(capsys)
    assert hello["why"] == done["error"] == "100 MiB of memory are available, 512 MiB are needed"


def test_a_load_that_is_refused_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    affinity = os.sched_getaffinity(0)

    def refuse(**_options: bool) -> None:
        raise calibrate_loads.LoadError("not here")

    monkeypatch.setattr(calibrate, "Splice", refuse)
    try:
        calibrate.Round(3, sorted(affinity), None).run_by_clock()
    finally:
        os.sched_setaffinity(0, affinity)
    refused = lines_of(capsys)
    assert [(r["type"], r["round"], r["work"], r["reason"]) for r in refused] == [
        ("refused", 3, "splice", "not here"),
        ("refused", 3, "zero", "not here"),
    ]


def test_without_bpf_it_goes_by_the_clock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> Tape:
        raise CollectorError("the kernel refuses bpf()")

    seen: list[Any] = []
    monkeypatch.setattr(calibrate, "Tape", refuse)
    monkeypatch.setattr(calibrate.bpfsys, "die_with_parent", lambda _n: None)
    monkeypatch.setattr(calibrate, "_child", lambda number, _cpus, tape: seen.append((number, tape)) or 1)
    assert calibrate.main(["--seconds", "5"]) == 0
    assert seen == [(0, None), (1, None), (2, None)]  # three rounds that fail are enough
    hello, done = lines_of(capsys)
    assert (hello["ebpf"], hello["why"]) == (False, "the kernel refuses bpf()")
    assert done["error"] == ""


def test_the_wall_clock_needs_no_rights() -> None:
    """The whole program, as a process: only what any user may do."""
    command = [sys.executable, "-EsB", str(collectors_directory()), "calibrate", "--no-ebpf", "--seconds", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    samples = read_samples(done.stdout.splitlines())
    assert len(samples.rounds) >= 3 or "splice" in samples.refused
    assert not samples.ebpf


def test_tape_bounds() -> None:
    # A round's largest recording fits: a ring, an event or two for each page and each refill.
    assert 2 * calibrate.CROSSING[1] < calibrate_tape.RECORDS
