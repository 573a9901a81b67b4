"""Exact facts about the built-in strategies that any implementation must show, on the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.machine_driver import BULK, Compiled, picture_of_compiled, word
from tests.replay_samples import Ops, op, ops_of, request, run_engine, vectors_of
from tracereplay.demand.stream import FREE, ON_PATH, REQUIRED, TARGETED
from tracereplay.kernel.generations import GENERATIONS
from tracereplay.machine import layout as at
from tracereplay.machine.build import build_machine
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.counters import BY_ORDER, COUNTERS, NR_COUNTERS, NR_SLOTS
from tracereplay.machine.directmap_start import DirectMap
from tracereplay.replay.engine import Engine, Outcome, PathConfig
from tracereplay.strategies.contract import Params
from tracereplay.strategies.registry import load_strategy

PATH = PathConfig("dm-crypt", 256, 4096)
MIB = (0,) * 256
ON = TARGETED | ON_PATH


def machine(*blocks: int, low: int = 0, **more: object) -> MachineConfig:
    """A zone of 128 MiB with so many free unmovable blocks of orders 0, 1, ...; all free where none are given."""
    counts = blocks + (0,) * (11 - len(blocks)) if blocks else None
    zone = ZoneConfig(
        "Normal",
        0,
        1 << 15,
        watermarks=Watermarks((0, 0, 0, 0), 0, low, low),
        free_blocks=counts,
        free_by_type=(counts, (0,) * 11, (0,) * 11) if counts else None,
    )
    config = MachineConfig(zones=(zone,), cpus=1, occupancy=0.0, pcp_batch=1, pcp_scale_max=0)
    return replace(config, **more)  # type: ignore[arg-type]


def frees(key: int, pages: int) -> list[tuple[int, ...]]:
    return [op(FREE, key + i, ts=1) for i in range(pages)]


def counters(outcome: Outcome) -> dict[str, int]:
    """Targeted counters that are not 0."""
    return {k: v for k, v in zip(COUNTERS, outcome.totals.tolist(), strict=False) if v}


def by_order(outcome: Outcome, name: str) -> list[int]:
    """A targeted by-order counter."""
    slots = NR_SLOTS - NR_COUNTERS
    first = NR_COUNTERS + BY_ORDER.index(name) * (slots // len(BY_ORDER))
    return outcome.totals[first : first + slots // len(BY_ORDER)].tolist()


def serve(ops: list[tuple[int, ...]], strategy: str, config: MachineConfig | None = None, **params: str) -> Outcome:
    return run_engine(ops_of(ops), config or machine(), strategy, params, path=PATH, frames=8192)


# ---------------------------------------------------------------- 1: per-page on the path
def test_a_mebibyte_is_256_calls_and_the_counter_comes_back() -> None:
    params = load_strategy("per-page")()
    engine = Engine(params, machine(), frames=8192, start_ns=0, end_ns=1, path=PATH)
    allocated = [engine.machine.w[at.POOL_ALLOCATED]]
    for part in (request(0, MIB, flags=ON), frees(0, 100), frees(100, 156)):
        engine.feed(ops_of(part))
        allocated.append(engine.machine.w[at.POOL_ALLOCATED])
    assert allocated == [256, 512, 412, 256]
    found = counters(engine.finish())
    assert found["alloc_calls"] == found["pages_allocated"] == found["free_calls"] == found["pages_freed"] == 256
    assert found["mempool_calls"] == found["callbacks"] == 512
    assert "mempool_takes" not in found
    assert found["percpu_counter_ops"] == 3 * 256


def test_four_kibibytes_are_one_call() -> None:
    found = counters(serve(request(0, [0], flags=ON), "per-page"))
    assert (found["alloc_calls"], found["mempool_calls"]) == (1, 1)


# ---------------------------------------------------------------- 2: compound
@pytest.mark.parametrize("pages", [*range(1, 20), 32, 33, 64, 129, 192, 255, 256])
def test_compound_calls_are_the_binary_digits(pages: int) -> None:
    outcome = serve(request(0, (0,) * pages, flags=ON), "compound")
    found = counters(outcome)
    assert found["alloc_calls"] == pages.bit_count()
    assert found.get("mempool_calls", 0) == pages & 1
    assert by_order(outcome, "pages_allocated") == [pages & 1 << order for order in range(11)]
    assert found.get("compound_preps", 0) == (pages & ~1).bit_count()


@given(st.integers(1, 2000))
def test_compound_calls_without_a_path(pages: int) -> None:
    found = counters(serve(request(0, (0,) * pages, flags=TARGETED) + frees(0, pages), "compound"))
    # order 10 is the largest: beyond 2047 pages it repeats
    assert found["alloc_calls"] == found["free_calls"] == (pages & 1023).bit_count() + (pages >> 10)
    assert found["pages_allocated"] == found["pages_freed"] == pages
    assert "mempool_calls" not in found


# ---------------------------------------------------------------- 3, 4, 5: compound in fragmented or limited memory
def test_compound_condemns_the_rest_of_a_buffer_and_no_other() -> None:
    ops = request(0, MIB, flags=ON) + request(256, MIB, flags=ON)
    outcome = serve(ops, "compound", machine(600, 0, 0, 600))
    assert by_order(outcome, "failed_attempts") == [0, 0, 0, 0, 2, 2, 2, 2, 2, 0, 0]
    assert by_order(outcome, "pages_allocated") == [0, 0, 0, 512] + [0] * 7
    assert vectors_of(outcome).total() == 2
    loose = serve(ops, "compound", machine(600, 0, 0, 600), sticky_order="false")
    # an order that failed is tried again for every block that has room for it
    rooms = [sum(left >= 1 << order for left in range(256, 0, -8)) for order in range(11)]
    assert by_order(loose, "failed_attempts") == [0] * 4 + [2 * n for n in rooms[4:9]] + [0, 0]


def test_compound_with_single_pages_only() -> None:
    outcome = serve(request(0, MIB, flags=ON), "compound", machine(2000))
    assert by_order(outcome, "failed_attempts") == [0] + [1] * 8 + [0, 0]
    assert counters(outcome)["mempool_calls"] == 256
    assert by_order(outcome, "pages_allocated") == [256] + [0] * 10


@pytest.mark.parametrize("account", ["true", "false"])
def test_compound_and_the_quota(account: str) -> None:
    path = PathConfig("dm-crypt", 256, 256 + 255)
    outcome = run_engine(
        ops_of(request(0, MIB, flags=ON)), machine(), "compound", {"account_large": account}, path=path
    )
    found = counters(outcome)
    if account == "false":
        assert "quota_refusals" not in found
        assert by_order(outcome, "pages_allocated") == [0] * 8 + [256, 0, 0]
    else:
        # 128 fit, then 64, 32, ... 1; the last page comes from the reserve
        assert by_order(outcome, "pages_allocated") == [1 << order for order in range(8)] + [0] * 3
        assert found["mempool_takes"] == 1
        assert "failed_attempts" not in found, "the allocator was not asked"
        assert found["quota_refusals"] == 9  # orders 8 to 1, each time the quota lacks one page, and the last page


# ---------------------------------------------------------------- 8, 10: bulk
@pytest.mark.parametrize("pages", [2, 16, 64, 200])
@pytest.mark.parametrize(("above", "yields_all"), [(-1, False), (0, False), (1, True)])
@pytest.mark.parametrize("generation", [g for g in GENERATIONS if g != "5.10"])
def test_bulk_wants_low_and_all_pages(generation: str, pages: int, above: int, yields_all: bool) -> None:
    config = machine(*(0,) * 10, 8, generation=generation, low=8192 - pages - above)
    runner = Compiled(build_machine(config))
    assert (
        word(runner.machine, 0, at.Z_WORDS, at.Z_FREE) == word(runner.machine, 0, at.Z_WORDS, at.Z_LOW) + pages + above
    )
    (populated,) = runner.run(np.array([(BULK, 0, 0, 0xCC0, pages, 0)], np.int64))
    assert populated == (pages if yields_all else 1)


def test_bulk_strategy_loops_over_single_pages_below_the_mark() -> None:
    pages = 50
    near = run_engine(
        ops_of(request(0, (0,) * pages, flags=TARGETED)), machine(*(0,) * 10, 8, low=8192 - pages + 1), "bulk"
    )
    far = run_engine(ops_of(request(0, (0,) * pages, flags=TARGETED)), machine(*(0,) * 10, 8, low=0), "bulk")
    assert (counters(near)["bulk_calls"], counters(near)["alloc_calls"]) == (pages, pages)
    assert counters(far)["bulk_calls"] == 1
    assert "alloc_calls" not in counters(far)
    assert counters(far)["pcp_lock_acquisitions"] == 1


@pytest.mark.parametrize(("filled", "gaps"), [(0x0000, 40), (0x5555, 20), (0xFFFE, 3), (0x7FFF, 2), (0xFFFF, 0)])
def test_bulk_fills_only_the_gaps(filled: int, gaps: int) -> None:
    runner = Compiled(build_machine(machine()))
    (populated,) = runner.run(np.array([(BULK, 0, 0, 0xCC0, 40, filled)], np.int64))
    assert populated == 40
    assert len(runner.live) == gaps
    assert runner.machine.c[COUNTERS.index("pages_allocated")] == gaps


def test_bulk_of_one_takes_the_single_path() -> None:
    found = counters(serve(request(0, [0], flags=TARGETED), "bulk"))
    assert (found["bulk_calls"], found["alloc_calls"]) == (1, 1)


def test_bulk_never_takes_a_batch_from_a_remote_node() -> None:
    zones = tuple(
        ZoneConfig(
            "Normal", node * 8192, node * 8192 + 8192, node, watermarks=Watermarks(), free_blocks=(0,) * 10 + (blocks,)
        )
        for node, blocks in ((0, 0), (1, 8))
    )
    runner = Compiled(build_machine(MachineConfig(zones=zones, cpus=2, nodes=2)))
    assert runner.run(np.array([(BULK, 0, 0, 0xCC0, 64, 0), (BULK, 1, 0, 0xCC0, 64, 0)], np.int64)) == [1, 64]


def test_bulk_in_chunks() -> None:
    found = counters(serve(request(0, MIB, flags=TARGETED), "bulk", batch_cap="100"))
    assert found["bulk_calls"] == 3


# ---------------------------------------------------------------- 15, 16: unmapped-cache
def pages_one_by_one(n: int, key: int = 0) -> list[tuple[int, ...]]:
    return [record for i in range(n) for record in request(key + i, [0], flags=TARGETED)]


def test_unmapped_cache_refills_every_512_pages() -> None:
    outcome = serve(pages_one_by_one(513), "unmapped-cache")
    kinds = vectors_of(outcome)
    first = {"alloc_calls": 3, "cache_refills": 1, "tlb_flushes": 1, "direct_map_splits": 1, "pages_allocated": 513}
    hit = frozenset({"alloc_calls": 1, "cache_hits": 1, "cache_locks": 1}.items())
    assert kinds[hit] == 511
    refills = [dict(kind) for kind in kinds.elements() if kind != hit]
    assert [{name: kind[name] for name in first} for kind in refills] == [first, first]
    assert by_order(outcome, "pages_allocated")[9] == 1024


def test_unmapped_cache_gives_nothing_back() -> None:
    ops = pages_one_by_one(600) + frees(0, 600)
    engine = Engine(load_strategy("unmapped-cache")(), machine(), frames=8192, start_ns=0, end_ns=1)
    free = []
    for part in (ops[:600], ops[600:]):
        engine.feed(ops_of(part))
        free.append(word(engine.machine, 0, at.Z_WORDS, at.Z_FREE))
    assert free[0] == free[1]
    assert engine.machine.w[at.CFG_RESERVE] == 1024
    found = counters(engine.finish())
    assert "pages_freed" not in found
    assert found["tlb_flushes"] == found["cache_refills"] == 2


def test_unmapped_cache_merges_to_order_10() -> None:
    """Two adjacent 2 MiB blocks that come back serve one request of order 10, which no refill would.

    Where the direct map is split already: a page table taken between two refills would lie between their blocks.
    """
    split = machine(direct_map=DirectMap(share_4k=1.0))
    large = request(4096, [10], flags=TARGETED | REQUIRED)
    alone = run_engine(ops_of(large), machine(), "unmapped-cache", frames=8192)
    assert counters(alone)["failures"] == 1
    ops = pages_one_by_one(1024) + frees(0, 1024) + large
    outcome = run_engine(ops_of(ops), split, "unmapped-cache", frames=8192)
    assert "failures" not in counters(outcome)
    assert outcome.machine.w[at.CFG_RESERVE] == 0


# ---------------------------------------------------------------- relations between runs
def mixed_stream(shift: int = 0, gap: int = 1000) -> Ops:
    """Requests of several sizes on two CPUs, most of them freed again."""
    records = []
    for i, pages in enumerate((1, 5, 64, 255, 256, 7, 33)):
        start = i * 512
        cpu = i % 2
        records += request(start, (0,) * pages, flags=TARGETED, cpu=cpu, ts=shift + i * gap)
        if i % 3:
            records += [op(FREE, start + k, cpu=cpu, ts=shift + i * gap + 500) for k in range(pages)]
    return ops_of(records)


def run(ops: Ops, name: str, shift: int = 0, **params: str) -> Outcome:
    engine = Engine(
        load_strategy(name).from_text(params),
        machine(cpus=2),
        frames=8192,
        start_ns=shift,
        end_ns=shift + 7000,
        bins=7,
    )
    engine.feed(ops)
    return engine.finish()


@pytest.mark.parametrize(
    "name", ["per-page", "bulk", "compound", "unmapped-cache", "mempool-bulk", "mempool-bulk-atomic"]
)
def test_time_shift_changes_nothing(name: str) -> None:
    here, later = run(mixed_stream(), name), run(mixed_stream(10**15), name, 10**15)
    assert np.array_equal(here.totals, later.totals)
    assert np.array_equal(here.series, later.series)
    assert vectors_of(here) == vectors_of(later)
    assert picture_of_compiled(here.machine) == picture_of_compiled(later.machine)


def test_compound_of_order_0_is_per_page() -> None:
    singles, compound = run(mixed_stream(), "per-page"), run(mixed_stream(), "compound", max_order="0")
    assert np.array_equal(singles.totals, compound.totals)
    assert vectors_of(singles) == vectors_of(compound)
    assert picture_of_compiled(singles.machine) == picture_of_compiled(compound.machine)


def test_bulk_with_a_cap_of_one_is_per_page() -> None:
    singles, bulk = run(mixed_stream(), "per-page"), run(mixed_stream(), "bulk", batch_cap="1")
    assert picture_of_compiled(singles.machine)["zones"] == picture_of_compiled(bulk.machine)["zones"]
    ours, theirs = counters(singles), counters(bulk)
    assert theirs.pop("bulk_calls") == ours["alloc_calls"]
    assert ours == theirs


@pytest.mark.parametrize(
    "name", ["per-page", "bulk", "compound", "unmapped-cache", "mempool-bulk", "mempool-bulk-atomic"]
)
def test_state_words_hold_the_parameters(name: str) -> None:
    params: Params = load_strategy(name)()
    assert len(params.pack()) == len(params.infos())
    assert params.state_words() >= len(params.pack())
