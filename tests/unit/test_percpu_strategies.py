"""Exact facts about the strategies with caches per CPU, on the real engine: hits, misses, workers, shrinkers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.replay_samples import op, ops_of, request
from tracereplay.demand.stream import FREE, FREE_INITIAL, REQUIRED, TARGETED
from tracereplay.errors import ParameterError, StrategyError
from tracereplay.machine import layout as at
from tracereplay.machine.config import MachineConfig, Watermarks, ZoneConfig
from tracereplay.machine.counters import COUNTERS
from tracereplay.replay.engine import Engine
from tracereplay.replay.layout import X_FAILED, X_WORKER
from tracereplay.replay.result import reserve_of
from tracereplay.strategies.percpu import CPU_WORDS, CPUS_AT
from tracereplay.strategies.registry import load_strategy

US, MS, SECOND = 1_000, 1_000_000, 1_000_000_000
DELAY = {"scheduler_min": "100", "scheduler_max": "100"}
"""Every worker runs 100 us after it was started."""
LATER = 100 * US
MOVABLE = 0x100CCA


def roomy(cpus: int = 2, *, low: int = 0, **more: Any) -> MachineConfig:
    """128 MiB, all free."""
    zone = ZoneConfig("Normal", 0, 1 << 15, watermarks=Watermarks((0, 0, 0, 0), low // 2, low, low))
    return replace(MachineConfig(zones=(zone,), cpus=cpus, occupancy=0.0), **more)


def two_nodes(*free: int) -> MachineConfig:
    """A CPU and 32 MiB on each of two nodes, with so many free blocks of order 10."""
    zones = tuple(
        ZoneConfig("Normal", n * 8192, n * 8192 + 8192, n, watermarks=Watermarks(), free_blocks=(0,) * 10 + (blocks,))
        for n, blocks in enumerate(free)
    )
    return MachineConfig(zones=zones, cpus=2, nodes=2)


class Run:
    """A strategy on a machine, step by step; keys are handed out in turn."""

    def __init__(self, name: str, config: MachineConfig | None = None, **params: str) -> None:
        self.engine = Engine(
            load_strategy(name).from_text(params), config or roomy(), frames=8192, start_ns=0, end_ns=60 * SECOND
        )
        self.machine = self.engine.machine
        self.key = 0
        self.now = 0

    def ask(self, pages: int = 1, *, cpu: int = 0, gfp: int = 0xCC0, ts: int | None = None) -> int:
        """A request of single pages; its first key."""
        key, self.key = self.key, self.key + pages
        self.at(ts, request(key, [0] * pages, flags=TARGETED, cpu=cpu, gfp=gfp, ts=self.now if ts is None else ts))
        return key

    def free(self, *keys: int, cpu: int = 0, ts: int | None = None) -> None:
        self.at(ts, [op(FREE, key, cpu=cpu, ts=self.now if ts is None else ts) for key in keys])

    def at(self, ts: int | None, records: list[Any]) -> None:
        self.now = self.now if ts is None else ts
        self.engine.feed(ops_of(records))

    def pass_time(self, to: int) -> None:
        """Nothing but time goes by: a free of a page that nobody holds."""
        self.at(to, [op(FREE_INITIAL, 8191, ts=to)])

    def shrink(self, pages: int) -> None:
        """Reclaim asks the strategy's shrinker."""
        self.machine.w[at.CFG_SHRINK] += pages
        self.machine.w[at.CFG_TIMER] = 0
        self.pass_time(self.now)

    def word(self, cpu: int, place: int = 0) -> int:
        """A word of a CPU: how many pages its cache holds, unless another is named."""
        return int(self.engine.state[CPUS_AT + cpu * CPU_WORDS + place])

    def frame(self, key: int) -> int:
        """Frame that serves a key; -1 for none."""
        return (int(self.engine.arrays.fm[key]) & (1 << 30) - 1) - 1

    def cached(self, cpu: int) -> list[int]:
        """Frames on a CPU's stack, the head first."""
        head = int(self.machine.w[at.CFG_STRATEGY_LIST]) + cpu
        first = int(self.machine.w[at.CFG_NODES])
        found, node = [], int(self.machine.pg[3 * head])
        while node != head:
            found.append(node - first)
            node = int(self.machine.pg[3 * node])
        assert len(found) == self.word(cpu)
        return found

    def counts(self, *names: str) -> Any:
        """Counters so far, of requests and of the strategy's own work together."""
        outcome = self.engine.finish()
        rows = outcome.totals + outcome.worker
        found = [int(rows[COUNTERS.index(name)]) for name in names]
        return found[0] if len(found) == 1 else found

    def own_work(self, name: str) -> int:
        """A counter of the worker and the shrinker so far."""
        return int(self.engine.arrays.x[X_WORKER + COUNTERS.index(name)])

    @property
    def failed(self) -> int:
        """Requests that failed so far."""
        return int(self.engine.arrays.x[X_FAILED])


