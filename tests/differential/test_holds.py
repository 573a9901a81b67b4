"""Holds of the zone locks by time slot: what the machine adds up is what a list of all holds adds up to."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from tests.machine_samples import MACHINES, Pair, random_ops
from tests.reference.machine_driver import TIME, Ops
from tests.reference.slow_machine import Hold
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at

OPS = 1500
NAMES = ("two nodes", "three zones", "mixed types, ragged end")
COUNTED = {
    at.H_REFILL_BLOCKS: "pcp_refill_blocks",
    at.H_REFILL_PAGES: "pcp_refill_pages",
    at.H_DRAIN_BLOCKS: "pcp_drain_blocks",
    at.H_DRAIN_PAGES: "pcp_drain_pages",
    at.H_ALLOCS: "allocs_buddy",
    at.H_FREES: "frees_buddy",
    at.H_LOCKS: "zone_lock_acquisitions",
    at.H_SPLITS: "splits",
    at.H_MERGES: "merges",
    at.H_FALLBACKS: "fallbacks",
    at.H_MOVES: "fallback_block_moves",
}

LISTED = [k for k in range(at.HOLD_WORDS) if not at.H_REFILL_BLOCKS <= k <= at.H_FREES]
"""What a list of holds tells; the rest is compared in sum."""


def rows_of(machine: at.Machine, z: int) -> np.ndarray:
    """All rows of a zone, the open slot first."""
    first = at.HOLDS + z * at.HOLD_ROWS * at.HOLD_WORDS
    return machine.w[first : first + at.HOLD_ROWS * at.HOLD_WORDS].reshape(-1, at.HOLD_WORDS)


def slot_of(holds: list[Hold]) -> list[int]:
    """Words of a slot, from its holds."""
    cpus = defaultdict(int)
    for hold in holds:
        cpus[hold.cpu] += 1
    row = [0] * at.HOLD_WORDS
    row[at.H_SLOTS], row[at.H_LOCKS], row[at.H_LOCKS2] = 1, len(holds), len(holds) ** 2
    row[at.H_SAME] = sum(n * n for n in cpus.values())
    row[at.H_WORK] = sum(hold.work for hold in holds)
    row[at.H_WORK2] = sum(hold.work**2 for hold in holds)
    for word in (at.H_SPLITS, at.H_MERGES, at.H_FALLBACKS, at.H_MOVES):
        row[word] = sum(hold.done[COUNTED[word]] for hold in holds)
    return row


def with_time(ops: Ops) -> Ops:
    """Operations with time that goes by between them, so that slots hold some locks, or none."""
    after = np.arange(3, len(ops), 4)
    rows = np.zeros((len(after), ops.shape[1]), np.int64)
    rows[:, 0] = TIME
    rows[:, 4] = np.random.default_rng(len(ops)).integers(0, 60_000, len(after))
    return np.insert(ops, after, rows, axis=0)


def class_of(row: list[int]) -> int:
    """Number of the class that a slot belongs to."""
    load = at.SLOT_LOCK_LOAD * row[at.H_LOCKS] + row[at.H_WORK]
    ratio = row[at.H_LOCKS2] / row[at.H_SAME]
    spread = 0 if ratio == 1 else min(1 + math.floor(math.log2(ratio)), at.SPREAD_CLASSES - 1)
    return 1 + math.floor(math.log2(load * load)) * at.SPREAD_CLASSES + spread


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_slots_add_up(name: str, generation: str) -> None:
    config = replace(MACHINES[name], generation=generation)
    pair = Pair(config)
    ops = with_time(random_ops(random.Random(f"{name} {generation}"), OPS, config))
    assert pair.run(ops) == []
    machine = pair.compiled.machine
    slots = defaultdict(list)
    for hold in pair.slow.machine.holds:
        slots[hold.zone, hold.now // at.SLOT_NS].append(hold)
    assert len(slots) > 20
    last = max(slot for _, slot in slots)
    for z in range(len(config.zones)):
        expected = defaultdict(lambda: np.zeros(at.HOLD_WORDS, np.int64))
        for (zone, number), holds in slots.items():
            if zone == z:
                row = slot_of(holds)
                expected[0 if number == last else class_of(row)] += row
        expected[0][[at.H_SLOTS, at.H_LOCKS2]] = 0  # filled in at its end
        found = rows_of(machine, z)
        for k in range(at.HOLD_ROWS - 1):
            assert found[k, LISTED].tolist() == expected[k][LISTED].tolist(), (z, k)
    total = sum(rows_of(machine, z)[:-1].sum(axis=0) for z in range(len(config.zones)))
    for word, counter in COUNTED.items():
        assert total[word] == pair.slow.machine.counters[counter], counter


def test_the_busiest_slot_is_kept() -> None:
    config = MACHINES["three zones"]
    pair = Pair(config)
    pair.run(with_time(random_ops(random.Random(3), OPS, config)))
    slots = defaultdict(list)
    for hold in pair.slow.machine.holds:
        slots[hold.zone, hold.now // at.SLOT_NS].append(hold)
    last = max(slot for _, slot in slots)
    machine = pair.compiled.machine
    for z in range(len(config.zones)):
        closed = {n: slot_of(holds) for (zone, n), holds in slots.items() if zone == z and n != last}
        if not closed:
            continue
        loads = {n: at.SLOT_LOCK_LOAD * row[at.H_LOCKS] + row[at.H_WORK] for n, row in closed.items()}
        busiest = max(loads, key=lambda n: loads[n])
        assert machine.w[z * at.Z_WORDS + at.Z_BUSIEST] == loads[busiest]
        assert machine.w[z * at.Z_WORDS + at.Z_BUSIEST_END] == (busiest + 1) * at.SLOT_NS
        assert rows_of(machine, z)[-1][: at.H_WORK2 + 1].tolist() == closed[busiest][: at.H_WORK2 + 1]
