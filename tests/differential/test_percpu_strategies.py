"""Strategies with caches per CPU against the slow ones: each request's counters, the workers', the machine."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine_samples import GFPS, MACHINES
from tests.reference.machine_check import check_machine
from tests.replay_samples import Ops, compare, op, ops_of, random_stream, request, run_engine, run_slow
from tracereplay.demand.stream import FREE, TARGETED
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.replay.engine import PathConfig

SOON = {"scheduler_min": "1", "scheduler_max": "20"}
"""Workers that run while a stream of two milliseconds goes on."""
STRATEGIES = (
    ("kvfree-cache", SOON),
    ("kvfree-cache", SOON | {"cached": "40", "backoff": "0", "form": "one_arg", "scheduler_min": "20"}),
    ("kvfree-cache", SOON | {"cached": "30", "backoff": "1", "backoff_target": "7"}),
    ("background-pool", SOON | {"idle": "1", "inhibit": "0"}),
    (
        "background-pool",
        SOON | {"idle": "1", "inhibit": "1", "on_empty": "allocate", "most": "60", "worker_delay": "3"},
    ),
    ("background-pool", SOON | {"prefill": "false", "low": "3", "high": "9", "base": "11", "idle": "1"}),
    ("rcu-lockless", SOON),
    ("rcu-lockless", SOON | {"types": "own", "refill_worker": "false"}),
    ("rcu-lockless", SOON | {"watermark": "true", "cached": "20"}),
    ("page-pool", {}),
    ("page-pool", {"cache": "20", "refill": "9", "ring": "30"}),
    ("page-pool", {"cache": "5", "refill": "9", "ring": "0", "numa_match": "false"}),
)
PATH = PathConfig("dm-crypt", 16, 300)
"""A path has no meaning for them: its reserve stays as it is."""


def generations(strategy: str) -> list[str]:
    """Generations that a strategy runs on."""
    return [name for name, facts in GENERATIONS.items() if strategy != "page-pool" or facts.has_bulk]


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("number", range(len(STRATEGIES)))
def test_random_streams(name: str, number: int) -> None:
    strategy, params = STRATEGIES[number]
    rng = random.Random(f"{name} {number}")
    config = replace(MACHINES[name], generation=rng.choice(generations(strategy)), vmstat_interval=2e-5, seed=number)
    ops = random_stream(rng, 2000, cpus=config.cpus, path=number % 2 == 1)
    path = PATH if number % 2 else None
    outcome = run_engine(ops, config, strategy, params, path=path, batch=37)
    assert compare(outcome, run_slow(ops, config, strategy, params, path=path)) == []
    check_machine(outcome.machine)


def test_random_streams_meet_every_rule() -> None:
    counters: dict[str, Counter[str]] = {}
    for number, (strategy, params) in enumerate(STRATEGIES):
        config = replace(MACHINES["mixed types, ragged end"], seed=number)
        ops = random_stream(random.Random(number), 2000, cpus=config.cpus)
        done = run_slow(ops, config, strategy, params)
        found = counters.setdefault(strategy, Counter())
        found += done.worker
        for request_ in done.ended + done.live:
            found += request_.counters
    both = {"cache_hits", "cache_misses", "cache_refills"}
    workers = both | {"worker_wakeups", "worker_runs", "failures"}
    wanted = {
        "kvfree-cache": workers | {"cache_puts", "free_calls"},
        "background-pool": workers | {"cache_puts", "free_calls"},
        "rcu-lockless": workers | {"free_calls"},
        "page-pool": both - {"cache_hits"}
        | {"unlocked_hits", "unlocked_puts", "cache_puts", "free_calls", "bulk_calls"},
    }
    assert [(name, missing) for name, found in counters.items() if (missing := wanted[name] - set(found))] == []


@st.composite
def short_requests(draw: st.DrawFn) -> Ops:
    """Requests of few pages on three CPUs, pages freed on any of them, and time that goes by or does not."""
    records = []
    ts = 0
    live: list[int] = []
    for k in range(draw(st.integers(1, 40))):
        ts += draw(st.sampled_from((0, 0, 100, 3000, 20_000, 1_500_000)))
        cpu = draw(st.integers(0, 2))
        if live and draw(st.booleans()):
            records += [op(FREE, key, ts=ts, cpu=cpu) for key in live[:9]]
            live = live[9:]
        else:
            pages = draw(st.sampled_from((1, 1, 1, 2, 5, 33)))
            records += request(64 * k, [0] * pages, flags=TARGETED, cpu=cpu, gfp=draw(st.sampled_from(GFPS)), ts=ts)
            live += range(64 * k, 64 * k + pages)
    return ops_of(records)


@settings(max_examples=200)
@given(
    ops=short_requests(),
    strategy=st.sampled_from(STRATEGIES),
    name=st.sampled_from(["one zone", "mixed types, ragged end", "two nodes"]),
    generation=st.sampled_from(["5.14", "6.1", "6.12", "6.19"]),
)
def test_any_requests(ops: Ops, strategy: tuple[str, dict[str, str]], name: str, generation: str) -> None:
    config = replace(MACHINES[name], generation=generation)
    outcome = run_engine(ops, config, *strategy, batch=5)
    assert compare(outcome, run_slow(ops, config, *strategy)) == []
