"""Exact facts about strategies around dm-crypt's mempool and quota (strategies.md section 12, checks 5 to 14)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from tests.replay_samples import op, ops_of, request, run_engine, vectors_of
from tests.unit.test_strategies import MIB, ON, by_order, counters, frees, machine
from tracereplay.demand.paths import parse_path
from tracereplay.demand.stream import FREE, TARGETED
from tracereplay.machine import layout as at
from tracereplay.machine.config import MachineConfig, default_zones
from tracereplay.machine.counters import slot
from tracereplay.replay import layout as replay
from tracereplay.replay.engine import Engine, Outcome, PathConfig
from tracereplay.replay.run import path_config
from tracereplay.strategies.registry import load_strategy

S = 10**9
AT_THE_END = 2
"""Sleeps more, of 5 s, before the engine gives up on a request for which nothing comes."""
NOWAIT, KERNEL = 0x800, 0xCC0
CRYPT = ("per-page", "bulk", "compound", "mempool-bulk")
"""Those with two passes and a mutex."""
TWO_PASSES = [*CRYPT, "mempool-bulk-atomic"]


def at_time(second: float, records: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Records of one time."""
    return [(round(second * S), *record[1:]) for record in records]


def waits(outcome: Outcome) -> tuple[int, int, int]:
    """Requests that waited and got on, that wait at the end, that are stuck."""
    return tuple(int(outcome.scalars[x]) for x in (replay.X_WAITED, replay.X_WAITING, replay.X_STUCK))  # type: ignore[return-value]


def vector(outcome: Outcome, **wanted: int) -> dict[str, int]:
    """The one counter vector of a request that has these counters."""
    found = [dict(v) for v in vectors_of(outcome) if wanted.items() <= dict(v).items()]
    assert len(found) == 1, found
    return found[0]


def used_up(strategy: str, quota: int = 256) -> PathConfig:
    """A quota that leaves nothing but the reserve: mempool-bulk does not count that, so it is asked for less."""
    return PathConfig("dm-crypt", 256, quota - 256 if strategy == "mempool-bulk" else quota)


# ---------------------------------------------------------------- 6: the quota reached exactly; two writers
def test_quota_reached_exactly() -> None:
    """The next 256 pages are the reserve; the request after them fails its first pass, takes the mutex and waits."""
    path = PathConfig("dm-crypt", 256, 512)
    records = [record for k in range(3) for record in request(256 * k, MIB, flags=ON)]
    outcome = run_engine(ops_of(records), machine(), path=path)
    assert vector(outcome, mempool_takes=256) == {
        "mempool_calls": 256,
        "mempool_takes": 256,
        "mempool_lock_acquisitions": 256,
        "callbacks": 256,
        "percpu_counter_ops": 256,
        "quota_refusals": 256,
        "bios": 1,
        "bvec_arrays": 1,
        "bio_vecs": 256,
    }
    third = vector(outcome, restarts=1)
    assert (third["mutex_acquisitions"], third["mempool_waits"]) == (1, 1 + AT_THE_END)
    assert "alloc_calls" not in third
    assert "mempool_takes" not in third
    assert waits(outcome) == (0, 1, 1)
    assert outcome.machine.w[at.POOL_ALLOCATED] == 512
    served = run_engine(ops_of(records + at_time(1, frees(0, 256))), machine(), path=path)
    assert vector(served, restarts=1)["mempool_takes"] == 256
    assert vector(served, restarts=1)["mempool_waits"] == 1 + 255, "each page that comes wakes it"
    assert waits(served) == (1, 0, 0)


def two_writers() -> list[tuple[int, ...]]:
    """Half of the reserve is out when two writers come that want all of it. By the time it comes back the first of
    them has slept for 5 s, looked, and lain down behind the second.
    """
    return [
        *at_time(0, request(0, (0,) * 128, flags=ON)),
        *at_time(1, request(256, MIB, flags=ON)),
        *at_time(2, request(512, MIB, flags=ON)),
        *at_time(6.5, frees(0, 128)),
    ]


def writers_done() -> list[tuple[int, ...]]:
    return two_writers() + at_time(8, frees(256, 256)) + at_time(9, frees(512, 256))


