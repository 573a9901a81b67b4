"""Replay loop and strategies against the slow ones: each request's counters, waste, time bins, and the machine."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.machine_samples import GFPS, MACHINES, marks
from tests.replay_samples import FACTS, Ops, compare, op, ops_of, random_stream, request, run_engine, run_slow
from tracereplay.demand.stream import ALLOC, FIRST, FREE, ON_PATH, REQUIRED, TARGETED, UNSEEN
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.counters import slot
from tracereplay.machine.layout import NO_QUOTA
from tracereplay.replay.engine import PathConfig

STRATEGIES = (
    ("per-page", {}),
    ("bulk", {}),
    ("bulk", {"batch_cap": "7"}),
    ("compound", {}),
    ("compound", {"sticky_order": "false", "max_order": "3", "account_large": "false"}),
    ("unmapped-cache", {}),
    ("unmapped-cache", {"zero": "always", "refill_order": "4", "per_node": "true"}),
    ("unmapped-cache", {"mode": "posted", "min_refill": "2"}),
    ("per-page", {"mutex": "false"}),
    ("bulk", {"form": "list", "two_pass": "true", "node_local_only": "false"}),
    ("bulk", {"form": "callback", "wmark_adds_count": "false", "fallback_single_page": "false", "batch_cap": "9"}),
    ("compound", {"retry_order": "2", "mutex": "false"}),
    ("mempool-bulk", {"pool_pages": "20"}),
    ("mempool-bulk", {"form": "array", "reserve_counted": "true", "quota_check": "per_page", "pop_lock_per_page": "0"}),
    ("mempool-bulk-atomic", {"pool_pages": "20"}),
    ("unmapped-migratetype", {}),
    ("unmapped-per-use", {"block_order": "7", "give_back": "block"}),
    ("unmapped-per-use", {"mode": "page"}),
)
PATH = PathConfig("dm-crypt", 16, 300, counter_batch=7)
"""A small reserve and quota, so that both run out; readers of the quota's counter are a little wrong."""
SLEEPING = PathConfig("blk-crypto", 16, NO_QUOTA, gfp=0xC00)
"""One pass that may sleep, and no quota."""
TICK_S = 2e-5
"""Between runs of the vmstat worker: streams are a few hundred microseconds long."""


def runs_on(strategy: str, generation: str) -> bool:
    """Whether a generation has what a strategy calls."""
    return "bulk" not in strategy or GENERATIONS[generation].has_bulk


def sample(name: str, number: int, *strategies: str) -> tuple[MachineConfig, Ops]:
    """A machine of some generation that the strategies run on, and a stream for it."""
    rng = random.Random(f"{name} {number}")
    generations = [g for g in GENERATIONS if all(runs_on(strategy, g) for strategy in strategies)]
    config = replace(MACHINES[name], generation=rng.choice(generations), vmstat_interval=TICK_S)
    return config, random_stream(rng, 2500, cpus=config.cpus, path=number % 2 == 1)


@pytest.mark.parametrize("third", range(3))
@pytest.mark.parametrize("number", range(len(STRATEGIES)))
@pytest.mark.parametrize("path", [None, PATH, SLEEPING], ids=["no path", "path", "sleeping path"])
def test_random_streams(third: int, number: int, path: PathConfig | None) -> None:
    """Each strategy on each kind of path on a third of the machines, another third on the next."""
    strategy, params = STRATEGIES[number]
    kind = (None, PATH, SLEEPING).index(path)
    name = list(MACHINES)[(3 * third + number + kind) % len(MACHINES)]
    config, ops = sample(name, 2 * number + (path is not None), strategy)
    outcome = run_engine(ops, config, strategy, params, path=path, batch=37)
    assert compare(outcome, run_slow(ops, config, strategy, params, path=path)) == []


