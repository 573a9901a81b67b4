"""Requests that wait: in which order they get on, when their pages are freed, what the end leaves; misuse has names."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.faulty_strategy import Faulty
from tests.reference.machine_check import check_machine
from tests.replay_samples import op, ops_of, request
from tests.waiting_strategy import Waiting
from tracereplay.demand.stream import FREE, ON_PATH, REQUIRED, TARGETED
from tracereplay.errors import StrategyError
from tracereplay.machine.config import MachineConfig, ZoneConfig
from tracereplay.machine.counters import slot
from tracereplay.machine.layout import CFG_MUTEX_OWNER, CFG_NOW, CFG_SHRINK, CFG_TIMER, POOL_CURRENT
from tracereplay.replay import audit
from tracereplay.replay import layout as at
from tracereplay.replay.engine import Engine, Outcome, PathConfig
from tracereplay.replay.result import waits_of, worker_of
from tracereplay.strategies.contract import Params

RESERVE = 8
SECOND = 1_000_000_000


def machine() -> MachineConfig:
    return MachineConfig(zones=(ZoneConfig("Normal", 0, 1 << 16),), cpus=2, occupancy=0.0)


def engine(mode: str, *, params: Params | None = None, reserve: int = RESERVE) -> Engine:
    path = PathConfig("dm-crypt", reserve, 1 << 62)
    params = params or Waiting(mode)
    return Engine(params, machine(), frames=1 << 17, start_ns=0, end_ns=100 * SECOND, bins=10, path=path)


def writer(key: int, pages: int, ts: int, cpu: int = 0) -> list[Any]:
    return request(key, [0] * pages, flags=TARGETED | ON_PATH, ts=ts, cpu=cpu)


def frees(key: int, pages: int, ts: int) -> list[Any]:
    return [op(FREE, key + k, ts=ts) for k in range(pages)]


def held(runner: Engine) -> int:
    """Pages in use, beside those of the reserve."""
    return int(check_machine(runner.machine)["used"]) - int(runner.machine.w[POOL_CURRENT])


def waits(outcome: Outcome) -> dict[str, int | None]:
    return {k: v for k, v in waits_of(outcome).items() if v}


# ---------------------------------------------------------------- two writers on an exhausted reserve
SOMEBODY = writer(0, 6, ts=100)
"""Leaves 2 of the 8 pages."""


def test_two_writers_wait_one_behind_the_other() -> None:
    runner = engine("mutex")
    runner.feed(ops_of([*SOMEBODY, *writer(100, 6, ts=200), *writer(200, 6, ts=300, cpu=1)]))
    assert runner.arrays.x[at.X_PARKED] == 2
    assert runner.machine.w[CFG_MUTEX_OWNER] == 2
    assert held(runner) == 8  # 6 of the first, 2 that the second has while it waits for 4
    # the first one's end feeds the second, whose end, 500 later than recorded, feeds the third
    runner.feed(ops_of([*frees(0, 6, ts=700), *frees(100, 6, ts=900), *frees(200, 6, ts=1000)]))
    outcome = runner.finish()
    assert waits(outcome) == {"requests": 2, "total_ns": 500 + 1100, "longest_ns": 1100}
    assert outcome.machine.w[CFG_MUTEX_OWNER] == 0
    assert outcome.machine.w[CFG_NOW] == 1000 + 1100
    assert outcome.totals[slot("mutex_acquisitions")] == 3
    assert held(runner) == 0
    assert outcome.scalars[at.X_CENSORED] == outcome.scalars[at.X_FAILED] == outcome.scalars[at.X_ORPHANS] == 0


def test_without_the_mutex_they_deadlock() -> None:
    done = {}
    for mode in ("mutex", "no-mutex"):
        runner = engine(mode)
        runner.feed(ops_of([*writer(0, 8, ts=100), *writer(100, 6, ts=200), *writer(200, 6, ts=300, cpu=1)]))
        runner.feed(ops_of([op(FREE, k, ts=1000 + k) for k in range(8)]))
        runner.feed(ops_of([*frees(100, 6, ts=2000), *frees(200, 6, ts=3000)]))
        done[mode] = waits(runner.finish())
        assert held(runner) == runner.arrays.x[at.X_WAITING_PAGES] == (8 if mode == "no-mutex" else 0)
        assert audit.problem(runner.machine, runner.arrays) is None
    # each page that came went to the writer that had waited longer for one: 4 and 4 of the 6 that each needs
    assert done["no-mutex"] == {
        "requests": 2,
        "waiting_at_end": 2,
        "deadlocked": 2,
        "deadlocked_since_ns": 1007,
    }
    assert done["mutex"] == {"requests": 2, "total_ns": 805 + 2505, "longest_ns": 2505}


def test_a_deadlock_is_told_with_the_time_since_when() -> None:
    runner = engine("no-mutex")
    runner.feed(ops_of([*writer(0, 6, ts=200), *frees(0, 6, ts=250), *writer(100, 5, ts=300), *frees(100, 5, ts=350)]))
    runner.feed(ops_of([*writer(200, 9, ts=400, cpu=1), *writer(300, 9, ts=500), *frees(200, 9, ts=600)]))
    outcome = runner.finish()
    assert waits(outcome) == {
        "requests": 2,
        "waiting_at_end": 2,
        "deadlocked": 2,
        "deadlocked_since_ns": 400,
    }
    assert held(runner) == 8
    assert outcome.counts.sum() == 4


def test_who_waits_for_pages_that_stay_with_others_is_not_deadlocked() -> None:
    runner = engine("mutex")
    runner.feed(ops_of([*SOMEBODY, *writer(100, 6, ts=200)]))
    outcome = runner.finish()
    assert waits(outcome) == {"requests": 1, "waiting_at_end": 1}
    assert outcome.scalars[at.X_CENSORED] == 1


# ---------------------------------------------------------------- order and times
def test_the_mutex_goes_round_in_the_order_of_asking() -> None:
    runner = engine("mutex")
    asks = [writer(100 * k, 8, ts=100 + k, cpu=k % 2) for k in range(1, 6)]
    runner.feed(ops_of([*writer(0, 8, ts=50), *(r for ask in asks for r in ask)]))
    ends = []
    runner.feed(ops_of(frees(0, 8, ts=1000)))
    for k in range(1, 6):
        runner.feed(ops_of([op(FREE, 100 * k + i, ts=1000 + 10 * k) for i in range(8)]))
        ends.append(int(runner.arrays.x[at.X_WAITED]))
    outcome = runner.finish()
    assert ends == sorted(ends)
    assert waits(outcome)["requests"] == 5
    # each holds all of the reserve from its grant to its recorded free plus its wait
    grant, total = 1000, 0
    for k in range(1, 6):
        delay = grant - (100 + k)
        total += delay
        grant = 1000 + 10 * k + delay
    assert waits(outcome)["total_ns"] == total


def test_a_page_freed_while_its_request_waits_is_freed_that_much_later() -> None:
    runner = engine("mutex")
    runner.feed(ops_of([*writer(0, 8, ts=100), *writer(100, 4, ts=200), *frees(100, 4, ts=260)]))
    # the keys are used again before the delayed frees
    runner.feed(ops_of([*request(100, [2], ts=300), *frees(0, 8, ts=1200), op(FREE, 100, 2, ts=1201)]))
    assert runner.arrays.x[at.X_PENDING] == 4
    outcome = runner.finish()
    assert outcome.machine.w[CFG_NOW] == 260 + 1000
    assert waits(outcome) == {"requests": 1, "total_ns": 1000, "longest_ns": 1000}
    assert held(runner) == 0
    assert outcome.background[slot("pages_freed")] == 4


def test_the_end_is_told_apart_by_batches_of_one() -> None:
    records = [*SOMEBODY, *writer(100, 6, ts=200), *writer(200, 6, ts=300)]
    records += [*frees(0, 6, ts=700), *frees(100, 6, ts=900)]
    outcomes = []
    for size in (1, 1000):
        runner = engine("mutex")
        starts = [i for i, r in enumerate(records) if r[7] == FREE or r[6] & 1] + [len(records)]
        cuts = starts if size == 1 else [0, len(records)]
        for first, last in pairwise(cuts):
            runner.feed(ops_of(records[first:last]))
        outcome = runner.finish()
        outcomes.append((waits_of(outcome), outcome.totals.tolist(), outcome.worker.tolist()))
    assert outcomes[0] == outcomes[1]


def test_thousands_may_wait() -> None:
    runner = engine("mutex")
    runner.feed(ops_of([*writer(0, 8, ts=1), *(r for k in range(1, 5000) for r in writer(8 * k, 8, ts=10))]))
    assert runner.arrays.x[at.X_PARKED] == 4999
    runner.feed(ops_of([op(FREE, key, ts=20) for key in range(8 * 5000)]))
    outcome = runner.finish()
    assert waits(outcome)["requests"] == 4999
    assert waits(outcome)["longest_ns"] == 10 * 4999
    assert held(runner) == 0


def test_the_agenda_grows() -> None:
    runner = engine("mutex", reserve=40_000)
    room = int(runner.arrays.x[at.X_AGENDA_ROOM])
    keys = range(0, 5 * 16384, 16384)
    large = {key: request(key, [10] * 16, flags=TARGETED | ON_PATH, ts=10) for key in keys}
    runner.feed(ops_of([r for records in large.values() for r in records]))
    assert runner.arrays.x[at.X_PARKED] == 3
    runner.feed(ops_of([op(FREE, key + (k << 10), 10, ts=100) for key in list(large)[2:] for k in range(16)]))
    runner.feed(ops_of([op(FREE, key + (k << 10), 10, ts=200) for key in list(large)[:2] for k in range(16)]))
    outcome = runner.finish()
    assert runner.arrays.x[at.X_AGENDA_ROOM] > room
    assert waits(outcome)["requests"] == 3
    assert held(runner) == 0


# ---------------------------------------------------------------- workers
def test_the_strategy_s_own_work_is_no_request_s() -> None:
    runner = engine("random")
    runner.feed(ops_of([*SOMEBODY, op(FREE, 0, ts=2 * SECOND)]))
    outcome = runner.finish()
    assert sum(worker_of(outcome).values()) > 0
    assert runner.state[1] > 0  # timer runs
    assert (
        outcome.totals[: len(outcome.vectors[0])].tolist()
        == (outcome.vectors * outcome.counts[:, None]).sum(axis=0).tolist()
    )


def test_reclaim_reaches_the_shrinker() -> None:
    runner = engine("mutex")
    runner.machine.w[CFG_SHRINK] = 3  # as reclaim.ask_shrinker leaves it
    runner.machine.w[CFG_TIMER] = 0
    runner.feed(ops_of(request(0, [0], ts=5)))
    outcome = runner.finish()
    assert outcome.worker[slot("pages_freed")] == 3
    assert outcome.machine.w[POOL_CURRENT] == RESERVE - 3


# ---------------------------------------------------------------- misuse
def replayed(runner: Engine, records: list[Any]) -> Outcome:
    runner.feed(ops_of(records))
    return runner.finish()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("waits-unknown", "waits for what cannot come"),
        ("waits-past", "waits for what cannot come"),
        ("waits-free-mutex", "waits for what cannot come"),
        ("keeps-mutex", "still holds the mutex"),
        ("waits-with-foreign", "gave frame 0x0, which it does not hold"),
        ("times-over", "over and over at one simulated time"),
    ],
)
def test_misuse_is_named(fault: str, says: str) -> None:
    runner = engine("", params=Faulty(fault))
    with pytest.raises(StrategyError, match=says):
        replayed(runner, [*writer(0, 3, ts=1), *writer(100, 3, ts=2)])


def test_a_request_that_needs_contiguity_may_not_wait() -> None:
    runner = engine("", params=Faulty("waits-unknown"))
    with pytest.raises(StrategyError, match="waits with a request that needs contiguity"):
        runner.feed(ops_of(request(0, [3], flags=TARGETED | REQUIRED)))
