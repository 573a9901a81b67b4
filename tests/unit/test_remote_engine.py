"""Strategies that are not ours, at full speed: what they do ends as a named error, and their counters are ours."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.broken_strategies import RIGHT, broken_file
from tracereplay.errors import StrategyError
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.replay import layout as at
from tracereplay.replay import remote
from tracereplay.replay.engine import Engine
from tracereplay.replay.remote import RemoteEngine
from tracereplay.strategies.contract import Params
from tracereplay.strategies.registry import find_strategy, load_strategy
from tracereplay.testing import Demand

CONFIG = MachineConfig(zones=(ZoneConfig("Normal", 0, 1 << 15),), cpus=2, occupancy=0.0)
OPTIONS = {"frames": 4096, "start_ns": 0, "end_ns": 10**6, "bins": 3}


def demand() -> Demand:
    made = Demand()
    for i in range(6):
        request = made.request(40 + i, cpu=i % 2)
        made.wait(1000)
        made.free(request, cpu=0)
    return made


def mine(directory: Path, change: tuple[str, str] | None = None) -> Params:
    path = directory / "mine.py"
    if change:
        path = broken_file(directory, change)
    else:
        path.write_text(RIGHT)
    return find_strategy(f"{path}:Mine")()


def served(engine: RemoteEngine) -> None:
    """Serve all of the demand."""
    engine.feed(demand().batch())
    engine.finish()


def test_it_counts_what_the_same_strategy_counts_here(tmp_path: Path) -> None:
    ops = demand().batch()
    away, here = RemoteEngine(mine(tmp_path), CONFIG, **OPTIONS), Engine(load_strategy("per-page")(), CONFIG, **OPTIONS)
    for engine in (away, here):
        for part in (ops[:46], ops[46:46], ops[46:]):
            engine.feed(part)
    ours, theirs = here.finish(), away.finish()
    assert np.array_equal(ours.totals, theirs.totals)
    assert np.array_equal(ours.series, theirs.series)
    assert np.array_equal(ours.scalars[at.X_START_NS : at.X_INIT], theirs.scalars[at.X_START_NS : at.X_INIT])


def test_a_batch_larger_than_the_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = demand().batch()
    plain = RemoteEngine(mine(tmp_path), CONFIG, **OPTIONS)
    plain.feed(ops)
    large = RemoteEngine(mine(tmp_path), CONFIG, **OPTIONS)
    monkeypatch.setattr(remote, "SLOT_BYTES", 64)
    large.feed(ops)
    monkeypatch.undo()
    assert np.array_equal(plain.finish().totals, large.finish().totals)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("    # done\n", "    st[pages + 17] = 1\n"), r"index outside of its array in .*mine\.py at request 1 "),
        (("    # done\n", "    raise ValueError\n"), "raised ValueError .* at request 1 "),
        (("    # release\n", "    return\n"), "keeps 255 pages that are neither in use nor declared"),
        (("    # done\n", "    out[2] = out[0]\n"), "freed frame"),
        (("    # done\n", "    ops.reserve_add(m, 1)\n"), "declares or gave 6 pages more"),
    ],
)
def test_misuse_is_named(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    engine = RemoteEngine(mine(tmp_path, change), CONFIG, **OPTIONS)
    with pytest.raises(StrategyError, match=says) as caught:
        served(engine)
    assert "'mine'" in caught.value.message


def test_a_loop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "STALL_S", 2.0)
    engine = RemoteEngine(
        mine(tmp_path, ("    # done\n", "    while st[0] > 0:\n        st[1] += 1\n")), CONFIG, **OPTIONS
    )
    with pytest.raises(StrategyError, match=r"did not come to an end within 2 s at request 1 "):
        served(engine)


def test_a_death_names_strategy_and_request(tmp_path: Path) -> None:
    engine = RemoteEngine(mine(tmp_path), CONFIG, **OPTIONS)
    engine.feed(demand().batch())
    engine._receive(60)
    engine._done += 1
    os.kill(engine._process.pid, signal.SIGKILL)
    with pytest.raises(StrategyError, match=r"strategy 'mine' died of SIGKILL at request 6 "):
        engine.finish()


def test_an_engine_that_is_dropped_leaves_no_process(tmp_path: Path) -> None:
    engine = RemoteEngine(mine(tmp_path), CONFIG, **OPTIONS)
    process = engine._process
    del engine
    assert process.poll() is not None