def test_random_streams_meet_every_rule() -> None:
    facts: Counter[str] = Counter()
    counters: Counter[str] = Counter()
    for name in MACHINES:
        config, ops = sample(name, 1, "bulk")
        for strategy, params in STRATEGIES[::3]:
            done = run_slow(ops, config, strategy, params, path=PATH)
            facts += done.facts
            for request_ in done.ended + done.live:
                counters += request_.counters
    assert [fact for fact in FACTS if not facts[fact]] == []
    wanted = (
        "restarts",
        "quota_refusals",
        "mempool_takes",
        "mempool_puts",
        "mempool_waits",
        "cache_refills",
        "failures",
    )
    assert [name for name in wanted if not counters[name]] == []


@pytest.mark.parametrize(("interval", "drained"), [(1.0, True), (0.0, False)])
def test_time_gives_pages_back(interval: float, drained: bool) -> None:
    """Pages freed on a CPU stay on its lists until its vmstat worker runs, which needs an event of that CPU."""
    zone = ZoneConfig("Normal", 0, 1 << 15, watermarks=marks(120))
    config = MachineConfig(zones=(zone,), cpus=2, pcp_batch=63, vmstat_interval=interval)
    records = [op(ALLOC, key, flags=FIRST, pages=1) for key in range(600)]
    records += [op(FREE, key, ts=1000) for key in range(600)]
    other, own = (
        [op(ALLOC, key + i, cpu=cpu, flags=FIRST, pages=1, ts=(5 + i) * 10**9) for i in range(8)]
        for cpu, key in ((1, 600), (0, 700))
    )
    counts = []
    for more in ([], other, own):
        stream = ops_of(records + more)
        outcome = run_engine(stream, config, "per-page")
        assert compare(outcome, run_slow(stream, config, "per-page")) == []
        counts.append(int(outcome.background[slot("pcp_drain_pages")]))
    assert counts[0] == counts[1]
    assert (counts[2] > counts[1]) == drained


ORDERS = st.one_of(
    st.lists(st.just(0), min_size=1, max_size=70), st.lists(st.integers(0, 8), min_size=1, max_size=4), st.just([9])
)
FLAGS = st.sampled_from((0, TARGETED, TARGETED, TARGETED | REQUIRED, TARGETED | ON_PATH, UNSEEN))


@st.composite
def streams(draw: st.DrawFn) -> Ops:
    """Requests one after another; then, for each, its pages come back in pieces of any order, in any turn."""
    records = []
    pieces = []
    key = 0
    for flags in draw(st.lists(FLAGS, min_size=1, max_size=8)):
        orders = sorted(draw(ORDERS), reverse=True) if flags != UNSEEN else [0] * draw(st.integers(1, 30))
        key = -(-key // 1024) * 1024
        cpu = draw(st.integers(0, 3))
        records += request(key, orders, flags=flags, cpu=cpu, gfp=draw(st.sampled_from(GFPS)), ts=len(records))
        wide = draw(st.integers(0, 9))
        end = key + sum(1 << order for order in orders)
        while key < end:
            order = min(wide, (key & -key).bit_length() - 1 if key else 10, (end - key).bit_length() - 1)
            pieces.append((key, order))
            key += 1 << order
    for key, order in draw(st.permutations(pieces)) if len(pieces) < 100 else pieces:
        if draw(st.integers(0, 9)):
            records.append(op(FREE, key, order, cpu=draw(st.integers(0, 3)), ts=len(records)))
    return ops_of(records)


@settings(max_examples=150)
@given(
    ops=streams(),
    strategy=st.sampled_from(STRATEGIES),
    name=st.sampled_from(["one zone", "mixed types, ragged end", "two nodes"]),
    generation=st.sampled_from(list(GENERATIONS)),
    path=st.sampled_from([None, PATH, SLEEPING]),
)
def test_any_stream(
    ops: Ops, strategy: tuple[str, dict[str, str]], name: str, generation: str, path: PathConfig | None
) -> None:
    assume(runs_on(strategy[0], generation))
    config = replace(MACHINES[name], generation=generation, vmstat_interval=3e-8)
    outcome = run_engine(ops, config, *strategy, path=path, frames=10240, batch=11)
    assert compare(outcome, run_slow(ops, config, *strategy, path=path)) == []
