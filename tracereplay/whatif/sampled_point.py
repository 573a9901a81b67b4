"""One sampled point: blocks of the demand replayed with its settings, until its cost is known well enough."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from tracereplay.machine.config import percpu_batch
from tracereplay.machine.counters import NR_COUNTERS
from tracereplay.machine.retune import retune
from tracereplay.replay.charged import charged
from tracereplay.replay.checkpoint import restore, twin
from tracereplay.whatif.sampled_baseline import JUDGED, LEAD, Baseline, feed
from tracereplay.whatif.sampled_estimate import Drawn, estimate

if TYPE_CHECKING:
    from tracereplay.machine.config import MachineConfig
    from tracereplay.replay.engine import Engine
    from tracereplay.strategies.registry import Choice

FIRST_DRAWN = 16
MORE = 1.5
"""So many times as many blocks are drawn where those there do not suffice."""
MOST_WORK = 0.7
"""Share of the trace's operations up to which sampling is tried before a point is replayed whole."""

I64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What sampling found of a point. Figures are the counters, then the cost at the prices' values."""

    values: Floats
    """[figure]"""
    draws: Floats
    """[draw, figure]"""
    low: Floats
    """95 % intervals, the warm-up's error in them, [figure]."""
    high: Floats
    warmup: Floats
    """The part of these that is the warm-up's: to the low side and to the high, [2, figure]."""
    drawn: int
    """Blocks drawn."""
    drawable: int
    """Out of so many."""
    blocks: int
    """Of the trace."""
    work: float
    """Operations replayed over those of the trace."""


class Point:
    """A strategy on a machine, measured against a baseline of the same demand and the same start."""

    def __init__(self, base: Baseline, choice: Choice, machine: MachineConfig) -> None:
        """Raises StrategyError, ParameterError."""
        self.base, self.choice, self.machine = base, choice, machine
        ready = base.ready
        path = ready.path and replace(ready.path, counter_batch=percpu_batch(machine))
        self._start = cast("Engine", replace(ready, machine=machine, path=path).engine(choice))
        self._state = self._start.state.copy()
        self._changed = np.flatnonzero(self._state != base.state)
        self._engine = twin(base.engine)
        self._engine.params, self._engine.pcp_protection = choice.params, machine.pcp_protection
        self._ops = 0

    @property
    def work(self) -> float:
        """Operations replayed so far, as a share of the trace's."""
        return self._ops / len(self.base.spool)

    def lead(self) -> I64:
        """From the start to where block LEAD is measured: what came before block 0's measure, then each block, [1 +
        LEAD, NR_COUNTERS]."""
        rows, at = [], 0
        before = charged(self._start)
        for end in self.base.measured[: LEAD + 1]:
            self._feed(self._start, at, end)
            now, at = charged(self._start), end
            rows.append(now - before)
            before = now
        return np.array(rows)

    def block(self, k: int) -> I64:
        """A block but the last, from the baseline's checkpoint, [NR_COUNTERS]."""
        engine = self._resumed(k)
        before = charged(engine)
        self._feed(engine, self.base.measured[k], self.base.measured[k + 1])
        return charged(engine) - before

    def last(self) -> I64:
        """The last block, and what the strategy does at the end, [NR_COUNTERS]."""
        engine = self._resumed(self.base.blocks - 1)
        before = charged(engine)
        self._feed(engine, self.base.measured[-1], len(self.base.spool))
        end = engine.finish()
        return np.asarray((end.totals + end.worker)[:NR_COUNTERS] - before)

    def _resumed(self, k: int) -> Engine:
        """The machine where block ``k`` is measured, with the point's settings since the block's start."""
        engine, base = self._engine, self.base
        restore(engine, base.shelf.get(k))
        retune(engine.machine, self.machine)
        changed = self._changed[engine.state[self._changed] == base.state[self._changed]]
        engine.state[changed] = self._state[changed]
        words = self.choice.params.pack()
        engine.state[: len(words)] = words
        self._feed(engine, base.starts[k], base.measured[k])
        return engine

    def _feed(self, engine: Engine, start: int, end: int) -> None:
        feed(engine, self.base.spool, start, end)
        self._ops += end - start


class Sampler:
    """The blocks of a point that were measured."""

    def __init__(self, point: Point, prices: Floats) -> None:
        """``prices``: of each counter, [NR_COUNTERS]."""
        self.point, self.prices = point, prices
        base, lead = point.base, point.lead()
        heavy = [point.block(k) for k in base.heavy]
        self._certain = lead.sum(axis=0) + point.last() + sum(heavy)
        seen = [lead[k + 1] - base.known(k) for k in range(LEAD)]
        seen += [paid - base.known(k) for k, paid in zip(base.heavy, heavy, strict=True)]
        self._seen = np.abs(self._figures(seen)).max(axis=0)
        self._left = self._figures([lead[k + 1] - point.block(k) for k in JUDGED])
        self._off: list[I64] = []

    def affordable(self, blocks: int) -> bool:
        """Whether so many blocks can be had for MOST_WORK of the trace, with all that was done before."""
        return self.point.work + (blocks - len(self._off)) * 1.125 / self.point.base.blocks <= MOST_WORK

    def measured(self, blocks: int, draws: int, seed: int) -> Measured:
        """What the first so many blocks of the baseline's order say."""
        point, base = self.point, self.point.base
        self._off += [point.block(k) - base.known(k) for k in base.order[len(self._off) : blocks]]
        off = self._figures(self._off[:blocks])
        drawn = Drawn(
            known=self._figures(base.drawable_known),
            blocks=base.drawable,
            base=self._figures([base.known(k) for k in base.order[:blocks]]),
            off=off,
            farthest=np.maximum(self._seen, np.abs(off).max(axis=0)),
            left=self._left,
        )
        found = estimate(drawn, draws, seed)
        certain = self._figures(self._certain)
        return Measured(
            values=np.maximum(found.values + certain, 0),
            draws=np.maximum(found.draws + certain, 0),
            low=np.maximum(found.low + certain, 0),
            high=np.maximum(found.high + certain, 0),
            warmup=found.warmup,
            drawn=blocks,
            drawable=base.drawable,
            blocks=base.blocks,
            work=point.work,
        )

    def _figures(self, counters: Any) -> Floats:
        """Counters with their cost behind them, [..., figure]."""
        rows = np.asarray(counters, np.float64)
        return np.concatenate([rows, (rows @ self.prices)[..., None]], axis=-1)


def measure(point: Point, prices: Floats, *, precision: float, draws: int, seed: int) -> Measured | None:
    """Measure a point on ever more blocks until its cost, and what of it each counter is, is known to ``precision`` of
    the cost. None where it would be replayed nearly whole for that.

    ``prices``: of each counter, [NR_COUNTERS]. Raises StrategyError.
    """
    sampler, order = Sampler(point, prices), point.base.order
    blocks = min(FIRST_DRAWN, len(order))
    while sampler.affordable(blocks):
        found = sampler.measured(blocks, draws, seed)
        if precise(found, prices, precision):
            return found
        hopeless = np.abs(found.warmup[:, -1]).max() > precision * found.values[-1]
        if hopeless or blocks == len(order):
            break
        blocks = min(round(blocks * MORE), len(order))
    return None


def precise(found: Measured, prices: Floats, precision: float) -> bool:
    """Whether cost, and what of it each counter is, are known to ``precision`` of the cost."""
    off = np.maximum(found.high - found.values, found.values - found.low) * np.append(prices, 1.0)
    return bool((off <= precision * found.values[-1]).all())