@pytest.mark.parametrize("strategy", CRYPT)
def test_with_the_mutex_two_writers_take_turns(strategy: str) -> None:
    outcome = run_engine(ops_of(two_writers()[:-128]), machine(), strategy, path=used_up(strategy))
    assert waits(outcome) == (0, 2, 2)
    second = [dict(v) for v in vectors_of(outcome) if dict(v).get("restarts")]
    assert sorted(v.get("mutex_acquisitions", 0) for v in second) == [0, 1], "one of them at a time is past it"
    assert sum("mempool_waits" in v for v in second) == 1, "never both asleep on the pool"
    outcome = run_engine(ops_of(two_writers()), machine(), strategy, path=used_up(strategy))
    assert waits(outcome) == (1, 1, 1)
    done = run_engine(ops_of(writers_done()), machine(), strategy, path=used_up(strategy))
    assert waits(done) == (2, 0, 0)
    assert counters(done)["mutex_acquisitions"] == 2
    assert done.machine.w[at.POOL_CURRENT] == 256


@pytest.mark.parametrize("strategy", CRYPT)
def test_without_the_mutex_they_deadlock(strategy: str) -> None:
    """Each holds half of the reserve and waits for the other's."""
    outcome = run_engine(ops_of(writers_done()), machine(), strategy, {"mutex": "false"}, path=used_up(strategy))
    assert waits(outcome) == (0, 2, 2)
    assert "mutex_acquisitions" not in counters(outcome)
    assert outcome.machine.w[at.POOL_CURRENT] == 0
    held = int(
        np.count_nonzero(outcome.machine.pg[3 * outcome.machine.w[at.CFG_NODES] + 2 :: 3] & at.INFO_STATE == at.USED)
    )
    assert held == 256


def test_all_or_none_needs_no_mutex() -> None:
    outcome = run_engine(ops_of(two_writers()), machine(), "mempool-bulk-atomic", path=used_up("mempool-bulk-atomic"))
    assert waits(outcome) == (1, 1, 1)
    done = run_engine(ops_of(writers_done()), machine(), "mempool-bulk-atomic", path=used_up("mempool-bulk-atomic"))
    assert waits(done) == (2, 0, 0)
    found = counters(done)
    assert "mutex_acquisitions" not in found
    assert "restarts" not in found
    assert found["mempool_takes"] == 128 + 256 + 256


# ---------------------------------------------------------------- 7: restart
@pytest.mark.parametrize("strategy", ["per-page", "bulk"])
def test_a_restart_gives_back_all_and_asks_for_all_again(strategy: str) -> None:
    """150 pages beside the reserve: a buffer of 450 gets 406, gives them back, gets them again, and waits for 44."""
    records = [*request(0, (0,) * 50, flags=ON), *request(512, (0,) * 450, flags=ON)]
    outcome = run_engine(ops_of(records), machine(456), strategy, path=PathConfig("dm-crypt", 256, 4096))
    second = vector(outcome, restarts=1)
    assert second["mempool_puts"] == 256, "the reserve first"
    assert second["free_calls"] == second["pages_freed"] == 150
    assert second["mempool_takes"] == 2 * 256
    assert second["pages_allocated"] == 2 * 150
    assert waits(outcome) == (0, 1, 1)
    records += at_time(1, frees(0, 50))
    outcome = run_engine(ops_of(records), machine(456), strategy, path=PathConfig("dm-crypt", 256, 4096))
    assert vector(outcome, restarts=1)["mempool_takes"] == 2 * 256 + 44
    assert waits(outcome) == (1, 0, 0)
    assert outcome.machine.w[at.POOL_CURRENT] == 6


def test_compound_restarts_with_single_pages() -> None:
    """One page short: 64 blocks of 4 go back, and all comes singly, the last page after others were freed."""
    config = machine(20, 0, 64)
    records = [
        *request(512, (0,) * 20),  # background
        *request(0, (0,) * 257, flags=ON),
        *at_time(1, frees(512, 20)),
        *at_time(30, request(1000, [0])),
    ]
    path = PathConfig("dm-crypt", 0, 1 << 20)
    singly = run_engine(ops_of(records), config, "compound", path=path)
    assert by_order(singly, "pages_allocated")[:3] == [257, 0, 256]
    # nothing sets the page aside for the sleeper, which finds it when 5 s are over
    assert waits(singly) == (1, 0, 0)
    assert int(singly.scalars[replay.X_WAIT_LONGEST]) == 5 * S
    large = run_engine(ops_of(records), config, "compound", {"retry_order": "2"}, path=path)
    assert by_order(large, "pages_allocated")[:3] == [1, 0, 2 * 256]


