"""Measured cases on the machine: the guest that a row was measured in, and the counters of one buffer there.

The guest has one CPU and 2 GiB, a DMA and a DMA32 zone, and per-CPU lists that its boot has filled with pages of
another type than the cases ask for: their own pages then reach ``high`` soon.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracereplay.cost.rows import STRATEGIES, Row
from tracereplay.kernel.constants import (
    MAX_PAGE_ORDER,
    MIGRATE_MOVABLE,
    MIGRATE_UNMOVABLE,
    NR_PAGE_ORDERS,
    PAGEBLOCK_ORDER,
)
from tracereplay.kernel.generations import GENERATIONS, generation_of_release
from tracereplay.kernel.gfp import GFP_NOIO, GFP_NOWAIT, GFP_NOWARN
from tracereplay.machine.config import DMA_END, MachineConfig, ZoneConfig, pcp_batch
from tracereplay.machine.counters import BY_ORDER, COUNTERS, NR_COUNTERS, NR_SLOTS
from tracereplay.machine.initial import BLOCK, EVIDENCE_NONE, PCP_ENTRY, PCP_PAGES, InitialState, Records
from tracereplay.machine.marks import derived_watermarks

GUEST_END = 0x7FFE0
GUEST_MANAGED = 499_757
FREE_BLOCKS = {
    "6.1": (2, 0, 0, 1, 0, 3, 2, 2, 2, 1, 464),
    "6.12": (1, 0, 0, 2, 0, 0, 1, 1, 6, 6, 467),
}
"""Free blocks of DMA32 by order before the noio cases, as noted with the measurement (tests/data/cost/README.md). Of
6.12's, those of orders 4 and 5 are taken for another type's: its cases of these orders split twice and once."""
USUAL_FREE_BLOCKS = (2, 1, 1, 1, 1, 2, 2, 2, 2, 2, 460)
"""Where nobody noted them: some of every order, as in the nowait cases, which split nothing."""
LISTED_SHARE = 0.315
"""Pages on the per-CPU lists before the run, as a share of ``high``: of 6.1's 13,971 that is 4,400, as the drains show
in its case of 64 buffers of 256 pages."""
WARM_UP = 2
SAMPLES = 400
GFP = {"noio": GFP_NOIO, "nowait": GFP_NOWAIT | GFP_NOWARN}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the machine counted in a case, per buffer."""

    alloc: npt.NDArray[np.float64]
    """``[NR_SLOTS]``: mean counters of the allocation (slots of machine/counters.py)."""
    free: npt.NDArray[np.float64]
    """``[NR_SLOTS]``: of the release."""
    failed: float
    """Share of the buffers that failed."""

    def counters(self) -> dict[str, float]:
        """Counters of both halves that are not 0, by name, and blocks by order."""
        both = self.alloc + self.free
        plain = {name: round(float(both[i]), 4) for i, name in enumerate(COUNTERS) if both[i]}
        first = NR_COUNTERS + BY_ORDER.index("pages_allocated") * NR_PAGE_ORDERS
        blocks = {o: float(self.alloc[first + o]) / (1 << o) for o in range(NR_PAGE_ORDERS)}
        return plain | {f"blocks_order_{o}": round(n, 4) for o, n in blocks.items() if n}


def run_cases(rows: Iterable[Row]) -> list[Outcome]:
    """Each row's case on a machine of its own."""
    known: dict[tuple[object, ...], Outcome] = {}
    outcomes = []
    for row in rows:
        key = (*row.case().values(), row.orders, row.free_blocks, row.samples)
        if key not in known:
            known[key] = run_row(row)
        outcomes.append(known[key])
    return outcomes