# ---------------------------------------------------------------- idle pages over time, and dry spells
@pytest.mark.parametrize("name", ["kvfree-cache", "background-pool"])
def test_a_dry_spell_lasts_from_the_first_miss_until_pages_come(name: str) -> None:
    params = (
        {"prefill": "false", "low": "0", "high": "5", "base": "5", "most": "5"} if name == "background-pool" else {}
    )
    run = Run(name, **DELAY, **params)
    for ts in (10, 20):
        run.ask(ts=ts)
    run.ask(cpu=1, ts=50 * US)  # another CPU's cache, which serves again 10 ns later than the first one's
    run.pass_time(SECOND)
    keys = [run.ask() for _ in range(5)]
    if name == "background-pool":  # its worker is under way since the last page went, so this one misses
        run.ask(ts=SECOND + 1)
        run.pass_time(SECOND + LATER + 1)
        spells = reserve_of(run.engine.finish())
        assert (run.failed, spells["dry_spells"], spells["dry_ns"]) == (4, 3, 3 * LATER - 1)
        return
    run.ask(ts=3 * SECOND)
    run.free(*keys, ts=3 * SECOND + 40 * US)  # pages that come back end it before the worker does
    spells = reserve_of(run.engine.finish())
    assert (run.failed, spells["dry_spells"]) == (4, 3)
    assert spells["dry_ns"] == LATER + LATER + 40 * US
    assert spells["dry_longest_ms"] == LATER / MS
    assert spells["dry_mean_ms"] == pytest.approx(0.08)


def test_a_spell_that_the_end_cuts_off_does_not_count() -> None:
    run = Run("kvfree-cache", **DELAY)
    run.ask(ts=SECOND)
    spells = reserve_of(run.engine.finish())
    assert (spells["dry_spells"], spells["dry_ns"], spells["dry_mean_ms"]) == (0, 0, None)


def test_idle_pages_count_with_their_time() -> None:
    run = Run("kvfree-cache", **DELAY)
    run.ask(ts=0)
    run.pass_time(LATER)  # five idle pages
    key = run.ask(ts=500 * US)  # four
    run.free(key, ts=700 * US)  # five
    run.pass_time(MS)
    found = reserve_of(run.engine.finish())
    assert found["page_us"] == 5 * 400 + 4 * 200 + 5 * 300
    assert found["idle_mean"] == 4.3


# ---------------------------------------------------------------- kvfree-cache: self-check 18
def test_the_first_miss_starts_one_worker_which_adds_five_pages() -> None:
    run = Run("kvfree-cache", **DELAY)
    for ts in (0, 10, 99 * US):
        run.ask(ts=ts)
    assert (run.failed, run.word(0)) == (3, 0)
    run.pass_time(LATER)
    assert (run.own_work("worker_runs"), run.own_work("pages_allocated"), run.word(0)) == (1, 5, 5)
    for _ in range(5):
        run.ask()
    run.pass_time(SECOND)
    assert run.word(0) == 0, "an empty cache starts nothing: a miss does"
    assert (run.failed, run.own_work("worker_runs")) == (3, 1)
    run.ask()
    assert run.failed == 4
    run.pass_time(SECOND + LATER)
    assert (run.own_work("worker_runs"), run.word(0), run.word(1)) == (2, 5, 0)
    assert run.counts("worker_wakeups", "cache_hits", "cache_misses", "failures") == [2, 5, 4, 4]


