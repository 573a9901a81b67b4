"""The engine around the loop: totals, time bins, tables that grow, constant memory, strategies that misbehave."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest

from tests.faulty_strategy import Faulty
from tests.machine_samples import MACHINES
from tests.reference.machine_check import check_machine
from tests.reference.machine_driver import counters_of, picture_of_compiled
from tests.replay_samples import op, ops_of, random_stream, request, run_engine, summary_of_engine, vectors_of
from tracereplay.demand.stream import ALLOC, FREE, FREE_INITIAL, ON_PATH, OP, REQUIRED, TARGETED
from tracereplay.errors import StrategyError
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.counters import COUNTERS, NR_COUNTERS, slot
from tracereplay.machine.layout import DM_TABLES
from tracereplay.replay import layout as at
from tracereplay.replay.engine import Engine, Outcome, PathConfig
from tracereplay.strategies.contract import Params
from tracereplay.strategies.registry import load_strategy

SURE = ("per-page", "bulk", "compound", "unmapped-cache", "page-pool")
"""Strategies that serve every request while there is memory."""
NAMES = (*SURE, "background-pool", "kvfree-cache", "rcu-lockless")
PATH = PathConfig("dm-crypt", 16, 300)


def roomy(cpus: int = 1) -> MachineConfig:
    """1 GiB, all free."""
    return MachineConfig(zones=(ZoneConfig("Normal", 0, 1 << 18),), cpus=cpus, occupancy=0.0)


def engine(name: str = "per-page", *, frames: int = 1 << 17, end_ns: int = 999, bins: int = 10) -> Engine:
    return Engine(load_strategy(name)(), roomy(), frames=frames, start_ns=0, end_ns=end_ns, bins=bins)


def of(outcome: Outcome, name: str) -> int:
    return int(outcome.totals[slot(name)])


# ---------------------------------------------------------------- totals
@pytest.mark.parametrize("name", NAMES)
def test_vectors_and_bins_add_up_to_the_totals(name: str) -> None:
    config = MACHINES["one zone"]
    ops = random_stream(random.Random(7), 3000, path=True)
    last = int(ops["ts_ns"].max())
    too_large = request(8192, [10] * 8, flags=TARGETED | REQUIRED, ts=last)
    stays = request(4096, [0], flags=TARGETED, ts=last)
    ops = np.concatenate([ops, ops_of([*too_large, *stays])])
    outcome = run_engine(ops, config, name, path=PATH, frames=16384)
    requests = int(np.count_nonzero((ops["flags"] & TARGETED != 0) & (ops["pages"] > 0)))
    assert outcome.counts.sum() == requests == outcome.scalars[at.X_TARGETED_REQUESTS]
    assert (outcome.counts > 0).all()
    assert len(np.unique(outcome.vectors, axis=0)) == len(outcome.vectors)
    totals = outcome.totals[:NR_COUNTERS]
    assert np.array_equal((outcome.vectors * outcome.counts[:, None]).sum(axis=0), totals)
    assert np.array_equal(outcome.series.sum(axis=0), totals)
    assert np.array_equal(outcome.background_series.sum(axis=0), outcome.background)
    assert (outcome.background_series >= 0).all()
    arrived = ops[(ops["flags"] & TARGETED != 0) & (ops["pages"] > 0)]
    bins = np.minimum(arrived["ts_ns"] // outcome.scalars[at.X_BIN_NS], len(outcome.series) - 1)
    of_bin = [np.bincount(bins, weights, len(outcome.series)) for weights in (None, arrived["pages"])]
    assert np.array_equal(outcome.arrivals, np.stack(of_bin, axis=1))
    vector, time_bin, count = outcome.cells.T
    assert np.array_equal(np.bincount(time_bin, count, len(outcome.series)), outcome.arrivals[:, 0])
    assert np.array_equal(np.bincount(vector, count), outcome.counts)
    assert (outcome.worker_series >= 0).all()
    assert (outcome.worker_series.sum(axis=0) <= outcome.worker).all()
    censored, failed = outcome.scalars[at.X_CENSORED], outcome.scalars[at.X_FAILED]
    assert censored > 0
    assert failed > 0
    assert of(outcome, "failures") == failed


@pytest.mark.parametrize("name", NAMES)
def test_by_order_counters_add_up_to_the_plain_ones(name: str) -> None:
    outcome = run_engine(random_stream(random.Random(8), 3000), MACHINES["mixed types, ragged end"], name)
    for row in (outcome.totals, outcome.background):
        found = counters_of(row)
        for counter in ("pages_allocated", "splits", "merges", "failed_attempts"):
            assert sum(found.get(f"{counter}[{order}]", 0) for order in range(11)) == found.get(counter, 0)


def test_targeted_pages_are_the_background_s_when_served_alike() -> None:
    """Single pages one at a time cost and place the same whether a strategy or the background asks for them."""
    ops = random_stream(random.Random(9), 3000)
    singles = ops[(ops["kind"] != ALLOC) | (ops["order"] == 0)].copy()
    # an extent that lost its head is a request of its own
    allocs = singles["kind"] == ALLOC
    singles["flags"][allocs] = 1 | TARGETED
    singles["pages"][allocs] = 1
    live = set()
    kept = []
    for i, (kind, key, order) in enumerate(zip(singles["kind"], singles["pfn"], singles["order"], strict=True)):
        if kind == ALLOC:
            live.add(key)
            kept.append(i)
        elif kind == FREE and order == 0 and key in live:
            live.discard(key)
            kept.append(i)
        elif kind == FREE_INITIAL:
            kept.append(i)
    targeted = singles[kept]
    plain = targeted.copy()
    plain["flags"] &= ~np.uint16(TARGETED)
    config = MACHINES["three zones"]
    ours, theirs = run_engine(targeted, config), run_engine(plain, config)
    assert np.array_equal(ours.totals + ours.background, theirs.totals + theirs.background)
    assert not theirs.totals.any()
    assert picture_of_compiled(ours.machine)["zones"] == picture_of_compiled(theirs.machine)["zones"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 7, 100, 100000])
def test_batches_change_nothing(name: str, size: int) -> None:
    ops = random_stream(random.Random(10), 1500, path=True)
    config = MACHINES["two nodes"]
    whole = run_engine(ops, config, name, path=PATH)
    cut = run_engine(ops, config, name, path=PATH, batch=size)
    assert summary_of_engine(whole) == summary_of_engine(cut)


# ---------------------------------------------------------------- time bins
def test_requests_count_in_the_bin_of_their_arrival() -> None:
    runner = engine(end_ns=999, bins=10)
    records = []
    for i in range(10):
        records += request(10 * i, [0] * (i + 1), flags=TARGETED, ts=100 * i)
    records += [op(FREE, 90 + i, ts=999) for i in range(10)]
    runner.feed(ops_of(records))
    series = runner.finish().series
    assert series[:, slot("pages_allocated")].tolist() == list(range(1, 11))
    assert series[:, slot("pages_freed")].tolist() == [0] * 9 + [10]


def test_background_counts_when_it_happens() -> None:
    runner = engine(end_ns=999, bins=10)
    runner.feed(ops_of([*request(0, [0], ts=50), op(FREE, 0, ts=450), *request(1, [0], ts=999)]))
    series = runner.finish().background_series
    assert series[:, slot("pages_allocated")].tolist() == [1] + [0] * 8 + [1]
    assert series[:, slot("pages_freed")].tolist() == [0] * 4 + [1] + [0] * 5


# ---------------------------------------------------------------- waste, orphans
@pytest.mark.parametrize("name", SURE)
@pytest.mark.parametrize("wide", [0, 1, 2, 3, 5, 8])
def test_waste_is_gone_when_all_is_freed(name: str, wide: int) -> None:
    runner = engine(name)
    records = []
    for i, orders in enumerate(([8], [0] * 256, [3, 2, 1, 0], [7, 7], [5] * 8, [0])):
        records += request(i * 1024, orders, flags=TARGETED | (REQUIRED if i == 0 else 0))
        pages = sum(1 << order for order in orders)
        key = i * 1024
        pieces = []
        while pages:
            order = min(wide, pages.bit_length() - 1, (key & -key).bit_length() - 1 if key else 10)
            pieces.append(op(FREE, key, order))
            key += 1 << order
            pages -= 1 << order
        random.Random(i).shuffle(pieces)
        records += pieces
    runner.feed(ops_of(records))
    outcome = runner.finish()
    assert outcome.scalars[at.X_WASTE] == 0
    assert outcome.scalars[at.X_CENSORED] == outcome.scalars[at.X_ORPHANS] == 0
    assert check_machine(outcome.machine)["used"] == outcome.machine.w[DM_TABLES], "page tables of the direct map stay"
    if wide == 8 or (name == "per-page" and wide == 0):
        # the contiguous block is the only one that comes back in smaller pieces than it was given in
        assert outcome.scalars[at.X_WASTE_PEAK] == (0 if wide == 8 else 255)


def test_pages_held_by_half_a_block_are_waste() -> None:
    runner = engine("compound")
    runner.feed(ops_of([*request(0, [0] * 16, flags=TARGETED), *(op(FREE, i) for i in range(15))]))
    outcome = runner.finish()
    assert (outcome.scalars[at.X_WASTE], outcome.scalars[at.X_WASTE_PEAK]) == (15, 15)
    assert outcome.scalars[at.X_CENSORED] == 1


@pytest.mark.parametrize("flags", [0, TARGETED, TARGETED | REQUIRED])
def test_frees_of_failed_requests_are_orphans(flags: int) -> None:
    full = MachineConfig(zones=(ZoneConfig("Normal", 0, 4096),), cpus=1, occupancy=0.99)
    runner = Engine(load_strategy("per-page")(), full, frames=4096, start_ns=0, end_ns=9)
    runner.feed(ops_of([*request(0, [9], flags=flags), op(FREE, 0, 9), *request(0, [0], flags=0), op(FREE, 0, 0)]))
    outcome = runner.finish()
    assert outcome.scalars[at.X_ORPHANS] in (512, 513)
    assert outcome.scalars[at.X_FAILED] == bool(flags)
    assert outcome.scalars[at.X_CENSORED] == 0
    assert check_machine(outcome.machine)["used"] == 0


def test_a_contiguous_request_of_several_extents_is_all_or_nothing() -> None:
    zone = ZoneConfig("Normal", 0, 4096, watermarks=Watermarks(), free_blocks=(0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0))
    runner = Engine(
        load_strategy("per-page")(),
        MachineConfig(zones=(zone,), cpus=1),
        frames=4096,
        start_ns=0,
        end_ns=9,
    )
    runner.feed(ops_of(request(0, [4, 4, 4, 4], flags=TARGETED | REQUIRED)))
    outcome = runner.finish()
    assert of(outcome, "pages_allocated") == of(outcome, "pages_freed") == 48
    assert outcome.scalars[at.X_FAILED] == 1
    assert check_machine(outcome.machine)["buddy"] == 48


# ---------------------------------------------------------------- tables grow, memory does not
def test_more_live_requests_than_there_is_room_for_at_first() -> None:
    live = 5000
    runner = engine("per-page")
    runner.feed(ops_of([r for i in range(live) for r in request(3 * i, [0, 0, 0], flags=TARGETED)]))
    assert runner.arrays.x[at.X_ROW_ROOM] >= live
    runner.feed(ops_of([op(FREE, i) for i in range(3 * live)]))
    outcome = runner.finish()
    assert vectors_of(outcome).total() == live
    assert all(dict(v)["pages_freed"] == 3 for v in vectors_of(outcome))
    assert check_machine(outcome.machine)["used"] == 0


def test_more_live_blocks_than_there_is_room_for_at_first() -> None:
    live = 40_000
    runner = engine("compound")
    room = int(runner.arrays.x[at.X_BLOCK_ROOM])
    runner.feed(ops_of([r for i in range(live) for r in request(2 * i, [0, 0], flags=TARGETED)]))
    assert runner.arrays.x[at.X_BLOCK_ROOM] > room
    runner.feed(ops_of([op(FREE, i) for i in range(2 * live)]))
    outcome = runner.finish()
    assert outcome.counts.sum() == live
    assert outcome.scalars[at.X_WASTE] == 0
    assert check_machine(outcome.machine)["used"] == 0


def test_more_distinct_vectors_than_there_is_room_for_at_first() -> None:
    sizes = range(1, 2500)
    runner = engine("per-page")
    for pages in sizes:
        orders = [order for order in range(11, -1, -1) if pages >> order & 1]
        records = request(0, orders, flags=TARGETED)
        key = 0
        for order in orders:
            records.append(op(FREE, key, order))
            key += 1 << order
        runner.feed(ops_of(records))
    assert runner.arrays.x[at.X_VECTOR_ROOM] > 1024
    outcome = runner.finish()
    assert sorted(dict(v)["pages_allocated"] for v in vectors_of(outcome).elements()) == list(sizes)
    assert np.array_equal((outcome.vectors * outcome.counts[:, None]).sum(axis=0), outcome.totals[:NR_COUNTERS])


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_operations(name: str) -> None:
    cycle = []
    for i in range(60):
        cycle += request(i * 64, [0] * (i + 1), flags=TARGETED)
        cycle += [op(FREE, ((i + 30) % 60) * 64 + k) for k in range((i + 30) % 60 + 1)] if i >= 30 else []
    cycle += [op(FREE, i * 64 + k) for i in range(30, 60) for k in range(i + 1)]
    ops = ops_of(cycle)
    runner = engine(name)
    for _ in range(20):
        runner.feed(ops)
    before = [a.nbytes for a in runner.arrays]
    for _ in range(200):
        runner.feed(ops)
    assert [a.nbytes for a in runner.arrays] == before
    assert runner.arrays.x[at.X_REQUESTS] == 220 * 60
    assert runner.arrays.x[at.X_BLOCK_LIVE] == 0


# ---------------------------------------------------------------- strategies of others
def faulty(fault: str) -> Engine:
    return Engine(Faulty(fault), roomy(), frames=1024, start_ns=0, end_ns=9)


PAGES = [*request(0, [0, 0, 0, 0], flags=TARGETED), op(FREE, 0), op(FREE, 3)]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("foreign", "freed frame"),
        ("outside", "which no zone has"),
        ("twice", "freed frame"),
        ("wrong-order", "does not hold with that order"),
        ("too-few", "fewer pages than asked"),
        ("nothing", "fewer pages than asked"),
        ("same-frame", "freed frame"),
        ("too-many", "more blocks than the request has pages"),
        ("invented", "gave frame .* does not hold with that order"),
        ("beyond", "gave frame 0x10000000000"),
    ],
)
def test_a_strategy_that_misbehaves_is_named(fault: str, says: str) -> None:
    with pytest.raises(StrategyError, match=says) as caught:
        faulty(fault).feed(ops_of(PAGES))
    assert "'faulty'" in caught.value.message
    assert caught.value.exit_code == 5
    assert caught.value.hint


def test_one_that_behaves_passes() -> None:
    runner = faulty("none")
    runner.feed(ops_of(PAGES))
    assert of(runner.finish(), "pages_freed") == 2


def test_pages_beyond_the_request_are_waste_until_the_block_goes_back() -> None:
    runner = faulty("rounds-up")
    waste = []
    for part in (request(0, [0] * 5, flags=TARGETED), [op(FREE, 4), op(FREE, 0, 1)], [op(FREE, 2, 1)]):
        runner.feed(ops_of(part))
        waste.append(int(runner.arrays.x[at.X_WASTE]))
    assert waste == [3, 6, 0]
    outcome = runner.finish()
    assert outcome.scalars[at.X_WASTE_PEAK] == 6
    assert of(outcome, "pages_freed") == 8


def test_a_strategy_without_its_functions_is_named() -> None:
    @dataclass(frozen=True)
    class Hollow(Params):
        name = "hollow"
        summary = "nothing"
        mimics = "nothing"

    module = ModuleType("hollow_strategy")
    module.init = lambda m, st: None  # type: ignore[attr-defined]
    sys.modules["hollow_strategy"] = module
    Hollow.__module__ = "hollow_strategy"
    try:
        with pytest.raises(StrategyError, match="'hollow' has no function 'allocate'"):
            Engine(Hollow(), roomy(), frames=16, start_ns=0, end_ns=1)
    finally:
        del sys.modules["hollow_strategy"]


def test_a_reserve_that_does_not_fit_is_an_error() -> None:
    tiny = MachineConfig(zones=(ZoneConfig("Normal", 0, 4096),), cpus=1, occupancy=0.99)
    with pytest.raises(StrategyError, match="no memory for the reserve of 256 pages"):
        Engine(load_strategy("per-page")(), tiny, frames=16, start_ns=0, end_ns=1, path=PathConfig("x", 256, 4096))


def test_setup_of_the_reserve_costs_the_workload_nothing() -> None:
    runner = Engine(load_strategy("per-page")(), roomy(), frames=16, start_ns=0, end_ns=1, path=PATH)
    assert not runner.background.any()
    runner.feed(ops_of(request(0, [0], flags=TARGETED | ON_PATH)))
    outcome = runner.finish()
    assert not outcome.background.any()
    assert of(outcome, "mempool_calls") == 1


def test_cpus_beyond_the_machine_s_wrap_around() -> None:
    def run(cpu: int) -> Outcome:
        runner = Engine(load_strategy("bulk")(), roomy(cpus=3), frames=64, start_ns=0, end_ns=1)
        runner.feed(
            ops_of([*request(0, [0] * 9, flags=TARGETED, cpu=cpu), op(FREE, 0, cpu=cpu), *request(20, [1], cpu=cpu)])
        )
        return runner.finish()

    assert summary_of_engine(run(2)) == summary_of_engine(run(302))


def test_an_empty_stream() -> None:
    runner = engine()
    runner.feed(np.zeros(0, OP))
    outcome = runner.finish()
    assert len(outcome.vectors) == 0
    assert not outcome.totals.any()
    assert COUNTERS
