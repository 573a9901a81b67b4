"""Waiting at zone locks, priced after the replay: holds by time slot, a profile's prices, a closed queue.

Nothing is reordered: what each acquisition waits is reckoned as if the others came when the replay has them come
(docs/contention.md states the model and what it leaves out). Per-CPU lists have a lock each that only their CPU takes,
but for drains of all lists; who finds one taken does not wait.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tracereplay.cost.lock_queue import Queue, closed_queue, wait_percentile
from tracereplay.cost.price import price, price_by_counter
from tracereplay.machine import layout as at
from tracereplay.machine.counters import COUNTERS
from tracereplay.machine.layout import ZONE_NAMES
from tracereplay.replay import layout as loop
from tracereplay.replay.holds import busiest_slot, slot_classes

if TYPE_CHECKING:
    from tracereplay.cost.profile import Profile
    from tracereplay.machine.config import MachineConfig
    from tracereplay.replay.engine import Outcome

Floats = npt.NDArray[np.float64]

HANDOVER = "lock_handover"
"""Parameter of a profile: what passing a contended lock to another CPU takes."""
UNDER_LOCK = {
    at.H_LOCKS: "zone_lock_acquisitions",
    at.H_REFILL_BLOCKS: "pcp_refill_blocks",
    at.H_REFILL_PAGES: "pcp_refill_pages",
    at.H_DRAIN_BLOCKS: "pcp_drain_blocks",
    at.H_DRAIN_PAGES: "pcp_drain_pages",
    at.H_ALLOCS: "allocs_buddy",
    at.H_FREES: "frees_buddy",
    at.H_SPLITS: "splits",
    at.H_MERGES: "merges",
    at.H_FALLBACKS: "fallbacks",
    at.H_MOVES: "fallback_block_moves",
}
"""What is counted while a zone lock is held. Its price is the length of the hold."""
CHECKED = "new_pages_checked"
"""Refills check the pages that they move, up to 6.2."""


@dataclass(frozen=True, slots=True)
class HoldPrices:
    """A profile as far as it prices work under a zone lock, in ns."""

    weights: Floats
    """By word of a row of holds."""
    handover: float

    def totals(self, rows: npt.NDArray[Any]) -> Floats:
        """Time for which the lock is held, row by row."""
        return np.asarray(rows @ self.weights)

    def squares(self, rows: npt.NDArray[Any]) -> Floats:
        """Mean square of a hold, row by row.

        The acquisition costs the same in each hold, the rest goes with its work units, of which the squares are known;
        a pageblock taken from another type falls into any hold alike.
        """
        locks = np.maximum(rows[:, at.H_LOCKS], 1).astype(np.float64)
        moves = rows[:, at.H_MOVES] / locks
        move, fixed = self.weights[at.H_MOVES], self.weights[at.H_LOCKS]
        plain = self.totals(rows) / locks - moves * move
        work, work2 = rows[:, at.H_WORK] / locks, rows[:, at.H_WORK2] / locks
        unit = np.where(work > 0, (plain - fixed) / np.maximum(work, 1e-12), 0.0)
        square = fixed**2 + 2 * fixed * unit * work + unit**2 * work2
        return np.asarray(square + 2 * move * moves * plain + move**2 * moves)


def hold_prices(profile: Profile, *, checked: bool) -> HoldPrices:
    """What a profile says of holds. ``checked``: refills check the pages that they move."""
    prices = price_by_counter(profile)
    weights = np.zeros(at.HOLD_WORDS)
    for word, counter in UNDER_LOCK.items():
        weights[word] = prices.get(counter, 0.0)
    if checked:
        weights[at.H_REFILL_PAGES] += prices.get(CHECKED, 0.0)
    return HoldPrices(weights, handover_of(profile) or 0.0)


def handover_of(profile: Profile) -> float | None:
    """The profile's price of a hand-over; None where it has none."""
    return next((p.value for p in profile.parameters if p.name == HANDOVER), None)


def queue_of(rows: npt.NDArray[Any], prices: HoldPrices, work: float) -> Queue:
    """Waits in slots like those of each row. ``work``: what a CPU does between two holds at least, ns.

    Acquisitions of a slot weigh slots by how many they are, so that few busy slots among many idle ones count. The CPUs
    that share the lock are as many as would give the slot's chance that two acquisitions come from different ones.
    """
    rows = np.maximum(rows, 0)
    locks = rows[:, at.H_LOCKS].astype(np.float64)
    per_slot = rows[:, at.H_LOCKS2] / locks
    cpus = np.maximum(rows[:, at.H_LOCKS2] / np.maximum(rows[:, at.H_SAME], 1), 1.0)
    hold = np.maximum(prices.totals(rows) / locks, 1e-9)
    cycle = at.SLOT_NS * cpus / per_slot
    return closed_queue(cpus, cycle, hold, prices.squares(rows), handover=prices.handover, work=work)


