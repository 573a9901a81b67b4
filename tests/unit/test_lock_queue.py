"""A lock as a closed queue: what is known exactly, and a FIFO lock simulated event by event."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference.slow_lock_queue import waits
from tracereplay.cost.lock_queue import Queue, closed_queue, wait_percentile

HOLD = 1000.0


def one(cpus: float, cycle: float, square: float = HOLD**2, **more: float) -> Queue:
    """A single case of holds of HOLD on average."""
    return closed_queue(*(np.array([x]) for x in (cpus, cycle, HOLD, square)), **more)


def test_one_cpu_never_waits() -> None:
    for cycle in (0.0, HOLD, 1e6):
        queue = one(1, cycle, handover=100.0)
        assert queue.wait[0] == queue.contended[0] == 0
        assert wait_percentile(queue, np.array([5.0]), 0.99) == 0


@pytest.mark.parametrize("cpus", [2, 3, 8, 64, 1024])
def test_where_nobody_ever_thinks_all_others_are_ahead(cpus: int) -> None:
    """The one that has the lock is through with half of its hold, on average; in truth it has only just begun."""
    queue = one(cpus, 0.0)
    assert queue.wait[0] == pytest.approx((cpus - 1.5) * HOLD)
    assert queue.contended[0] == pytest.approx(1)
    handed = one(cpus, 0.0, handover=100.0)
    assert handed.wait[0] > queue.wait[0] + 90


def test_work_between_holds_is_not_waited() -> None:
    """With more to do between holds than the others hold the lock for, a CPU waits little."""
    assert one(4, 0.0, work=100 * HOLD).wait[0] < 0.05 * HOLD
    assert one(4, 0.0, work=0.0).wait[0] > 2.4 * HOLD


@pytest.mark.parametrize("cpus", [1.5, 2, 4, 7.3, 32])
@pytest.mark.parametrize("varies", [0.0, 1.0])
def test_a_lock_little_used_has_the_wait_of_pairs(cpus: float, varies: float) -> None:
    """Each of n acquisitions in a time T meets those of other CPUs: n (1 - 1 / cpus) E[S^2] / 2 T."""
    cycle = 1e4 * HOLD * cpus
    square = HOLD**2 * (1 + varies)
    expected = cpus / cycle * (1 - 1 / cpus) * square / 2
    assert one(cpus, cycle, square).wait[0] == pytest.approx(expected, rel=0.01)


def test_what_is_between_whole_cpus_is_between_their_waits() -> None:
    low, between, high = (one(cpus, 3 * HOLD * cpus).wait[0] for cpus in (3, 3.5, 4))
    assert low < between < high


def simulated(cpus: int, busy: float, *, varies: bool, handover: float, seed: int = 5) -> np.ndarray:
    """Waits at a lock that is in use for a share ``busy`` of the time: CPUs think, ask, hold."""
    rng = np.random.default_rng(seed)
    operations = []
    for cpu in range(cpus):
        n = 30_000 // cpus
        holds = rng.exponential(HOLD, n) if varies else np.full(n, HOLD)
        gaps = rng.exponential(cpus * HOLD / busy - HOLD, n)
        operations.append(
            (float(rng.uniform(0, cpus * HOLD)), cpu, list(zip(holds.tolist(), gaps.tolist(), strict=True)))
        )
    found = waits(operations, handover)
    return np.array([wait for _, _, wait in found[: int(0.9 * len(found))]])


@pytest.mark.parametrize("handover", [0.0, 200.0])
@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize("busy", [0.1, 0.4, 0.7, 0.9])
@pytest.mark.parametrize("cpus", [2, 4, 16, 64])
def test_against_a_lock_event_by_event(cpus: int, busy: float, varies: bool, handover: float) -> None:
    """CPUs whose time between holds does not depend on waits: that is what ``work`` is.

    Holds that are all alike queue less regularly than mean values say: up to a third is missing.
    """
    found = simulated(cpus, busy, varies=varies, handover=handover)
    square = HOLD**2 * (2 if varies else 1)
    queue = one(cpus, 0.0, square, handover=handover, work=cpus * HOLD / busy - HOLD)
    assert queue.wait[0] == pytest.approx(found.mean(), rel=0.12 if varies else 0.32, abs=20)
    assert queue.contended[0] == pytest.approx((found > 0).mean(), abs=0.03 if varies else 0.14)
    assert wait_percentile(queue, np.array([1.0]), 0.99) == pytest.approx(np.quantile(found, 0.99), rel=0.35)


def test_a_percentile_is_of_all_acquisitions() -> None:
    """One in fifty waits: so two in a hundred, and the wait that 99 % do not exceed is their median."""
    queue = Queue(np.array([20.0]), np.array([0.02]), np.array([1.0]))
    assert wait_percentile(queue, np.array([1000.0]), 0.99) == pytest.approx(1000 * np.log(2), rel=0.01)
    assert wait_percentile(queue, np.array([1000.0]), 0.97) == 0