def test_after_a_shrinker_the_next_worker_comes_five_seconds_later_with_one_page() -> None:
    run = Run("kvfree-cache", **DELAY)
    run.ask()
    run.pass_time(LATER)
    run.shrink(3)
    assert run.word(0) == 0, "the scan empties a whole cache"
    assert run.own_work("pages_freed") == 5
    run.ask(ts=SECOND)
    run.pass_time(6 * SECOND + LATER - 1)
    assert (run.own_work("worker_runs"), run.word(0)) == (1, 0)
    run.pass_time(6 * SECOND + LATER)
    assert (run.own_work("worker_runs"), run.word(0)) == (2, 1)
    run.ask()
    run.ask()  # a miss: the backoff is over
    run.pass_time(6 * SECOND + 2 * LATER)
    assert (run.own_work("worker_runs"), run.word(0)) == (3, 5)


def test_a_shrinker_that_comes_while_the_worker_waits_leaves_it_one_page() -> None:
    run = Run("kvfree-cache", **DELAY)
    run.ask(cpu=1)
    run.shrink(1)
    run.pass_time(LATER)
    assert run.word(1) == 1


def test_the_scan_ends_with_what_it_was_asked_for_and_the_count_reaches_every_cpu() -> None:
    run = Run("kvfree-cache", roomy(3), **DELAY)
    for cpu in range(3):
        run.ask(cpu=cpu)
    run.pass_time(LATER)
    run.shrink(6)
    assert [run.word(cpu) for cpu in range(3)] == [0, 0, 5]
    assert [run.word(cpu, 2) for cpu in range(3)] == [1, 1, 1]


def test_pages_come_back_to_the_cache_that_they_were_taken_from() -> None:
    run = Run("kvfree-cache", **DELAY)
    run.ask()
    run.pass_time(LATER)
    keys = [run.ask() for _ in range(5)]
    frames = [run.frame(key) for key in keys]
    run.ask()  # a miss: five more
    run.pass_time(2 * LATER)
    run.free(keys[0], cpu=1)
    assert (run.word(0), run.word(1)) == (5, 0), "the cache is full: freed"
    run.ask()
    run.free(keys[1], keys[2], cpu=1)
    assert run.word(0) == 5
    assert run.cached(0)[0] == frames[1], "the page put last is taken first"
    assert run.counts("cache_puts", "free_calls", "remote_frees") == [1, 2, 2]


def test_the_sleeping_form_allocates_on_a_miss() -> None:
    run = Run("kvfree-cache", form="one_arg", **DELAY)
    keys = [run.ask() for _ in range(7)]
    assert run.failed == 0
    run.pass_time(SECOND)
    run.free(*keys)
    assert run.word(0) == 5
    assert run.counts("worker_wakeups", "worker_runs", "alloc_calls", "cache_misses") == [0, 0, 7, 7]


def test_the_sleeping_form_starts_the_worker_when_memory_is_out() -> None:
    nothing = two_nodes(0, 0)
    run = Run("kvfree-cache", nothing, form="one_arg", **DELAY)
    run.ask()
    assert run.failed == 1
    run.pass_time(LATER)
    assert (run.own_work("worker_runs"), run.word(0)) == (1, 0)
    assert run.counts("worker_wakeups", "cache_refills", "cache_misses") == [1, 0, 1]


def test_without_a_cache_nothing_is_started() -> None:
    run = Run("kvfree-cache", cached="0", **DELAY)
    run.ask()
    run.pass_time(SECOND)
    assert run.counts("worker_wakeups", "worker_runs", "failures") == [0, 0, 1]