def lock_block(outcome: Outcome, z: int, prices: HoldPrices, duration_ns: int, work: float) -> dict[str, Any]:
    """What the result says of one zone's lock. ``work``: as of :func:`queue_of`."""
    rows = slot_classes(outcome.machine, z)
    if not len(rows):
        return {
            "acquisitions": 0, "hold_mean": None, "utilisation": 0.0, "contended": 0.0, "wait_mean": None,
            "wait_p99": None, "spin_total": 0.0, "busiest_slot": None,
        }  # fmt: skip
    locks = rows[:, at.H_LOCKS].astype(np.float64)
    held = float(prices.totals(rows).sum())
    queue = queue_of(rows, prices, work)
    spin = float((queue.wait * locks).sum())
    busiest = None
    if (found := busiest_slot(outcome.machine, z)) is not None:
        row, start_ns = found
        there = queue_of(row[None, :], prices, work)
        busiest = {
            "start_ns": start_ns,
            "acquisitions": int(row[at.H_LOCKS]),
            "cpus": float(row[at.H_LOCKS2] / row[at.H_SAME]),
            "utilisation": float(prices.totals(row[None, :])[0]) / at.SLOT_NS,
            "wait_mean": float(there.wait[0]),
        }
    return {
        "acquisitions": int(locks.sum()),
        "hold_mean": held / float(locks.sum()),
        "utilisation": held / max(duration_ns, 1),
        "contended": float((queue.contended * locks).sum() / locks.sum()),
        "wait_mean": spin / float(locks.sum()),
        "wait_p99": wait_percentile(queue, locks, 0.99),
        "spin_total": spin,
        "busiest_slot": busiest,
    }


def work_between_holds(outcome: Outcome, zones: int, profile: Profile, prices: HoldPrices) -> float:
    """What the allocator does outside of zone locks for each time that it takes one, at a profile's prices, ns."""
    done = dict(zip(COUNTERS, (outcome.totals + outcome.worker + outcome.background).tolist(), strict=False))
    rows = np.concatenate([slot_classes(outcome.machine, z) for z in range(zones)])
    outside = math.fsum(price(done, profile).values()) - float(prices.totals(rows).sum())
    return max(outside, 0.0) / max(int(rows[:, at.H_LOCKS].sum()), 1)


def contention(
    outcome: Outcome, config: MachineConfig, profile: Profile, counters: Mapping[str, int]
) -> dict[str, Any]:
    """The ``contention`` of a result's entry, in ns; a ``reason`` instead where the profile has no times.

    ``counters``: of the targeted requests. One of their acquisitions waits as long as any other of the machine.
    """
    w = outcome.machine.w
    pcp = {
        "acquisitions": int(sum(w[p * at.P_WORDS + at.P_LOCKS] for p in range(w[at.CFG_ZONES] * config.cpus))),
        "emptied_by_others": int(w[at.CFG_PCP_OTHERS]),
    }
    if profile.unit != "ns":
        reason = f"profile {profile.name} is in {profile.unit}: waiting needs times, so a profile in ns"
        return {"unit": profile.unit, "reason": reason, "pcp_locks": pcp}
    prices = hold_prices(profile, checked=int(w[at.CFG_PAGE_CHECKS]) == at.CHECK_LEAVING)
    duration_ns = max(int(w[at.CFG_NOW]) - int(outcome.scalars[loop.X_START_NS]), 1)
    zones = sorted(config.zones, key=lambda zone: (zone.node, ZONE_NAMES.index(zone.name)))
    work = work_between_holds(outcome, len(zones), profile, prices)
    locks = [
        {"lock": f"{zone.name}, node {zone.node}"} | lock_block(outcome, z, prices, duration_ns, work)
        for z, zone in enumerate(zones)
    ]
    taken = sum(lock["acquisitions"] for lock in locks)
    spin = sum(lock["spin_total"] for lock in locks)
    total = math.fsum(price(counters, profile).values())
    targeted = spin / taken * counters["zone_lock_acquisitions"] if taken else 0.0
    return {
        "unit": "ns",
        "slot_ns": at.SLOT_NS,
        "duration_ns": duration_ns,
        "handover": handover_of(profile),
        "locks": locks,
        "pcp_locks": pcp,
        "spin_total": spin,
        "spin_targeted": targeted,
        "share_of_cost": targeted / (total + targeted) if total + targeted > 0 else 0.0,
    }


assert set(UNDER_LOCK.values()) | {CHECKED} <= set(COUNTERS)
