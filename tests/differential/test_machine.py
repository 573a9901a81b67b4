"""The compiled machine does what the slow one does: frames, lists, per-CPU state, counters; in every generation."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine_samples import GFPS, MACHINES, Pair, marks, pieces, random_ops
from tests.reference.machine_driver import ALLOC, BULK, DRAIN, DRAIN_ALL, FREE, HELD_FREE, RECLAIM, TICK
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine.config import MachineConfig, ZoneConfig

OPS = 2500
EVENTS = (
    "pcp_hits",
    "pcp_refills",
    "pcp_drains",
    "frees_buddy",
    "remote_frees",
    "splits",
    "merges",
    "fallbacks",
    "fallback_block_moves",
    "failed_attempts",
    "compaction_attempts",
    "reclaim_attempts",
    "bulk_calls",
    "memcg_charges",
    "zeroed_pages",
    "tail_pages_prepared",
)
"""What random demand must have caused, or the comparison says little."""


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("name", MACHINES)
def test_random_demand(name: str, generation: str) -> None:
    config = replace(MACHINES[name], generation=generation)
    pair = Pair(config)
    rng = random.Random(f"{name} {generation}")
    for i, ops in enumerate(pieces(random_ops(rng, OPS, config), 100)):
        assert pair.run(ops) == [], f"after operations {100 * i} to {100 * i + 100}"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_random_demand_meets_every_rule(generation: str) -> None:
    seen: Counter[str] = Counter()
    for name in MACHINES:
        config = replace(MACHINES[name], generation=generation)
        pair = Pair(config)
        pair.slow.run(random_ops(random.Random(f"{name} {generation}"), OPS, config))
        seen += pair.slow.machine.counters
    wanted = [name for name in EVENTS if name != "bulk_calls" or GENERATIONS[generation].has_bulk]
    assert [name for name in wanted if not seen[name]] == []


LAYOUTS = (
    ("Normal",),
    ("DMA32", "Normal"),
    ("DMA", "DMA32", "Normal"),
    ("Normal", "Normal"),
    ("DMA", "Normal", "Normal"),
)
"""Zones of a machine; a second Normal is that of a second node."""


@st.composite
def machines(draw: st.DrawFn) -> MachineConfig:
    """One to three zones of a few thousand pages, on one or two nodes, one to four CPUs."""
    names = draw(st.sampled_from(LAYOUTS))
    nodes = names.count("Normal")
    zones = []
    start = 0
    for i, name in enumerate(names):
        pages = draw(st.integers(1024, 4000))
        low = draw(st.none() | st.integers(5, 400))
        node = nodes - 1 if i == len(names) - 1 else 0
        zones.append(ZoneConfig(name, start, start + pages, node, watermarks=None if low is None else marks(low)))
        start += (pages + 1023) & ~1023
    return MachineConfig(
        zones=tuple(zones),
        cpus=draw(st.integers(nodes, 4)),
        nodes=nodes,
        generation=draw(st.sampled_from(list(GENERATIONS))),
        occupancy=draw(st.sampled_from((0.0, 0.5, 0.9))),
        fragmentation=draw(st.sampled_from((0.0, 0.2, 0.8))),
        pcp_batch=draw(st.sampled_from((None, 1, 3, 15, 63))),
        pcp_high=draw(st.sampled_from((None, None, 8, 300))),
        pcp_scale_max=draw(st.integers(0, 6)),
        llc_pages_per_cpu=draw(st.sampled_from((0, 512))),
        seed=draw(st.integers(0, 3)),
    )


OPERATION = st.one_of(
    st.tuples(st.just(ALLOC), st.integers(0, 3), st.integers(0, 10), st.sampled_from(GFPS), st.just(0), st.just(0)),
    st.tuples(st.just(ALLOC), st.integers(0, 3), st.just(0), st.sampled_from(GFPS), st.just(0), st.just(0)),
    st.tuples(
        st.just(BULK),
        st.integers(0, 3),
        st.just(0),
        st.sampled_from(GFPS),
        st.integers(1, 300),
        st.integers(0, 0xFFFF),
    ),
    st.tuples(st.just(FREE), st.integers(0, 3), st.just(0), st.just(0), st.integers(0, 1 << 20), st.just(0)),
    st.tuples(st.just(HELD_FREE), st.integers(0, 3), st.integers(0, 10), st.just(0), st.integers(0, 9000), st.just(0)),
    st.tuples(st.just(DRAIN), st.integers(0, 3), st.just(0), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just(DRAIN_ALL), st.just(0), st.just(0), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just(TICK), st.integers(0, 3), st.just(0), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just(RECLAIM), st.just(0), st.just(0), st.just(0), st.just(0), st.integers(0, 1)),
)


@settings(max_examples=300)
@given(machines(), st.lists(st.tuples(OPERATION, st.integers(1, 40)), max_size=40))
def test_any_demand(config: MachineConfig, bursts: list[tuple[tuple[int, ...], int]]) -> None:
    ops = np.array([op for op, times in bursts for _ in range(times)], np.int64).reshape(-1, 6)
    ops[:, 1] %= config.cpus
    if not GENERATIONS[config.generation].has_bulk:
        ops[ops[:, 0] == BULK, 0] = ALLOC
    assert Pair(config).run(ops) == []
