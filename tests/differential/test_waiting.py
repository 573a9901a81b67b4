"""Requests that wait, timers and the shrinker against the slow replay: counters, waits, frees that come later."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine_samples import MACHINES
from tests.replay_samples import Ops, compare, op, ops_of, random_stream, request, run_engine, run_slow
from tracereplay.demand.stream import FREE, ON_PATH, TARGETED
from tracereplay.replay import layout as at
from tracereplay.replay.engine import PathConfig

PATH = PathConfig("dm-crypt", 16, 300)


@pytest.mark.parametrize("mode", ["mutex", "no-mutex", "random"])
@pytest.mark.parametrize("number", range(4))
def test_random_streams_wait_alike(mode: str, number: int) -> None:
    rng = random.Random(f"{mode} {number}")
    name = rng.choice(list(MACHINES))
    config = replace(MACHINES[name], vmstat_interval=2e-5)
    ops = random_stream(rng, 1500, cpus=config.cpus, path=True)
    outcome = run_engine(ops, config, "waiting", {"mode": mode}, path=PATH, batch=rng.choice((1, 37, None)))
    slow = run_slow(ops, config, "waiting", {"mode": mode}, path=PATH)
    assert compare(outcome, slow) == []
    assert outcome.scalars[at.X_WAITED] + outcome.scalars[at.X_WAITING] > 0


@st.composite
def writers(draw: st.DrawFn) -> Ops:
    """Writers on some CPUs, whose pages are freed in any pieces, some while the writer waits; keys are used again."""
    records = []
    ts = 0
    live: list[tuple[int, int]] = []
    free = [16 * k for k in range(40)]
    for _ in range(draw(st.integers(2, 30))):
        ts += draw(st.sampled_from((0, 0, 1, 7, 400, 20_000)))
        cpu = draw(st.integers(0, 3))
        if live and (draw(st.booleans()) or not free):
            key, order = live.pop(draw(st.integers(0, len(live) - 1)))
            records.append(op(FREE, key, order, ts=ts, cpu=cpu))
            if key % 16 == 0 and not any(k // 16 == key // 16 for k, _ in live):
                free.append(key)
        else:
            key = free.pop()
            orders = draw(st.sampled_from(([0], [0, 0, 0], [1, 0], [2, 2], [3], [4], [0] * 12)))
            records += request(key, orders, flags=TARGETED | ON_PATH, cpu=cpu, gfp=0x92C00, ts=ts)
            whole = draw(st.booleans())
            for order in orders:
                pieces = [(key, order)] if whole else [(key + k, 0) for k in range(1 << order)]
                live += pieces
                key += 1 << order
    return ops_of(records)


@settings(max_examples=150)
@given(
    ops=writers(),
    mode=st.sampled_from(["mutex", "no-mutex", "random", "random"]),
    name=st.sampled_from(["one zone", "two nodes"]),
    reserve=st.integers(1, 24),
)
def test_any_writers_wait_alike(ops: Ops, mode: str, name: str, reserve: int) -> None:
    path = PathConfig("dm-crypt", reserve, 300)
    outcome = run_engine(ops, MACHINES[name], "waiting", {"mode": mode}, path=path, batch=3)
    assert compare(outcome, run_slow(ops, MACHINES[name], "waiting", {"mode": mode}, path=path)) == []
