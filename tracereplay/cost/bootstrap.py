"""Sampling of requests: what of a cost is owed to the requests that this trace happens to hold.

The trace is cut into at most SLICES *slices*: bins of time in which a targeted request came, neighbours put together.
A resample draws runs of neighbouring slices, *blocks*, with replacement, the last slice followed by the first, until it
has as many slices as the trace (circular block bootstrap, Politis and Romano 1992). Requests that came close to each
other so stay together, and what makes them alike is kept.

How many requests come is not sampled: costs are per page and per request, and a total is the trace's pages times the
cost of a page. What a strategy's timers and shrinker did between two slices belongs to the earlier one; what it did at
the end of the trace is one and the same in every resample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tracereplay.machine.counters import COUNTERS, NR_COUNTERS

if TYPE_CHECKING:
    from tracereplay.replay.engine import Outcome

SLICES = 64
"""Most slices of a trace."""
MIN_BLOCKS = 8
"""Fewer blocks than this say nothing about how much others would differ."""
STORED_VECTORS = 64
STORED_CELLS = 1024
"""A result keeps its distinct requests when there are at most so many of them, in so many cells."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Counters of one strategy's requests by slice; the slices are the same for all strategies of a replay."""

    requests: Ints
    """[slice]"""
    pages: Ints
    """[slice]"""
    counters: Ints
    """Of requests that came in the slice, [slice, NR_COUNTERS]."""
    worker: Ints
    """The strategy's own work in and after the slice, [slice, NR_COUNTERS]."""
    end: Ints
    """Its work at the end of the trace, [NR_COUNTERS]."""
    vectors: Ints | None
    """Distinct requests, [vector, NR_COUNTERS]; None when the result did not keep them."""
    cells: Ints
    """Vector, slice, requests, [cell, 3]."""

    @staticmethod
    def of(outcome: Outcome) -> Sample:
        """Of a finished replay."""
        taken = np.flatnonzero(outcome.arrivals[:, 0])
        if not len(taken):
            return Sample.whole(
                {}, {}, np.zeros((0, NR_COUNTERS), np.int64), np.zeros(0, np.int64), pages=0, requests=0
            )
        starts = taken[:: -(-len(taken) // SLICES)]
        # bins without a request end the slice before them; those before the first belong to the first
        slice_of = np.maximum(np.searchsorted(starts, np.arange(len(outcome.arrivals)), side="right") - 1, 0)
        slices = np.zeros((len(starts), 2 + 2 * NR_COUNTERS), np.int64)
        worker = outcome.worker_series[:, :NR_COUNTERS]
        np.add.at(slices, slice_of, np.concatenate([outcome.arrivals, outcome.series, worker], axis=1))
        vector, time_bin, requests = outcome.cells.T
        keys, places = np.unique(vector * len(starts) + slice_of[time_bin], return_inverse=True)
        merged = np.bincount(places, requests, len(keys)).astype(np.int64)
        return Sample(
            requests=slices[:, 0],
            pages=slices[:, 1],
            counters=slices[:, 2 : 2 + NR_COUNTERS],
            worker=slices[:, 2 + NR_COUNTERS :],
            end=outcome.worker[:NR_COUNTERS] - worker.sum(axis=0),
            vectors=outcome.vectors,
            cells=np.stack([keys // len(starts), keys % len(starts), merged], axis=1),
        )

    @staticmethod
    def whole(
        totals: Mapping[str, int],
        worker: Mapping[str, int],
        vectors: npt.NDArray[Any] | None,
        counts: npt.NDArray[Any],
        *,
        pages: int,
        requests: int,
    ) -> Sample:
        """Of totals (with ``worker`` in them) that nothing more is known of: one slice."""
        own = _row(worker)
        cells = np.stack([np.arange(len(counts)), np.zeros(len(counts)), counts], axis=1).astype(np.int64)
        return Sample(
            requests=np.array([requests], np.int64),
            pages=np.array([pages], np.int64),
            counters=(_row(totals) - own)[None],
            worker=own[None],
            end=np.zeros(NR_COUNTERS, np.int64),
            vectors=None if vectors is None else np.asarray(vectors[:, :NR_COUNTERS], np.int64),
            cells=cells,
        )

    @property
    def counts(self) -> Ints:
        """Requests of each vector, [vector]."""
        vectors = 0 if self.vectors is None else len(self.vectors)
        return np.bincount(self.cells[:, 0], self.cells[:, 2], vectors).astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        """Enough to price it again; counters that are 0 throughout are left out, and many distinct requests."""
        kept = self.vectors is not None and len(self.vectors) <= STORED_VECTORS and len(self.cells) <= STORED_CELLS
        return {
            "requests": self.requests.tolist(),
            "pages": self.pages.tolist(),
            "counters": _columns(self.counters),
            "worker": _columns(self.worker),
            "end": {name: int(n) for name, n in zip(COUNTERS, self.end, strict=True) if n},
            "vectors": _columns(self.vectors) if kept and self.vectors is not None else None,
            "cells": self.cells.tolist() if kept else None,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Sample:
        """Of the ``sample`` of a result."""
        slices = len(data["requests"])
        cells = np.array(data["cells"] or [], np.int64).reshape(-1, 3)
        vectors = data["vectors"]
        return Sample(
            requests=np.array(data["requests"], np.int64),
            pages=np.array(data["pages"], np.int64),
            counters=_table(data["counters"], slices),
            worker=_table(data["worker"], slices),
            end=_row(data["end"]),
            vectors=None if vectors is None else _table(vectors, int(cells[:, 0].max(initial=-1)) + 1),
            cells=cells,
        )


def _row(counters: Mapping[str, int]) -> Ints:
    return np.array([counters.get(name, 0) for name in COUNTERS], np.int64)


def _columns(rows: Ints) -> dict[str, list[int]]:
    return {name: rows[:, i].tolist() for i, name in enumerate(COUNTERS) if rows[:, i].any()}


def _table(columns: Mapping[str, list[int]], rows: int) -> Ints:
    """Inverse of _columns; counters that this version does not know are left out."""
    table = np.zeros((rows, NR_COUNTERS), np.int64)
    for name, values in columns.items():
        if name in COUNTERS:
            table[:, COUNTERS.index(name)] = values
    return table


@dataclass(frozen=True, slots=True, eq=False)
class Resampling:
    """Which slices are in which draw."""

    slices: int
    length: int
    """Slices of a block."""
    judged: bool
    """Whether there are blocks enough; else every draw is the trace itself."""
    times: Floats
    """How often a slice is in a draw, [draw, slice]; [1, slice] where nothing is resampled."""
    stretch: float
    """Deviations from the trace's own figure are made larger by this, as few blocks vary less than their source."""

    @property
    def blocks(self) -> int:
        """Blocks of a draw."""
        return self.slices // self.length


def resampling(sample: Sample, seed: int, draws: int) -> Resampling:
    """The resampling of a trace's slices. It depends on the demand and the seed only, not on what a strategy did."""
    slices = len(sample.requests)
    length = block_length(sample)
    judged = slices // length >= MIN_BLOCKS
    times = draws_of(seed, slices, length, draws) if judged else np.ones((1, slices))
    return Resampling(slices, length, judged, times, stretch_of(slices // length) if judged else 1.0)


def block_length(sample: Sample) -> int:
    """Slices of a block: the cube root of their number, or twice as many as demand stays alike if that is more.

    Alike: until the autocorrelation of pages per slice, and of pages per request, is below 2/sqrt(slices). At most so
    long that MIN_BLOCKS are left.
    """
    n = len(sample.requests)
    lags = [2 * _memory(sample.pages), 2 * _memory(sample.pages / np.maximum(sample.requests, 1))]
    return max(1, min(max(round(math.cbrt(n)), *lags), n // MIN_BLOCKS))


def _memory(values: npt.NDArray[Any]) -> int:
    """Last lag before the first at which the autocorrelation is not distinguishable from none."""
    n = len(values)
    deviation = values - values.mean()
    whole = float(deviation @ deviation)
    for lag in range(1, n):
        if not float(deviation[lag:] @ deviation[:-lag]) > 2 / math.sqrt(n) * whole:
            return lag - 1
    return 0


@lru_cache(maxsize=4)
def draws_of(seed: int, slices: int, length: int, draws: int) -> Floats:
    """How often each slice is in each draw, [draw, slice], in blocks of ``length``."""
    random = np.random.default_rng([seed, crc32(b"sampling")])
    firsts = random.integers(0, slices, (draws, -(-slices // length)))
    chosen = (firsts[:, :, None] + np.arange(length)) % slices
    chosen = chosen.reshape(draws, -1)[:, :slices] + slices * np.arange(draws)[:, None]
    times = np.bincount(chosen.ravel(), minlength=draws * slices).reshape(draws, slices).astype(np.float64)
    times.flags.writeable = False
    return times


def stretch_of(blocks: int) -> float:
    """Student's t for so many blocks over the normal's quantile, and the bias of a variance of few."""
    return student(blocks - 1) / 1.959964 * math.sqrt(blocks / (blocks - 1))


def student(freedom: int) -> float:
    """97.5 % quantile of Student's t (Cornish-Fisher expansion; right to 0.1 % from 7 degrees of freedom on)."""
    z, n = 1.959964, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