def run_row(row: Row) -> Outcome:
    """One row's case on the machine."""
    from tracereplay.cost.case_run import OUT_BUFFERS, OUT_FAILED, OUT_WORDS, run_case
    from tracereplay.machine.build import build_machine

    rounds = max(SAMPLES // row.buffers_held, 1)
    machine = build_machine(guest(row), initial_state(row, rounds))
    alloc, free = np.zeros(NR_SLOTS, np.int64), np.zeros(NR_SLOTS, np.int64)
    out = np.zeros(OUT_WORDS, np.int64)
    run_case(
        machine, STRATEGIES.index(row.strategy), row.n_pages, _first_order(row), GFP[row.gfp], row.buffers_held,
        WARM_UP, rounds, np.zeros(2 * row.n_pages * row.buffers_held, np.int64),
        np.zeros(row.buffers_held, np.int64), alloc, free, out,
    )  # fmt: skip
    buffers = int(out[OUT_BUFFERS])
    return Outcome(alloc / buffers, free / buffers, int(out[OUT_FAILED]) / buffers)


def _first_order(row: Row) -> int:
    return min(row.n_pages.bit_length() - 1, MAX_PAGE_ORDER) if row.strategy.startswith("compound") else 0


def guest(row: Row) -> MachineConfig:
    """The machine that a row was measured on."""
    zones = (
        ZoneConfig("DMA", 1, DMA_END, managed=3840),
        ZoneConfig("DMA32", DMA_END, GUEST_END, managed=GUEST_MANAGED),
    )
    generation = generation_of_release(row.kernel)
    return MachineConfig(zones=zones, cpus=1, generation=generation, init_on_alloc=row.init_on_alloc)


def _listed_pages(row: Row) -> int:
    """Pages on the per-CPU lists before a row's case; ``high`` is the low mark, or six batches on 5.10."""
    config = guest(row)
    zone = config.zones[-1]
    fixed = GENERATIONS[config.generation].pcp_rule == 0
    high = 6 * pcp_batch(zone.pages) if fixed else derived_watermarks(config)[-1].low
    return int(LISTED_SHARE * high)


def initial_state(row: Row, rounds: int) -> InitialState:
    """Free memory before a row's case.

    Without fragmentation the free blocks noted with the measurement. With it, what taking all pages and giving back
    all but each 2^f-th leaves, and the larger blocks that the kernel's reserves and its background compaction gave:
    as many of each order as the row says it obtained in a round, for which no rule is known.
    """
    if row.fragmentation:
        blocks, pcp = _fragmented(row, rounds)
    else:
        noted = FREE_BLOCKS.get(row.kernel) if row.gfp == "noio" else None
        blocks, pcp = _as_booted(row.free_blocks or noted or USUAL_FREE_BLOCKS, _listed_pages(row))
    count = (GUEST_END >> PAGEBLOCK_ORDER) + 1
    return InitialState(
        blocks=blocks,
        block_types=np.full(count, MIGRATE_UNMOVABLE, np.int8),
        evidence=np.full(count, EVIDENCE_NONE, np.int8),
        movable=np.zeros(count, np.int16),
        pcp=pcp,
        pcp_pages=np.zeros(0, PCP_PAGES),
    )


def _as_booted(counts: tuple[int, ...], listed: int) -> tuple[Records, Records]:
    """Blocks of the given number per order, each in a region of the largest order of its own; and pages on the per-CPU
    lists, no two beside each other."""
    regions = np.arange(DMA_END, GUEST_END - (1 << MAX_PAGE_ORDER), 1 << MAX_PAGE_ORDER, dtype=np.int64)
    room = len(regions) - (2 * listed >> MAX_PAGE_ORDER) - 1
    orders = np.repeat(np.arange(NR_PAGE_ORDERS), counts)[:room]
    spare = np.arange(regions[len(orders)], GUEST_END, 2, dtype=np.int64)[:listed]
    return _blocks(regions[: len(orders)], orders), _listed(spare, 0, MIGRATE_MOVABLE)


def _fragmented(row: Row, rounds: int) -> tuple[Records, Records]:
    """What is left between pages at every 2^f-th frame, with the larger blocks of a round's obtained orders; single
    pages that came back last are on the per-CPU lists."""
    step = 1 << row.fragmentation
    orders = np.array(_obtained(row, rounds), np.int64)
    frames = DMA_END + (np.arange(len(orders)) << MAX_PAGE_ORDER)
    on_lists = orders < GENERATIONS[generation_of_release(row.kernel)].pcp_orders
    held = np.arange(DMA_END + (len(orders) << MAX_PAGE_ORDER), GUEST_END - step, step, dtype=np.int64)
    listed = len(held) - min(_listed_pages(row), len(held) // 2)
    pieces = [_blocks(frames[~on_lists], orders[~on_lists]), _blocks(held[:listed] + 1, 0)]
    pieces += [_blocks(held + (1 << order), order) for order in range(1, row.fragmentation)]
    if on_lists.any():  # the watermark test wants a free block of that order, though none is taken
        spare = DMA_END + (len(orders) << MAX_PAGE_ORDER) - (1 << MAX_PAGE_ORDER - 1)
        pieces.append(_blocks(np.array([spare]), int(orders[on_lists].max())))
    singles = _listed(held[listed:] + 1, 0, MIGRATE_UNMOVABLE)
    return np.concatenate(pieces), np.concatenate(
        [_listed(frames[on_lists], orders[on_lists], MIGRATE_UNMOVABLE), singles]
    )


def _blocks(frames: npt.NDArray[np.int64], orders: npt.NDArray[np.int64] | int) -> Records:
    made = np.zeros(len(frames), BLOCK)
    made["pfn"], made["order"], made["mt"] = frames, orders, MIGRATE_UNMOVABLE
    return made


def _listed(frames: npt.NDArray[np.int64], orders: npt.NDArray[np.int64] | int, mt: int) -> Records:
    made = np.zeros(len(frames), PCP_ENTRY)
    made["pfn"], made["order"], made["mt"] = frames, orders, mt
    return made


def _obtained(row: Row, rounds: int) -> list[int]:
    """Orders of the blocks from 2^f pages on that a round of the case obtained."""
    if row.orders is None:
        return []
    return [
        order for order in range(row.fragmentation, NR_PAGE_ORDERS) for _ in range(round(row.orders[order] / rounds))
    ]
