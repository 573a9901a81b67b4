"""Waiting at a lock that CPUs take in turn: a closed queue with one server (docs/contention.md).

Each CPU thinks, asks for the lock, waits behind those that asked before it (ticket and MCS locks are FIFO), holds it,
and thinks again, so no more wait than there are CPUs. Mean waits come from mean value analysis (Reiser, Lavenberg,
1980) with the residual of the hold that an arrival finds (Reiser, 1979). All numbers are arrays over independent cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROUNDS = 60
TOLERANCE = 1e-4
"""Rounds at most in which waits, the rates that they leave and hand-overs are brought in line, and how well."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What an acquisition meets, case by case."""

    wait: Floats
    """Mean time from asking to having, hand-over included, ns."""
    contended: Floats
    """Share of acquisitions that find the lock taken."""
    spread: Floats
    """Squared coefficient of variation of the waits that are not 0."""


def closed_queue(
    cpus: Floats, cycle: Floats, hold: Floats, square: Floats, *, handover: float = 0.0, work: float = 0.0
) -> Queue:
    """Waits of ``cpus`` alike, each of which asks every ``cycle`` ns, as long as the lock can serve that.

    Who waits thinks the less, down to ``work`` ns, so rates stay as recorded until CPUs or lock have no time left.
    ``cpus`` may be broken numbers from 1 on: between two whole ones the waits are interpolated. ``hold``, ``square``:
    first and second moment of a hold, ns. ``handover``: what the lock is idle for after a hold when somebody waits,
    ns: its cache line goes to another CPU.
    """
    contended = np.zeros_like(hold)
    wait = np.zeros_like(hold)
    served, think = hold, np.maximum(cycle - hold, work)
    for _ in range(ROUNDS):
        served = hold + handover * contended
        residual = (square / hold + handover * contended) / 2
        think = (think + np.maximum(cycle - wait - served, work)) / 2
        before = wait
        wait, contended = _mean_values(cpus, think, served, residual)
        if np.all(np.abs(wait - before) <= TOLERANCE * (wait + hold)):
            break
    return Queue(wait + handover * contended, contended, _spread(cpus, think, hold, square))


def _mean_values(cpus: Floats, think: Floats, hold: Floats, residual: Floats) -> tuple[Floats, Floats]:
    """Mean wait, and the share of arrivals that find the lock taken, by adding CPUs one by one."""
    whole = np.floor(cpus)
    part = cpus - whole
    busy, queue = np.zeros_like(hold), np.zeros_like(hold)  # with one CPU fewer
    wait, contended = np.zeros_like(hold), np.zeros_like(hold)
    for n in range(1, int(np.ceil(cpus.max(initial=1.0))) + 1):
        weight = np.where(whole == n, 1 - part, np.where(whole == n - 1, part, 0.0))
        response = hold * (1 + queue - busy) + residual * busy
        wait += weight * (response - hold)
        contended += weight * busy
        rate = n / (think + response)
        busy, queue = np.minimum(rate * hold, 1.0), rate * response
    return wait, contended


def _spread(cpus: Floats, think: Floats, hold: Floats, square: Floats) -> Floats:
    """How much waits that are not 0 vary: what is left of one hold, and the holds of those queued behind it.

    Of M others, j are at the lock with a probability in proportion to M! / (M - j)! (hold / think)^j, as if holds were
    exponential. What is left of a hold has the moments that it has for gamma distributed ones.
    """
    from scipy.special import gammaln

    others = np.maximum(np.ceil(cpus) - 1, 1.0)[:, None]
    ahead = np.arange(1, int(others.max(initial=1.0)) + 1)[None, :]
    load = np.log(hold / np.maximum(think, 1e-9 * hold))[:, None]
    share = np.where(ahead <= others, ahead * load - gammaln(np.maximum(others - ahead, 0) + 1), -np.inf)
    share = np.exp(share - share.max(axis=1, keepdims=True, initial=-1e300))
    share /= share.sum(axis=1, keepdims=True)
    queued = (share * (ahead - 1)).sum(axis=1)
    of_number = (share * (ahead - 1) ** 2).sum(axis=1) - queued**2
    varies = np.maximum(square / hold**2 - 1, 0.0)  # of holds
    left = (1 + varies) * (1 + 2 * varies) / 3 - (1 + varies) ** 2 / 4
    return np.asarray((left + queued * varies + of_number) / ((1 + varies) / 2 + queued) ** 2)


def wait_percentile(queue: Queue, acquisitions: Floats, share: float) -> float:
    """The wait that ``share`` of all acquisitions do not exceed, ns; waits that are not 0 as gamma distributed."""
    from scipy.special import gammaincc

    waiting = acquisitions * queue.contended
    beyond = (1 - share) * float(acquisitions.sum())
    if float(waiting.sum()) <= beyond:
        return 0.0
    some = waiting > 0
    shape = 1 / np.clip(queue.spread[some], 1e-3, 1e3)
    scale = queue.wait[some] / queue.contended[some] / shape
    low, high = 0.0, float((shape * scale).max())
    while float((waiting[some] * gammaincc(shape, high / scale)).sum()) > beyond:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if float((waiting[some] * gammaincc(shape, middle / scale)).sum()) > beyond:
            low = middle
        else:
            high = middle
    return high
