"""Replays put down and taken up again, their counters on the way, and machines that get other settings as they run."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.machine_samples import MACHINES
from tests.replay_samples import Ops, params_of, random_stream, summary_of_engine
from tracereplay.demand.stream import ALLOC, FIRST
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig
from tracereplay.machine.counters import NR_COUNTERS
from tracereplay.machine.options import machine_options
from tracereplay.machine.retune import RETUNABLE, retune
from tracereplay.replay.charged import charged
from tracereplay.replay.checkpoint import restore, save, twin
from tracereplay.replay.engine import Engine, PathConfig
from tracereplay.replay.layout import X_WAITING

PATH = PathConfig("dm-crypt", 16, 300, counter_batch=7)
CASES = (
    ("per-page", None),
    ("per-page", PATH),
    ("bulk", PATH),
    ("compound", PATH),
    ("unmapped-cache", None),
    ("kvfree-cache", None),
    ("waiting", None),
)


def engine_of(strategy: str, config: MachineConfig, ops: Ops, path: PathConfig | None = None) -> Engine:
    """A strategy before the first operation."""
    end = int(ops["ts_ns"].max())
    return Engine(params_of(strategy, None), config, frames=4096, start_ns=0, end_ns=end, bins=6, path=path)


def some_cuts(ops: Ops, rng: random.Random) -> list[int]:
    """Places between two operations, the ends among them."""
    starts = np.flatnonzero((ops["kind"] != ALLOC) | (ops["flags"] & FIRST != 0)).tolist()
    return [0, *sorted(rng.sample(starts[1:], 5)), len(ops)]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_replay_goes_on_where_it_was_put_down(number: int) -> None:
    """From each checkpoint on, in an engine that did something else before, all comes out as without any."""
    strategy, path = CASES[number]
    rng = random.Random(number)
    config = replace(MACHINES[list(MACHINES)[number % len(MACHINES)]], generation="6.12", vmstat_interval=2e-5)
    ops = random_stream(rng, 2000, cpus=config.cpus, path=path is not None)
    cuts = some_cuts(ops, rng)
    engine = engine_of(strategy, config, ops, path)
    kept, seen = [], [charged(engine)]
    for first, last in pairwise(cuts):
        kept.append(save(engine))
        engine.feed(ops[first:last])
        seen.append(charged(engine))
    whole = engine.finish()
    assert (seen[0] == 0).all()
    assert (np.diff(seen, axis=0) >= 0).all()
    late = (whole.totals + whole.worker)[:NR_COUNTERS] - seen[-1]
    if not whole.scalars[X_WAITING] and strategy != "waiting":
        assert late.sum() == 0, "nothing is done after the last operation but what a strategy does at its end"
    other = twin(engine)
    restore(other, kept[-1])
    other.feed(ops[cuts[-2] :])
    for i in rng.sample(range(len(kept)), 3):
        restore(other, kept[i])
        assert (charged(other) == seen[i]).all()
        other.feed(ops[cuts[i] : cuts[i + 1]])
        assert (charged(other) == seen[i + 1]).all()
        other.feed(ops[cuts[i + 1] :])
        assert summary_of_engine(other.finish()) == summary_of_engine(whole)


VALUES = {
    "pcp.batch": "9",
    "pcp.high": "50",
    "pcp.scale_max": "2",
    "pcp_lock": "llist",
    "vmstat_interval": "0.5",
    "watermark_boost_factor": "0",
    "kswapd_rate": "7",
    "reclaim_pages": "5",
    "compaction_success": "0.5",
    "percpu_batch": "3",
    "init_on_alloc": "true",
    "llc_pages_per_cpu": "1",
    "min_free_kbytes": "512",
    "watermark_scale_factor": "100",
}


@pytest.mark.parametrize("generation", ["5.10", "6.1", "6.12"])
@pytest.mark.parametrize("key", RETUNABLE)
def test_a_new_machine_retuned_is_one_built_so(key: str, generation: str) -> None:
    """Before anything ran, other settings make the machine that they make from the start, to the word."""
    assert set(VALUES) == set(RETUNABLE)
    base = replace(next(iter(MACHINES.values())), generation=generation)
    wanted = machine_options(base, {key: VALUES[key]})
    machine = build_machine(base, quota=300, counter_batch=32 if generation != "5.10" else 0)
    batch = 3 if key == "percpu_batch" else int(machine.w[at.POOL_BATCH])
    retune(machine, wanted)
    same = build_machine(wanted, quota=300, counter_batch=batch)
    for mine, built in zip(machine[:3], same[:3], strict=True):
        assert np.array_equal(mine, built)


def test_retuned_lists_keep_their_pages_and_their_high_within_the_new_bounds() -> None:
    base = replace(next(iter(MACHINES.values())), generation="6.12")
    machine = build_machine(base)
    sets = machine.w[at.P_COUNT : at.P_COUNT + base.cpus * at.P_WORDS].reshape(-1, at.P_WORDS)
    sets[:, at.P_HIGH - at.P_COUNT] += 5
    sets[:, 0] = 17
    tuned = sets[:, at.P_HIGH - at.P_COUNT].copy()
    retune(machine, replace(base, watermark_boost_factor=0))
    assert (sets[:, at.P_HIGH - at.P_COUNT] == tuned).all()
    retune(machine, replace(base, pcp_high=60))
    assert (sets[:, at.P_HIGH - at.P_COUNT] == 60).all()
    assert (sets[:, 0] == 17).all()
