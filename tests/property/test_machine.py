"""What holds whatever is asked of the machine: no page is lost, doubled or left unmerged, and no luck is involved."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.machine_samples import GFPS, MACHINES, pieces, random_ops
from tests.reference.machine_check import check_machine
from tests.reference.machine_driver import (
    ALLOC,
    BULK,
    DRAIN,
    DRAIN_ALL,
    FREE,
    HELD_FREE,
    RECLAIM,
    TICK,
    TIME,
    Compiled,
    counters_of,
    picture_of_compiled,
    word,
    zone_lists,
)
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.counters import slot


def one(*row: int) -> np.ndarray:
    return np.array([row], np.int64)


def drain_all(config: MachineConfig) -> np.ndarray:
    return np.array(
        [(DRAIN, cpu, 0, 0, z, 0) for z in range(len(config.zones)) for cpu in range(config.cpus)], np.int64
    )


class Walk(RuleBasedStateMachine):
    """Any sequence of calls, with the whole state checked after each."""

    @initialize(name=st.sampled_from(list(MACHINES)), generation=st.sampled_from(list(GENERATIONS)))
    def build(self, name: str, generation: str) -> None:
        self.config = replace(MACHINES[name], generation=generation)
        self.compiled = Compiled(build_machine(self.config), room=1 << 14)
        self.before = self.compiled.machine.c.copy()
        self.total = sum(check_machine(self.compiled.machine).values())
        self.freed_held = 0
        self.held = check_machine(self.compiled.machine)["held"]

    def run(self, *row: int) -> int:
        return self.compiled.run(one(*row))[0]

    @rule(cpu=st.integers(0, 3), order=st.integers(0, 10), gfp=st.sampled_from(GFPS))
    def alloc(self, cpu: int, order: int, gfp: int) -> None:
        pfn = self.run(ALLOC, cpu % self.config.cpus, order, gfp, 0, 0)
        assert pfn == -1 or pfn % (1 << order) == 0

    @precondition(lambda self: GENERATIONS[self.config.generation].has_bulk)
    @rule(cpu=st.integers(0, 3), gfp=st.sampled_from(GFPS), slots=st.integers(1, 400), filled=st.integers(0, 0xFFFF))
    def bulk(self, cpu: int, gfp: int, slots: int, filled: int) -> None:
        live = len(self.compiled.live)
        populated = self.run(BULK, cpu % self.config.cpus, 0, gfp, slots, filled)
        before = sum(filled >> (k % 16) & 1 for k in range(populated))
        assert populated <= slots
        assert len(self.compiled.live) - live == populated - before, "slots passed are filled, and no others"

    @precondition(lambda self: self.compiled.live)
    @rule(cpu=st.integers(0, 3), which=st.integers(0, 1 << 20), times=st.integers(1, 60))
    def free(self, cpu: int, which: int, times: int) -> None:
        for _ in range(min(times, len(self.compiled.live))):
            assert self.run(FREE, cpu % self.config.cpus, 0, 0, which, 0) >= 0

    @rule(cpu=st.integers(0, 3), order=st.integers(0, 10), pfn=st.integers(0, 8191))
    def free_held(self, cpu: int, order: int, pfn: int) -> None:
        if self.run(HELD_FREE, cpu % self.config.cpus, order, 0, pfn, 0) >= 0:
            self.freed_held += 1 << order

    @rule(cpu=st.integers(0, 3), zone=st.integers(0, 2))
    def drain(self, cpu: int, zone: int) -> None:
        self.run(DRAIN, cpu % self.config.cpus, 0, 0, zone % len(self.config.zones), 0)

    @rule()
    def drain_all(self) -> None:
        self.run(DRAIN_ALL, 0, 0, 0, 0, 0)
        assert check_machine(self.compiled.machine)["pcp"] == 0

    @rule(cpu=st.integers(0, 3), times=st.integers(1, 4))
    def tick(self, cpu: int, times: int) -> None:
        for _ in range(times):
            before = check_machine(self.compiled.machine)
            drained = self.run(TICK, cpu % self.config.cpus, 0, 0, 0, 0)
            now = check_machine(self.compiled.machine)
            assert (now["pcp"], now["buddy"]) == (before["pcp"] - drained, before["buddy"] + drained)

    @rule(zone=st.integers(0, 2), active=st.booleans())
    def reclaim(self, zone: int, active: bool) -> None:
        self.run(RECLAIM, 0, 0, 0, zone % len(self.config.zones), active)

    @rule(ns=st.sampled_from((1000, 1_000_000, 20_000_000)))
    def time_goes_by(self, ns: int) -> None:
        self.run(TIME, 0, 0, 0, ns, 0)

    @invariant()
    def every_page_is_somewhere(self) -> None:
        machine = self.compiled.machine
        pages = check_machine(machine)
        assert sum(pages.values()) == self.total
        assert pages["held"] == self.held - self.freed_held - machine.c[slot("reclaimed_pages")]
        assert pages["used"] == sum(1 << order for _, order in self.compiled.live)
        assert machine.w[at.CFG_ERROR] == at.ERROR_NONE

    @invariant()
    def counters_never_fall(self) -> None:
        now = self.compiled.machine.c
        assert (now >= self.before).all()
        self.before = now.copy()


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=40, stateful_step_count=25)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("name", MACHINES)
def test_releasing_all_and_draining_restores_the_free_blocks(name: str, generation: str) -> None:
    config = replace(
        MACHINES[name], generation=generation, kswapd_rate=0, reclaim_pages=0, compaction_success=0
    )  # else pages in use from the start come in
    rng = random.Random(name)
    runner = Compiled(build_machine(config))
    machine = runner.machine
    before = blocks_by_order(machine)
    ops = random_ops(rng, 1500, config)
    for part in pieces(ops[ops[:, 0] != HELD_FREE], 500):
        runner.run(part)
        check_machine(machine)
    allocated = machine.c[slot("pages_allocated")]
    assert allocated > 1000
    rows = [(FREE, rng.randrange(config.cpus), 0, 0, 0, 0)] * len(runner.live)
    runner.run(np.array(rows, np.int64).reshape(-1, 6))
    runner.run(drain_all(config))
    assert runner.live == []
    assert allocated == machine.c[slot("pages_freed")]
    assert check_machine(machine)["pcp"] == 0
    assert blocks_by_order(machine) == before


def blocks_by_order(machine: at.Machine) -> list[list[tuple[int, int]]]:
    """(order, first frame) of the free blocks of each zone; their types may change.

    Blocks above a pageblock count as pageblocks: HIGHATOMIC ones, made meanwhile, do not merge with others.
    """
    return [
        sorted(
            (min(order, 9), piece)
            for (order, _), found in zone_lists(machine, z).items()
            for pfn in found
            for piece in range(pfn, pfn + (1 << order), 1 << min(order, 9))
        )
        for z in range(int(machine.w[at.CFG_ZONES]))
    ]


def test_equal_seeds_give_equal_machines() -> None:
    config = MACHINES["three zones"]
    ops = random_ops(random.Random(1), 1500, config)
    runs = [Compiled(build_machine(config)) for _ in range(2)]
    results = [r.run(ops) for r in runs]
    assert results[0] == results[1]
    assert picture_of_compiled(runs[0].machine) == picture_of_compiled(runs[1].machine)


def test_pieces_of_a_run_make_the_run() -> None:
    config = MACHINES["one zone"]
    ops = random_ops(random.Random(2), 900, config)
    whole, cut = Compiled(build_machine(config)), Compiled(build_machine(config))
    assert whole.run(ops) == [r for part in pieces(ops, 7) for r in cut.run(part)]
    assert picture_of_compiled(whole.machine) == picture_of_compiled(cut.machine)


@pytest.mark.parametrize("generation", [name for name, g in GENERATIONS.items() if g.has_bulk])
def test_bulk_of_one_costs_what_a_single_page_costs(generation: str) -> None:
    config = replace(MACHINES["one zone"], generation=generation)
    single, bulk = Compiled(build_machine(config)), Compiled(build_machine(config))
    for i in range(300):
        cpu_gfp = (0, 0, GFPS[i % 3])
        a, b = single.run(one(ALLOC, *cpu_gfp, 0, 0)), bulk.run(one(BULK, *cpu_gfp, 1, 0))
        assert (a[0] >= 0) == (b[0] == 1)
        if i % 3 == 2:
            single.run(one(FREE, 0, 0, 0, i, 0))
            bulk.run(one(FREE, 0, 0, 0, i, 0))
    assert single.live == bulk.live
    ours, theirs = counters_of(single.machine.c), counters_of(bulk.machine.c)
    assert theirs.pop("bulk_calls") == 300
    assert ours == theirs


@pytest.mark.parametrize("order", [0, 1, 2, 3, 5, 9, 10])
def test_memory_runs_out_at_the_watermark_and_not_before(order: int) -> None:
    """Down to MIN for a request that may wait, to three eighths of it for one that may not."""
    for gfp, eighths in ((0xCC0, 8), (0x820, 3)):
        zones = (ZoneConfig("Normal", 0, 1 << 14),)
        runner = Compiled(build_machine(MachineConfig(zones, cpus=1, occupancy=0.0, pcp_batch=1, pcp_scale_max=0)))
        taken = runner.run(np.array([(ALLOC, 0, order, gfp, 0, 0)] * (1 << 14 >> order), np.int64))
        assert taken.index(-1) == sum(pfn >= 0 for pfn in taken), "a failure is final while nothing is freed"
        mark = -(-word(runner.machine, 0, at.Z_WORDS, at.Z_MIN) * eighths // 8)
        assert mark <= word(runner.machine, 0, at.Z_WORDS, at.Z_FREE) <= mark + (2 << order)


CHECKED = """
import random
from dataclasses import replace
from tests.machine_samples import MACHINES, Pair, random_ops
from tests.replay_samples import compare, random_stream, run_engine, run_slow
from tracereplay import compiled
from tracereplay.replay.engine import PathConfig
assert (compiled.NRT, compiled.BOUNDSCHECK) == (True, True)
for generation in ("5.10", "5.14", "6.7", "6.19"):
    for name in MACHINES:
        config = replace(MACHINES[name], generation=generation)
        differences = Pair(config).run(random_ops(random.Random(name), 800, config))
        assert differences == [], (generation, name, differences)
path = PathConfig("dm-crypt", 16, 300)
for name, config in MACHINES.items():
    ops = random_stream(random.Random(name), 1500, cpus=config.cpus, path=True)
    done = run_engine(ops, config, "compound", path=path, batch=50)
    differences = compare(done, run_slow(ops, config, "compound", path=path))
    assert differences == [], (name, differences)
print("agrees")
"""


def test_bounds_checked_and_with_the_run_time() -> None:
    """No index leaves its array, and nothing depends on the private option that leaves Numba's run time out."""
    done = subprocess.run(
        [sys.executable, "-c", CHECKED],
        env={**os.environ, "TRACEREPLAY_NRT": "1", "TRACEREPLAY_BOUNDSCHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("agrees\n", "")
