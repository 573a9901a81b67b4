"""When a replay starts where the trace's host did."""

from __future__ import annotations

from pathlib import Path

from tests.initial_samples import CPUS, recorded
from tracereplay.machine.from_trace import machine_of
from tracereplay.machine.options import machine_options
from tracereplay.replay.run import known_start
from tracereplay.trace.reader import Trace


def test_only_a_map_of_the_very_machine_is_used(tmp_path: Path) -> None:
    start, mapped, unmapped = recorded(5, tmp_path)
    trace = Trace.open(mapped)
    config = machine_of(trace, CPUS)
    state = known_start(trace, config)
    assert state is not None
    assert {(int(p), int(o)) for p, o, _ in state.blocks.tolist()} == start.free_blocks()
    assert known_start(Trace.open(unmapped), config) is None
    for option in ({"memory": "64MiB"}, {"occupancy": "0.3"}, {"fragmentation": "0.5"}, {"cma": "4MiB"}):
        assert known_start(trace, machine_options(config, option)) is None
    assert known_start(trace, machine_options(config, {"cpus": "4", "pcp.batch": "15"})) is not None
