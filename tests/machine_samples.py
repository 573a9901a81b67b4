"""Small machines in which everything happens soon, and random operations for them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

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
    Ops,
    Slow,
    differences,
    picture_of_compiled,
    picture_of_slow,
    slow_twin,
)
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig

GFPS = (
    0xCC0,  # GFP_KERNEL
    0x100CCA,  # GFP_HIGHUSER_MOVABLE
    0x140CCA,  # the same, compound
    0xC50,  # reclaimable
    0x820,  # GFP_ATOMIC since 6.3
    0xA20,  # GFP_ATOMIC before
    0x80A20,  # the same through a mempool
    0x800,  # GFP_NOWAIT
    0x400CC0,  # GFP_KERNEL_ACCOUNT
    0x40DC0,  # zeroed, compound
    0x92C00,  # dm-crypt's second pass
    0x1C20CA,  # GFP_TRANSHUGE_LIGHT
    0x200CC0,  # this node only
    0xCC1,  # DMA
    0xCC4,  # DMA32
    0x4CC0,  # may fail, after every retry
    0x20820,  # atomic, whatever the watermarks
)


def marks(low: int) -> Watermarks:
    """Watermarks around a number of pages."""
    return Watermarks((0, 0, 0, 0), low * 4 // 5, low, low * 6 // 5)


TYPED = ((10, 5, 5, 4, 2, 1, 1, 0, 0, 0, 0), (20, 10, 3, 2, 1, 1, 1, 1, 1, 1, 0), (5, 5, 2, 2, 1, 1, 0, 0, 0, 0, 0))
"""Free blocks by type and order."""
ALL_TYPES = tuple(map(sum, zip(*TYPED, strict=True)))
MACHINES = {
    "one zone": MachineConfig(
        zones=(ZoneConfig("Normal", 0, 8192, watermarks=marks(120)),), cpus=1, pcp_batch=7, fragmentation=0.1
    ),
    "mixed types, ragged end": MachineConfig(
        zones=(ZoneConfig("Normal", 0, 6000, watermarks=marks(80), free_blocks=ALL_TYPES, free_by_type=TYPED),),
        cpus=2,
        pcp_batch=15,
        llc_pages_per_cpu=16,
    ),
    "three zones": MachineConfig(
        zones=(ZoneConfig("DMA", 1, 1024), ZoneConfig("DMA32", 1024, 3072), ZoneConfig("Normal", 3072, 6144)),
        cpus=3,
        occupancy=0.2,
        fragmentation=0.3,
    ),
    "two nodes": MachineConfig(
        zones=(
            ZoneConfig("DMA32", 0, 2048),
            ZoneConfig("Normal", 2048, 5120, 0, watermarks=marks(60)),
            ZoneConfig("Normal", 5120, 8192, 1, watermarks=marks(60)),
        ),
        cpus=4,
        nodes=2,
        occupancy=0.4,
        fragmentation=0.2,
        pcp_batch=3,
    ),
    "fixed high, Movable": MachineConfig(
        zones=(ZoneConfig("Normal", 0, 3072, watermarks=marks(40)), ZoneConfig("Movable", 3072, 6144)),
        cpus=2,
        occupancy=0.3,
        pcp_batch=15,
        pcp_high=64,
        init_on_alloc=True,
    ),
    "short of memory": MachineConfig(  # managed as if larger, so that HIGHATOMIC blocks are reserved since 6.3
        zones=(
            ZoneConfig("DMA32", 0, 4096, watermarks=marks(300), free_blocks=ALL_TYPES, free_by_type=TYPED),
            ZoneConfig(
                "Normal",
                4096,
                12288,
                managed=110_000,
                watermarks=marks(1200),
                free_blocks=(90, 50, 30, 20, 10, 5, 3, 2, 1, 2, 1),
            ),
        ),
        cpus=2,
        pcp_batch=7,
        kswapd_rate=40,
        reclaim_pages=12,
        compaction_success=0.6,
    ),
    "CMA": MachineConfig(
        zones=(ZoneConfig("Normal", 0, 9000, watermarks=marks(100), cma_pages=2048),),
        cpus=2,
        occupancy=0.6,
        fragmentation=0.4,
        pcp_batch=7,
        compaction_success=0.3,
    ),
    "two short nodes": MachineConfig(
        zones=(
            ZoneConfig("DMA32", 0, 2048),
            ZoneConfig("Normal", 2048, 5120, 0, watermarks=marks(200)),
            ZoneConfig("Normal", 5120, 8192, 1, watermarks=marks(200)),
        ),
        cpus=3,
        nodes=2,
        occupancy=0.7,
        fragmentation=0.5,
        pcp_batch=3,
        kswapd_rate=15,
        reclaim_pages=5,
        compaction_success=1.0,
    ),
    "lists off": MachineConfig(
        zones=(ZoneConfig("Normal", 0, 2048, watermarks=marks(40)),), cpus=2, pcp_batch=15, pcp_high=4
    ),
}


def random_ops(rng: random.Random, n: int, config: MachineConfig) -> Ops:
    """``n`` operations in phases: mostly growing, mostly shrinking, and churn; bursts of one order."""
    rows: list[tuple[int, int, int, int, int, int]] = []
    frames = max(z.end for z in config.zones)
    while len(rows) < n:
        share_freed = rng.choice((0.1, 0.5, 0.9))
        orders = rng.choice(((0,), (0, 0, 1, 2, 3), tuple(range(11)), (0, 9), (3, 4, 8)))
        gfps = rng.sample(GFPS, 3)
        cpus = rng.sample(range(config.cpus), rng.randint(1, config.cpus))
        for _ in range(rng.randint(5, 120)):
            cpu, what = rng.choice(cpus), rng.random()
            if what < 0.03:
                rows.append((HELD_FREE, cpu, rng.choice((0, 0, 1, 2, 3, 4, 9, 10)), 0, rng.randrange(frames), 0))
            elif what < 0.035:
                rows.append((DRAIN, cpu, 0, 0, rng.randrange(len(config.zones)), 0))
            elif what < 0.037:
                rows.append((DRAIN_ALL, cpu, 0, 0, 0, 0))
            elif what < 0.047:
                rows.append((TICK, cpu, 0, 0, 0, 0))
            elif what < 0.049:
                rows.append((TIME, 0, 0, 0, rng.choice((1000, 400_000, 3_000_000)), 0))
            elif what < 0.05:
                rows.append((RECLAIM, cpu, 0, 0, rng.randrange(len(config.zones)), rng.choice((0, 0, 1))))
            elif rng.random() < share_freed:
                newest = rng.random() < 0.3
                rows.append((FREE, cpu, 0, 0, -1 if newest else rng.randrange(1 << 30), 0))
            elif what < 0.1 and GENERATIONS[config.generation].has_bulk:
                filled = rng.choice((0, 0, 0, 1, 0x5555, 0xFFFF, 0x8001))
                rows.append((BULK, cpu, 0, rng.choice(gfps), rng.choice((1, 2, 3, 16, 64, 200)), filled))
            else:
                rows.append((ALLOC, cpu, rng.choice(orders), rng.choice(gfps), 0, 0))
    return np.array(rows[:n], np.int64)


class Pair:
    """Both machines in one state, fed alike."""

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.compiled = Compiled(build_machine(config))
        self.slow = Slow(slow_twin(self.compiled.machine, config))

    def run(self, ops: Ops) -> list[str]:
        """Do operations on both. What differs then, in words."""
        results = differences(self.compiled.run(ops), self.slow.run(ops), "result")
        return results or differences(
            picture_of_compiled(self.compiled.machine), picture_of_slow(self.slow.machine), "state"
        )


def pieces(ops: Ops, size: int) -> Iterator[Ops]:
    """Operations a few at a time."""
    for i in range(0, len(ops), size):
        yield ops[i : i + size]
