"""A strategy of one's own: how long it takes to compile with the machine on the disk, to start warm, and its speed.

Run: ``pytest tests/bench/bench_own_strategy.py -m bench -s``.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.broken_strategies import RIGHT
from tracereplay.demand.stream import OP
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.replay.engine import Engine
from tracereplay.replay.remote import RemoteEngine
from tracereplay.strategies.contract import Params
from tracereplay.strategies.registry import find_strategy, load_strategy
from tracereplay.testing import Demand

pytestmark = pytest.mark.bench

CONFIG = MachineConfig(zones=(ZoneConfig("Normal", 0, 1 << 20),), cpus=2, occupancy=0.0)
OPTIONS = {"frames": 1 << 22, "start_ns": 0, "end_ns": 10**9, "bins": 3}
REQUESTS = 8192
BATCH = 1 << 17
"""Records of a batch, as reconstruction makes them: whole requests."""
REPEATS = 5


def started(kind: type[Engine] | type[RemoteEngine], params: Params) -> tuple[float, Engine | RemoteEngine]:
    """Seconds until an engine has served nothing, and the engine."""
    begin = time.perf_counter()
    engine = kind(params, CONFIG, **OPTIONS)
    engine.feed(np.zeros(0, OP))
    return time.perf_counter() - begin, engine


def test_start_and_speed(tmp_path: Path) -> None:
    plain = load_strategy("per-page")()
    started(Engine, plain)
    path = tmp_path / "mine.py"
    path.write_text(RIGHT + f"\n# {time.time_ns()}: a text that nobody has compiled yet\n")
    own = find_strategy(f"{path}:Mine")()
    cold, _ = started(Engine, own)
    warm = min(started(RemoteEngine, own)[0] for _ in range(REPEATS))
    base = min(started(RemoteEngine, plain)[0] for _ in range(REPEATS))
    print(f"\ncompiling it, machine on the disk: {cold:.2f} s (at most 3)")
    print(
        f"start in a process of its own, warm: {warm:.2f} s, of which the strategy {warm - base:+.2f} s (at most 0.3)"
    )
    demand = Demand()
    for _ in range(REQUESTS):
        demand.free(demand.request(256))
    ops = demand.batch()
    times: dict[str, list[float]] = {"per-page": [], "own, here": [], "own, in its process": []}
    for _ in range(REPEATS):
        for name, kind, params in (
            ("per-page", Engine, plain),
            ("own, here", Engine, own),
            ("own, in its process", RemoteEngine, own),
        ):
            _, engine = started(kind, params)
            begin = time.perf_counter()
            for first in range(0, len(ops), BATCH):
                engine.feed(ops[first : first + BATCH])
            engine.finish()
            times[name].append(time.perf_counter() - begin)
    best = {name: min(seconds) for name, seconds in times.items()}
    for name, seconds in best.items():
        print(f"{name}: {len(ops) / seconds / 1e6:.1f} M/s, {best['per-page'] / seconds:.2f} of per-page (0.5)")
    assert all(seconds > 0 for seconds in best.values())