def test_the_scheduler_s_delay_is_by_chance_and_by_the_seed() -> None:
    def runs_at(seed: int) -> list[int]:
        found = []
        run = Run("kvfree-cache", roomy(8, seed=seed))
        for cpu in range(8):
            run.ask(cpu=cpu)
        for ts in range(0, 11 * MS, 50 * US):
            run.pass_time(ts)
            found.append(run.own_work("worker_runs"))
        return found

    first = runs_at(1)
    assert first[1] <= 1
    assert first[-1] == 8
    assert len(set(first)) > 3
    assert runs_at(1) == first != runs_at(2)


def test_a_request_of_several_pages_is_all_or_nothing() -> None:
    run = Run("kvfree-cache", **DELAY)
    run.ask()
    run.pass_time(LATER)
    held = run.cached(0)
    run.ask(6)
    assert (run.failed, sorted(run.cached(0))) == (2, sorted(held))
    run.ask(5)
    assert (run.failed, run.cached(0)) == (2, [])


@pytest.mark.parametrize("name", ["kvfree-cache", "background-pool", "rcu-lockless", "page-pool"])
def test_larger_blocks_come_from_the_page_allocator(name: str) -> None:
    run = Run(name)
    run.at(1, request(1024, [3], flags=TARGETED | REQUIRED, ts=1))
    assert run.failed == 0
    run.at(2, [op(FREE, 1024, 3, ts=2)])
    assert run.counts("cache_hits", "cache_misses", "free_calls") == [0, 0, 1]


# ---------------------------------------------------------------- background-pool
def test_the_worker_comes_when_the_pool_is_low() -> None:
    run = Run("background-pool", **DELAY)
    run.pass_time(1)
    assert [run.word(cpu) for cpu in (0, 1)] == [32, 32]
    for _ in range(23):
        run.ask()
    run.pass_time(MS)
    assert run.word(0) == 9, "not low yet"
    run.ask()
    run.ask(ts=MS + LATER - 1)
    assert run.word(0) == 7
    run.pass_time(MS + LATER)
    assert (run.word(0), run.own_work("worker_runs")) == (32, 3)
    assert run.counts("cache_hits", "cache_misses", "worker_wakeups", "failures") == [25, 0, 1, 0]


def test_an_emergency_doubles_the_pool_once_and_idleness_halves_it() -> None:
    run = Run("background-pool", roomy(1), **DELAY)
    run.pass_time(1)
    for _ in range(34):
        run.ask()
    assert (run.failed, run.word(0, 1)) == (2, 64)
    run.pass_time(LATER + 1)
    assert run.word(0) == 64
    for _ in range(65):
        run.ask()
    assert (run.failed, run.word(0, 1)) == (3, 128)
    last = run.now
    run.pass_time(last + LATER)
    assert run.word(0) == 128
    run.pass_time(last + SECOND - 1)
    assert run.word(0) == 128
    run.pass_time(last + SECOND)
    assert (run.word(0), run.word(0, 1)) == (64, 64)
    run.pass_time(last + 2 * SECOND)
    assert (run.word(0), run.word(0, 1)) == (32, 32)
    run.pass_time(last + 9 * SECOND)
    assert (run.word(0), run.word(0, 1)) == (32, 32)