# ---------------------------------------------------------------- 13: the quota (5: test_strategies.py)
def test_quota_overshoot() -> None:
    """The loop never, with an exact counter; a call that is tested once by up to n - 1 pages."""
    ops = ops_of(request(0, MIB, flags=ON))

    def out(strategy: str, quota: int, **params: str) -> int:
        path = PathConfig("dm-crypt", 256, quota)
        return int(run_engine(ops, machine(), strategy, params, path=path).machine.w[at.POOL_ALLOCATED])

    assert out("per-page", 257) == 257
    assert out("compound", 257) == 257
    assert out("bulk", 257) == 257 + 255
    assert out("mempool-bulk", 1) == 1 + 255
    assert out("mempool-bulk", 0) == 0
    assert out("mempool-bulk", 1, quota_check="per_page") == 1
    assert out("mempool-bulk", 257, reserve_counted="true") == 257 + 255
    assert out("mempool-bulk-atomic", 257) == 257 + 255


@pytest.mark.parametrize("cpus", [1, 4])
def test_the_counters_batch_lets_the_loop_overshoot(cpus: int) -> None:
    """Each CPU may keep 31 pages to itself: 256 in the reserve are seen, then up to 31 on each CPU are not."""
    path = PathConfig("dm-crypt", 256, 257, counter_batch=32)
    records = [record for k in range(8) for record in request(256 * k, (0,) * 31, flags=ON, cpu=k % cpus)]
    outcome = run_engine(ops_of(records), machine(cpus=cpus), "per-page", path=path)
    hidden = outcome.machine.w[at.PC : at.PC + cpus]
    # the fill, on the first CPU, is 8 times 32; there one page more than 31 is needed to be seen
    assert hidden.tolist() == [0] + [31] * (cpus - 1)
    taken = counters(outcome)["pages_allocated"]
    assert int(outcome.machine.w[at.POOL_ALLOCATED]) + int(hidden.sum()) == 256 + taken
    assert 256 + taken - path.quota == 31 * cpus


