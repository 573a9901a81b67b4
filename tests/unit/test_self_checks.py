"""Exact self-checks of the strategies on the real engine and machine: what each costs by rule, whatever the host.

Numbers are those of the self-checks: 1 per-page, 2 compound, 8 and 10 bulk, 15 unmapped-cache, and 14 of the mempool.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracereplay.compiled import kernel
from tracereplay.demand.stream import ALLOC, BATCH, FIRST, FREE, ON_PATH, OP, TARGETED
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.counters import COUNTERS, PAGES_ALLOCATED_BY_ORDER, slot
from tracereplay.machine.layout import POOL_ALLOCATED, POOL_CURRENT, Z_FREE, Machine
from tracereplay.machine.page_alloc import alloc_pages_bulk
from tracereplay.replay.engine import Engine, Outcome, PathConfig
from tracereplay.strategies.bulk import Bulk
from tracereplay.strategies.compound import Compound
from tracereplay.strategies.contract import Params
from tracereplay.strategies.per_page import PerPage
from tracereplay.strategies.unmapped_cache import UnmappedCache

CRYPT = PathConfig("dm-crypt", pool_pages=256, quota=1 << 20)
GFP_KERNEL = 0xCC0
ROOMY = MachineConfig(zones=(ZoneConfig("Normal", 0, 1 << 18),), cpus=1, occupancy=0.1)


def request(key: int, pages: int, ts: int, *, flags: int = TARGETED | BATCH) -> list[Any]:
    """A request of single pages."""
    return [
        (ts, key + i, GFP_KERNEL, pages if i == 0 else 0, 0, 0, flags | (FIRST if i == 0 else 0), ALLOC, 0, 0, 0)
        for i in range(pages)
    ]


def frees(key: int, pages: int, ts: int) -> list[Any]:
    """Each page of it freed by itself."""
    return [(ts, key + i, 0, 0, 0, 0, 0, FREE, 0, 0, 0) for i in range(pages)]


class Run:
    """An engine fed by hand."""

    def __init__(self, params: Params, *, path: PathConfig | None = None, config: MachineConfig = ROOMY) -> None:
        self.engine = Engine(params, config, frames=1 << 18, start_ns=0, end_ns=1_000_000, path=path)

    def feed(self, *records: list[Any]) -> None:
        self.engine.feed(np.array([r for part in records for r in part], OP))

    def word(self, place: int) -> int:
        return int(self.engine.machine.w[place])

    def finish(self) -> tuple[Outcome, dict[str, int]]:
        outcome = self.engine.finish()
        return outcome, {name: int(outcome.totals[i]) for i, name in enumerate(COUNTERS)}


# ---------------------------------------------------------------- 1: crypt-loop
def test_one_mib_is_256_calls_and_the_counter_returns() -> None:
    run = Run(PerPage(), path=CRYPT)
    assert run.word(POOL_ALLOCATED) == run.word(POOL_CURRENT) == 256  # idle: the reserve
    run.feed(request(0, 256, 0, flags=TARGETED | ON_PATH))
    assert run.word(POOL_ALLOCATED) == 512
    run.feed(frees(0, 256, 500))
    assert run.word(POOL_ALLOCATED) == run.word(POOL_CURRENT) == 256
    outcome, counters = run.finish()
    assert (counters["alloc_calls"], counters["free_calls"]) == (256, 256)
    assert counters["mempool_takes"] == counters["mempool_puts"] == counters["restarts"] == 0
    assert outcome.counts.tolist() == [1]


def test_four_kib_is_one_call() -> None:
    run = Run(PerPage(), path=CRYPT)
    run.feed(request(0, 1, 0, flags=TARGETED | ON_PATH), frees(0, 1, 5))
    assert run.finish()[1]["alloc_calls"] == 1


# ---------------------------------------------------------------- 2: crypt-compound
@pytest.mark.parametrize("pages", [1, 2, 5, 32, 64, 129, 192, 255, 256])
def test_compound_calls_are_the_binary_digits(pages: int) -> None:
    run = Run(Compound(), path=CRYPT)
    run.feed(request(0, pages, 0, flags=TARGETED | ON_PATH))
    run.feed(frees(0, pages, 500))
    outcome, counters = run.finish()
    assert counters["alloc_calls"] == counters["free_calls"] == pages.bit_count()
    # only the order-0 part goes through the mempool: one call to take, one to give back
    assert counters["mempool_calls"] == 2 * (pages & 1)
    by_order = [int(outcome.totals[PAGES_ALLOCATED_BY_ORDER + k]) for k in range(11)]
    assert by_order == [pages & (1 << k) for k in range(11)]
    assert run.word(POOL_ALLOCATED) == 256


# ---------------------------------------------------------------- 8, 10: page-bulk
@kernel
def bulk(m: Machine, wanted: int, slots: np.ndarray[Any, Any]) -> int:
    """One call from Python."""
    return alloc_pages_bulk(m, 0, GFP_KERNEL, wanted, slots)  # type: ignore[no-any-return]


def slots_of(wanted: int, filled: tuple[int, ...] = ()) -> np.ndarray[Any, Any]:
    """An empty array of (frame, order) pairs but for the slots that are filled already."""
    slots = np.full(2 * wanted, -1, np.int64)
    for i in filled:
        slots[2 * i : 2 * i + 2] = (7777, 0)
    return slots


def zone_with(free: int, low: int) -> MachineConfig:
    """One zone with exactly ``free`` free pages, single ones, and a LOW watermark."""
    zone = ZoneConfig(
        "Normal",
        0,
        1 << 14,
        watermarks=Watermarks(min=low // 2, low=low, high=2 * low),
        free_blocks=(free, *([0] * 10)),
    )
    return MachineConfig(zones=(zone,), cpus=1)


@pytest.mark.parametrize(("above", "pages"), [(-1, 1), (0, 1), (1, 64)])
def test_bulk_needs_low_plus_n(above: int, pages: int) -> None:
    machine = build_machine(zone_with(1000 + 64 + above, 1000))
    assert int(machine.w[Z_FREE]) == 1064 + above
    slots = slots_of(64)
    assert bulk(machine, 64, slots) == pages
    assert int((slots[::2] >= 0).sum()) == pages


def test_bulk_of_one_takes_the_single_path() -> None:
    machine = build_machine(ROOMY)
    assert bulk(machine, 1, slots_of(1)) == 1
    assert int(machine.c[slot("alloc_calls")]) == 1


def test_bulk_fills_only_the_gaps() -> None:
    machine = build_machine(ROOMY)
    slots = slots_of(16, filled=(0, 1, 5, 9))
    assert bulk(machine, 16, slots) == 16
    assert slots[[0, 2, 10, 18]].tolist() == [7777] * 4
    assert int(machine.c[slot("pages_allocated")]) == 12
    assert len(set(slots[::2].tolist())) == 13


def test_full_array_returns_its_size() -> None:
    machine = build_machine(ROOMY)
    assert bulk(machine, 8, slots_of(8, filled=tuple(range(8)))) == 8
    assert int(machine.c[slot("pages_allocated")]) == 0


def test_bulk_strategy_asks_once_where_memory_is_plenty() -> None:
    run = Run(Bulk())
    run.feed(request(0, 256, 0), frees(0, 256, 500))
    counters = run.finish()[1]
    assert (counters["bulk_calls"], counters["alloc_calls"], counters["pages_allocated"]) == (1, 0, 256)


def test_batch_cap_cuts_the_calls() -> None:
    run = Run(Bulk(batch_cap=100))
    run.feed(request(0, 256, 0), frees(0, 256, 500))
    assert run.finish()[1]["bulk_calls"] == 3


# ---------------------------------------------------------------- 15: unmapped-cache
@pytest.mark.parametrize(("requests", "refills"), [(1, 1), (2, 1), (200, 1), (512, 1), (513, 2)])
def test_unmapped_cache_refills_once_for_512_pages(requests: int, refills: int) -> None:
    run = Run(UnmappedCache())
    run.feed(*(request(i, 1, i) for i in range(requests)))
    outcome, counters = run.finish()
    assert counters["cache_refills"] == counters["tlb_flushes"] == counters["direct_map_splits"] == refills
    assert counters["cache_hits"] == requests - refills
    assert int(outcome.totals[PAGES_ALLOCATED_BY_ORDER + 9]) == 512 * refills == counters["zeroed_pages"]


# ---------------------------------------------------------------- 14: mempool
def test_reserve_comes_second_and_is_refilled_first() -> None:
    run = Run(PerPage(), path=PathConfig("dm-crypt", pool_pages=8, quota=8 + 4))
    run.feed(request(0, 6, 0, flags=TARGETED | ON_PATH))  # 4 by quota, then 2 from the reserve
    assert run.word(POOL_CURRENT) == 6
    run.feed(frees(0, 6, 10))
    assert (run.word(POOL_CURRENT), run.word(POOL_ALLOCATED)) == (8, 8)
    counters = run.finish()[1]
    assert (counters["mempool_takes"], counters["mempool_puts"], counters["quota_refusals"]) == (2, 2, 2)


def test_what_would_wait_fails_and_is_counted() -> None:
    run = Run(PerPage(), path=PathConfig("dm-crypt", pool_pages=2, quota=2))
    run.feed(request(0, 4, 0, flags=TARGETED | ON_PATH), frees(0, 4, 10))
    counters = run.finish()[1]
    assert (counters["restarts"], counters["mutex_acquisitions"], counters["mempool_waits"]) == (1, 1, 1)
    assert counters["failures"] == 1
    assert run.word(POOL_CURRENT) == 2