def test_use_keeps_a_grown_pool() -> None:
    run = Run("background-pool", roomy(1), **DELAY)
    run.pass_time(1)
    for _ in range(33):
        run.ask()
    for tenth in range(1, 30):
        run.ask(ts=tenth * SECOND // 10)
    assert run.word(0, 1) == 64
    run.pass_time(29 * SECOND // 10 + SECOND)
    assert run.word(0, 1) == 32


def test_a_pool_grows_no_further_than_most() -> None:
    run = Run("background-pool", roomy(1), most="100", **DELAY)
    run.pass_time(1)
    for _ in range(3):
        for _ in range(101):
            run.ask()
        run.pass_time(run.now + 2 * LATER)
    assert (run.word(0), run.word(0, 1)) == (100, 100)


def test_the_shrinker_takes_all_and_holds_the_workers_off() -> None:
    run = Run("background-pool", **DELAY)
    run.pass_time(1)
    for _ in range(24):
        run.ask(cpu=1)  # its worker is queued
    run.shrink(1)
    assert [run.word(cpu) for cpu in (0, 1)] == [0, 0]
    assert run.own_work("pages_freed") == 32 + 8
    run.ask()
    run.pass_time(5 * SECOND + LATER)
    assert [run.word(cpu) for cpu in (0, 1)] == [0, 0]
    run.pass_time(5 * SECOND + LATER + 1)
    assert [run.word(cpu) for cpu in (0, 1)] == [32, 32], "what CPU 0 had grown by is over after idle seconds"
    assert run.own_work("worker_runs") == 4


def test_an_empty_pool_may_go_to_the_allocator() -> None:
    run = Run("background-pool", prefill="false", on_empty="allocate", **DELAY)
    keys = [run.ask(gfp=MOVABLE) for _ in range(40)]
    assert (run.failed, run.word(0)) == (0, 0)
    run.free(*keys)
    assert run.word(0) == 40, "within what a grown pool may hold"
    run.pass_time(LATER)
    assert run.word(0) == 64, "and the worker fills it to that"
    run.pass_time(5 * SECOND)
    assert run.word(0) == 32
    run.ask(cpu=1, gfp=MOVABLE)
    assert run.counts("cache_misses", "cache_hits", "alloc_calls", "cache_puts") == [41, 0, 41 + 24, 40]
    movable = run.machine.pb.reshape(-1, at.B_WORDS)[:, at.B_MOVABLE]
    assert movable.sum() == 1, "only the last page is one that was asked for as movable"


def test_pools_of_pages_that_came_back_are_those_of_the_freeing_cpu() -> None:
    run = Run("background-pool", **DELAY)
    run.pass_time(1)
    keys = [run.ask() for _ in range(3)]
    run.free(*keys, cpu=1)
    assert [run.word(cpu) for cpu in (0, 1)] == [29, 32]
    assert run.counts("free_calls", "cache_puts") == [3, 0]


@pytest.mark.parametrize(
    "params", [{"low": "32"}, {"high": "33"}, {"most": "31"}, {"scheduler_min": "11000"}, {"worker_delay": "-1"}]
)
def test_parameters_that_do_not_fit_together(params: dict[str, str]) -> None:
    with pytest.raises(ParameterError):
        load_strategy("background-pool").from_text(params)


# ---------------------------------------------------------------- rcu-lockless
def listed(run: Run, gfp: int = 0xCC0) -> int:
    """One background allocation: the refill leaves pages on the list. How many."""
    run.at(run.now, [op(1, 5000 + run.key, gfp=gfp, ts=run.now, pages=1, flags=1)])
    run.key += 1
    return int(run.machine.w[at.P_COUNT])


def test_lockless_serves_what_is_listed_and_no_more() -> None:
    run = Run("rcu-lockless", refill_worker="false")
    run.ask()
    assert run.failed == 1
    pages = listed(run)
    assert pages > 3
    for _ in range(pages + 3):
        run.ask()
    assert run.failed == 1 + 3
    assert run.machine.w[at.P_COUNT] == 0
    outcome = run.engine.finish()
    found = dict(zip(COUNTERS, outcome.totals.tolist(), strict=False))
    assert (found["zone_lock_acquisitions"], found["pcp_refills"], found["watermark_checks"]) == (0, 0, 0)
    assert (found["alloc_calls"], found["pcp_hits"], found["failed_attempts"]) == (pages + 4, pages, 4)
    assert found["pcp_lock_acquisitions"] == pages + 4


def test_any_type_takes_movable_pages_and_own_does_not() -> None:
    for types, failed in (("any", 0), ("own", 1)):
        run = Run("rcu-lockless", types=types, refill_worker="false")
        before = listed(run, MOVABLE)
        run.ask()
        assert run.failed == failed
        assert run.machine.w[at.P_COUNT] == before - 1 + failed


def test_babkas_variant_respects_type_and_watermarks() -> None:
    run = Run("rcu-lockless", watermark="true", refill_worker="false")
    pages = listed(run, MOVABLE)
    run.ask()
    assert run.failed == 1
    run.ask(gfp=MOVABLE)
    assert (run.failed, run.machine.w[at.P_COUNT]) == (1, pages - 1)
    # below MIN for an ordinary request, and within reach of one that may use half of it
    for gfp, failed in ((0xCC0, 1), (0x820, 0)):
        scarce = Run("rcu-lockless", roomy(low=66000), watermark="true", refill_worker="false")
        assert listed(scarce, 0x20820) > 0  # whatever the watermarks
        scarce.ask(gfp=gfp)
        assert scarce.failed == failed
    plain = Run("rcu-lockless", roomy(low=66000), refill_worker="false")
    listed(plain, 0x20820)
    plain.ask()
    assert plain.failed == 0


def test_the_companion_fills_the_cache_and_the_list_on_the_way() -> None:
    run = Run("rcu-lockless", **DELAY)
    run.ask()
    assert run.failed == 1
    run.pass_time(LATER)
    assert (run.word(0), run.own_work("worker_runs"), run.own_work("pcp_refills")) == (5, 1, 1)
    left = int(run.machine.w[at.P_COUNT])
    for _ in range(5 + left):
        run.ask()
    assert run.failed == 1
    run.ask()
    assert run.failed == 2
    assert run.counts("cache_hits", "cache_misses", "worker_wakeups") == [5, 1 + left + 1, 2]


# ---------------------------------------------------------------- page-pool: self-check 20
def test_a_refill_of_64_serves_64() -> None:
    run = Run("page-pool")
    for left in range(63, -1, -1):
        run.ask()
        assert run.word(0) == left
    run.ask()
    assert run.word(0) == 63
    assert run.counts("bulk_calls", "cache_refills", "pages_allocated", "unlocked_hits") == [2, 2, 128, 63]


def test_the_stack_never_exceeds_128_and_the_ring_overflows_into_frees() -> None:
    run = Run("page-pool", ring="100")
    keys = [run.ask() for _ in range(320)]
    for i, key in enumerate(keys):
        run.free(key)
        assert run.word(0) == min(i + 1, 128)
        assert run.word(0, 1) == min(max(i + 1 - 128, 0), 100)
    assert run.counts("unlocked_puts", "cache_puts", "free_calls") == [128, 100, 92]


def test_pages_freed_elsewhere_go_to_the_ring_and_come_back_by_64() -> None:
    run = Run("page-pool")
    keys = [run.ask() for _ in range(128)]
    frames = [run.frame(key) for key in keys]
    run.free(*keys, cpu=1)
    assert (run.word(0), run.word(0, 1), run.word(1), run.word(1, 1)) == (0, 128, 0, 0)
    again = run.ask()
    assert (run.word(0), run.word(0, 1)) == (63, 64)
    assert run.frame(again) == frames[63], "the oldest 64 of the ring, the last of them on top"
    assert run.counts("bulk_calls", "unlocked_hits", "cache_misses") == [2, 128 - 2 + 1, 2]


@pytest.mark.parametrize("match", ["true", "false"])
def test_a_foreign_page_in_the_ring_ends_the_refill(match: str) -> None:
    run = Run("page-pool", two_nodes(0, 4), numa_match=match, refill="4")
    keys = [run.ask() for _ in range(3)]  # from the other node, one by one
    assert all(run.frame(key) >= 8192 for key in keys)
    run.free(*keys, cpu=1)
    assert run.word(0, 1) == 3
    run.ask()
    assert run.word(0, 1) == (2 if match == "true" else 0)
    assert run.counts("bulk_calls", "free_calls") == ([4, 1] if match == "true" else [3, 0])


def test_a_pool_without_memory_drops_the_packet() -> None:
    run = Run("page-pool", two_nodes(0, 0))
    run.ask(4)
    assert run.counts("failures", "cache_misses", "cache_refills") == [1, 1, 0]


def test_a_pool_needs_the_bulk_allocator() -> None:
    run = Run("page-pool", roomy(generation="5.10"))
    with pytest.raises(StrategyError, match="alloc_pages_bulk"):
        run.ask()