def test_quota_of_memory_and_devices() -> None:
    config = MachineConfig(zones=default_zones(16 << 30), cpus=80, generation="6.1")
    pages = sum(z.pages for z in config.zones)
    one, four = (path_config(parse_path(text), config) for text in ("dm-crypt", "dm-crypt:n_devices=4"))
    assert one is not None
    assert four is not None
    assert (one.quota, one.counter_batch, one.pool_pages) == (pages * 2 // 100, 160, 256)
    assert four.quota == pages * 2 // 100 // 4
    small = path_config(parse_path("dm-crypt"), replace(config, zones=default_zones(512 << 20)))
    assert small is not None
    assert small.quota == 4096


# ---------------------------------------------------------------- 11, 12: calls and locks of the bulk mempools
def bulk_mark(pages: int) -> MachineConfig:
    """A zone with ``pages`` above LOW beside a reserve of 256, and MIN at 0."""
    return machine(*(0,) * 10, 8, low=8192 - 256 - pages)


@pytest.mark.parametrize("form", ["callback", "array"])
def test_a_pass_without_sleep_makes_one_bulk_call(form: str) -> None:
    path = PathConfig("dm-crypt", 256, 1 << 20)
    ops = ops_of(request(0, MIB, flags=ON))
    found = counters(run_engine(ops, bulk_mark(255), "mempool-bulk", {"form": form}, path=path))
    assert found["bulk_calls"] == found["alloc_calls"] == 1, "one page of the ordinary way"
    assert found["mempool_takes"] == 255
    assert found["mempool_calls"] == 1
    assert found["mempool_lock_acquisitions"] == 1 + 255, "the lock is taken anew for each element"
    assert found["callbacks"] == (1 + 1 + 255 if form == "callback" else 1)
    assert found["percpu_counter_ops"] == 2
    under_one = {"form": form, "pop_lock_per_page": "false"}
    assert counters(run_engine(ops, bulk_mark(255), "mempool-bulk", under_one, path=path))[
        "mempool_lock_acquisitions"
    ] == (1)


def test_the_band_in_which_bulk_lives_on_its_reserve() -> None:
    """Below LOW + 256 the loop gets all pages singly, the bulk mempool one."""
    path = PathConfig("dm-crypt", 256, 1 << 20)
    ops = ops_of(request(0, MIB, flags=ON))
    taken = {
        name: counters(run_engine(ops, bulk_mark(255), name, path=path)).get("mempool_takes", 0)
        for name in ("per-page", "bulk", "mempool-bulk")
    }
    assert taken == {"per-page": 0, "bulk": 0, "mempool-bulk": 255}
    assert "mempool_takes" not in counters(run_engine(ops, bulk_mark(257), "mempool-bulk", path=path))


@pytest.mark.parametrize(("form", "pages"), [("callback", 20), ("array", 20)])
def test_sleepable_calls_ask_twice_before_they_wait(form: str, pages: int) -> None:
    """Without a path, on a machine that holds the strategy's reserve of 4 and nothing else."""
    params = {"form": form, "pool_pages": "4"}
    records = request(0, (0,) * pages, flags=TARGETED, gfp=KERNEL)
    outcome = run_engine(ops_of(records), machine(4), "mempool-bulk", params)
    found = counters(outcome)
    assert (found["bulk_calls"], found["mempool_waits"], found["mempool_takes"]) == (
        2 + AT_THE_END,
        1 + AT_THE_END,
        4,
    )
    assert waits(outcome) == (0, 1, 1)
    assert "percpu_counter_ops" not in found, "no path, no quota"
    nowait = counters(
        run_engine(ops_of(request(0, (0,) * pages, flags=TARGETED, gfp=NOWAIT)), machine(4), "mempool-bulk", params)
    )
    assert (nowait["bulk_calls"], nowait["failures"], nowait["mempool_puts"]) == (1, 1, 4)
    assert "mempool_waits" not in nowait


def test_the_atomic_reserve_is_never_taken_in_part() -> None:
    """A reserve of 8 beside 4 pages: 12 come, 8 of them under one lock; 13 wait and leave the reserve whole."""
    path = PathConfig("dm-crypt", 16, 1 << 20)

    def run(pages: int) -> tuple[dict[str, int], int, tuple[int, int, int]]:
        ops = ops_of(request(0, (0,) * 6, flags=ON) + request(64, (0,) * pages, flags=ON))
        outcome = run_engine(ops, machine(26), "mempool-bulk-atomic", path=path)
        second = next(dict(v) for v in vectors_of(outcome) if dict(v).get("mempool_lock_acquisitions"))
        return second, int(outcome.machine.w[at.POOL_CURRENT]), waits(outcome)

    served, left, _ = run(16)
    assert (served["mempool_takes"], served["mempool_lock_acquisitions"], left) == (12, 1, 4)
    exact, left, _ = run(4 + 16 - 4)
    assert left == 4
    assert exact["pages_allocated"] == 4
    more, left, state = run(22)  # two calls: 16, then 6 with a reserve of 4
    assert state == (0, 1, 1)
    assert (more["mempool_takes"], left) == (12, 4)
    assert more["mempool_lock_acquisitions"] == 1 + 2 + 2 * AT_THE_END, "with and without reclaim"


def test_atomic_restart_costs_nothing_and_failure_gives_all_back_at_once() -> None:
    outcome = run_engine(
        ops_of(request(0, (0,) * 30, flags=TARGETED, gfp=NOWAIT)),
        machine(40),
        "mempool-bulk-atomic",
        {"pool_pages": "20"},
    )
    found = counters(outcome)
    # 20 by bulk; 10 of the reserve
    assert (found["pages_allocated"], found["mempool_takes"]) == (20, 10)
    outcome = run_engine(
        ops_of(request(0, (0,) * 45, flags=TARGETED, gfp=NOWAIT)),
        machine(40),
        "mempool-bulk-atomic",
        {"pool_pages": "20"},
    )
    found = counters(outcome)
    assert (found["failures"], found["mempool_puts"], found["free_calls"]) == (1, 20, 20)
    assert outcome.machine.w[at.POOL_CURRENT] == 20


@pytest.mark.parametrize("strategy", ["mempool-bulk", "mempool-bulk-atomic"])
def test_a_reserve_of_its_own_is_charged_to_nobody(strategy: str) -> None:
    engine = Engine(load_strategy(strategy)(), machine(), frames=64, start_ns=0, end_ns=1)
    assert not engine.background.any()
    w = engine.machine.w
    assert (w[at.POOL_MIN], w[at.POOL_CURRENT], w[at.CFG_RESERVE]) == (256, 256, 256)
    engine.feed(ops_of(request(0, (0,) * 20, flags=TARGETED) + at_time(0, frees(0, 20))))
    outcome = engine.finish()
    assert not outcome.background.any()
    assert counters(outcome)["pages_allocated"] == counters(outcome)["pages_freed"] == 20


@pytest.mark.parametrize("strategy", ["mempool-bulk", "mempool-bulk-atomic"])
def test_requests_beside_the_path_leave_its_reserve_alone(strategy: str) -> None:
    path = PathConfig("dm-crypt", 20, 1 << 20)
    outcome = run_engine(ops_of(request(0, (0,) * 30, flags=TARGETED)), machine(40), strategy, path=path)
    found = counters(outcome)
    assert found["failures"] == 1
    assert not {"mempool_calls", "mempool_takes", "percpu_counter_ops"} & found.keys()
    assert outcome.machine.w[at.POOL_CURRENT] == 20


# ---------------------------------------------------------------- 14: waits of 5 s
@pytest.mark.parametrize("strategy", TWO_PASSES)
def test_a_sleeper_looks_again_after_5_s(strategy: str) -> None:
    """Memory that does not come through the mempool wakes nobody."""
    path = PathConfig("dm-crypt", 1, 1 << 20)
    records = [
        *at_time(0, request(0, (0,) * 400)),  # background
        *at_time(1, request(512, (0,) * 30, flags=ON)),
        *at_time(2, [op(FREE, k) for k in range(400)]),
        *at_time(30, request(1000, [0])),
    ]
    config = machine(421)
    outcome = run_engine(ops_of(records), config, strategy, path=path, frames=1024)
    assert waits(outcome) == (1, 0, 0)
    assert int(outcome.scalars[replay.X_WAIT_LONGEST]) == 5 * S
    assert counters(outcome)["mempool_waits"] == 1
    early = ops_of(records[: 400 + 30])
    assert waits(run_engine(early, config, strategy, path=path, frames=1024)) == (0, 1, 1)


def test_pages_given_back_by_a_restart_wake_the_sleeper_at_once() -> None:
    """They go to the reserve, and to the one under the mutex, before anything else happens."""
    records = [
        *at_time(0, request(0, (0,) * 10)),  # background: all but the reserve
        *at_time(1, request(64, (0,) * 20, flags=ON)),  # gets 16
        *at_time(2, frees(0, 10)),
        *at_time(3, request(128, (0,) * 30, flags=ON)),  # gets 10, gives them back
        *at_time(4.5, request(1000, [0])),
    ]
    outcome = run_engine(ops_of(records), machine(26), path=PathConfig("dm-crypt", 16, 1 << 20), frames=1024)
    assert waits(outcome) == (1, 1, 1)
    assert int(outcome.scalars[replay.X_WAIT_NS]) == 2 * S


def test_setup_and_idle_counters() -> None:
    """The reserve counts in dm-crypt's own loop (256 when idle) and not in Yang Shi's (0)."""
    for strategy, idle in (("per-page", 256), ("mempool-bulk", 0), ("mempool-bulk-atomic", 256)):
        path = PathConfig("dm-crypt", 256, 4096, counter_batch=32)
        engine = Engine(load_strategy(strategy)(), machine(), frames=1024, start_ns=0, end_ns=1, path=path)
        seen = []
        for records in ([], request(0, MIB, flags=ON), frees(0, 100), frees(100, 156)):
            engine.feed(ops_of(records))
            w = engine.machine.w
            seen.append(int(w[at.POOL_ALLOCATED] + w[at.PC]))
        assert seen == [idle, idle + 256, idle + 156, idle]
        assert engine.finish().totals[slot("failures")] == 0
